from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from stonecli_train import loop  # noqa: E402
from stonecli_train.checkpoint import (  # noqa: E402
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from stonecli_train.chromanet import ChromaNet  # noqa: E402
from stonecli_train.config import TrainConfig, config_from_dict, override  # noqa: E402
from stonecli_train.data import DataError, Track, WaveformTracks  # noqa: E402
from stonecli_train.loop import EpochReport, Run, TrainError, Watcher  # noqa: E402
from stonecli_train.metrics import score_network, track_profile  # noqa: E402
from stonecli_train.schedules import learning_rate, weight_decay  # noqa: E402
from stonecli_train.views import batch_loss, class_names  # noqa: E402
from tests.train.fixture_types import MakeTracks  # noqa: E402

CPU = torch.device("cpu")
Config = Callable[..., TrainConfig]


class Recorder(Watcher):
    """A watcher that records its calls."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.rates: list[tuple[float, float]] = []
        self.epochs: list[EpochReport] = []
        self.messages: list[str] = []
        self.averages: list[dict[str, Tensor]] = []

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        self.steps.append(step)
        self.losses.append(losses["total"])
        self.rates.append((lr, weight_decay))

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        self.epochs.append(report)
        self.averages.append({name: value.clone() for name, value in network.state_dict().items()})

    def on_message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def start(tmp_path: Path, make_tracks: MakeTracks) -> Callable[..., Run]:
    """Makes a run on drawn tracks: ``start(config, "name", labeled=True)``; its watcher is ``run.watchers[0]``."""
    folder = tmp_path / "features"
    unlabeled = make_tracks(folder / "u", 8, labeled=False)
    labeled = make_tracks(folder / "l", 24, labeled=True, seed=50)
    check = make_tracks(folder / "v", 24, labeled=True, seed=90)

    def make(config: TrainConfig, name: str = "run", *, data: str = "unlabeled", **more: Any) -> Run:
        bare = [Track(track.features) for track in check[:4]]
        has = {"unlabeled": (1, 0), "labeled": (0, 1), "mixed": (1, 1)}[data]
        parts = [part if there else [] for part, there in zip((unlabeled, labeled, bare, check), has * 2, strict=True)]
        first, second, third, fourth = parts
        return Run(config, tmp_path / name, first, second, third, fourth, CPU, watchers=[Recorder()], **more)

    return make


def recorder(run: Run) -> Recorder:
    watcher = run.watchers[0]
    assert isinstance(watcher, Recorder)
    return watcher


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All single values of a checkpoint's nested content."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from tensors(item, f"{path}/{key}")
    else:
        yield path, value


def assert_same_checkpoint(one: Path, other: Path) -> None:
    """Bit for bit: every tensor, number and word."""
    first, second = (dict(tensors(vars(load_checkpoint(path)))) for path in (one, other))
    assert first.keys() == second.keys()
    assert sum(isinstance(value, Tensor) for value in first.values()) > 100
    for name, value in first.items():
        if isinstance(value, Tensor):
            assert value.dtype == second[name].dtype, name
            assert torch.equal(value, second[name]), name
        else:
            assert value == second[name], name


def test_unusable_validation_tracks_are_refused_first(start: Any, tiny_config: Config) -> None:
    run = start(tiny_config("cross_entropy"), data="labeled")
    run.validation_labeled = [replace(track, key=None, keyless=True) for track in run.validation_labeled]
    with pytest.raises(DataError, match="for training and validation"):
        run.train()
    assert recorder(run).steps == []


# --- the optimizer ----------------------------------------------------------------------------------------------------


def test_the_schedules_reach_the_optimizer(start: Any, tiny_config: Config) -> None:
    config = tiny_config(optimizer__warmup_epochs=1.0, optimizer__epochs=2)
    run = start(config)
    run.train()
    expected = [(learning_rate(step, config.optimizer), weight_decay(step, config.optimizer)) for step in range(10)]
    assert recorder(run).steps == list(range(10))
    assert recorder(run).rates == expected
    decays, rest = run.optimizer.param_groups
    assert (decays["lr"], decays["weight_decay"], rest["lr"], rest["weight_decay"]) == (
        *expected[-1],
        expected[-1][0],
        0.0,
    )


def test_gradients_are_clipped(start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    real = torch.optim.AdamW.step

    def step(self: Any, *arguments: Any) -> Any:
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    start(tiny_config(optimizer__clip=1e-4)).train()
    assert norms == pytest.approx([1e-4] * 10, rel=1e-2)


# --- the average of weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.995])
def test_the_average_of_weights(decay: float, start: Any, tiny_config: Config) -> None:
    """mean <- d mean + (1 - d) now with d = min(ema, (1 + t) / (20 + t)); running statistics of batch norm as well."""
    run = start(tiny_config("semi_tone", optimizer__ema=decay))
    mean = {name: value.double().clone() for name, value in run.network.state_dict().items()}
    seen: dict[str, set[Any]] = {name: set() for name in mean}
    for step, batch in zip(range(6), run.new_stream(), strict=False):
        run.progress.step = step
        run.train_step(batch)
        d = min(decay, (1 + step) / (20 + step)) if decay else 0.0
        for name, value in run.network.state_dict().items():
            mean[name] = d * mean[name] + (1 - d) * value.double() if value.is_floating_point() else value.double()
            seen[name].add(value.double().sum().item())
    assert len(seen["batch_norm.running_mean"]) == 6
    for name, value in run.average.state_dict().items():
        torch.testing.assert_close(value.double(), mean[name], atol=1e-6, rtol=1e-5)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "data"),
    [("stone", "unlabeled"), ("semi_tone", "mixed"), ("skey", "unlabeled"), ("cross_entropy", "labeled")],
)
def test_the_checkpoints(loss: str, data: str, start: Any, tiny_config: Config) -> None:
    config = tiny_config(loss, optimizer__ema=0.9, loss__circle=1)
    run = start(config, data=data, trained_on="drawn tracks")
    progress = run.train()
    assert (progress.step, progress.recoveries) == (10, 0)
    assert sorted(path.name for path in run.folder.iterdir()) == ["best.pt", "last.pt"]
    watched = recorder(run)
    best = max(report.epoch for report in watched.epochs if report.is_best)
    for name, epoch in (("best.pt", best), ("last.pt", 2)):
        checkpoint = load_checkpoint(run.folder / name)
        for key, value in checkpoint.weights.items():
            assert torch.equal(value, watched.averages[epoch - 1][key])
        assert any(
            not torch.equal(value, checkpoint.state["weights"][key]) for key, value in checkpoint.weights.items()
        )
        assert checkpoint.config == config.as_dict() | {"sha256": config.sha256}
        assert config_from_dict({k: v for k, v in checkpoint.config.items() if k != "sha256"}) == config
        assert checkpoint.classes == (None if data == "unlabeled" else class_names(config))
        assert (checkpoint.circle_type, checkpoint.trained_on, checkpoint.train_type) == (
            1,
            "drawn tracks",
            config.train_type,
        )
        assert (checkpoint.frames_averaged, checkpoint.window_seconds) == (4, 1.5)
        x = torch.rand(2, 1, 84, 40)
        with torch.inference_mode():
            assert torch.equal(checkpoint.network()(x), checkpoint.network()(x))


def test_reports(start: Any, tiny_config: Config) -> None:
    run = start(tiny_config("semi_tone"), data="mixed")
    run.train()
    first, second = recorder(run).epochs
    assert (first.epoch, first.step, second.epoch, second.step) == (1, 5, 2, 10)
    assert first.losses["total"] == pytest.approx(sum(recorder(run).losses[:5]) / 5)
    assert second.losses["total"] == pytest.approx(sum(recorder(run).losses[5:]) / 5)
    assert first.losses.keys() == first.validation.keys() == {"key", "mode", "total"}
    assert first.is_best
    assert first.scores is not None
    assert first.scores.tracks == 24
    assert 0 <= first.minutes <= second.minutes


def test_validation_repeats_and_uses_its_own_tracks(start: Any, tiny_config: Config) -> None:
    run = start(tiny_config())
    assert run.validate() == run.validate()
    before = run.validate()
    run.network.classifier.weight.data.mul_(3)
    assert run.validate() == before  # it is the average that is validated
    run.average.classifier.weight.data.mul_(3)
    assert run.validate() != before
    assert not {track.features for track in run.unlabeled} & {track.features for track in run.validation_unlabeled}


def test_labels_decide_which_checkpoint_is_best(
    start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With labels it is the one with the best score, without labels that with the lowest loss."""
    falling, rising = iter([3.0, 2.0, 1.0]), iter([0.1, 0.5, 0.4])
    run = start(tiny_config("semi_tone", optimizer__epochs=3, optimizer__train_steps=1), data="mixed")
    monkeypatch.setattr(Run, "validate", lambda self: {"total": next(falling)})
    monkeypatch.setattr(loop, "score_network", lambda *a: replace(score_network(*a), mirex=next(rising)))
    run.train()
    assert [report.is_best for report in recorder(run).epochs] == [True, True, False]


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "data", "changes"),
    [
        ("stone", "unlabeled", {"network__drop_path": 0.5}),
        ("semi_tone", "mixed", {"data__augment": True, "network__drop_path": 0.3}),
        ("skey", "unlabeled", {}),
    ],
)
def test_a_stopped_run_resumes_bit_for_bit(
    loss: str, data: str, changes: dict[str, Any], start: Any, tiny_config: Config
) -> None:
    config = tiny_config(loss, optimizer__epochs=4, optimizer__train_steps=5, **changes)
    straight = start(config, "straight", data=data)
    straight.train()
    losses: list[float] = []
    for stop_after in (3, 4, 12, 99):  # in an epoch, in the same one, in a later one; then to the end
        count = iter(range(stop_after - len(losses) - 1))
        run = start(config, "stopped", data=data, stop=lambda count=count: next(count, None) is None)
        run.train()
        losses += recorder(run).losses
    assert losses == recorder(straight).losses
    assert len(losses) == 20
    assert_same_checkpoint(straight.folder / "last.pt", run.folder / "last.pt")
    assert_same_checkpoint(straight.folder / "best.pt", run.folder / "best.pt")


SCRIPT = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from stonecli_train.config import config_from_dict
from stonecli_train.data import Track
from stonecli_train.loop import Run, Watcher

folder, features, config = Path(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*.npy")), json.loads(sys.argv[3])
class Slow(Watcher):
    def on_step(self, step, *rest):
        print(step, flush=True)
        time.sleep(0.05)
    def on_epoch(self, *rest): pass
    def on_message(self, text): print(text, flush=True)
tracks = [Track(path) for path in features]
Run(config_from_dict(config), folder, tracks[:6], [], tracks[6:], [], torch.device("cpu"), watchers=[Slow()]).train()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_resumes_bit_for_bit(make_tracks: Any, tiny_config: Config, tmp_path: Path) -> None:
    """20 steps without a break equal 10 steps, a SIGKILL, and 10 more."""
    tracks = make_tracks(tmp_path / "features", 8, labeled=False)
    tracks.sort(key=lambda track: track.features)
    config = tiny_config("skey", optimizer__epochs=2, optimizer__train_steps=10, network__drop_path=0.3)
    runs = [Run(config, tmp_path / name, tracks[:6], [], tracks[6:], [], CPU, watchers=[Recorder()]) for name in "ab"]
    runs[0].train()
    command: list[str | Path] = [
        sys.executable,
        "-c",
        SCRIPT,
        tmp_path / "b",
        tmp_path / "features",
        json.dumps(config.as_dict()),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "12":  # in the second epoch: two steps are lost
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "b" / "last.pt").state["progress"]["step"] == 10
    runs[1].train()
    assert recorder(runs[1]).messages == ["resumed after step 10"]
    assert recorder(runs[1]).steps == list(range(10, 20))
    assert_same_checkpoint(tmp_path / "a" / "last.pt", tmp_path / "b" / "last.pt")
    assert_same_checkpoint(tmp_path / "a" / "best.pt", tmp_path / "b" / "best.pt")


def test_snapshots(start: Any, tiny_config: Config) -> None:
    run = start(tiny_config(optimizer__epochs=5, optimizer__snapshot_epochs=2))
    run.train()
    names = ["best.pt", "epoch_0002.pt", "epoch_0004.pt", "last.pt"]
    assert sorted(path.name for path in run.folder.iterdir()) == names
    assert load_checkpoint(run.folder / "epoch_0002.pt").state["progress"]["step"] == 10


def test_a_finished_run_is_not_changed(start: Any, tiny_config: Config) -> None:
    start(tiny_config()).train()
    run = start(tiny_config())
    content = (run.folder / "last.pt").read_bytes()
    run.train()
    assert recorder(run).steps == []
    assert (run.folder / "last.pt").read_bytes() == content


def test_more_epochs_continue_a_run(start: Any, tiny_config: Config) -> None:
    start(tiny_config()).train()
    run = start(tiny_config(optimizer__epochs=3))
    run.train()
    assert recorder(run).steps == list(range(10, 15))


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        ("semi_tone", {}, "another architecture"),
        ("stone", {"network__out_channels": [3, 6, 5]}, "another architecture"),
        ("stone", {"vqt__n_bins": 98}, "another architecture"),
        ("stone", {"input__frames_averaged": 2}, "another architecture"),
        ("stone", {"input__corrects_tuning": True}, "another architecture"),
    ],
)
def test_another_architecture_under_the_same_name(
    loss: str, changes: dict[str, Any], message: str, start: Any, tiny_config: Config
) -> None:
    first = start(tiny_config())
    first.train()
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    other = start(tiny_config(loss, **changes))
    with pytest.raises(TrainError, match=f"{message}; choose another --name"):
        other.train()
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_another_objective_under_the_same_name(start: Any, tiny_config: Config) -> None:
    """The outputs of one mean other keys than those of the other."""
    start(tiny_config("semi_tone"), data="labeled").train()
    with pytest.raises(TrainError, match="uses the semi_tone loss; choose another --name"):
        start(tiny_config("cross_entropy"), data="labeled").train()


def test_a_checkpoint_without_optimizer_state_is_not_resumed(start: Any, tiny_config: Config) -> None:
    run = start(tiny_config())
    run.train()
    save_checkpoint(replace(load_checkpoint(run.folder / "last.pt"), state={}), run.folder / "last.pt")
    with pytest.raises(TrainError, match="cannot be resumed"):
        start(tiny_config()).train()


# --- starting from a model --------------------------------------------------------------------------------------------


@pytest.fixture
def trained(start: Any, tiny_config: Config) -> Checkpoint:
    run = start(tiny_config("cross_entropy"), "before", data="labeled")
    run.train()
    made = load_checkpoint(run.folder / "best.pt")
    calibrated = replace(made.chromanet, temperature=0.5)
    return replace(made, chromanet=calibrated, state={})


def test_fine_tuning_starts_from_the_weights_of_a_model(start: Any, tiny_config: Config, trained: Checkpoint) -> None:
    longer = tiny_config("cross_entropy", optimizer__lr=1e-12, input__window_seconds=2.0)
    assert longer.input.window_seconds != trained.window_seconds
    run = start(longer, data="mixed", start=trained)
    run.train()
    made = load_checkpoint(run.folder / "last.pt")
    weights = {
        name: value for name, value in trained.weights.items() if "running" not in name and "batches" not in name
    }
    for name, value in weights.items():
        torch.testing.assert_close(made.weights[name], value, atol=1e-6, rtol=0)
        torch.testing.assert_close(made.state["weights"][name], value, atol=1e-6, rtol=0)
    assert made.window_seconds == 2.0


def test_a_run_continues_with_dense_blocks(start: Any, tiny_config: Config, trained: Checkpoint) -> None:
    run = start(tiny_config("cross_entropy", network__dense_blocks=2), data="mixed", start=trained)
    run.train()
    made = load_checkpoint(run.folder / "best.pt")
    assert (trained.chromanet.dense_blocks, made.chromanet.dense_blocks) == (0, 2)
    assert any(not torch.equal(value, trained.weights[name]) for name, value in made.weights.items())


def test_a_resumed_run_ignores_the_initial_model(start: Any, tiny_config: Config, trained: Checkpoint) -> None:
    config = tiny_config("cross_entropy", optimizer__epochs=2)
    straight = start(config, "straight", data="labeled", start=trained)
    straight.train()
    count = iter(range(3))
    stopped = start(config, "stopped", data="labeled", start=trained, stop=lambda: next(count, None) is None)
    stopped.train()
    assert 0 < stopped.progress.step < straight.progress.step
    start(config, "stopped", data="labeled", start=trained).train()
    assert_same_checkpoint(straight.folder / "last.pt", stopped.folder / "last.pt")


def test_models_that_cannot_initialize_a_run(start: Any, tiny_config: Config, trained: Checkpoint) -> None:
    assert trained.classes is not None
    other = tiny_config("cross_entropy", input__frames_averaged=2)
    with pytest.raises(TrainError, match="another architecture than the configuration"):
        start(other, data="labeled", start=trained).train()
    turned = replace(trained, classes=(*trained.classes[1:], trained.classes[0]))
    with pytest.raises(TrainError, match="has other classes"):
        start(tiny_config("cross_entropy"), data="labeled", start=turned).train()


# --- failures ---------------------------------------------------------------------------------------------------------


def inject_nan(monkeypatch: pytest.MonkeyPatch, run: Run, at: set[int], times: int = 1) -> None:
    """Make the loss of training steps ``at`` NaN, ``times`` times each."""
    left = dict.fromkeys(at, times)

    def with_nan(logits: Tensor, *rest: Any) -> dict[str, Tensor]:
        terms = batch_loss(logits, *rest)
        if logits.requires_grad and left.get(run.progress.step, 0):
            left[run.progress.step] -= 1
            return {name: value * float("nan") for name, value in terms.items()}
        return terms

    monkeypatch.setattr(loop, "batch_loss", with_nan)


def test_a_loss_of_nan_returns_to_the_best_checkpoint(
    start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tiny_config(optimizer__epochs=3))
    inject_nan(monkeypatch, run, {7})
    progress = run.train()
    watched = recorder(run)
    assert watched.steps == [*range(8), *range(5, 15)]
    assert watched.messages == ["the loss was not finite at step 7; back to the best checkpoint, step 5"]
    assert (progress.step, progress.recoveries) == (15, 1)
    assert watched.losses[5:7] != watched.losses[8:10]  # other batches: the same would lead to the same
    assert all(
        math.isfinite(value)
        for state in watched.averages
        for tensor in state.values()
        for value in tensor.flatten().tolist()
    )
    assert [report.epoch for report in watched.epochs] == [1, 2, 3]
    for report, steps in zip(watched.epochs, (slice(0, 5), slice(8, 13), slice(13, 18)), strict=True):
        assert report.losses["total"] == pytest.approx(sum(watched.losses[steps]) / 5)


def test_the_best_may_be_epochs_ago(start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = iter([1.0, 2.0, 3.0, 2.5, 2.6, 2.7, 2.8])
    monkeypatch.setattr(Run, "validate", lambda self: {"total": next(worse)})
    run = start(tiny_config(optimizer__epochs=3))
    inject_nan(monkeypatch, run, {10})  # the first step of the third epoch; the best is that after the first
    run.train()
    assert recorder(run).steps == [*range(11), *range(5, 15)]
    assert [report.epoch for report in recorder(run).epochs] == [1, 2, 2, 3]
    assert [report.is_best for report in recorder(run).epochs] == [True, False, False, False]


def test_without_a_best_checkpoint_the_error_has_the_remedy(
    start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tiny_config())
    inject_nan(monkeypatch, run, {2})
    with pytest.raises(TrainError, match="not finite at step 2; lower the learning rate"):
        run.train()
    assert not run.folder.exists()


def test_it_returns_to_the_best_checkpoint_only_a_few_times(
    start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tiny_config())
    inject_nan(monkeypatch, run, {6}, times=100)
    with pytest.raises(TrainError, match="not finite at step 6"):
        run.train()
    assert len(recorder(run).messages) == 5


def test_a_recovered_run_resumes_bit_for_bit(start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(optimizer__epochs=3, network__drop_path=0.3)
    with monkeypatch.context() as patch:
        straight = start(config, "straight")
        inject_nan(patch, straight, {7})
        straight.train()
    with monkeypatch.context() as patch:
        count = iter(range(9))
        stopped = start(config, "stopped", stop=lambda: next(count, None) is None)
        inject_nan(patch, stopped, {7})
        stopped.train()
        assert 7 < stopped.progress.step < 15
    start(config, "stopped").train()
    assert_same_checkpoint(straight.folder / "last.pt", stopped.folder / "last.pt")


def test_a_validation_of_nan_is_never_the_best(
    start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([math.nan, 2.0, 1.0])
    monkeypatch.setattr(Run, "validate", lambda self: {"total": next(values)})
    run = start(tiny_config(optimizer__epochs=3))
    run.train()
    assert [report.is_best for report in recorder(run).epochs] == [False, True, True]
    assert run.progress.best == 1.0


def test_it_stops_early(start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([3.0, 2.0, 2.0, 2.5, 1.0])
    monkeypatch.setattr(Run, "validate", lambda self: {"total": next(values)})
    config = tiny_config(optimizer__epochs=9, optimizer__train_steps=1, optimizer__patience=2)
    run = start(config)
    assert run.train().step == 4
    assert recorder(run).messages == ["stopped: the validation has not improved for 2 epochs"]
    again = start(config)
    assert again.train().step == 4
    assert recorder(again).messages == ["resumed after step 4", "stopped: the validation has not improved for 2 epochs"]
    longer = start(override(config, optimizer__patience=3))
    monkeypatch.setattr(Run, "validate", lambda self: {"total": 9.0})
    assert longer.train().step == 5


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "torch.save"])
def test_a_full_disk_keeps_the_old_checkpoints(
    step: str, start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tiny_config(optimizer__epochs=1)).train()
    run = start(tiny_config())
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}

    def full(*arguments: Any) -> None:
        if step == "torch.save":
            arguments[1].write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        run.train()
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    assert start(tiny_config()).train().step == 10  # when there is room again


def test_it_saves_within_long_epochs(start: Any, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[tuple[str, int]] = []
    monkeypatch.setattr(loop, "SAVE_MINUTES", 0.0)
    monkeypatch.setattr(Run, "save", lambda self, name: saved.append((name, self.progress.step)))
    start(tiny_config(optimizer__epochs=1)).train()
    assert saved == [("last.pt", 1), ("last.pt", 2), ("last.pt", 3), ("last.pt", 4), ("best.pt", 5), ("last.pt", 5)]


# --- learning ---------------------------------------------------------------------------------------------------------


def test_labeled_training_learns_keys(start: Any, tiny_config: Config) -> None:
    """On drawn tracks in 24 keys; validation tracks are others, in the same keys."""
    settings = {"optimizer__epochs": 1, "optimizer__train_steps": 30, "optimizer__lr": 0.02, "data__batch_size": 32}
    run = start(tiny_config("cross_entropy", loss__smoothing=0.0, **settings), data="labeled")
    run.train()
    chance, after = 1 / 24, recorder(run).epochs[-1].scores
    assert after is not None
    assert after.accuracy > 0.7 > chance


def test_the_mean_teacher_trains_on_music_without_labels(start: Any, tiny_config: Config) -> None:
    settings = {"optimizer__epochs": 3, "optimizer__train_steps": 30, "optimizer__lr": 0.02, "optimizer__ema": 0.9}
    teaching = {"loss__unlabeled": "mean_teacher", "loss__min_confidence": 0.2, "data__unlabeled_every": 3}
    run = start(tiny_config("cross_entropy", data__batch_size=32, **settings, **teaching), data="mixed")
    run.train()
    unlabeled = recorder(run).losses[::3]  # of the steps without labels
    assert max(unlabeled[-10:]) < 0.7 * max(unlabeled)
    scores = recorder(run).epochs[-1].scores
    assert scores is not None
    assert scores.accuracy > 0.7


@pytest.mark.parametrize("circle", [1, 7])
def test_self_supervised_training_learns_signatures(
    circle: int, start: Any, tiny_config: Config, make_tracks: Any, tmp_path: Path
) -> None:
    """Without labels, the order of the outputs is arbitrary: predictions are compared up to a rotation."""
    settings = {"optimizer__epochs": 1, "optimizer__train_steps": 40, "optimizer__lr": 0.02, "data__batch_size": 16}
    run = start(tiny_config(loss__circle=circle, **settings))
    run.train()
    (report,) = recorder(run).epochs
    assert report.validation["total"] < 1.0 < 3.0  # a flat answer costs 3
    tracks = make_tracks(tmp_path / "new", 24, labeled=True, seed=900)
    answers = [int(track_profile(run.average, track, run.config, CPU).argmax()) for track in tracks]
    rotations = Counter((answer - track.key.signature) % 12 for answer, track in zip(answers, tracks, strict=True))
    assert max(rotations.values()) > 18


def test_custom_waveforms(tiny_config: Config, tmp_path: Path) -> None:
    class Endless:
        def __getitem__(self, step: int) -> Any:
            audio = torch.randn(4, 3 * 11025, 2 - step % 2, generator=torch.Generator().manual_seed(step))
            return (audio, ["C", "Am", "F", "Dm"]) if step % 2 else audio

    config = tiny_config("semi_tone", optimizer__epochs=1)
    run = Run(
        config, tmp_path / "run", [], [], [], [], CPU, watchers=[Recorder()], batches=WaveformTracks(Endless(), config)
    )
    assert run.train().step == 5
    assert all(math.isfinite(loss) for loss in recorder(run).losses)
