"""Detect the key of a recording: pooled posterior of its windows, segments, confidence and tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples
from stonecli.audio.decode import open_audio
from stonecli.audio.source import MAX_RATE, MIN_RATE
from stonecli.detection.estimate import Floats, KeyEstimate
from stonecli.detection.pooling import pooled_posterior, recording_probabilities
from stonecli.detection.segments import MIN_SEGMENT_SECONDS, Segment, find_segments
from stonecli.detection.windows import Chunker, LastWindow
from stonecli.errors import AudioError, Cancelled
from stonecli.key import Key
from stonecli.library.music_file import MusicFile, Source
from stonecli.model.session import KeyModel, default_model

if TYPE_CHECKING:
    from stonecli.tempo.estimate import TempoMeter

DETECTION_VERSION = 11  # increase it with every change that alters estimates: it invalidates the result cache
MIN_SECONDS = 0.5  # shorter audio has no key


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
    chunker = Chunker(model, rate, window_seconds, overlap, last_window)
    pending = list(chunker.run(blocks))  # submits all windows before it waits for the first result
    windows = [window.result() for window in pending]
    tonal = [window for window in windows if window.tonal]
    duration = chunker.samples / rate
    if duration == 0:
        raise AudioError("the file contains no audio")
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
