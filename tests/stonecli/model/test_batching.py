"""Batches on the CPU, by the code that fills a GPU."""

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stonecli.detection.detect import detect_key, detect_key_in_audio
from stonecli.errors import AudioError, ModelError
from stonecli.jobs import run
from stonecli.model.batching import QUEUED_BATCHES, Batcher
from stonecli.model.session import KeyModel
from tests.fixture_types import MakeMusic, Samples

LONG = 30  # seconds after which a test is given up; what is right never waits


def window(number: float, length: int = 4) -> Samples:
    return np.full(length, number, dtype=np.float32)


class Runner:
    """Answers a window with its first sample, when allowed; records the batches. Negative ones fail."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.batches: list[list[float]] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        if open_gate:
            self.gate.set()

    def __call__(self, audio: Samples) -> list[float]:
        self.batches.append(audio[:, 0].tolist())
        self.begun.release()
        assert self.gate.wait(LONG)
        if (audio < 0).any():
            raise ModelError(f"{audio.min()} is too low")
        return [float(value) for value in audio[:, 0]]


@contextmanager
def batcher(runner: Runner, size: int) -> Iterator[Batcher[float]]:
    batches = Batcher(runner, size)
    try:
        yield batches
    finally:
        runner.gate.set()
        batches.close()


def test_windows_that_arrive_during_a_batch_form_the_next() -> None:
    runner = Runner(open_gate=False)
    with batcher(runner, 8) as batches:
        answers = [batches.submit(window(0))]
        assert runner.begun.acquire(timeout=LONG)
        answers += [batches.submit(window(number)) for number in range(1, 12)]
        runner.gate.set()
        assert [answer.result(LONG) for answer in answers] == [*range(12)]
    assert runner.batches == [[0], [*range(1, 9)], [9, 10, 11]]


def test_many_threads_get_their_own_answers() -> None:
    runner = Runner()

    def ask(thread: int) -> bool:
        numbers = [1000 * thread + number for number in range(200)]
        return [answer.result(LONG) for answer in [batches.submit(window(n)) for n in numbers]] == numbers

    with batcher(runner, 16) as batches, ThreadPoolExecutor(8) as executor:
        assert all(executor.map(ask, range(8)))
    sizes = [len(batch) for batch in runner.batches]
    assert sum(sizes) == 1600
    assert max(sizes) <= 16
    assert np.mean(sizes) > 4


def test_a_single_window_does_not_wait_for_a_full_batch() -> None:
    with batcher(Runner(), 1000) as batches:
        assert batches.submit(window(5)).result(LONG) == 5


def test_windows_of_another_length_make_another_batch() -> None:
    runner = Runner(open_gate=False)
    with batcher(runner, 8) as batches:
        answers = [batches.submit(window(0))]
        assert runner.begun.acquire(timeout=LONG)
        answers += [batches.submit(window(number, 4 if number < 3 else 6)) for number in range(1, 6)]
        runner.gate.set()
        assert [answer.result(LONG) for answer in answers] == [*range(6)]
    assert runner.batches == [[0], [1, 2], [3, 4, 5]]


def test_a_failed_window_does_not_affect_others() -> None:
    runner = Runner(open_gate=False)
    with batcher(runner, 8) as batches:
        batches.submit(window(0))
        assert runner.begun.acquire(timeout=LONG)
        answers = [batches.submit(window(number)) for number in (1, -2, 3)]
        runner.gate.set()
        assert answers[0].result(LONG) == 1
        assert answers[2].result(LONG) == 3
        with pytest.raises(ModelError, match=r"-2\.0 is too low"):
            answers[1].result(LONG)
        assert batches.submit(window(4)).result(LONG) == 4  # and it goes on


def test_who_is_faster_than_the_model_has_to_wait() -> None:
    """Memory: one batch runs, ``QUEUED_BATCHES`` more are there; the thread that brings another one stands still."""
    runner, size = Runner(open_gate=False), 4
    most = 1 + QUEUED_BATCHES * size  # the first one runs alone
    handed_in: list[int] = []
    full = threading.Event()

    def hand_in() -> list[float]:
        answers = []
        for number in range(40):
            answers.append(batches.submit(window(number)))
            handed_in.append(number)
            if len(handed_in) == most:
                full.set()
        return [answer.result(LONG) for answer in answers]

    with batcher(runner, size) as batches, ThreadPoolExecutor(1) as executor:
        batches.submit(window(99))
        assert runner.begun.acquire(timeout=LONG)
        found = executor.submit(hand_in)
        assert not full.wait(0.3)
        assert len(handed_in) == most - 1
        runner.gate.set()
        assert found.result(LONG) == [*range(40)]


def test_a_cancelled_window_is_not_run() -> None:
    runner = Runner(open_gate=False)
    with batcher(runner, 8) as batches:
        batches.submit(window(0))
        assert runner.begun.acquire(timeout=LONG)
        answers = [batches.submit(window(number)) for number in (1, 2, 3)]
        assert answers[1].cancel()
        runner.gate.set()
        assert (answers[0].result(LONG), answers[2].result(LONG)) == (1, 3)
    assert runner.batches == [[0], [1, 3]]


def test_the_end_comes_after_all_submitted_windows() -> None:
    runner = Runner()
    batches = Batcher(runner, 3)
    answers = [batches.submit(window(number)) for number in range(5)]
    batches.close()
    assert [answer.result(0) for answer in answers] == [*range(5)]
    batches.close()
    with pytest.raises(RuntimeError, match="batcher is closed"):
        batches.submit(window(1))


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 window"):
        Batcher(Runner(), 0)


def in_a_fork(work: Callable[[], bool]) -> bool:
    """The answer of ``work`` in a forked process; False if it hangs and is killed."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONG)
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_its_own_batches() -> None:
    runner = Runner(open_gate=False)
    with batcher(runner, 1) as batches:
        answers = [batches.submit(window(number)) for number in range(1 + QUEUED_BATCHES)]
        assert runner.begun.acquire(timeout=LONG)  # one is being answered, and no more may wait

        def work() -> bool:
            runner.gate.set()
            right = [batches.submit(window(number)).result() for number in (7, 8)] == [7, 8]
            batches.close()
            return right

        with batches._lock:
            assert in_a_fork(work)
        assert not any(answer.done() for answer in answers)
        runner.gate.set()
        assert [answer.result(LONG) for answer in answers] == list(range(1 + QUEUED_BATCHES))


# With the model, on files


@pytest.fixture(scope="module")
def batching_model() -> KeyModel:
    return KeyModel(device="cpu", batch=4)


def test_batched_files_give_the_same_results(
    songs: Mapping[str, Path], key_model: KeyModel, batching_model: KeyModel, tmp_path: Path
) -> None:
    """Order, answers and errors of an engine's run, from several threads."""
    damaged = tmp_path / "damaged.mp3"
    damaged.write_bytes(b"ID3 no music")
    paths = [*songs.values(), damaged, *songs.values()]
    with (
        ThreadPoolExecutor(3) as executor,
        run(lambda path: detect_key(path, batching_model), paths, executor=executor, in_flight=6) as outcomes,
    ):
        found = list(outcomes)
    assert [outcome.item for outcome in found] == paths
    for outcome in found:
        if outcome.item == damaged:
            assert outcome.error is not None
            continue
        assert outcome.result is not None
        expected = detect_key(outcome.item, key_model)
        assert outcome.result.key == expected.key
        assert [w.start for w in outcome.result.windows] == [w.start for w in expected.windows]
        assert np.abs(outcome.result.probabilities - expected.probabilities).max() < 1e-4


def test_a_slow_file_does_not_delay_the_others(music: MakeMusic, batching_model: KeyModel) -> None:
    go_on = threading.Event()
    samples = music("G major", seconds=32)

    def slowly() -> Iterator[Samples]:
        yield samples[: len(samples) // 2]
        assert go_on.wait(LONG)
        yield samples[len(samples) // 2 :]

    with ThreadPoolExecutor(2) as executor:
        slow = executor.submit(detect_key_in_audio, slowly(), batching_model, 22050)
        others = [executor.submit(detect_key_in_audio, [samples], batching_model, 22050) for _ in range(3)]
        keys = {other.result(LONG).key for other in others}
        assert not slow.done()
        go_on.set()
        assert keys == {slow.result(LONG).key}


def test_a_truncated_file_does_not_affect_the_others(music: MakeMusic, batching_model: KeyModel) -> None:
    samples = music("E minor", seconds=20)

    def breaking() -> Iterator[Samples]:
        yield samples
        raise AudioError("truncated")

    for _ in range(3):
        with pytest.raises(AudioError, match="truncated"):
            detect_key_in_audio(breaking(), batching_model, 22050, window_seconds=13.0)
    assert detect_key_in_audio([samples], batching_model, 22050).key is not None


def test_a_window_that_is_too_short_has_its_own_error(batching_model: KeyModel) -> None:
    info = batching_model.info
    whole = np.random.default_rng(0).standard_normal(info.window_samples + 2 * info.context_samples).astype(np.float32)
    answers = [batching_model.submit(audio) for audio in (whole, whole[:1000], whole)]
    assert answers[0]().keys.sum() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ModelError, match="the model failed"):
        answers[1]()
    assert np.array_equal(answers[2]().keys, answers[0]().keys)


def test_a_released_model_ends_its_thread() -> None:
    model = KeyModel(device="cpu", batch=2)
    info = model.info
    model.submit(np.zeros(info.window_samples + 2 * info.context_samples, np.float32))()
    (thread,) = [t for t in threading.enumerate() if t.name == "stone-batches" and t is not None][-1:]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_that_was_used_is_used_in_a_fork(songs: Mapping[str, Path], batching_model: KeyModel) -> None:
    key = detect_key(songs["flac"], batching_model).key
    assert in_a_fork(lambda: detect_key(songs["flac"], batching_model).key == key)
    assert detect_key(songs["mp3"], batching_model).key == key
