"""Writing the tempo: every container, what a file already says, rounding, undo."""

from __future__ import annotations

from pathlib import Path

import mutagen
import pytest
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TBPM, TXXX
from mutagen.mp4 import MP4, MP4FreeForm

from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, recorded, undo_run, write_key, write_tags
from stonecli.tags.formats.containers import CONTAINERS, load_class
from stonecli.tags.tempo_text import bpm_text, says_no_tempo
from stonecli.tags.track_info import read_info
from stonecli.tempo.bpm import rounded_bpm
from tests.fixture_types import BytesOf, CopySample
from tests.tag_samples import CONTAINERS as SAMPLES
from tests.tag_samples import WITHOUT_AUDIO

A_MINOR = Key.parse("Am")
FIELDS = {"id3": "TBPM", "vorbis": "bpm", "mp4": "tmpo", "apev2": "BPM", "asf": "WM/BeatsPerMinute"}


class TestEveryContainer:
    def test_tempo_reads_back_and_the_audio_stays(self, sample: str, make: CopySample, digest: BytesOf) -> None:
        path = make(sample)
        before = digest(path)
        assert write_tags(path, None, (), 174.0)
        assert read_tags(path).bpm_text == "174"
        assert digest(path) == before

    def test_key_and_tempo_are_written_at_once(self, sample: str, make: CopySample) -> None:
        path = make(sample)
        assert write_tags(path, A_MINOR, (FieldRule(),), 87.31)
        tags = read_tags(path)
        assert (tags.text, tags.bpm_text) == ("8A", "87" if SAMPLES[sample] == "mp4" else "87.31")

    def test_second_write_changes_nothing(self, sample: str, make: CopySample) -> None:
        path = make(sample)
        assert write_tags(path, A_MINOR, (FieldRule(),), 128.0)
        content = path.read_bytes()
        assert not write_tags(path, A_MINOR, (FieldRule(),), 128.0)
        assert path.read_bytes() == content

    def test_new_tempo_replaces_the_old_one(self, sample: str, make: CopySample) -> None:
        path = make(sample)
        write_tags(path, None, (), 128.0)
        assert write_tags(path, None, (), 64.0)
        assert read_tags(path).bpm_text == "64"

    def test_preview_changes_nothing(self, sample: str, make: CopySample) -> None:
        path = make(sample)
        content = path.read_bytes()
        assert write_tags(path, None, (), 128.0, write=False)
        assert path.read_bytes() == content

    def test_undo_restores_every_byte(
        self, sample: str, make: CopySample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        path = make(sample)
        content = path.read_bytes()
        with recorded("write key, tempo") as run:
            write_tags(path, A_MINOR, (FieldRule(),), 128.0, journal=run)
        assert path.read_bytes() != content
        undo_run()
        assert path.read_bytes() == content

    def test_writing_a_key_keeps_the_tempo(self, sample: str, make: CopySample) -> None:
        path = make(sample)
        write_tags(path, None, (), 128.0)
        write_key(path, A_MINOR)
        assert read_tags(path).bpm_text == "128"

    def test_mutagen_finds_the_field_of_the_container(self, sample: str, make: CopySample) -> None:
        path = make(sample)
        write_tags(path, None, (), 128.0)
        row = CONTAINERS[SAMPLES[sample]]
        reader = row.tag_class if sample in WITHOUT_AUDIO else row.file_class
        value = load_class(reader)(path)[FIELDS[row.family]]
        assert str(getattr(value, "text", value)[0] if not isinstance(value, list) else value[0]) == "128"


class TestMp3:
    def test_new_id3_tag_copies_ape_texts_but_not_the_tempo(self, make: CopySample) -> None:
        path = make("mp3")
        ape = APEv2()
        ape["Title"], ape["BPM"] = "Song", "99"
        ape.save(path)
        assert write_tags(path, None, (), 128.0)
        tags = ID3(path)
        assert (str(tags["TIT2"]), str(tags["TBPM"])) == ("Song", "128")

    def test_id3v22_has_its_own_frame(self, make: CopySample) -> None:
        path = make("mp3")
        frame = b"TT2" + (5).to_bytes(3) + b"\0Song"
        path.write_bytes(b"ID3\x02\0\0\0\0\0" + bytes([len(frame)]) + frame + path.read_bytes())
        assert write_tags(path, None, (), 128.0)
        assert b"TBP\0\0\x04\x00128" in path.read_bytes()[:100]


def _with_fields(path: Path, fields: dict[str, list[str]]) -> None:
    """Write the fields with mutagen: free-form ones by ``name``, and the usual ones by the name that mutagen uses."""
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    for name, texts in fields.items():
        if isinstance(file.tags, ID3):
            file.tags.add(TBPM(text=texts) if name == "TBPM" else TXXX(desc=name, text=texts))
        elif isinstance(file, MP4):
            file["----:com.apple.iTunes:" + name] = [MP4FreeForm(text.encode()) for text in texts]
        else:
            file[name] = texts
    file.save()


OTHER_FIELDS = [
    ("mp3", {"BPM": ["99"]}, "99"),
    ("mp3", {"fBPM": ["99.50"]}, "99.50"),
    ("wav", {"tempo": ["99"]}, "99"),
    ("mp3", {"TBPM": ["0"], "BPM": ["99"]}, "99"),
    ("mp3", {"TBPM": ["0", "99"]}, "99"),
    ("mp3", {"TBPM": ["101"], "BPM": ["99"]}, "101"),
    ("flac", {"TEMPO": ["99"]}, "99"),
    ("flac", {"fBPM": ["99"]}, "99"),
    ("flac", {"BPM": ["0", "101"]}, "101"),
    ("flac", {"BPM": ["0"], "tempo": ["101"]}, "101"),
    ("flac", {"BPM": ["0"]}, "0"),
    ("mp4", {"BPM": ["99"]}, "99"),
    ("mp4", {"tempo": ["99"]}, "99"),
    ("asf", {"BPM": ["99"]}, "99"),
]


class TestOtherFields:
    @pytest.mark.parametrize(("container", "fields", "text"), OTHER_FIELDS)
    def test_they_count_as_the_tempo_of_the_file(
        self, make: CopySample, container: str, fields: dict[str, list[str]], text: str
    ) -> None:
        path = make(container)
        _with_fields(path, fields)
        assert read_tags(path).bpm_text == text
        assert read_info(path).bpm == (None if text == "0" else float(text))

    @pytest.mark.parametrize(("container", "fields", "text"), OTHER_FIELDS)
    def test_the_usual_field_is_written_beside_them(
        self, make: CopySample, container: str, fields: dict[str, list[str]], text: str
    ) -> None:
        path = make(container)
        _with_fields(path, fields)
        assert write_tags(path, None, (), 128.0)
        assert read_tags(path).bpm_text == "128"

    def test_the_ape_tag_of_an_mp3_counts(self, make: CopySample) -> None:
        path = make("mp3")
        _with_fields(path, {"title": ["Song"]})
        ape = APEv2()
        ape["BPM"] = "99"
        ape.save(path)
        assert read_tags(path).bpm_text == "99"


@pytest.mark.parametrize(
    ("bpm", "family", "text"),
    [
        (128.0, "id3", "128"),
        (127.96, "id3", "128"),
        (127.94, "id3", "127.94"),
        (87.5, "vorbis", "87.50"),
        (87.5, "mp4", "88"),
        (174.049, "apev2", "174"),
    ],
)
def test_rounding(bpm: float, family: str, text: str) -> None:
    assert bpm_text(bpm, family) == text  # type: ignore[arg-type]


def test_the_same_tempo_in_another_spelling_is_not_written_again(make: CopySample) -> None:
    path = make("flac")
    tags = mutagen.File(path)
    tags["BPM"] = "128,00 BPM"
    tags.save()
    assert not write_tags(path, None, (), 128.0)


@pytest.mark.parametrize(("text", "missing"), [(None, True), ("", True), ("0", True), ("0.00", True), ("fast", False)])
def test_zero_and_empty_fields_are_no_tempo(text: str | None, missing: bool) -> None:
    assert says_no_tempo(text) is missing


def test_playlists_and_mixing_read_the_written_tempo(make: CopySample) -> None:
    path = make("flac")
    write_tags(path, None, (), 127.94)
    assert read_info(path).bpm == rounded_bpm(127.94) == 127.94
