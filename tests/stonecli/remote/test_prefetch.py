import itertools
import threading
from collections.abc import Iterator

import pytest

from stonecli.remote.prefetch import Prefetcher


def test_all_items_in_their_order() -> None:
    assert list(Prefetcher(range(1000), size=3)) == list(range(1000))


def test_memory_holds_only_the_requested_items() -> None:
    taken = itertools.count()
    last = 0

    def source() -> Iterator[int]:
        nonlocal last
        while True:
            last = next(taken)
            yield last

    prefetcher = Prefetcher(source(), size=5)
    for number in range(100):
        assert next(prefetcher) == number
        assert last <= number + 5 + 1
    prefetcher.stop()
    assert list(prefetcher) == []


def test_an_error_of_the_source_is_raised_in_order() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    prefetcher = Prefetcher(source(), size=5)
    assert next(prefetcher) == 1
    with pytest.raises(OSError, match="gone"):
        next(prefetcher)
    assert list(prefetcher) == []


def test_it_stops_while_the_source_waits() -> None:
    line = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        line.wait()

    prefetcher = Prefetcher(source(), size=5)
    assert next(prefetcher) == 1
    assert not prefetcher.wait(0)
    assert not prefetcher.wait(0.01)
    threading.Timer(0.05, prefetcher.stop).start()
    assert list(prefetcher) == []
    line.set()
