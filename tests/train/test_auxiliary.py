"""Auxiliary heads: targets from annotations, losses that fall, and exports without the heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stonecli.key import Key  # noqa: E402
from stonecli_train.auxiliary import AuxiliaryHeads, score_targets  # noqa: E402
from stonecli_train.checkpoint import load_checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet  # noqa: E402
from stonecli_train.config import TrainConfig, override  # noqa: E402
from stonecli_train.corpus.annotation import (  # noqa: E402
    FRAME_SECONDS,
    MAJOR,
    MINOR,
    SCORE,
    UNKNOWN,
)
from stonecli_train.corpus.styles import STYLES  # noqa: E402
from stonecli_train.data import UNKNOWN_STYLE, Batch, StepDataset, Track, read_styles  # noqa: E402
from stonecli_train.loop import Run, Watcher  # noqa: E402
from tests.train.fixture_types import MakeConfig  # noqa: E402

LOWEST = 9  # pitch class of the lowest bin


def test_targets_follow_the_crop() -> None:
    # Two frames of two moments: A minor over A, then C major over E with a melody on G; then drums alone.
    score = torch.tensor(
        [
            [
                [9, MINOR, 9, UNKNOWN],
                [9, MINOR, 9, UNKNOWN],
                [0, MAJOR, 4, 7],
                [9, MINOR, 4, 7],
                [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN],
                [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN],
            ]
        ],
        dtype=torch.uint8,
    )
    for shift in (0, 5):
        target, known = score_targets(score, torch.tensor([shift]), frames=3)
        assert target.shape == (1, 3, 5, 12)
        index = lambda pitch_class: (pitch_class - LOWEST - shift) % 12  # noqa: E731, B023
        assert target[0, 0, 1, index(9)] == 1.0
        assert target[0, 1, 0, index(0)] == target[0, 1, 1, index(9)] == 0.5
        assert target[0, 1, 3, index(4)] == target[0, 1, 4, index(7)] == 1.0
        assert known[0].tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
        assert target[0, :2, :3].sum(dim=(1, 2)).tolist() == [1.0, 1.0]


@pytest.fixture
def scored(tiny_config: MakeConfig) -> TrainConfig:
    return override(tiny_config("cross_entropy"), loss__score_weight=0.3, loss__style_weight=0.1)


@pytest.fixture
def songs(tmp_path: Path) -> list[Track]:
    """Features that ring at the root of each chord, with their annotations."""
    rng = np.random.default_rng(0)
    tracks = []
    for number in range(12):
        tonic = int(rng.integers(12))
        moments = 40
        roots = np.repeat((tonic + np.array([0, 5, 7, 0])) % 12, moments // 4)
        score = np.stack([roots, np.full(moments, MAJOR), roots, roots], axis=1).astype(np.uint8)
        frames = int(moments * FRAME_SECONDS * 22050 / 512)
        levels = np.full((frames, 99), 30, dtype=np.uint8)
        for frame in range(frames):
            levels[
                frame, (int(roots[min(moments - 1, int(frame * 512 / 22050 / FRAME_SECONDS))]) - LOWEST) % 12 :: 12
            ] = 220
        np.save(tmp_path / f"{number}.npy", levels)
        with (tmp_path / f"{number}{SCORE}").open("wb") as file:
            np.save(file, score)
        tracks.append(Track(tmp_path / f"{number}.npy", Key(tonic, "major"), style=number % 3))
    return tracks


def test_a_batch_carries_the_scores_of_its_segments(scored: TrainConfig, songs: list[Track]) -> None:
    batch = StepDataset([], songs, scored, (1,))[0]
    assert batch.is_scored
    assert batch.score.shape == (8, batch.first.shape[1] // scored.input.frames_averaged, 4)
    assert set(batch.styles.tolist()) <= {0, 1, 2}
    for segment, score in zip(batch.first.numpy(), batch.score.numpy(), strict=True):
        loudest = (segment[2 :: scored.input.frames_averaged].argmax(axis=1) + LOWEST) % 12
        assert np.mean(loudest[: len(score)] == score[:, 0]) > 0.9
    bare = StepDataset([], songs, without(scored), (1,))[0]
    assert not bare.is_scored
    assert torch.equal(bare.first, batch.first)  # auxiliary losses do not change the segments that are drawn


def without(config: TrainConfig) -> TrainConfig:
    return override(config, loss__score_weight=0.0, loss__style_weight=0.0)


def test_tracks_without_a_score_have_no_auxiliary_loss(scored: TrainConfig, songs: list[Track]) -> None:
    bare = [replace(track, style=UNKNOWN_STYLE) for track in songs]
    for track in bare:
        track.features.with_suffix(SCORE).unlink()
    batch = StepDataset([], bare, scored, (1,))[0]
    heads, network = AuxiliaryHeads(scored.network), ChromaNet(scored.network)
    inputs = torch.rand(8, 1, scored.network.n_bins, 16)
    losses = heads(network.blocks(inputs), batch)
    assert losses["score"] == losses["style"] == 0.0


def test_the_heads_learn_and_are_not_saved(scored: TrainConfig, songs: list[Track], tmp_path: Path) -> None:
    config = override(scored, optimizer__epochs=6, optimizer__train_steps=10)
    seen: list[dict[str, float]] = []

    class Losses(Watcher):
        def on_step(self, step: int, losses: dict[str, float], *_: Any) -> None:
            seen.append(losses)

        def on_epoch(self, *_: Any) -> None: ...

        def on_message(self, _: str) -> None: ...

    run = Run(config, tmp_path / "run", [], songs, [], songs, torch.device("cpu"), watchers=[Losses()])
    run.train()
    assert np.mean([losses["score"] for losses in seen[-10:]]) < 0.8 * np.mean(
        [losses["score"] for losses in seen[:10]]
    )
    assert seen[0]["total"] == pytest.approx(seen[0]["key"] + 0.3 * seen[0]["score"] + 0.1 * seen[0]["style"], rel=1e-5)
    saved = load_checkpoint(tmp_path / "run" / "last.pt")
    assert set(saved.weights) == set(ChromaNet(config.network).state_dict())
    again = Run(config, tmp_path / "run", [], songs, [], songs, torch.device("cpu"))
    again.resume()
    assert again.auxiliary is not None
    assert run.auxiliary is not None
    for mine, theirs in zip(again.auxiliary.parameters(), run.auxiliary.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_styles_come_from_the_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,key,style\na.npy,C major,trap\nb.npy,C major,tune\n")
    assert read_styles(tmp_path / "labels.csv") == {(tmp_path / "a.npy").resolve(): list(STYLES).index("trap")}
    (tmp_path / "bare.csv").write_text("path,key\na.npy,C major\n")
    assert read_styles(tmp_path / "bare.csv") == {}


def test_a_batch_without_scores_has_no_targets() -> None:
    empty = torch.empty(0)
    assert not Batch(empty, empty, empty, empty).is_scored
