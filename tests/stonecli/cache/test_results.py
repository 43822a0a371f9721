import os
import pickle
import sqlite3
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mutagen.flac import FLAC

from stonecli.cache import database, results
from stonecli.cache.content_hash import hash_content
from stonecli.cache.results import FILE_NAME, CacheEntry, ResultCache, opened_cache
from stonecli.detection.detect import DETECTION_VERSION
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.library.music_file import MusicFile, opened
from stonecli.model.session import KeyModel
from stonecli.tagging import Tagger, TagOptions
from stonecli.tags.edit.old_digest import OldDigest

Song = Callable[..., Path]
EstimateOf = Callable[..., KeyEstimate]
A_MINOR = Key.parse("Am")
MODEL: Any = SimpleNamespace(sha256="1" * 64)
OTHER_MODEL: Any = SimpleNamespace(sha256="2" * 64)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ResultCache]:
    opened = ResultCache(tmp_path / "cache" / FILE_NAME)
    yield opened
    opened.close()


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch, estimate_of: EstimateOf) -> list[Path]:
    """The files that are analyzed from now on; all are in A minor."""
    paths: list[Path] = []

    def detect(music: MusicFile, model: KeyModel, **_: object) -> KeyEstimate:
        paths.append(music.path)
        return estimate_of("Am")

    monkeypatch.setattr("stonecli.tagging.tagger.detect_key", detect)
    return paths


def same(one: KeyEstimate | None, other: KeyEstimate) -> bool:
    assert one is not None
    fields = ("key", "confidence", "windows", "segments", "tuning_cents", "duration")
    assert one.probabilities.dtype == np.float32
    return all(getattr(one, name) == getattr(other, name) for name in fields) and bool(
        (one.probabilities == other.probabilities).all()
    )


class TestStoredEstimates:
    @pytest.mark.parametrize(("key", "changes_to"), [("Am", None), ("Am", "Eb"), (None, None)])
    def test_a_stored_estimate_is_returned_unchanged(
        self, cache: ResultCache, estimate_of: EstimateOf, key: str | None, changes_to: str | None
    ) -> None:
        estimate = replace(estimate_of(key, changes_to=changes_to), windows=())
        cache.put(b"identity", MODEL, estimate)
        assert same(cache.estimate(b"identity", MODEL), estimate)
        assert cache.estimate(b"another", MODEL) is None
        assert cache.estimate(b"identity", OTHER_MODEL) is None

    def test_another_detection_version_reanalyzes(
        self, cache: ResultCache, estimate_of: EstimateOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.put(b"identity", MODEL, estimate_of("Am"))
        monkeypatch.setattr(results, "DETECTION_VERSION", DETECTION_VERSION + 1)
        assert cache.estimate(b"identity", MODEL) is None

    def test_a_file_is_known_by_path_until_it_changes(
        self, cache: ResultCache, song: Song, estimate_of: EstimateOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = song("mp3")
        with opened(path) as music:
            assert cache.get(music, MODEL) == CacheEntry()
            cache.record(music, b"identity")
            cache.put(b"identity", MODEL, estimate_of("Am"))
            memory = cache.get(music, MODEL)
            assert memory.content_hash == b"identity"
            assert same(memory.estimate, replace(estimate_of("Am"), windows=()))
            assert cache.get(music, OTHER_MODEL).estimate is None
        monkeypatch.chdir(path.parent)
        with opened(path.name) as music:
            assert cache.get(music, MODEL).content_hash == b"identity"  # also by its relative path
        status = path.stat()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time of modification
        with opened(path) as music:
            assert cache.get(music, MODEL) == CacheEntry()

    def test_it_can_be_sent_to_another_process(self, cache: ResultCache, estimate_of: EstimateOf) -> None:
        sent = pickle.loads(pickle.dumps(cache))
        sent.put(b"identity", MODEL, estimate_of("Am"))
        sent.close()
        assert cache.count() == 1

    def test_the_oldest_used_results_are_deleted_first(
        self, tmp_path: Path, estimate_of: EstimateOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / FILE_NAME
        file = tmp_path / "song"
        file.touch()
        cache = ResultCache(path)
        day = results._today()
        for number in range(90):
            monkeypatch.setattr(results, "_today", lambda number=number: day - 100 + number)
            cache.put(bytes([number]), MODEL, estimate_of("Am"))
        with opened(file) as music:
            cache.record(music, bytes([0]))
        cache._database.change("UPDATE files SET used = 1", ())
        monkeypatch.setattr(results, "_today", lambda: day)
        with opened(file) as music:
            assert cache.get(music, MODEL).estimate is not None  # which counts as use
        cache.close()
        monkeypatch.setattr(database, "MAX_BYTES", 8192)
        cache = ResultCache(path)
        assert cache.count() == 60
        assert cache.estimate(bytes([0]), MODEL) is not None
        assert cache.estimate(bytes([1]), MODEL) is None
        assert cache.estimate(bytes([89]), MODEL) is not None
        cache.close()


class TestResultsOfAnEarlierVersion:
    """Their content hashes use the old digest."""

    @pytest.fixture
    def wav(self, tmp_path: Path) -> Path:
        samples = bytes(range(256)) * 6000
        form = struct.pack("<IHHIIHH", 16, 1, 1, 44100, 88200, 2, 16)
        content = b"WAVEfmt " + form + b"data" + struct.pack("<I", len(samples)) + samples
        path = tmp_path / "song.wav"
        path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
        return path

    def test_the_old_hash_is_that_of_commit_6885745(self, wav: Path) -> None:
        old = hash_content(wav, OldDigest)
        assert old is not None
        assert old.hex() == "1e279977b25ad0614d2d6ec3cbab6c5b"
        assert hash_content(wav) not in (old, None)

    def test_they_are_found_and_stored_under_the_new_hash(
        self, cache: ResultCache, wav: Path, estimate_of: EstimateOf
    ) -> None:
        old, new = hash_content(wav, OldDigest), hash_content(wav)
        assert old is not None
        assert new is not None
        cache.put(old, MODEL, estimate_of("Am"))
        assert cache.estimate(new, MODEL) is None
        with opened(wav) as music:
            assert same(cache.estimate(new, MODEL, music), replace(estimate_of("Am"), windows=()))
        assert same(cache.estimate(new, MODEL), replace(estimate_of("Am"), windows=()))

    def test_a_new_cache_needs_no_old_hash(
        self, cache: ResultCache, wav: Path, estimate_of: EstimateOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        new = hash_content(wav)
        assert new is not None
        cache.put(new, OTHER_MODEL, estimate_of("Am"))
        monkeypatch.setattr(results, "OldDigest", None)
        with opened(wav) as music:
            assert cache.estimate(new, MODEL, music) is None


class TestTaggingWithACache:
    def test_a_second_run_analyzes_nothing(
        self, cache: ResultCache, key_model: KeyModel, song: Song, estimated: list[Path]
    ) -> None:
        tagger = Tagger(key_model, cache=cache)
        path = song("flac")
        first, second = tagger(path), tagger(path)
        assert estimated == [path]
        assert first.estimate is not None
        assert (first.status, second.status) == ("detected", "detected")
        moved = path.rename(path.with_name("moved.flac"))
        assert tagger(moved).key == A_MINOR
        FLAC(moved).save(padding=lambda _: 100)  # another program
        assert tagger(moved).key == A_MINOR
        assert estimated == [path]
        content = bytearray(moved.read_bytes())
        content[-1] ^= 1
        moved.write_bytes(content)
        tagger(moved)
        assert estimated == [path, moved]

    def test_a_write_uses_the_current_file(
        self, cache: ResultCache, key_model: KeyModel, song: Song, estimated: list[Path]
    ) -> None:
        path = song("flac")
        Tagger(key_model, cache=cache)(path)
        writer = Tagger(key_model, TagOptions(write=True), cache=cache)
        assert writer(path).status == "written"
        kept = writer(path)
        assert (kept.status, kept.old_text) == ("kept", "8A")
        assert Tagger(key_model, TagOptions(write=True, overwrite=True), cache=cache)(path).status == "unchanged"
        tags = FLAC(path)
        tags["initialkey"] = "loud"
        tags.save()
        assert writer(path).old_text == "loud"
        del tags["initialkey"]
        tags.save()
        assert writer(path).status == "written"
        assert estimated == [path]

    def test_a_file_that_changes_during_the_analysis_is_not_cached(
        self,
        cache: ResultCache,
        key_model: KeyModel,
        song: Song,
        monkeypatch: pytest.MonkeyPatch,
        estimate_of: EstimateOf,
    ) -> None:
        path = song("flac")

        def detect(music: MusicFile, model: KeyModel, **_: object) -> KeyEstimate:
            music.path.write_bytes(music.path.read_bytes())
            return estimate_of("Am")

        monkeypatch.setattr("stonecli.tagging.tagger.detect_key", detect)
        with pytest.raises(TagError, match="another program changed the file"):
            Tagger(key_model, cache=cache)(path)
        assert cache.count() == 0


class TestDamage:
    """A damaged cache only costs time."""

    @pytest.mark.parametrize("damage", ["no database", "middle", "version"])
    def test_a_damaged_cache_is_replaced(self, damage: str, tmp_path: Path, estimate_of: EstimateOf) -> None:
        path = tmp_path / FILE_NAME
        opened = ResultCache(path)
        for number in range(200):
            opened.put(bytes([number]), MODEL, estimate_of("Am"))
        opened.close()
        if damage == "version":
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA user_version = 99")
        else:
            content = bytearray(path.read_bytes())
            start = 0 if damage == "no database" else 8192
            content[start:] = os.urandom(len(content) - start)
            path.write_bytes(content)
        opened = ResultCache(path)
        opened.put(b"new", MODEL, estimate_of("Am"))  # may meet the damage, and must not raise
        assert opened.estimate(bytes([7]), MODEL) is None
        opened.put(b"newer", MODEL, estimate_of("Am"))
        assert opened.estimate(b"newer", MODEL) is not None
        assert (
            opened.warning == f"the result cache {path} was damaged or from another version, so stone started a new one"
        )
        opened.close()

    def test_two_processes_find_the_damage_at_once(self, tmp_path: Path, estimate_of: EstimateOf) -> None:
        """Each creates the cache again, or finds that the other has, and both can use it."""
        path = tmp_path / FILE_NAME
        opened = ResultCache(path)
        for number in range(200):
            opened.put(bytes([number]), MODEL, estimate_of("Am"))
        opened.close()
        content = bytearray(path.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        path.write_bytes(content)
        caches = [ResultCache(path), ResultCache(path)]
        for number, cache in enumerate(caches):
            cache.put(bytes([number]), MODEL, estimate_of("Am"))
            cache.put(bytes([number]), MODEL, estimate_of("Am"))
        assert [cache.count() for cache in caches] == [2, 2]
        for cache in caches:
            cache.close()

    def test_a_record_with_a_flipped_bit_is_ignored(self, cache: ResultCache, estimate_of: EstimateOf) -> None:
        cache.put(b"identity", MODEL, replace(estimate_of("Am"), windows=()))
        row = cache._database.row("SELECT estimate FROM estimates")
        assert row is not None
        (packed,) = row
        for index in range(len(packed)):
            damaged = bytearray(packed)
            damaged[index] ^= 1
            cache._database.change("UPDATE estimates SET estimate = ?", (bytes(damaged),))
            assert cache.estimate(b"identity", MODEL) is None

    def test_a_damaged_record_is_ignored(self, cache: ResultCache, estimate_of: EstimateOf) -> None:
        cache.put(b"identity", MODEL, estimate_of("Am"))
        for data in (b"", b"x", bytes(500)):
            cache._database.change("UPDATE estimates SET estimate = ?", (data,))
            assert cache.estimate(b"identity", MODEL) is None

    @pytest.mark.parametrize("kind", ["folder is a file", "folder", "pipe"])
    def test_without_a_usable_file_there_is_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        monkeypatch.setenv("STONE_CACHE_DIR", str(tmp_path / "cache"))
        path = tmp_path / "cache" / FILE_NAME
        if kind == "folder is a file":
            path.parent.touch()
        elif kind == "folder":
            path.mkdir(parents=True)
        else:
            path.parent.mkdir()
            os.mkfifo(path) if hasattr(os, "mkfifo") else pytest.skip("no named pipes")
        warnings: list[str] = []
        with opened_cache(warnings.append) as cache:
            assert cache is None
        (warning,) = warnings
        assert warning.startswith(f"the result cache {path} cannot be used (")

    def test_an_error_after_the_start_is_a_warning_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate_of: EstimateOf
    ) -> None:
        monkeypatch.setenv("STONE_CACHE_DIR", str(tmp_path))
        warnings: list[str] = []
        with opened_cache(warnings.append) as cache:
            assert cache is not None
            cache._database.row("PRAGMA query_only = ON")
            for name in (b"a", b"b"):
                cache.put(name, MODEL, estimate_of("Am"))
            assert warnings == []
        (warning,) = warnings
        assert "(attempt to write a readonly database)" in warning

    def test_a_cache_that_cannot_be_written_is_not_an_error(
        self, cache: ResultCache, key_model: KeyModel, song: Song, estimated: list[Path]
    ) -> None:
        cache._database.row("PRAGMA query_only = ON")
        tagger = Tagger(key_model, cache=cache)
        assert tagger(song("mp3")).key == A_MINOR
        cache.close()
        assert tagger(song("mp3")).key == A_MINOR
        assert len(estimated) == 2
