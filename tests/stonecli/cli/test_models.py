from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.model import published as published_models
from stonecli.model.published import PUBLISHED, published_by_sha256
from stonecli.model.registry import BUILT_IN, stored_model
from stonecli.model.session import KeyModel

Invoke = Callable[..., Result]
Build = Callable[..., Path]
Song = Callable[..., Path]

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a server shows it; ``asked`` next to it has one line per request."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, template: str, *values: object) -> None:
            with (tmp_path / "asked").open("a") as file:
                file.write(template % values + "\n")

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()
    thread.join()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fails(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "unexpected" not in result.stderr
    assert "\x1b" not in result.stderr
    if code == 1:
        assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def records(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# Listing and showing


def test_the_built_in_model_is_listed_with_its_card(invoke: Invoke) -> None:
    result = invoke("models")
    assert (result.exit_code, result.stderr) == (0, "")
    head, line = result.stdout.splitlines()
    assert head.split("\t") == ["name", "detects", "size", "license", "from"]
    assert line.split("\t") == [BUILT_IN, "24 keys", f"{KeyModelFile.size / 1e6:.1f} MB", "MIT", "built in"]
    (record,) = records(invoke("models", "--json"))
    assert (record["name"], record["status"], record["error"]) == (BUILT_IN, "built-in", None)
    card = record["card"]
    assert isinstance(card, dict)
    assert len(card["classes"]) == 24
    assert (card["licence"], card["sample_rate"]) == ("MIT", 11025)
    text = (REPOSITORY / "stonecli" / "model" / "MODEL_CARD.md").read_text("utf-8")
    assert invoke("models", "show", BUILT_IN).stdout.splitlines() == text.splitlines()
    (shown,) = records(invoke("models", "show", BUILT_IN, "--json"))
    assert shown == {**record, "text": text}


class KeyModelFile:
    size = stored_model(BUILT_IN).size


def test_the_card_is_wrapped_only_on_a_terminal(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = invoke("models", "show", BUILT_IN).stdout
    assert raw.startswith("# ")
    assert "\n| " in raw
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", invoke("models", "show", BUILT_IN).stdout)
    assert not re.search(r"^#|^\||\*\*|\]\(", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80


def test_an_added_model_is_listed_and_shown(invoke: Invoke, tiny_model: Build, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "My Model.onnx", count=12, licence="\x1b[31m[red]\n", trained_on="nothing\x07")
    result = invoke("models", "add", path)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, third = result.stdout.splitlines()
    assert first == f"my-model: 12 key signatures, 0.0 MB, SHA-256 {sha256(path)}"
    assert second == "license: \\x1b[31m[red]\\n"
    assert third == "use it: stone tag --model my-model"
    assert (
        invoke("models").stdout.splitlines()[2].startswith("my-model\t12 key signatures\t0.0 MB\t\\x1b[31m[red]\\n\t")
    )
    shown = invoke("models", "show", "my-model").stdout
    assert f"from: {path}\n" in shown
    assert f"sha256: {sha256(path)}\n" in shown
    assert "trained on: nothing\\x07\n" in shown
    assert "classes: C major/A minor, Db major/Bb minor, " in shown
    assert records(invoke("models", "--json"))[1] == {
        key: value for key, value in records(invoke("models", "show", "my-model", "--json"))[0].items() if key != "text"
    }


def test_a_damaged_model_does_not_hide_the_others(invoke: Invoke, tiny_model: Build, tmp_path: Path) -> None:
    for name in ("one", "two"):
        invoke("models", "add", tiny_model(tmp_path / f"{name}.onnx"))
    model = stored_model("one")
    assert model.path is not None
    model.path.write_bytes(b"damaged")
    result = invoke("models")
    assert result.exit_code == 1
    assert [line.split("\t")[:2] for line in result.stdout.splitlines()[1:]] == [
        [BUILT_IN, "24 keys"], ["one", "damaged"], ["two", "24 keys"]
    ]  # fmt: skip
    assert result.stderr == "stone: one: the file has changed since it was added; remove it and add it again\n"
    assert invoke("models", "show", "one").exit_code == 1
    assert invoke("models", "remove", "one").exit_code == 0
    assert invoke("models").exit_code == 0


# Adding files


def test_a_hash_is_held_against_a_file(invoke: Invoke, tiny_model: Build, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "x.onnx")
    fails(
        invoke("models", "add", path, "--sha256", "0" * 64),
        1,
        f"{path}: its SHA-256 is {sha256(path)}, not the one of --sha256",
    )
    fails(invoke("models", "add", path, "--sha256", "beef"), 2, "--sha256")
    assert len(records(invoke("models", "--json"))) == 1
    assert invoke("models", "add", path, "--sha256", sha256(path).upper()).exit_code == 0


def test_names(invoke: Invoke, tiny_model: Build, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "ключ.onnx")
    fails(invoke("models", "add", path), 2, "--name")
    fails(invoke("models", "add", path, "--name", "A/B"), 2, "--name")
    fails(invoke("models", "add", "https://example.org/CON.onnx"), 2, "--name is missing: CON.onnx gives no name")
    fails(invoke("models", "add", path, "--name", "con"), 2, "no name that Windows reserves, not 'con'")
    fails(invoke("models", "add", path, "--name", BUILT_IN), 1, "built-in model")
    assert invoke("models", "add", path, "--name", "mine").exit_code == 0
    other = tiny_model(tmp_path / "mine.onnx", licence="other")
    fails(invoke("models", "add", other), 1, "another model called mine; use --replace")
    assert invoke("models", "add", other, "--replace").exit_code == 0
    assert stored_model("mine").sha256 == sha256(other)


def test_a_file_that_is_not_a_model(invoke: Invoke, tiny_model: Build, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("text")
    fails(invoke("models", "add", tmp_path / "text.onnx"), 1, "not a")
    fails(invoke("models", "add", tmp_path / "nothing.onnx"), 1, "nothing.onnx: no such file")
    fails(
        invoke("models", "add", "nothing"),
        1,
        "no such file or published model; the published models are stone, semi-tone, skey",
    )
    fails(invoke("models", "add", tiny_model(tmp_path / "x.onnx", temperature=float("nan"))), 1, "NaN is not a number")
    fails(invoke("models", "add", tiny_model(tmp_path / "y.onnx", external="weights.bin")), 1, "weights in other files")
    assert len(records(invoke("models", "--json"))) == 1


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["add"], ["remove"], ["list", "x"], ["burn"], ["show", "x", "--yes"], ["--name", "x"], ["--replace"]],
    ids=" ".join,
)
def test_wrong_usage(invoke: Invoke, arguments: list[str]) -> None:
    fails(invoke("models", *arguments), 2)


def test_a_model_that_does_not_exist(invoke: Invoke) -> None:
    for action in ("show", "remove"):
        fails(invoke("models", action, "\x1b[31m"), 1, "there is no model '\\x1b[31m'")
    fails(invoke("models", "remove", BUILT_IN), 1, "cannot be removed")


# Adding from addresses


def test_from_an_address(invoke: Invoke, tiny_model: Build, site: tuple[Path, str]) -> None:
    folder, url = site
    path = tiny_model(folder / "model.onnx")
    result = invoke("models", "add", f"{url}/model.onnx?token=secret", "--sha256", sha256(path), "--json")
    (record,) = records(result)
    assert (record["name"], record["status"], record["sha256"]) == ("model", "added", sha256(path))
    assert record["source"] == f"{url}/model.onnx"  # the query may be secret and is not stored
    fails(invoke("models", "add", f"{url}/model.onnx", "--sha256", "0" * 64), 1, f"{url}/model.onnx: wrong file")
    fails(invoke("models", "add", f"{url}/none.onnx"), 1, f"{url}/none.onnx: server error 404")
    fails(invoke("models", "add", "http://example.org/x.onnx"), 1, "http://example.org/x.onnx: use https")
    fails(invoke("models", "add", "file:///etc/passwd"), 1, "not a URL")
    fails(invoke("models", "add", "https://[::1/x.onnx"), 1, "stone: https://[::1/x.onnx: not a URL\n")


def test_a_model_that_was_cut_off_is_refused_even_without_a_hash(
    invoke: Invoke, tiny_model: Build, site: tuple[Path, str]
) -> None:
    folder, url = site
    path = tiny_model(folder / "model.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    fails(invoke("models", "add", f"{url}/model.onnx"), 1, "not a valid model file: damaged or truncated")
    assert len(records(invoke("models", "--json"))) == 1


def test_no_other_command_uses_the_network(invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    assert invoke("models").exit_code == 0
    assert invoke("tag", song("mp3")).exit_code == 0
    assert "there is no model 'skey'" in invoke("tag", song("mp3"), "--model", "skey").stderr
    fails(invoke("models", "add", "skey"), 2, "add --yes")


# Published checkpoints


def test_the_published_checkpoints_are_pinned() -> None:
    assert list(PUBLISHED) == ["stone", "semi-tone", "skey"]
    for name, model in PUBLISHED.items():
        assert model.name == name
        assert model.url.startswith("https://")
        assert len(model.sha256) == 64
        assert published_by_sha256(model.sha256) is model


def test_the_pinned_hashes_are_those_of_the_published_files(shared: Path) -> None:
    files = {"stone": "semitone_ks.pt", "semi-tone": "semisupervised_ks_mode.pt", "skey": "skey.pt"}
    for name, file in files.items():
        assert sha256(shared / "checkpoints" / file) == PUBLISHED[name].sha256
        assert PUBLISHED[name].url.endswith("/" + file)


@pytest.fixture
def published(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of our own, published as ``skey`` on this machine."""
    pytest.importorskip("torch").set_num_threads(1)
    pytest.importorskip("onnx")
    folder, url = site
    checkpoints = sorted((REPOSITORY / "checkpoints").glob("*.pt"))
    if not checkpoints:
        pytest.skip("needs a checkpoint of the repository")
    path = folder / "skey.pt"
    path.write_bytes(checkpoints[0].read_bytes())
    ours = replace(PUBLISHED["skey"], url=f"{url}/skey.pt", sha256=sha256(path))
    monkeypatch.setitem(published_models.PUBLISHED, "skey", ours)
    return path


def test_a_published_checkpoint_is_fetched_converted_and_used(
    invoke: Invoke, published: Path, song: Song, tmp_path: Path
) -> None:
    result = invoke("models", "add", "skey", "--yes")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("skey: 24 keys, ")
    assert result.stderr.splitlines()[1].startswith("license: MIT for the code")
    model = stored_model("skey")
    assert model.info is not None
    assert model.info.checkpoint_sha256 == sha256(published)
    assert model.source == PUBLISHED["skey"].url
    detected = json.loads(invoke("analyze", song("flac"), "--model", "skey", "--json").stdout)
    assert detected["model"] == f"skey.onnx@{model.sha256[:12]}"
    assert detected["key"]["musical"] == "Dm"
    fails(invoke("models", "add", published, "--name", "other"), 2, "license: MIT for the code", "add --yes")


def test_without_a_yes_nothing_is_fetched(invoke: Invoke, published: Path, tmp_path: Path) -> None:
    fails(invoke("models", "add", "skey"), 2, "S-KEY", "https://github.com/deezer/skey", "license: ", "add --yes")
    assert not (tmp_path / "asked").exists()
    fails(invoke("models", "add", "skey", "--sha256", "0" * 64, "--yes"), 2, "--sha256")


def test_another_file_than_was_published(invoke: Invoke, published: Path) -> None:
    published.write_bytes(published.read_bytes() + b"x")
    result = invoke("models", "add", "skey", "--yes")
    assert result.exit_code == 1
    assert "wrong file" in result.stderr.splitlines()[-1]
    assert len(records(invoke("models", "--json"))) == 1


def test_without_torch_one_line_before_anything_is_fetched(
    invoke: Invoke, published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "stonecli_export.onnx_file", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = invoke("models", "add", "skey", "--yes")
    fails(result, 2, "stone models add needs onnx; install it: pip install 'stonecli[train]'")
    assert not (tmp_path / "asked").exists()


def test_a_file_that_only_looks_like_a_checkpoint(invoke: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for number, content in enumerate((b"PK\x03\x04" + bytes(60), b"\x80\x04\x95" + bytes(60))):
        path = tmp_path / f"bad{number}.pt"
        path.write_bytes(content)
        fails(invoke("models", "add", path), 1, "not a")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("answer", ["n", "y"])
def test_a_terminal_asks_for_agreement(stone_command: list[str], answer: str) -> None:
    """The URL is real, but the proxy does not exist: after a yes, the attempt to connect fails."""
    pytest.importorskip("torch")
    import pty
    import subprocess

    ours, theirs = pty.openpty()
    os.write(ours, answer.encode() + b"\n")
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}
    result = subprocess.run(
        [*stone_command, "models", "add", "skey"], stdin=theirs, capture_output=True, text=True, check=False,
        timeout=300, env=environment,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert result.returncode == 1
    assert "Do you agree?" in result.stderr
    assert ("the connection was lost" in result.stderr or "the download failed" in result.stderr) == (answer == "y")
    assert ("no model was added" in result.stderr) == (answer != "y")


# --model


def test_a_model_by_its_name(invoke: Invoke, tiny_model: Build, song: Song, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "mine.onnx")
    invoke("models", "add", path)
    path.unlink()
    track = song("flac")
    for command in (["tag", track], ["analyze", track]):
        detected = json.loads(invoke(*command, "--model", "mine", "--json").stdout)
        assert detected["model"] == f"mine.onnx@{stored_model('mine').sha256[:12]}"
    detected = json.loads(invoke("analyze", track, "--model", BUILT_IN, "--json").stdout)
    assert detected["model"] == f"{BUILT_IN}.onnx@{KeyModel(device='cpu').sha256[:12]}"
    labels = tmp_path / "labels.csv"
    labels.write_text(f"path,key\n{track},D minor\n")
    report = json.loads(invoke("evaluate", labels, "--model", "mine", "--against", BUILT_IN, "--json").stdout)
    assert report["model"].startswith("mine.onnx@")
    assert report["against"]["name"].startswith(f"{BUILT_IN}.onnx@")


def test_a_name_without_a_file(invoke: Invoke, song: Song) -> None:
    result = invoke("tag", song("flac"), "--model", "nobody")
    assert result.exit_code == 2
    assert result.stderr == (
        "stone: --model nobody: there is no model 'nobody'; stone models lists the models, stone models add adds one\n"
    )


def test_a_model_that_has_changed_is_not_used(invoke: Invoke, tiny_model: Build, song: Song, tmp_path: Path) -> None:
    invoke("models", "add", tiny_model(tmp_path / "mine.onnx"))
    model = stored_model("mine")
    assert model.path is not None
    tiny_model(model.path, licence="other")
    result = invoke("tag", song("flac"), "--model", "mine")
    assert result.exit_code == 2
    assert "wrong model" in result.stderr


def test_in_the_config_file(invoke: Invoke, tiny_model: Build, song: Song, tmp_path: Path) -> None:
    invoke("models", "add", tiny_model(tmp_path / "mine.onnx"))
    assert invoke("config", "set", "tag.model", "mine").exit_code == 0
    assert json.loads(invoke("tag", song("flac"), "--json").stdout)["model"].startswith("mine.onnx@")
    assert invoke("models", "remove", "mine").exit_code == 0
    assert "there is no model 'mine'" in invoke("tag", song("flac"), "--json").stderr
    assert invoke("models").exit_code == 0  # which can bring it back
