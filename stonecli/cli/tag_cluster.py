"""``stone tag --cluster``: the same on a Dask cluster, for any number of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonecli.cli.common import Device, fail_without_music, load_model
from stonecli.cli.running import stopped_by_ctrl_c
from stonecli.cli.tag_screen import TagScreen
from stonecli.key import Notation
from stonecli.tags import FieldRule

if TYPE_CHECKING:
    from stonecli.remote.locations import Place

_READ_AHEAD = 4096  # places that are found before there is room for them


@dataclass(frozen=True)
class ClusterTagging:
    """What is to be done to each file: the options of ``stone tag``."""

    rules: tuple[FieldRule, ...]
    write: bool
    overwrite: bool
    remove: bool
    min_confidence: float
    preserve_mtime: bool
    model: Path | None
    device: Device


def tag_on_cluster(
    address: str,
    places: Iterable[Place],
    how: ClusterTagging,
    output: Path | None,
    screen: TagScreen,
    notation: Notation,
) -> None:
    """Tag all that is there and not in ``output`` yet, and show each file as it is done."""
    from stonecli.cluster.client import ClusterRun, connected, count_threads, new_word, uploaded
    from stonecli.cluster.worker import Job
    from stonecli.output.resumable import results_at
    from stonecli.output.sinks import Outputs, Targets
    from stonecli.remote.locations import Seen
    from stonecli.remote.prefetch import Ahead
    from stonecli.remote.storage import find_places
    from stonecli.tags.edit.atomic_replace import remove_leftovers

    model = None if how.remove else load_model(how.model, "cpu")  # known to be one, before it is sent
    word = new_word()
    leftovers: list[Path] = []
    with ExitStack() as stack:
        client = stack.enter_context(connected(address))
        results = stack.enter_context(results_at(output)) if output else None
        if results and output:
            screen.going_on(results, output, remove=how.remove)
        threads = count_threads(client)
        if not threads:
            screen.tell("the cluster has no workers yet; waiting for them")
        by = f"{model.name} ({model.sha256[:12]})" if model else "nobody"
        screen.remark(f"heard by {by} on a cluster of {threads} threads")
        journals, what = None, f"{'remove' if how.remove else 'write'} on a cluster"
        ends: list[bool] = []
        if how.write:
            journals = stack.enter_context(_journals(client, what, word, ends))
        place = stack.enter_context(uploaded(client, model, how.model, how.device)) if model else None
        job = Job(
            word=word,
            model=place,
            rules=how.rules,
            write=how.write,
            overwrite=how.overwrite,
            min_confidence=how.min_confidence,
            preserve_mtime=how.preserve_mtime,
            remove=how.remove,
            journals=journals,
            what=what,
        )
        found = find_places(map(_absolute, places), leftovers, results.seen if results else Seen())
        going = ClusterRun(client, job, Ahead(found, _READ_AHEAD), word=word)
        outputs = stack.enter_context(Outputs(Targets(), notation, model, results))
        stack.enter_context(screen.opened(outputs, None))
        is_interrupted = stack.enter_context(stopped_by_ctrl_c(going))
        found_any = bool(results and len(results.seen))
        for outcome in going:
            found_any = True
            screen.show(outcome.item, outcome.result, outcome.error)
            screen.advance()
        interrupted = bool(is_interrupted)
        if not interrupted:
            ends.append(True)
        if how.write:
            remove_leftovers(leftovers)
    if not found_any and not interrupted:
        fail_without_music([])  # the list of names may be endless, so it is not kept
    screen.end(interrupted=interrupted)


def _absolute(place: Place) -> Place:
    """The same for a worker, whose current folder is another."""
    return place.absolute() if isinstance(place, Path) else place


@contextmanager
def _journals(client: Any, what: str, word: str, ends: list[bool]) -> Iterator[Path]:
    """The folder for the journals of a run, which are gathered at the end; deleted where ``ends`` is not empty then."""
    from stonecli.cluster.client import check_journals
    from stonecli.tags.undo.gathered import collect, make_folder
    from stonecli.tags.undo.journal import UndoJournal

    journal = UndoJournal()
    try:
        collect(journal)  # of runs that were cut off
        run = journal.start(what)
        folder = make_folder(journal, run.number, word)
        try:
            check_journals(client, folder, word)
            yield folder
        finally:
            collect(journal, ended=run.number if ends else None)
            run.end()
    finally:
        journal.close()
