"""Prefetch the items of an iterator in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
_WAKE_SECONDS = 0.1


class Prefetcher(Iterator[Item], Generic[Item]):
    """The items of ``source``, which a thread iterates, so that a slow folder or pipe does not block the caller.

    An exception in ``source`` is raised in its position. After :meth:`stop` the iterator ends at once, even while
    ``source`` blocks, for instance on standard input.

    Args:
        source: used by the thread only.
        size: maximum number of buffered items.
    """

    def __init__(self, source: Iterable[Item], size: int) -> None:
        self._queue: Queue[tuple[Item] | BaseException | None] = Queue(size)
        self._next: list[tuple[Item] | BaseException | None] = []  # received by wait() and not returned yet
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="stone-prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        """The next item; waits for it."""
        while not self._stopped.is_set():
            if not self.wait(_WAKE_SECONDS):
                continue
            message = self._next.pop()
            if isinstance(message, tuple):
                return message[0]
            self._stopped.set()
            if message is not None:
                raise message
        raise StopIteration

    def wait(self, seconds: float) -> bool:
        """Whether the next item or the end is available within ``seconds``; 0 returns at once."""
        try:
            if not self._next:
                self._next.append(self._queue.get(block=seconds > 0, timeout=seconds or None))
        except Empty:
            return False
        return True

    def stop(self) -> None:
        """End the iteration; may be called from a signal handler."""
        self._stopped.set()

    def _run(self, source: Iterable[Item]) -> None:
        try:
            for item in source:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, message: tuple[Item] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(message, timeout=_WAKE_SECONDS)
            except Full:
                continue
            return True
        return False
