"""Windows of many files gathered into batches: what makes a GPU worth its price.

Threads that decode hand their windows in and decode on; one thread takes what has come together, runs it as one batch,
and hands each its answer. While a batch is computed the next one gathers by itself, so that batches are as large as the
decoders are fast; only when nothing is being computed is a moment waited for company. What is handed in while ``size``
times ``LINE`` windows are waiting makes its thread wait: memory is bounded, and decoding goes no faster than listening.

A forked process begins anew: the thread stays with the parent, as do the windows that were handed in there.
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

from stonecli.audio.decode import Samples

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 0.005  # for company; a window at the end of its file is waited for
LINE = 2  # batches that may wait while one is computed


@dataclass(eq=False)
class _Asked(Generic[Answer]):
    window: Samples
    answer: Future[Answer] = field(default_factory=Future)


class Batcher(Generic[Answer]):
    """Answers windows, float32 [n], from any number of threads in batches; those of one length go together.

    Args:
        run: gets float32 [batch, n] and returns as many answers; called in one thread only.
        size: most windows in a batch.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, run: Callable[[Samples], Sequence[Answer]], size: int) -> None:
        if size < 1:
            raise ValueError(f"a batch has at least 1 window, not {size}")
        self._run = run
        self._size = size
        self._closed = False
        self._begin()
        _batchers.add(self)

    def _begin(self) -> None:
        """Nothing waits, and no thread is there."""
        self._waiting: Queue[_Asked[Answer] | None] = Queue(self._size * LINE)  # None ends it
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, window: Samples) -> Future[Answer]:
        """What will be the answer; its ``result()`` raises what ``run`` did for this very window.

        Returns at once, unless too many are waiting.

        Raises:
            RuntimeError: it was closed.
        """
        asked: _Asked[Answer] = _Asked(window)
        with self._lock:
            if self._closed:
                raise RuntimeError("no window is taken after the end")
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="stone-batches", daemon=True)
                self._thread.start()
        self._waiting.put(asked)
        return asked.answer

    def close(self) -> None:
        """Answers what was handed in, and ends the thread."""
        with self._lock:
            thread, self._thread, self._closed = self._thread, None, True
        if thread is threading.current_thread():  # the garbage collector may call from there
            return
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _serve(self) -> None:
        held: _Asked[Answer] | None = None  # came when a batch of another length was gathered
        while True:
            first = held or self._waiting.get()
            if first is None:
                return
            batch, held, ends = self._gathered(first)
            self._answer(batch)
            del first, batch  # the windows are not kept until the next one comes
            if ends or (self._closed and held is None and self._waiting.empty()):
                return

    def _gathered(self, first: _Asked[Answer]) -> tuple[list[_Asked[Answer]], _Asked[Answer] | None, bool]:
        """The batch that begins with ``first``, one that does not fit in, and whether the end has come."""
        batch = [first]
        until = time.monotonic() + PATIENCE_SECONDS
        while len(batch) < self._size:
            try:
                asked = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if asked is None:
                return batch, None, True
            if asked.window.shape != first.window.shape:
                return batch, asked, False
            batch.append(asked)
        return batch, None, False

    def _answer(self, batch: list[_Asked[Answer]]) -> None:
        """Run the batch; if that fails, each by itself, so that one window cannot spoil the files of others."""
        batch = [asked for asked in batch if asked.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            answers = self._run(np.stack([asked.window for asked in batch]))
        except Exception:
            for asked in batch:
                self._answer_alone(asked)
            return
        for asked, answer in zip(batch, answers, strict=True):
            asked.answer.set_result(answer)

    def _answer_alone(self, asked: _Asked[Answer]) -> None:
        try:
            (answer,) = self._run(asked.window[None])
        except Exception as error:
            asked.answer.set_exception(error.with_traceback(None))  # it would keep the audio
        else:
            asked.answer.set_result(answer)


_batchers: weakref.WeakSet[Batcher[Any]] = weakref.WeakSet()


def _begin_anew() -> None:
    """What a fork does first, when no other thread is there."""
    for batcher in list(_batchers):
        batcher._begin()


if sys.platform != "win32":  # where there is no fork
    os.register_at_fork(after_in_child=_begin_anew)
