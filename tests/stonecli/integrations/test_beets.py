"""The beets plugin, with beets itself: a library of its own, imports, ``beet stone``, and the tags read back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest

from stonecli.key import Key
from stonecli.tags import read_tags
from tests.fixture_types import CopySong, Encode, Fingerprint, MakeModel, MakeMusic, RunStone
from tests.stonecli.tempo.sounds import drum_loop

pytest.importorskip("beets")
mediafile = pytest.importorskip("mediafile")

D_MINOR = Key.parse("D minor")
NO_KEY_IN_ASF = "wma"  # mediafile has no name for the key there


class Beets:
    """A separate beets library: ``beets("ls")`` runs ``beet ls`` as a process."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.library = folder / "library"
        self.incoming = folder / "music"  # where the fixture song puts its copies
        self.home.mkdir()
        self.configure()

    def configure(
        self, *, plugins: str = "stone", write: bool = True, pluginpath: str = "", stone: dict[str, Any] | None = None
    ) -> None:
        config = {
            "directory": str(self.library),
            "library": str(self.home / "library.db"),
            "plugins": plugins.split(),
            "pluginpath": pluginpath.split(),
            "import": {"autotag": False, "write": write},
            "stone": stone or {},
        }
        (self.home / "config.yaml").write_text(json.dumps(config))  # JSON is YAML

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "beets", *arguments],
            env={**os.environ, "BEETSDIR": str(self.home), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        assert "Traceback" not in output, output
        return output

    def imported(self, *options: str) -> None:
        self("import", "-q", *options, self.incoming)

    def items(self) -> dict[str, dict[str, Any]]:
        """The rows of the library by title, with flexible fields."""
        with sqlite3.connect(self.home / "library.db") as database:
            database.row_factory = sqlite3.Row
            rows = {row["title"]: dict(row) for row in database.execute("SELECT * FROM items")}
            for row in rows.values():
                extra = database.execute("SELECT key, value FROM item_attributes WHERE entity_id = ?", (row["id"],))
                row.update([tuple(pair) for pair in extra])
                path = os.fsdecode(row["path"])
                row["path"] = self.library / path  # newer beets keeps it relative
        return rows


@pytest.fixture
def beets(tmp_path: Path) -> Beets:
    return Beets(tmp_path)


@pytest.fixture
def track(song: CopySong) -> Callable[..., Path]:
    """A song in D minor with a title, which is its name: ``track("mp3", "one", initial_key="Am")``."""

    def make(container: str, title: str, **tags: Any) -> Path:
        path = song(container, title)
        file = mediafile.MediaFile(path)
        names = {"artist": "somebody", "albumartist": "somebody", "album": "something"}  # so that beets adds none
        file.update({"title": title, **names, **tags})
        file.save()
        return path

    return make


def test_import_stores_the_key_in_the_library_alone(
    beets: Beets, track: Callable[..., Path], fingerprint: Fingerprint
) -> None:
    track("mp3", "one")
    track("flac", "has one", initial_key="Am")
    before = fingerprint(beets.incoming)
    beets.configure(plugins="stone fromfilename info")  # beets' own plugins are still found beside ours
    beets.imported()
    assert fingerprint(beets.incoming) == before
    items = beets.items()
    assert (items["one"]["initial_key"], items["has one"]["initial_key"]) == ("Dm", "Am")
    assert 0.2 < float(items["one"]["key_confidence"]) <= 1
    assert "key_confidence" not in items["has one"]
    assert read_tags(items["one"]["path"]).key is None
    assert (
        beets("ls", "-f", "$title, $initial_key, $key_camelot, $key_openkey", "key_camelot:7A") == "one, Dm, 7A, 12m\n"
    )
    beets("stone", "-q")  # the library knows more than the file: now it says so, and nothing is detected
    assert read_tags(items["one"]["path"]).text == "Dm"
    assert read_tags(items["has one"]["path"]).text == "Am"


def test_the_confidence_has_two_digits(beets: Beets, track: Callable[..., Path]) -> None:
    track("mp3", "one")
    beets.imported()
    detected = float(beets.items()["one"]["key_confidence"])
    assert beets("ls", "-f", "$key_confidence") == f"{detected:.2f}\n"
    beets("modify", "-y", "-W", "-M", "one", "key_confidence=0.95")
    assert beets("ls", "-f", "$key_confidence") == "0.95\n"
    assert beets("ls", "-f", "$title", "key_confidence:0.94..0.96") == "one\n"
    assert beets("ls", "-f", "$title", "key_confidence:0.96..") == ""


def test_import_with_write_tags_files_imported_as_they_are(
    beets: Beets, track: Callable[..., Path], fingerprint: Fingerprint, stone: RunStone
) -> None:
    track("mp3", "one")
    track("m4a aac", "two")
    before = fingerprint(beets.incoming)
    beets.configure(stone={"notation": "camelot", "field": ["key", "comment"], "write": True})
    beets.imported()
    assert fingerprint(beets.incoming) == before
    for title, item in beets.items().items():
        assert read_tags(item["path"]).text == "7A", title
        assert mediafile.MediaFile(item["path"]).comments == item["comments"] == "7A"
    assert beets("update") == beets("stone") == ""
    assert stone("undo").stdout.count("restored") == 2


def test_beets_writes_the_key_on_import(beets: Beets, track: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "retag.py").write_text(
        "from beets import importer\n"
        "from beets.plugins import BeetsPlugin\n"
        "retag = (importer.Action if hasattr(importer, 'Action') else importer.action).RETAG\n"  # beets 2.3
        "class Retag(BeetsPlugin):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.import_stages = [lambda session, task: setattr(task, 'choice_flag', retag)]\n"
    )
    track("mp3", "one")
    beets.configure(plugins="retag stone", pluginpath=str(tmp_path), stone={"notation": "camelot"})
    beets.imported()
    item = beets.items()["one"]
    assert item["initial_key"] == "7a"  # beets lowers what is in its library
    assert mutagen.File(item["path"])["TKEY"].text == ["7A"]
    assert item["mtime"] == int(item["path"].stat().st_mtime)


def test_stone_writes_every_kind_of_file_and_beets_agrees(
    beets: Beets, track: Callable[..., Path], stone: RunStone, songs: dict[str, Path]
) -> None:
    for name in songs:
        track(name, name)
    beets.configure(stone={"auto": False})
    beets.imported("-m")  # a copy would be younger than the file whose time beets has noted
    assert {item["initial_key"] for item in beets.items().values()} == {None}
    before = {title: sha256(item["path"].read_bytes()).hexdigest() for title, item in beets.items().items()}
    output = beets("stone")
    assert output.count(": Dm") == len(songs)
    items = beets.items()
    for title, item in items.items():
        assert item["initial_key"] == "Dm"
        assert read_tags(item["path"]).key == D_MINOR, title
        assert mediafile.MediaFile(item["path"]).initial_key == (None if title == NO_KEY_IN_ASF else "Dm"), title
        assert item["mtime"] == int(item["path"].stat().st_mtime), title
    assert beets("update", "-p") == ""
    assert beets("stone") == ""  # they have keys now
    assert stone("undo").returncode == 0
    assert {title: sha256(item["path"].read_bytes()).hexdigest() for title, item in items.items()} == before


def test_pretend_nowrite_force_and_queries(beets: Beets, track: Callable[..., Path], fingerprint: Fingerprint) -> None:
    track("flac", "one", initial_key="Am")
    track("flac", "two")
    beets.configure(stone={"auto": False})
    beets.imported()
    files, rows = fingerprint(beets.library), beets.items()
    assert "Am -> Dm" in " ".join(beets("stone", "-p", "-f", "title:one").split())
    assert (fingerprint(beets.library), beets.items()) == (files, rows)
    beets("stone", "-f", "title:one", "--nowrite")
    assert fingerprint(beets.library) == files
    assert [item["initial_key"] for item in beets.items().values()] == ["Dm", None]
    assert beets.items()["one"]["mtime"] == 0  # beets' sign that the file has yet to be written
    beets.configure(stone={"auto": False}, write=False)
    beets("stone", "title:two")
    assert fingerprint(beets.library) == files
    beets("stone", "--force", "--write")
    assert [read_tags(item["path"]).text for item in beets.items().values()] == ["Dm", "Dm"]


def test_other_unwritten_changes_stay_marked_as_unwritten(beets: Beets, track: Callable[..., Path]) -> None:
    track("flac", "one")
    beets.configure(stone={"auto": False})
    beets.imported()
    beets("modify", "-y", "--nowrite", "--nomove", "title:one", "title=another")
    beets("stone")
    item = beets.items()["another"]
    assert item["mtime"] == 0
    assert mutagen.File(item["path"])["title"] == ["one"]  # only the key was written
    assert read_tags(item["path"]).key == D_MINOR
    assert "one -> another" in beets("write", "-p")


def test_an_unreadable_file_is_one_line_and_the_import_goes_on(
    beets: Beets, track: Callable[..., Path], encode: Encode
) -> None:
    track("flac", "one")
    track("mp3", "missing")
    encode(np.zeros(16 * 22050, dtype=np.float32), 22050, "flac", beets.incoming / "silence")
    beets.configure(stone={"auto": False})
    beets.imported()
    beets.items()["missing"]["path"].unlink()
    output = beets("stone")
    assert "missing.mp3: no such file or folder\n" in output
    assert "00.flac: no key\n" in output
    assert beets.items()["one"]["initial_key"] == "Dm"
    assert "no key" not in beets("stone", "-q")


def test_min_confidence_and_another_model(beets: Beets, track: Callable[..., Path], tiny_model: MakeModel) -> None:
    tiny_model(beets.home / "mine.onnx")
    track("flac", "one")
    beets.configure(stone={"model": "mine.onnx", "min_confidence": 0.9})
    beets.imported()
    assert beets.items()["one"]["initial_key"] is None
    assert "unsure" in beets("stone")
    beets.configure(stone={"model": "mine.onnx", "overwrite": True})
    beets("stone")
    assert beets.items()["one"]["initial_key"] == "Bm"  # the answer of this model for everything


@pytest.mark.parametrize(
    "settings", [{"notation": "german"}, {"model": "/nowhere/model.onnx"}], ids=["notation", "model"]
)
def test_wrong_settings_end_an_import_before_it_begins(
    beets: Beets, track: Callable[..., Path], settings: dict[str, Any]
) -> None:
    track("flac", "one")
    beets.configure(stone=settings)
    lines = [line for line in beets("import", "-q", beets.incoming, code=1).splitlines() if "backup" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: stone: ")
    assert not beets.items()


# beets has one configuration per process, so that another process checks all of these.
CHECK = """
import json, sys
import beets
from stonecli.integrations.beets import StonePlugin, UserError

for settings in json.load(sys.stdin):
    beets.config.clear()
    beets.config.read(user=False)
    beets.config["stone"].set(settings)
    try:
        StonePlugin().check_settings(None)
        print("accepted", settings)
    except UserError as error:
        print(error)
"""


def test_each_wrong_setting_is_an_error() -> None:
    wrong: list[dict[str, Any]] = [
        {"field": ["album"]},
        {"field": ["key", "comment", "key"]},
        {"field": ["title"], "mode": "replace"},
        {"min_confidence": 2},
        {"jobs": -1},
        {"overwrite": {"a": 1}},
    ]
    command = [sys.executable, "-c", CHECK]
    done = subprocess.run(command, input=json.dumps([*wrong, {}]), capture_output=True, text=True, check=True)
    *errors, good = done.stdout.splitlines()
    assert good == "accepted {}"
    assert len(errors) == len(wrong)
    assert all(line.startswith("stone: ") for line in errors)


def test_an_unusable_journal_ends_the_command_before_a_write(
    beets: Beets, track: Callable[..., Path], fingerprint: Fingerprint
) -> None:
    track("flac", "one")
    beets.configure(stone={"auto": False})
    beets.imported()
    Path(os.environ["STONE_STATE_DIR"], "undo.sqlite3").write_bytes(b"no database" * 1000)
    files = fingerprint(beets.library)
    assert "undo journal" in beets("stone", code=1)
    assert fingerprint(beets.library) == files


@pytest.fixture
def groove(beets: Beets, music: MakeMusic, encode: Encode) -> Callable[..., Path]:
    """A track in D minor with drums at 124 beats per minute, and a title that is its name."""
    samples = music("D minor", rate=44100)
    samples = 0.4 * samples + 0.6 * drum_loop(124.0, len(samples) / 44100, 44100)[: len(samples)]

    def make(container: str, title: str, **tags: Any) -> Path:
        beets.incoming.mkdir(exist_ok=True)
        path = encode(samples, 44100, container, beets.incoming / title)
        file = mediafile.MediaFile(path)
        file.update({"title": title, "artist": "somebody", "albumartist": "somebody", "album": "something", **tags})
        file.save()
        return path

    return make


def test_with_bpm_the_tempo_is_in_beets_own_field(beets: Beets, groove: Callable[..., Path], stone: RunStone) -> None:
    groove("flac", "neither")
    groove("mp3", "only a key", initial_key="Am")
    groove("m4a aac", "only a tempo", bpm=62)
    beets.configure(stone={"bpm": True})
    beets.imported()
    items = {title: (item["initial_key"], item["bpm"]) for title, item in beets.items().items()}
    assert items == {"neither": ("Dm", 124), "only a key": ("Am", 124), "only a tempo": ("Dm", 62)}
    before = {path: path.read_bytes() for path in beets.library.rglob("*.*")}
    beets("stone")
    for item in beets.items().values():
        file = mediafile.MediaFile(item["path"])
        assert (file.initial_key, file.bpm) == items[item["title"]]
    assert beets("update") == beets("stone") == ""
    assert stone("undo").stdout.count("restored") == 3
    assert {path: path.read_bytes() for path in before} == before


def test_a_range_asks_for_the_tempo_and_folds_it(beets: Beets, groove: Callable[..., Path]) -> None:
    groove("flac", "one")
    beets.configure(stone={"bpm_range": "60-110"})
    beets.imported()
    assert beets.items()["one"]["bpm"] == 62
    beets.configure(stone={"bpm_range": "110-60"})
    assert "bpm_range must be two tempos" in beets("stone", code=1)


def test_without_bpm_there_is_no_tempo(beets: Beets, groove: Callable[..., Path]) -> None:
    groove("flac", "one")
    beets.imported()
    assert not beets.items()["one"]["bpm"]
