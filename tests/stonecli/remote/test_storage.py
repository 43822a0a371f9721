"""Against real servers on this machine: S3 by moto, and web servers of our own, some of which lie."""

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from stonecli.errors import StorageError
from stonecli.library.locations import Seen, Url, parse_location
from stonecli.remote import storage
from stonecli.remote.storage import WEB_FOLDER, fetched, find_recordings
from tests.fixture_types import Serve

fsspec = pytest.importorskip("fsspec", reason="needs stonecli[cluster]")

Invoke = Callable[..., Result]
BUCKET = "music"  # as the fixture s3 has it


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


class Liar(http.server.BaseHTTPRequestHandler):
    """A web server that does by its paths what servers should not."""

    def do_GET(self) -> None:
        if self.path == "/missing.mp3":
            self.send_error(404)
            return
        if self.path == "/secret.mp3":
            self.send_error(403)
            return
        self.send_response(200)
        if self.path == "/short.mp3":  # says more than it sends
            self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            if self.path == "/endless.mp3":
                while True:
                    self.wfile.write(bytes(1 << 16))
            self.wfile.write(b"x" * 10)
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def found(*texts: str) -> list[tuple[str, str | None]]:
    return [(str(one.location), one.error) for one in find_recordings(map(parse_location, texts))]


def put_on_web(content: bytes, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "a.mp3").write_bytes(content)
    return f"{request.getfixturevalue('serve')(tmp_path)}/a.mp3"


def put_in_s3(content: bytes, request: pytest.FixtureRequest, _: Path) -> str:
    request.getfixturevalue("s3").put_object(Bucket=BUCKET, Key="every storage/a.mp3", Body=content)
    return f"s3://{BUCKET}/every storage/a.mp3"


def put_in_memory(content: bytes, request: pytest.FixtureRequest, _: Path) -> str:
    request.getfixturevalue("memory").pipe("/every storage/a.mp3", content)
    return "memory:///every storage/a.mp3"


SAMPLES = {"http": put_on_web, "s3": put_in_s3, "": put_in_memory}  # by the first protocol


class TestEveryStorage:
    @pytest.mark.parametrize("row", storage.STORAGES, ids=lambda row: row.protocols[:1])
    def test_a_recording_is_found_and_downloaded(
        self, row: storage.Storage, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        name = row.protocols[0] if row.protocols else ""
        assert name in SAMPLES, "add a function to SAMPLES that puts a recording there"
        url = SAMPLES[name](b"music", request, tmp_path)
        assert storage.storage_of(Url(url)) is row
        assert found(url if row.list_files is None else url.removesuffix("/a.mp3")) == [(url, None)]
        with fetched(Url(url)) as copy:
            assert copy.read_bytes() == b"music"


def test_a_row_alone_adds_a_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec does not know its protocol."""

    @contextmanager
    def open_file(url: Url, _: float) -> Iterator[tuple[Any, int | None]]:
        with Path(url.text.removeprefix("disk://")).open("rb") as source:
            yield source, None

    def list_files(url: Url) -> Iterator[tuple[Url, str]]:
        top = Path(url.text.removeprefix("disk://"))
        for path in [path for path in sorted(top.rglob("*")) if path.is_file()] if top.is_dir() else [top]:
            yield Url(f"disk://{path.as_posix()}"), "" if path == top else path.relative_to(top).as_posix()

    row = storage.Storage(("disk",), open_file, list_files)
    monkeypatch.setattr(storage, "STORAGES", (row, *storage.STORAGES))
    for name in ("a.mp3", ".b.mp3", "c.txt", "d"):
        (tmp_path / name).write_bytes(b"music")
    top = f"disk://{tmp_path.as_posix()}"
    assert found(top, f"{top}/d") == [(f"{top}/a.mp3", None), (f"{top}/d", None)]
    with fetched(Url(f"{top}/a.mp3")) as copy:
        assert copy.read_bytes() == b"music"


# Finding recordings


@pytest.mark.slow
def test_a_bucket_is_searched_in_depth_a_page_at_a_time(s3: Any) -> None:
    names = [f"all/{number:04}.mp3" for number in range(1005)]  # a page has a thousand
    for name in [*names, "all/deep/er/b c.FLAC", "all/.hidden/x.mp3", "all/@eaDir/x.mp3", "all/cover.jpg", "also.mp3"]:
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"")
    wanted = sorted([*names, "all/deep/er/b c.FLAC"])
    assert found(f"s3://{BUCKET}/all") == [(f"s3://{BUCKET}/{name}", None) for name in wanted]
    everything = [name for name, _ in found(f"s3://{BUCKET}")]  # other tests put files there too
    assert [name for name in everything if name.startswith((f"s3://{BUCKET}/al", f"s3://{BUCKET}/.h"))] == [
        f"s3://{BUCKET}/{name}" for name in [*wanted, "also.mp3"]
    ]
    assert found(f"s3://{BUCKET}/all/deep/") == [(f"s3://{BUCKET}/all/deep/er/b c.FLAC", None)]


def test_a_url_with_a_music_suffix_is_not_requested() -> None:
    assert found("s3://no-such-bucket/x.mp3") == [("s3://no-such-bucket/x.mp3", None)]


def test_a_location_that_cannot_be_searched_is_an_error(s3: Any) -> None:
    ((_, error),) = found("s3://no-such-bucket/folder/")
    assert error is not None or found("s3://no-such-bucket/folder/") == [("s3://no-such-bucket/folder/", None)]
    (unknown,) = found("nonsense://x/")
    assert unknown[1] == "nonsense:// is not known; give https://, s3:// or another storage of fsspec"


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[str]:
    """The URL of an FTP server with ``a.mp3`` and ``sub/b c.flac``, without a slash at the end."""
    handlers = pytest.importorskip("pyftpdlib.handlers")
    authorizers, servers = (pytest.importorskip(f"pyftpdlib.{name}") for name in ("authorizers", "servers"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.mp3").write_bytes(b"one")
    (tmp_path / "sub" / "b c.flac").write_bytes(b"two")
    authorizer = authorizers.DummyAuthorizer()
    authorizer.add_anonymous(str(tmp_path))
    handler = type("Handler", (handlers.FTPHandler,), {"authorizer": authorizer})
    server = servers.ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05, "blocking": True})
    thread.start()
    yield "ftp://{}:{}".format(*server.socket.getsockname())
    server.close_all()
    thread.join()


def test_a_url_says_which_server_has_the_files(ftp: str) -> None:
    assert found(f"{ftp}/") == [(f"{ftp}/a.mp3", None), (f"{ftp}/sub/b c.flac", None)]
    assert found(f"{ftp}/sub") == [(f"{ftp}/sub/b c.flac", None)]
    with fetched(Url(f"{ftp}/sub/b c.flac")) as path:
        assert path.read_bytes() == b"two"
        assert path.suffix == ".flac"


def test_a_storage_without_its_settings_is_named() -> None:
    class Incomplete(fsspec.AbstractFileSystem):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self, account: str, **options: object) -> None:
            super().__init__(**options)

    fsspec.register_implementation("incomplete", Incomplete, clobber=True)
    ((_, error),) = found("incomplete://music/")
    assert error is not None
    assert error.startswith("incomplete:// needs settings in the configuration of fsspec: ")
    assert "account" in error


@pytest.mark.parametrize("path", ["/", "", "/music/", "/music/?C=N;O=D"])
def test_a_web_folder_is_refused_without_a_request(path: str) -> None:
    url = f"http://127.0.0.1:9{path}"  # where nobody answers
    assert found(url) == [(url, WEB_FOLDER)]
    assert "give the URL of each file" in WEB_FOLDER


def test_the_page_of_a_web_folder_is_not_a_recording(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mp3").write_bytes(b"x")
    top = serve(tmp_path)
    assert found(f"{top}/music") == [(f"{top}/music", None)]
    with pytest.raises(StorageError, match="a web page, not a recording; web folders"), fetched(Url(f"{top}/music")):
        pass


@dataclass
class Site:
    """A web server with a response per path, and the requests that it got."""

    url: str
    answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]]
    asked: list[tuple[str, str | None]]  # path and Authorization


@pytest.fixture
def site(serve: Serve) -> Site:
    """A web server that answers as the test says, or with ``music``."""
    site = Site("", {}, [])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Authorization")))
            if self.path in site.answers:
                site.answers[self.path](self)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"music")

        def log_message(self, *_: Any) -> None:
            pass

    site.url = serve(Handler)
    return site


def leads_to(target: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.end_headers()

    return answer


def test_a_redirect_is_followed_without_the_password(site: Site) -> None:
    site.answers["/old.mp3"] = leads_to("/new%20name.mp3")
    url = site.url.replace("://", "://name:word@")
    with fetched(Url(f"{url}/old.mp3")) as copy:
        assert copy.read_bytes() == b"music"
    assert site.asked == [("/old.mp3", "Basic bmFtZTp3b3Jk"), ("/new%20name.mp3", None)]


def test_a_redirect_by_http_to_another_host_is_not_followed(site: Site) -> None:
    site.answers["/old.mp3"] = leads_to(site.url.replace("127.0.0.1", "localhost") + "/new.mp3")
    with pytest.raises(StorageError, match="another host with http"), fetched(Url(f"{site.url}/old.mp3")):
        pass
    assert len(site.asked) == 1


def test_redirects_in_circles_end(site: Site) -> None:
    site.answers["/a.mp3"] = leads_to("/a.mp3")
    with pytest.raises(StorageError, match="the server redirects in circles"), fetched(Url(f"{site.url}/a.mp3")):
        pass
    assert len(site.asked) < 20


def test_names_are_encoded(site: Site) -> None:
    with fetched(Url(f"{site.url}/é b%20c.mp3?x=ü y")):
        pass
    assert site.asked[0][0] == "/%C3%A9%20b%20c.mp3?x=%C3%BC%20y"


@pytest.mark.parametrize("within", ["head", "body"])
def test_a_slow_server_reaches_the_time_limit(site: Site, monkeypatch: pytest.MonkeyPatch, within: str) -> None:
    monkeypatch.setattr(storage, "MAX_SECONDS", 1.0)
    end = threading.Event()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if within == "body" else b""))
        while not end.wait(0.1):
            request.wfile.write(b"x")

    site.answers["/a.mp3"] = answer
    with pytest.raises(StorageError, match="the download takes"), fetched(Url(f"{site.url}/a.mp3")):
        pass
    end.set()


def test_a_tree_without_end_is_an_error(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_MAX_DEPTH", 5)
    memory.pipe("/m/1/2/3/4/5/6/7/a.mp3", b"x")
    assert found("memory:///m") == [("memory:///m", "folders are nested more than 5 deep")]
    monkeypatch.setattr(storage, "_MAX_DEPTH", 100)
    monkeypatch.setattr(storage, "_MAX_NAMES", 1)
    memory.pipe("/m/b.mp3", b"x")
    assert found("memory:///m")[-1] == ("memory:///m", "more than 1 files; name a folder or prefix in it")


def test_each_location_is_found_once(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"x")
    memory.pipe("/m/a.mp3", b"x")
    seen = Seen()
    seen.add("memory:///m/b.mp3")
    memory.pipe("/m/b.mp3", b"x")
    locations = [tmp_path, tmp_path / "a.mp3", parse_location("memory:///m"), parse_location("memory:///m/a.mp3")]
    names = [str(one.location) for one in find_recordings(locations, None, seen)]
    assert names == [str(tmp_path / "a.mp3"), "memory:///m/a.mp3"]


# Downloading


def test_the_downloaded_copy_is_deleted_afterwards(s3: Any) -> None:
    content = bytes(range(256)) * 50_000  # more than a block
    s3.put_object(Bucket=BUCKET, Key="odd?name::#.flac", Body=content)
    with fetched(Url(f"s3://{BUCKET}/odd?name::#.flac")) as copy:
        assert copy.read_bytes() == content
        assert copy.suffix == ".flac"
    assert not copy.parent.exists()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.mp3", "no such file"),
        ("secret.mp3", "the server answers 403"),
        ("short.mp3", "the download ended after 10 of 1,000 bytes|the connection was lost"),
        ("endless.mp3", "larger than 1 MB"),
    ],
)
def test_servers_that_declare_a_false_size(serve: Serve, name: str, error: str) -> None:
    with pytest.raises(StorageError, match=error), fetched(Url(f"{serve(Liar)}/{name}"), max_bytes=1 << 20):
        pass


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("http://127.0.0.1:9/a.mp3", "[Cc]onnect"),
        ("nonsense://a.mp3", "not known"),
        ("memory://gone.mp3", "no such file"),
        ("http://[/a.mp3", "Invalid"),
    ],
)
def test_urls_without_a_recording_are_errors(memory: Any, text: str, error: str) -> None:
    with pytest.raises(StorageError, match=error) as caught, fetched(Url(text)):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "zip://a::file:///x.zip",
        "zip://a.mp3::memory://x.zip",
        "zip::https://host/x.zip",
        "tar://a.mp3",
        "simplecache::s3://bucket/a.mp3",
        "memory://a::memory://b",
    ],
)
def test_a_chained_url_is_refused_with_advice(text: str) -> None:
    location = parse_location(text)
    assert isinstance(location, Url)
    with pytest.raises(StorageError) as caught, fetched(location):
        pass
    errors = [found.error for found in find_recordings([location]) if found.error]
    assert {str(caught.value), *errors} == {
        "archives and chained URLs (with ::) are not supported; "
        "give the URL of a recording or a folder, such as s3://bucket/song.flac, or unpack the archive"
    }


def test_a_size_beyond_the_limit_is_not_fetched(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="large.mp3", Body=bytes(2 << 20))
    with (
        pytest.raises(StorageError, match="larger than 1 MB"),
        fetched(Url(f"s3://{BUCKET}/large.mp3"), max_bytes=1 << 20),
    ):
        pass


# stone tag


def test_stone_tag_analyzes_urls(
    invoke: Invoke, s3: Any, serve: Serve, songs: Mapping[str, Path], tmp_path: Path
) -> None:
    kinds = ["mp3", "m4a aac", "opus"]
    for kind in kinds:
        s3.put_object(Bucket=BUCKET, Key=f"tag/{songs[kind].name}", Body=songs[kind].read_bytes())
    shutil.copy(songs["flac"], tmp_path / "a b.flac")
    web = f"{serve(tmp_path)}/a%20b.flac"
    output = tmp_path / "keys.ndjson"
    result = invoke("tag", f"s3://{BUCKET}/tag", web, (tmp_path / "a b.flac").as_uri(), "--output", output)
    assert (result.exit_code, result.stderr) == (0, "")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    s3_names = [f"s3://{BUCKET}/tag/{songs[kind].name}" for kind in kinds]
    assert sorted(record["path"] for record in records) == sorted([*s3_names, web, str(tmp_path / "a b.flac")])
    assert {(record["key"]["camelot"], record["status"]) for record in records} == {("7A", "detected")}


def test_tags_are_not_written_to_addresses(invoke: Invoke, memory: Any, songs: Mapping[str, Path]) -> None:
    memory.pipe("/a.flac", songs["flac"].read_bytes())
    result = invoke("tag", "memory:///a.flac", "--write-tags")
    assert (result.exit_code, result.stderr) == (
        2,
        "stone: memory:///a.flac is a URL: tags can only be written to files; leave out --write-tags\n",
    )
    result = invoke("tag", "memory:///a.flac", "--remove")
    assert result.exit_code == 1
    assert result.stderr == "memory:///a.flac: tags can only be written to files, not to URLs\n"
    assert memory.cat("/a.flac") == songs["flac"].read_bytes()


@pytest.mark.parametrize("command", ["mix", "analyze", "watch", "convert"])
def test_commands_for_files_name_a_url_as_typed(command: str, invoke: Invoke) -> None:
    """A path would lose one slash of two."""
    for url in ("http://127.0.0.1:9//a.flac", "s3://bucket//a.flac"):
        result = invoke(command, url)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"stone: {url} is a URL: ")
        assert len(result.stderr.splitlines()) == 1


def test_a_list_may_contain_urls(
    stone_command: list[str], serve: Serve, songs: Mapping[str, Path], tmp_path: Path
) -> None:
    import subprocess

    shutil.copy(songs["flac"], tmp_path / "a.flac")
    top = serve(tmp_path)
    result = subprocess.run(
        [*stone_command, "tag", "-", "--json"],
        input=f"{top}/a.flac\n{tmp_path}/a.flac\n{top}/gone.flac\n",
        capture_output=True,
        text=True,
        check=False,
    )
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["status"] for record in records] == ["detected", "detected", "error"]
    assert result.stderr == f"{top}/gone.flac: no such file\n"
