"""Where a recording is: a path, or an address that fsspec can open (``s3://``, ``https://``)."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters and more: C:// is a drive


@dataclass(frozen=True, slots=True)
class Url:
    """An address, exactly as it was given; ``str()`` of it is the address."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def protocol(self) -> str:
        """What stands before ``://``, lower-case."""
        return self.text.partition("://")[0].lower()

    @property
    def is_web(self) -> bool:
        """Whether it is one of ``http`` and ``https``, in which a query and percent-encoding mean something."""
        return self.protocol in ("http", "https")

    @property
    def name(self) -> str:
        """The last part, decoded; "" for a folder that ends in a slash."""
        if self.is_web:
            with suppress(ValueError):  # no address after all
                return unquote(urlsplit(self.text).path).rpartition("/")[2]
        return self.text.partition("://")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with the dot, as that of a path."""
        return Path(self.name).suffix if self.name not in ("", ".", "..") else ""


Place: TypeAlias = Path | Url


def place_of(text: str) -> Place:
    """The place that the user has named; ``file://`` addresses are paths."""
    if not (match := _SCHEME.match(text)):
        return Path(text)
    if match[1].lower() == "file":
        return Path(url2pathname(urlsplit(text.replace("#", "%23").replace("?", "%3F")).path))
    return Url(text)


class Seen:
    """A set of places, kept as 16 bytes each: about 100 MB for a million, however long their names are."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, text: str) -> bool:
        """Whether the place is new; it is in the set from now on."""
        digest = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
        if digest in self._digests:
            return False
        self._digests.add(digest)
        return True

    def __len__(self) -> int:
        return len(self._digests)
