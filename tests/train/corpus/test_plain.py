"""Music from numpy alone: reproducible, in the key of its label, without the extra ``corpus``."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("torch")

from stonecli import KeyModel
from stonecli_train.corpus.plain import RATE, plain_excerpt

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pedalboard", "mido", "music21"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import stonecli_train.generated
"""


class TestPlainExcerpt:
    def test_is_a_function_of_seed_and_number(self) -> None:
        key, samples = plain_excerpt(3, 7, 5.0)
        again, same = plain_excerpt(3, 7, 5.0)
        assert key == again
        assert np.array_equal(samples, same)
        assert samples.shape == (5 * RATE,)
        assert samples.dtype == np.float32
        assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-6)
        for other in ((3, 8), (4, 7)):
            assert not np.array_equal(plain_excerpt(*other, 5.0)[1], samples)

    def test_covers_all_keys(self) -> None:
        keys = Counter(plain_excerpt(1, number, 1.5)[0] for number in range(150))
        assert len({key.tonic for key in keys}) == 12
        assert {key.mode for key in keys} == {"major", "minor"}

    def test_sounds_in_its_key(self, key_model: KeyModel) -> None:
        """The built-in model, which was trained on other renderings, agrees with most labels."""
        from stonecli.detection.detect import detect_key_in_audio

        right = 0
        for number in range(12):
            key, samples = plain_excerpt(2, number, 20.0)
            right += detect_key_in_audio([samples], key_model, RATE).key == key
        assert right >= 8

    def test_needs_none_of_the_extra_corpus(self) -> None:
        subprocess.run([sys.executable, "-c", BLOCKED], check=True)
