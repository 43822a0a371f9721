"""An iterator that is run in a thread of its own, a little ahead of whoever takes from it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
_WAKE_SECONDS = 0.1


class Ahead(Iterator[Item], Generic[Item]):
    """The items of ``source``, which is iterated in a thread: a slow folder or a waiting pipe holds nobody up longer.

    What ``source`` raises is raised in its place. After :meth:`stop` it ends at once, even while ``source`` waits, as
    it does for a line on standard input.

    Args:
        source: for the thread alone.
        most: items that are held at a time.
    """

    def __init__(self, source: Iterable[Item], most: int) -> None:
        self._queue: Queue[tuple[Item] | BaseException | None] = Queue(most)
        self._next: list[tuple[Item] | BaseException | None] = []  # what was waited for and not taken yet
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="stone-ahead", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        """The next item; waits for it."""
        while not self._stopped.is_set():
            if not self.wait(_WAKE_SECONDS):
                continue
            said = self._next.pop()
            if isinstance(said, tuple):
                return said[0]
            self._stopped.set()
            if said is not None:
                raise said
        raise StopIteration

    def wait(self, seconds: float) -> bool:
        """Whether, at most so many seconds later, the next item or the end is there; 0 to ask only."""
        try:
            if not self._next:
                self._next.append(self._queue.get(block=seconds > 0, timeout=seconds or None))
        except Empty:
            return False
        return True

    def stop(self) -> None:
        """Nothing more comes; may be called from a signal handler."""
        self._stopped.set()

    def _run(self, source: Iterable[Item]) -> None:
        try:
            for item in source:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, said: tuple[Item] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(said, timeout=_WAKE_SECONDS)
            except Full:
                continue
            return True
        return False
