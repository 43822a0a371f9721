import numpy as np
import pytest

from stonecli.detection.chroma import FRAME, MAX_COLUMNS, SAMPLE_RATE, chroma_of
from stonecli.key import Key
from tests.fixture_types import MakeMusic


@pytest.mark.parametrize("cents", [0.0, 40.0, -45.0])
def test_the_notes_that_sound(music: MakeMusic, cents: float) -> None:
    """The louder pitch classes of a progression are those of its scale, wherever it is tuned."""
    samples = music("F# minor", seconds=16, rate=SAMPLE_RATE, cents=cents)
    chroma = chroma_of([samples[:5000], samples[5000:]], cents)
    assert chroma.levels.shape == (12, len(samples) // FRAME)
    assert chroma.levels.max(axis=0) == pytest.approx(1.0)
    scale = {(Key.parse("F#m").tonic + step) % 12 for step in (0, 2, 3, 5, 7, 8, 10, 11)}
    assert set(np.argsort(chroma.levels.mean(axis=1))[-4:].tolist()) <= scale


def test_long_and_short_and_silent() -> None:
    random = np.random.default_rng(1).standard_normal(SAMPLE_RATE * 600).astype(np.float32)
    long = chroma_of([random])
    assert long.levels.shape[1] <= MAX_COLUMNS
    assert long.column_seconds * long.levels.shape[1] == pytest.approx(600, abs=2 * long.column_seconds)
    assert chroma_of([random[:100]]).levels.shape == (12, 1)
    assert chroma_of([]).levels.shape == (12, 1)
    assert not chroma_of([np.zeros(9000, dtype=np.float32)]).levels.any()
