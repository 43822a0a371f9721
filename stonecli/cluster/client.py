"""Run jobs on a Dask cluster with the executor of ``distributed``: batches, back-pressure, workers that die.

Needs the extra ``cluster``. The number of tasks in flight depends on the current number of threads in the cluster,
so scheduler and client use no more memory for a million files than for a thousand. Files are sent in batches, because a
task costs the scheduler a millisecond, whatever its size (docs/scale.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from stonecli._version import __version__
from stonecli.cluster.worker import Answers, Job, ModelPlace, stop_run
from stonecli.errors import ClusterError
from stonecli.jobs import NOT_YET, NotYet, Outcome, Run, error_line, run, stopped_by_signals
from stonecli.model.session import KeyModel
from stonecli.remote.locations import Place, Seen
from stonecli.remote.prefetch import Prefetcher
from stonecli.remote.storage import Found, find_places
from stonecli.tagging import PREVIEW, OnResult, ResultCounter, TagOptions, TagResult, TagSummary
from stonecli.tags.edit.atomic_replace import remove_leftovers

if TYPE_CHECKING:
    from stonecli.model.session import Device
    from stonecli.tags.undo.journal import JournalRun

CONNECT_SECONDS = 15.0
_READ_AHEAD = 4096  # files that are listed in advance
MOST_IN_BATCH = 32  # files; more do not help the scheduler, and more are lost with a worker
BATCHES_A_THREAD = 2  # one is analyzed, one is queued
_LEAST_IN_FLIGHT = 4  # an adaptive cluster grows only if there are tasks
_WAIT_SECONDS = 0.1  # for the next file, before finished tasks are handled
_COUNT_SECONDS = 5.0  # between two counts of the workers

Work = TypeVar("Work", bound=Callable[..., Answers])


@contextmanager
def connected(address: str, *, timeout: float = CONNECT_SECONDS) -> Iterator[Any]:
    """A ``distributed.Client`` of the scheduler, whose workers have this version of stone.

    Raises:
        ClusterError: the extra is not installed, the scheduler does not answer, or a worker has another stone or none.
    """
    try:
        import distributed
    except ImportError:
        raise ClusterError("a cluster needs the extra cluster: pip install 'stonecli[cluster]'") from None
    if not os.environ.get("STONE_DEBUG"):  # stone reports failures itself
        for name in [name for name in logging.root.manager.loggerDict if name.startswith(("distributed", "tornado"))]:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    make_client: Any = distributed.Client  # typed in part
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about different versions of some packages
        try:
            asyncio.run(_knock(address, timeout))
            client: Any = make_client(address, timeout=timeout, set_as_default=False)
        except Exception as error:  # OSError, ValueError, and errors of TLS
            reason = "it is not a Dask scheduler"
            if isinstance(error, OSError | ValueError):
                reason = "no answer" if isinstance(error, OSError) else str(error)
            raise ClusterError(f"the scheduler {address} cannot be reached: {reason}") from error
    try:
        _check_versions(client)
        yield client
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.close(timeout=2)


async def _knock(address: str, timeout: float) -> None:
    """Raise unless the scheduler answers. A client without a scheduler would retry for 20 s while it is closed."""
    from distributed import comm as module
    from distributed.security import Security

    connect: Any = vars(module)["connect"]  # typed in part
    security: Any = Security
    comm = await connect(address, timeout=timeout, **security().get_connection_args("client"))
    await comm.close()


def _check_versions(client: Any) -> None:
    try:
        workers = client.get_versions(packages=["stonecli"])["workers"]
    except Exception as error:
        raise ClusterError(f"the workers do not answer: {error_line(error)}") from error
    for address, found in workers.items():
        version = found["packages"].get("stonecli")
        if version != __version__:
            has = f"stone {version}" if version else "no stone"
            raise ClusterError(f"the worker {address} has {has}, and here is {__version__}: install the same on both")


def count_threads(client: Any) -> int:
    """Number of threads of all workers of the cluster."""
    return sum(client.nthreads().values())


@contextmanager
def uploaded(client: Any, model: KeyModel, path: Path | None, device: Any) -> Iterator[ModelPlace]:
    """The model for the workers: their built-in one, or a copy of ``path`` that every worker gets, also later ones.

    Raises:
        ClusterError: the model could not be sent.
    """
    if path is None:
        yield ModelPlace(model.sha256, device)
        return
    from distributed.diagnostics.plugin import UploadFile

    name = f"stone-{model.sha256[:32]}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder) / name)
        plugin = UploadFile(str(Path(folder) / name), load=False)
    plugin_name = f"{name}-{uuid.uuid4().hex}"
    try:
        client.register_plugin(plugin, name=plugin_name)
    except Exception as error:
        raise ClusterError(f"the model could not be sent to the workers: {error_line(error)}") from error
    try:
        yield ModelPlace(model.sha256, device, name)
    finally:
        with suppress(Exception):
            client.unregister_worker_plugin(plugin_name)


class ClusterRun(Generic[Work]):
    """An iterator of the outcomes of places, each once, as they come; :meth:`stop` ends it and loses none.

    Args:
        client: of the cluster.
        work: done to each batch on a worker; a :class:`stonecli.cluster.worker.Job`, or what a benchmark has instead.
        found: consumed as there is room; those that are errors are outcomes at once.
        word: that tells :func:`stonecli.cluster.worker.stop_run` which run is meant.
        most_in_batch: files in a task.
    """

    def __init__(
        self, client: Any, work: Work, found: Prefetcher[Found], *, word: str = "", most_in_batch: int = MOST_IN_BATCH
    ) -> None:
        self._client = client
        self._work = work
        self._found = found
        self._lost: deque[Outcome[Place, TagResult]] = deque()
        self._word = word
        self._most = most_in_batch
        # Not pure: Dask must not reuse the result of an equal batch.
        self._executor: Executor = client.get_executor(pure=False)
        self._runs: list[Run[tuple[Place, ...], Answers]] = []
        self._suspects: list[tuple[Place, ...]] = []
        self._stopped = False
        self._counted = time.monotonic()

    def __iter__(self) -> Iterator[Outcome[Place, TagResult]]:
        """The outcomes.

        Raises:
            ClusterError: the scheduler is gone, or a worker cannot do the run at all. What came before is done.
        """
        yield from self._outcomes(self._work, cast("Iterator[tuple[Place, ...]]", self._batches()), is_last=False)
        if self._suspects and not self._stopped:
            # The workers of these batches died repeatedly. One of the files may be the cause, or none.
            yield from self._outcomes(replace(self._work, alone=True), iter(self._suspects), is_last=True)  # type: ignore[type-var]

    def _lost_ones(self) -> Iterator[Outcome[Place, TagResult]]:
        while self._lost:
            yield self._lost.popleft()

    def stop(self) -> None:
        """Submit no more files; those being analyzed are finished and reported. May be called from a signal handler."""
        self._stopped = True
        self._found.stop()
        for going in self._runs:
            going.stop(cancel=False)  # Dask does not stop cancelled tasks, and drops their results
        threading.Thread(target=self._tell_workers, daemon=True).start()

    def _tell_workers(self) -> None:
        with suppress(Exception):
            self._client.run(stop_run, self._word, on_error="ignore")

    def _outcomes(
        self, work: Any, batches: Iterator[tuple[Place, ...]], *, is_last: bool
    ) -> Iterator[Outcome[Place, TagResult]]:
        going = run(work, batches, executor=self._executor, in_flight=self._in_flight(), ordered=False)
        self._runs.append(going)
        if self._stopped:
            going.stop(cancel=False)
        for outcome in going:
            yield from self._lost_ones()
            if time.monotonic() - self._counted > _COUNT_SECONDS:
                self._counted = time.monotonic()
                going.in_flight = self._in_flight()
            if outcome.result is None:
                self._check_scheduler(outcome.error)
                if not is_last:
                    self._suspects.append(outcome.item)
                    continue
                yield from (Outcome(place, None, outcome.error) for place in outcome.item)
                continue
            # Fewer answers than files: the batch was stopped or refused.
            for place, (result, error) in zip(outcome.item, outcome.result.answers, strict=False):
                yield Outcome(place, result, error)
            if outcome.result.refusal is not None:
                raise ClusterError(outcome.result.refusal)
        yield from self._lost_ones()

    def _batches(self) -> Iterator[tuple[Place, ...] | NotYet]:
        """Batches of increasing size, so that even a hundred files use all workers; a slow pipe does not delay them."""
        taken = 0
        batch: list[Place] = []
        while not self._stopped:
            if not self._found.wait(_WAIT_SECONDS):
                yield NOT_YET
                continue
            one = next(self._found, None)
            if one is None:
                break
            if one.error is not None:
                self._lost.append(Outcome(one.place, None, one.error))
                continue
            batch.append(one.place)
            taken += 1
            in_flight = self._runs[0].in_flight if self._runs else _LEAST_IN_FLIGHT
            if len(batch) >= min(self._most, 1 + taken // (4 * in_flight)) or not self._found.wait(0):
                yield tuple(batch)
                batch = []
        if batch and not self._stopped:
            yield tuple(batch)

    def _in_flight(self) -> int:
        with suppress(Exception):  # a lost scheduler is detected by its tasks
            return max(_LEAST_IN_FLIGHT, BATCHES_A_THREAD * count_threads(self._client))
        return _LEAST_IN_FLIGHT

    def _check_scheduler(self, error: str | None) -> None:
        """Raise if the scheduler is lost: it cancels tasks that stone has not cancelled."""
        if error == "cancelled" or self._client.status != "running":
            raise ClusterError("the scheduler is gone; run the same command again to resume")


def check_journals(client: Any, journals: Path, word: str) -> None:
    """Nothing, if every worker that there is sees the folder in which it is to record what it changes.

    Raises:
        ClusterError: one does not.
    """
    from stonecli.tags.undo.gathered import is_running_here

    for address, sees in client.run(is_running_here, journals, word, on_error="ignore").items():
        if sees is not True:
            raise ClusterError(
                f"the worker {address} does not see {journals}: STONE_STATE_DIR has to be on storage that all share"
            )


def new_word() -> str:
    """A word for a run that no other has."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class ClusterModel:
    """The model for the workers.

    Attributes:
        model: loaded here, so that it is known to be valid.
        file: its file, which is sent to the workers; None for the built-in model, which they have.
        device: to run it on.
    """

    model: KeyModel
    file: Path | None = None
    device: Device = "auto"


def tag_on_cluster(
    client: Any,
    paths: Iterable[Place],
    options: TagOptions = PREVIEW,
    *,
    model: ClusterModel | None = None,
    skip: Seen | None = None,
    on_start: Callable[[int], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: OnResult | None = None,
) -> TagSummary:
    """Detect the keys of all music below ``paths`` on a cluster and, if ``options`` say so, write them to the tags.

    Signals end the run as they end ``tag_library``. The result cache is not used.

    Args:
        client: from :func:`connected`.
        paths: files, folders and URLs, which all workers see by the same names; consumed as there is room.
        options: what to do; ``jobs`` is not used.
        model: may only be None for ``options.remove``.
        skip: files that are in it are skipped; those that are found are added.
        on_start: called once with the number of threads of the cluster, before the first file is processed.
        on_done: called for each file that is done, for a progress bar.
        on_result: called with the outcome of each file as it is done, in the calling thread.

    Returns:
        The number of files and failures, whether the run was interrupted, and its number for undo.

    Raises:
        ClusterError: the cluster cannot be used, or was lost.
        JournalError: the undo journal cannot be used; nothing was written.
    """
    if model is None and not options.remove:
        raise ValueError("a model is needed to detect keys")
    word, what = new_word(), f"{'remove' if options.remove else 'write'} on a cluster"
    leftovers: list[Path] = []
    recorded: JournalRun | None = None
    with ExitStack() as stack:
        journals, ended = None, list[bool]()
        if options.write:
            recorded, journals = stack.enter_context(_journals(client, what, word, ended))
        place = stack.enter_context(uploaded(client, model.model, model.file, model.device)) if model else None
        if on_start:
            on_start(count_threads(client))
        job = Job(word, place, options, journals, what)
        found = find_places(map(_absolute, paths), leftovers, Seen() if skip is None else skip)
        outcomes = ClusterRun(client, job, Prefetcher(found, _READ_AHEAD), word=word)
        counter = ResultCounter(on_result)
        signals = stack.enter_context(stopped_by_signals(outcomes))
        for outcome in outcomes:
            counter(outcome)
            if on_done:
                on_done()
        if not signals:
            ended.append(True)
        if options.write:
            remove_leftovers(leftovers)
    return counter.summary(recorded, interrupted=bool(signals))


def _absolute(place: Place) -> Place:
    """An absolute path, because the current folder of a worker is another."""
    return place.absolute() if isinstance(place, Path) else place


@contextmanager
def _journals(client: Any, what: str, word: str, ended: list[bool]) -> Iterator[tuple[JournalRun, Path]]:
    """The run, and the folder for the journals of the workers, which are collected at the end.

    The folder is deleted then if ``ended`` is not empty.
    """
    from stonecli.tags.undo.gathered import collect, make_folder
    from stonecli.tags.undo.journal import UndoJournal

    journal = UndoJournal()
    try:
        collect(journal)  # of runs that were cut off
        run = journal.start(what)
        folder = make_folder(journal, run.number, word)
        try:
            check_journals(client, folder, word)
            yield run, folder
        finally:
            collect(journal, ended=run.number if ended else None)
            run.end()
    finally:
        journal.close()
