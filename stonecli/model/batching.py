"""Run the windows of many files in batches, without which a GPU is no faster than a CPU.

Threads that decode submit their windows and continue to decode. One worker thread runs the queued windows as a batch
and sets their results. The next batch queues up while one is computed. If the queue is shorter than a batch, the worker
waits ``MAX_WAIT_SECONDS`` for more windows. If ``size * QUEUED_BATCHES`` windows are queued, ``submit`` blocks: memory
is bounded, and decoding is never far ahead of the model.

After a fork, the child starts with an empty queue and no thread; the parent keeps both.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any, Generic, TypeVar

import numpy as np

from stonecli.audio.channels import Samples

Answer = TypeVar("Answer")

MAX_WAIT_SECONDS = 0.005  # for a batch to fill; short, because decoders wait for the last window of their file
QUEUED_BATCHES = 2  # batches that may be queued while one is computed


@dataclass(eq=False)
class _Request(Generic[Answer]):
    window: Samples
    answer: Future[Answer] = field(default_factory=Future)


class Batcher(Generic[Answer]):
    """Runs windows, float32 [n], from any number of threads in batches of windows of equal length.

    Args:
        run: takes float32 [batch, n] and returns one result per window; called in one thread only.
        size: maximum number of windows in a batch.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, run: Callable[[Samples], Sequence[Answer]], size: int) -> None:
        if size < 1:
            raise ValueError(f"a batch has at least 1 window, not {size}")
        self._run = run
        self._size = size
        self._closed = False
        self._reset()
        _batchers.add(self)

    def _reset(self) -> None:
        """Start with an empty queue and without a thread."""
        self._queue: Queue[_Request[Answer] | None] = Queue(self._size * QUEUED_BATCHES)  # None ends the thread
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, window: Samples) -> Future[Answer]:
        """A future of the result; its ``result()`` raises the error of ``run`` for this window.

        Returns at once, unless the queue is full.

        Raises:
            RuntimeError: the batcher was closed.
        """
        request: _Request[Answer] = _Request(window)
        with self._lock:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="stone-batches", daemon=True)
                self._thread.start()
        self._queue.put(request)
        return request.answer

    def close(self) -> None:
        """Compute the results of all queued windows, and end the thread."""
        with self._lock:
            thread, self._thread, self._closed = self._thread, None, True
        if thread is threading.current_thread():  # the garbage collector may call this in the worker thread
            return
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _serve(self) -> None:
        held: _Request[Answer] | None = None  # has another length than the last batch
        while True:
            first = held or self._queue.get()
            if first is None:
                return
            batch, held, ends = self._collect(first)
            self._run_batch(batch)
            del first, batch  # release the windows before waiting for the next one
            if ends or (self._closed and held is None and self._queue.empty()):
                return

    def _collect(self, first: _Request[Answer]) -> tuple[list[_Request[Answer]], _Request[Answer] | None, bool]:
        """The batch that starts with ``first``, a request of another length, and whether the thread must end."""
        batch = [first]
        until = time.monotonic() + MAX_WAIT_SECONDS
        while len(batch) < self._size:
            try:
                request = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if request is None:
                return batch, None, True
            if request.window.shape != first.window.shape:
                return batch, request, False
            batch.append(request)
        return batch, None, False

    def _run_batch(self, batch: list[_Request[Answer]]) -> None:
        """Run the batch; if it fails, run each window alone, so that one window cannot fail the files of others."""
        batch = [request for request in batch if request.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            answers = self._run(np.stack([request.window for request in batch]))
        except Exception:
            for request in batch:
                self._run_alone(request)
            return
        for request, answer in zip(batch, answers, strict=True):
            request.answer.set_result(answer)

    def _run_alone(self, request: _Request[Answer]) -> None:
        try:
            (answer,) = self._run(request.window[None])
        except Exception as error:
            request.answer.set_exception(error.with_traceback(None))  # the traceback would keep the audio in memory
        else:
            request.answer.set_result(answer)


_batchers: weakref.WeakSet[Batcher[Any]] = weakref.WeakSet()


def _reset_after_fork() -> None:
    """Reset all batchers in the child of a fork, which has one thread only."""
    for batcher in list(_batchers):
        batcher._reset()


if sys.platform != "win32":  # no fork on Windows
    os.register_at_fork(after_in_child=_reset_after_fork)
