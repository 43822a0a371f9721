"""Detect the key of a recording: windows, pooled posterior, segments, confidence and tuning.

The recording is read in chunks of five minutes. Two chunks are buffered at a time, so memory does not grow with the
length of the track. A chunk is corrected by the tuning of itself and its two neighbors; up to ten minutes, that is the
tuning of the whole track. One resampling corrects the tuning and changes the rate to that of the model.

A window is resampled with context on either side, because the resampler and the transform have artifacts at the edges
of their input. At the ends of the recording the context is its reflection, which has no step. The start of a window
does not depend on the tuning: the tuning scales the window by a few per cent about its center. Otherwise a difference
of one cent would shift all later windows. The last window contains the rest of the recording and is up to twice as long
as the others, so that all audio is analyzed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stonecli.audio.decode import MAX_RATE, MIN_RATE, Samples, open_audio
from stonecli.audio.resample import Resampler
from stonecli.detection.pooling import pooled_posterior, recording_probabilities
from stonecli.detection.segments import MIN_SEGMENT_SECONDS, Segment, find_segments
from stonecli.detection.tuning import FramePeaks, cents_of, frame_peaks
from stonecli.errors import AudioError, Cancelled
from stonecli.key import Key
from stonecli.library.music_file import MusicFile, Source
from stonecli.model.metadata import ModelInfo
from stonecli.model.session import KeyModel, WindowProbabilities, default_model

if TYPE_CHECKING:
    from stonecli.tempo.estimate import TempoEstimate, TempoMeter

DETECTION_VERSION = 11  # increase it with every change that alters estimates: it invalidates the result cache
CHUNK_SECONDS = 300.0
SILENCE = 1e-4  # peak, relative to full scale: -80 dB, three steps of 16 bits
QUIET = 1e-3  # a window with a peak 60 dB below that of the track has no information about the key
MIN_TONAL_SHARE = 0.1  # of the frames of a window; a window with less is noise, drums or breath
MAX_LAST_WINDOW_SECONDS = 300.0  # a longer last window is divided
LENGTH_STEP = 0.25  # seconds; last windows are rounded to it, because the runtime caches a plan per input length
MIN_CORRECTION_CENTS = 0.5  # smaller tunings are not corrected
MIN_SECONDS = 0.5  # shorter audio has no key
RESAMPLER_REACH = 64  # samples; at least the half-length of any resampling filter used here
MAX_TUNING_RATIO = 2.0 ** (50 / 1200)  # a window half a semitone flat takes this much more of the recording
AMBIGUOUS_CENTS = 40.0  # from here on a recording is between two semitones, and its key has two names

Floats = npt.NDArray[np.float32]
LastWindow = Literal["keep", "drop"]


@dataclass(frozen=True, eq=False)
class Window:
    """The estimate for one window.

    Attributes:
        start, end: position in the recording in seconds.
        tonal: whether the window has tonal content; windows without are ignored.
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
        """The most probable key; None if the window is not tonal."""
        return Key.from_index(int(self.probabilities.argmax())) if self.tonal else None

    @property
    def confidence(self) -> float:
        """Probability of ``key``, 0..1; 0 without one."""
        return float(self.probabilities.max()) if self.tonal else 0.0


@dataclass(frozen=True, eq=False)
class KeyEstimate:
    """The estimate for one recording.

    Attributes:
        key: the key; None if nothing is tonal (silence, noise), or if the mean probability is below the rejection
            threshold (speech, drums; ``ModelInfo.rejection_threshold``).
        confidence: 0..1; 0 without a key.
        probabilities: float32 [24] by ``Key.index``, pooled over the tonal windows; uniform if there are none.
        windows: the estimates of the windows, in order.
        segments: the keys of the recording over time; empty without a key.
        tuning_cents: deviation from A = 440 Hz, -50..50; None if nothing is tonal.
        duration: in seconds.
        tuning_confidence: mean resultant length of the tuning, 0..1: 1 if all frames agree; None if unknown.
        notes: warnings about the file for the user, such as a wrong duration in its header; empty for results from the
            cache.
        tempo: the tempo; None if it was not asked for.
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
    tempo: TempoEstimate | None = None

    @property
    def first_key(self) -> Key | None:
        """Key of the first segment, for mixing in."""
        return self.segments[0].key if self.segments else None

    @property
    def last_key(self) -> Key | None:
        """Key of the last segment, for mixing out."""
        return self.segments[-1].key if self.segments else None

    @property
    def other_name(self) -> Key | None:
        """The key a semitone from ``key`` that fits nearly as well, if the tuning is between the two; else None."""
        if self.key is None or self.tuning_cents is None or abs(self.tuning_cents) < AMBIGUOUS_CENTS:
            return None
        return self.key.transposed(1 if self.tuning_cents > 0 else -1)

    @property
    def alternatives(self) -> list[tuple[Key, float]]:
        """All 24 keys with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(Key.from_index(int(index)), float(self.probabilities[index])) for index in order]


def detect_key(
    path: Source,
    model: KeyModel | None = None,
    *,
    window_seconds: float | None = None,
    overlap: float = 0.0,
    min_segment: float = MIN_SEGMENT_SECONDS,
    last_window: LastWindow = "keep",
    tempo: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> KeyEstimate:
    """The key of the recording at ``path``.

    Args:
        path: a music file, or an open one, in any format that libsndfile, ffmpeg or audioread decodes.
        model: the model to run; None for the built-in one.
        window_seconds: duration of a window; None for that of the model's training.
        overlap: overlap between consecutive windows as a share of their length, 0 to 0.95.
        min_segment: minimum duration of a segment in seconds.
        last_window: ``keep``: the last window contains the rest of the recording; ``drop``: only whole windows are
            analyzed, as in the published code of STONE. A recording shorter than a window is always analyzed.
        tempo: estimate the tempo, too, in the same pass.
        cancelled: called every few seconds of audio; the analysis stops when it returns True.

    Raises:
        AudioError: the file cannot be decoded (DecoderError: no decoder for it can be started here).
        Cancelled: ``cancelled`` returned True.
        ModelError: the model cannot be run.
        OSError: the file cannot be read.
        ValueError: the window length or overlap is out of range.
    """
    model = model or default_model()
    name, file = (path.path, path.file) if isinstance(path, MusicFile) else (path, None)
    audio = open_audio(name, model.info.sample_rate, file)
    blocks = audio.blocks if cancelled is None else _until(cancelled, audio.blocks)
    meter: TempoMeter | None = None
    if tempo:
        from stonecli.tempo.estimate import TempoMeter  # imported late: detecting the key alone must not wait for it

        meter = TempoMeter(audio.rate)
        blocks = meter.tap(blocks)
    estimate = detect_key_in_audio(
        blocks,
        model,
        audio.rate,
        window_seconds=window_seconds,
        overlap=overlap,
        min_segment=min_segment,
        last_window=last_window,
    )
    return replace(estimate, notes=tuple(audio.notes), tempo=meter.estimate() if meter else None)


def _until(cancelled: Callable[[], bool], blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The blocks, until ``cancelled`` returns True."""
    for block in blocks:
        if cancelled():
            raise Cancelled("the analysis was cancelled")
        yield block


def detect_key_in_audio(
    blocks: Iterable[Samples],
    model: KeyModel,
    rate: float,
    *,
    window_seconds: float | None = None,
    overlap: float = 0.0,
    min_segment: float = MIN_SEGMENT_SECONDS,
    last_window: LastWindow = "keep",
) -> KeyEstimate:
    """The key of mono blocks, each float32 [n] at ``rate`` in Hz; other arguments and errors as :func:`detect_key`.

    Raises:
        ValueError: also if the rate is not 1 kHz to 1 MHz.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"the sample rate must be {MIN_RATE} to {MAX_RATE} Hz, not {rate}")
    chunker = _Chunker(model, rate, window_seconds, overlap, last_window)
    pending = list(chunker.run(blocks))  # submits all windows before it waits for the first result
    windows = [window.result() for window in pending]
    tonal = [window for window in windows if window.tonal]
    duration = chunker.samples / rate
    if duration == 0:
        raise AudioError("it contains no audio")
    uniform = np.full(24, 1 / 24, dtype=np.float32)
    if not tonal or duration < MIN_SECONDS:
        return KeyEstimate(None, 0.0, uniform, tuple(windows), (), None, duration)
    posteriors = np.array([window.probabilities if window.tonal else uniform for window in windows])
    starts, ends = (np.array([getattr(window, side) for window in windows]) for side in ("start", "end"))
    weights = (ends - starts) * [window.tonal for window in windows]
    seconds = float(duration * weights.sum() / (ends - starts).sum())
    probabilities = recording_probabilities(pooled_posterior(posteriors, weights), seconds, model.info)
    # The arithmetic mean, not the pooled posterior: that is low for all keys if the music changes its key.
    if np.average(posteriors, axis=0, weights=weights).max() < model.info.rejection_threshold:
        return KeyEstimate(None, 0.0, probabilities, tuple(windows), (), chunker.cents, duration)
    key = Key.from_index(int(probabilities.argmax()))
    segments = find_segments(starts, ends, posteriors, min_segment)
    if len(segments) == 1:  # without a key change, the segment has the key of the recording
        segments = (replace(segments[0], key=key, confidence=float(probabilities[key.index])),)
    else:
        segments = _with_confidences(segments, (starts + ends) / 2, posteriors, weights, model)
    return KeyEstimate(
        key=key,
        confidence=float(min(1.0, probabilities[key.index])),
        probabilities=probabilities,
        windows=tuple(windows),
        segments=segments,
        tuning_cents=chunker.cents,
        duration=duration,
        tuning_confidence=chunker.mean_resultant_length,
    )


def check_windows(info: ModelInfo, window_seconds: float | None, overlap: float) -> None:
    """Raise if a model cannot analyze such windows; arguments as :func:`detect_key`.

    Raises:
        ValueError: the window length or overlap is out of range.
    """
    if not 0.0 <= overlap <= 0.95:
        raise ValueError(f"overlap must be 0 to 0.95 of a window, not {overlap}")
    shortest = info.min_window_samples / info.sample_rate
    if window_seconds is not None and not shortest <= window_seconds <= CHUNK_SECONDS:
        limits = f"{shortest:.1f} to {CHUNK_SECONDS:.0f} s long with this model"
        raise ValueError(f"window must be {limits}, not {window_seconds:g}")


def _with_confidences(
    segments: tuple[Segment, ...],
    centers: npt.NDArray[np.float64],
    posteriors: Floats,
    weights: npt.NDArray[np.float64],
    model: KeyModel,
) -> tuple[Segment, ...]:
    """The segments with the confidence of each, from the windows whose ``centers`` (seconds) are in it."""
    number = np.searchsorted([segment.start for segment in segments[1:]], centers, side="right")
    return tuple(
        replace(segment, confidence=_confidence(segment, posteriors, weights * (number == index), model))
        for index, segment in enumerate(segments)
    )


def _confidence(segment: Segment, posteriors: Floats, weights: npt.NDArray[np.float64], model: KeyModel) -> float:
    """Probability of the segment's key, pooled over the windows with a weight above zero."""
    if not weights.any():
        return segment.confidence
    mean = pooled_posterior(posteriors, weights)
    return float(recording_probabilities(mean, segment.end - segment.start, model.info)[segment.key.index])


@dataclass(eq=False)
class _Chunk:
    start: float  # seconds
    end: float
    samples: Samples
    peaks: FramePeaks

    def release_samples(self) -> Samples:
        """The samples, without keeping them: afterwards only the peaks are needed."""
        samples, self.samples = self.samples, np.zeros(0, dtype=np.float32)
        return samples


@dataclass(frozen=True, eq=False)
class _PendingWindow:
    """A window submitted to the model; ``probabilities`` is None if it is not tonal and so was not submitted."""

    start: float
    end: float
    probabilities: Callable[[], WindowProbabilities] | None
    classes: int

    def result(self) -> Window:
        """The estimate of the window; waits for the model."""
        if self.probabilities is None:
            empty = np.full(24, 1 / 24, dtype=np.float32)
            return Window(self.start, self.end, False, empty, np.full(self.classes, 1 / self.classes, dtype=np.float32))
        found = self.probabilities()
        return Window(self.start, self.end, True, found.keys[0], found.classes[0])


class _Chunker:
    """Reads a recording in chunks, cuts windows out of them, resamples and scales each, and submits it to the model."""

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
        self._size = round(self._window * rate / info.sample_rate)  # samples of the recording per window
        self._step = max(1, round(self._size * (1.0 - overlap)))
        largest = (self._window / 2 + self._context) * MAX_TUNING_RATIO - self._window / 2
        self._margin = math.ceil(largest * rate / info.sample_rate) + RESAMPLER_REACH
        self._level = 0.0
        self._resultant = 0j
        self._total_length = 0.0
        self.samples = 0

    @property
    def cents(self) -> float | None:
        """Tuning of the audio read so far, in cents; None if nothing was tonal."""
        return cents_of(self._resultant)

    @property
    def mean_resultant_length(self) -> float | None:
        """How well the frames agree on the tuning, 0..1; None if nothing was tonal."""
        return min(1.0, abs(self._resultant) / self._total_length) if self._total_length else None

    def run(self, blocks: Iterable[Samples]) -> Iterator[_PendingWindow]:
        """The windows in order; after the last one, ``samples`` and ``cents`` describe the whole recording."""
        before: _Chunk | None = None
        buffered, base = (
            np.zeros(0, dtype=np.float32),
            0,
        )  # end of the earlier chunks, and the index of its first sample
        start = 0  # index of the first sample of the next window
        for chunk, after in _with_lookahead(self._chunks(blocks)):
            around = [part for part in (before, chunk, after) if part is not None]
            resampler = Resampler(self._rate, self._corrected_rate(around))
            samples = chunk.release_samples()
            end = base + len(buffered) + len(samples)
            last = after is None
            # A rest of 99 % of a window is a window: else one sample lost in rounding would double the last window.
            min_rest = self._step - self._size // 100 if self._keeps_last else 0
            while start + self._size + (min_rest if last else max(self._step, self._margin)) <= end:
                # The window is not assigned to a variable: it may be a view, which would keep the chunk in memory.
                yield self._submit(
                    self._with_context(buffered, samples, base, start, start + self._size), start, resampler, around
                )
                start += self._step
            if last and end > start and (self._keeps_last or start == 0):
                parts = math.ceil((end - start) / max(self._size, MAX_LAST_WINDOW_SECONDS * self._rate))
                cuts = [start + (end - start) * part // parts for part in range(parts + 1)]
                for first, stop in itertools.pairwise(cuts):
                    yield self._submit(
                        self._with_context(buffered, samples, base, first, stop), first, resampler, around
                    )
            kept = max(base, start - self._margin)
            buffered, base = _concatenated(buffered, samples, kept - base, end - base).copy(), kept  # a copy, as above
            before = chunk
            del samples

    def _chunks(self, blocks: Iterable[Samples]) -> Iterator[_Chunk]:
        """The blocks, rechunked; updates the level and the tuning."""
        for samples in _rechunked(blocks, round(CHUNK_SECONDS * self._rate)):
            start, self.samples = self.samples, self.samples + len(samples)
            peaks = frame_peaks(samples, self._rate)
            self._level = max(self._level, _peak(samples))
            self._resultant += peaks.resultant
            self._total_length += peaks.total_length
            chunk = _Chunk(start / self._rate, self.samples / self._rate, samples, peaks)
            del samples
            yield chunk

    def _corrected_rate(self, around: list[_Chunk]) -> float:
        """The rate in Hz to resample to: above the model's rate for a recording that is sharp."""
        rate = float(self._model.info.sample_rate)
        if not self._model.info.corrects_tuning:
            return rate
        cents = cents_of(sum(chunk.peaks.resultant for chunk in around)) or 0.0
        return rate if abs(cents) < MIN_CORRECTION_CENTS else rate * 2.0 ** (cents / 1200.0)

    def _with_context(self, buffered: Samples, samples: Samples, base: int, start: int, end: int) -> Samples:
        """Samples ``start`` to ``end`` with a margin on either side; reflected at the ends of the recording."""
        first, last = max(0, start - self._margin), end + self._margin
        window = _concatenated(buffered, samples, first - base, last - base)
        missing = (self._margin - (start - first), last - first - len(window))
        return np.pad(window, missing, mode="reflect") if any(missing) else window

    def _submit(self, window: Samples, position: int, resampler: Resampler, around: list[_Chunk]) -> _PendingWindow:
        """Resample the window, given with its margins, and submit it to the model.

        Audio that is too short for the model is repeated to the length of a window.
        """
        length = len(window) - 2 * self._margin
        start, end = position / self._rate, (position + length) / self._rate
        classes = len(self._model.info.classes)
        level = _peak(window[self._margin : self._margin + length])
        audible = level > SILENCE and level > QUIET * self._level
        if not audible or _tonal_share(around, start, end) < MIN_TONAL_SHARE:
            return _PendingWindow(start, end, None, classes)
        scaled = resampler(window / np.float32(self._level))
        ratio = resampler.ratio
        inside = self._window if length == self._size else round(length * ratio)
        if inside >= self._model.info.min_window_samples:
            if length != self._size and self._keeps_last:
                step = round(LENGTH_STEP * self._model.info.sample_rate)
                inside = max(self._model.info.min_window_samples, inside // step * step)
            first = round((self._margin + length / 2) * ratio - inside / 2) - self._context
            audio = scaled[first : first + inside + 2 * self._context]
        else:
            first = round(self._margin * ratio)
            repeated = np.resize(scaled[first : first + max(1, inside)], self._window + self._context)
            audio = np.concatenate([scaled[first - self._context : first], repeated])
        return _PendingWindow(start, end, self._model.submit(audio), classes)


def _tonal_share(chunks: list[_Chunk], start: float, end: float) -> float:
    """Share of the frames between ``start`` and ``end`` (seconds) that are tonal, 0..1."""
    frames = [
        chunk.peaks.tonal_between(start - chunk.start, end - chunk.start)
        for chunk in chunks
        if chunk.start < end and start < chunk.end
    ]
    return float(np.concatenate(frames).mean())


def _peak(samples: Samples) -> float:
    """Largest absolute value, computed without a temporary array."""
    return max(float(samples.max()), -float(samples.min()))


def _concatenated(first: Samples, second: Samples, start: int, end: int) -> Samples:
    """Samples ``start`` to ``end`` of the two arrays concatenated; a view if all of them are in ``second``."""
    if start >= len(first):
        return second[start - len(first) : end - len(first)]
    return np.concatenate([first[start:end], second[: max(0, end - len(first))]])


def _rechunked(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """The samples of ``blocks`` in arrays of ``size``; the last one may be shorter, but is never empty."""
    chunk, filled = np.empty(size, dtype=np.float32), 0
    for block in blocks:
        done = 0
        while done < len(block):
            count = min(size - filled, len(block) - done)
            chunk[filled : filled + count] = block[done : done + count]
            filled, done = filled + count, done + count
            if filled == size:
                yield chunk
                chunk, filled = np.empty(size, dtype=np.float32), 0
    if filled:
        yield chunk[:filled]


def _with_lookahead(chunks: Iterator[_Chunk]) -> Iterator[tuple[_Chunk, _Chunk | None]]:
    """Each chunk with the next one."""
    current: _Chunk | None = None
    for chunk in chunks:
        if current is not None:
            yield current, chunk
        current = chunk
    if current is not None:
        yield current, None
