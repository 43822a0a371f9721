from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.fixture_types import MakeMusic, StartProcess

torch = pytest.importorskip("torch")

from stonecli.jobs import END_SIGNALS  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli_train.checkpoint import load_checkpoint  # noqa: E402

TOML = """
[network]
rows = {rows}
normalization = "{norm}"
out_channels = [3, 6, 4]
kernels = [5, 5, 3]
[input]
window_seconds = 1.5
frames_averaged = 4
[loss]
name = "{loss}"
[data]
batch_size = 4
validation_share = 0.25
workers = 0
[optimizer]
epochs = 2
train_steps = 4
val_steps = 1
lr = 0.01
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic) -> Path:
    """Eight recordings in ``music``, their keys in ``labels.csv``, tiny configurations, the cache of features."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "music").mkdir()
    rows = ["path,key"]
    for number in range(8):
        key = Key.from_index(5 * number % 24)
        soundfile.write(folder / "music" / f"{number}.wav", music(key.name, seconds=4.0), 22050)
        rows.append(f"music/{number}.wav,{key.musical}")
    (folder / "labels.csv").write_text("\n".join(rows))
    for loss in ("stone", "semi_tone", "skey"):
        rows_, norm = (1, "affine") if loss == "stone" else (2, "plain")
        (folder / f"{loss}.toml").write_text(TOML.format(loss=loss, rows=rows_, norm=norm))
    return folder


@pytest.fixture
def arguments(folder: Path, tmp_path: Path) -> Callable[..., list[str | Path]]:
    """Arguments of a tiny run that saves below ``tmp_path``."""

    def make(loss: str = "stone", *more: str | Path) -> list[str | Path]:
        kind = "ks" if loss == "stone" else "ks_mode"
        config = folder / f"{loss}.toml"
        return [
            "train",
            "--type",
            kind,
            "-g",
            config,
            "-s",
            tmp_path,
            "--cache",
            folder / "cache",
            "--threads",
            "1",
            *more,
        ]

    return make


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


# --- what goes well ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "given"), [("stone", "data"), ("semi_tone", "both"), ("skey", "data")])
def test_a_tiny_run(loss: str, given: str, folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    unlabeled = ["--data", folder / "music"]
    if given == "both":
        (folder / "half.csv").write_text("\n".join((folder / "labels.csv").read_text().splitlines()[:5]))
        unlabeled += ["--labels", folder / "half.csv"]
    result = invoke(*arguments(loss, *unlabeled, "-n", "first", "-c", "1", "--lr", "0.005"))
    assert result.exit_code == 0, result.stderr
    assert [line.split()[:4] for line in lines(result.stdout)] == [
        ["plan:", "8", "steps", "of"],
        ["epoch", "1", "step", "4"],
        ["epoch", "2", "step", "8"],
    ]
    assert ("KSEA" in result.stdout) == (given == "both")
    assert result.stderr == ""
    index = Path("ks" if loss == "stone" else "ks_mode") / "1" / "first"
    models = tmp_path / "models" / index
    assert sorted(path.name for path in models.iterdir()) == [".lock", "best.pt", "last.pt", "log.csv"]
    checkpoint = load_checkpoint(models / "best.pt")
    assert checkpoint.config["optimizer"]["lr"] == 0.005
    assert checkpoint.config["loss"]["circle"] == checkpoint.circle_type == 1
    labeled = 4 if given == "both" else 0
    assert checkpoint.trained_on == f"{8 - labeled} unlabeled and {labeled} labeled tracks"
    with (models / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard" / index), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/total")] == list(range(8))
    assert {"schedule/lr", "schedule/weight_decay", "validation/total"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == ({"circle", "confusion"} if given == "both" else {"circle"})


def test_the_plan_is_printed_before_the_first_step(folder: Path, arguments: Any, invoke: Any) -> None:
    result = invoke(*arguments("stone"), "--data", folder / "music")
    assert result.exit_code == 0, result.stderr
    first, second, *_ = lines(result.stdout)
    assert re.fullmatch(r"plan: \d+ steps of \d+ windows, about \d+\.\d hours and \d\.\d GB of memory", first)
    assert second.startswith("epoch 1")


def test_a_configuration_is_found_by_its_name(folder: Path, invoke: Any, tmp_path: Path) -> None:
    few = ("-e", "1", "--train-steps", "1", "--val-steps", "1", "--batch-size", "2", "--workers", "0")
    result = invoke(
        "train", "--type", "ks", "--data", folder / "music", "-g", "laptop_ks", "-s", tmp_path / "runs", *few
    )
    assert result.exit_code == 0, result.stderr
    made = load_checkpoint(tmp_path / "runs" / "models" / "ks" / "7" / "basic" / "last.pt")
    assert made.frames_averaged == 4


LOADER = """
import torch
from torch.utils.data import IterableDataset

class Batches(IterableDataset):
    def __init__(self, seed):
        self.seed = seed
    def __iter__(self):
        draw = torch.Generator().manual_seed(self.seed)
        while True:
            yield {"audio": torch.randn(2, 33075, 1, generator=draw), "keymode": (["A minor", "C major"],)}
            yield {"audio": torch.randn(2, 33075, 2, generator=draw), "keymode": (["-1", "-1"],)}

def batches(config):
    return Batches(0), Batches(1)

def broken(config):
    return Batches(0)
"""


def test_a_custom_data_loader(arguments: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_loader.py").write_text(LOADER)
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments("semi_tone", "--loader", "my_loader:batches"))
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in lines(result.stdout)] == ["plan:", "epoch", "epoch"]
    made = load_checkpoint(tmp_path / "models" / "ks_mode" / "7" / "basic" / "best.pt")
    assert made.trained_on == "batches of my_loader:batches"
    for wrong in ("my_loader:broken", "my_loader:nothing", "no_such_module:x", "os:getcwd", "os"):
        result = invoke(*arguments("semi_tone", "--loader", wrong, "-n", "other"))
        assert (result.exit_code, len(lines(result.stderr))) == (1, 1), result.stderr
        assert f"--loader {wrong}: " in result.stderr
    result = invoke(*arguments("semi_tone", "--loader", "my_loader:batches", "--data", tmp_path))
    assert result.exit_code == 2


def test_teachers_analyze_the_music_first(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    own = Path(__file__).resolve().parents[3] / "checkpoints" / "stone_7.pt"
    text = (folder / "semi_tone.toml").read_text().replace('name = "semi_tone"', 'name = "cross_entropy"')
    text = text.replace("frames_averaged = 4", "frames_averaged = 4\ncorrects_tuning = true")
    (folder / "pseudo_labels.toml").write_text(
        text.replace("[data]", 'unlabeled = "pseudo_labels"\nmin_confidence = 0.2\n[data]')
    )
    (folder / "half.csv").write_text("\n".join((folder / "labels.csv").read_text().splitlines()[:5]))
    (folder / "long").mkdir(exist_ok=True)
    soundfile.write(folder / "long" / "a.wav", np.tile(soundfile.read(folder / "music" / "6.wav")[0], 4), 22050)
    given = ["--data", folder / "long", "--labels", folder / "half.csv"]
    result = invoke(*arguments("pseudo_labels", *given, "--teacher", own, "--teacher", own))
    assert (result.exit_code, result.stderr.count("the teachers are confident of")) == (0, 1), result.stderr
    assert list((folder / "cache" / "pseudo_labels").iterdir())
    assert (
        load_checkpoint(tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt").config["loss"]["min_confidence"]
        == 0.2
    )
    for wrong in (["--data", folder / "long"], ["--labels", folder / "half.csv", "--teacher", own]):
        assert invoke(*arguments("pseudo_labels", *wrong)).exit_code == 2
    result = invoke(*arguments("semi_tone", *given, "--teacher", own))
    assert (result.exit_code, "--teacher needs" in result.stderr) == (2, True)
    result = invoke(*arguments("pseudo_labels", *given, "--teacher", folder / "labels.csv"))
    assert (result.exit_code, len(lines(result.stderr))) == (2, 1)


def test_the_cache_is_used_again(folder: Path, arguments: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke(*arguments("stone", "--data", folder / "music", "-e", "1"))
    monkeypatch.setattr("stonecli_train.features.read_track", lambda *_: pytest.fail("decoded again"))
    result = invoke(*arguments("stone", "--data", folder / "music", "-n", "other", "-e", "1"))
    assert (result.exit_code, result.stderr) == (0, "")


def test_flags_override_the_file(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    flags = ["-e", "1", "--train-steps", "2", "--val-steps", "2", "--batch-size", "2", "--lr", "0.5", "--seed", "9"]
    assert invoke(*arguments("stone", "--data", folder / "music", *flags)).exit_code == 0
    config = load_checkpoint(tmp_path / "models" / "ks" / "7" / "basic" / "last.pt").config
    optimizer = config["optimizer"]
    names = ("epochs", "train_steps", "val_steps", "lr", "seed")
    assert [optimizer[name] for name in names] == [1, 2, 2, 0.5, 9]
    assert config["data"]["batch_size"] == 2


def test_the_originals_short_options(folder: Path, invoke: Any, tmp_path: Path) -> None:
    run = ["train", "-tt", "ks", "-g", folder / "stone.toml", "--data", folder / "music", "--cache", folder / "cache"]
    result = invoke(*run, "-s", tmp_path, "-n", "short", "-c", "1", "-e", "1", "-ts", "2", "-vs", "3", "-lr", "0.5")
    assert result.exit_code == 0, result.stderr
    config = load_checkpoint(tmp_path / "models" / "ks" / "1" / "short" / "last.pt").config
    assert [config["optimizer"][name] for name in ("train_steps", "val_steps", "lr")] == [2, 3, 0.5]


def test_any_value_can_be_set(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    labels = ["--data", folder / "music", "--labels", folder / "labels.csv", "-e", "1"]
    sets = ["--set", "loss.mode_weight=2", "--set", "network.out_channels = [3, 6, 5]", "--set", "data.augment=true"]
    assert invoke(*arguments("semi_tone", *labels, *sets)).exit_code == 0
    config = load_checkpoint(tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt").config
    assert config["loss"]["mode_weight"] == 2.0
    assert config["network"]["out_channels"] == [3, 6, 5]
    assert config["data"]["augment"] is True
    for wrong, reason in (
        ("loss.mode_wait=2", "unknown setting loss.mode_wait; did you mean mode_weight?"),
        ("loss.mode_weight=two", "loss.mode_weight must be a valid number, not 'two'"),
        ("mode_weight=2", "'mode_weight=2' must be TABLE.NAME=VALUE"),
    ):
        assert reason in refused(invoke(*arguments("semi_tone", *labels, "--set", wrong)), 2)


WATCHER = """
from stonecli_train.loop import Watcher

class Mine(Watcher):
    def __init__(self, config, name):
        self.file = open(f"{name}-{config.optimizer.epochs}.txt", "a")
    def on_resume(self, step): print("from", step, file=self.file)
    def on_step(self, step, losses, lr, weight_decay): print(step, losses["total"] > 0, file=self.file)
    def on_epoch(self, report, network): print("epoch", report.epoch, file=self.file)
    def close(self): self.file.close()

class Other:
    def __init__(self, *_): pass
"""


def test_a_custom_watcher(
    folder: Path, arguments: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_watchers.py").write_text(WATCHER)
    run = arguments("stone", "--data", folder / "music", "-e", "1")
    result = invoke(*run, "--watcher", "my_own_watchers:Mine")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "basic-1.txt").read_text().splitlines() == [
        "from 0", "0 True", "1 True", "2 True", "3 True", "epoch 1",
    ]  # fmt: skip
    for wrong, reason in (
        ("my_own_watchers:Other", "must be a subclass"),
        ("my_own_watchers:None_", "has no attribute"),
        ("no_such_module:Mine", "there is no Python module no_such_module"),
    ):
        assert reason in refused(invoke(*run, "--watcher", wrong), 1)


def test_unreadable_files_are_reported_and_skipped(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    music = tmp_path / "[bold]music"
    music.mkdir()
    for number in range(4):
        (music / f"{number}.wav").write_bytes((folder / "music" / f"{number}.wav").read_bytes())
    (music / "broken.mp3").write_text("no music")
    result = invoke(*arguments("stone", "--data", music, "-e", "1"))
    assert result.exit_code == 0
    assert len(lines(result.stderr)) == 1
    assert "[bold]music/broken.mp3: " in result.stderr


# --- stopping and going on --------------------------------------------------------------------------------------------


LONG = ["-e", "5", "--train-steps", "12"]


@pytest.fixture(scope="module")
def straight(folder: Path, invoke: Any) -> Path:
    """The folder of a run that nothing interrupted."""
    config, data, labels = folder / "semi_tone.toml", folder / "music", folder / "labels.csv"
    options = ["-g", config, "--data", data, "--labels", labels, "-s", folder / "runs", "--cache", folder / "cache"]
    result = invoke("train", "--type", "ks_mode", "--threads", "1", *options, *LONG)
    assert result.exit_code == 0, result.stderr
    return folder / "runs" / "models" / "ks_mode" / "7" / "basic"


SLOW = pytest.mark.slow
WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


@WINDOWS
@pytest.mark.parametrize(
    "name", ["SIGINT", *(pytest.param(name, marks=SLOW) for name in ("SIGTERM", "SIGHUP", "SIGKILL"))]
)
def test_an_interrupted_run_resumes_bit_for_bit(
    name: str,
    straight: Path,
    folder: Path,
    arguments: Any,
    invoke: Any,
    stone_command: list[str],
    start_process: StartProcess,
    tmp_path: Path,
) -> None:
    """Real recordings, a real process, a real signal after the first epoch, to the worker that makes batches as well:
    Ctrl-C as a terminal sends it, SIGTERM as systemd and Slurm do, SIGHUP of a closed terminal, and kill -9."""
    kind = getattr(signal, name)
    run = arguments("semi_tone", "--data", folder / "music", "--labels", folder / "labels.csv", *LONG)
    process = start_process([*stone_command, *map(str, run), "--workers", "1"])
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("plan: ")
    assert process.stdout.readline().startswith("epoch 1 ")
    os.killpg(process.pid, kind)
    process.wait(60)
    errors = process.stderr.read()
    stopped = tmp_path / "models" / "ks_mode" / "7" / "basic"
    done = load_checkpoint(stopped / "last.pt").state["progress"]["step"]
    assert 12 <= done < 60
    if kind == signal.SIGKILL:
        assert process.returncode == -kind
        assert done % 12 == 0
    else:
        assert process.returncode == 130
        assert lines(errors) == ["stone: interrupted; run the same command again to resume"]
    rest = invoke(*run)
    assert rest.exit_code == 0
    assert lines(rest.stdout)[1] == f"resumed after step {done}"
    for name in ("last.pt", "best.pt"):
        one, other = (load_checkpoint(models / name) for models in (straight, stopped))
        assert all(torch.equal(value, other.weights[key]) for key, value in one.weights.items())
        assert all(torch.equal(value, other.state["weights"][key]) for key, value in one.state["weights"].items())
        assert one.state["progress"] == other.state["progress"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=SLOW)])
def test_a_stopped_worker_does_not_delay_the_end(
    name: str, folder: Path, arguments: Any, stone_command: list[str], start_process: Any
) -> None:
    """On a busy machine a worker may not run for seconds; here it is stopped, so that it never does."""
    run = arguments("semi_tone", "--data", folder / "music", "--labels", folder / "labels.csv", *LONG)
    process = start_process([*stone_command, *map(str, run), "--workers", "1"])
    assert process.stdout.readline().startswith("plan: ")
    assert process.stdout.readline().startswith("epoch 1 ")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (worker,) = (int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(worker, signal.SIGSTOP)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, lines(errors)) == (130, ["stone: interrupted; run the same command again to resume"])


@WINDOWS
def test_an_error_ends_the_run_and_its_workers(
    folder: Path, arguments: Any, stone_command: list[str], start_process: StartProcess
) -> None:
    """A checkpoint cannot be written while a worker waits to be asked for its next batch: one line, and the end."""
    run = arguments("semi_tone", "--data", folder / "music", "--labels", folder / "labels.csv", *LONG, "-n", "blocked")
    run[run.index("-s") + 1] = folder / "blocked"
    (folder / "blocked" / "models" / "ks_mode" / "7" / "blocked" / "best.pt").mkdir(parents=True)
    process = start_process([*stone_command, *map(str, run), "--workers", "2"])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = lines(errors)
    assert line.startswith("stone: ")
    assert "is a directory" in line


@pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
@pytest.mark.parametrize("workers", [pytest.param("0", marks=SLOW), "2"])
def test_more_tracks_than_files_may_be_open(
    workers: str, folder: Path, arguments: Any, stone_command: list[str], tmp_path: Path, start_process: Any
) -> None:
    import resource

    rows = ["path,key"]
    for number in range(300):
        np.save(tmp_path / f"{number}.npy", np.full((120, 99), number % 250, dtype=np.uint8))
        rows.append(f"{number}.npy,{'C' if number % 2 else 'Am'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    text = (folder / "semi_tone.toml").read_text().replace('name = "semi_tone"', 'name = "cross_entropy"')
    (folder / "many.toml").write_text(text)
    run = arguments("many", "--labels", tmp_path / "labels.csv", "--batch-size", "128", "--workers", workers)
    process = start_process(
        [*stone_command, *map(str, run)], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    )
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")


def test_signal_handlers_are_restored(folder: Path, arguments: Any, invoke: Any) -> None:
    def handler(*_: Any) -> None: ...

    numbers = END_SIGNALS
    before = [signal.signal(number, handler) for number in numbers]
    try:
        assert invoke(*arguments("stone", "--data", folder / "music", "-e", "1")).exit_code == 0
        assert [signal.getsignal(number) for number in numbers] == [handler] * len(END_SIGNALS)
    finally:
        for number, was in zip(numbers, before, strict=True):
            signal.signal(number, was)


def test_a_run_of_another_architecture(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    assert invoke(*arguments("skey", "--data", folder / "music", "-e", "1")).exit_code == 0
    last = tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt"
    before = last.read_bytes()
    other = tmp_path / "other.toml"
    other.write_text((folder / "skey.toml").read_text().replace("[3, 6, 4]", "[3, 6, 5]"))
    result = invoke(*arguments("skey", "--data", folder / "music", "-g", other))
    assert result.exit_code == 1
    (line,) = lines(result.stderr)
    assert line.startswith(f"stone: {last.parent}: holds a run of another architecture")
    assert last.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "before"),
    [("--seed", "3", "optimizer.seed = 0"), ("--batch-size", "2", "data.batch_size = 4"), ("--lr", "1", "lr = 0.01")],
)
def test_a_run_with_other_settings_is_resumed_only_when_asked_to(
    option: str, value: str, before: str, folder: Path, arguments: Any, invoke: Any, tmp_path: Path
) -> None:
    run = arguments("stone", "--data", folder / "music", "-e", "1")
    assert invoke(*run).exit_code == 0
    last = tmp_path / "models" / "ks" / "7" / "basic" / "last.pt"
    content = last.read_bytes()
    line = refused(invoke(*run, option, value), 1)
    assert before in line
    assert line.endswith("choose another --name, or resume it with --allow-changes")
    assert last.read_bytes() == content
    assert invoke(*run, option, value, "--allow-changes").exit_code == 0
    assert invoke(*run, "-e", "2").exit_code == 0  # more epochs are no other run


def test_a_run_with_other_tracks_is_resumed_only_when_asked_to(
    folder: Path, arguments: Any, invoke: Any, tmp_path: Path
) -> None:
    music = tmp_path / "music"
    shutil.copytree(folder / "music", music)
    run = arguments("stone", "--data", music)
    assert invoke(*run, "-e", "1").exit_code == 0
    last = tmp_path / "models" / "ks" / "7" / "basic" / "last.pt"
    before = load_checkpoint(last).state["split"]
    assert [len(before[part].split()) for part in ("training", "validation")] == [6, 2]
    music.rename(tmp_path / "moved")
    run[run.index(music)] = music = tmp_path / "moved"
    assert invoke(*run, "-e", "2").exit_code == 0  # a folder that was moved holds the same tracks

    soundfile.write(music / "A new one.wav", soundfile.read(music / "0.wav")[0][::-1], 22050)
    (music / "7.wav").unlink()
    line = refused(invoke(*run, "-e", "3"), 1)
    assert "this run was started with other tracks (1 new, 1 missing)" in line
    assert invoke(*run, "-e", "3", "--allow-changes").exit_code == 0
    after = load_checkpoint(last).state["split"]
    assert set(after["validation"].split()) <= set(before["validation"].split())
    assert not set(after["training"].split()) & set(before["validation"].split())


def test_data_is_checked_before_anything_is_decoded(
    folder: Path, arguments: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stonecli_train.features.read_track", lambda *_: pytest.fail("decoded"))
    rows = [f"{folder}/music/{number}.wav,none" for number in range(4)]
    (tmp_path / "keys.csv").write_text("\n".join(["path,key", *rows]))
    line = refused(invoke(*arguments("semi_tone", "--labels", tmp_path / "keys.csv", "--cache", tmp_path / "new")), 1)
    assert line.startswith("the semi_tone loss cannot learn from tracks without a key")


def test_a_damaged_checkpoint_is_named(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    last = tmp_path / "models" / "ks" / "7" / "basic" / "last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"\x80\x02}q\x00.")
    assert refused(invoke(*arguments("stone", "--data", folder / "music")), 1).startswith(f"{last}: not a")
    assert last.read_bytes() == b"\x80\x02}q\x00."


def test_beginning_with_a_checkpoint(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    data = ("--data", folder / "music", "-e", "1")
    assert invoke(*arguments("skey", *data)).exit_code == 0
    first = tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt"
    result = invoke(*arguments("skey", *data, "-n", "second", "--from", first, "--lr", "1e-12"))
    assert result.exit_code == 0, result.stderr
    one, other = (load_checkpoint(path).weights for path in (first, first.parents[1] / "second" / "last.pt"))
    learnt = [name for name in one if "running" not in name and "batches" not in name]
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in learnt)

    (tmp_path / "text.pt").write_text("text")
    for path, reason in (("text.pt", "not a readable checkpoint"), ("none.pt", "no such file or folder")):
        line = refused(invoke(*arguments("skey", *data, "-n", "third", "--from", tmp_path / path)), 2)
        assert line.startswith(f"{tmp_path / path}: {reason}")


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(result: Any, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = lines(result.stderr)
    assert line.startswith("stone: ")
    return line.removeprefix("stone: ")


@pytest.mark.parametrize("kind", ["ks", pytest.param("ks_mode", marks=SLOW)])
def test_without_data_it_trains_on_music_that_it_generates(
    kind: str, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stonecli_train.generated.EXCERPTS", 24)
    small = [
        "-e",
        "1",
        "--train-steps",
        "2",
        "--val-steps",
        "1",
        "--batch-size",
        "4",
        "--workers",
        "0",
        "--threads",
        "1",
    ]
    result = invoke("train", "--type", kind, "-s", tmp_path, *small)
    assert result.exit_code == 0, result.stderr
    (line,) = lines(result.stderr)
    assert line.startswith("stone: training on 24 excerpts of music that stone generates")
    assert "--data FOLDER" in line
    checkpoint = load_checkpoint(tmp_path / "models" / kind / "7" / "basic" / "best.pt")
    assert checkpoint.trained_on == "0 unlabeled and 24 labeled tracks"
    assert checkpoint.config["input"]["frames_averaged"] == 8  # of the configuration for a laptop


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden"])
def test_a_run_name_that_cannot_be_a_folder(name: str, folder: Path, arguments: Any, invoke: Any) -> None:
    assert "--name" in refused(invoke(*arguments("stone", "--data", folder / "music", "-n", name)), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimzer]\nlr = 1.0", "run.toml: unknown setting optimzer; did you mean optimizer?"),
        ("[data]\nbatch_sizes = 1", "run.toml: unknown setting data.batch_sizes; did you mean batch_size?"),
        ("[data]\nbatch_size = 'x'", "run.toml: data.batch_size must be a valid whole number, not 'x'"),
        ("[data\n", "run.toml: "),
    ],
)
def test_mistakes_in_the_configuration(text: str, message: str, folder: Path, invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    result = invoke("train", "--type", "ks", "--data", folder / "music", "-g", tmp_path / "run.toml", "-s", tmp_path)
    assert refused(result, 2).startswith(message)


def test_other_wrong_settings(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    data = ["--data", folder / "music"]
    assert "none.toml: no such file" in refused(invoke(*arguments("stone", *data, "-g", tmp_path / "none.toml")), 2)
    assert "--lr must be a number of at least 0" in refused(invoke(*arguments("stone", *data, "--lr", "-1")), 2)
    assert "is for --type ks_mode" in refused(invoke(*arguments("stone", *data, "-g", folder / "skey.toml")), 2)
    assert not (tmp_path / "models").exists()


def test_a_cache_that_cannot_be_written_is_an_error_at_once(
    folder: Path, arguments: Any, invoke: Any, tmp_path: Path
) -> None:
    """Also without --data, before music is generated; root may write everywhere but below a file."""
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    for data in (["--data", folder / "music"], []):
        assert str(cache) in refused(invoke(*arguments("stone", *data, "--cache", cache)), 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda_device(folder: Path, arguments: Any, invoke: Any) -> None:
    assert "no CUDA device" in refused(invoke(*arguments("stone", "--data", folder / "music", "--device", "cuda")), 2)


def test_a_folder_without_audio(arguments: Any, invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(invoke(*arguments("stone", "--data", tmp_path / "empty")), 1)
    assert line == f"no audio to train on in {tmp_path / 'empty'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,key\n{music}/0.wav,C\n{music}/1.wav,H\n", "labels.csv: line 3: not a key: 'H'"),
        ("path,key\nnone.wav,C\n", "labels.csv: line 2: no such file: none.wav"),
        (
            "file,key\n{music}/0.wav,C\n",
            "labels.csv: line 1: no column path (columns: file, key); it must name the columns path and key",
        ),
        ("path,key\n", "labels.csv: the file contains no labels"),
    ],
)
def test_mistakes_in_labels(text: str, message: str, folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text.format(music=folder / "music"))
    assert refused(invoke(*arguments("stone", "--labels", tmp_path / "labels.csv")), 1) == message


def test_few_tracks_with_a_key_among_many_without(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    text = (folder / "semi_tone.toml").read_text().replace('name = "semi_tone"', 'name = "cross_entropy"')
    (folder / "cross_entropy.toml").write_text(text)
    names = [f"{folder}/music/{number}.wav," for number in range(8)]
    rows = [name + key for name, key in zip(names, ["C", "Am", *["none"] * 6], strict=True)]
    (tmp_path / "few.csv").write_text("\n".join(["path,key", *rows]))
    for seed in ("0", "3"):  # the second, drawn over all, leaves only tracks without a key to validate with
        run = arguments("cross_entropy", "--labels", tmp_path / "few.csv", "--seed", seed, "-n", seed)
        assert invoke(*run, "-e", "1").exit_code == 0
    (tmp_path / "few.csv").write_text("\n".join(["path,key", *rows[2:]]))
    line = refused(invoke(*arguments("cross_entropy", "--labels", tmp_path / "few.csv")), 1)
    assert line.startswith("the cross_entropy loss needs labels")


def test_a_supervised_loss_needs_tracks_with_a_key(folder: Path, arguments: Any, invoke: Any, tmp_path: Path) -> None:
    rows = [f"{folder}/music/{number}.wav,{key}" for number, key in enumerate(["C", "Am", "none", "none"])]
    (tmp_path / "keys.csv").write_text("\n".join(["path,key", *rows]))
    line = refused(invoke(*arguments("semi_tone", "--labels", tmp_path / "keys.csv")), 1)
    assert line.startswith("the semi_tone loss cannot learn from tracks without a key")
    assert "--config with the cross_entropy loss" in line
    laptop = Path(__file__).resolve().parents[3] / "train" / "configs" / "laptop_ks_mode.toml"  # the one of the manual
    small = ["-e", "1", "--train-steps", "1", "--val-steps", "1", "--batch-size", "2", "--workers", "0"]
    result = invoke(*arguments("semi_tone", "--labels", tmp_path / "keys.csv", "-g", laptop, *small, "-n", "other"))
    assert result.exit_code == 0, result.stderr


def test_missing_labels(arguments: Any, invoke: Any, tmp_path: Path) -> None:
    line = refused(invoke(*arguments("stone", "--labels", tmp_path / "none.csv")), 1)
    assert line == f"{tmp_path / 'none.csv'}: no such file or folder"


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
from stonecli.cli.main import run
run()
"""


@pytest.mark.parametrize("name", ["torch", "tensorboard"])
def test_without_the_extra(name: str, folder: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-c",
        BLOCK.format(name=name),
        "train",
        "--type",
        "ks",
        "--data",
        folder / "music",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert (done.returncode, done.stdout) == (2, "")
    assert lines(done.stderr) == [f"stone: stone train needs {name}; install it: pip install 'stonecli[train]'"]


# --- from training to tagging -----------------------------------------------------------------------------------------


def test_a_trained_model_is_exported_and_names_keys_right(invoke: Any, tmp_path: Path) -> None:
    """Slow (about 20 s): the whole way on the synthesized pitch fork. A small network learns cadences in the 24 keys
    from labels, the export compares its class order with that of the pitch fork, and ``stone tag`` names each key."""
    pytest.importorskip("onnx")
    from stonecli_export.pitch_fork import play_key

    rate, rows = 22050, ["path,key"]
    for key in Key.all():
        for timbre in range(3):
            name = f"{key.index}-{timbre}.wav"
            soundfile.write(tmp_path / name, 0.5 * play_key(key, timbre, 12.0, rate), rate)
            rows.append(f"{name},{key.name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    toml = TOML.format(rows=2, norm="plain", loss="cross_entropy").replace("[3, 6, 4]", "[4, 8, 8]")
    toml = toml.replace("window_seconds = 1.5", "window_seconds = 6.0").replace("batch_size = 4", "batch_size = 24")
    (tmp_path / "run.toml").write_text(toml)
    steps = ["-e", "1", "--train-steps", "120", "--lr", "0.02", "--threads", "1", "-s", tmp_path]
    result = invoke(
        "train", "--type", "ks_mode", "--labels", tmp_path / "labels.csv", "-g", tmp_path / "run.toml", *steps
    )
    assert result.exit_code == 0, result.stderr
    model = tmp_path / "model.onnx"
    result = invoke("export", tmp_path / "models" / "ks_mode" / "7" / "basic" / "best.pt", model)
    assert result.exit_code == 0, result.stderr
    songs = tmp_path / "songs"
    songs.mkdir()
    for key in Key.all():
        soundfile.write(songs / f"{key.index}.wav", 0.3 * play_key(key, key.index % 3, 14.0, rate), rate)
    result = invoke("tag", songs, "--model", model, "--json", "--jobs", "1")
    assert result.exit_code == 0, result.stderr
    answers = [json.loads(line) for line in lines(result.stdout)]
    detected = {int(Path(answer["path"]).stem): answer["key"]["musical"] for answer in answers if answer["key"]}
    assert detected == {key.index: key.musical for key in Key.all()}
