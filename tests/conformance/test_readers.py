"""The fields that other programs read from a file that stone has written: the table in docs/tags.md, cell by cell.

A reader that is not here is skipped. An empty cell (—) is a limit of that reader, of which nothing is asked: a newer
version may have lost it. Names are compared without case and punctuation, which change from version to version.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import mutagen
import pytest

from stonecli.key import Key
from stonecli.tags import FieldRule, write_key
from stonecli.tags.formats.containers import CONTAINERS
from stonecli.tags.formats.sniff import sniff

RULES = (
    FieldRule("key", "camelot"),
    FieldRule("comment", "musical", "prepend"),
    FieldRule("grouping", "openkey", "prepend"),
    FieldRule("title", "musical", "append"),
)
FILES = {  # row of the table: sample, ending
    "MP3": ("mp3", "mp3"),
    "AIFF": ("aiff", "aiff"),
    "WAV": ("wav", "wav"),
    "FLAC": ("flac", "flac"),
    "Ogg Vorbis": ("ogg vorbis", "ogg"),
    "Opus": ("opus", "opus"),
    "Ogg FLAC": ("ogg flac", "oga"),
    "M4A (AAC)": ("mp4", "m4a"),
    "M4A (ALAC)": ("alac", "m4a"),
    "WMA": ("asf", "wma"),
    "WavPack": ("wavpack", "wv"),
}


def output(*command: str | Path) -> str:
    """Output of a program; skips the test if it is not installed."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=60).stdout


def read_mutagen(path: Path) -> dict[str, object]:
    def text(value: object) -> object:
        value = getattr(value, "text", value)  # an ID3 frame
        value = value[0] if isinstance(value, list) else value
        return value.decode() if isinstance(value, bytes) else getattr(value, "value", value)

    return {name: text(value) for name, value in dict(mutagen.File(path).tags).items()}


def read_ffprobe(path: Path) -> dict[str, Any]:
    if not shutil.which("ffprobe"):  # the ffmpeg that comes with the wheel shows the same, as lines
        options = ("-map", "0:a", "-c", "copy", "-f", "ffmetadata", "-")
        lines = output(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, *options).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
    answer = json.loads(output("ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", path))
    tags = [part.get("tags", {}) for part in (answer["format"], *answer["streams"])]
    return {name: text for part in tags for name, text in part.items()}


def read_mediainfo(path: Path) -> dict[str, object]:
    general = json.loads(output("mediainfo", "--Output=JSON", path))["media"]["track"][0]
    return general | general.get("extra", {})


def read_kid3(path: Path) -> dict[str, object]:
    answer = json.loads(output("kid3-cli", "-c", '{"method":"get"}', path))["result"]["taggedFile"]
    tags = [part["frames"] for part in answer.values() if isinstance(part, dict)]
    return {frame["name"]: frame["value"] for frames in tags for frame in frames}


def read_eyed3(path: Path) -> dict[str, object]:
    tag = pytest.importorskip("eyed3").load(path).tag
    frames = {name: tag.getTextFrame(name) for name in ("TKEY", "TIT1", "TIT2")}
    return frames | {"COMM": tag.comments[0].text}


def read_beets(path: Path) -> dict[str, object]:
    file = pytest.importorskip("mediafile").MediaFile(path)
    return {name: getattr(file, name) for name in ("initial_key", "comments", "grouping", "title")}


def read_taglib(path: Path) -> dict[str, object]:
    with pytest.importorskip("taglib").File(path) as file:
        return {name: texts[0] for name, texts in file.tags.items()}


READERS: dict[str, Callable[[Path], dict[str, object]]] = {
    "mutagen": read_mutagen,
    "ffprobe": read_ffprobe,
    "MediaInfo": read_mediainfo,
    "Kid3": read_kid3,
    "eyeD3": read_eyed3,
    "beets": read_beets,
    "TagLib": read_taglib,
}


def cells() -> Iterator[tuple[str, str, str]]:
    """Row, column and text of each cell of the table that says something."""
    lines = (Path(__file__).parents[2] / "docs" / "tags.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head = next(row for row in rows if "MediaInfo" in row)
    first = rows.index(head) + 2
    for row in rows[first : first + len(FILES)]:
        yield from ((row[0], name, cell) for name, cell in zip(head[1:], row[1:], strict=True) if cell != "—")


def plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def set_title(path: Path) -> None:
    """stone makes no title where there is none."""
    with path.open("rb") as file:
        container = sniff(file)
        splices = CONTAINERS[container].editor.splices(file, container, {"title": "Song"})
    content = path.read_bytes()
    for splice in sorted(splices, key=lambda splice: -splice.offset):
        content = content[: splice.offset] + splice.data + content[splice.offset + splice.length :]
    path.write_bytes(content)


@pytest.mark.parametrize(("row", "reader", "name"), list(cells()))
def test_other_programs_read_the_written_key(
    row: str, reader: str, name: str, make: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where Kid3 keeps its settings
    sample, ending = FILES[row]
    path = make(sample, f"song.{ending}")
    set_title(path)
    assert write_key(path, Key.parse("8A"), RULES)
    shown = {plain(field): str(text) for field, text in READERS[reader](path).items()}
    assert shown.get(plain(name)) == "8A"
    assert {"Am", "1m", "Song - Am"} <= set(shown.values())


def test_the_table_is_complete() -> None:
    assert {row for row, _, _ in cells()} == set(FILES)
    assert {reader for _, reader, _ in cells()} == set(READERS)
