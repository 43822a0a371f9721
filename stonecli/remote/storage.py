"""Recordings at URLs: single files of the web, and files and folders of the storages that fsspec opens (``s3://``).

A recording is streamed into a temporary file, because decoders seek in it; the file is deleted after the analysis.
Storages other than the web need the extra ``cluster``; their credentials and endpoints come from where each storage's
own tools take them: the environment, their configuration files, or fsspec's. The web follows :mod:`stonecli.util.web`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonecli.errors import StorageError, TagError
from stonecli.jobs import error_line
from stonecli.library.walk import MUSIC_SUFFIXES, SYSTEM_FOLDERS, find_music
from stonecli.remote.locations import Place, Seen, Url

if TYPE_CHECKING:
    from stonecli.tagging import TagResult

MAX_BYTES = 2 << 30  # of one recording: three hours of 24 bits, 48 kHz, stereo
_BLOCK = 8 << 20
MAX_SECONDS = 3600.0  # for one recording, so that a server that trickles comes to an end
_SILENT_SECONDS = 60  # that a web server may be silent for
_MAX_NAMES, _MAX_DEPTH = 10_000_000, 100  # of what a storage lists
_KINDS = ("file", "directory")
_PAGES = ("text/html", "application/xhtml+xml")
WEB_FOLDER = "web folders are not searched; give the URL of each file (stone tag - reads a list), or mount the folder"
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
    """The recordings at or below a URL. The web has no folders: there, each recording needs its own URL."""
    if url.is_web and not url.name:
        yield Found(url, WEB_FOLDER)
        return
    if url.is_web or url.suffix.lower() in MUSIC_SUFFIXES:  # not asked for before it is fetched
        yield Found(url, None)
        return
    try:
        files, path = _file_system(url)
        if not files.isdir(path):
            yield Found(url, None)
            return
        names = _s3_names(files, path) if url.protocol in ("s3", "s3a") else _walked(files, path)
        for number, name in enumerate(names):
            if number >= _MAX_NAMES:
                raise StorageError(f"more than {_MAX_NAMES:,} files; name a folder or prefix in it")
            below = Url(name if "://" in name else files.unstrip_protocol(name))
            if below.suffix.lower() in MUSIC_SUFFIXES and not _is_hidden(name.removeprefix(path)):
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
    deadline = time.monotonic() + MAX_SECONDS
    with ExitStack() as stack:
        if url.is_web:
            source, size = stack.enter_context(_web_page(url, deadline))
        else:
            files, path = _file_system(url)
            source = stack.enter_context(files.open(path, "rb", block_size=_BLOCK))
            size = getattr(source, "size", None)
        if size is not None and size > max_bytes:
            raise StorageError(f"larger than {max_bytes >> 20} MB")
        done = 0
        with copy.open("wb") as target:
            while block := source.read(_BLOCK):
                done += len(block)
                if done > max_bytes:  # whatever was announced
                    raise StorageError(f"larger than {max_bytes >> 20} MB")
                if time.monotonic() > deadline:
                    raise StorageError("it takes too long")
                target.write(block)
    if size is not None and done != size:
        raise StorageError(f"{done} of {size} bytes came")


@contextmanager
def _web_page(url: Url, deadline: float) -> Iterator[tuple[Any, int | None]]:
    """What a web server sends, to be read, and its size where the server says it."""
    from urllib.error import HTTPError

    from stonecli.util.web import WebError, network_error, open_url

    try:
        with open_url(url.text, deadline, timeout=_SILENT_SECONDS) as response:
            if response.headers.get_content_type() in _PAGES and response.headers.get("Content-Type"):
                raise StorageError(f"a web page, not a recording; {WEB_FOLDER}")
            length = response.headers.get("Content-Length", "")
            yield response, int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
    except HTTPError as error:
        error.close()
        raise StorageError("no such file" if error.code == 404 else f"the server answers {error.code}") from error
    except (StorageError, WebError):
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise StorageError(network_error(error)) from error


def _file_system(url: Url) -> tuple[Any, str]:
    """The file system of an address, and its name there. A chain (``zip://…::https://…``) is a name like any other."""
    try:
        import fsspec
    except ImportError:
        raise StorageError("addresses need the extra cluster: pip install 'stonecli[cluster]'") from None
    try:
        kind = fsspec.get_filesystem_class(url.protocol)
        files = fsspec.filesystem(url.protocol, use_listings_cache=False)
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


def _walked(files: Any, top: str) -> Iterator[str]:
    """Names below a folder; one folder's are held at a time."""
    pending, seen = [(top, 0)], {top}
    while pending:
        folder, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise StorageError(f"folders are nested more than {_MAX_DEPTH} deep")
        listed = sorted(_listed(files, folder))
        yield from (name for name, is_folder in listed if not is_folder)
        for name in (name for name, is_folder in reversed(listed) if is_folder):
            if name not in seen:
                seen.add(name)
                pending.append((name, depth + 1))


def _listed(files: Any, folder: str) -> set[tuple[str, bool]]:
    """Name of each entry of a folder, and whether it is a folder itself."""
    entries = files.ls(folder, detail=True)
    return {(str(entry["name"]), entry["type"] == "directory") for entry in entries if entry["type"] in _KINDS}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in name.split("/") if part)


def _reason(error: Exception) -> str:
    """One line for the user; what a storage says is no bug of ours."""
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "the server does not answer"
    return error_line(error).removeprefix("unexpected ")
