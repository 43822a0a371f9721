"""Sketches have their onsets where the arrangement has them."""

from __future__ import annotations

import numpy as np
import pytest

from stonecli.tempo.model import default_tempo_model
from stonecli.tempo.novelty import BANDS, FRAME_RATE, novelty
from stonecli.tempo.refine import refine_tempo
from stonecli_train.corpus.arrange import Part, Tone
from stonecli_train.tempo.sketch import sketch


def drums(bpm: float, seconds: float) -> Part:
    """Kick and snare in turns, with a hi-hat on every eighth."""
    eighths = range(int(seconds * bpm / 30.0))
    tones = [Tone(30.0 * eighth / bpm, 0.2, 42, 90) for eighth in eighths]
    tones += [
        Tone(30.0 * eighth / bpm, 0.2, 36 if eighth % 4 == 0 else 38, 110) for eighth in eighths if eighth % 2 == 0
    ]
    return Part("drums", tuple(sorted(tones, key=lambda tone: tone.start)))


@pytest.mark.parametrize("seed", range(3))
def test_its_tempo_is_that_of_the_arrangement(seed: int) -> None:
    levels = sketch(np.random.default_rng(seed), [drums(117.0, 24.0)], 24.0)
    assert levels.shape == (round(24.0 * FRAME_RATE), BANDS)
    assert np.isfinite(levels).all()
    bpm, stability, _ = refine_tempo(novelty(levels), FRAME_RATE, 118.0)
    assert bpm == pytest.approx(117.0, abs=0.2)
    assert stability > 0.5


def test_tones_are_louder_than_silence() -> None:
    lead = Part("lead", (Tone(2.0, 2.0, 69, 100),))
    levels = sketch(np.random.default_rng(0), [lead], 6.0).astype(float).max(axis=1)
    inside = levels[round(2.2 * FRAME_RATE) : round(3.0 * FRAME_RATE)].mean()
    assert inside > levels[: round(1.5 * FRAME_RATE)].mean() + 0.5


def test_the_built_in_model_has_the_tempos_of_the_network() -> None:
    from stonecli_train.tempo.network import OUTPUT_TEMPOS

    assert np.allclose(default_tempo_model().tempos, OUTPUT_TEMPOS)
