"""Estimate the tempo of a recording while its key is detected: in the same pass, from the same samples.

The network gives a rough tempo, or none. Music has several metrical levels, such as 87 and 174 beats per minute. People
prefer levels near a usual tempo, and those at which kick and snare alternate, so the scores of the network are combined
with both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples
from stonecli.tempo.attacks import has_attacks
from stonecli.tempo.backbeat import OCTAVES, backbeat
from stonecli.tempo.model import TempoModel, default_tempo_model
from stonecli.tempo.novelty import BandLevels, loudness, novelty
from stonecli.tempo.periodicity import periodicity
from stonecli.tempo.refine import refine_tempo

TEMPO_VERSION = 8  # increase it with every change that alters tempos: it invalidates those in the result cache
MIN_SECONDS = 4.0  # shorter recordings have no tempo
USUAL_BPM, USUAL_OCTAVES = 120.0, 0.4  # center and standard deviation of the tempos that people call the beat
LOGIT_WEIGHT = 0.4  # of the network beside that
BACKBEAT_WEIGHT = 1.25  # of the alternation of kick and snare beside both
CLEAR_BACKBEAT = 0.05  # alternation beyond which more of it says little more
# Faster tempos do not gain by it. In reggaeton and dancehall, from 90 BPM on, kick and snare alternate on the eighths.
MAX_BACKBEAT_BPM = 179.0
SHARPNESS = 2.2  # posterior exponent of the confidence
DOUBT_WEIGHT = 0.1  # of the logit of "no tempo" in the evidence of a beat
CONFIDENCE_WEIGHT = 0.5  # of the confidence in it
MIN_EVIDENCE = 0.9  # no tempo is reported with less
SHORT_SECONDS, SHORT_WEIGHT = 16.0, 1.5  # shorter ones need more evidence: noise, too, has a pulse for a moment
STEADY = 0.7  # stability from which on a recording keeps its tempo
TOLERANCE = 0.04  # two tempos that differ by less are the same
SILENCE = -9.0  # log10 of the power in a band; about that of -80 dB

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TempoEstimate:
    """The tempo of one recording.

    Attributes:
        bpm: beats per minute; None if there is none (silence, steady tones, speech, music without a beat, under 4 s).
        confidence: probability that people count this tempo, 0..1; 0 without a tempo.
        alternative: half or double ``bpm``, whichever people would rather count; None without a tempo.
        stability: 0..1; 1 if the tempo never changes, and all segments of 6 s have it.
    """

    bpm: float | None
    confidence: float = 0.0
    alternative: float | None = None
    stability: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether the recording keeps its tempo, as music made on a grid does."""
        return self.bpm is not None and self.stability >= STEADY


NONE = TempoEstimate(None)


class TempoMeter:
    """Reads the blocks of a recording as they pass by, and estimates its tempo at the end.

    Args:
        rate: sample rate in Hz.
        model: the tempo model; None for the built-in one.
    """

    def __init__(self, rate: float, model: TempoModel | None = None) -> None:
        self._model = default_tempo_model() if model is None else model
        self._levels = BandLevels(rate)

    def tap(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """The same blocks, float32 [n] each."""
        for block in blocks:
            self._levels.add(block)
            yield block

    def estimate(self) -> TempoEstimate:
        """The tempo of all blocks.

        Raises:
            ModelError: the model cannot be run.
        """
        return estimate_tempo(self._levels.finish(), self._levels.frame_rate, self._model)


def estimate_tempo(levels: npt.NDArray[np.float16], frame_rate: float, model: TempoModel) -> TempoEstimate:
    """The tempo of a recording.

    Args:
        levels: float16 [frames, bands] of :class:`stonecli.tempo.novelty.BandLevels`.
        frame_rate: frames per second.
        model: the tempo model.

    Raises:
        ModelError: the model cannot be run.
    """
    if len(levels) < MIN_SECONDS * frame_rate or levels.max(initial=SILENCE) <= SILENCE:
        return NONE
    loud = loudness(levels)
    if not has_attacks(levels, loud):
        return NONE
    onsets = novelty(levels, loud)
    logits = model.logits(periodicity(onsets, frame_rate)).astype(np.float64)
    octaves = np.log2(model.tempos / USUAL_BPM) / USUAL_OCTAVES
    scores = LOGIT_WEIGHT * logits[:-1] - 0.5 * octaves**2
    rough = float(model.tempos[scores.argmax()])
    pulse = refine_tempo(onsets, frame_rate, rough)
    confidence = _near(_softmax(SHARPNESS * scores), model.tempos, pulse.bpm)
    doubt = float(logits[-1] - logits[:-1].max())
    evidence = math.log(max(pulse.clarity, 1e-9)) - DOUBT_WEIGHT * doubt + CONFIDENCE_WEIGHT * confidence
    shortness = max(0.0, math.log(SHORT_SECONDS * frame_rate / len(levels)))
    if evidence < MIN_EVIDENCE + SHORT_WEIGHT * shortness:
        return NONE
    bonuses = BACKBEAT_WEIGHT * np.tanh(backbeat(onsets, frame_rate, pulse.bpm) / CLEAR_BACKBEAT)
    for octave, bonus in zip(OCTAVES, bonuses - bonuses.min(), strict=True):
        if octave <= 1.0 or octave * pulse.bpm <= MAX_BACKBEAT_BPM:
            scores[_is_near(model.tempos, octave * rough)] += bonus
    best = float(model.tempos[scores.argmax()])
    if max(best, rough) > 1.5 * min(best, rough):  # another octave
        pulse = refine_tempo(onsets, frame_rate, best)
    probabilities = _softmax(SHARPNESS * scores)
    near = {tempo: _near(probabilities, model.tempos, tempo) for tempo in (pulse.bpm, 2.0 * pulse.bpm, pulse.bpm / 2.0)}
    alternative = max((2.0 * pulse.bpm, pulse.bpm / 2.0), key=lambda tempo: near[tempo])
    return TempoEstimate(pulse.bpm, min(1.0, near[pulse.bpm]), alternative, pulse.stability)


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    shares: npt.NDArray[np.float64] = powers / powers.sum()
    return shares


def _near(probabilities: npt.NDArray[np.float64], tempos: npt.NDArray[np.float64], bpm: float) -> float:
    """Probability of the tempos within the tolerance of ``bpm``."""
    return float(probabilities[_is_near(tempos, bpm)].sum())


def _is_near(tempos: npt.NDArray[np.float64], bpm: float) -> npt.NDArray[np.bool_]:
    """Which tempos are within the tolerance of ``bpm``."""
    near: npt.NDArray[np.bool_] = np.abs(tempos / bpm - 1.0) <= TOLERANCE
    return near
