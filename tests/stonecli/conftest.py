"""Servers on this machine, for recordings at URLs."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fixture_types import Serve


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """A client of an S3 server with a bucket ``music``; s3fs finds the server by the environment."""
    pytest.importorskip("s3fs", reason="needs stonecli[cluster]")
    server_module = pytest.importorskip("moto.server", reason="needs moto, flask and flask-cors")
    import boto3

    server = server_module.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="music")
        yield client
    server.stop()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a web server, for a folder or with a handler of its own; its address, without a slash at the end."""
    servers = []

    def start(what: Any) -> str:
        handler = partial(Quiet, directory=what) if isinstance(what, Path) else what
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
