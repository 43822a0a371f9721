"""A crate of ten recordings: stone writes keys and tempos and sorts it; other programs read what was written."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mutagen
import pytest

from tests.fixture_types import Encode, MakeMusic, RunStone
from tests.stonecli.tempo.sounds import drum_loop

RATE = 44100
CRATE = {  # container: key, its Camelot code, tempo
    "mp3": ("A minor", "8A", 124.0),
    "aiff": ("C major", "8B", 126.0),
    "wav 16 bit": ("E minor", "9A", 122.0),
    "flac": ("D minor", "7A", 128.0),
    "ogg vorbis": ("G major", "9B", 125.0),
    "opus": ("F major", "7B", 90.0),
    "m4a aac": ("B minor", "10A", 140.0),
    "m4a alac": ("G minor", "6A", 118.0),
    "wma": ("D major", "10B", 130.0),
    "wavpack": ("C minor", "5A", 110.0),
}
FIELDS = {"flac": "bpm", "ogg": "bpm", "opus": "bpm", "m4a": "tmpo", "wma": "WM/BeatsPerMinute", "wv": "BPM"}


@dataclass(frozen=True)
class Crate:
    """The tagged files by container, the tracks in the order of ``stone mix``, and its collection for rekordbox."""

    files: Mapping[str, Path]
    order: list[dict[str, object]]
    collection: Path


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic, encode: Encode, stone: RunStone) -> Crate:
    """Ten songs with drums that stone has tagged and sorted."""
    folder, home = tmp_path_factory.mktemp("crate"), str(tmp_path_factory.mktemp("home"))
    run_stone = functools.partial(
        stone, HOME=home, LOCALAPPDATA=home, XDG_CACHE_HOME=home, XDG_CONFIG_HOME=home, XDG_STATE_HOME=home
    )
    files = {}
    for container, (key, _, bpm) in CRATE.items():
        samples = music(key, rate=RATE)
        samples = 0.4 * samples + 0.6 * drum_loop(bpm, len(samples) / RATE, RATE)[: len(samples)]
        files[container] = encode(samples, RATE, container, folder / container.replace(" ", "-"))
    tagged = run_stone("tag", "--bpm", "--write-tags", folder)
    assert tagged.returncode == 0, tagged.stderr
    collection = folder / "mix.xml"
    mixed = run_stone("mix", "--json", "--rekordbox", collection, folder)
    return Crate(files, json.loads(mixed.stdout)["tracks"], collection)


def test_stone_mixes_the_crate_by_key_and_tempo(crate: Crate) -> None:
    names = {str(path): container for container, path in crate.files.items()}
    found = {names[str(track["path"])]: (track["key_from"], track["bpm"]) for track in crate.order}
    assert found == {container: ("tag", bpm) for container, (_, _, bpm) in CRATE.items()}


def test_mutagen_reads_the_tempos(crate: Crate) -> None:
    for container, path in crate.files.items():
        value = mutagen.File(path).tags[FIELDS.get(path.suffix[1:], "TBPM")]
        value = getattr(value, "text", value)
        assert str(value[0] if isinstance(value, list) else value) == f"{CRATE[container][2]:.0f}", container


def test_ffprobe_reads_the_tempos(crate: Crate) -> None:
    if not shutil.which("ffprobe"):
        pytest.skip("ffprobe is not installed")
    for container, path in crate.files.items():
        command = ("ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", path)
        answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        parts = [answer["format"], *answer["streams"]]
        tags = {name.upper(): text for part in parts for name, text in part.get("tags", {}).items()}
        names = [name for name in ("TBPM", "BPM", "TMPO", "WM/BEATSPERMINUTE") if name in tags]
        if names or path.suffix != ".m4a":  # ffprobe 5 does not show tmpo
            assert [tags[name] for name in names] == [f"{CRATE[container][2]:.0f}"], container


def test_pyrekordbox_reads_keys_and_tempos(crate: Crate) -> None:
    read = pytest.importorskip("pyrekordbox.rbxml").RekordboxXml(crate.collection)
    found = {Path(track["Location"]).name: (track["Tonality"], track["AverageBpm"]) for track in read.get_tracks()}
    assert found == {path.name: CRATE[container][1:] for container, path in crate.files.items()}
