import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.errors import ModelError
from stonecli.model import registry as model_store
from stonecli.model.registry import (
    BUILT_IN,
    StoredModel,
    add_model,
    is_name,
    model_path,
    name_for,
    recorded_sha256,
    remove_model,
    stored_model,
    stored_models,
)
from stonecli.model.session import KeyModel, read_model
from stonecli.util.locks import LOCK_NAME
from tests.fixture_types import LimitFileSize

Build = Callable[..., Path]


def folder() -> Path:
    return Path(os.environ["STONE_DATA_DIR"]) / "models"


def files() -> list[str]:
    """The names in the folder, hidden ones included."""
    found = sorted(str(path.relative_to(folder())) for path in folder().rglob("*") if path.is_file())
    return [name for name in found if name != LOCK_NAME]


@pytest.fixture
def tiny(tiny_model: Build, tmp_path: Path) -> Callable[..., bytes]:
    """The bytes of a small model."""
    return lambda **changes: tiny_model(tmp_path / "tiny.onnx", **changes).read_bytes()


def test_the_built_in_model_is_the_default() -> None:
    (model,) = stored_models()
    assert (model.name, model.is_built_in, model.error) == (BUILT_IN, True, None)
    assert model.info is not None
    assert model.path is not None
    assert model.path.read_bytes() == read_model(None)
    assert model_path(BUILT_IN) == model.path
    assert not folder().exists()  # looking changes nothing


def test_an_added_model_is_found_by_its_name(tiny: Callable[..., bytes]) -> None:
    content = tiny(licence="none", trained_on="nothing")
    added = add_model(content, "mine", "/somewhere/mine.onnx")
    assert stored_models() == [stored_model(BUILT_IN), added]
    assert added.info is not None
    assert (added.info.licence, added.source, added.size) == ("none", "/somewhere/mine.onnx", len(content))
    path = model_path("mine")
    assert path == added.path
    assert path.read_bytes() == content
    assert recorded_sha256(path) == added.sha256
    assert KeyModel(path, "cpu", sha256=added.sha256).name == "mine.onnx"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_again_changes_nothing(tiny: Callable[..., bytes]) -> None:
    first = add_model(tiny(), "mine", "first")
    assert add_model(tiny(), "mine", "second") == first
    assert len(files()) == 2


def test_two_names_for_the_same(tiny: Callable[..., bytes]) -> None:
    add_model(tiny(), "one", "")
    add_model(tiny(), "two", "")
    remove_model("one")
    assert [model.name for model in stored_models()] == [BUILT_IN, "two"]
    assert stored_model("two").error is None


def test_a_name_is_taken_from_another_only_on_demand(tiny: Callable[..., bytes]) -> None:
    old, new = tiny(), tiny(licence="other")
    first = add_model(old, "mine", "old")
    with pytest.raises(ModelError, match="another model called mine; use --replace"):
        add_model(new, "mine", "new")
    assert stored_model("mine") == first
    second = add_model(new, "mine", "new", replace=True)
    assert second.sha256 != first.sha256
    assert stored_model("mine") == second
    assert len(files()) == 2
    assert not first.path or not first.path.exists()


def test_removed(tiny: Callable[..., bytes]) -> None:
    add_model(tiny(), "mine", "")
    remove_model("mine")
    assert files() == []
    assert [path.name for path in folder().iterdir() if path.name != LOCK_NAME] == []
    for name in ("mine", "never", "../x", ""):
        with pytest.raises(ModelError, match="there is no model"):
            remove_model(name)
    with pytest.raises(ModelError, match="cannot be removed"):
        remove_model(BUILT_IN)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an ONNX model; stone models lists"),
        (b"\x08\x0a" + bytes(100), "not a"),
        ({"metadata": ""}, "no stone metadata"),
        ({"sample_rate": 5}, "invalid window"),
        ({"rank": 3}, "not a float32 matrix"),
        ({"softmax": False}, "not a probability distribution"),
    ],
    ids=str,
)
def test_an_unusable_model_is_not_added(
    tiny: Callable[..., bytes], content: bytes | dict[str, object], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        add_model(content if isinstance(content, bytes) else tiny(**content), "mine", "")
    assert not folder().exists() or [path.name for path in folder().iterdir() if path.name != LOCK_NAME] == []


def test_a_failed_replacement_keeps_the_old_model(tiny: Callable[..., bytes]) -> None:
    first = add_model(tiny(), "mine", "")
    with pytest.raises(ModelError, match="not a probability distribution"):
        add_model(tiny(softmax=False), "mine", "", replace=True)
    assert stored_model("mine") == first
    assert len(files()) == 2


# Names


@pytest.mark.parametrize("name", ["a", "stone_8", "semi-tone", "0", "a" * 64])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "A", "a.b", "a.onnx", "a/b", "a\\b", "..", "-a", "_a", "a b", "ä", "a" * 65, "con", "com1", "a\n", "\x1b[31m"],
)
def test_no_names(name: str, tiny: Callable[..., bytes]) -> None:
    assert not is_name(name)
    with pytest.raises(ModelError, match="invalid model name"):
        add_model(tiny(), name, "")
    with pytest.raises(ModelError, match="there is no model"):
        stored_model(name)
    assert model_path(name) == Path(name)


@given(st.text(max_size=100))
def test_a_name_for_any_file(text: str) -> None:
    name = name_for(text)
    assert name == "" or is_name(name)


@pytest.mark.parametrize(
    ("file", "name"),
    [("/x/My Model v2.onnx", "my-model-v2"), ("semitone_ks.pt", "semitone_ks"), ("ключ.onnx", ""), ("CON.onnx", "")],
)
def test_the_name_of_a_file(file: str, name: str) -> None:
    assert name_for(file) == name


def test_a_file_beside_a_name(tiny: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no model 'mine'"):
        model_path("mine")
    Path("mine").write_bytes(tiny())
    assert model_path("mine") == Path("mine")
    added = add_model(tiny(licence="other"), "mine", "")
    assert model_path("mine") == added.path
    assert model_path("./mine") == Path("mine")
    with pytest.raises(ModelError, match="built-in model"):
        add_model(tiny(), BUILT_IN, "")


# Damage and interruption


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"version": 2}', b"[" * 50_000, b"x" * (1 << 20)],
    ids=range(9),
)
def test_a_damaged_record(tiny: Callable[..., bytes], damage: bytes) -> None:
    path = add_model(tiny(), "mine", "").path
    assert path is not None
    (folder() / "mine.json").write_bytes(damage)
    model = stored_model("mine")
    assert (model.error, model.info) == ("its record is damaged; remove it and add it again", None)
    assert model in stored_models()
    for ask in (lambda: model_path("mine"), lambda: recorded_sha256(path)):
        with pytest.raises(ModelError, match="record is damaged"):
            ask()
    assert add_model(tiny(), "mine", "").error is None
    (folder() / "mine.json").write_bytes(damage)
    remove_model("mine")
    assert stored_models() == [stored_model(BUILT_IN)]


@pytest.mark.parametrize("sha256", ["../../../../etc/passwd", "0" * 63, "G" * 64, 5, None])
def test_a_record_that_names_another_file(tiny: Callable[..., bytes], sha256: object) -> None:
    add_model(tiny(), "mine", "")
    record = json.loads((folder() / "mine.json").read_text())
    (folder() / "mine.json").write_text(json.dumps({**record, "sha256": sha256}))
    with pytest.raises(ModelError, match="record is damaged"):
        model_path("mine")


def test_a_file_that_has_changed(tiny: Callable[..., bytes]) -> None:
    path = add_model(tiny(), "mine", "").path
    assert path is not None
    path.write_bytes(tiny(licence="other"))
    assert stored_model("mine").error == "the file has changed since it was added; remove it and add it again"
    with pytest.raises(ModelError, match="wrong model"):
        KeyModel(path, "cpu", sha256=recorded_sha256(path))
    assert add_model(tiny(), "mine", "").error is None
    path.unlink()
    assert stored_model("mine").error == "no such file or folder"
    remove_model("mine")


KILLED = """
import os, sys
from pathlib import Path
from stonecli.model import registry as model_store
steps = 0
def step(event, arguments):
    global steps
    writes = event in ("os.rename", "os.remove") or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if writes and "/models/" in Path(str(arguments[0])).as_posix():
        steps += 1
        if steps > int(sys.argv[2]):
            os._exit(9)
content = Path(sys.argv[1]).read_bytes()
before = model_store.stored_models()
sys.addaudithook(step)
model_store.add_model(content, "mine", "new", replace=True)
"""


def test_a_kill_at_any_step_leaves_the_old_or_new_model(tiny: Callable[..., bytes], tmp_path: Path) -> None:
    old = add_model(tiny(), "mine", "old")
    new = tmp_path / "new.onnx"
    new.write_bytes(tiny(licence="other"))
    seen = set()
    for step in range(100):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(new), str(step)], timeout=120, check=False)
        model = stored_model("mine")
        assert model.error is None
        assert model.source in ("old", "new")
        seen.add(model.source)
        if ended.returncode == 0:
            break
        assert ended.returncode == 9
        add_model(tiny(), "mine", "old", replace=True)
    assert step >= 4  # two files, each written and renamed, and one removed
    assert seen == {"old", "new"}
    assert stored_model("mine").sha256 != old.sha256


def test_leftover_files_are_deleted_after_a_day(tiny: Callable[..., bytes]) -> None:
    add_model(tiny(), "mine", "")
    orphan = folder() / ("0" * 16) / "gone.onnx"
    orphan.parent.mkdir()
    fresh, stale = folder() / ".fresh.x.tmp", folder() / ".stale.x.tmp"
    for path in (orphan, fresh, stale):
        path.write_bytes(b"x")
    for path in (orphan, stale, *folder().glob("*/mine.onnx")):
        os.utime(path, (0, time.time() - 2 * model_store._MAX_AGE))
    add_model(tiny(licence="other"), "other", "")
    assert not orphan.parent.exists()
    assert not stale.exists()
    assert fresh.exists()
    assert stored_model("mine").error is None


def test_many_at_once(tiny: Callable[..., bytes]) -> None:
    contents = [tiny(licence=f"of {number}") for number in range(4)]

    def add(number: int) -> StoredModel:
        return add_model(contents[number % 4], f"model-{number % 4}", "", replace=True)

    with ThreadPoolExecutor(4) as executor:
        assert all(model.error is None for model in executor.map(add, range(12)))
    assert [model.name for model in stored_models()] == [BUILT_IN, *(f"model-{number}" for number in range(4))]
    assert len(files()) == 8


@pytest.mark.skipif(os.name != "posix", reason="no locks")
def test_remove_and_add_do_not_run_at_once(tiny: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tiny(), tiny(licence="other")
    add_model(first, "mine", "")
    remove_file = model_store._remove_file
    others: list[Future[StoredModel]] = []

    def slowly(path: Path) -> None:
        if not others:  # the record is that of the second, and the file of the first is to go
            others.append(executor.submit(add_model, first, "mine", "", replace=True))
            wait(others, timeout=3)
        remove_file(path)

    monkeypatch.setattr(model_store, "_remove_file", slowly)
    with ThreadPoolExecutor(1) as executor:
        assert add_model(second, "mine", "", replace=True).error is None
        assert others[0].result().error is None
    assert stored_model("mine").error is None
    assert stored_model("mine").sha256 == hashlib.sha256(first).hexdigest()


def test_a_full_disk_is_named(tiny: Callable[..., bytes], no_room: LimitFileSize) -> None:
    content = tiny(licence="x" * 5000)
    with pytest.raises(OSError, match="File too large") as caught, no_room():
        add_model(content, "mine", "")
    assert Path(caught.value.filename).name == "mine.onnx"
    assert files() == []


def test_a_folder_that_cannot_be_written(
    tiny: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STONE_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"[Nn]ot a directory|exists"):
        add_model(tiny(), "mine", "")
    assert recorded_sha256(tmp_path / "mine.onnx") is None
