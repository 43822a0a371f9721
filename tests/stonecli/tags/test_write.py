"""Every container: writing a key changes nothing else, and removing it restores the file."""

import os
from pathlib import Path

import pytest
from mutagen.id3 import ID3, TKEY

from stonecli.errors import TagError
from stonecli.key import NOTATIONS, Key, Notation
from stonecli.tags import FieldRule, KeyTags, read_tags, remove_key, write_key
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import snapshot
from stonecli.tags.rules import Field
from tests.fixture_types import BytesOf, CopySample, ListLeftovers
from tests.tag_samples import WITHOUT_AUDIO, write_texts

A_MINOR, D_FLAT = Key.parse("8A"), Key.parse("3B")
TEXTS = (
    FieldRule("key"),
    FieldRule("comment", "musical", "prepend"),
    FieldRule("grouping", "openkey", "append"),
)


def texts(path: Path) -> dict[Field, str]:
    with path.open("rb") as file:
        return dict(snapshot(file, sniff(file)).texts)


def test_a_key_is_written_and_read_back(
    sample: str, make: CopySample, digest: BytesOf, left_over: ListLeftovers
) -> None:
    path = make(sample)
    before = digest(path)
    assert read_tags(path).text is None
    assert write_key(path, A_MINOR)
    tags = read_tags(path)
    assert (tags.text, tags.key) == ("8A", A_MINOR)
    assert digest(path) == before
    assert left_over() == []


def test_the_audio_decodes_to_the_same_samples(sample: str, make: CopySample, decoded: BytesOf) -> None:
    if sample in ("speex", *WITHOUT_AUDIO):
        pytest.skip("the sample is a tag on noise")
    path = make(sample)
    before = decoded(path)
    write_key(path, A_MINOR, TEXTS)
    assert decoded(path) == before


def test_a_correct_key_is_not_written_again(sample: str, make: CopySample) -> None:
    path = make(sample)
    write_key(path, A_MINOR, TEXTS)
    status, content = path.stat(), path.read_bytes()
    assert not write_key(path, A_MINOR, TEXTS)
    assert path.read_bytes() == content
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_another_notation_replaces_only_our_text(sample: str, make: CopySample, notation: Notation) -> None:
    path = make(sample)
    write_key(path, A_MINOR, TEXTS)
    write_key(path, D_FLAT, [FieldRule("key", notation), FieldRule("comment", notation, "prepend")])
    assert read_tags(path).text == D_FLAT.spelled(notation)
    assert texts(path)["comment"] == D_FLAT.spelled(notation)
    assert texts(path)["grouping"] == "1m"


def test_text_of_the_user_survives(sample: str, make: CopySample) -> None:
    path = make(sample)
    long = "played at dawn, " + "ø♯" * 900
    put = {"comment": long, "grouping": "warm up", "title": "Frühling"}
    write_texts(path, put)
    title = FieldRule("title", "camelot", "prepend")
    assert write_key(path, A_MINOR, [*TEXTS, title])
    assert texts(path) == {"comment": f"Am - {long}", "grouping": "warm up - 1m", "title": "8A - Frühling"}
    assert write_key(path, D_FLAT, [*TEXTS, title])
    assert texts(path) == {"comment": f"Db - {long}", "grouping": "warm up - 8d", "title": "3B - Frühling"}
    assert remove_key(path, [*TEXTS, title])
    assert texts(path) == put
    assert read_tags(path).text is None
    assert not remove_key(path, [*TEXTS, title])


def test_only_spellings_of_stone_are_removed(sample: str, make: CopySample) -> None:
    path = make(sample)
    write_key(path, A_MINOR, [FieldRule("key"), FieldRule("comment")])
    assert texts(path)["comment"] == "8A"
    assert remove_key(path, [FieldRule("key"), FieldRule("comment")])
    assert read_tags(path).text is None
    assert "comment" not in texts(path)
    assert not remove_key(path)


@pytest.mark.parametrize("sample_without_room", ["mp3", "wav", "aiff", "wavpack", "musepack", "monkey's audio"])
def test_removing_the_key_restores_the_file(sample_without_room: str, make: CopySample) -> None:
    path = make(sample_without_room)
    content = path.read_bytes()
    write_key(path, A_MINOR, TEXTS)
    remove_key(path, TEXTS)
    assert path.read_bytes() == content


def test_a_key_in_the_spelling_of_another_program_is_not_removed(make: CopySample) -> None:
    path = make("mp3")
    tags = ID3()
    tags.add(TKEY(text=["A minor"]))
    tags.save(path)
    assert not remove_key(path)
    assert read_tags(path) == KeyTags("mp3", "A minor", A_MINOR)


def test_the_rules_are_checked_first(make: CopySample) -> None:
    path = make("mp3")
    content = path.read_bytes()
    for act in (lambda rules: write_key(path, A_MINOR, rules), lambda rules: remove_key(path, rules)):
        with pytest.raises(ValueError, match="title"):
            act([FieldRule("key"), FieldRule("title", "camelot", "replace")])
    assert path.read_bytes() == content


def test_the_mode_means_nothing_for_the_key(make: CopySample) -> None:
    path = make("flac")
    write_key(path, A_MINOR, [FieldRule("key", "musical", "prepend")])
    write_key(path, D_FLAT, [FieldRule("key", "musical", "prepend")])
    assert read_tags(path).text == "Db"


def test_without_rules_nothing_is_written(make: CopySample) -> None:
    path = make("mp3")
    assert not write_key(path, A_MINOR, [])
    assert not write_key(path, A_MINOR, [FieldRule("title", "camelot", "prepend")])  # there is no title


@pytest.mark.parametrize("key", list(Key.all()), ids=lambda key: key.musical)
def test_every_key_in_every_notation(key: Key, make: CopySample) -> None:
    path = make("mp3")
    for notation in NOTATIONS:
        write_key(path, key, [FieldRule("key", notation), FieldRule("comment", notation, "append")])
        assert read_tags(path) == KeyTags("mp3", key.spelled(notation), key)
        assert texts(path) == {"comment": key.spelled(notation)}


@pytest.mark.parametrize("name", [b"\xff\xfe \x1b[31m.mp3", b"[brackets] #%s {} ; $(x).mp3", b"new\nline", b"x" * 250])
def test_any_file_name_will_do(name: bytes, make: CopySample, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    make("flac").rename(path)
    assert write_key(path, A_MINOR)
    assert read_tags(path).key == A_MINOR
    assert os.fsencode(path) in [os.fsencode(entry) for entry in tmp_path.iterdir()]


def test_the_file_suffix_does_not_matter(make: CopySample) -> None:
    path = make("mp3", "song.flac")
    assert write_key(path, A_MINOR)
    assert read_tags(path) == KeyTags("mp3", "8A", A_MINOR)


@pytest.mark.parametrize(
    ("sample_refused", "reason"),
    [("adts", "raw AAC"), ("fragmented", "fragmented"), ("empty", "empty"), ("text", "not a")],
)
def test_a_file_that_cannot_hold_tags_safely_is_refused(
    sample_refused: str, reason: str, make: CopySample, samples: dict[str, bytes]
) -> None:
    samples = {**samples, "empty": b"", "text": b"Once upon a time" * 99}
    path = make("mp3")
    path.write_bytes(samples[sample_refused])
    with pytest.raises(TagError, match=reason) as caught:
        write_key(path, A_MINOR)
    assert str(path) not in str(caught.value)
    assert path.read_bytes() == samples[sample_refused]


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(TagError):
            read_tags(path)
        with pytest.raises(TagError):
            write_key(path, A_MINOR)


def test_the_energy_comment_of_mixed_in_key_survives(sample: str, make: CopySample) -> None:
    path = make(sample)
    write_texts(path, {"comment": "4A - Energy 6", "grouping": "Energy 6"})
    rules = [FieldRule("comment", "camelot", "prepend"), FieldRule("grouping", "camelot", "prepend")]
    for key in (A_MINOR, D_FLAT):
        assert write_key(path, key, rules)
        assert texts(path) == {"comment": f"{key.camelot} - 4A - Energy 6", "grouping": f"{key.camelot} | Energy 6"}
    assert remove_key(path, rules)
    assert texts(path) == {"comment": "4A - Energy 6", "grouping": "Energy 6"}
