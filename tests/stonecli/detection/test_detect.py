import csv
import itertools
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import stonecli
from stonecli.detection import windows
from stonecli.detection.detect import detect_key, detect_key_in_audio
from stonecli.detection.estimate import KeyEstimate
from stonecli.detection.pooling import pooled_posterior, recording_probabilities
from stonecli.errors import AudioError
from stonecli.key import Key
from stonecli.model.session import KeyModel, WindowProbabilities, default_model
from tests.fixture_types import MakeModel, MakeNoise, Samples

Music = Callable[..., Samples]
RATE = 22050
WINDOW = default_model().info.window_seconds
KEYS = ("C major", "F# major", "Bb major", "A minor", "C# minor", "Eb minor")


@pytest.fixture
def analyzed(key_model: KeyModel) -> Callable[..., KeyEstimate]:
    """The estimate for samples that come as blocks of some length."""

    def estimate(samples: Samples, *, block: int = 4 * RATE, **options: float) -> KeyEstimate:
        blocks = (samples[start : start + block] for start in range(0, len(samples), block))
        return detect_key_in_audio(blocks, key_model, RATE, **options)  # type: ignore[arg-type]

    return estimate


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def assert_is_consistent(estimate: KeyEstimate) -> None:
    """Check the properties of every estimate, with a key or without."""
    assert estimate.probabilities.shape == (24,)
    assert estimate.probabilities.sum() == pytest.approx(1, abs=1e-3)
    assert 0 <= estimate.confidence <= 1
    assert all(one.start < other.start for one, other in itertools.pairwise(estimate.windows))
    if estimate.key is None:
        assert estimate.confidence == 0
        assert estimate.segments == ()
        assert estimate.tuning_cents is None
        return
    assert estimate.key.index == estimate.probabilities.argmax()
    assert estimate.confidence == pytest.approx(float(estimate.probabilities.max()), abs=1e-6)
    assert estimate.alternatives[0][0] == estimate.key
    assert [share for _, share in estimate.alternatives] == sorted(estimate.probabilities.tolist(), reverse=True)
    assert estimate.segments[0].start == estimate.windows[0].start
    assert estimate.segments[-1].end == estimate.windows[-1].end
    assert all(one.end == other.start for one, other in itertools.pairwise(estimate.segments))


class TestRealFiles:
    def test_the_recordings_that_are_at_hand(self, shared: Path, key_model: KeyModel) -> None:
        with (shared / "audio" / "labels.csv").open() as file:
            labels = {row["path"]: row["key"] for row in csv.DictReader(file)}
        assert len(labels) == 7
        detected = {name: detect_key(shared / "audio" / name, key_model) for name in labels}
        for estimate in detected.values():
            assert_is_consistent(estimate)
        assert {name: estimate.key.name if estimate.key else None for name, estimate in detected.items()} == labels
        fork = detected["pitch_fork_c_major.mp3"]
        assert fork.confidence > 0.9
        assert fork.tuning_cents == pytest.approx(-1.5, abs=1.5)
        assert fork.duration == pytest.approx(33.6, abs=0.5)
        violin = detected["bach_bwv1002_sarabande_garner.mp3"]
        assert violin.tuning_cents == pytest.approx(13.2, abs=1.5)  # baroque or not, above 440 Hz
        assert violin.confidence > 0.5

    def test_every_container(self, songs: Mapping[str, Path], key_model: KeyModel, any_container: str) -> None:
        estimate = detect_key(songs[any_container], key_model)
        assert_is_consistent(estimate)
        assert estimate.key == Key.parse("D minor")
        assert estimate.confidence > 0.6
        assert estimate.tuning_cents == pytest.approx(0, abs=3)
        assert estimate.duration == pytest.approx(16, abs=0.1)
        assert [(segment.key, segment.start) for segment in estimate.segments] == [(estimate.key, 0.0)]

    def test_the_public_name_takes_a_path_alone(self, songs: Mapping[str, Path]) -> None:
        estimate = stonecli.detect_key(str(songs["flac"]))
        assert isinstance(estimate, stonecli.KeyEstimate)
        assert estimate.key == stonecli.Key(2, "minor")

    def test_an_unreadable_file_raises(self, tmp_path: Path, key_model: KeyModel) -> None:
        (tmp_path / "a.mp3").write_text("text")
        with pytest.raises(AudioError):
            detect_key(tmp_path / "a.mp3", key_model)
        with pytest.raises(FileNotFoundError):
            detect_key(tmp_path / "b.mp3", key_model)


class TestKeysLevelsTunings:
    @pytest.mark.parametrize("key", [key.name for key in Key.all()])
    def test_all_24_keys(self, music: Music, analyzed: Callable[..., KeyEstimate], key: str) -> None:
        estimate = analyzed(music(key))
        assert_is_consistent(estimate)
        assert estimate.key == Key.parse(key)
        assert estimate.confidence > 0.5

    @pytest.mark.parametrize("gain", [0.01, 0.001, 2.0, 30.0])
    def test_the_level_changes_nothing(self, music: Music, analyzed: Callable[..., KeyEstimate], gain: float) -> None:
        samples = music("G minor", seconds=31)
        plain, scaled = analyzed(samples), analyzed(samples * np.float32(gain))
        assert scaled.key == plain.key == Key.parse("G minor")
        assert np.abs(scaled.probabilities - plain.probabilities).max() < 2e-3
        assert scaled.tuning_cents == pytest.approx(plain.tuning_cents, abs=0.3)

    def test_a_quiet_start_is_analyzed_too(self, music: Music, analyzed: Callable[..., KeyEstimate]) -> None:
        samples = np.concatenate([music("E major", seconds=15) * np.float32(0.02), music("E major", seconds=30)])
        estimate = analyzed(samples)
        assert [window.tonal for window in estimate.windows] == [True, True, True]
        assert estimate.key == Key.parse("E major")

    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("cents", [-40, 40])
    def test_a_detuned_copy_has_the_same_key(
        self, music: Music, analyzed: Callable[..., KeyEstimate], key: str, cents: float
    ) -> None:
        plain, detuned = analyzed(music(key)), analyzed(music(key, cents=cents))
        assert detuned.key == plain.key == Key.parse(key)
        assert detuned.tuning_cents == pytest.approx(cents, abs=3)
        assert np.abs(detuned.probabilities - plain.probabilities).max() < 0.15


class TestRecordingsWithoutAKey:
    @pytest.mark.parametrize("exponent", [0, 1, 2], ids=["white", "pink", "brown"])
    @pytest.mark.parametrize("seconds", [1, 16, 47])
    def test_noise_has_no_key(
        self, noise: MakeNoise, analyzed: Callable[..., KeyEstimate], exponent: float, seconds: float
    ) -> None:
        estimate = analyzed(noise(exponent, seconds))
        assert_is_consistent(estimate)
        assert estimate.key is None
        assert all(window.key is None and window.confidence == 0 for window in estimate.windows)

    def test_silence_has_no_key(self, analyzed: Callable[..., KeyEstimate], music: Music) -> None:
        dither = np.random.default_rng(0).integers(-1, 2, 20 * RATE).astype(np.float32) / 32768
        offset = silence(20) + np.float32(0.1)
        for samples in (silence(20), silence(1), dither, music(seconds=20) * np.float32(1e-4), offset):
            estimate = analyzed(samples)
            assert_is_consistent(estimate)
            assert estimate.key is None

    def test_no_audio_at_all_is_an_error(self, key_model: KeyModel) -> None:
        for blocks in ([], [silence(0)]):
            with pytest.raises(AudioError, match="no audio"):
                detect_key_in_audio(blocks, key_model, RATE)

    @pytest.mark.parametrize("seconds", [0.6, 1, 3, 10, 14.9])
    def test_a_file_shorter_than_a_window_gets_an_answer(
        self, music: Music, analyzed: Callable[..., KeyEstimate], seconds: float
    ) -> None:
        estimate = analyzed(music("F minor", seconds=seconds))
        assert_is_consistent(estimate)
        assert estimate.key is not None
        (window,) = estimate.windows
        assert (window.start, window.end) == pytest.approx((0.0, seconds), abs=1e-3)
        if seconds >= 3:
            assert estimate.key == Key.parse("F minor")

    @pytest.mark.parametrize("seconds", [1 / RATE, 0.1, 0.4])
    def test_a_tenth_of_a_second_gets_none(
        self, music: Music, analyzed: Callable[..., KeyEstimate], seconds: float
    ) -> None:
        estimate = analyzed(music("F minor", seconds=1)[: round(seconds * RATE)])
        assert_is_consistent(estimate)
        assert estimate.key is None
        assert estimate.duration == pytest.approx(seconds, abs=1e-4)

    def test_windows_without_tones_do_not_count(
        self, music: Music, noise: MakeNoise, analyzed: Callable[..., KeyEstimate]
    ) -> None:
        tones = music("B major", seconds=WINDOW)
        estimate = analyzed(np.concatenate([noise(0, WINDOW), tones, silence(WINDOW), tones]))
        assert [window.tonal for window in estimate.windows] == [False, True, False, True]
        assert estimate.key == Key.parse("B major")
        tonal = np.array([window.probabilities for window in estimate.windows if window.tonal])
        expected = recording_probabilities(pooled_posterior(tonal, np.ones(2)), 2 * WINDOW, default_model().info)
        assert estimate.probabilities == pytest.approx(expected, abs=1e-3)  # they are as long but for a sample
        assert [segment.key for segment in estimate.segments] == [estimate.key]


class TestSegments:
    def test_a_change_of_key_makes_two_segments(self, music: Music, analyzed: Callable[..., KeyEstimate]) -> None:
        estimate = analyzed(np.concatenate([music("C major", seconds=60), music("F# minor", seconds=75)]))
        assert [segment.key.name for segment in estimate.segments] == ["C major", "F# minor"]
        assert estimate.segments[0].end == pytest.approx(60, abs=8)
        assert estimate.key == Key.parse("F# minor")  # the longer one
        assert_is_consistent(estimate)

    def test_a_few_bars_in_another_key_are_no_segment(self, music: Music, analyzed: Callable[..., KeyEstimate]) -> None:
        parts = [music("C major", seconds=45), music("F# minor", seconds=15), music("C major", seconds=45)]
        assert [segment.key.name for segment in analyzed(np.concatenate(parts)).segments] == ["C major"]

    def test_a_recording_in_one_key_has_one_segment(self, key_model: KeyModel) -> None:
        """The mean and the most likely path can differ when nothing is sure; then the mean is the answer to both."""

        class Unsure:
            info = key_model.info

            def __init__(self) -> None:
                self.rows = iter(
                    [(0.90, 0.10), (0.32, 0.68), (0.32, 0.68), (0.32, 0.68), (0.90, 0.10), (0.32, 0.68), (0.32, 0.68)]
                )

            def submit(self, window: Samples) -> object:
                row = np.zeros((1, 24), dtype=np.float32)
                row[0, :2] = next(self.rows)
                return lambda: type("Answer", (), {"keys": row, "classes": row})

        time = np.arange(105 * RATE) / RATE
        partials = [0.1 * np.sin(2 * np.pi * 220 * partial * time) for partial in range(1, 7)]
        samples = np.sum(partials, axis=0).astype(np.float32)
        estimate = detect_key_in_audio([samples], Unsure(), RATE)  # type: ignore[arg-type]
        assert len(estimate.windows) == 7
        assert len(estimate.segments) == 1
        assert estimate.segments[0].key == estimate.key


class Recorder(KeyModel):
    """Records its inputs."""

    asked: list[Samples]

    def submit(self, window: Samples) -> Callable[[], WindowProbabilities]:
        self.asked.append(window.copy())
        return super().submit(window)


class TestWindows:
    @pytest.mark.parametrize(
        ("length", "borders"),
        [(1, [0, 1]), (1.5, [0, 1.5]), (1.97, [0, 1.97]), (2, [0, 1, 2]), (3.3, [0, 1, 2, 3.3])],
    )
    def test_windows_tile_a_recording(
        self, music: Music, analyzed: Callable[..., KeyEstimate], length: float, borders: list[float]
    ) -> None:
        """Positions in windows; the last one contains the rest."""
        estimate = analyzed(music("C major", seconds=length * WINDOW))
        found = [*(window.start for window in estimate.windows), estimate.windows[-1].end]
        assert found == pytest.approx([WINDOW * border for border in borders], abs=0.01)
        assert all(one.end == other.start for one, other in itertools.pairwise(estimate.windows))

    @pytest.mark.parametrize(
        ("length", "overlap", "starts"),
        [
            (1, 0.0, [0]),
            (1.97, 0.0, [0]),
            (2, 0.0, [0, 1]),
            (3.3, 0.0, [0, 1, 2]),
            (1.6, 0.5, [0, 0.5]),
            (0.4, 0.0, [0]),
        ],
    )
    def test_the_last_window_can_be_dropped(
        self, music: Music, analyzed: Callable[..., KeyEstimate], length: float, overlap: float, starts: list[float]
    ) -> None:
        """Only whole windows are analyzed; a recording shorter than a window is analyzed unchanged."""
        estimate = analyzed(music("C major", seconds=length * WINDOW), last_window="drop", overlap=overlap)
        assert [window.start for window in estimate.windows] == pytest.approx(
            [WINDOW * start for start in starts], abs=0.02
        )
        lengths = [window.end - window.start for window in estimate.windows]
        assert lengths == pytest.approx([WINDOW * min(1, length)] * len(starts), abs=0.02)
        assert estimate.key == Key.parse("C major")
        assert_is_consistent(estimate)

    @pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
    def test_overlap(self, music: Music, analyzed: Callable[..., KeyEstimate], overlap: float) -> None:
        estimate = analyzed(music("C major", seconds=60), overlap=overlap)
        starts = np.array([window.start for window in estimate.windows])
        assert np.diff(starts) == pytest.approx(WINDOW * (1 - overlap), abs=0.02)
        assert estimate.windows[-1].end == pytest.approx(60, abs=0.01)
        assert estimate.key == Key.parse("C major")
        assert_is_consistent(estimate)

    @pytest.mark.parametrize("window", [12.0, 20.0, 60.0])
    def test_other_windows(self, music: Music, analyzed: Callable[..., KeyEstimate], window: float) -> None:
        estimate = analyzed(music("E minor", seconds=60), window_seconds=window)
        assert [found.start for found in estimate.windows] == pytest.approx(
            [window * number for number in range(len(estimate.windows))], abs=0.05
        )
        assert len(estimate.windows) == 60 // window
        assert estimate.key == Key.parse("E minor")

    @pytest.mark.parametrize(
        "options",
        [
            {"overlap": -0.1},
            {"overlap": 0.96},
            {"overlap": float("nan")},
            {"window_seconds": 0},
            {"window_seconds": -15},
            {"window_seconds": 1},
            {"window_seconds": 301},
            {"window_seconds": float("nan")},
            {"window_seconds": float("inf")},
        ],
        ids=str,
    )
    def test_invalid_combinations_of_options(self, key_model: KeyModel, options: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="window"):
            detect_key_in_audio([silence(1)], key_model, RATE, **options)  # type: ignore[arg-type]

    @pytest.mark.parametrize("rate", [0, -1, 999, 1_000_001, float("nan"), float("inf")])
    def test_an_invalid_sample_rate_is_refused(self, key_model: KeyModel, rate: float) -> None:
        with pytest.raises(ValueError, match="the sample rate must be 1000 to 1000000 Hz, not"):
            detect_key_in_audio([silence(1)], key_model, rate)

    @pytest.mark.parametrize("rate", [2000, 3900])
    @pytest.mark.parametrize("key", ["F major", "D minor"])
    def test_audio_at_a_low_rate_is_analyzed(
        self, tmp_path: Path, music: Music, key_model: KeyModel, key: str, rate: int
    ) -> None:
        soundfile.write(tmp_path / "low.wav", music(key, seconds=31, rate=rate), rate)
        estimate = detect_key(tmp_path / "low.wav", key_model)
        assert_is_consistent(estimate)
        assert estimate.key == Key.parse(key)
        assert estimate.duration == pytest.approx(31, abs=0.01)

    @pytest.mark.parametrize("cents", [0.0, 37.0, -46.0])
    def test_a_window_is_analyzed_with_context(self, music: Music, cents: float) -> None:
        """The model gets a piece of the whole recording, corrected at once, without cuts in it."""
        recorder = Recorder(device="cpu")
        recorder.asked = []
        samples = music("D major", seconds=50, cents=cents)
        estimate = detect_key_in_audio([samples], recorder, RATE)
        assert estimate.tuning_cents is not None
        ratio = recorder.info.sample_rate / RATE * 2 ** (estimate.tuning_cents / 1200)
        whole = soxr.resample(samples / np.abs(samples).max(), 1, ratio, quality="HQ")
        assert len(recorder.asked) == 50 // WINDOW
        for window, detected in zip(estimate.windows, recorder.asked, strict=True):
            inside = len(detected) - 2 * recorder.info.context_samples
            if window is not estimate.windows[-1]:
                assert inside == recorder.info.window_samples
            else:
                assert (window.end - window.start) * RATE * ratio - inside < 0.26 * recorder.info.sample_rate
            first = round((window.start + window.end) / 2 * RATE * ratio) - len(detected) // 2
            there = slice(max(0, -first), len(whole) - first)
            piece = whole[max(0, first) : first + len(detected)]
            # Half a sample apart, at most: another phase, so that the spectra are compared.
            mine, theirs = np.abs(np.fft.rfft(detected[there])), np.abs(np.fft.rfft(piece))
            assert np.abs(mine - theirs)[: len(mine) // 2].max() < 0.01 * theirs.max()

    def test_a_hair_of_tuning_moves_no_window(self, music: Music, analyzed: Callable[..., KeyEstimate]) -> None:
        """Below half a cent nothing is corrected, above it is: that must not show."""
        one, other = (analyzed(music("E minor", seconds=62, cents=cents)) for cents in (0.3, 0.9))
        assert [window.start for window in one.windows] == [window.start for window in other.windows]
        assert len(one.windows) == 62 // WINDOW
        for mine, theirs in zip(one.windows, other.windows, strict=True):
            assert np.abs(mine.probabilities - theirs.probabilities).max() < 0.01

    def test_the_ends_of_a_recording_are_mirrored(self, key_model: KeyModel) -> None:
        chunker = windows.Chunker(key_model, RATE, None, 0.0)
        chunker._margin = 3
        samples = np.arange(10, dtype=np.float32)
        nothing = samples[:0]
        assert chunker._with_context(nothing, samples, 0, 0, 10).tolist() == [3, 2, 1, *range(10), 8, 7, 6]
        assert chunker._with_context(samples[:4], samples[4:], 0, 2, 6).tolist() == [1, *range(9)]
        assert chunker._with_context(nothing, samples[:2], 0, 0, 2).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
        assert chunker._with_context(nothing, samples[5:6], 0, 0, 1).tolist() == [5] * 7


class TestLongRecordings:
    @pytest.mark.parametrize("block", [1000, RATE, 7 * RATE + 1, 10**9])
    def test_block_boundaries_do_not_change_the_result(
        self, music: Music, analyzed: Callable[..., KeyEstimate], block: int
    ) -> None:
        samples = music("Ab major", seconds=40, cents=20)
        one, other = analyzed(samples), analyzed(samples, block=block)
        assert (one.probabilities == other.probabilities).all()
        assert one.tuning_cents == other.tuning_cents
        assert [(w.start, w.end) for w in one.windows] == [(w.start, w.end) for w in other.windows]

    @pytest.mark.parametrize("overlap", [0.0, 0.5])
    @pytest.mark.parametrize("cents", [0, -30])
    @pytest.mark.parametrize("seconds", [17.0, 31.0])
    def test_chunk_boundaries_do_not_change_the_result(
        self,
        music: Music,
        analyzed: Callable[..., KeyEstimate],
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
        cents: float,
        overlap: float,
    ) -> None:
        samples = music("Ab major", seconds=96, cents=cents)
        whole = analyzed(samples, overlap=overlap)
        monkeypatch.setattr(windows, "CHUNK_SECONDS", seconds)
        pieces = analyzed(samples, overlap=overlap)
        assert pieces.duration == whole.duration
        assert pieces.key == whole.key == Key.parse("Ab major")
        assert len(pieces.windows) == len(whole.windows)
        for one, other in zip(pieces.windows, whole.windows, strict=True):
            assert one.start == other.start
            assert one.tonal
            assert np.abs(one.probabilities - other.probabilities).max() < 0.05
        if not overlap:
            assert all(one.end == other.start for one, other in itertools.pairwise(pieces.windows))

    def test_noise_after_music_is_not_tonal(
        self,
        music: Music,
        noise: MakeNoise,
        tiny_model: MakeModel,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setattr(windows, "CHUNK_SECONDS", 20.0)
        tiny = KeyModel(tiny_model(tmp_path / "tiny.onnx"), "cpu")
        samples = np.concatenate([music(seconds=20), noise(0, 20)])
        estimate = detect_key_in_audio([samples], tiny, RATE, window_seconds=1.0)
        assert [window.tonal for window in estimate.windows] == [True] * 20 + [False] * 20

    def test_a_long_recording_takes_bounded_memory(self, music: Music, key_model: KeyModel) -> None:
        minutes = 25
        loop = music("A minor", seconds=8)

        def blocks() -> Iterator[Samples]:
            for number in range(minutes * 15):
                yield loop[4 * RATE * (number % 2) :][: 4 * RATE].copy()

        detect_key_in_audio([loop], key_model, RATE)  # so that one-time loading is not counted
        tracemalloc.start()
        try:
            estimate = detect_key_in_audio(blocks(), key_model, RATE)
            held = tracemalloc.get_traced_memory()[1] / 4 / RATE / 60
        finally:
            tracemalloc.stop()
        assert held < 11.5  # minutes of samples, the temporaries of the transforms included
        assert estimate.duration == minutes * 60
        assert estimate.key == Key.parse("A minor")
        assert estimate.windows[0].start == 0
        assert estimate.windows[-1].end > minutes * 60 - 7.5
        assert all(one.end == other.start for one, other in itertools.pairwise(estimate.windows))
        assert all(window.key == estimate.key for window in estimate.windows)
