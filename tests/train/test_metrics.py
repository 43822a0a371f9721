from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from stonecli.evaluation.metrics import CIRCLE  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli_train.chromanet import ChromaNet  # noqa: E402
from stonecli_train.config import TrainConfig  # noqa: E402
from stonecli_train.data import Track  # noqa: E402
from stonecli_train.metrics import MAX_TRACKS, MAX_WINDOWS, score_network, track_profile  # noqa: E402
from stonecli_train.views import class_names  # noqa: E402

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")


class FakeNetwork(nn.Module):
    """Reads the index of a key from the level of a track, and answers with ``wrong`` of this key."""

    def __init__(self, config: TrainConfig, wrong: Callable[[Key], Key] = lambda key: key) -> None:
        super().__init__()
        self.wrong = wrong
        self.indices = {
            Key.parse(part): index for index, name in enumerate(class_names(config)) for part in name.split("/")
        }
        self.windows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.windows.append(len(x))
        indices = (x.flatten(1).mean(1) * 255 / 10).round().long().tolist()
        positions = [self.indices[self.wrong(Key.from_index(index))] for index in indices]
        return nn.functional.one_hot(torch.tensor(positions), max(self.indices.values()) + 1).float()


def loud_tracks(folder: Path, frames: int = 300) -> list[Track]:
    tracks = []
    for key in Key.all():
        path = folder / f"{key.index}.npy"
        np.save(path, np.full((frames, 99), 10 * key.index, np.uint8))
        tracks.append(Track(path, key))
    return tracks


@pytest.mark.parametrize("loss", ["semi_tone", "cross_entropy"])
@pytest.mark.parametrize(
    ("wrong", "mirex", "accuracy", "signature", "ksea"),
    [
        (lambda key: key, 1.0, 1.0, 1.0, 1.0),
        (lambda key: key.transposed(7), 0.5, 0.0, 0.0, 0.5),
        (lambda key: key.relative, 0.3, 0.0, 1.0, 1.0),
        (lambda key: key.parallel, 0.2, 0.0, 0.0, 0.0),
        (lambda key: key.transposed(1), 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_scores(
    wrong: Any,
    mirex: float,
    accuracy: float,
    signature: float,
    ksea: float,
    loss: str,
    tiny_config: Config,
    tmp_path: Path,
) -> None:
    config = tiny_config(loss)
    got = score_network(FakeNetwork(config, wrong), loud_tracks(tmp_path), config, CPU)  # type: ignore[arg-type]
    assert (got.mirex, got.accuracy, got.signature, got.ksea) == pytest.approx((mirex, accuracy, signature, ksea))
    assert got.tracks == 24
    for row, key in enumerate(CIRCLE):
        assert got.confusion[row].nonzero()[0].tolist() == [CIRCLE.index(wrong(key))]


def test_twelve_classes_count_as_major_keys(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config("stone")
    got = score_network(FakeNetwork(config), loud_tracks(tmp_path), config, CPU)  # type: ignore[arg-type]
    # The 12 minor keys are detected as their relatives: 0.3 points each.
    assert (got.signature, got.ksea, got.accuracy, got.mirex) == pytest.approx((1, 1, 0.5, 0.65))


def test_tracks_without_a_label_are_not_scored(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config("semi_tone")
    tracks = loud_tracks(tmp_path)
    mixed = [tracks[0], Track(tracks[1].features), tracks[2]]
    assert score_network(FakeNetwork(config), mixed, config, CPU).tracks == 2  # type: ignore[arg-type]


def test_of_many_tracks_some_at_regular_intervals_are_scored(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config("semi_tone")
    tracks = [track for track in loud_tracks(tmp_path) for _ in range(30)]
    got = score_network(FakeNetwork(config), tracks, config, CPU)  # type: ignore[arg-type]
    assert got.tracks == MAX_TRACKS < len(tracks)
    assert got.confusion.sum(axis=1).min() >= MAX_TRACKS // 24  # each key as often


@pytest.mark.parametrize(
    ("frames", "windows"), [(20, 1), (64, 1), (65, 1), (129, 1), (130, 2), (650, 10), (9000, MAX_WINDOWS)]
)
def test_windows_are_spread_over_the_track(frames: int, windows: int, tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config("semi_tone")
    assert config.segment_frames == 65
    np.save(tmp_path / "a.npy", np.full((frames, 99), 50, np.uint8))
    listener = FakeNetwork(config)
    track_profile(listener, Track(tmp_path / "a.npy"), config, CPU)  # type: ignore[arg-type]
    assert listener.windows == [windows]


def test_the_profile_is_the_mean_answer(tiny_config: Config, draw_features: Any, tmp_path: Path) -> None:
    config = tiny_config("semi_tone", input__frames_averaged=1)
    torch.manual_seed(0)
    network = ChromaNet(config.network).eval()
    features = draw_features(Key(4, "minor"), 3 * 65)
    np.save(tmp_path / "a.npy", features)
    windows = torch.from_numpy(features.reshape(3, 65, 99)[:, :, :84]).float().transpose(1, 2)[:, None] / 255
    with torch.inference_mode():
        expected = network(windows).mean(0).numpy()
    np.testing.assert_allclose(track_profile(network, Track(tmp_path / "a.npy"), config, CPU), expected, atol=1e-6)
    assert expected.sum() == pytest.approx(1, abs=1e-5)
