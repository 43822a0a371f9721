"""The location of a recording: a path, or a URL that fsspec can open (``s3://``, ``https://``)."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

_NAME = "[A-Za-z][A-Za-z0-9+.-]+"  # two letters or more, because C:// is a drive
_SCHEME = re.compile(f"({_NAME}(?:::{_NAME})*)://")  # several in a chained URL of fsspec, such as simplecache::s3://


@dataclass(frozen=True, slots=True)
class Url:
    """A URL, exactly as it was given; ``str()`` returns it."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def protocol(self) -> str:
        """The part before ``://``, in lower case."""
        return self.text.partition("://")[0].lower()

    @property
    def is_web(self) -> bool:
        """Whether the protocol is ``http`` or ``https``, which have queries and percent-encoding."""
        return self.protocol in ("http", "https")

    @property
    def name(self) -> str:
        """The last part of the path, decoded; "" if the URL ends in a slash."""
        if self.is_web:
            with suppress(ValueError):  # not a valid URL
                return unquote(urlsplit(self.text).path).rpartition("/")[2]
        return self.text.partition("://")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The extension of the name with the dot, as in ``Path.suffix``."""
        return Path(self.name).suffix if self.name not in ("", ".", "..") else ""


Location: TypeAlias = Path | Url


def parse_location(text: str) -> Location:
    """The path or URL that the user has entered; ``file://`` URLs are converted to paths."""
    if not (match := _SCHEME.match(text)):
        return Path(text)
    if match[1].lower() == "file":
        from urllib.request import url2pathname  # imports the web client

        return Path(url2pathname(urlsplit(text.replace("#", "%23").replace("?", "%3F")).path))
    return Url(text)


class Seen:
    """A set of paths and URLs, stored as hashes of 16 bytes: about 100 MB per million, whatever their length."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, text: str) -> bool:
        """Add a path or URL, and return whether it is new."""
        digest = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
        if digest in self._digests:
            return False
        self._digests.add(digest)
        return True

    def __len__(self) -> int:
        return len(self._digests)
