"""Find and download recordings at URLs: files on the web, and files and folders in the storage of fsspec (``s3://``).

A recording is streamed into a temporary file, because decoders seek in it; the file is deleted after the analysis.
Storages other than the web need the extra ``cluster``. Their credentials and endpoints are read from the environment,
from the configuration files of their own tools, or from those of fsspec. The web follows :mod:`stonecli.util.web`.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from stonecli.errors import StorageError, describe
from stonecli.library.locations import Location, Seen, Url
from stonecli.library.walk import MUSIC_SUFFIXES, SYSTEM_FOLDERS, find_music
from stonecli.util.installation import how_to_install

MAX_BYTES = 2 << 30  # per recording: three hours at 24 bits, 48 kHz, stereo
_BLOCK = 8 << 20
MAX_SECONDS = 3600.0  # per recording: limits slow servers
_SILENT_SECONDS = 60  # without data from a web server
_MAX_NAMES, _MAX_DEPTH = 10_000_000, 100  # limits for listing a storage
_KINDS = ("file", "directory")
_PAGES = ("text/html", "application/xhtml+xml")
_CHAIN = re.compile(r"::[A-Za-z][A-Za-z0-9+.-]*://")
# Protocols of fsspec for files in another file, or on top of another storage.
_LAYERS = ("zip", "tar", "libarchive", "dir", "reference", "simplecache", "filecache", "blockcache", "cached")
NO_CHAIN = (
    "archives and chained URLs (with ::) are not supported; "
    "give the URL of a recording or a folder, such as s3://bucket/song.flac, or unpack the archive"
)
WEB_FOLDER = "web folders are not searched; give the URL of each file (stone tag - reads a list), or mount the folder"


@dataclass(frozen=True)
class Found:
    """A recording, or a path or URL that could not be read.

    Attributes:
        location: path or URL as the user gave it, or below it.
        error: None for a recording; otherwise one line with the error, without the path or URL.
    """

    location: Location
    error: str | None


@dataclass(frozen=True)
class Storage:
    """How stone reads the URLs of some protocols.

    Attributes:
        protocols: the parts before ``://``; empty for all other protocols of fsspec.
        open_file: the recording at a URL as a file, and its declared size or None; the second argument is the time
            limit, as a time of ``time.monotonic``.
        list_files: the URL of each file below a folder, and its name in that folder; for a URL that is no folder, this
            URL alone with the name "". None for a storage without folders.
    """

    protocols: tuple[str, ...]
    open_file: Callable[[Url, float], AbstractContextManager[tuple[Any, int | None]]]
    list_files: Callable[[Url], Iterator[tuple[Url, str]]] | None


def find_recordings(
    locations: Iterable[Location],
    leftovers: list[Path] | None = None,
    seen: Seen | None = None,
    playlist_name: str | None = None,
) -> Iterator[Found]:
    """The recordings at or below ``locations``, each once: paths as by ``find_music``, and URLs.

    In a bucket or folder, these are the files below it with a music extension that are not hidden. Recordings in
    ``seen`` are skipped, and the others are added to it.
    """
    seen = Seen() if seen is None else seen
    files: set[int | str] = set()
    for location in locations:
        if isinstance(location, Url):
            found = find_urls(location)
        else:
            music = find_music([location], leftovers, files, playlist_name=playlist_name)
            found = (Found(finding.location, finding.error) for finding in music)
        for one in found:
            if seen.add(str(one.location)):
                yield one


def find_urls(url: Url) -> Iterator[Found]:
    """The recordings at or below a URL. The web has no folders: there, each recording needs its own URL."""
    list_files = storage_of(url).list_files
    if list_files is None and not url.name:
        yield Found(url, WEB_FOLDER)
        return
    if list_files is None or url.suffix.lower() in MUSIC_SUFFIXES:  # requested only when it is downloaded
        yield Found(url, None)
        return
    try:
        for number, (file, name) in enumerate(list_files(url)):
            if number >= _MAX_NAMES:
                raise StorageError(f"more than {_MAX_NAMES:,} files; name a folder or prefix in it")
            if not name or (file.suffix.lower() in MUSIC_SUFFIXES and not _is_hidden(name)):
                yield Found(file, None)
    except Exception as error:  # each storage has its own exception classes
        yield Found(url, _reason(error))


@contextmanager
def fetched(url: Url, *, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """A temporary copy of the recording with its extension; deleted at the end of the block.

    Raises:
        StorageError: it cannot be downloaded, or is larger than ``max_bytes``, the most that is ever stored.
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


def _fetch(url: Url, copy: Path, max_bytes: int) -> None:
    deadline = time.monotonic() + MAX_SECONDS
    with ExitStack() as stack:
        source, size = stack.enter_context(storage_of(url).open_file(url, deadline))
        if size is not None and size > max_bytes:
            raise StorageError(f"larger than {max_bytes >> 20} MB")
        done = 0
        with copy.open("wb") as target:
            while block := source.read(_BLOCK):
                done += len(block)
                if done > max_bytes:  # whatever size was declared
                    raise StorageError(f"larger than {max_bytes >> 20} MB")
                if time.monotonic() > deadline:
                    raise StorageError(f"the download takes longer than {MAX_SECONDS / 60:.0f} minutes")
                target.write(block)
    if size is not None and done != size:
        raise StorageError(f"the download ended after {done:,} of {size:,} bytes; try again")


@contextmanager
def _web_page(url: Url, deadline: float) -> Iterator[tuple[Any, int | None]]:
    """The response of a web server as a file, and its declared size or None."""
    from urllib.error import HTTPError

    from stonecli.errors import WebError
    from stonecli.util.web import network_error, open_url

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


@contextmanager
def _stored_file(url: Url, _deadline: float) -> Iterator[tuple[Any, int | None]]:
    """The recording in a storage of fsspec as a file, and its declared size or None."""
    files, path, _ = _file_system(url)
    with files.open(path, "rb", block_size=_BLOCK) as source:
        yield source, getattr(source, "size", None)


def _file_system(url: Url) -> tuple[Any, str, bool]:
    """The file system of a URL, the name in it, and whether the URL says where the file system is, as ``ftp://host/``."""
    if url.protocol in _LAYERS or _CHAIN.search(url.text):
        raise StorageError(NO_CHAIN)
    try:
        import fsspec
    except ImportError:
        raise StorageError(f"this URL needs a package; {how_to_install('cluster')}") from None
    try:
        kind = fsspec.get_filesystem_class(url.protocol)
        where = kind._get_kwargs_from_urls(url.text)
        files = fsspec.filesystem(url.protocol, use_listings_cache=False, **where)
    except ImportError as error:
        raise StorageError(f"{url.protocol}:// needs a package: {_reason(error)}") from error
    except ValueError as error:
        known = "give https://, s3:// or another storage of fsspec"
        raise StorageError(f"{url.protocol}:// is not known; {known}") from error
    except TypeError as error:  # the constructor needs arguments that the URL and the configuration of fsspec lack
        raise StorageError(f"{url.protocol}:// needs settings in the configuration of fsspec: {error}") from error
    return files, str(kind._strip_protocol(url.text)), bool(where)


def _listing(list_names: Callable[[Any, str], Iterator[str]]) -> Callable[[Url], Iterator[tuple[Url, str]]]:
    """``Storage.list_files`` for a file system of fsspec; ``list_names`` has the names below a folder of it."""

    def list_files(url: Url) -> Iterator[tuple[Url, str]]:
        files, path, has_place = _file_system(url)
        if not files.isdir(path):
            yield url, ""
            return
        for name in list_names(files, path):
            below = name.removeprefix(path)
            if has_place:  # names lack the host
                yield Url(f"{url.text.rstrip('/')}/{below.lstrip('/')}"), below
            else:
                yield Url(name if "://" in name else files.unstrip_protocol(name)), below

    return list_files


def _s3_names(files: Any, path: str) -> Iterator[str]:
    """Names below a prefix, in pages of a thousand: the listing of fsspec would load the whole bucket."""
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
    """Names below a folder; the names of one folder are in memory at a time."""
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
    """The name of each entry of a folder, and whether it is a folder."""
    entries = files.ls(folder, detail=True)
    return {(str(entry["name"]), entry["type"] == "directory") for entry in entries if entry["type"] in _KINDS}


STORAGES = (
    Storage(("http", "https"), _web_page, None),
    Storage(("s3", "s3a"), _stored_file, _listing(_s3_names)),
    Storage((), _stored_file, _listing(_walked)),
)
"""Every kind of storage; the last one is for the protocols that no other one names."""


def storage_of(url: Url) -> Storage:
    """The storage that a URL belongs to."""
    return next((storage for storage in STORAGES if url.protocol in storage.protocols), STORAGES[-1])


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in name.split("/") if part)


def _reason(error: Exception) -> str:
    """One line for the user. Errors of a storage are not reported as unexpected, and often have no system message."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "permission denied"
    if type(error).__name__ == "NoCredentialsError":  # of botocore
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws configure"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "the server does not answer"
    return describe(error).removeprefix("unexpected ")
