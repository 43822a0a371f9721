"""A file of bounded size from the web: what has arrived is kept, and the next try goes on from there.

Nothing here decides to fetch anything: a user names the address. It has to be https, so that what arrives is what the
address' owner sent; plain http is for this machine alone, where there is nobody in between.

What has arrived lies in the cache folder, beside a record of what the server called it (its ETag or modification date).
Going on is a Range request under the condition If-Range (RFC 9110, 13.1.5 and 14): a file that has changed comes anew.

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

from stonecli.errors import StoneError
from stonecli.model.partial_file import PartialFile
from stonecli.util.web import TIMEOUT, TooSlow, WebError, is_cut, is_this_machine, network_error, open_url

MAX_BYTES = 64 << 20
BLOCK = 64 << 10
MAX_SECONDS = 3600.0  # a server that trickles ends here; the next try goes on
TRIES = 4  # after the connection was cut, as long as each brings something
PAUSE = 1.0  # seconds before the second, twice that before the third

Progress = Callable[[int, int | None], None]


class DownloadError(StoneError):
    """The file could not be fetched; nothing of it was used."""


class _CutError(Exception):
    """The connection ended early, or brought nothing for too long."""


class _ChangedError(Exception):
    """What is there is no beginning of what the server has now."""


def fetch(url: str, *, sha256: str | None = None, progress: Progress = lambda done, total: None) -> bytes:
    """The bytes at ``url``, at most ``MAX_BYTES``; ``sha256`` (hexadecimal) is what they have to have.

    Args:
        url: https, or http on this machine.
        sha256: makes certain what arrives, and lets a download go on that could not without it.
        progress: is called with the bytes that are there and how many they will be, where that is known.

    Raises:
        DownloadError: the address is none, the server fails, sends too much or something else, or the connection was
            cut; in the last case what has arrived is kept for the next call.
        OSError: the cache folder cannot be written.
    """
    check_url(url)
    with PartialFile(url) as part:
        if part.is_taken:
            raise DownloadError("another stone is fetching it at this moment")
        cuts = changes = 0
        deadline = time.monotonic() + MAX_SECONDS
        while True:
            before = part.size
            try:
                _receive(url, part, sha256, progress, deadline)
            except _CutError as error:
                if sha256 is None or _sha256(part) != sha256.lower():  # else all is there, whatever was promised
                    cuts += 1
                    if part.size > before and cuts < TRIES and time.monotonic() < deadline:
                        time.sleep(PAUSE * cuts)
                        continue
                    of_all = f" of {part.total}" if part.total is not None else ""
                    kept = f" after {part.size}{of_all} bytes" if part.size else ""
                    if part.size and (sha256 or part.validator):
                        kept += "; the same command goes on from there"
                    raise DownloadError(f"{error}{kept}") from error
            except _ChangedError as error:
                part.clear()
                changes += 1
                if changes > 1:
                    raise DownloadError("the server's answers do not fit together") from error
                continue
            if sha256 is not None and (found := _sha256(part)) != sha256.lower():
                part.clear()
                if before and not changes:  # its beginning was of another file
                    changes += 1
                    continue
                raise DownloadError(f"not the file that was meant: its SHA-256 is {found}")
            content = part.read()
            part.remove()
            return content


def check_url(url: str) -> None:
    """Raise unless ``url`` may be fetched.

    Raises:
        DownloadError: it is neither https nor http on this machine, or holds a name and password.
    """
    try:
        parts = urlsplit(url)
        host, secret, _ = parts.hostname or "", parts.username or parts.password, parts.port
    except ValueError as error:
        raise DownloadError("not an address") from error
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        raise DownloadError("not an address: wanted is https://...")
    if secret is not None:
        raise DownloadError("addresses with a name and password are not taken: they would be seen by other programs")
    if parts.scheme == "http" and not is_this_machine(host):
        raise DownloadError("only https: over http, anyone in between could send another file")


def _receive(url: str, part: PartialFile, sha256: str | None, progress: Progress, deadline: float) -> None:
    """Ask for what ``part`` lacks and append it as it comes."""
    headers: dict[str, str] = {}
    goes_on = part.size > 0 and (part.validator or sha256) is not None
    if goes_on:
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    try:
        with open_url(url, deadline, headers, timeout=TIMEOUT) as response:
            part.total = _begin(response, part, goes_on)
            progress(part.size, part.total)
            while block := response.read1(BLOCK):
                if part.size + len(block) > MAX_BYTES:
                    part.clear()
                    raise DownloadError(f"larger than {MAX_BYTES >> 20} MB")
                part.append(block)
                progress(part.size, part.total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and goes_on:
            if sha256 is not None and _sha256(part) == sha256.lower():
                return  # all of it was there
            raise _ChangedError from error
        raise DownloadError(
            f"the server says {error.code} {http.client.responses.get(error.code, '')}".strip()
        ) from error
    except DownloadError:
        raise
    except WebError as error:
        raise DownloadError(str(error)) from error
    except urllib.error.URLError as error:
        raise _why(error.reason if isinstance(error.reason, Exception) else error) from error
    except (TimeoutError, ssl.SSLError, ConnectionError, http.client.HTTPException, UnicodeError) as error:
        raise _why(error) from error
    if part.total is not None and part.size != part.total:
        raise _CutError("the connection was cut")


def _sha256(part: PartialFile) -> str:
    return hashlib.sha256(part.read()).hexdigest()


def _begin(response: http.client.HTTPResponse, part: PartialFile, goes_on: bool) -> int | None:
    """Make ``part`` what the answer goes on from; the size that the whole will have, where the server says it."""
    headers = response.headers
    validator = _validator(headers.get("ETag"), headers.get("Last-Modified"))
    length = _number(headers.get("Content-Length"))
    total = length
    if response.status == 206:
        start, total = _range(headers.get("Content-Range", ""))
        other = validator and part.validator and validator != part.validator
        if not goes_on or start != part.size or other or (total is not None and total < start):
            raise _ChangedError
    elif response.status == 200:
        part.clear(validator)
    else:
        raise DownloadError(f"the server says {response.status}, and sends nothing")
    if total is not None and total > MAX_BYTES:
        part.clear()
        raise DownloadError(f"larger than {MAX_BYTES >> 20} MB")
    return total


def _validator(etag: str | None, modified: str | None) -> str | None:
    """What names this very content to the server: a strong ETag, or else the date."""
    if etag and etag.startswith('"') and len(etag) < 200:
        return etag
    return modified if modified and len(modified) < 100 else None


def _range(text: str) -> tuple[int | None, int | None]:
    """First byte and total size in ``bytes 5-9/10``; None for what is not said."""
    unit, _, rest = text.partition(" ")
    places, _, total = rest.partition("/")
    return (_number(places.partition("-")[0]) if unit == "bytes" else None), _number(total)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


def _why(error: BaseException) -> Exception:
    """The error to raise for what the network says: one to try again after, or a final one."""
    text = network_error(error)
    if isinstance(error, TimeoutError) and not isinstance(error, TooSlow):
        text = f"the server was silent for {TIMEOUT:.0f} s"
    if isinstance(error, TimeoutError) or is_cut(error):
        return _CutError(text)
    return DownloadError(text)
