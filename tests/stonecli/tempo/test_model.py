"""The built-in tempo model."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from stonecli.errors import ModelError
from stonecli.model.session import built_in_path
from stonecli.tempo.model import FILE_NAME, TempoModel, default_tempo_model
from stonecli.tempo.periodicity import CHANNELS, STEPS_PER_OCTAVE, TEMPOS


def test_the_file_is_small() -> None:
    assert len((resources.files("stonecli.tempo") / FILE_NAME).read_bytes()) < 1_000_000


def test_it_describes_its_tempos() -> None:
    tempos = default_tempo_model().tempos
    assert 35.0 < tempos[0] < 45.0
    assert 230.0 < tempos[-1] < 260.0
    assert np.isin(tempos.round(6), TEMPOS.round(6)).all()


def test_a_shift_of_the_input_shifts_the_output() -> None:
    """Equivariance: only the learned preference for some tempos depends on the absolute tempo."""
    values = np.zeros((CHANNELS, len(TEMPOS)), dtype=np.float32)
    values[:, ::STEPS_PER_OCTAVE] = 0.5
    steps = 4
    model = default_tempo_model()
    first = model.logits(np.roll(values, 2 * steps, axis=1))[:-1]
    second = model.logits(np.roll(values, 4 * steps, axis=1))[:-1]
    inner = slice(8, -8)
    assert np.corrcoef(first[:-steps][inner], second[steps:][inner])[0, 1] > 0.95


def test_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="not a tempo model"):
        TempoModel(built_in_path().read_bytes())
