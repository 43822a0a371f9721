"""Drawing and rendering music with a known tempo."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stonecli_train.corpus.arrange import Tone
from stonecli_train.corpus.grooves import Groove
from stonecli_train.corpus.sources import GENERATED, Library

pytest.importorskip("pedalboard", reason="needs stonecli[corpus]")

from stonecli_train.tempo import render
from stonecli_train.tempo.render import Renderer, render_all, settings_of

GROOVE = Groove("groove", 100.0, 4, 16.0, tuple(Tone(float(beat), 0.2, 36, 100) for beat in range(16)))


def renderer(seed: int = 3) -> Renderer:
    settings = replace(settings_of(seed), soundfonts=False)  # played by the synthesizers of this repository
    return Renderer(Library({}), [GROOVE], settings)


def test_an_excerpt_depends_only_on_seed_and_number() -> None:
    first, second = (renderer().draw(4, {GENERATED: 1.0})[1:] for _ in range(2))
    assert first == second
    assert first != renderer(4).draw(4, {GENERATED: 1.0})[1:]


def test_most_excerpts_have_a_tempo_and_some_have_none() -> None:
    drawn = [renderer().draw(number, {GENERATED: 1.0}) for number in range(60)]
    tempos = np.array([bpm for _, _, bpm, _ in drawn])
    assert 0 < (tempos == 0.0).sum() < 15
    assert ((tempos[tempos > 0.0] > 40.0) & (tempos[tempos > 0.0] < 220.0)).all()
    assert Counter(style for *_, style in drawn)["drums"] > 0


def test_rendered_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "SOURCES", {GENERATED: 1.0})
    paths = list(render_all(renderer(), tmp_path, range(2)))
    times = [path.stat().st_mtime_ns for path in paths]
    assert [path.name for path in paths] == ["3_000000.npz", "3_000001.npz"]
    assert [path.stat().st_mtime_ns for path in render_all(renderer(), tmp_path, range(2))] == times
    with np.load(paths[0]) as file:
        assert file["levels"].shape[1] == 24
        assert float(file["frame_rate"]) > 80.0
