"""Worker processes that prefetch batches, and end with the training process.

Each worker makes the batch of every n-th step and sends it through its own pipe. A thread of the training process reads
one batch ahead while the worker makes the next. When the training process ends for any reason, the pipe breaks and the
worker ends too. If a worker is killed, the training process makes its batches itself: a batch depends on its step only.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch.utils.data import Dataset

from stonecli.errors import StoneError
from stonecli_train.data import Batch
from stonecli_train.errors import message
from stonecli_train.parent import end_with_parent

_WAKE_SECONDS = 0.2
_END_SECONDS = 2.0  # grace period of a worker before SIGKILL
# Signals that a scheduler or terminal sends to all processes of a run to end it.
_END_WITH_THE_RUN = {-getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)}


class WorkerError(StoneError):
    """A worker process could not make a batch."""


def batch_stream(
    data: Dataset[Batch],
    start: int,
    workers: int,
    report: Callable[[str], None] = print,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Batch, None, None]:
    """The batches of step ``start`` and all later steps, without end; closing the generator ends the workers.

    Args:
        data: batches by step.
        start: the first step.
        workers: number of worker processes that prefetch batches; 0 to make them in this process.
        report: called with a message when a worker was killed.
        stop: returns whether the run should end, so that slow workers are not waited for.

    Raises:
        WorkerError: a batch could not be made; the message is one line, with the worker's traceback as a note.
    """
    crew: list[_Worker] = []
    try:
        crew.extend(_Worker.start(data, start + index, workers) for index in range(workers))
        for step in itertools.count(start):
            batch = crew[(step - start) % workers].batch(report, stop) if workers else None
            yield data[step] if batch is None else batch
    finally:
        for worker in crew:
            worker.ask_to_end()
        for worker in crew:
            worker.end()


@dataclass(frozen=True)
class _Failure:
    """Why a worker could not make a batch: one line, and the traceback."""

    line: str
    details: str


class _Worker:
    """A worker process, and the end of its pipe in the training process."""

    def __init__(self, process: Any, pipe: Any) -> None:
        self._process = process
        self._answers: queue.Queue[Any] = queue.Queue(maxsize=1)
        # Read in a thread: a worker can be suspended in the middle of sending a batch.
        self._reader = threading.Thread(target=_read, args=(pipe, self._answers), daemon=True)
        self._reader.start()
        self._is_asked = False

    @classmethod
    def start(cls, data: Dataset[Batch], first: int, stride: int) -> _Worker:
        """A new worker for steps ``first``, ``first + stride``, ...

        Raises:
            WorkerError: the data cannot be sent to another process.
        """
        context = multiprocessing.get_context("spawn")  # forking a process with OpenMP threads can hang
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_make_batches, args=(theirs, data, first, stride), daemon=True)
        try:
            with _without_ctrl_c():
                process.start()
        except BrokenPipeError:  # killed while it started
            pass
        except Exception as error:  # pickling can raise any exception
            reason = "the data cannot be sent to a worker process"
            raise WorkerError(f"{reason} ({error}); use --workers 0") from error
        finally:
            theirs.close()
        return cls(process, ours)

    def batch(self, report: Callable[[str], None], stop: Callable[[], bool]) -> Batch | None:
        """The worker's next batch; None if the worker was killed, or if the run should end before it is ready."""
        while not self._is_asked:
            try:
                answer = self._answers.get(timeout=_WAKE_SECONDS)
                break
            except queue.Empty:
                if stop():
                    self.ask_to_end()
        else:
            return None
        if answer is None:
            self._lose(report)
            return None
        if isinstance(answer, _Failure):
            error = WorkerError(answer.line)
            error.add_note(answer.details)
            raise error
        return Batch(*(torch.from_numpy(array) for array in answer))

    def _lose(self, report: Callable[[str], None]) -> None:
        """Clean up after a worker whose pipe is broken; raises WorkerError if it ended with an error."""
        code = None
        if self._process.pid is not None:
            self._process.join(_END_SECONDS)
            code = self._process.exitcode
        self.ask_to_end()
        self.end()
        if code is not None and code > 0:
            raise WorkerError(f"a worker process ended with exit code {code}; use --workers 0 to see why")
        if code not in _END_WITH_THE_RUN:
            reason = "" if code is None else f" by {signal.Signals(-code).name}"
            report(f"a worker process was killed{reason}; the main process now makes its batches")

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        if not self._is_asked and self._process.pid is not None:
            self._process.terminate()
        self._is_asked = True

    def end(self) -> None:
        """Wait for the process to end, and kill it after a timeout."""
        if self._process.pid is not None:
            self._process.join(_END_SECONDS)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join(_END_SECONDS)
        deadline = time.monotonic() + _END_SECONDS
        while self._reader.is_alive() and time.monotonic() < deadline:
            with suppress(queue.Empty):  # the reader may be blocked by a full queue
                self._answers.get(timeout=0.02)


def _read(pipe: Any, answers: queue.Queue[Any]) -> None:
    """Put the messages of a worker in the queue, then None."""
    with pipe:
        while True:
            try:
                answer = pipe.recv()
            except (EOFError, OSError):
                answer = None
            answers.put(answer)
            if answer is None:
                return


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Block SIGINT in processes that are started in this context: the training process handles Ctrl-C."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_batches(pipe: Any, data: Dataset[Batch], first: int, stride: int) -> None:
    """Main function of a worker: sends the arrays of each batch, or the error that ends it."""
    end_with_parent()
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with suppress(OSError):  # the training process has closed the pipe
        for step in itertools.count(first, stride):
            try:
                batch = data[step]
                answer = tuple(getattr(batch, item.name).cpu().numpy() for item in fields(batch))
            except Exception as error:
                pipe.send(_Failure(message(error), traceback.format_exc()))
                return
            pipe.send(answer)
