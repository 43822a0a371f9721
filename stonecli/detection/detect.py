"""Audio + model -> KeyEstimate: windows, their average, segments, confidence, tuning.

The recording is read in stretches of five minutes, two of which are held at a time, so that a track of any length
takes the same memory. A stretch is corrected by the tuning of itself and its two neighbours; up to ten minutes that
is the tuning of the whole track. The correction and the change from the rate that was cheap to read to the model's are
one resampling.

A window is resampled with some of the music around it, for what a resampler or a transform makes of a cut is heard as
if it had been played. At the ends of a recording its mirror image is taken, which continues without a step. Where
windows begin does not depend on the tuning, which moves their ends by a few per cent about their middle: else all that
follow would lie elsewhere for a cent more or less. The last window takes what is left, and is up to twice as long as
the others: nothing is left out.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from stonecli.audio.decode import MAX_RATE, MIN_RATE, Samples, open_audio
from stonecli.audio.resample import Resampler
from stonecli.detection.pooling import recording_probabilities, together
from stonecli.detection.segments import LEAST_SEGMENT_SECONDS, Segment, find_segments
from stonecli.detection.tuning import FramePeaks, cents_of, frame_peaks
from stonecli.errors import AudioError, Cancelled
from stonecli.key import Key
from stonecli.model.metadata import ModelInfo
from stonecli.model.session import KeyModel, WindowProbabilities, default_model

DETECTION_VERSION = 11  # to be raised with every change after which the same file gives another estimate: see cache.py
STRETCH_SECONDS = 300.0
SILENCE = 1e-4  # peak of full scale 1.0: -80 dB, three steps of 16 bits
QUIET = 1e-3  # a window whose peak is 60 dB below the track's says nothing about the key
LEAST_TONAL_SHARE = 0.1  # of a window's frames; below, it is noise, drums or breath
LONGEST_SECONDS = 300.0  # of a last window, where others are nearly as long
LENGTH_STEP = 0.25  # seconds: lengths of last windows, for the runtime keeps a plan for each length that it has seen
LEAST_CORRECTION = 0.5  # cents; less is not worth a resampling
LEAST_SECONDS = 0.5  # of audio; less has no key
RESAMPLER_REACH = 64  # samples on either side that a resampler looks at, and more
MOST_STRETCHED = 2.0 ** (50 / 1200)  # a recording half a semitone too low has so much more of it in a window
BETWEEN_CENTS = 40.0  # from here on a recording lies between two semitones, and its key has two names

Floats = npt.NDArray[np.float32]
LastWindow = Literal["keep", "drop"]


@dataclass(frozen=True, eq=False)
class Window:
    """What the model says of one window.

    Attributes:
        start, end: in seconds of the recording.
        tonal: whether there is anything in it to have a key; others do not count.
        probabilities: float32 [24] by ``Key.index``.
        classes: float32 [classes], the model's raw output in its own class order.
    """

    start: float
    end: float
    tonal: bool
    probabilities: Floats
    classes: Floats

    @property
    def key(self) -> Key | None:
        """The most probable key; None where there is nothing tonal."""
        return Key.from_index(int(self.probabilities.argmax())) if self.tonal else None

    @property
    def confidence(self) -> float:
        """Probability of ``key``, 0..1; 0 without one."""
        return float(self.probabilities.max()) if self.tonal else 0.0


@dataclass(frozen=True, eq=False)
class KeyEstimate:
    """The answer for one recording.

    Attributes:
        key: the key, or None where there is none to be heard: nothing tonal (silence, noise), or nothing that the model
            is sure enough of (speech, drums; ``ModelInfo.least_confidence``).
        confidence: 0..1; 0 without a key.
        probabilities: float32 [24] by ``Key.index``, of the tonal windows together; uniform without any.
        windows: what was heard when.
        segments: the recording's keys over time; empty without a key.
        tuning_cents: deviation from A = 440 Hz, -50..50; None where nothing is tonal.
        duration: in seconds.
        tuning_confidence: 0..1, how far its frames agree on the tuning; None where that is not known.
        notes: what the user should know of the file, such as that it is shorter than its header says; a result from the
            cache has none.
    """

    key: Key | None
    confidence: float
    probabilities: Floats
    windows: tuple[Window, ...]
    segments: tuple[Segment, ...]
    tuning_cents: float | None
    duration: float
    tuning_confidence: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def first_key(self) -> Key | None:
        """The key that it begins in, to be mixed in."""
        return self.segments[0].key if self.segments else None

    @property
    def last_key(self) -> Key | None:
        """The key that it ends in, to be mixed out of."""
        return self.segments[-1].key if self.segments else None

    @property
    def other_name(self) -> Key | None:
        """The key a semitone beside ``key`` that it could be called as well, for it lies between the two."""
        if self.key is None or self.tuning_cents is None or abs(self.tuning_cents) < BETWEEN_CENTS:
            return None
        return self.key.transposed(1 if self.tuning_cents > 0 else -1)

    @property
    def alternatives(self) -> list[tuple[Key, float]]:
        """All 24 keys with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(Key.from_index(int(index)), float(self.probabilities[index])) for index in order]


def detect_key(
    path: str | os.PathLike[str],
    model: KeyModel | None = None,
    *,
    window_seconds: float | None = None,
    overlap: float = 0.0,
    least_segment: float = LEAST_SEGMENT_SECONDS,
    last_window: LastWindow = "keep",
    cancelled: Callable[[], bool] | None = None,
) -> KeyEstimate:
    """The key of the recording at ``path``.

    Args:
        path: a music file in any format that libsndfile, ffmpeg or audioread decodes.
        model: None for the one that stone carries.
        window_seconds: None for the length that the model was trained on.
        overlap: share of a window that the next one shares with it, 0 up to 0.95.
        least_segment: length in seconds of the shortest segment.
        last_window: whether the last window takes what is left of the recording (``keep``), or only whole windows are
            analyzed (``drop``), as by the published code of STONE; what is shorter than a window is analyzed as it is.
        cancelled: asked every few seconds of audio; the analysis ends early once it returns True.

    Raises:
        AudioError: the file cannot be decoded (DecoderError: no decoder for it can be started here).
        Cancelled: the analysis was ended early.
        ModelError: the model cannot be run.
        OSError: the file cannot be read.
        ValueError: a window length or overlap that makes no sense.
    """
    model = model or default_model()
    audio = open_audio(path, model.info.sample_rate)
    estimate = detect_key_in_audio(
        audio.blocks if cancelled is None else _until(cancelled, audio.blocks),
        model,
        audio.rate,
        window_seconds=window_seconds,
        overlap=overlap,
        least_segment=least_segment,
        last_window=last_window,
    )
    return replace(estimate, notes=tuple(audio.notes))


def _until(cancelled: Callable[[], bool], blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The blocks, until ``cancelled`` returns True."""
    for block in blocks:
        if cancelled():
            raise Cancelled("the analysis was ended early")
        yield block


def detect_key_in_audio(
    blocks: Iterable[Samples],
    model: KeyModel,
    rate: float,
    *,
    window_seconds: float | None = None,
    overlap: float = 0.0,
    least_segment: float = LEAST_SEGMENT_SECONDS,
    last_window: LastWindow = "keep",
) -> KeyEstimate:
    """The key of the mono blocks, each float32 [n] at ``rate``, in Hz; arguments and errors as above.

    Raises:
        ValueError: also for a rate that is not 1 kHz to 1 MHz.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"a rate is from {MIN_RATE} to {MAX_RATE} Hz, not {rate}")
    windower = _Windower(model, rate, window_seconds, overlap, last_window)
    asked = list(windower.run(blocks))  # all of it, before the first answer is waited for
    windows = [item.window() for item in asked]
    tonal = [window for window in windows if window.tonal]
    duration = windower.samples / rate
    if duration == 0:
        raise AudioError("there is no audio in it")
    uniform = np.full(24, 1 / 24, dtype=np.float32)
    if not tonal or duration < LEAST_SECONDS:
        return KeyEstimate(None, 0.0, uniform, tuple(windows), (), None, duration)
    heard = np.array([window.probabilities if window.tonal else uniform for window in windows])
    starts, ends = (np.array([getattr(window, side) for window in windows]) for side in ("start", "end"))
    weights = (ends - starts) * [window.tonal for window in windows]
    seconds = float(duration * weights.sum() / (ends - starts).sum())
    probabilities = recording_probabilities(together(heard, weights), seconds, model.info)
    # Music that changes its key is not sure of any; what has none hears little in every window.
    if np.average(heard, axis=0, weights=weights).max() < model.info.least_confidence:
        return KeyEstimate(None, 0.0, probabilities, tuple(windows), (), windower.cents, duration)
    key = Key.from_index(int(probabilities.argmax()))
    segments = find_segments(starts, ends, heard, least_segment)
    if len(segments) == 1:  # a recording without a change has one key, by whichever of the two ways it is found
        segments = (replace(segments[0], key=key, confidence=float(probabilities[key.index])),)
    else:
        number = np.searchsorted([segment.start for segment in segments[1:]], (starts + ends) / 2, side="right")
        segments = tuple(
            replace(segment, confidence=_confidence(segment, heard, weights * (number == place), model))
            for place, segment in enumerate(segments)
        )
    return KeyEstimate(
        key=key,
        confidence=float(min(1.0, probabilities[key.index])),
        probabilities=probabilities,
        windows=tuple(windows),
        segments=segments,
        tuning_cents=windower.cents,
        duration=duration,
        tuning_confidence=windower.agreement,
    )


def check_windows(info: ModelInfo, window_seconds: float | None, overlap: float) -> None:
    """Nothing, where a model can hear such windows; arguments as above.

    Raises:
        ValueError: a window length or overlap that makes no sense.
    """
    if not 0.0 <= overlap <= 0.95:
        raise ValueError(f"overlap is a share of the window from 0 to 0.95, not {overlap}")
    least = info.least_window / info.sample_rate
    if window_seconds is not None and not least <= window_seconds <= STRETCH_SECONDS:
        raise ValueError(f"a window of this model is {least:.1f} to {STRETCH_SECONDS:.0f} s long")


def _confidence(segment: Segment, heard: Floats, weights: npt.NDArray[np.float64], model: KeyModel) -> float:
    """Probability of the segment's key by the windows that have a weight."""
    if not weights.any():
        return segment.confidence
    mean = together(heard, weights)
    return float(recording_probabilities(mean, segment.end - segment.start, model.info)[segment.key.index])


@dataclass(eq=False)
class _Stretch:
    start: float  # seconds
    end: float
    samples: Samples
    peaks: FramePeaks

    def taken(self) -> Samples:
        """The samples, which are let go here: of a stretch that is done only the peaks are needed."""
        samples, self.samples = self.samples, np.zeros(0, dtype=np.float32)
        return samples


@dataclass(frozen=True, eq=False)
class _Asked:
    """A window whose probabilities may still be on their way; None where nothing in it has a key."""

    start: float
    end: float
    answer: Callable[[], WindowProbabilities] | None
    classes: int

    def window(self) -> Window:
        """The window, once the model has answered."""
        if self.answer is None:
            empty = np.full(24, 1 / 24, dtype=np.float32)
            return Window(self.start, self.end, False, empty, np.full(self.classes, 1 / self.classes, dtype=np.float32))
        heard = self.answer()
        return Window(self.start, self.end, True, heard.keys[0], heard.classes[0])


class _Windower:
    """Cuts a recording into windows, corrects and scales each, and asks the model."""

    def __init__(
        self,
        model: KeyModel,
        rate: float,
        window_seconds: float | None,
        overlap: float,
        last_window: LastWindow = "keep",
    ) -> None:
        info = model.info
        self._keeps_last = last_window == "keep"
        check_windows(info, window_seconds, overlap)
        self._model = model
        self._rate = rate
        self._window = info.window_samples if window_seconds is None else round(window_seconds * info.sample_rate)
        self._context = info.context_samples
        self._size = round(self._window * rate / info.sample_rate)  # of the recording
        self._step = max(1, round(self._size * (1.0 - overlap)))
        most = (self._window / 2 + self._context) * MOST_STRETCHED - self._window / 2
        self._margin = math.ceil(most * rate / info.sample_rate) + RESAMPLER_REACH
        self._level = 0.0
        self._direction = 0j
        self._strength = 0.0
        self.samples = 0

    @property
    def cents(self) -> float | None:
        """Tuning of all that was read, in cents; None where nothing was tonal."""
        return cents_of(self._direction)

    @property
    def agreement(self) -> float | None:
        """How far the frames agree on the tuning, 0..1; None where nothing was tonal."""
        return min(1.0, abs(self._direction) / self._strength) if self._strength else None

    def run(self, blocks: Iterable[Samples]) -> Iterator[_Asked]:
        """The windows in order; after the last one, ``samples`` and ``cents`` speak of the whole recording."""
        before: _Stretch | None = None
        held, base = np.zeros(0, dtype=np.float32), 0  # of the stretches before, from sample number ``base`` on
        start = 0  # of the next window
        for stretch, after in _with_next(self._stretches(blocks)):
            around = [part for part in (before, stretch, after) if part is not None]
            resampler = Resampler(self._rate, self._corrected_rate(around))
            samples = stretch.taken()
            end = base + len(held) + len(samples)
            last = after is None
            # What is left need not be quite a window, or a sample that is rounded away would double the last one.
            after_it = self._step - self._size // 100 if self._keeps_last else 0
            while start + self._size + (after_it if last else max(self._step, self._margin)) <= end:
                # No name for the piece: it may be a view, which would keep the stretch.
                yield self._ask(
                    self._surrounded(held, samples, base, start, start + self._size), start, resampler, around
                )
                start += self._step
            if last and end > start and (self._keeps_last or start == 0):
                parts = math.ceil((end - start) / max(self._size, LONGEST_SECONDS * self._rate))
                cuts = [start + (end - start) * part // parts for part in range(parts + 1)]
                for one, other in itertools.pairwise(cuts):
                    yield self._ask(self._surrounded(held, samples, base, one, other), one, resampler, around)
            kept = max(base, start - self._margin)
            held, base = _joined(held, samples, kept - base, end - base).copy(), kept  # as above
            before = stretch
            del samples

    def _stretches(self, blocks: Iterable[Samples]) -> Iterator[_Stretch]:
        """The blocks joined to stretches; the level and the tuning up to here are kept on the way."""
        wanted = round(STRETCH_SECONDS * self._rate)
        for samples in _gathered(blocks, wanted):
            start, self.samples = self.samples, self.samples + len(samples)
            peaks = frame_peaks(samples, self._rate)
            self._level = max(self._level, _peak(samples))
            self._direction += peaks.total
            self._strength += peaks.strength
            stretch = _Stretch(start / self._rate, self.samples / self._rate, samples, peaks)
            del samples
            yield stretch

    def _corrected_rate(self, around: list[_Stretch]) -> float:
        """What the samples are to be resampled to, in Hz: above the model's rate for a recording that is too high."""
        rate = float(self._model.info.sample_rate)
        if not self._model.info.corrects_tuning:
            return rate
        cents = cents_of(sum(stretch.peaks.total for stretch in around)) or 0.0
        return rate if abs(cents) < LEAST_CORRECTION else rate * 2.0 ** (cents / 1200.0)

    def _surrounded(self, held: Samples, samples: Samples, base: int, start: int, end: int) -> Samples:
        """From ``start`` to ``end`` and a margin on either side, mirrored where the recording has no more."""
        first, last = max(0, start - self._margin), end + self._margin
        piece = _joined(held, samples, first - base, last - base)
        missing = (self._margin - (start - first), last - first - len(piece))
        return np.pad(piece, missing, mode="reflect") if any(missing) else piece

    def _ask(self, piece: Samples, position: int, resampler: Resampler, around: list[_Stretch]) -> _Asked:
        """The model, asked about what lies between the margins of ``piece``, resampled.

        It is repeated to a window's length where it is shorter than anything that the model can be given.
        """
        length = len(piece) - 2 * self._margin
        start, end = position / self._rate, (position + length) / self._rate
        classes = len(self._model.info.classes)
        level = _peak(piece[self._margin : self._margin + length])
        audible = level > SILENCE and level > QUIET * self._level
        if not audible or _tonal_share(around, start, end) < LEAST_TONAL_SHARE:
            return _Asked(start, end, None, classes)
        scaled = resampler(piece / np.float32(self._level))
        ratio = resampler.ratio
        inside = self._window if length == self._size else round(length * ratio)
        if inside >= self._model.info.least_window:
            if length != self._size and self._keeps_last:
                step = round(LENGTH_STEP * self._model.info.sample_rate)
                inside = max(self._model.info.least_window, inside // step * step)
            first = round((self._margin + length / 2) * ratio - inside / 2) - self._context
            window = scaled[first : first + inside + 2 * self._context]
        else:
            first = round(self._margin * ratio)
            heard = np.resize(scaled[first : first + max(1, inside)], self._window + self._context)
            window = np.concatenate([scaled[first - self._context : first], heard])
        return _Asked(start, end, self._model.listen(window), classes)


def _tonal_share(stretches: list[_Stretch], start: float, end: float) -> float:
    """Share of the frames between ``start`` and ``end`` (seconds) that are tonal, 0..1."""
    frames = [
        stretch.peaks.tonal_between(start - stretch.start, end - stretch.start)
        for stretch in stretches
        if stretch.start < end and start < stretch.end
    ]
    return float(np.concatenate(frames).mean())


def _peak(samples: Samples) -> float:
    """Largest absolute value; without an array of them."""
    return max(float(samples.max()), -float(samples.min()))


def _joined(first: Samples, second: Samples, start: int, end: int) -> Samples:
    """What lies from ``start`` to ``end`` in the two arrays laid end to end; a view where one of them holds it all."""
    if start >= len(first):
        return second[start - len(first) : end - len(first)]
    return np.concatenate([first[start:end], second[: max(0, end - len(first))]])


def _gathered(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """The samples of ``blocks``, ``size`` at a time; the last ones may be fewer, but not none."""
    gathered, held = np.empty(size, dtype=np.float32), 0
    for block in blocks:
        done = 0
        while done < len(block):
            count = min(size - held, len(block) - done)
            gathered[held : held + count] = block[done : done + count]
            held, done = held + count, done + count
            if held == size:
                yield gathered
                gathered, held = np.empty(size, dtype=np.float32), 0
    if held:
        yield gathered[:held]


def _with_next(stretches: Iterator[_Stretch]) -> Iterator[tuple[_Stretch, _Stretch | None]]:
    """Each stretch with the one after it."""
    current: _Stretch | None = None
    for stretch in stretches:
        if current is not None:
            yield current, stretch
        current = stretch
    if current is not None:
        yield current, None
