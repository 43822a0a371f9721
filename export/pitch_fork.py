"""The pitch fork: finds the class order of a model, with synthesized music in known keys.

STONE is trained without labels, so the index of C major among its outputs is unknown; the paper finds it with one
recording in C major, the pitch fork (ISMIR 2024, section 4.3). Here the fork is synthesized: a cadence with a scale
above it, in several registers and timbres, in all 12 major keys and, for a model of 24 keys, in all 12 minor keys. One
key would not suffice: a network may have learned only some keys, and its two rows may have different offsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from stonecli.errors import StoneError
from stonecli.key import Key, Mode

Floats = npt.NDArray[np.float32]
Predict = Callable[[Floats], npt.NDArray[np.floating]]
"""Audio float32 [batch, samples] -> probabilities [batch, classes]."""

MIN_CORRECT = 0.75  # minimum share of the keys that the order must explain
MIN_RATIO = 1.5  # minimum ratio of the mean probability with this order to that with the second best

# Intervals of the chords above the tonic, in root position; the dominant of a minor key is major.
_CADENCES: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "major": ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7), (9, 12, 16), (2, 5, 9), (7, 11, 14, 17), (0, 4, 7)),
    "minor": ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7), (8, 12, 15), (5, 8, 12), (7, 11, 14, 17), (0, 3, 7)),
}
_SCALES: dict[Mode, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11, 12), "minor": (0, 2, 3, 5, 7, 8, 11, 12)}


class ClassOrderError(StoneError):
    """The model does not distinguish keys, or its class order is not the stated one; it is not exported."""


@dataclass(frozen=True)
class _Timbre:
    partials: tuple[float, ...]  # amplitude of each harmonic
    decay: float  # exponential decay rate of the amplitude, per second
    octave: int  # MIDI pitch of the lowest C of the chords
    melody_octave: int  # the same of the melody


_TIMBRES = (
    _Timbre(tuple(1 / n for n in range(1, 9)), decay=0.3, octave=48, melody_octave=72),  # strings
    _Timbre((1.0, 0.6, 0.35, 0.25, 0.12, 0.08), decay=2.5, octave=60, melody_octave=72),  # piano
    _Timbre((1.0, 0.0, 0.35, 0.0, 0.2, 0.0, 0.1), decay=0.8, octave=48, melody_octave=60),  # clarinets
)


def play_key(key: Key, timbre: int, seconds: float, sample_rate: int) -> Floats:
    """A cadence in ``key`` with its scale above and its roots below, float32 [samples], peak 1.

    Args:
        key: key of the cadence.
        timbre: 0, 1 or 2, which selects register and spectrum.
        seconds: length in seconds; the cadence is repeated.
        sample_rate: sample rate in Hz.
    """
    sound = _TIMBRES[timbre]
    total = round(seconds * sample_rate)
    beat = 0.5
    out = np.zeros(total + 4 * sample_rate)
    cadence, scale = _CADENCES[key.mode], _SCALES[key.mode]
    for step in range(math.ceil(seconds / beat)):
        chord = cadence[step // 2 % len(cadence)]
        notes = [sound.melody_octave + key.tonic + scale[step % 8 if step % 16 < 8 else 7 - step % 8]]
        if step % 2 == 0:
            notes += [sound.octave + key.tonic + degree for degree in chord]
            notes += [sound.octave - 12 + key.tonic + chord[0]]
        for note in notes:
            tone = _tone(note, sound, 2 * beat, sample_rate)
            start = round(step * beat * sample_rate)
            out[start : start + len(tone)] += tone
    out = out[:total]
    scaled: Floats = (out / np.abs(out).max()).astype(np.float32)
    return scaled


@lru_cache(maxsize=256)  # all keys use the same few notes
def _tone(note: int, sound: _Timbre, seconds: float, sample_rate: int) -> npt.NDArray[np.float64]:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    frequency = 440.0 * 2.0 ** ((note - 69) / 12)
    waves = [
        amplitude * np.sin(2 * np.pi * harmonic * frequency * time)
        for harmonic, amplitude in enumerate(sound.partials, start=1)
        if harmonic * frequency < 0.45 * sample_rate
    ]
    envelope = np.minimum(1.0, time / 0.02) * np.exp(-sound.decay * time) * np.minimum(1.0, (seconds - time) / 0.05)
    tone: npt.NDArray[np.float64] = np.sum(waves, axis=0) * envelope
    tone.flags.writeable = False
    return tone


def find_class_order(
    predict: Predict, rows: int, seconds: float, sample_rate: int, claimed: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of the classes in output order, as found by the pitch fork.

    Args:
        predict: the model, as a function from audio to probabilities.
        rows: 1 for 12 key signatures (names such as ``C major/A minor``), 2 for 24 keys (``C major``).
        seconds, sample_rate: length and rate of the audio for the model.
        claimed: the order that the checkpoint states or that is known for it, if any.

    Raises:
        ClassOrderError: the model does not distinguish keys, or its order is not the claimed one.
    """
    modes: tuple[Mode, ...] = ("major", "minor") if rows == 2 else ("major",)
    keys = [Key(tonic, mode) for mode in modes for tonic in range(12)]
    predictions = np.array([_mean_prediction(predict, key, seconds, sample_rate) for key in keys])  # [keys, classes]
    order = _best_order(predictions, keys, rows)
    if claimed is not None:
        _check_claim(claimed, order)
    return order


def check_recording(prediction: npt.NDArray[np.floating], order: Sequence[str], key: Key) -> None:
    """Check that the mean prediction [classes] for a recording in ``key`` is that key.

    Raises:
        ClassOrderError: it is another key.
    """
    name = order[int(prediction.argmax())]
    if key not in _keys_of(name):
        raise ClassOrderError(f"the recording given as pitch fork is in {key.name}, but the model detects {name}")


def _check_claim(claimed: Sequence[str], order: Sequence[str]) -> None:
    """Check that ``claimed``, in any spelling, names the same keys as ``order``.

    Raises:
        ClassOrderError: a name is invalid, or names another key.
    """
    if len(claimed) != len(order):
        raise ClassOrderError(f"the checkpoint names {len(claimed)} classes, but the model has {len(order)}")
    for index, (theirs, ours) in enumerate(zip(claimed, order, strict=True)):
        try:
            same = _keys_of(theirs) == _keys_of(ours)
        except ValueError as error:
            raise ClassOrderError(f"the checkpoint's name of output {index} is not a key: {theirs[:40]!r}") from error
        if not same:
            raise ClassOrderError(
                f"the checkpoint states that output {index} is {theirs[:40]}, but the pitch fork finds {ours}"
            )


def _keys_of(name: str) -> frozenset[Key]:
    return frozenset(Key.parse(part) for part in name.split("/"))


def _mean_prediction(predict: Predict, key: Key, seconds: float, sample_rate: int) -> npt.NDArray[np.floating]:
    audio = np.stack([play_key(key, timbre, seconds, sample_rate) for timbre in range(len(_TIMBRES))])
    mean: npt.NDArray[np.floating] = predict(audio).mean(axis=0)
    return mean


def _best_order(predictions: npt.NDArray[np.floating], keys: Sequence[Key], rows: int) -> tuple[str, ...]:
    """The order with the highest mean probability of the true keys.

    Within a row, indices ascend by semitones, because the network is a convolution over pitch.
    """
    modes = sorted({key.mode for key in keys})
    candidates = []
    for mode_of_row in permutations(modes, rows):
        firsts, ratios, total = [], [], 0.0
        for row, mode in enumerate(mode_of_row):
            tonics = np.arange(12)
            block = predictions[[index for index, key in enumerate(keys) if key.mode == mode]]
            # The mean probability if ``first`` is the pitch class of index 0: tonic t has index (t - first) % 12.
            explained = [block[tonics, 12 * row + (tonics - first) % 12].mean() for first in range(12)]
            ranking = np.argsort(explained)
            firsts.append(int(ranking[-1]))
            ratios.append(explained[ranking[-1]] / max(explained[ranking[-2]], 1e-12))
            total += explained[ranking[-1]]
        candidates.append((total, min(ratios), firsts, mode_of_row))
    _, ratio, firsts, mode_of_row = max(candidates, key=lambda candidate: candidate[0])
    order = [
        Key((first + index) % 12, mode) for first, mode in zip(firsts, mode_of_row, strict=True) for index in range(12)
    ]
    right = np.mean([order[int(found.argmax())] == key for found, key in zip(predictions, keys, strict=True)])
    if right < MIN_CORRECT or ratio < MIN_RATIO:
        raise ClassOrderError(
            f"the model does not distinguish keys: the best order of its outputs explains {right:.0%} of the "
            f"{len(keys)} keys of the pitch fork; train it longer"
        )
    return tuple(key.name if rows == 2 else f"{key.name}/{key.relative.name}" for key in order)
