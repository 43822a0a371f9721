"""Run jobs on a Dask cluster with the executor of ``distributed``: batches, back-pressure, crashes of workers.

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
from stonecli.cluster.worker import Answers, Job, ModelSource, stop_run
from stonecli.errors import ClusterError, describe
from stonecli.jobs import NOT_YET, NotYet, Outcome, Run, run, stopped_by_signals
from stonecli.library.locations import Location, Seen
from stonecli.model.session import KeyModel
from stonecli.remote.prefetch import Prefetcher
from stonecli.remote.storage import Found, find_recordings
from stonecli.tagging import PREVIEW, OnResult, ResultCounter, TagOptions, TagResult, TagSummary
from stonecli.tags.edit.atomic_replace import remove_leftovers
from stonecli.util.installation import how_to_install

if TYPE_CHECKING:
    from stonecli.model.session import Device
    from stonecli.tags.undo.journal import JournalRun

CONNECT_SECONDS = 15.0
_READ_AHEAD = 4096  # files that are listed in advance
MAX_BATCH_FILES = 32  # more would not help the scheduler, and would be lost with a worker
BATCHES_PER_THREAD = 2  # one is analyzed, one is queued
_MIN_IN_FLIGHT = 4  # an adaptive cluster grows only if there are tasks
_WAIT_SECONDS = 0.1  # for the next file, before finished tasks are handled
_COUNT_SECONDS = 5.0  # between two counts of the workers' threads

Work = TypeVar("Work", bound=Callable[..., Answers])


@contextmanager
def connected(address: str, *, timeout: float = CONNECT_SECONDS) -> Iterator[Any]:
    """A ``distributed.Client`` of the scheduler, whose workers have this version of stone.

    Raises:
        ClusterError: the extra is missing, the scheduler does not answer, or a worker has another version of stone.
    """
    try:
        import distributed
    except ImportError:
        raise ClusterError(f"a cluster needs another package; {how_to_install('cluster')}") from None
    if not os.environ.get("STONE_DEBUG"):  # stone reports failures itself
        for name in [name for name in logging.root.manager.loggerDict if name.startswith(("distributed", "tornado"))]:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    make_client: Any = distributed.Client  # only partly typed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about different versions of some packages
        try:
            asyncio.run(_check_reachable(address, timeout))
            client: Any = make_client(address, timeout=timeout, set_as_default=False)
        except Exception as error:  # OSError, ValueError, and errors of TLS
            reason, advice = "it is not a Dask scheduler", "start one: dask scheduler"
            if isinstance(error, OSError):
                reason = "no answer"
            elif isinstance(error, ValueError):
                reason, advice = str(error), "its form is tcp://HOST:8786"
            raise ClusterError(f"the scheduler {address} cannot be reached: {reason}; {advice}") from error
    try:
        _check_versions(client)
        yield client
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.close(timeout=2)


async def _check_reachable(address: str, timeout: float) -> None:
    """Raise unless the scheduler answers. A client without a scheduler would retry for 20 s while it is closed."""
    from distributed import comm as module
    from distributed.security import Security

    connect: Any = vars(module)["connect"]  # only partly typed
    security: Any = Security
    comm = await connect(address, timeout=timeout, **security().get_connection_args("client"))
    await comm.close()


def _check_versions(client: Any) -> None:
    try:
        workers = client.get_versions(packages=["stonecli"])["workers"]
    except Exception as error:
        raise ClusterError(f"the workers do not answer: {describe(error)}") from error
    for address, found in workers.items():
        version = found["packages"].get("stonecli")
        if version != __version__:
            has = f"stone {version}" if version else "no stone"
            raise ClusterError(
                f"the worker {address} has {has}, this machine {__version__}; install the same version on both"
            )


def count_threads(client: Any) -> int:
    """Number of threads of all workers of the cluster."""
    return sum(client.nthreads().values())


@contextmanager
def uploaded(client: Any, model: KeyModel, path: Path | None, device: Any) -> Iterator[ModelSource]:
    """The model for the workers: their built-in one, or a copy of ``path`` that is sent to all, also to later ones.

    Raises:
        ClusterError: the model could not be sent.
    """
    if path is None:
        yield ModelSource(model.sha256, device)
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
        raise ClusterError(f"the model could not be sent to the workers: {describe(error)}") from error
    try:
        yield ModelSource(model.sha256, device, name)
    finally:
        with suppress(Exception):
            client.unregister_worker_plugin(plugin_name)


class ClusterRun(Generic[Work]):
    """An iterator of the outcomes of paths and URLs, each once, in order of completion; :meth:`stop` loses none.

    Args:
        client: client of the cluster.
        work: called with each batch on a worker: a :class:`stonecli.cluster.worker.Job` or a benchmark's own.
        found: paths and URLs, consumed as there is room; those that are errors become outcomes at once.
        run_id: unique id of the run, for :func:`stonecli.cluster.worker.stop_run`.
        max_batch_files: maximum number of files per task.
    """

    def __init__(
        self,
        client: Any,
        work: Work,
        found: Prefetcher[Found],
        *,
        run_id: str = "",
        max_batch_files: int = MAX_BATCH_FILES,
    ) -> None:
        self._client = client
        self._work = work
        self._found = found
        self._failed: deque[Outcome[Location, TagResult]] = deque()
        self._run_id = run_id
        self._max_batch_files = max_batch_files
        # Not pure: Dask must not reuse the result of an equal batch.
        self._executor: Executor = client.get_executor(pure=False)
        self._runs: list[Run[tuple[Location, ...], Answers]] = []
        self._suspects: list[tuple[Location, ...]] = []
        self._stopped = False
        self._counted = time.monotonic()

    def __iter__(self) -> Iterator[Outcome[Location, TagResult]]:
        """The outcomes.

        Raises:
            ClusterError: the scheduler is lost, or a worker cannot do the run. The outcomes so far are complete.
        """
        yield from self._outcomes(self._work, cast("Iterator[tuple[Location, ...]]", self._batches()), is_last=False)
        if self._suspects and not self._stopped:
            # The workers of these batches died repeatedly, maybe because of one of the files.
            yield from self._outcomes(replace(self._work, is_isolated=True), iter(self._suspects), is_last=True)  # type: ignore[type-var]

    def _failures(self) -> Iterator[Outcome[Location, TagResult]]:
        while self._failed:
            yield self._failed.popleft()

    def stop(self) -> None:
        """Submit no more files; those being analyzed are finished and reported. May be called from a signal handler."""
        self._stopped = True
        self._found.stop()
        for running in self._runs:
            running.stop(cancel=False)  # Dask does not stop cancelled tasks, and drops their results
        threading.Thread(target=self._tell_workers, daemon=True).start()

    def _tell_workers(self) -> None:
        with suppress(Exception):
            self._client.run(stop_run, self._run_id, on_error="ignore")

    def _outcomes(
        self, work: Any, batches: Iterator[tuple[Location, ...]], *, is_last: bool
    ) -> Iterator[Outcome[Location, TagResult]]:
        running = run(work, batches, executor=self._executor, in_flight=self._in_flight(), ordered=False)
        self._runs.append(running)
        if self._stopped:
            running.stop(cancel=False)
        for outcome in running:
            yield from self._failures()
            if time.monotonic() - self._counted > _COUNT_SECONDS:
                self._counted = time.monotonic()
                running.in_flight = self._in_flight()
            if outcome.result is None:
                self._check_scheduler(outcome.error)
                if not is_last:
                    self._suspects.append(outcome.item)
                    continue
                yield from (Outcome(location, None, outcome.error) for location in outcome.item)
                continue
            # There are fewer answers than files if the batch was stopped or refused.
            for location, (result, error) in zip(outcome.item, outcome.result.answers, strict=False):
                yield Outcome(location, result, error)
            if outcome.result.refusal is not None:
                raise ClusterError(outcome.result.refusal)
        yield from self._failures()

    def _batches(self) -> Iterator[tuple[Location, ...] | NotYet]:
        """Batches of increasing size, so that even a hundred files use all workers; a slow pipe does not delay them."""
        count = 0
        batch: list[Location] = []
        while not self._stopped:
            if not self._found.wait(_WAIT_SECONDS):
                yield NOT_YET
                continue
            one = next(self._found, None)
            if one is None:
                break
            if one.error is not None:
                self._failed.append(Outcome(one.location, None, one.error))
                continue
            batch.append(one.location)
            count += 1
            in_flight = self._runs[0].in_flight if self._runs else _MIN_IN_FLIGHT
            if len(batch) >= min(self._max_batch_files, 1 + count // (4 * in_flight)) or not self._found.wait(0):
                yield tuple(batch)
                batch = []
        if batch and not self._stopped:
            yield tuple(batch)

    def _in_flight(self) -> int:
        with suppress(Exception):  # a lost scheduler is detected by its tasks
            return max(_MIN_IN_FLIGHT, BATCHES_PER_THREAD * count_threads(self._client))
        return _MIN_IN_FLIGHT

    def _check_scheduler(self, error: str | None) -> None:
        """Raise if the scheduler is lost: it cancels tasks that stone has not cancelled."""
        if error == "cancelled" or self._client.status != "running":
            raise ClusterError("lost the connection to the scheduler; run the same command again to resume")


def check_journals(client: Any, journals: Path, run_id: str) -> None:
    """Check that every worker sees the folder in which it must record its changes.

    Raises:
        ClusterError: a worker does not see it.
    """
    from stonecli.tags.undo.worker_journals import is_running_here

    for address, sees in client.run(is_running_here, journals, run_id, on_error="ignore").items():
        if sees is not True:
            raise ClusterError(
                f"the worker {address} does not see {journals}: STONE_STATE_DIR must be on shared storage"
            )


def new_run_id() -> str:
    """A unique id for a run."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class ClusterModel:
    """The model for the workers.

    Attributes:
        model: the model, loaded on this machine to check it.
        file: its file, which is sent to the workers; None for the built-in model, which they have.
        device: device to run it on.
    """

    model: KeyModel
    file: Path | None = None
    device: Device = "auto"


def tag_on_cluster(
    client: Any,
    paths: Iterable[Location],
    options: TagOptions = PREVIEW,
    *,
    model: ClusterModel | None = None,
    skip: Seen | None = None,
    on_start: Callable[[int], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: OnResult | None = None,
    playlist_name: str | None = None,
) -> TagSummary:
    """Detect the keys of all music below ``paths`` on a cluster and, if ``options`` say so, write them to the tags.

    Signals end the run as they end ``tag_library``. The result cache is not used.

    Args:
        client: from :func:`connected`.
        paths: files, folders and URLs, which all workers see by the same names; consumed as there is room.
        options: what to do; ``jobs`` is not used.
        model: may only be None for ``options.remove``.
        skip: files in it are skipped, and the files that are found are added.
        on_start: called once with the number of threads of the cluster, before the first file is processed.
        on_done: called for each file that is done, for a progress bar.
        on_result: called with the outcome of each file as it is done, in the calling thread.
        playlist_name: only this playlist of each rekordbox XML; None for the whole collection.

    Returns:
        The numbers of files and failures, whether the run was interrupted, and its number for undo.

    Raises:
        ClusterError: the cluster cannot be used, or the connection to it is lost.
        JournalError: the undo journal cannot be used; nothing was written.
    """
    if model is None and not options.remove:
        raise ValueError("a model is needed to detect keys")
    run_id, what = new_run_id(), f"{'remove' if options.remove else 'write'} on a cluster"
    leftovers: list[Path] = []
    recorded: JournalRun | None = None
    with ExitStack() as stack:
        journals, ended = None, list[bool]()
        if options.write:
            recorded, journals = stack.enter_context(_journals(client, what, run_id, ended))
        source = stack.enter_context(uploaded(client, model.model, model.file, model.device)) if model else None
        if on_start:
            on_start(count_threads(client))
        job = Job(run_id, source, options, journals, what)
        found = find_recordings(map(_absolute, paths), leftovers, Seen() if skip is None else skip, playlist_name)
        outcomes = ClusterRun(client, job, Prefetcher(found, _READ_AHEAD), run_id=run_id)
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


def _absolute(location: Location) -> Location:
    """An absolute path, because the current folder of a worker is another."""
    return location.absolute() if isinstance(location, Path) else location


@contextmanager
def _journals(client: Any, what: str, run_id: str, ended: list[bool]) -> Iterator[tuple[JournalRun, Path]]:
    """The run, and the folder for the journals of the workers, which are merged at the end.

    The folder is then deleted if ``ended`` is not empty.
    """
    from stonecli.tags.undo.journal import UndoJournal
    from stonecli.tags.undo.worker_journals import collect, make_folder

    journal = UndoJournal()
    try:
        collect(journal)  # of runs that ended unexpectedly
        run = journal.start(what)
        folder = make_folder(journal, run.number, run_id)
        try:
            check_journals(client, folder, run_id)
            yield run, folder
        finally:
            collect(journal, ended=run.number if ended else None)
            run.end()
    finally:
        journal.close()
