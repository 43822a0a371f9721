"""Excerpts without a key: each kind is audible, reproducible and less tonal than music."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stonecli_train.corpus import keyless
from stonecli_train.corpus.excerpt import Settings, play, render_excerpt
from stonecli_train.corpus.plain import RATE
from stonecli_train.corpus.render import main
from stonecli_train.corpus.sources import Library
from stonecli_train.data import read_labels

SETTINGS = Settings(((keyless.SOURCE, 1.0),), seconds=4.0, seed=3, soundfonts=False)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library({})


def test_every_kind_sounds_and_is_deterministic(library: Library) -> None:
    kinds = set()
    for number in range(24):
        first, again = (render_excerpt(library, SETTINGS, number) for _ in range(2))
        assert first.key is None
        np.testing.assert_array_equal(first.samples, again.samples)
        assert len(first.samples) == 4 * RATE
        assert np.isfinite(first.samples).all()
        assert np.abs(first.samples).max() > 0.01
        kinds.add(first.style)
    assert kinds == {"drums", "noise", "speech"}


@pytest.mark.skipif(shutil.which(keyless.SPEECH_PROGRAM) is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("held_out", [False, True])
def test_every_voice_can_speak(held_out: bool) -> None:
    variants = keyless._HELD_OUT_VARIANTS if held_out else keyless._VARIANTS
    for number, language in enumerate(keyless._LANGUAGES):
        voice = ("-v", f"{language}+{variants[number % len(variants)]}")
        said = keyless._say("prato stiku lano.", voice, RATE)
        assert len(said) > 0.3 * RATE
        assert np.abs(said).max() > 0.01


def test_speech_without_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    rng = np.random.default_rng(1)
    kinds = [keyless.draw_keyless(rng, 2.0, RATE, False, lambda parts: play(rng, parts, SETTINGS)) for _ in range(8)]
    assert "speech" in {kind for kind, _ in kinds}
    assert all(np.abs(samples).max() > 0 for _, samples in kinds)


def test_the_command_labels_them_none(tmp_path: Path) -> None:
    arguments = ["--source", "keyless", "--out", str(tmp_path), "--count", "2", "--seconds", "3", "--no-soundfonts"]
    assert main(arguments) == 0
    assert [key for _, key in read_labels(tmp_path / "labels.csv")] == [None, None]
