"""Cut the windows of a recording, resample them and submit them to the model, in bounded memory.

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
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stonecli.audio.channels import Samples
from stonecli.audio.resample import Resampler
from stonecli.detection.estimate import Window
from stonecli.detection.tuning import FramePeaks, cents_of, frame_peaks
from stonecli.model.metadata import ModelInfo
from stonecli.model.session import KeyModel, WindowProbabilities

CHUNK_SECONDS = 300.0
SILENCE = 1e-4  # peak, relative to full scale: -80 dB, three steps of 16 bits
QUIET = 1e-3  # a window with a peak 60 dB below that of the track has no information about the key
MIN_TONAL_SHARE = 0.1  # of the frames of a window; a window with less is noise, drums or breath
MAX_LAST_WINDOW_SECONDS = 300.0  # a longer last window is divided
LENGTH_STEP = 0.25  # seconds; last windows are rounded to it, because the runtime caches a plan per input length
MIN_CORRECTION_CENTS = 0.5  # smaller tunings are not corrected
RESAMPLER_REACH = 64  # samples; at least the half-length of any resampling filter used here
MAX_TUNING_RATIO = 2.0 ** (50 / 1200)  # a window half a semitone flat takes this much more of the recording

LastWindow = Literal["keep", "drop"]


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
class PendingWindow:
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


class Chunker:
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

    def run(self, blocks: Iterable[Samples]) -> Iterator[PendingWindow]:
        """The windows in order; after the last one, ``samples`` and ``cents`` describe the whole recording."""
        before: _Chunk | None = None
        buffered = np.zeros(0, dtype=np.float32)  # the end of the earlier chunks
        base = 0  # index of its first sample in the recording
        start = 0  # index of the first sample of the next window
        for chunk, after in _with_lookahead(self._chunks(blocks)):
            around = [part for part in (before, chunk, after) if part is not None]
            resampler = Resampler(self._rate, self._corrected_rate(around))
            samples = chunk.release_samples()
            end = base + len(buffered) + len(samples)
            last = after is None
            # A rest of 99 % of a window is a window; otherwise a sample lost in rounding would double the last window.
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

    def _submit(self, window: Samples, position: int, resampler: Resampler, around: list[_Chunk]) -> PendingWindow:
        """Resample the window, given with its margins, and submit it to the model.

        Audio that is too short for the model is repeated to the length of a window.
        """
        length = len(window) - 2 * self._margin
        start, end = position / self._rate, (position + length) / self._rate
        classes = len(self._model.info.classes)
        level = _peak(window[self._margin : self._margin + length])
        audible = level > SILENCE and level > QUIET * self._level
        if not audible or _tonal_share(around, start, end) < MIN_TONAL_SHARE:
            return PendingWindow(start, end, None, classes)
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
        return PendingWindow(start, end, self._model.submit(audio), classes)


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
