from collections.abc import Callable
from pathlib import Path

import mutagen
import pytest
from mutagen.apev2 import APEv2
from mutagen.id3 import TALB, TBPM, TCON, TIT2, TPE1, TXXX

from stonecli.tags.tempo_text import parse_bpm
from stonecli.tags.track_info import TrackInfo, read_info

Song = Callable[..., Path]
_ID3 = ("wav 8 bit", "wav 16 bit", "wav 24 bit", "wav float", "aiff", "mp3")


def write(path: Path, container: str) -> None:
    """As other programs do it."""
    values = {"title": "Tïtle", "artist": "An Artist", "album": "Album", "genre": "House", "bpm": "127"}
    if container in _ID3:
        file = mutagen.File(path)
        if file.tags is None:
            file.add_tags()
        for frame, field in ((TIT2, "title"), (TPE1, "artist"), (TALB, "album"), (TCON, "genre"), (TBPM, "bpm")):
            file.tags.add(frame(encoding=3, text=[values[field]]))
    elif container == "wma":
        file = mutagen.File(path)
        names = ("Title", "Author", "WM/AlbumTitle", "WM/Genre", "WM/BeatsPerMinute")
        for name, value in zip(names, values.values(), strict=True):
            file[name] = value
    elif container == "wavpack":
        file = APEv2()
        for field, value in values.items():
            file[field.title() if field != "bpm" else "BPM"] = value
        file.save(path)
        return
    elif container.startswith("m4a"):
        file = mutagen.File(path)
        atoms = ("\xa9nam", "\xa9ART", "\xa9alb", "\xa9gen")
        for name, value in zip(atoms, values.values(), strict=False):
            file[name] = value
        file["tmpo"] = [127]
    else:
        file = mutagen.File(path)
        file.update(values)
    file.save()


def test_track_info_of_every_container(song: Song, any_container: str) -> None:
    path = song(any_container)
    write(path, any_container)
    info = read_info(path)
    assert (info.title, info.artist, info.album, info.genre, info.bpm) == (
        "Tïtle",
        "An Artist",
        "Album",
        "House",
        127.0,
    )
    assert info.seconds == pytest.approx(16, abs=0.3)
    assert info.sample_rate in (44100, 48000) or any_container == "opus"  # mutagen does not say


def test_the_tempo_under_another_name(song: Song) -> None:
    mp3, flac = song("mp3"), song("flac")
    file = mutagen.File(mp3)
    file.add_tags()
    file.tags.add(TXXX(encoding=3, desc="BPM", text=["128.5"]))
    file.save()
    file = mutagen.File(flac)
    file["tempo"] = "99"
    file.save()
    assert (read_info(mp3).bpm, read_info(flac).bpm) == (128.5, 99.0)


def test_an_unreadable_file_has_no_track_info(tmp_path: Path, song: Song) -> None:
    (tmp_path / "text.mp3").write_text("text")
    for path in (tmp_path / "text.mp3", tmp_path / "none.mp3", tmp_path, song("m4a aac", head=0.5)):
        assert read_info(path) == TrackInfo()


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        *(("128", 128.0), ("127,99", 127.99), (" 90.5 ", 90.5)),
        ("117.45383522727273", 117.45383522727273),  # of librosa, as Python writes it
        *(("128 BPM", 128.0), ("128bpm", 128.0), ("174/87", 174.0), ("87 / 174 bpm", 87.0), ("128,5 Bpm", 128.5)),
        *((text, None) for text in ("0", "", "fast", "1e3", "nan", "inf", "NaN BPM", "12800", "-120", "１２８")),
        *((text, None) for text in ("128/", "/128", "128 / fast", "1/2/3", "128 bpm bpm", "128-130", "999/128", "19")),
        *((text, None) for text in ("1" * 10**6, " " * 10**6 + "128", "128" + " " * 10**6, "128." + "0" * 200)),
    ],
)
def test_tempos(text: str, bpm: float | None) -> None:
    assert parse_bpm(text) == bpm
