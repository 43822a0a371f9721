"""Many files in parallel on any ``concurrent.futures.Executor``: order, progress, Ctrl-C."""

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

if TYPE_CHECKING:  # at run time the caller has imported it, and the start of the program need not
    from concurrent.futures import Executor, Future
    from types import TracebackType
    from typing import TypeAlias

Item = TypeVar("Item")
Result = TypeVar("Result")
if TYPE_CHECKING:
    _Answer: TypeAlias = Future[tuple[Result | None, str | None]]  # result and error of one item

_LOOK_AHEAD_FACTOR = 8
_WAKE_SECONDS = 0.2  # on Windows Ctrl-C does not end a wait, it is seen after it


class NotYet(Enum):
    """What ``items`` may yield where the next one is not there yet: outcomes are looked at before it is asked again."""

    NOT_YET = "not yet"


NOT_YET = NotYet.NOT_YET

END_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32":
    END_SIGNALS += (signal.SIGHUP,)
"""Signals that ask a program to end."""


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item.

    Attributes:
        item: as it was given.
        result: what the function returned; None where there is an error.
        error: None, or one printable line that says what went wrong, without the item's name.
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
    """The outcomes of ``function`` on each of ``items``, as an iterator that can be stopped without losing any.

    Nothing that ``function`` raises ends the run: it becomes the outcome's error. So does the death of a worker process
    for the items that it had and for all that follow. Only what ``items`` or ``on_done`` raise comes through.

    Ctrl-C: the iterator stays usable after a ``KeyboardInterrupt``. ``stop()`` it, and iterate on: the rest is what had
    finished or was running. ::

        with run(detect, paths, executor=executor, in_flight=8) as outcomes:
            try:
                for outcome in outcomes:
                    report(outcome)
            except KeyboardInterrupt:
                outcomes.stop()
                for outcome in outcomes:
                    report(outcome)

    A signal handler that calls ``stop()`` does it in one loop, and closes the gap of a few bytecodes in which Python
    can raise ``KeyboardInterrupt`` while an item or an outcome is handed over. Worker processes get a Ctrl-C of their
    own from the terminal: give the pool an ``initializer`` that ignores SIGINT.

    Args:
        function: called with one item; for processes and clusters it must be picklable.
        items: consumed one by one as there is room, in the thread that iterates; ``NOT_YET`` is passed over.
        executor: where ``function`` runs. It is not shut down here.
        in_flight: most items submitted and not known to be finished; above the number of workers, so that
            none of them waits for the consumer.
        ordered: outcomes in the order of ``items``; else as they finish.
        look_ahead: most items taken and not yet yielded, at least ``in_flight``; it lets the workers go on past a slow
            item, and bounds memory. By default 8 times ``in_flight``.
        on_done: called with each outcome as soon as it is there, before its turn, in the thread that iterates: a
            progress bar that a slow item does not stop.

    Raises:
        ValueError: ``in_flight`` below 1 or ``look_ahead`` below ``in_flight``.
    """
    if look_ahead is None:
        look_ahead = in_flight * _LOOK_AHEAD_FACTOR
    if not 1 <= in_flight <= look_ahead:
        raise ValueError(f"need 1 <= in_flight <= look_ahead, not {in_flight} and {look_ahead}")
    return Run(function, items, executor, in_flight, ordered, look_ahead, on_done)


def default_jobs() -> int:
    """The number of CPUs this process may use, at least 1; affinity and the quotas of containers are counted."""
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
def signals_as_ctrl_c() -> Iterator[None]:
    """While open, SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that the work can clean up.

    Signals that the program ignores, such as SIGHUP under nohup, stay ignored.
    """
    before = {number: handler for number in END_SIGNALS if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals(work: Stoppable) -> Iterator[list[int]]:
    """While open, Ctrl-C (SIGINT), SIGTERM and SIGHUP stop ``work``; a second signal interrupts at once.

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
        work.stop()

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        restore()


class _Task(Generic[Item, Result]):
    """One submitted item. It does not know its future, whose callbacks would make a cycle of them."""

    __slots__ = ("is_done", "item", "outcome")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_done = False
        self.outcome: Outcome[Item, Result] | None = None  # stays None when cancelled


class Run(Iterator[Outcome[Item, Result]]):
    """An iterator of outcomes; made by :func:`run`. For one thread at a time, the signal handler excepted.

    Attributes:
        in_flight: as it was given; may be changed when workers come or go, and ``look_ahead`` changes in proportion.
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
        # Ordered: all tasks not yet yielded, as given. Else: the finished ones, as they finished.
        self._line: deque[_Task[Item, Result]] = deque()
        self._unfinished: dict[_Answer[Result], _Task[Item, Result]] = {}
        # Filled by the futures from whatever thread. SimpleQueue.put may be called from signal handlers as well.
        self._arrivals: SimpleQueue[_Answer[Result]] = SimpleQueue()

    def __next__(self) -> Outcome[Item, Result]:
        """The next outcome; blocks until there is one."""
        while True:
            while not self._arrivals.empty():
                self._settle(self._arrivals.get())
            self._submit()
            while self._line and self._line[0].is_done:
                outcome = self._line.popleft().outcome
                if outcome is not None:
                    return outcome
            if self._unfinished:
                self._wait()
            elif not self._takes_items:
                raise StopIteration

    def stop(self, *, cancel: bool = True) -> None:
        """Takes no more items, and cancels those that have not started; these are not reported.

        Iterating on yields what had finished and what is running, then ends. Returns at once. May be called from a
        signal handler, from another thread, and again.

        Args:
            cancel: False leaves everything submitted to run and to be reported: for Dask's executor, which cancels
                running calls too, or rather forgets them while they run on.
        """
        self._cancels = cancel
        self._stopped = True
        self._takes_items = False
        for future in tuple(self._unfinished):
            if not (cancel and future.cancel()) and future.done():
                self._arrivals.put(future)  # again: the interrupt may have struck while the first was taken

    def close(self) -> None:
        """Stops as :meth:`stop` does, and returns when nothing runs any more; iterating on still yields the rest."""
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
        """Takes items while there is room for them."""
        while self._takes_items and self._has_room():
            try:
                item = next(self._items)
            except StopIteration:
                self._takes_items = False
                return
            if self._stopped or item is NOT_YET:  # the first by a signal handler, during next()
                return
            future = self._submitted(item)
            task: _Task[Item, Result] = _Task(item)
            self._unfinished[future] = task
            if self._ordered:
                self._line.append(task)
            future.add_done_callback(self._arrivals.put)
            if self._stopped and self._cancels:  # during submit(), too early for stop() to see this one
                future.cancel()

    def _has_room(self) -> bool:
        taken = len(self._line) if self._ordered else len(self._line) + len(self._unfinished)
        most, of = self._look_ahead
        return len(self._unfinished) < self.in_flight and taken * of < most * self.in_flight

    def _submitted(self, item: Item) -> _Answer[Result]:
        try:
            return self._executor.submit(attempt, self._function, item)
        except Exception as error:  # broken or shut down: an error for this item, and for each that follows
            from concurrent.futures import Future

            failed: _Answer[Result] = Future()
            failed.set_exception(error)
            return failed

    def _wait(self) -> None:
        """Settles at least one task, or returns after a moment."""
        try:
            self._settle(self._arrivals.get(timeout=_WAKE_SECONDS))
        except Empty:
            # An interrupt can strike between taking an arrival and settling it; the futures themselves know better.
            for future in tuple(self._unfinished):
                if future.done():
                    self._settle(future)

    def _settle(self, future: _Answer[Result]) -> None:
        """Notes the outcome of a future that is done."""
        task = self._unfinished.get(future)
        if task is None:
            return
        if not (self._stopped and future.cancelled()):
            task.outcome = Outcome(task.item, *_answer(future))
        task.is_done = True
        if not self._ordered:
            self._line.append(task)
        del self._unfinished[future]  # last, so that an interrupt before it leaves the future to be found again
        if self._on_done is not None and task.outcome is not None:
            self._on_done(task.outcome)


def attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, str | None]:
    """Result and error of ``function(item)``; runs in the worker.

    Exceptions end here: one that cannot be unpickled would break the whole process pool, and one that is kept keeps the
    frames it passed through, with all the audio in them.
    """
    try:
        return function(item), None
    except Exception as error:
        return None, describe(error)


def _answer(future: _Answer[Result]) -> tuple[Result | None, str | None]:
    """Result and error of a future that is done."""
    if future.cancelled():  # not by us: the executor was shut down
        return None, "cancelled"
    failure = future.exception()
    return future.result() if failure is None else (None, describe(failure))
