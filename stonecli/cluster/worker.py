"""Analyze a batch of files on a worker of a cluster, with a model that is loaded once per process.

A :class:`Job` is sent with every batch and is small; the model, the journal and the stopped runs belong to the process.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

from stonecli._version import __version__
from stonecli.errors import AudioError, RefusalError, describe
from stonecli.jobs import attempt
from stonecli.library.locations import Location
from stonecli.model.session import Device, KeyModel
from stonecli.tagging import PREVIEW, FileAction, LocationTagger, Tagger, TagOptions, TagResult, make_tagger
from stonecli.tags.undo.worker_journals import MARKER, has_changed, is_running_here, thread_journal

Answer: TypeAlias = tuple[TagResult | None, str | None]
"""The result of one file and None, or None and one line with the error."""

_MAX_MODELS = 2  # a worker may outlive many runs
_CLOCK_TOLERANCE_SECONDS = 30.0  # between the clocks of two file servers
_models: dict[tuple[str, Device], KeyModel] = {}
_models_lock = threading.Lock()
_stopped: set[str] = set()


@dataclass(frozen=True)
class ModelSource:
    """Where a worker finds the model.

    Attributes:
        sha256: hash of the file.
        device: device to run it on.
        file: None for the built-in model; otherwise its name in the worker's own folder, or a path.
    """

    sha256: str
    device: Device
    file: str | None = None


@dataclass(frozen=True)
class Answers:
    """The answers for a batch.

    Attributes:
        answers: one per file, in order; fewer after :func:`stop_run` or a refusal.
        refusal: None, or why this worker cannot continue the run.
    """

    answers: list[Answer] = field(default_factory=list)
    refusal: str | None = None


@dataclass(frozen=True)
class Job:
    """Analyzes and tags a batch of files on a worker when called with their paths or URLs.

    Attributes:
        run_id: unique id of the run.
        model: the model; None for ``remove``, which analyzes nothing.
        options: what to do with each file; the cache is not used.
        journals: folder for the journals of the run, on shared storage; None if nothing is written.
        what: description of the run for the journal.
        is_isolated: whether to analyze in an isolated process, so that a crash does not end the worker.
        version: version of stone on the client.
    """

    run_id: str
    model: ModelSource | None
    options: TagOptions = PREVIEW
    journals: Path | None = None
    what: str = ""
    is_isolated: bool = False
    version: str = __version__

    def __call__(self, locations: Sequence[Location]) -> Answers:
        """The answers of all files; raises nothing."""
        answers: list[Answer] = []
        try:
            if self.version != __version__:
                raise RefusalError(f"has stone {__version__}, not {self.version}")
            for answer in _isolated(self, locations) if self.is_isolated else self.answers(locations):
                answers.append(answer)
                if self.run_id in _stopped:
                    break
        except Exception as error:  # of the journal or the model: no file is the cause
            return Answers(answers, f"the worker {socket.gethostname()}: {describe(error)}")
        return Answers(answers)

    def answers(self, locations: Sequence[Location]) -> Iterator[Answer]:
        """The answers one by one, computed in this process.

        Raises:
            StoneError, OSError: this worker cannot analyze or write any file.
        """
        if self.run_id in _stopped:
            return
        with ExitStack() as stack:
            journal = None
            if self.journals is not None:
                self._check_journals(self.journals)
                journal = stack.enter_context(thread_journal(self.journals, self.what))
            options = self.options
            model = None if options.remove or self.model is None else load_model(self.model)
            tagger = make_tagger(model, options, journal)
            act = LocationTagger(tagger, options.write or options.remove, partial(self._act, tagger))
            for location in locations:
                if self.journals is not None:
                    self._check_journals(self.journals)
                yield attempt(act, location)

    def _check_journals(self, journals: Path) -> None:
        """Raise unless changes made here can be undone: a worker that lost its connection may return after the run."""
        if not is_running_here(journals, self.run_id):
            raise RefusalError(f"does not see {journals}: STONE_STATE_DIR must be on shared storage")

    def _act(self, tagger: FileAction, path: Path) -> TagResult:
        if not path.exists():
            raise AudioError(f"the worker {socket.gethostname()} sees no such file")
        result = tagger(path)
        if self.journals is None or result.status not in ("kept", "unchanged"):
            return result
        target = Path(os.path.realpath(path))
        started = (self.journals / MARKER).stat().st_mtime
        if target.stat().st_ctime < started - _CLOCK_TOLERANCE_SECONDS or not has_changed(self.journals, target):
            return result
        # A worker that died before it could report has written the file in this run. Return what it would have.
        if not isinstance(tagger, Tagger):
            return replace(result, status="removed")
        if result.estimate is None:
            result = replace(tagger, options=replace(tagger.options, write=False, overwrite=True))(path)
        return replace(result, status="written", old_text=None, old_key=None)


def stop_run(run_id: str) -> None:
    """End the batches of the run after the current file, and those that have not started at once."""
    _stopped.add(run_id)


def load_model(source: ModelSource) -> KeyModel:
    """The model, loaded once per process.

    Raises:
        ModelError: for instance, if it is not the requested model. DeviceError, OSError: as ``KeyModel``.
    """
    with _models_lock:
        model = _models.get((source.sha256, source.device))
        if model is None:
            model = KeyModel(_model_path(source), source.device, sha256=source.sha256)
            while len(_models) >= _MAX_MODELS:
                del _models[next(iter(_models))]
            _models[source.sha256, source.device] = model
        return model


def _model_path(source: ModelSource) -> Path | None:
    if source.file is None:
        return None
    if Path(source.file).is_absolute():
        return Path(source.file)
    from distributed import get_worker

    return Path(get_worker().local_directory) / source.file  # where distributed stores uploaded files


def _isolated(job: Job, locations: Sequence[Location]) -> Iterator[Answer]:
    """The answers from isolated processes: if one dies, its current file fails, and a new process continues."""
    if job.model is not None:
        path = _model_path(job.model)
        # On the CPU: CUDA needs more address space than the limit, and its failures are not caused by the file.
        job = replace(job, model=replace(job.model, device="cpu", file=str(path.absolute()) if path else None))
    job = replace(job, is_isolated=False)
    done = 0
    while done < len(locations):
        command = [sys.executable, "-m", "stonecli.util.isolated_worker"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            assert process.stdin is not None  # noqa: S101 (for the type checker)
            assert process.stdout is not None  # noqa: S101
            try:
                _send(process.stdin, (job, tuple(locations[done:]), _memory_limit()))
                for message in _messages(process.stdout):
                    if isinstance(message, str):
                        raise RefusalError(message)
                    yield message
                    done += 1
            finally:
                process.kill()
        if done < len(locations):
            yield None, f"the process that analyzed it died ({_cause(process.wait())})"
            done += 1


def _send(stream: IO[bytes], message: Any) -> None:
    try:
        with stream:
            pickle.dump(message, stream)
    except BrokenPipeError:  # the process died at once; _messages() ends then
        return


def _messages(stream: IO[bytes]) -> Iterator[Any]:
    """The messages of the isolated process, until it ends."""
    while True:
        try:
            yield pickle.load(stream)  # noqa: S301 (from a process that this one started)
        except (EOFError, pickle.UnpicklingError):
            return


def _memory_limit() -> int | None:
    """Bytes of memory that this worker may use; None if it has no limit."""
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):  # not on a worker
        return None
    return None if limit is None else int(limit)


def _cause(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
