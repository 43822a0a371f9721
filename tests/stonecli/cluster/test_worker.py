import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stonecli.cluster import worker
from stonecli.cluster.worker import Job, ModelSource, load_model, stop_run
from stonecli.key import Key
from stonecli.library.locations import Url
from stonecli.model.session import KeyModel
from stonecli.tagging import TagOptions
from stonecli.tags import read_tags, write_key
from stonecli.tags.undo.journal import UndoJournal
from stonecli.tags.undo.worker_journals import collect, make_folder, thread_journal

Song = Callable[..., Path]
RUN_ID = "a run"
WRITE = TagOptions(write=True)


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run."""
    journal = UndoJournal(tmp_path / "state" / "undo.sqlite3")
    yield make_folder(journal, journal.start("write on a cluster").number, RUN_ID)
    journal.close()


@pytest.fixture
def job(key_model: KeyModel) -> Job:
    return Job(RUN_ID, ModelSource(key_model.sha256, "cpu"))


def test_a_preview(job: Job, song: Song, tmp_path: Path) -> None:
    good, bad = song("flac"), tmp_path / "bad.mp3"
    bad.write_bytes(b"no music")
    said = job([good, tmp_path / "gone.mp3", bad])
    assert said.refusal is None
    (result, error), (_, gone), (_, broken) = said.answers
    assert result is not None
    assert (result.path, result.status, result.key, error) == (good, "detected", Key.parse("Dm"), None)
    assert gone is not None
    assert "sees no such file" in gone
    assert broken is not None


def test_a_written_key_can_be_undone(job: Job, song: Song, journals: Path) -> None:
    path = song("mp3")
    before = path.read_bytes()
    job = replace(job, options=WRITE, journals=journals, what="write on a cluster")
    ((result, _),) = job([path]).answers
    assert result is not None
    assert (result.status, read_tags(path).text) == ("written", "7A")
    journal = UndoJournal(journals.parents[1] / "undo.sqlite3")
    collect(journal)
    (change,) = journal.changes(int(journals.name))
    assert change.path == path
    assert change.undo.before[0] == len(before)
    journal.close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_writes_of_a_killed_worker_are_reported(job: Job, song: Song, journals: Path, overwrite: bool) -> None:
    path = song("flac")
    with thread_journal(journals, "write on a cluster") as run:
        write_key(path, Key.parse("Dm"), journal=run)  # and no more is detected of it
    kept = song("flac", "kept")
    write_key(kept, Key.parse("Am"))  # before the run
    job = replace(job, options=TagOptions(write=True, overwrite=overwrite), journals=journals)
    stamp = path.stat().st_mtime_ns
    ((result, _), (other, _)) = job([path, kept]).answers
    assert result is not None
    assert other is not None
    assert (result.status, result.key, result.old_text) == ("written", Key.parse("Dm"), None)
    assert result.estimate is not None
    assert other.status == ("written" if overwrite else "kept")
    assert path.stat().st_mtime_ns == stamp


def test_nothing_is_written_that_cannot_be_undone(job: Job, song: Song, journals: Path) -> None:
    path = song("flac")
    for other in (replace(job, run_id="another", journals=journals), replace(job, journals=journals / "gone")):
        said = replace(other, options=WRITE)([path])
        assert said.answers == []
        assert said.refusal is not None
        assert "STONE_STATE_DIR" in said.refusal
    assert read_tags(path).text is None


def test_an_address_is_not_written_to(job: Job, journals: Path) -> None:
    ((result, error),) = replace(job, options=WRITE, journals=journals)([Url("memory:///a.mp3")]).answers
    assert (result, error) == (None, "tags can only be written to files, not to URLs")


def test_other_versions_and_models_are_refused(job: Job, song: Song) -> None:
    said = replace(job, version="0.0")([song("flac")])
    assert said.refusal is not None
    assert "not 0.0" in said.refusal
    said = replace(job, model=ModelSource("0" * 64, "cpu"))([song("flac")])
    assert said.answers == []
    assert said.refusal is not None
    assert "wrong model" in said.refusal


def test_a_stopped_run_returns_its_results(job: Job, song: Song) -> None:
    job = replace(job, run_id="to be stopped")
    stop_run("to be stopped")
    assert job([song("flac")] * 3).answers == []


def test_a_model_is_loaded_once(key_model: KeyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(KeyModel):
        def __init__(self, *arguments: object, **options: object) -> None:
            made.append(1)
            super().__init__(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "KeyModel", Counted)
    monkeypatch.setattr(worker, "_models", {})
    source = ModelSource(key_model.sha256, "cpu")
    threads = [threading.Thread(target=load_model, args=(source,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_process_that_dies_costs_one_file(
    job: Job, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs stonecli[cluster]")
    condition = 'event == "open" and "killer" in str(given[0])'
    hook = f"import os, sys\nsys.addaudithook(lambda event, given: {condition} and os.abort())\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path[1:]]))
    paths = [song("flac", name) for name in ("a", "killer 1", "b", "killer 2", "killer 3", "c")]
    said = replace(job, is_isolated=True)(paths)
    assert said.refusal is None
    assert [error for _, error in said.answers] == [
        "the process that analyzed it died (SIGABRT)" if "killer" in path.name else None for path in paths
    ]
    assert {result.key for result, _ in said.answers if result} == {Key.parse("Dm")}


def test_the_refusal_of_an_isolated_process_is_returned(job: Job, song: Song, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs stonecli[cluster]")
    said = replace(job, is_isolated=True, options=WRITE, journals=tmp_path / "gone")([song("flac")])
    assert said.answers == []
    assert said.refusal is not None
    assert "STONE_STATE_DIR" in said.refusal


def test_tags_are_removed(job: Job, song: Song, journals: Path) -> None:
    path = song("flac")
    shutil.copy(path, path.with_name("other.flac"))
    write_key(path, Key.parse("Dm"))
    job = replace(job, model=None, options=TagOptions(remove=True, write=True), journals=journals)
    assert [result.status for result, _ in job([path, path.with_name("other.flac")]).answers if result] == [
        "removed",
        "unchanged",
    ]
    # Again, as after a worker that died
    assert [result.status for result, _ in job([path]).answers if result] == ["removed"]
