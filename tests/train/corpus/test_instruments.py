"""Two presets of real synthesizers, from the command line to an index and a rendering."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stonecli.errors import StoneError
from stonecli_train.corpus import instruments, kits, lmms
from stonecli_train.corpus.instruments import main, render_preset, wanted_presets
from stonecli_train.corpus.lmms import Preset
from stonecli_train.corpus.notes import pitch_of
from stonecli_train.corpus.sampler import RATE, load_sampler

needs_lmms = pytest.mark.skipif(not lmms.is_installed(), reason="lmms is not installed")


def _preset(name: str) -> Preset:
    found = [preset for preset in lmms.presets() if preset.id == name]
    if not found:
        pytest.skip(f"{name} is not installed")
    return found[0]


@needs_lmms
@pytest.mark.parametrize(
    ("name", "sustains"),
    [("TripleOscillator/TripleOscillator/E-Organ", True), ("ZynAddSubFX/Plucked/0001-Plucked 1", False)],
)
def test_a_preset_becomes_notes_in_tune(
    name: str, sustains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = _preset(name)
    monkeypatch.setattr(instruments, "PITCHES", tuple(range(40, 80, 4)))
    assert render_preset(preset, tmp_path) == instruments.RENDERED
    assert render_preset(preset, tmp_path) == instruments.EXISTS
    (record,) = tmp_path.glob("*.json")
    row = json.loads(record.read_text("utf-8"))
    assert row["sustains"] == sustains
    notes = np.load(tmp_path / row["file"])
    assert notes.shape == (len(row["pitches"]), round(instruments.STORED_SECONDS * RATE))
    for note, pitch in zip(notes[3:9], row["pitches"][3:9], strict=True):
        measured = pitch_of(note[RATE // 10 : RATE // 2].astype(np.float32) / 32767, RATE)[0]
        assert abs((measured - pitch + 6) % 12 - 6) < 0.2
    again = tmp_path / "again"
    again.mkdir()
    render_preset(preset, again)
    assert np.array_equal(notes, np.load(again / row["file"]))


@needs_lmms
def test_the_command_writes_an_index_that_the_sampler_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [_preset("TripleOscillator/TripleOscillator/E-Organ"), Preset("Broken", "Broken", "x", tmp_path / "x.xpf")]
    monkeypatch.setattr(instruments, "wanted_presets", lambda count: chosen)
    monkeypatch.setattr(kits, "HYDROGEN_KITS", tmp_path / "none")
    monkeypatch.setattr(kits, "AVL_FONTS", tmp_path / "none")
    (tmp_path / "x.xpf").write_text("<lmms-project>")
    assert main([str(tmp_path / "out"), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1 x rendered" in printed
    assert "cannot be read" in printed
    assert len(list((tmp_path / "out").glob("*.json"))) == 2  # the record and the index
    families = load_sampler(tmp_path / "out", False).families | load_sampler(tmp_path / "out", True).families
    assert set(families) == {"organ"}


def test_a_missing_preset_is_an_error(tmp_path: Path) -> None:
    for content in (b"", b"<a>", b"<a/>", b"\x1f\x8bbroken", bytes(range(256))):
        for ending in (".xiz", ".xpf", ".xpt"):
            path = tmp_path / f"preset{ending}"
            path.write_bytes(content)
            with pytest.raises(StoneError):
                lmms.play(Preset("x", "x", "x", path), (60,), 0.1, 0.1)


def test_drums_and_arpeggios_are_skipped() -> None:
    presets = wanted_presets()
    if not presets:
        pytest.skip("no presets are installed")
    assert not [preset for preset in presets if "arp" in preset.name.casefold() or preset.bank == "Drums"]
    assert len({preset.id for preset in presets}) == len(presets)
    assert wanted_presets(7) == presets[:7]
