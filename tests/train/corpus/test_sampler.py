from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stonecli.errors import StoneError
from stonecli_train.corpus import sampler
from stonecli_train.corpus.arrange import Part, Tone
from stonecli_train.corpus.kits import is_held_out
from stonecli_train.corpus.notes import Check, checked_notes, find_loop, pitch_of
from stonecli_train.corpus.sampler import (
    RATE,
    Sampler,
    instrument_family,
    load_sampler,
    play_kit,
    play_tones,
    tone_of,
)

PITCHES = tuple(range(36, 85, 4))
NOTE_SECONDS = 2.5


def _note(pitch: float, falls: float) -> np.ndarray:
    time = np.arange(int(2.6 * RATE)) / RATE
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    wave = sum(np.sin(2 * np.pi * number * frequency * time) / number for number in range(1, 6))
    return (0.2 * wave * np.exp(-falls * time) * np.minimum(1.0, time / 0.01)).astype(np.float32)


def _write_instrument(
    folder: Path, name: str, family: str, falls: float = 0.0, held_out: bool = False
) -> dict[str, Any]:
    check = checked_notes(np.array([_note(pitch, falls) for pitch in PITCHES]), PITCHES, RATE, NOTE_SECONDS)
    assert isinstance(check, Check)
    np.save(folder / f"{name}.npy", np.round(check.notes * 32767).astype(np.int16))
    return {
        "name": name, "family": family, "file": f"{name}.npy", "pitches": check.pitches, "sustains": check.sustains,
        "attack": check.attack, "held_out": held_out,
        "loops": [find_loop(note, RATE, NOTE_SECONDS) if check.sustains else None for note in check.notes],
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instrument that lasts, one that dies away, one that is held out, and two kits of one sample a sound."""
    root = tmp_path_factory.mktemp("instruments")
    rows = [
        _write_instrument(root, "saw", "organ"),
        _write_instrument(root, "string", "guitar", falls=2.0),
        _write_instrument(root, "other", "bass", held_out=True),
    ]
    rng = np.random.default_rng(0)
    kits = []
    for name, sounds in (("whole", ("kick", "snare", "hat_closed", "hat_open", "clap")), ("bare", ("kick", "snare"))):
        shots = {sound: [[[1000 * index, 1000 * index + 1000]]] for index, sound in enumerate(sounds)}
        fading = np.exp(-np.arange(1000) / 200.0)
        sound = np.concatenate([rng.standard_normal(1000) * fading for _ in sounds]) * 5000
        np.save(root / f"kit_{name}.npy", sound.astype(np.int16))
        kits.append({"name": name, "file": f"kit_{name}.npy", "hits": shots, "held_out": False})
    (root / "index.json").write_text(json.dumps({"rate": RATE, "instruments": rows, "kits": kits}))
    return root


@pytest.fixture
def sampled(folder: Path) -> Sampler:
    return load_sampler(folder, False)


@pytest.mark.parametrize("pitch", [36, 37, 38, 47, 61, 66, 83])
@pytest.mark.parametrize("seconds", [0.5, 2.0, 7.0])
def test_a_tone_has_its_pitch_and_duration(sampled: Sampler, pitch: int, seconds: float) -> None:
    tone = tone_of(sampled.families["organ"][0], pitch, seconds, 0.1)
    assert len(tone) == pytest.approx((seconds + 0.1) * RATE, abs=2)
    assert 100 * abs(pitch_of(tone[RATE // 20 : int(seconds * RATE)][-RATE // 2 :], RATE)[0] - pitch) < 5
    assert abs(float(tone[-1])) < 0.001
    steady = tone[RATE // 20 : int(seconds * RATE)]
    assert np.abs(np.diff(tone)).max() <= 1.2 * np.abs(np.diff(steady[: RATE // 4])).max()  # no click, looped or not


def test_decaying_notes_are_not_looped(sampled: Sampler) -> None:
    tone = tone_of(sampled.families["guitar"][0], 50, 9.0, 0.1)
    assert len(tone) < 3 * RATE
    assert abs(float(tone[-1])) < 0.001
    assert np.abs(tone[:4000]).max() > 5 * np.abs(tone[-8000:]).max()


def test_tones_are_mixed_by_velocity_and_reproducible(sampled: Sampler) -> None:
    tones = (Tone(0.2, 0.3, 60, 110), Tone(1.0, 0.3, 60, 40), Tone(1.9, 5.0, 64, 90), Tone(9.0, 1.0, 60, 90))
    instrument = sampled.families["organ"][0]
    first, again = (play_tones(np.random.default_rng(3), tones, instrument, 2 * RATE) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (2 * RATE,)
    assert not first[: RATE // 5].any()
    loud, soft = (np.abs(first[start : start + 4000]).max() for start in (RATE // 4, RATE + RATE // 20))
    assert loud > 1.5 * soft > 0


def test_instruments_suit_the_part(sampled: Sampler) -> None:
    rng = np.random.default_rng(0)
    middle, high = (tuple(Tone(0.5 * index, 0.4, low + index, 90) for index in range(5)) for low in (55, 100))
    organ = sampled.draw_instrument(rng, Part("chords", middle, program=16))
    assert organ is not None
    assert organ.name == "saw"
    assert sampled.draw_instrument(rng, Part("chords", high, program=16)) is None  # no sample is near
    assert sampled.draw_instrument(rng, Part("lead", middle, program=73)) is None  # no flute


def test_held_out_presets_and_kits_are_disjoint(folder: Path, sampled: Sampler) -> None:
    assert set(load_sampler(folder, True).families) == {"bass"}
    assert load_sampler(folder, True).kits == ()
    assert set(sampled.families) == {"organ", "guitar"}
    assert {kit.name for kit in sampled.kits} == {"whole", "bare"}
    share = np.mean([is_held_out(f"preset {chr(97 + index % 26)}{chr(97 + index // 26)}") for index in range(600)])
    assert 0.14 < share < 0.26
    assert is_held_out("Organ 12") == is_held_out("organ_3")  # the same by another number


@pytest.mark.parametrize(
    ("bank", "name", "family"),
    [
        ("Bass", "Wah Bass", "bass"), ("Cormi Sound", "Bassoon2", "wind"), ("Rhodes", "Ice 3", "piano"),
        ("Organ", "Organ 4", "organ"), ("Guitar", "Dist Guitar 1", "lead"), ("Synth", "Multi-phase synth", "synth"),
        ("Strings", "Saw Strings 1", "strings"), ("olivers-100", "Folk Flute", "wind"),
    ],
)  # fmt: skip
def test_a_name_or_bank_gives_the_instrument_family(bank: str, name: str, family: str) -> None:
    assert instrument_family(bank, name, sustains=True) == family


def test_a_kit_borrows_missing_sounds_from_another_kit(sampled: Sampler) -> None:
    pitches = (36, 38, 42, 46, 49, 51, 54, 39, 41, 70, 56)
    tones = tuple(Tone(0.2 * index, 0.1, pitch, 100) for index, pitch in enumerate(pitches))
    for seed in range(4):
        sounds = [play_kit(np.random.default_rng(seed), tones, sampled.kits, 3 * RATE) for _ in range(2)]
        assert np.array_equal(sounds[0], sounds[1])
        played = {
            index for index in range(len(pitches)) if np.abs(sounds[0][int(0.2 * index * RATE) :][:900]).max() > 0
        }
        assert {0, 1, 7} <= played  # the clap is there for both kits


def test_a_closed_hat_ends_an_open_one(folder: Path) -> None:
    long = np.full(20000, 8000, dtype=np.int16)
    np.save(folder / "kit_long.npy", long)
    kit = sampler.DrumKit("long", folder / "kit_long.npy", {"hat_open": [[[0, 20000]]], "hat_closed": [[[0, 10]]]})
    tones = (Tone(0.0, 0.1, 46, 127), Tone(0.3, 0.1, 42, 127))
    sound = play_kit(np.random.default_rng(0), tones, [kit], RATE)
    assert abs(sound[int(0.28 * RATE)]) > 0.1
    assert not np.abs(sound[int(0.33 * RATE) :]).max() > 1e-6


def test_open_files_are_bounded(folder: Path) -> None:
    sampler._samples.cache_clear()
    for index in range(sampler._OPEN_FILES + 10):
        path = folder / f"open_{index}.npy"
        np.save(path, np.zeros((1, 4), dtype=np.int16))
        sampler._samples(path)
    assert sampler._samples.cache_info().currsize == sampler._OPEN_FILES


def test_a_missing_folder_is_one_error_line(tmp_path: Path) -> None:
    with pytest.raises(StoneError, match=r"python -m stonecli_train\.corpus\.instruments"):
        load_sampler(tmp_path, False)
    for text in ("{", "[]", '{"rate": 8000}', '{"rate": 22050, "instruments": [{}], "kits": []}'):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(StoneError, match=r"index\.json"):
            load_sampler(tmp_path, False)
