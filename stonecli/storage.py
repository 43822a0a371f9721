"""Recordings at addresses that fsspec opens (``s3://``, ``gs://``, ``https://``): found below one, and fetched.

Needs the extra ``cluster``. A recording is streamed into a temporary file, because decoders go back and forth in it,
and that file is gone when it was heard. Credentials and endpoints come from where each storage's own tools take them:
the environment, their configuration files, or fsspec's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin

from stonecli.engine import error_line
from stonecli.errors import StorageError, TagError
from stonecli.library import MUSIC_SUFFIXES, SYSTEM_FOLDERS, find_music
from stonecli.places import Place, Seen, Url

if TYPE_CHECKING:
    from stonecli.tagger import TagResult

MAX_BYTES = 2 << 30  # of one recording: three hours of 24 bits, 48 kHz, stereo
_BLOCK = 8 << 20
_CONNECT_SECONDS, _SILENT_SECONDS = 30, 60  # that a web server may take to answer, and be silent for
_KINDS = ("file", "directory")
_PAGES = ("text/html", "application/xhtml+xml")
NOT_WRITTEN = "tags are not written to addresses, only to files"


@dataclass(frozen=True)
class Found:
    """A recording, or something on the way that could not be read.

    Attributes:
        place: as the user gave it, or below what he gave.
        error: None for a recording; else one line that says what is wrong, without the place.
    """

    place: Place
    error: str | None


def find_places(
    places: Iterable[Place], leftovers: list[Path] | None = None, seen: Seen | None = None
) -> Iterator[Found]:
    """The recordings that ``places`` name or hold, each once, one by one: paths as ``find_music``, and addresses.

    Of a bucket or folder, what lies below it and ends as music does; hidden names are passed over. What is already in
    ``seen`` is left out, and what is yielded is added.
    """
    seen = Seen() if seen is None else seen
    files: set[int | str] = set()
    for place in places:
        if isinstance(place, Url):
            found = find_urls(place)
        else:
            found = (Found(finding.path, finding.error) for finding in find_music([place], leftovers, files))
        for one in found:
            if seen.add(str(one.place)):
                yield one


def find_urls(url: Url) -> Iterator[Found]:
    """The recordings at or below an address. One that ends as music does is taken for one without being asked for."""
    if url.suffix.lower() in MUSIC_SUFFIXES:
        yield Found(url, None)
        return
    try:
        files, path = _file_system(url)
        if not (url.text.endswith("/") if url.is_web else files.isdir(path)):
            yield Found(url, None)
            return
        names = _s3_names(files, path) if url.protocol in ("s3", "s3a") else _walked(files, path, url)
        decoded = unquote if url.is_web else str
        for name in names:
            below = Url(name if "://" in name else files.unstrip_protocol(name))
            if below.suffix.lower() in MUSIC_SUFFIXES and not _is_hidden(decoded(name).removeprefix(decoded(path))):
                yield Found(below, None)
    except Exception as error:  # each storage has classes of its own
        yield Found(url, _reason(error))


@contextmanager
def fetched(url: Url, *, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """A temporary copy of the recording, with its ending; deleted at the end.

    Raises:
        StorageError: it cannot be fetched, or is larger than ``max_bytes``; no more than that is ever kept.
    """
    suffix = url.suffix if url.suffix.lower() in MUSIC_SUFFIXES else ""
    with tempfile.TemporaryDirectory(prefix="stone-") as folder:
        copy = Path(folder) / f"recording{suffix}"
        try:
            _fetch(url, copy, max_bytes)
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(_reason(error)) from error
        yield copy


@dataclass(frozen=True)
class AnyPlace:
    """Does with a path what ``act`` does, and with an address the same on a copy of it, to which nothing is written.

    Attributes:
        act: hears one file; a ``Tagger`` without cache, for the copy's path means nothing.
        writes: whether it was asked to write.
        act_on_path: for paths, where that is another.
    """

    act: Callable[[Path], TagResult]
    writes: bool
    act_on_path: Callable[[Path], TagResult] | None = None

    def __call__(self, place: Place) -> TagResult:
        """What became of the recording at ``place``.

        Raises:
            TagError: it has an address, and was to be written.
            StorageError: it cannot be fetched. Others: as ``act`` does.
        """
        if isinstance(place, Path):
            return (self.act_on_path or self.act)(place)
        if self.writes:
            raise TagError(NOT_WRITTEN)
        with fetched(place) as copy:
            return replace(self.act(copy), path=place)


def _fetch(url: Url, copy: Path, max_bytes: int) -> None:
    files, path = _file_system(url)
    done = 0
    # One request for the whole of a web page: not every server knows ranges.
    with files.open(path, "rb", block_size=0 if url.is_web else _BLOCK) as source, copy.open("wb") as target:
        size = getattr(source, "size", None)
        if size is not None and size > max_bytes:
            raise StorageError(f"larger than {max_bytes >> 20} MB")
        while block := source.read(_BLOCK):
            done += len(block)
            if done > max_bytes:  # whatever was announced
                raise StorageError(f"larger than {max_bytes >> 20} MB")
            target.write(block)
    if size is not None and done != size:
        raise StorageError(f"{done} of {size} bytes came")


def _file_system(url: Url) -> tuple[Any, str]:
    """The file system of an address, and its name there. A chain (``zip://…::https://…``) is a name like any other."""
    try:
        import fsspec
    except ImportError:
        raise StorageError("addresses need the extra cluster: pip install 'stonecli[cluster]'") from None
    options: dict[str, Any] = {}
    try:
        kind = fsspec.get_filesystem_class(url.protocol)
        if url.is_web:
            from aiohttp import ClientTimeout

            limits = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
            options["client_kwargs"] = {"timeout": limits}
        files = fsspec.filesystem(url.protocol, use_listings_cache=False, **options)
    except ImportError as error:
        raise StorageError(f"{url.protocol}:// needs a package: {_reason(error)}") from error
    except ValueError as error:
        raise StorageError(f"{url.protocol}:// is not known") from error
    return files, str(kind._strip_protocol(url.text))


def _s3_names(files: Any, path: str) -> Iterator[str]:
    """Names below a prefix, a page of a thousand at a time: fsspec's own listing would hold the whole bucket."""
    bucket, _, key = path.partition("/")
    token: dict[str, str] = {}
    while True:
        prefix = f"{key.rstrip('/')}/" if key else ""
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for entry in page.get("Contents", ()):
            yield f"{bucket}/{entry['Key']}"
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _walked(files: Any, top: str, url: Url) -> Iterator[str]:
    """Names below a folder; one folder's are held at a time."""
    entries = _linked if url.is_web else _listed
    pending, seen = [top], {top}
    while pending:
        listed = sorted(entries(files, pending.pop()))
        yield from (name for name, is_folder in listed if not is_folder)
        for name in (name for name, is_folder in reversed(listed) if is_folder):
            if name not in seen:
                seen.add(name)
                pending.append(name)


def _listed(files: Any, folder: str) -> set[tuple[str, bool]]:
    """Name of each entry of a folder, and whether it is a folder itself."""
    entries = files.ls(folder, detail=True)
    return {(str(entry["name"]), entry["type"] == "directory") for entry in entries if entry["type"] in _KINDS}


def _linked(files: Any, page: str) -> set[tuple[str, bool]]:
    """The same of a web folder: what its page links to below itself.

    fsspec finds links by a pattern that knows neither ``&amp;`` and apostrophes in a name nor ``./`` before it, and so
    Apache and Caddy write them.
    """
    if files.info(page).get("mimetype", _PAGES[0]) not in _PAGES:  # a stream may have no end
        return set()
    links = _Links()
    links.feed(files.cat_file(page).decode("utf-8", "replace"))
    found = set()
    for link in links.found:
        with suppress(ValueError):  # no address
            name = urldefrag(urljoin(page, link.strip())).url
            if name != page and unquote(name).startswith(unquote(page)):  # a page may lead anywhere
                found.add((name, name.endswith("/")))
    return found


class _Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag, with its attributes unescaped."""
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in name.split("/") if part)


def _reason(error: Exception) -> str:
    """One line for the user; what a storage says is no bug of ours."""
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        cause = error.__cause__  # fsspec calls everything missing that a web server does not give
        return _reason(cause) if isinstance(cause, Exception) and cause is not error else "no such file"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "the server does not answer"
    status = getattr(error, "status", None)  # of aiohttp: its text repeats the address
    if isinstance(status, int):
        return "no such file" if status == 404 else f"the server answers {status}"
    return error_line(error).removeprefix("unexpected ")
