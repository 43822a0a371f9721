from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from stonecli.errors import StoneError  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from stonecli_train.features import track_features  # noqa: E402
from stonecli_train.pseudo_labels import KEYS, PseudoLabels, TeacherEnsemble, confirmed_by_chroma  # noqa: E402
from stonecli_train.vqt import VQTConfig  # noqa: E402

CHECKPOINT = Path(__file__).resolve().parents[2] / "checkpoints" / "stone_8.pt"
FRAMES = 646  # 15 s
Save = Callable[[str, npt.NDArray[np.uint8]], Path]


@pytest.fixture(scope="module")
def checkpoints() -> list[Checkpoint]:
    """The built-in network, and the same with slightly other weights."""
    trained = load_checkpoint(CHECKPOINT)
    weights = {
        name: 1.001 * values if values.is_floating_point() else values for name, values in trained.weights.items()
    }
    return [replace(trained, weights=weights), trained]


@pytest.fixture(scope="module")
def features(music: Any) -> npt.NDArray[np.uint8]:
    """Forty seconds in E minor, then forty in Bb major."""
    samples = np.concatenate([music("E minor", seconds=40.0), music("Bb major", seconds=40.0)])
    return track_features(samples, VQTConfig(), corrects_tuning=True)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, array: npt.NDArray[np.uint8]) -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    return write


def test_teachers_detect_the_key_of_each_chunk(
    checkpoints: list[Checkpoint], features: npt.NDArray[np.uint8], save: Save, tmp_path: Path
) -> None:
    pseudo_labels = TeacherEnsemble(checkpoints, FRAMES, tmp_path / "cache").pseudo_labels(save("a.npy", features))
    assert pseudo_labels.starts[0] == 0
    assert pseudo_labels.starts[-1] == len(features) - FRAMES  # up to the end of the track
    np.testing.assert_allclose(pseudo_labels.keys.sum(axis=1), 1.0, atol=1e-5)
    predicted = [Key.from_index(int(index)) for index in pseudo_labels.keys.argmax(axis=1)]
    assert predicted[0] == Key.parse("E minor")
    assert predicted[-1] == Key.parse("Bb major")


def test_a_transposed_recording_has_transposed_labels(
    checkpoints: list[Checkpoint], features: npt.NDArray[np.uint8], save: Save, tmp_path: Path
) -> None:
    teachers = TeacherEnsemble(checkpoints[-1:], FRAMES, tmp_path / "cache")
    plain = teachers.pseudo_labels(save("plain.npy", features))
    higher = teachers.pseudo_labels(save("higher.npy", np.roll(features, 2, axis=1)))
    for before, after in zip(plain.keys[[0, -1]], higher.keys[[0, -1]], strict=True):
        assert Key.from_index(int(after.argmax())) == Key.from_index(int(before.argmax())).transposed(2)


def test_labels_are_cached_and_damaged_ones_recomputed(
    checkpoints: list[Checkpoint], features: npt.NDArray[np.uint8], save: Save, tmp_path: Path
) -> None:
    path, cache = save("a.npy", features), tmp_path / "cache"
    first = TeacherEnsemble(checkpoints[:1], FRAMES, cache).pseudo_labels(path)
    (entry,) = cache.iterdir()
    written = entry.stat().st_mtime_ns
    again = TeacherEnsemble(checkpoints[:1], FRAMES, cache).pseudo_labels(path)
    assert entry.stat().st_mtime_ns == written
    assert np.array_equal(first.starts, again.starts)
    assert np.array_equal(first.keys, again.keys)
    entry.write_bytes(entry.read_bytes()[:200])
    assert np.array_equal(first.keys, TeacherEnsemble(checkpoints[:1], FRAMES, cache).pseudo_labels(path).keys)
    TeacherEnsemble(checkpoints[-1:], FRAMES, cache).pseudo_labels(path)  # another ensemble has other answers
    assert len(list(cache.iterdir())) == 2


def test_a_recording_shorter_than_a_chunk_has_no_label(
    checkpoints: list[Checkpoint], features: npt.NDArray[np.uint8], save: Save, tmp_path: Path
) -> None:
    pseudo_labels = TeacherEnsemble(checkpoints[:1], FRAMES, tmp_path / "cache").pseudo_labels(
        save("a.npy", features[: FRAMES - 1])
    )
    assert (pseudo_labels.starts.shape, pseudo_labels.keys.shape) == ((0,), (0, 24))


def test_unsuitable_teachers_are_refused(checkpoints: list[Checkpoint], tmp_path: Path) -> None:
    one = checkpoints[0]
    with pytest.raises(StoneError, match="no teacher checkpoints"):
        TeacherEnsemble([], FRAMES, tmp_path)
    with pytest.raises(StoneError, match="trained with labels"):
        TeacherEnsemble([replace(one, classes=None)], FRAMES, tmp_path)
    with pytest.raises(StoneError, match="different features"):
        TeacherEnsemble([one, replace(one, corrects_tuning=not one.corrects_tuning)], FRAMES, tmp_path)
    with pytest.raises(StoneError, match="too few bins"):
        TeacherEnsemble([replace(one, chromanet=replace(one.chromanet, n_bins=96))], FRAMES, tmp_path)


def tones(levels: dict[int, int], frames: int = 100) -> npt.NDArray[np.uint8]:
    """Features in which each of the pitch classes has its level in all octaves."""
    out = np.zeros((frames, 99), dtype=np.uint8)
    for pitch_class, level in levels.items():
        out[:, (pitch_class - 9) % 12 :: 12] = level
    return out


def probabilities_of(**probabilities: float) -> npt.NDArray[np.float32]:
    """Probabilities by ``Key.index`` of keys by their names, such as ``Cm``."""
    keys = np.zeros(KEYS, dtype=np.float32)
    for name, probability in probabilities.items():
        keys[Key.parse(name).index] = probability
    return keys


def test_pseudo_labels_agree_if_the_chroma_has_the_same_mode() -> None:
    """For C major and A minor, the louder of the two tonics decides."""
    rows = np.stack(
        [
            probabilities_of(C=0.7, Am=0.2, G=0.1),
            probabilities_of(C=0.2, Am=0.7, Em=0.1),
            probabilities_of(C=0.3, Em=0.3, F=0.4),
        ]
    )
    given = PseudoLabels(np.array([0, 10, 20]), rows)
    for louder, index in ((0, 0), (9, 1)):
        agreed = confirmed_by_chroma(given, tones({louder: 240, 9 - louder: 220, 7: 200}), 50, 84)
        assert agreed.starts.tolist() == [given.starts[index]]
        assert agreed.keys.argmax(axis=1).tolist() == [rows[index].argmax()]
        np.testing.assert_allclose(agreed.keys.sum(axis=1), 0.9, atol=1e-6)  # G major and E minor are left out
    rejected = confirmed_by_chroma(given, tones({0: 230, 9: 230, 7: 200}), 50, 84)
    assert (rejected.starts.shape, rejected.keys.shape) == ((0,), (0, KEYS))


def test_the_chroma_weighs_as_much_as_the_teachers() -> None:
    given = PseudoLabels(np.array([0]), probabilities_of(Eb=0.55, Cm=0.45)[None])
    weak, strong = (confirmed_by_chroma(given, tones({3: 240, 0: level}), 50, 84).keys[0] for level in (238, 120))
    assert weak.argmax() == strong.argmax() == Key.parse("Eb major").index
    assert weak[Key.parse("C minor").index] > 0.4
    assert strong[Key.parse("C minor").index] == pytest.approx(0.225, abs=0.01)
