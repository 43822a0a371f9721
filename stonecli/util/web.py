"""Open http and https URLs, with the same redirects, headers and limits for models and recordings.

Redirects to another host, as on GitHub and Hugging Face, must use https. Redirects are refused from https to http, with
http to another host, to another protocol, from a public host to this machine or to an IP address of a private network,
and to a URL with a user name and password. The user name and password of the given URL are sent to its host only.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import socket
import ssl
import string
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from stonecli._version import __version__
from stonecli.errors import WebError, reason

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT = 30.0  # seconds without data


class TooSlow(TimeoutError):
    """The server has not sent everything by the deadline."""


def open_url(
    url: str, deadline: float, headers: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT
) -> http.client.HTTPResponse:
    """The server's response, a context manager, after at most 10 redirects (see above).

    Args:
        url: http or https.
        deadline: limit for all responses together, as a time of ``time.monotonic``; tolerance ``timeout``.
        headers: additional headers of the request.
        timeout: maximum seconds without data.

    Raises:
        WebError: a redirect is not allowed, or the server sends compressed data.
        urllib.error.HTTPError: the server answers with an error; the caller closes it.
        OSError, http.client.HTTPException, ValueError: the network fails, or the URL is invalid; see
            :func:`network_error`. Reading may raise the first two as well.
    """
    parts = urlsplit(url)
    request = urllib.request.Request(  # noqa: S310 (the opener knows http and https only)
        urlunsplit(
            parts._replace(
                netloc=parts.netloc.rpartition("@")[2],
                path=quote(parts.path, safe=string.punctuation),
                query=quote(parts.query, safe=string.punctuation),
            )
        ),
        headers={"User-Agent": f"stone/{__version__}", "Accept-Encoding": "identity", **(headers or {})},
    )
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(secret).decode('ascii')}")
    try:
        response: http.client.HTTPResponse = _opener(parts.hostname or "", deadline).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if not 300 <= error.code < 400 or error.code == 304:
            raise
        error.close()
        raise WebError(_why_not_followed(error)) from error
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        response.close()
        raise WebError("the server sent compressed data, which stone does not accept")
    return response


def network_error(error: BaseException) -> str:
    """A description of a network error in a few words."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return network_error(error.reason)
    if isinstance(error, TooSlow):
        return "the download takes too long"
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the server is not valid: {error.verify_message}"
    if is_cut(error):
        return "the connection was lost"
    return f"the download failed: {reason(error)}"


def is_cut(error: BaseException) -> bool:
    """Whether the connection was lost after it was established, so that a retry makes sense."""
    cuts = (ConnectionError, http.client.IncompleteRead, http.client.RemoteDisconnected, ssl.SSLEOFError)
    return isinstance(error, cuts) and not isinstance(error, ConnectionRefusedError)


def is_this_machine(host: str) -> bool:
    """Whether a host name or IP address is that of this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_redirect(old: str, new: str) -> None:
    """Raise unless a redirect from ``old`` to ``new`` is allowed (see above).

    Raises:
        WebError: it is not allowed.
    """
    try:
        before, after = urlsplit(old), urlsplit(new)
        host, secret, _ = after.hostname, after.username or after.password, after.port
    except ValueError as error:
        raise WebError("the server redirects to an invalid URL") from error
    if after.scheme not in ("http", "https") or not host or not new.isprintable():
        raise WebError("the server redirects to a URL that is neither http nor https")
    if before.scheme == "https" and after.scheme != "https":
        raise WebError("the server redirects from https to http")
    if after.scheme == "http" and host != before.hostname:
        raise WebError("the server redirects to another host with http")
    if secret is not None:
        raise WebError("the server redirects to a URL with a user name and password")
    if _is_private(host) and not _is_private(before.hostname or ""):
        raise WebError("the server redirects to a private network")


def _why_not_followed(error: urllib.error.HTTPError) -> str:
    """Why urllib did not follow a redirect."""
    if str(error.msg).startswith(_Redirects.inf_msg):
        return "the server redirects in circles; check the URL in a browser"
    if error.headers.get("Location") is None:
        return "the server redirects to no URL"
    return "the server redirects to a URL that is neither http nor https"


def _is_private(host: str) -> bool:
    """Whether a host is this machine, or an IP address in a private network."""
    try:
        return host == "localhost" or host.endswith(".localhost") or not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the redirects that are allowed."""

    max_redirections = 10

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request after the redirect, with the same headers."""
        check_redirect(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TimedReader(io.RawIOBase):
    """Reads from a socket until the deadline; the timeout of a socket starts again with each byte."""

    def __init__(self, raw: io.BufferedReader, deadline: float) -> None:
        self._raw = raw
        self._deadline = deadline

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """The number of bytes read; 0 at the end."""
        if time.monotonic() > self._deadline:
            raise TooSlow
        return self._raw.readinto1(buffer)

    def close(self) -> None:
        """Close the socket's file, too."""
        self._raw.close()
        super().close()


def _response_class(deadline: float) -> Callable[..., http.client.HTTPResponse]:
    """A class of responses whose header and body must arrive by the deadline."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp = io.BufferedReader(_TimedReader(self.fp, deadline))

    return Response


def _opener(host: str, deadline: float) -> urllib.request.OpenerDirector:
    """An opener for http and https only, which uses the user's proxy unless the host is this machine."""
    response_class = _response_class(deadline)

    class Http(http.client.HTTPConnection):
        pass

    class Https(http.client.HTTPSConnection):
        pass

    Http.response_class = Https.response_class = response_class  # type: ignore[assignment]

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Http, req)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Https, req)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_this_machine(host) else None),
        HttpHandler(),
        HttpsHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
