"""Estimates as bytes for the result cache, each with a checksum, because SQLite does not detect a flipped bit."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from stonecli.detection.estimate import KeyEstimate
from stonecli.detection.segments import Segment
from stonecli.key import Key

if TYPE_CHECKING:
    from stonecli.tempo.estimate import TempoEstimate

# key (-1: none), confidence, tuning and its confidence (nan: none), duration, 24 probabilities
_HEAD = struct.Struct("<bdddd24f")
_SEGMENT = struct.Struct("<bddd")  # key, start, end, confidence
_TEMPO = struct.Struct("<dddd")  # beats per minute and alternative (nan: none), confidence, stability


def encode_estimate(estimate: KeyEstimate) -> bytes:
    """The estimate without its windows, notes and tempo, as bytes with a checksum."""
    key = -1 if estimate.key is None else estimate.key.index
    tuning, agreement = (
        float("nan") if number is None else number for number in (estimate.tuning_cents, estimate.tuning_confidence)
    )
    probabilities = map(float, estimate.probabilities)
    segments = (
        _SEGMENT.pack(segment.key.index, segment.start, segment.end, segment.confidence)
        for segment in estimate.segments
    )
    head = _HEAD.pack(key, estimate.confidence, tuning, agreement, estimate.duration, *probabilities)
    data = head + b"".join(segments)
    return zlib.crc32(data).to_bytes(4) + data


def decode_estimate(data: bytes) -> KeyEstimate | None:
    """The estimate; None if the record is damaged."""
    try:
        checksum, data = data[:4], data[4:]
        if zlib.crc32(data).to_bytes(4) != checksum:
            return None
        key, confidence, tuning, agreement, duration, *probabilities = _HEAD.unpack_from(data)
        segments = tuple(
            Segment(start, end, Key.from_index(index), share)
            for index, start, end, share in _SEGMENT.iter_unpack(data[_HEAD.size :])
        )
        return KeyEstimate(
            key=None if key < 0 else Key.from_index(key),
            confidence=confidence,
            probabilities=np.array(probabilities, dtype=np.float32),
            windows=(),
            segments=segments,
            tuning_cents=None if tuning != tuning else tuning,  # nan
            duration=duration,
            tuning_confidence=None if agreement != agreement else agreement,
        )
    except (struct.error, TypeError, ValueError, IndexError):
        return None


def encode_tempo(tempo: TempoEstimate) -> bytes:
    """The tempo as bytes with a checksum."""
    bpm, alternative = (float("nan") if value is None else value for value in (tempo.bpm, tempo.alternative))
    data = _TEMPO.pack(bpm, alternative, tempo.confidence, tempo.stability)
    return zlib.crc32(data).to_bytes(4) + data


def decode_tempo(data: bytes) -> TempoEstimate | None:
    """The tempo; None if the record is damaged."""
    from stonecli.tempo.estimate import TempoEstimate

    try:
        if zlib.crc32(data[4:]).to_bytes(4) != data[:4]:
            return None
        bpm, alternative, confidence, stability = _TEMPO.unpack(data[4:])
    except (struct.error, TypeError):
        return None
    return TempoEstimate(
        bpm if bpm == bpm else None,  # not nan
        confidence,
        alternative if alternative == alternative else None,
        stability,
    )
