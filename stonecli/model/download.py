"""Download a model file of bounded size from the web; a connection that breaks is resumed.

stone only downloads what the user asks for. The URL must be https, so that nobody can change the file on the way; plain
http is allowed for this machine only. Redirects follow the rule of :mod:`stonecli.util.web`.

A broken download continues with a Range request with If-Range (RFC 9110, 13.1.5 and 14), so that a file that changed
meanwhile starts over. Models are small, so a download is held in memory, and nothing is kept for another run.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
from collections.abc import Callable
from urllib.parse import urlsplit

from stonecli.errors import DownloadError, WebError
from stonecli.util.web import TIMEOUT, TooSlow, is_cut, is_this_machine, network_error, open_url

MAX_BYTES = 64 << 20
BLOCK = 64 << 10
MAX_SECONDS = 3600.0  # limit for slow servers
TRIES = 4  # if the connection breaks, as long as each try downloads something
PAUSE = 1.0  # seconds before the second try, twice that before the third

Progress = Callable[[int, int | None], None]


class _CutError(Exception):
    """The connection was lost, or the server sent nothing for too long."""


def fetch(url: str, *, sha256: str | None = None, progress: Progress = lambda done, total: None) -> bytes:
    """The bytes at ``url``, at most ``MAX_BYTES``.

    Args:
        url: https, or http on this machine.
        sha256: required SHA-256 in hexadecimal.
        progress: called with the number of bytes downloaded and the total, or None if that is unknown.

    Raises:
        DownloadError: the URL is invalid, the server fails, the file is too large or has another SHA-256, or the
            connection was lost again and again.
    """
    check_url(url)
    part = _Part()
    deadline = time.monotonic() + MAX_SECONDS
    for number in range(1, TRIES + 1):
        before = len(part.content)
        try:
            _receive(url, part, progress, deadline)
            break
        except _CutError as error:
            if sha256 is not None and _sha256(part.content) == sha256.lower():
                break  # the file is complete, whatever size was declared
            if number == TRIES or len(part.content) <= before or time.monotonic() > deadline:
                total = f" of {part.total}" if part.total is not None else ""
                after = f" after {len(part.content)}{total} bytes" if part.content else ""
                raise DownloadError(f"{error}{after}; try again later") from error
            time.sleep(PAUSE * number)
    if sha256 is not None and (found := _sha256(part.content)) != sha256.lower():
        raise DownloadError(f"wrong file: its SHA-256 is {found}")
    return bytes(part.content)


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


class _Part:
    """The start of a file that was downloaded so far.

    Attributes:
        content: the bytes.
        validator: ETag or modification date of the file; "" if the server sent neither.
        total: size of the file; None if the server did not declare it.
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self.validator = ""
        self.total: int | None = None

    def start(self, response: http.client.HTTPResponse) -> None:
        """Prepare for what the response will send: the rest of the file, or a file from its start."""
        length = response.headers.get("Content-Length", "")
        self.total = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {len(self.content)}-"):
                raise DownloadError("the server's responses are inconsistent")
            self.total = None if self.total is None else len(self.content) + self.total
        elif response.status == 200:
            self.content.clear()
            tags = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
            # A weak ETag (W/) does not promise the same bytes.
            self.validator = tags[0] if tags[0].startswith('"') else tags[1]
            if not self.validator.isprintable() or len(self.validator) > 200:
                self.validator = ""
        else:
            raise DownloadError(f"server error {response.status}: no content")
        self.refuse_large(self.total or 0)

    def add(self, block: bytes) -> None:
        """Append what has arrived."""
        self.refuse_large(len(self.content) + len(block))
        self.content += block

    def refuse_large(self, size: int) -> None:
        """Raise if a file of this many bytes is too large."""
        if size > MAX_BYTES:
            raise DownloadError(f"larger than {MAX_BYTES >> 20} MB")


def _receive(url: str, part: _Part, progress: Progress, deadline: float) -> None:
    """Request the bytes that ``part`` lacks, or all if it cannot be resumed, and add them as they arrive."""
    headers = {}
    if part.content and part.validator:
        headers = {"Range": f"bytes={len(part.content)}-", "If-Range": part.validator}
    try:
        with open_url(url, deadline, headers, timeout=TIMEOUT) as response:
            part.start(response)
            progress(len(part.content), part.total)
            while block := response.read1(BLOCK):
                part.add(block)
                progress(len(part.content), part.total)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"server error {error.code} {http.client.responses.get(error.code, '')}".strip()) from error
    except WebError as error:
        raise DownloadError(str(error)) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        cause = cause if isinstance(cause, Exception) else error
        if isinstance(cause, TimeoutError) and not isinstance(cause, TooSlow):
            raise _CutError(f"no data from the server for {TIMEOUT:.0f} s") from error
        if isinstance(cause, TooSlow) or is_cut(cause):
            raise _CutError(network_error(cause)) from error
        raise DownloadError(network_error(cause)) from error
    if part.total is not None and len(part.content) != part.total:
        raise _CutError("the connection was lost")


def _sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
