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
from stonecli.errors import AudioError, StoneError
from stonecli.jobs import attempt, error_line
from stonecli.model.session import Device, KeyModel
from stonecli.remote.locations import Place
from stonecli.remote.storage import AnyPlace
from stonecli.tagging import PREVIEW, Remover, Tagger, TagOptions, TagResult, make_tagger
from stonecli.tags.undo.gathered import MARKER, has_changed, is_running_here, thread_journal

Answer: TypeAlias = tuple[TagResult | None, str | None]
"""The result of one file, or one line that says what went wrong; the other is None."""

_KEPT_MODELS = 2  # a worker may outlive many runs
_CLOCKS_SECONDS = 30.0  # difference of the clocks of two file servers
_models: dict[tuple[str, Device], KeyModel] = {}
_models_lock = threading.Lock()
_stopped: set[str] = set()


class RefusalError(StoneError):
    """This worker, or the cluster with its configuration, cannot do the run."""


@dataclass(frozen=True)
class ModelPlace:
    """Where a worker finds the model.

    Attributes:
        sha256: of the file.
        device: to run it on.
        file: None for the built-in one; else its name in the worker's own folder, or a path.
    """

    sha256: str
    device: Device
    file: str | None = None


@dataclass(frozen=True)
class Answers:
    """Of a batch, in its order.

    Attributes:
        answers: as many as there are files, or fewer after :func:`stop_run`.
        refusal: None, or why the run cannot go on.
    """

    answers: list[Answer] = field(default_factory=list)
    refusal: str | None = None


@dataclass(frozen=True)
class Job:
    """Analyzes and tags a batch of files on a worker when called with their paths or URLs.

    Attributes:
        word: unique id of the run.
        model: the model; None for ``remove``, which analyzes nothing.
        options: what to do with each file; the cache is not used.
        journals: folder for the journals of the run, on shared storage; None if nothing is written.
        what: description of the run for the journal.
        alone: analyze in an isolated process, which may die without the worker.
        version: version of stone on the client.
    """

    word: str
    model: ModelPlace | None
    options: TagOptions = PREVIEW
    journals: Path | None = None
    what: str = ""
    alone: bool = False
    version: str = __version__

    def __call__(self, places: Sequence[Place]) -> Answers:
        """The answers of all files; raises nothing."""
        answers: list[Answer] = []
        try:
            if self.version != __version__:
                raise RefusalError(f"has stone {__version__}, not {self.version}")
            for answer in _alone(self, places) if self.alone else self.heard(places):
                answers.append(answer)
                if self.word in _stopped:
                    break
        except Exception as error:  # the journal, the model: not one file's fault
            return Answers(answers, f"the worker {socket.gethostname()}: {error_line(error)}")
        return Answers(answers)

    def heard(self, places: Sequence[Place]) -> Iterator[Answer]:
        """The answers one by one, computed in this process.

        Raises:
            StoneError, OSError: this worker cannot analyze or write any file.
        """
        if self.word in _stopped:
            return
        with ExitStack() as stack:
            journal = None
            if self.journals is not None:
                self._check_journals(self.journals)
                journal = stack.enter_context(thread_journal(self.journals, self.what))
            options = self.options
            model = None if options.remove or self.model is None else load_model(self.model)
            tagger = make_tagger(model, options, journal)
            act = AnyPlace(tagger, options.write or options.remove, partial(self._act, tagger))
            for place in places:
                if self.journals is not None:
                    self._check_journals(self.journals)
                yield attempt(act, place)

    def _check_journals(self, journals: Path) -> None:
        """Nothing, if what is written here can be taken back; a worker that was cut off may come back after the end."""
        if not is_running_here(journals, self.word):
            raise RefusalError(f"does not see {journals}: STONE_STATE_DIR has to be on storage that all share")

    def _act(self, tagger: Tagger | Remover, path: Path) -> TagResult:
        if not path.exists():
            raise AudioError(f"the worker {socket.gethostname()} sees no such file")
        result = tagger(path)
        if self.journals is None or result.status not in ("kept", "unchanged"):
            return result
        target = Path(os.path.realpath(path))
        started = (self.journals / MARKER).stat().st_mtime
        if target.stat().st_ctime < started - _CLOCKS_SECONDS or not has_changed(self.journals, target):
            return result
        # A worker that died before it could say so has written the file in this run: the answer is what that one's was.
        if isinstance(tagger, Remover):
            return replace(result, status="removed")
        if result.estimate is None:
            result = replace(tagger, options=replace(tagger.options, write=False, overwrite=True))(path)
        return replace(result, status="written", old_text=None, old_key=None)


def stop_run(word: str) -> None:
    """End the batches of the run after the current file, and those that have not started at once."""
    _stopped.add(word)


def load_model(place: ModelPlace) -> KeyModel:
    """The model, loaded once per process.

    Raises:
        ModelError: for instance, if it is not the requested model. DeviceError, OSError: as ``KeyModel``.
    """
    with _models_lock:
        model = _models.get((place.sha256, place.device))
        if model is None:
            model = KeyModel(_model_path(place), place.device, sha256=place.sha256)
            while len(_models) >= _KEPT_MODELS:
                del _models[next(iter(_models))]
            _models[place.sha256, place.device] = model
        return model


def _model_path(place: ModelPlace) -> Path | None:
    if place.file is None:
        return None
    if Path(place.file).is_absolute():
        return Path(place.file)
    from distributed import get_worker

    return Path(get_worker().local_directory) / place.file  # where distributed stores uploaded files


def _alone(job: Job, places: Sequence[Place]) -> Iterator[Answer]:
    """The answers from isolated processes: if one dies, its current file fails, and a new process continues."""
    if job.model is not None:
        path = _model_path(job.model)
        # On the CPU: CUDA's address space does not fit a limit, and its failures are not the file's.
        job = replace(job, model=replace(job.model, device="cpu", file=str(path.absolute()) if path else None))
    job = replace(job, alone=False)
    done = 0
    while done < len(places):
        command = [sys.executable, "-m", "stonecli.util.isolated_worker"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            assert process.stdin is not None  # noqa: S101 (for the type checker)
            assert process.stdout is not None  # noqa: S101
            try:
                _send(process.stdin, (job, tuple(places[done:]), _memory_limit()))
                for message in _messages(process.stdout):
                    if isinstance(message, str):
                        raise RefusalError(message)
                    yield message
                    done += 1
            finally:
                process.kill()
        if done < len(places):
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
    """Bytes that this worker may use; None where it has no limit."""
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
