"""The registry of containers: every row is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mutagen.apev2 import APEv2

from stonecli.key import Key
from stonecli.library.walk import MUSIC_SUFFIXES
from stonecli.tags import read_tags, remove_key, write_key
from stonecli.tags.formats.containers import CONTAINERS, MAGIC_BYTES, Container, load_class
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.track_info import TrackInfo, read_info
from tests.fixture_types import BytesOf, CopySample
from tests.tag_samples import CONTAINERS as SAMPLES
from tests.tag_samples import WITHOUT_AUDIO, write_texts

ROOT = Path(__file__).parents[4]
A_MINOR = Key.parse("Am")


@pytest.mark.parametrize("row", CONTAINERS.values(), ids=lambda row: row.name)
class TestEveryContainer:
    def test_is_found_in_folders(self, row: Container) -> None:
        assert row.suffix in MUSIC_SUFFIXES, "add it to stonecli/library/walk.py"

    def test_has_a_sample(self, row: Container) -> None:
        assert row.name in SAMPLES.values(), "add one to tests/tag_samples.py"

    def test_is_detected_by_content(self, row: Container, make: CopySample) -> None:
        path = make(row.name)
        with path.open("rb") as file:
            assert sniff(file) == row.name
            head = path.read_bytes()[:MAGIC_BYTES]
        matching = [other.name for other in CONTAINERS.values() if other.matches(head)]
        assert matching == ([row.name] if row.magic else [])

    def test_has_an_editor(self, row: Container) -> None:
        assert callable(row.editor.splices)
        assert callable(row.editor.payload)

    def test_has_classes_of_mutagen(self, row: Container) -> None:
        assert isinstance(load_class(row.tag_class), type)
        assert isinstance(load_class(row.file_class), type)

    def test_a_key_does_not_change_the_audio(self, row: Container, make: CopySample, digest: BytesOf) -> None:
        path = make(row.name)
        before = digest(path)
        assert write_key(path, A_MINOR)
        tags = read_tags(path)
        assert (tags.container, tags.key, digest(path)) == (row.name, A_MINOR, before)
        assert remove_key(path)
        assert read_tags(path).key is None

    def test_shows_its_audio_properties(self, row: Container, make: CopySample) -> None:
        if row.name in WITHOUT_AUDIO:
            pytest.skip("the sample is noise after the magic, so mutagen finds no audio properties")
        assert read_info(make(row.name)) != TrackInfo()

    def test_shows_the_title_of_its_tags(self, row: Container, make: CopySample) -> None:
        if row.name in WITHOUT_AUDIO:
            pytest.skip("the sample is noise after the magic, so mutagen finds no audio properties")
        path = make(row.name)
        write_texts(path, {"title": "Song"})
        assert read_info(path).title == "Song", "its file class of mutagen reads another kind of tag"

    def test_is_in_the_documentation(self, row: Container) -> None:
        text = (ROOT / "docs" / "tags.md").read_text(encoding="utf-8").lower()
        name = {"mp4": "m4a", "asf": "wma", "ogg vorbis": "ogg", "ogg flac": "ogg"}.get(row.name, row.name)
        for table in text.split("\n|---")[1:3]:  # the fields of the key, and those of the tempo
            assert re.search(rf"\b{name}\b", table.partition("\n\n")[0]), "add it to both tables of docs/tags.md"
        (untagged,) = re.findall(".*no field for the key:.*", text)
        assert not re.search(rf"\b{name}\b", untagged), "docs/tags.md says that it has no field for the key"


@pytest.mark.parametrize("name", [row.name for row in CONTAINERS.values() if row.editor_module == "mp3"])
class TestContainersWithID3InFront:
    def test_a_key_in_an_ape_tag_is_found_and_updated(self, name: str, make: CopySample) -> None:
        path = make(name)
        ape = APEv2()
        ape["initialkey"] = "Dm"
        ape.save(path)
        assert read_tags(path).text == "Dm"
        assert write_key(path, A_MINOR)
        assert (read_tags(path).text, str(APEv2(path)["initialkey"])) == ("8A", "8A")

    def test_a_new_tag_has_the_title_of_the_ape_tag(self, name: str, make: CopySample) -> None:
        path = make(name)
        ape = APEv2()
        ape["title"] = "Song"
        ape.save(path)
        assert write_key(path, A_MINOR)
        assert read_info(path).title == "Song"


def test_the_names_are_the_keys_of_the_registry() -> None:
    assert all(name == row.name for name, row in CONTAINERS.items())
