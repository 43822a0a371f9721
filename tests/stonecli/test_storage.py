"""Against real servers on this machine: S3 by moto, and web servers of our own, some of which lie."""

import http.server
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from stonecli.errors import StorageError
from stonecli.places import Seen, Url, place_of
from stonecli.storage import fetched, find_places

fsspec = pytest.importorskip("fsspec", reason="needs stonecli[cluster]")
pytest.importorskip("aiohttp", reason="needs stonecli[cluster]")

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
    return [(str(one.place), one.error) for one in find_places(map(place_of, texts))]


# What is found


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


def test_an_address_that_ends_as_music_does_is_not_asked_for() -> None:
    assert found("s3://no-such-bucket/x.mp3") == [("s3://no-such-bucket/x.mp3", None)]


def test_what_cannot_be_searched_is_an_error(s3: Any) -> None:
    ((_, error),) = found("s3://no-such-bucket/folder/")
    assert error is not None or found("s3://no-such-bucket/folder/") == [("s3://no-such-bucket/folder/", None)]
    assert found("nonsense://x/") == [("nonsense://x/", "nonsense:// is not known")]


def test_a_web_folder(serve: Callable[[Any], str], tmp_path: Path) -> None:
    for name in ("a.mp3", "b c.mp3", "d/e.flac", "d/text.txt", ".x/f.mp3"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    top = serve(tmp_path)
    assert found(f"{top}/") == [(f"{top}/{name}", None) for name in ("a.mp3", "b%20c.mp3", "d/e.flac")]


LISTINGS = {
    # As Apache, Caddy and IIS write them; and a stream, which is no page.
    "/apache/": (
        '<a href="?C=N;O=D">Name</a><a href="/">Parent Directory</a><a href="Don\'t%20Stop.mp3">Don\'t Stop</a>'
        '<a href="R%20&amp;%20B.mp3">R &amp; B</a><a href="https.mp3">https</a><a href="sub%20way/">sub way</a>'
        '<a href="%40eaDir/">@eaDir</a><a href="http://[/x.mp3">no address</a><a href="/other/x.mp3">elsewhere</a>'
    ),
    "/apache/sub%20way/": '<a href="/apache/">Parent Directory</a><a href="deep.flac">deep</a>',
    "/apache/@eaDir/": '<a href="thumbnail.mp3">thumbnail</a>',
    "/caddy/": '<a href="..">up</a><a href="./a.mp3">a</a><a href="./sub/">sub</a>',
    "/caddy/sub/": '<a href="..">up</a><a href="./b.mp3">b</a>',
    "/i%20s/": '<A HREF="/">[To Parent Directory]</A><A HREF="/i%20s/a\'b.mp3">a</A><A HREF=/i%20s/c.mp3>c</A>',
}


class Listings(http.server.BaseHTTPRequestHandler):
    """A web server with the listings of others."""

    def do_GET(self) -> None:
        page = LISTINGS.get(self.path)
        if page is None and self.path != "/stream/":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html;charset=UTF-8" if page else "audio/mpeg")
        self.end_headers()
        try:
            while self.command == "GET":
                self.wfile.write(page.encode() if page else bytes(1 << 10))
                if page:
                    break
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("apache/", ["Don't%20Stop.mp3", "R%20&%20B.mp3", "https.mp3", "sub%20way/deep.flac"]),
        ("caddy/", ["a.mp3", "sub/b.mp3"]),
        ("i s/", ["a'b.mp3", "c.mp3"]),
        ("stream/", []),
    ],
)
def test_web_folders_of_other_servers(serve: Callable[[Any], str], folder: str, names: list[str]) -> None:
    top = serve(Listings)
    wanted = [(f"{top}/{folder.replace(' ', '%20')}{name}", None) for name in names]
    assert found(f"{top}/{folder}") == wanted
    ((_, error),) = found(f"{top}/gone/")
    assert error == "no such file"


def test_each_place_comes_once(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"x")
    memory.pipe("/m/a.mp3", b"x")
    seen = Seen()
    seen.add("memory:///m/b.mp3")
    memory.pipe("/m/b.mp3", b"x")
    places = [tmp_path, tmp_path / "a.mp3", place_of("memory:///m"), place_of("memory:///m/a.mp3")]
    names = [str(one.place) for one in find_places(places, None, seen)]
    assert names == [str(tmp_path / "a.mp3"), "memory:///m/a.mp3"]


# What is fetched


def test_a_copy_that_is_gone_afterwards(s3: Any) -> None:
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
        ("short.mp3", "cannot be fetched|ClientPayloadError|10 of 1000 bytes"),
        ("endless.mp3", "larger than 1 MB"),
    ],
)
def test_servers_that_lie(serve: Callable[[Any], str], name: str, error: str) -> None:
    with pytest.raises(StorageError, match=error), fetched(Url(f"{serve(Liar)}/{name}"), max_bytes=1 << 20):
        pass


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("http://127.0.0.1:9/a.mp3", "[Cc]onnect"),
        ("nonsense://a.mp3", "not known"),
        ("memory://gone.mp3", "no such file"),
        ("zip://a.mp3::memory://x.zip", "irectory|o such file"),
        ("http://[/a.mp3", "Invalid"),
    ],
)
def test_addresses_that_lead_nowhere(memory: Any, text: str, error: str) -> None:
    with pytest.raises(StorageError, match=error) as caught, fetched(Url(text)):
        pass
    assert "\n" not in str(caught.value)


def test_a_size_beyond_the_limit_is_not_fetched(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="large.mp3", Body=bytes(2 << 20))
    with (
        pytest.raises(StorageError, match="larger than 1 MB"),
        fetched(Url(f"s3://{BUCKET}/large.mp3"), max_bytes=1 << 20),
    ):
        pass


# stone tag


def test_stone_tag_hears_addresses(
    invoke: Invoke, s3: Any, serve: Callable[[Any], str], songs: Mapping[str, Path], tmp_path: Path
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
        "stone: memory:///a.flac: tags are written to files, and this is an address\n",
    )
    result = invoke("tag", "memory:///a.flac", "--remove")
    assert result.exit_code == 1
    assert result.stderr == "memory:///a.flac: tags are not written to addresses, only to files\n"
    assert memory.cat("/a.flac") == songs["flac"].read_bytes()


def test_a_list_may_hold_addresses(
    stone_command: list[str], serve: Callable[[Any], str], songs: Mapping[str, Path], tmp_path: Path
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
