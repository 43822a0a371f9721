import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from mutagen.flac import FLAC

from stonecli.cache.results import ResultCache
from stonecli.detection.detect import detect_key
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import AudioError, TagError
from stonecli.key import Key
from stonecli.library.music_file import MusicFile
from stonecli.model.session import KeyModel
from stonecli.tagging import Remover, Tagger, TagOptions, tagger
from stonecli.tags import FieldRule, KeyTags, read_tags, write_key

D_MINOR = Key.parse("Dm")
Song = Callable[..., Path]
Fingerprint = Callable[[Path], dict[str, tuple[int, int, str]]]


class TestDetectedKeys:
    def test_a_preview_detects_and_writes_nothing(
        self, key_model: KeyModel, song: Song, fingerprint: Fingerprint
    ) -> None:
        path = song("flac")
        before = fingerprint(path.parent)
        result = Tagger(key_model)(path)
        assert fingerprint(path.parent) == before
        assert (result.path, result.status, result.key) == (path, "detected", D_MINOR)
        assert (result.old_text, result.old_key) == (None, None)
        assert result.estimate is not None
        assert result.estimate.key == D_MINOR
        assert result.estimate.windows == ()  # they are many, and nobody asks for them

    def test_keys_below_the_confidence_are_not_written(
        self, key_model: KeyModel, song: Song, fingerprint: Fingerprint
    ) -> None:
        path = song("flac")
        before = fingerprint(path.parent)
        result = Tagger(key_model, TagOptions(write=True, min_confidence=0.99))(path)
        assert (result.status, result.key) == ("unsure", D_MINOR)
        assert fingerprint(path.parent) == before
        assert result.estimate is not None
        estimated = Tagger(key_model, TagOptions(write=True, min_confidence=result.estimate.confidence))(path)
        assert estimated.status == "written"

    def test_the_modification_time(self, key_model: KeyModel, song: Song) -> None:
        kept, renewed = song("flac", "kept"), song("flac", "renewed")
        old = kept.stat().st_mtime_ns, renewed.stat().st_mtime_ns
        assert Tagger(key_model, TagOptions(write=True, preserve_mtime=True))(kept).status == "written"
        assert Tagger(key_model, TagOptions(write=True))(renewed).status == "written"
        assert kept.stat().st_mtime_ns == old[0]
        assert renewed.stat().st_mtime_ns > old[1]

    def test_several_fields(self, key_model: KeyModel, song: Song) -> None:
        path = song("flac")
        rules = (FieldRule("key", "musical"), FieldRule("comment", "camelot", "prepend"))
        assert Tagger(key_model, TagOptions(rules=rules, write=True))(path).status == "written"
        assert read_tags(path).text == "Dm"
        assert FLAC(path)["comment"][0].startswith("7A")

    def test_it_can_be_sent_to_another_process(self, key_model: KeyModel, song: Song) -> None:
        sent = pickle.loads(pickle.dumps(Tagger(key_model, TagOptions(write=True))))
        result = pickle.loads(pickle.dumps(sent(song("mp3"))))
        assert (result.status, result.key) == ("written", D_MINOR)


class TestExistingKeys:
    """Without ``overwrite``, a file that has a key keeps it."""

    def test_write_keep_overwrite(self, key_model: KeyModel, song: Song, fingerprint: Fingerprint) -> None:
        path = song("flac")
        assert Tagger(key_model, TagOptions(write=True))(path).status == "written"
        assert read_tags(path).text == "7A"
        before = fingerprint(path.parent)
        kept = Tagger(key_model, TagOptions(write=True))(path)
        assert (kept.status, kept.key, kept.old_text, kept.estimate) == ("kept", D_MINOR, "7A", None)
        again = Tagger(key_model, TagOptions(write=True, overwrite=True))(path)
        assert (again.status, again.key, again.old_key) == ("unchanged", D_MINOR, D_MINOR)
        assert fingerprint(path.parent) == before
        other = Tagger(key_model, TagOptions(rules=(FieldRule("key", "musical"),), write=True, overwrite=True))(path)
        assert (other.status, other.old_text) == ("written", "7A")
        assert read_tags(path).text == "Dm"

    def test_a_wrong_key_is_skipped_too(self, key_model: KeyModel, song: Song) -> None:
        path = song("flac")
        tags = FLAC(path)
        tags["initialkey"] = "8B"
        tags.save()
        kept = Tagger(key_model, TagOptions(write=True))(path)
        assert (kept.status, kept.key) == ("kept", Key.parse("C"))
        overwritten = Tagger(key_model, TagOptions(write=True, overwrite=True))(path)
        assert (overwritten.status, overwritten.key, overwritten.old_key) == ("written", D_MINOR, Key.parse("C"))

    @pytest.mark.parametrize("write", [True, False])
    @pytest.mark.parametrize("text", ["\x1b[31mloud", "8A/9A", "Am I wrong", "A dorian"])
    def test_nothing_is_written_beside_an_unreadable_key_text(
        self, key_model: KeyModel, song: Song, fingerprint: Fingerprint, text: str, write: bool
    ) -> None:
        """The detected key could contradict the key that the text means."""
        path = song("flac")
        tags = FLAC(path)
        tags["initialkey"], tags["comment"] = text, "mine"
        tags.save()
        before = fingerprint(path.parent)
        rules = (FieldRule("key", "musical"), FieldRule("comment", "camelot", "prepend"))
        for wanted in (rules, rules[:1], rules[1:]):
            result = Tagger(key_model, TagOptions(rules=wanted, write=write))(path)
            assert (result.status, result.key, result.old_key, result.old_text) == ("unreadable key", None, None, text)
        assert fingerprint(path.parent) == before

    def test_overwrite_replaces_a_key_text_that_stone_cannot_read(self, key_model: KeyModel, song: Song) -> None:
        path = song("flac")
        tags = FLAC(path)
        tags["initialkey"] = "loud"
        tags.save()
        result = Tagger(key_model, TagOptions(write=True, overwrite=True))(path)
        assert (result.status, result.old_text) == ("written", "loud")
        assert FLAC(path)["initialkey"] == ["7A"]

    @pytest.mark.parametrize("text", ["o", "All", "INVALID", "0", "-", " "])
    def test_a_text_for_no_key_counts_as_no_key(self, key_model: KeyModel, song: Song, text: str) -> None:
        path = song("flac")
        tags = FLAC(path)
        tags["initialkey"] = text
        tags.save()
        result = Tagger(key_model, TagOptions(write=True))(path)
        assert (result.status, result.key) == ("written", D_MINOR)
        assert FLAC(path)["initialkey"] == ["7A"]

    def test_a_key_beside_a_text_for_no_key_is_skipped(self, key_model: KeyModel, song: Song) -> None:
        path = song("flac")
        tags = FLAC(path)
        tags["initialkey"], tags["key"] = "INVALID", "Am"
        tags.save()
        result = Tagger(key_model, TagOptions(write=True))(path)
        assert (result.status, result.key, result.old_text) == ("kept", Key.parse("Am"), "Am")

    def test_other_fields_get_the_existing_key_without_analysis(
        self, key_model: KeyModel, song: Song, fingerprint: Fingerprint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Key in the key tag, Camelot in the comment, on a folder that has been tagged before: is_KeyFinder #60."""
        path = song("flac")
        tags = FLAC(path)
        tags["initialkey"], tags["comment"] = "C♯ minor", "mine"
        tags.save()
        monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("it was analyzed"))
        rules = (FieldRule("key", "musical"), FieldRule("comment", "camelot", "prepend"))
        before = fingerprint(path.parent)
        preview = Tagger(key_model, TagOptions(rules=rules))(path)
        assert (preview.status, preview.key, preview.estimate) == ("incomplete", Key.parse("C#m"), None)
        assert fingerprint(path.parent) == before
        assert Tagger(key_model, TagOptions(rules=rules, write=True))(path).status == "written"
        assert FLAC(path)["comment"] == ["12A - mine"]
        assert FLAC(path)["initialkey"] == ["C♯ minor"]  # not rewritten without --overwrite
        before = fingerprint(path.parent)
        for write in (True, False):
            assert Tagger(key_model, TagOptions(rules=rules, write=write))(path).status == "kept"
        assert fingerprint(path.parent) == before


@pytest.fixture
def tagged_meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From now on another program writes a key while a file is detected: in place, and sets the time back."""

    def begin(text: str) -> None:
        detect = detect_key

        def detect_and_tag(music: MusicFile, model: KeyModel, **_: object) -> KeyEstimate:
            estimate, path = detect(music, model), music.path
            status = path.stat()
            tags = FLAC(path)
            tags["initialkey"] = text
            tags.save()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            return estimate

        monkeypatch.setattr(tagger, "detect_key", detect_and_tag)

    return begin


class TestChangesByOtherPrograms:
    @pytest.mark.parametrize("has_cache", [True, False])
    def test_writes_of_other_programs_during_analysis_stay(
        self, key_model: KeyModel, song: Song, tagged_meanwhile: Callable[[str], None], tmp_path: Path, has_cache: bool
    ) -> None:
        path = song("flac")
        FLAC(path).save(padding=lambda _: 1000)  # so that the size stays, too
        tagged_meanwhile("C♯ minor")
        cache = ResultCache(tmp_path / "cache") if has_cache else None
        before = path.stat()
        with pytest.raises(TagError, match="changed the file in the meantime"):
            Tagger(key_model, TagOptions(write=True), cache=cache)(path)
        assert FLAC(path)["initialkey"] == ["C♯ minor"]
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert Tagger(key_model, TagOptions(write=True), cache=cache)(path).status == "kept"

    def test_a_preview_of_a_changing_file_is_an_error(
        self, key_model: KeyModel, song: Song, tagged_meanwhile: Callable[[str], None], tmp_path: Path
    ) -> None:
        tagged_meanwhile("C")
        with pytest.raises(TagError, match="changed the file in the meantime"):
            Tagger(key_model, cache=ResultCache(tmp_path / "cache"))(song("flac"))

    def test_another_program_may_write_the_same_key(
        self, key_model: KeyModel, song: Song, tagged_meanwhile: Callable[[str], None]
    ) -> None:
        tagged_meanwhile("7A")
        assert Tagger(key_model, TagOptions(write=True))(song("flac")).status == "unchanged"

    def test_a_file_replaced_before_its_other_fields_are_written(
        self, key_model: KeyModel, song: Song, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = song("flac")
        write_key(path, D_MINOR)

        def read_and_replace(music: MusicFile) -> KeyTags:
            tags = read_tags(music)
            other = song("flac", "other")
            write_key(other, Key.parse("C"))
            other.replace(music.path)
            return tags

        monkeypatch.setattr(tagger, "read_tags", read_and_replace)
        with pytest.raises(TagError, match="changed the file in the meantime"):
            Tagger(key_model, TagOptions(rules=(FieldRule("comment"),), write=True))(path)
        assert read_tags(path).key == Key.parse("C")
        assert "comment" not in FLAC(path)


class TestRemoval:
    def test_remove_deletes_the_written_key(self, song: Song, fingerprint: Fingerprint) -> None:
        path = song("flac")
        tags = FLAC(path)
        tags["comment"] = "mine"
        tags.save()
        rules = (FieldRule(), FieldRule("comment", "musical", "prepend"))
        write_key(path, D_MINOR, rules)
        before = fingerprint(path.parent)
        preview = Remover(TagOptions(rules=rules, remove=True))(path)
        assert (preview.status, preview.key, preview.old_text, preview.old_key) == ("removable", None, "7A", D_MINOR)
        assert fingerprint(path.parent) == before
        assert Remover(TagOptions(rules=rules, write=True, remove=True))(path).status == "removed"
        assert (FLAC(path).get("initialkey"), FLAC(path)["comment"]) == (None, ["mine"])
        for write in (True, False):
            assert Remover(TagOptions(rules=rules, write=write, remove=True))(path).status == "unchanged"


class TestFilesThatCannotBeWritten:
    """They are refused before the analysis, which takes longer."""

    def test_a_file_that_cannot_be_tagged_is_not_analyzed(
        self, key_model: KeyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.mp3"
        path.write_text("a letter\n" * 1000)
        with pytest.raises(AudioError):
            Tagger(key_model)(path)  # a preview needs no access to write
        monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("it was analyzed"))
        with pytest.raises(TagError):
            Tagger(key_model, TagOptions(write=True))(path)

    @pytest.mark.parametrize(
        ("hinder", "reason"),
        [
            (lambda path: path.chmod(0o444), "read-only"),
            (lambda path: os.link(path, path.with_name("other")), "hard links"),
        ],
    )
    @pytest.mark.parametrize("has_cache", [True, False])
    def test_a_file_that_cannot_be_written_is_not_analyzed(
        self,
        key_model: KeyModel,
        song: Song,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        hinder: Callable[[Path], None],
        reason: str,
        has_cache: bool,
    ) -> None:
        path = song("flac")
        link = path.with_name("link.flac")
        link.symlink_to(path)
        hinder(path)
        cache = ResultCache(tmp_path / "cache") if has_cache else None
        with monkeypatch.context() as patch:
            patch.setattr(tagger, "detect_key", lambda *_, **__: pytest.fail("it was analyzed"))
            for name in (path, link):
                with pytest.raises(TagError, match=reason):
                    Tagger(key_model, TagOptions(write=True), cache=cache)(name)
        assert Tagger(key_model, cache=cache)(path).status == "detected"  # a preview needs no access to write

    def test_a_file_in_a_read_only_folder_is_not_analyzed(
        self, key_model: KeyModel, song: Song, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = song("flac")
        can = os.access
        monkeypatch.setattr(os, "access", lambda name, mode: name != path.parent and can(name, mode))  # root always can
        monkeypatch.setattr(tagger, "detect_key", lambda *_, **__: pytest.fail("it was analyzed"))
        with pytest.raises(TagError, match="no permission to write in its folder"):
            Tagger(key_model, TagOptions(write=True))(path)

    def test_a_read_only_file_with_the_right_key_is_not_an_error(
        self, key_model: KeyModel, song: Song, tmp_path: Path
    ) -> None:
        path = song("flac")
        again = Tagger(key_model, TagOptions(write=True, overwrite=True), cache=ResultCache(tmp_path / "cache"))
        assert again(path).status == "written"
        path.chmod(0o444)
        assert again(path).status == "unchanged"
