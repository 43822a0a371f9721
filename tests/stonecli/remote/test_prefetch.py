import itertools
import threading
from collections.abc import Iterator

import pytest

from stonecli.remote.prefetch import Ahead


def test_all_items_in_their_order() -> None:
    assert list(Ahead(range(1000), most=3)) == list(range(1000))


def test_no_more_than_were_asked_for_are_held() -> None:
    taken = itertools.count()
    last = 0

    def source() -> Iterator[int]:
        nonlocal last
        while True:
            last = next(taken)
            yield last

    ahead = Ahead(source(), most=5)
    for number in range(100):
        assert next(ahead) == number
        assert last <= number + 5 + 1
    ahead.stop()
    assert list(ahead) == []


def test_what_the_source_raises_is_raised_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    ahead = Ahead(source(), most=5)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    assert list(ahead) == []


def test_it_stops_while_the_source_waits() -> None:
    line = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        line.wait()

    ahead = Ahead(source(), most=5)
    assert next(ahead) == 1
    assert not ahead.wait(0)
    assert not ahead.wait(0.01)
    threading.Timer(0.05, ahead.stop).start()
    assert list(ahead) == []
    line.set()
