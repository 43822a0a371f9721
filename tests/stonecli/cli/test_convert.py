"""``stone convert``: the keys that files have, in another notation or another field."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from mutagen import File
from mutagen.flac import FLAC
from mutagen.id3 import GEOB, ID3, TKEY, TXXX

from stonecli.key import NOTATIONS, Key
from stonecli.tags import FieldRule, read_tags, write_key
from tests.fixture_types import CopySong, Fingerprint, Invoke
from tests.tag_samples import tagged

MIXED_IN_KEY = b'{"algorithm":94,"key":"5A","source":"mixedinkey"}'


def statuses(stdout: str) -> dict[str, str]:
    return {Path(cells[0]).name: cells[-1] for line in stdout.splitlines()[1:] if (cells := line.split("\t"))}


@pytest.fixture(autouse=True)
def _no_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("nothing is analyzed"))
    monkeypatch.setattr("stonecli.model.session.KeyModel.__init__", lambda *_, **__: pytest.fail("no model is needed"))


def test_every_container_is_converted_and_restored(
    invoke: Invoke, song: CopySong, any_container: str, fingerprint: Fingerprint
) -> None:
    path = song(any_container)
    write_key(path, Key.parse("G#m"), [FieldRule("key", "musical")])
    before = path.read_bytes()
    preview = invoke("convert", path, "--notation", "openkey")
    assert (preview.exit_code, statuses(preview.stdout)) == (0, {path.name: "convertible"})
    assert path.read_bytes() == before
    written = invoke("convert", path, "--notation", "openkey", "--write-tags")
    assert (written.exit_code, statuses(written.stdout)) == (0, {path.name: "written"})
    assert read_tags(path).text == "6m"
    assert statuses(invoke("convert", path, "--notation", "openkey", "--write-tags").stdout) == {path.name: "unchanged"}
    assert invoke("undo").exit_code == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "notation", "new"),
    [
        ("A-flat minor", "camelot", "1A"),
        ("1A", "sharps", "G#m"),
        ("6m", "flats", "Abm"),
        ("G♯ min", "musical", "G#m"),
        ("gis-Moll", "openkey", "6m"),
        ("1A (Abm)", "flats", "Abm"),
        ("01a", "camelot", "1A"),
        (MIXED_IN_KEY.decode(), "musical", "Cm"),
    ],
)
def test_foreign_spellings(invoke: Invoke, song: CopySong, old: str, notation: str, new: str) -> None:
    path = tagged(song("flac"), initialkey=old, title="A title")
    assert invoke("convert", path, "--notation", notation, "--write-tags").exit_code == 0
    assert (FLAC(path)["initialkey"], FLAC(path)["title"]) == ([new], ["A title"])


def test_two_notations_at_once(invoke: Invoke, song: CopySong) -> None:
    path = tagged(song("flac"), initialkey="Abm", comment="from Beatport")
    fields = ["--field", "key=openkey", "--field", "comment=camelot"]
    invoke("convert", path, *fields, "--write-tags")
    assert (FLAC(path)["initialkey"], FLAC(path)["comment"]) == (["6m"], ["1A - from Beatport"])
    invoke("convert", path, "--field", "key=flats", "--field", "comment=sharps", "--write-tags")
    assert (FLAC(path)["initialkey"], FLAC(path)["comment"]) == (["Abm"], ["G#m - from Beatport"])
    invoke("convert", path, "--field", "comment", "--write-tags")
    assert (FLAC(path)["initialkey"], FLAC(path)["comment"]) == (["Abm"], ["1A - from Beatport"])


def test_corrections_by_hand_survive(invoke: Invoke, song: CopySong) -> None:
    path = song("mp3")
    invoke_tags = ID3()
    invoke_tags.add(TKEY(text="Ebm"))  # corrected by hand; the other field has what a program detected
    invoke_tags.add(GEOB(mime="application/json", desc="Key", data=MIXED_IN_KEY))
    invoke_tags.save(path)
    invoke("convert", path, "--notation", "camelot", "--write-tags")
    tags = ID3(path)
    assert tags["TKEY"].text == ["2A"]
    assert tags["GEOB:Key"].data == MIXED_IN_KEY


@pytest.mark.parametrize(
    ("suffix", "texts", "fields"),
    [
        ("flac", {"initialkey": ["Am", "Em"]}, []),
        ("flac", {"initialkey": ["Am"], "key": ["Em"]}, []),
        ("flac", {"initialkey": ["Am"], "comment": ["Em - from Beatport"]}, ["--field", "comment"]),
        ("flac", {"initialkey": ["Am"], "comment": ["Em"]}, ["--field", "comment"]),
        ("mp3", {"TKEY": ["Am", "Em"]}, []),
        ("mp3", {"TKEY": ["Am"], "INITIALKEY": ["Em"]}, []),
    ],
)
def test_a_second_key_is_never_lost(
    invoke: Invoke, song: CopySong, suffix: str, texts: dict[str, list[str]], fields: list[str]
) -> None:
    path = song(suffix)
    if suffix == "flac":
        file = FLAC(path)
        file.update(texts)
        file.save()
    else:
        tags = ID3()
        for name, values in texts.items():
            tags.add(TKEY(text=values) if name == "TKEY" else TXXX(desc=name, text=values))
        tags.save(path)
    before = path.read_bytes()
    result = invoke("convert", path, *fields, "--write-tags")
    assert path.read_bytes() == before
    assert result.stderr == f"{path}: two different keys (8A and 9A); left as it is\n"
    assert (result.exit_code, statuses(result.stdout)) == (0, {path.name: "different keys"})


def test_a_text_next_to_the_key_is_never_lost(invoke: Invoke, song: CopySong) -> None:
    path = song("flac")
    file = FLAC(path)
    file["initialkey"] = ["Am", "maybe Em"]
    file.save()
    before = path.read_bytes()
    result = invoke("convert", path, "--write-tags")
    assert path.read_bytes() == before
    assert result.stderr == f"{path}: not a key: 'maybe Em'; left as it is\n"


@pytest.mark.parametrize(
    ("fields", "shown"), [(["comment=openkey"], "1m"), (["comment=openkey", "key=flats"], "Am"), ([], "8A")]
)
def test_the_written_notation_is_shown(invoke: Invoke, song: CopySong, fields: list[str], shown: str) -> None:
    path = tagged(song("flac"), initialkey="A minor")
    result = invoke("convert", path, *(part for field in fields for part in ("--field", field)))
    assert [line.split("\t")[1:] for line in result.stdout.splitlines()] == [
        ["old key", "new key", "status"],
        ["A minor", shown, "convertible"],
    ]


def test_unreadable_texts_are_named_and_counted(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    bad = tagged(song("flac", "bad"), initialkey="8A/9A")
    tagged(song("flac", "none"), initialkey="o")
    song("flac", "empty")
    tagged(song("flac", "good"), initialkey="8A")
    before = bad.read_bytes()
    folder = bad.parent
    (folder / "broken.mp3").write_text("no music")
    result = invoke("convert", folder, "--notation", "musical", "--write-tags", "--output", tmp_path / "out.csv")
    found = {"bad.flac": "unreadable key", "none.flac": "no key", "empty.flac": "no key", "good.flac": "written"}
    assert statuses(result.stdout) == found
    assert f"{bad}: not a key: '8A/9A'; left as it is\n" in result.stderr
    assert (result.exit_code, "broken.mp3: " in result.stderr) == (1, True)
    assert bad.read_bytes() == before
    rows = {Path(row["path"]).name: row for row in csv.DictReader((tmp_path / "out.csv").read_text().splitlines())}
    assert {name: row["status"] for name, row in rows.items()} == {**found, "broken.mp3": "error"}
    assert [rows["good.flac"][name] for name in ("old_key", "tag_key", "key", "detected_key")] == ["8A", "Am", "Am", ""]


def test_a_terminal_shows_counts_and_the_next_step(song: CopySong) -> None:
    import io

    from rich.console import Console

    from stonecli.tagging import TagResult
    from stonecli.terminal.table import TagTable

    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    table = TagTable(console, [], "openkey")
    table.header()
    key = Key.parse("8A")
    table.row(TagResult(Path("a.mp3"), "convertible", key, "A minor", key, None))
    table.row(TagResult(Path("b.mp3"), "unreadable key", None, "loud", None, None))
    table.summary(0, write=False)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[1].split() == ["a.mp3", "A", "minor", "1m", "Am", "convertible"]
    assert lines[-1].startswith("1 convertible, 1 with a key text that stone cannot read; no file was changed")


def test_the_run_has_a_name_for_undo(invoke: Invoke, song: CopySong) -> None:
    tagged(song("flac"), initialkey="Am")
    invoke("convert", song("flac").parent, "--write-tags")
    path = tagged(song("flac"), initialkey="Am")
    invoke("convert", path, "--write-tags")
    (run,) = [json.loads(line) for line in invoke("undo", "--list", "--json").stdout.splitlines()][:1]
    assert (run["what"], run["files"]) == ("convert key", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--notation", "loud"], f"--notation must be one of {', '.join(NOTATIONS)}"),
        (["--field", "genre"], "--field must be one of key, comment, grouping, title"),
        (["--field", "title", "--mode", "replace"], "cannot be replace for a title"),
        (["--overwrite"], "there is no option --overwrite"),
        (["--output", "x.parquet"], "--output must end in .csv, .json"),
        (["--quiet", "--json"], "--quiet cannot be combined with --json"),
        (["https://example.org/a.mp3"], "tags can only be converted in files on this computer"),
    ],
)
def test_wrong_usage(invoke: Invoke, song: CopySong, arguments: list[str], message: str) -> None:
    result = invoke("convert", song("flac"), *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_the_cache_still_knows_a_converted_file(
    invoke: Invoke, song: CopySong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    path = tagged(song("flac"), initialkey="Am")
    first: dict[str, Any] = json.loads(invoke("tag", path, "--overwrite", "--json").stdout)
    assert invoke("convert", path, "--notation", "openkey", "--write-tags").exit_code == 0
    monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("it is in the cache"))
    monkeypatch.setattr("stonecli.tagging.tagger.hash_content", lambda *_, **__: pytest.fail("its hash is known"))
    second = json.loads(invoke("tag", path, "--overwrite", "--json").stdout)
    assert (second["detected_key"], second["old_key"]) == (first["detected_key"], "1m")


def test_names_and_tags_are_data(invoke: Invoke, song: CopySong) -> None:
    path = tagged(song("flac", "x\n\x1b[31m[red]"), initialkey="\x1b]0;pwn\x07[bold]")
    result = invoke("convert", path)
    assert "\x1b" not in result.stdout + result.stderr
    assert "unreadable key" in result.stdout
    assert File(path)["initialkey"]
