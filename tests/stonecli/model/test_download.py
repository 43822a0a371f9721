"""Downloads from real servers on this machine, the bad ones above all."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stonecli.errors import DownloadError
from stonecli.model import download
from stonecli.model.download import check_url, fetch

CONTENT = random.Random(0).randbytes(300_000)  # the same in every process of xdist
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = random.Random(1).randbytes(300_000)


@dataclass
class Server:
    """Behavior of a server, and the requests that it got."""

    url: str = ""
    content: bytes = CONTENT
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True  # it knows of Range
    if_range: bool = True  # and of If-Range
    cuts: list[int] = field(default_factory=list)  # response N ends after cuts[N] bytes
    claims: int = 0  # added to the Content-Length
    length: bool = True  # it says a length
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    asked: list[dict[str, str]] = field(default_factory=list)


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            server.asked.append({**self.headers, "path": self.path})
            if server.answer is not None:
                server.answer(self)
                return
            wanted, first, status = self.headers.get("Range"), 0, 200
            condition = self.headers.get("If-Range")
            fits = not server.if_range or condition in (None, server.etag, server.modified)
            if wanted and server.ranges and fits:
                first, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
                if first >= len(server.content):
                    self.send_error(416)
                    return
            body = server.content[first:]
            self.send_response(status)
            if server.etag:
                self.send_header("ETag", server.etag)
            if server.modified:
                self.send_header("Last-Modified", server.modified)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{len(server.content) - 1}/{len(server.content)}")
            if server.length:
                self.send_header("Content-Length", str(len(body) + server.claims))
            self.end_headers()
            self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    return Handler


@contextmanager
def served(server: Server, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """``server`` at its address, until the end."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(server))
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up early is part of the test
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_address[1]}/model.onnx"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with served(Server()) as running:
        yield running


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)


def fails(server: Server, reason: str, **options: Any) -> None:
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(server.url, **options)
    assert "\n" not in str(caught.value)


class TestWholeFiles:
    def test_a_file(self, server: Server) -> None:
        seen: list[tuple[int, int | None]] = []
        assert fetch(server.url, sha256=SHA256.upper(), progress=lambda *now: seen.append(now)) == CONTENT
        assert seen[0] == (0, len(CONTENT))
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert "Range" not in server.asked[0]
        assert server.asked[0]["User-Agent"].startswith("stone/")

    def test_without_a_length_and_without_a_hash(self, server: Server) -> None:
        server.length = False
        seen: list[tuple[int, int | None]] = []
        assert fetch(server.url, progress=lambda *now: seen.append(now)) == CONTENT
        assert seen[-1] == (len(CONTENT), None)

    def test_in_chunks(self, server: Server) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.protocol_version = "HTTP/1.1"
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            for start in range(0, len(CONTENT), 70_000):
                chunk = CONTENT[start : start + 70_000]
                request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            request.wfile.write(b"0\r\n\r\n")
            request.close_connection = True

        server.answer = answer
        assert fetch(server.url) == CONTENT

    def test_an_empty_file(self, server: Server) -> None:
        server.content = b""
        assert fetch(server.url) == b""


class TestResumption:
    """A download that was cut off continues where it ended, if the file is the same."""

    @pytest.mark.parametrize("sha256", [SHA256, None])
    def test_an_interrupted_download_resumes(self, server: Server, sha256: str | None) -> None:
        server.cuts = [150_000, 50_000]
        assert fetch(server.url, sha256=sha256) == CONTENT
        assert [asked.get("Range") for asked in server.asked] == [None, "bytes=150000-", "bytes=200000-"]
        assert [asked.get("If-Range") for asked in server.asked] == [None, '"1"', '"1"']

    def test_a_connection_that_breaks_again_and_again_is_an_error(self, server: Server) -> None:
        server.cuts = [10_000] * download.TRIES
        fails(server, f"lost after {10_000 * download.TRIES} of 300000 bytes; try again later")
        server.asked.clear()
        assert fetch(server.url) == CONTENT
        assert "Range" not in server.asked[0]  # nothing is kept for another call

    def test_cut_off_before_the_first_byte(self, server: Server) -> None:
        server.cuts = [0]
        fails(server, "lost; try again later$")
        assert len(server.asked) == 1

    @pytest.mark.parametrize("name", ["etag", "modified"])
    def test_a_file_that_changes_during_the_wait_starts_again(self, server: Server, name: str) -> None:
        server.etag, server.modified = (
            ('"1"', None) if name == "etag" else ('W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT")
        )
        server.cuts = [1000]

        def change(done: int, total: int | None) -> None:
            server.content = OTHER
            setattr(server, name, '"2"' if name == "etag" else "Wed, 21 Oct 2015 07:28:01 GMT")

        assert fetch(server.url, progress=change) == OTHER
        assert server.asked[-1]["If-Range"] == ('"1"' if name == "etag" else "Wed, 21 Oct 2015 07:28:00 GMT")

    def test_a_server_that_ignores_conditions_fails_the_hash(self, server: Server) -> None:
        server.cuts, server.if_range = [1000], False

        def change(done: int, total: int | None) -> None:
            server.content, server.etag = OTHER, '"2"'

        fails(server, "wrong file", sha256=hashlib.sha256(OTHER).hexdigest(), progress=change)

    @pytest.mark.parametrize("lacks", ["ranges", "etag"])
    def test_a_download_that_cannot_resume_starts_over(self, server: Server, lacks: str) -> None:
        setattr(server, lacks, None)
        server.cuts = [1000, 2000, 3000, 4000]
        fails(server, "lost after 4000 of 300000 bytes")
        server.cuts = [1000]
        assert fetch(server.url) == CONTENT

    def test_answers_that_do_not_fit_together(self, server: Server) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(206)
            request.send_header("Content-Range", "bytes 7-9/10")
            request.end_headers()

        server.answer = answer
        fails(server, "responses are inconsistent")


class TestFalseLengths:
    @pytest.mark.parametrize("sha256", [SHA256, None])
    def test_fewer_bytes_than_promised(self, server: Server, sha256: str | None) -> None:
        server.claims = 1000
        if sha256:  # the hash knows better
            assert fetch(server.url, sha256=sha256) == CONTENT
        else:
            fails(server, "server error 416")

    def test_more_bytes_than_promised(self, server: Server) -> None:
        server.claims = -1000
        fails(server, "wrong file: its SHA-256 is ", sha256=SHA256)
        assert fetch(server.url) == CONTENT[:-1000]  # without a SHA-256, a shorter file is accepted

    def test_an_invalid_content_length(self, server: Server) -> None:
        for text in ("-5", "1e5", "\u0661", "9" * 50, "abc"):

            def answer(request: BaseHTTPRequestHandler, text: str = text) -> None:
                request.send_response(200)
                request.send_header("Content-Length", text.encode().decode("latin-1"))
                request.end_headers()
                request.wfile.write(CONTENT)

            server.answer = answer
            if text == "9" * 50:
                assert fetch(server.url, sha256=SHA256) == CONTENT
            else:
                assert fetch(server.url) == CONTENT

    def test_another_hash(self, server: Server) -> None:
        fails(server, f"wrong file: its SHA-256 is {SHA256}", sha256="0" * 64)
        assert len(server.asked) == 1


class TestLimits:
    def test_a_file_that_declares_too_many_bytes(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
        server.claims = 1 << 20
        fails(server, "larger than 1 MB")

    def test_a_file_without_an_end(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
        sent = 0

        def answer(request: BaseHTTPRequestHandler) -> None:
            nonlocal sent
            request.send_response(200)
            request.end_headers()
            while sent < 1 << 30:
                request.wfile.write(bytes(1 << 16))
                sent += 1 << 16

        server.answer = answer
        fails(server, "larger than 1 MB")
        assert sent < 1 << 28

    @pytest.mark.parametrize("when", ["before the answer", "within the head", "within the file"])
    def test_a_server_that_stops_sending(self, server: Server, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        monkeypatch.setattr(download, "TIMEOUT", 0.3)
        end = threading.Event()

        def answer(request: BaseHTTPRequestHandler) -> None:
            if when == "within the head":
                request.wfile.write(b"HTTP/1.0 200 OK\r\nContent-")
            elif when == "within the file":
                request.send_response(200)
                request.send_header("ETag", '"1"')
                request.send_header("Content-Length", str(len(CONTENT)))
                request.end_headers()
                request.wfile.write(CONTENT[:1000])
            end.wait(60)

        server.answer = answer
        fails(server, "no data from the server for 0 s( after 1000 of 300000 bytes)?; try again later")
        end.set()

    def test_a_server_that_trickles(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "MAX_SECONDS", 1.0)
        end = threading.Event()

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("ETag", '"1"')
            request.end_headers()
            while not end.wait(0.1):  # never silent for long
                request.wfile.write(b"x")

        server.answer = answer
        fails(server, "takes too long after .* bytes; try again later")
        end.set()

    def test_a_head_that_trickles(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "MAX_SECONDS", 1.0)
        end = threading.Event()

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"HTTP/1.0 200 OK\r\n")
            while not end.wait(0.1):
                request.wfile.write(b"X")

        server.answer = answer
        fails(server, "takes too long")
        end.set()


class TestFailures:
    @pytest.mark.parametrize("code", [404, 500, 204])
    def test_a_missing_file_leaves_no_partial_file(self, server: Server, code: int) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(code)
            request.end_headers()

        server.answer = answer
        fails(server, f"server error {code}")

    def test_an_unreachable_server_leaves_no_partial_file(self, server: Server) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(DownloadError):
                fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/model.onnx")

    @pytest.mark.parametrize(
        ("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (500, "Internal"), (599, "599$")]
    )
    def test_a_server_that_refuses(self, server: Server, status: int, reason: str) -> None:
        server.answer = lambda request: request.send_error(status, "\x1b[31m[red]")
        fails(server, f"server error {status}.*{reason.removesuffix('$') if status != 599 else ''}")

    def test_no_content(self, server: Server) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(204)
            request.end_headers()

        server.answer = answer
        fails(server, "server error 204")

    def test_a_compressed_answer(self, server: Server) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Encoding", "gzip")
            request.end_headers()

        server.answer = answer
        fails(server, "compressed")

    @pytest.mark.parametrize(
        "line", [b"", b"SSH-2.0-OpenSSH\r\n", b"\x00" * 500, b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 200]
    )
    def test_a_server_that_does_not_speak_http(self, server: Server, line: bytes) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(line)

        server.answer = answer
        fails(server, "the download failed|lost")

    def test_no_server(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(DownloadError, match=r"lost|refused"):
            fetch(f"http://127.0.0.1:{port}/x")


def leads_to(target: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", target)
        request.end_headers()

    return answer


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS with a certificate that nobody has signed, and that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=127.0.0.1"
    extension = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True, cwd=folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context, folder / "cert"


class TestRedirectsAndUrls:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_chain_of_redirects_is_followed(self, server: Server, status: int) -> None:
        with served(Server(answer=None)) as first:
            first.answer = leads_to(server.url, status)
            server.cuts = [1000]
            assert fetch(first.url, sha256=SHA256) == CONTENT
            assert [asked.get("Range") for asked in server.asked] == [None, "bytes=1000-"]

    @pytest.mark.parametrize(
        "target",
        ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://a:b@127.0.0.1/", "data:,x"],
    )
    def test_redirects_to_other_hosts_are_refused(self, server: Server, target: str) -> None:
        server.answer = leads_to(target)
        fails(server, "another host with http|neither http nor https|name and password|redirects to no URL")
        assert len(server.asked) == 1

    def test_redirects_in_a_circle(self, server: Server) -> None:
        server.answer = leads_to("/model.onnx")
        fails(server, "the server redirects in circles; check the URL in a browser")
        assert len(server.asked) < 20

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://example.org/x.onnx", "use https"),
            ("http://127.0.0.1.example.org/x", "use https"),
            ("http://10.0.0.1/x", "use https"),
            ("http://[::2]/x", "use https"),
            ("ftp://example.org/x", "not a URL"),
            ("file:///etc/passwd", "not a URL"),
            ("data:text/plain,x", "not a URL"),
            ("https://", "not a URL"),
            ("https://exa mple.org/", "not a URL"),
            ("https://example.org/\r\nHost: x", "not a URL"),
            ("https://[::1/x", "not a URL"),
            ("https://example.org:99999/", "not a URL"),
            ("https://name:password@example.org/", "name and password"),
        ],
    )
    def test_urls_that_are_not_requested(self, url: str, reason: str) -> None:
        with pytest.raises(DownloadError, match=reason):
            check_url(url)

    @pytest.mark.parametrize(
        "url", ["https://example.org/x?y=z", "http://localhost:8080/x", "http://[::1]/", "http://127.9.9.9/"]
    )
    def test_addresses_that_are(self, url: str) -> None:
        check_url(url)

    def test_no_proxy_stands_before_this_machine(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert fetch(server.url) == CONTENT

    def test_https(self, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        with served(Server(cuts=[1000]), tls[0]) as server, served(Server()) as plain:
            fails(server, "the certificate of the server is not valid: self.signed certificate")
            assert server.asked == []
            monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
            assert fetch(server.url) == CONTENT
            plain.answer = leads_to(server.url)
            assert fetch(plain.url) == CONTENT
            server.answer = leads_to(plain.url)
            fails(server, "from https to http")
