"""A bounded parallel map on any ``concurrent.futures.Executor``, with order, progress and clean interruption."""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from stonecli.errors import describe

if TYPE_CHECKING:  # the caller imports it, and the program starts faster without
    from concurrent.futures import Executor, Future
    from types import TracebackType
    from typing import TypeAlias

Item = TypeVar("Item")
Result = TypeVar("Result")
if TYPE_CHECKING:
    _Answer: TypeAlias = Future[tuple[Result | None, str | None]]  # result and error of one item

_LOOK_AHEAD_FACTOR = 8
_WAKE_SECONDS = 0.2  # on Windows, Ctrl-C is only noticed after a wait


class NotYet(Enum):
    """The type of ``NOT_YET``, which ``items`` may yield if no item is available yet, so that outcomes are handled."""

    NOT_YET = "not yet"


NOT_YET = NotYet.NOT_YET

END_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32":
    END_SIGNALS += (signal.SIGHUP,)
"""Signals that ask a program to end."""


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """The outcome of one item.

    Attributes:
        item: the item.
        result: the return value of the function; None after an error.
        error: None, or one printable line with the error, without the name of the item.
    """

    item: Item
    result: Result | None
    error: str | None


def run(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    executor: Executor,
    in_flight: int,
    ordered: bool = True,
    look_ahead: int | None = None,
    on_done: Callable[[Outcome[Item, Result]], None] | None = None,
) -> Run[Item, Result]:
    """Apply ``function`` to ``items`` in parallel, and return an iterator of outcomes that can be stopped without loss.

    An exception of ``function`` becomes the error of its outcome and does not end the run. If a worker process dies,
    its items and all later ones get an error. Exceptions of ``items`` and ``on_done`` are raised.

    Ctrl-C: after a ``KeyboardInterrupt``, call ``stop()`` and continue to iterate: this yields the outcomes of the
    items that were finished or running. ::

        with run(detect, paths, executor=executor, in_flight=8) as outcomes:
            try:
                for outcome in outcomes:
                    report(outcome)
            except KeyboardInterrupt:
                outcomes.stop()
                for outcome in outcomes:
                    report(outcome)

    A signal handler that calls ``stop()`` (:func:`stopped_by_signals`) needs one loop only, and cannot lose the item or
    outcome that is passed on at the moment of the interrupt. Worker processes also get the Ctrl-C of the terminal: give
    the pool an ``initializer`` that ignores SIGINT.

    Args:
        function: called with one item; for processes and clusters it must be picklable.
        items: consumed one by one as there is room, in the thread that iterates; ``NOT_YET`` is skipped.
        executor: runs ``function``. It is not shut down here.
        in_flight: maximum number of submitted, unfinished items; more than the number of workers, so that no worker
            waits for the consumer.
        ordered: whether to yield outcomes in the order of ``items``, or as they finish.
        look_ahead: maximum number of items that were consumed and whose outcomes were not yielded yet, at least
            ``in_flight``. Workers can continue during a slow item, and memory is bounded. Default: 8 times
            ``in_flight``.
        on_done: called with each outcome as soon as it is available, even if it is not its turn yet, in the thread that
            iterates; for a progress bar.

    Raises:
        ValueError: ``in_flight`` is less than 1, or ``look_ahead`` is less than ``in_flight``.
    """
    if look_ahead is None:
        look_ahead = in_flight * _LOOK_AHEAD_FACTOR
    if not 1 <= in_flight <= look_ahead:
        raise ValueError(f"in_flight and look_ahead must be at least 1 and in_flight, not {in_flight} and {look_ahead}")
    return Run(function, items, executor, in_flight, ordered, look_ahead, on_done)


def default_jobs() -> int:
    """The number of CPUs that this process may use, at least 1, considering affinity and the quotas of containers."""
    from stonecli.util.cpus import available_cpus

    return available_cpus()


@contextmanager
def in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int | None = None,
    *,
    ordered: bool = True,
    on_done: Callable[[Outcome[Item, Result]], None] | None = None,
) -> Iterator[Run[Item, Result]]:
    """The outcomes of ``function`` on each of ``items``, as of :func:`run`, in threads of this process.

    When the block ends, no thread is running any more.

    Args:
        function, items, ordered, on_done: see :func:`run`.
        jobs: number of threads; None: one per CPU core that the process may use.

    Raises:
        ValueError: ``jobs`` is below 1.
    """
    from concurrent.futures import ThreadPoolExecutor

    jobs = default_jobs() if jobs is None else jobs
    with (
        ThreadPoolExecutor(jobs, thread_name_prefix="stone") as executor,
        run(function, items, executor=executor, in_flight=2 * jobs, ordered=ordered, on_done=on_done) as outcomes,
    ):
        yield outcomes


class Stoppable(Protocol):
    """Work on many files that ends early, without losing a result, when :meth:`stop` is called."""

    def stop(self) -> None: ...


@contextmanager
def stopped_by_signals(work: Stoppable | None = None) -> Iterator[list[int]]:
    """While open, Ctrl-C (SIGINT), SIGTERM and SIGHUP stop ``work``; a second signal interrupts at once.

    Without ``work``, they only fill the list, which a loop looks at between its files.

    Signals that the program was told to ignore (as by nohup) stay ignored. In a thread other than the main one nothing
    is installed, because Python handles signals only there.

    Yields:
        A list of the signals received: empty until the first one.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in END_SIGNALS if is_main}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        received.append(number)
        restore()
        if work is not None:
            work.stop()

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        restore()


class _Task(Generic[Item, Result]):
    """One submitted item. It has no reference to its future, because that would be a reference cycle."""

    __slots__ = ("is_done", "item", "outcome")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_done = False
        self.outcome: Outcome[Item, Result] | None = None  # None if it was cancelled


class Run(Iterator[Outcome[Item, Result]]):
    """An iterator of outcomes, returned by :func:`run`. Only one thread may iterate; any may call :meth:`stop`.

    Attributes:
        in_flight: see :func:`run`; may be changed with the number of workers, and changes ``look_ahead`` in proportion.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        executor: Executor,
        in_flight: int,
        ordered: bool,
        look_ahead: int,
        on_done: Callable[[Outcome[Item, Result]], None] | None,
    ) -> None:
        self._function = function
        self._items = iter(items)
        self._executor = executor
        self.in_flight = in_flight
        self._ordered = ordered
        self._look_ahead = look_ahead, in_flight
        self._on_done = on_done
        self._takes_items = True
        self._stopped = False
        self._cancels = True
        # Ordered: all tasks whose outcomes were not yielded. Otherwise: the finished tasks.
        self._tasks: deque[_Task[Item, Result]] = deque()
        self._unfinished: dict[_Answer[Result], _Task[Item, Result]] = {}
        # Filled by the futures from any thread. SimpleQueue.put may also be called in signal handlers.
        self._arrivals: SimpleQueue[_Answer[Result]] = SimpleQueue()

    def __next__(self) -> Outcome[Item, Result]:
        """The next outcome; waits for it."""
        while True:
            while not self._arrivals.empty():
                self._set_outcome(self._arrivals.get())
            self._submit()
            while self._tasks and self._tasks[0].is_done:
                outcome = self._tasks.popleft().outcome
                if outcome is not None:
                    return outcome
            if self._unfinished:
                self._wait()
            elif not self._takes_items:
                raise StopIteration

    def stop(self, *, cancel: bool = True) -> None:
        """Submit no more items, and cancel those that have not started; these have no outcomes.

        The iterator then yields the outcomes of finished and running items, and ends. Returns at once. May be called
        from a signal handler, from another thread, and repeatedly.

        Args:
            cancel: False to cancel nothing: for Dask's executor, which also cancels running calls by dropping their
                results.
        """
        self._cancels = cancel
        self._stopped = True
        self._takes_items = False
        for future in tuple(self._unfinished):
            if not (cancel and future.cancel()) and future.done():
                self._arrivals.put(future)  # again, because the interrupt may have lost the first entry

    def close(self) -> None:
        """Stop, and wait for running items; the iterator still yields their outcomes."""
        self.stop()
        while self._unfinished:
            self._wait()

    def __enter__(self) -> Run[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self) -> None:
        """Submit items while there is room."""
        while self._takes_items and self._has_room():
            try:
                item = next(self._items)
            except StopIteration:
                self._takes_items = False
                return
            if self._stopped or item is NOT_YET:  # stopped by a signal handler during next()
                return
            future = self._submitted(item)
            task: _Task[Item, Result] = _Task(item)
            self._unfinished[future] = task
            if self._ordered:
                self._tasks.append(task)
            future.add_done_callback(self._arrivals.put)
            if self._stopped and self._cancels:  # during submit(), so stop() did not cancel this one
                future.cancel()

    def _has_room(self) -> bool:
        count = len(self._tasks) if self._ordered else len(self._tasks) + len(self._unfinished)
        limit, in_flight = self._look_ahead
        return len(self._unfinished) < self.in_flight and count * in_flight < limit * self.in_flight

    def _submitted(self, item: Item) -> _Answer[Result]:
        try:
            return self._executor.submit(attempt, self._function, item)
        except Exception as error:  # broken or shut down: an error for this item and for all later ones
            from concurrent.futures import Future

            failed: _Answer[Result] = Future()
            failed.set_exception(error)
            return failed

    def _wait(self) -> None:
        """Wait for a finished task for a short time, and set its outcome."""
        try:
            self._set_outcome(self._arrivals.get(timeout=_WAKE_SECONDS))
        except Empty:
            # An interrupt may have lost an entry of the queue, so check the futures themselves.
            for future in tuple(self._unfinished):
                if future.done():
                    self._set_outcome(future)

    def _set_outcome(self, future: _Answer[Result]) -> None:
        """Set the outcome of a future that is done."""
        task = self._unfinished.get(future)
        if task is None:
            return
        if not (self._stopped and future.cancelled()):
            task.outcome = Outcome(task.item, *_answer(future))
        task.is_done = True
        if not self._ordered:
            self._tasks.append(task)
        del self._unfinished[future]  # last, so that after an interrupt the future is found again
        if self._on_done is not None and task.outcome is not None:
            self._on_done(task.outcome)


def attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, str | None]:
    """Result and error of ``function(item)``; runs in the worker.

    Exceptions become text here: one that cannot be unpickled would break the process pool, and its traceback would keep
    the audio in memory.
    """
    try:
        return function(item), None
    except Exception as error:
        return None, describe(error)


def _answer(future: _Answer[Result]) -> tuple[Result | None, str | None]:
    """Result and error of a future that is done."""
    if future.cancelled():  # the executor was shut down
        return None, "cancelled"
    failure = future.exception()
    return future.result() if failure is None else (None, describe(failure))
