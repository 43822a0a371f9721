"""Download a file of bounded size from the web, and resume after interruptions.

stone only downloads what the user asks for. The URL must be https, so that nobody can change the file on the way; plain
http is allowed for this machine only.

The partial file is in the cache folder, with a record of its validator (ETag or modification date). A download
is resumed by a Range request with If-Range (RFC 9110, 13.1.5 and 14): a changed file is downloaded from the start.

Redirects follow the rule of :mod:`stonecli.util.web`.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
import urllib.error
from collections.abc import Callable
from urllib.parse import urlsplit

from stonecli.errors import DownloadError, WebError
from stonecli.model.partial_file import PartialFile
from stonecli.util.web import TIMEOUT, TooSlow, is_cut, is_this_machine, network_error, open_url

MAX_BYTES = 64 << 20
BLOCK = 64 << 10
MAX_SECONDS = 3600.0  # limit for slow servers; the next run resumes
TRIES = 4  # if the connection breaks, as long as each try downloads something
PAUSE = 1.0  # seconds before the second try, twice that before the third

Progress = Callable[[int, int | None], None]


class _CutError(Exception):
    """The connection was closed early, or timed out."""


class _ChangedError(Exception):
    """The partial file is not the start of the file that the server has now."""


def fetch(url: str, *, sha256: str | None = None, progress: Progress = lambda done, total: None) -> bytes:
    """The bytes at ``url``, at most ``MAX_BYTES``.

    Args:
        url: https, or http on this machine.
        sha256: required SHA-256 in hexadecimal. With it, a download can be resumed even without a validator.
        progress: called with the number of bytes downloaded and the total, or None if that is unknown.

    Raises:
        DownloadError: the URL is invalid, the server fails, the file is too large or has another SHA-256, or the
            connection was lost; in the last case the partial file is kept for the next call.
        OSError: the cache folder cannot be written.
    """
    check_url(url)
    with PartialFile(url) as part:
        if part.is_locked:
            raise DownloadError("another stone process is downloading it; try again later")
        cuts = changes = 0
        deadline = time.monotonic() + MAX_SECONDS
        while True:
            before = part.size
            try:
                _receive(url, part, sha256, progress, deadline)
            except _CutError as error:
                if (
                    sha256 is None or _sha256(part) != sha256.lower()
                ):  # otherwise the file is complete, whatever size was declared
                    cuts += 1
                    if part.size > before and cuts < TRIES and time.monotonic() < deadline:
                        time.sleep(PAUSE * cuts)
                        continue
                    of_all = f" of {part.total}" if part.total is not None else ""
                    kept = f" after {part.size}{of_all} bytes" if part.size else ""
                    if part.size and (sha256 or part.validator):
                        kept += "; run the same command again to resume"
                    raise DownloadError(f"{error}{kept}") from error
            except _ChangedError as error:
                part.clear()
                changes += 1
                if changes > 1:
                    raise DownloadError("the server's responses are inconsistent") from error
                continue
            if sha256 is not None and (found := _sha256(part)) != sha256.lower():
                part.clear()
                if before and not changes:  # the partial file was of another file
                    changes += 1
                    continue
                raise DownloadError(f"wrong file: its SHA-256 is {found}")
            content = part.read()
            part.remove()
            return content


def check_url(url: str) -> None:
    """Raise unless ``url`` may be downloaded.

    Raises:
        DownloadError: it is neither https nor http on this machine, or contains a user name and password.
    """
    try:
        parts = urlsplit(url)
        host, secret, _ = parts.hostname or "", parts.username or parts.password, parts.port
    except ValueError as error:
        raise DownloadError("not a URL") from error
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        raise DownloadError("not a URL; it must start with https://")
    if secret is not None:
        raise DownloadError("remove the user name and password from the URL: other programs could see them")
    if parts.scheme == "http" and not is_this_machine(host):
        raise DownloadError("use https: over http, others could replace the file")


def _receive(url: str, part: PartialFile, sha256: str | None, progress: Progress, deadline: float) -> None:
    """Request the bytes that ``part`` lacks and append them as they arrive."""
    headers: dict[str, str] = {}
    is_resuming = part.size > 0 and (part.validator or sha256) is not None
    if is_resuming:
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    try:
        with open_url(url, deadline, headers, timeout=TIMEOUT) as response:
            part.total = _start(response, part, is_resuming)
            progress(part.size, part.total)
            while block := response.read1(BLOCK):
                if part.size + len(block) > MAX_BYTES:
                    part.clear()
                    raise DownloadError(f"larger than {MAX_BYTES >> 20} MB")
                part.append(block)
                progress(part.size, part.total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and is_resuming:
            if sha256 is not None and _sha256(part) == sha256.lower():
                return  # the file was complete
            raise _ChangedError from error
        raise DownloadError(f"server error {error.code} {http.client.responses.get(error.code, '')}".strip()) from error
    except DownloadError:
        raise
    except WebError as error:
        raise DownloadError(str(error)) from error
    except urllib.error.URLError as error:
        raise _download_error(error.reason if isinstance(error.reason, Exception) else error) from error
    except (TimeoutError, ssl.SSLError, ConnectionError, http.client.HTTPException, UnicodeError) as error:
        raise _download_error(error) from error
    if part.total is not None and part.size != part.total:
        raise _CutError("the connection was lost")


def _sha256(part: PartialFile) -> str:
    return hashlib.sha256(part.read()).hexdigest()


def _start(response: http.client.HTTPResponse, part: PartialFile, is_resuming: bool) -> int | None:
    """Prepare ``part`` for the response, and return the total size, or None if the server does not declare it."""
    headers = response.headers
    validator = _validator(headers.get("ETag"), headers.get("Last-Modified"))
    length = _number(headers.get("Content-Length"))
    total = length
    if response.status == 206:
        start, total = _range(headers.get("Content-Range", ""))
        other = validator and part.validator and validator != part.validator
        if not is_resuming or start != part.size or other or (total is not None and total < start):
            raise _ChangedError
    elif response.status == 200:
        part.clear(validator)
    else:
        raise DownloadError(f"server error {response.status}: no content")
    if total is not None and total > MAX_BYTES:
        part.clear()
        raise DownloadError(f"larger than {MAX_BYTES >> 20} MB")
    return total


def _validator(etag: str | None, modified: str | None) -> str | None:
    """The validator of this content: a strong ETag, or else the modification date."""
    if etag and etag.startswith('"') and len(etag) < 200:
        return etag
    return modified if modified and len(modified) < 100 else None


def _range(text: str) -> tuple[int | None, int | None]:
    """First byte and total size in ``bytes 5-9/10``; None for missing values."""
    unit, _, rest = text.partition(" ")
    positions, _, total = rest.partition("/")
    return (_number(positions.partition("-")[0]) if unit == "bytes" else None), _number(total)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


def _download_error(error: BaseException) -> Exception:
    """The error to raise for a network error: one that is retried, or a final one."""
    text = network_error(error)
    if isinstance(error, TimeoutError) and not isinstance(error, TooSlow):
        text = f"no data from the server for {TIMEOUT:.0f} s"
    if isinstance(error, TimeoutError) or is_cut(error):
        return _CutError(text)
    return DownloadError(text)
