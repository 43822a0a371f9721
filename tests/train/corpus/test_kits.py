from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stonecli_train.corpus import kits
from stonecli_train.corpus.drums import CRASH, HATS, KICKS, SNARES, TOMS, draw_percussion
from stonecli_train.corpus.kits import SOUND_OF, SUBSTITUTES, read_hydrogen, write_kits

RATE = 22050
KIT = """<?xml version="1.0" encoding="UTF-8"?>
<drumkit_info xmlns="http://www.hydrogen-music.org/drumkit"><instrumentList>
<instrument><name>Pearl Kick</name><layer><filename>loud.wav</filename><max>1</max></layer>
<layer><filename>soft.wav</filename><max>0.4</max></layer></instrument>
<instrument><name>Snare Rock</name>
<instrumentComponent><layer><filename>loud.wav</filename></layer></instrumentComponent></instrument>
<instrument><name>Closed HH</name><filename>../outside/soft.wav</filename></instrument>
<instrument><name>Open HH</name><filename>missing.wav</filename></instrument>
<instrument><name>Zap</name><filename>soft.wav</filename></instrument>
<instrument><name>Broken</name></instrument>
</instrumentList></drumkit_info>"""


@pytest.fixture
def description(tmp_path: Path) -> Path:
    folder = tmp_path / "My Kit"
    folder.mkdir()
    for name, level in (("soft", 0.1), ("loud", 0.8)):
        shot = level * np.exp(-np.arange(8820) / 1500.0) * np.sin(np.arange(8820) * 0.1)
        soundfile.write(folder / f"{name}.wav", np.concatenate((np.zeros(4410), shot)), 44100)
    (folder / "drumkit.xml").write_text(KIT, "utf-8")
    return folder / "drumkit.xml"


def test_a_hydrogen_kit_is_read_by_sound_and_loudness(description: Path) -> None:
    kit = read_hydrogen(description, RATE)
    assert set(kit) == {"kick", "snare", "hat_closed"}
    soft, loud = kit["kick"][0]
    assert 4 * np.abs(soft).max() < np.abs(loud).max()
    assert len(soft) < 5000  # the silence before and after is cut off
    assert np.abs(loud[:200]).max() > 0.05
    assert loud[-1] == 0
    description.write_text("<drumkit_info><instrument>")
    assert read_hydrogen(description, RATE) == {}


def test_kits_are_written_with_their_spans(description: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kits, "HYDROGEN_KITS", tmp_path)
    monkeypatch.setattr(kits, "AVL_FONTS", tmp_path / "none")
    out = tmp_path / "out"
    out.mkdir()
    assert write_kits(out, RATE) == 1
    record = json.loads((out / "kit_my_kit.json").read_text())
    samples = np.load(out / record["file"])
    assert samples.dtype == np.int16
    assert np.abs(samples).max() == pytest.approx(0.9 * 32767, abs=2)
    spans = sorted(span for ways in record["hits"].values() for way in ways for span in way)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(samples)
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_every_drum_that_is_drawn_has_a_sound() -> None:
    drawn = {*KICKS, *SNARES, *HATS, *TOMS, CRASH}
    for seed in range(20):
        drawn |= {note.pitch for note in draw_percussion(np.random.default_rng(seed), 16, 4, 0.0)}
    assert drawn <= set(SOUND_OF)
    for sound in set(SOUND_OF.values()) - {"kick", "snare"}:  # all are replaced by sounds that each kit has
        reached: set[str] = set()
        queue = [sound]
        while queue:
            new = set(SUBSTITUTES.get(queue.pop(), ())) - reached
            reached |= new
            queue += new
        assert reached & {"kick", "snare", "hat_closed"}


def test_the_installed_kits_have_all_sounds_of_a_beat() -> None:
    found = sorted(kits.HYDROGEN_KITS.glob("GMRockKit/drumkit.xml"))
    if not found:
        pytest.skip("hydrogen-data is not installed")
    kit = read_hydrogen(found[0], RATE)
    assert {"kick", "snare", "hat_closed", "hat_open", "crash", "ride", "tom_low"} <= set(kit)
    assert len(kit["snare"][0]) > 1
