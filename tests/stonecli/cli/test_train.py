"""``stone train``: tiny runs, their settings and their data."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stonecli.key import Key
from tests.stonecli.cli.train_runs import CONFIGURATION, lines, refused

torch = pytest.importorskip("torch")

from stonecli.jobs import END_SIGNALS  # noqa: E402
from stonecli_train.checkpoint import load_checkpoint  # noqa: E402


class TestRun:
    @pytest.mark.parametrize(("loss", "given"), [("stone", "data"), ("semi_tone", "both"), ("skey", "data")])
    def test_a_tiny_run(
        self, loss: str, given: str, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        unlabeled = ["--data", recordings / "music"]
        if given == "both":
            (recordings / "half.csv").write_text("\n".join((recordings / "labels.csv").read_text().splitlines()[:5]))
            unlabeled += ["--labels", recordings / "half.csv"]
        result = invoke(*train_arguments(loss, *unlabeled, "-n", "first", "-c", "1", "--lr", "0.005"))
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

    def test_the_plan_is_printed_before_the_first_step(
        self, recordings: Path, train_arguments: Any, invoke: Any
    ) -> None:
        result = invoke(*train_arguments("stone"), "--data", recordings / "music")
        assert result.exit_code == 0, result.stderr
        first, second, *_ = lines(result.stdout)
        assert re.fullmatch(r"plan: \d+ steps of \d+ windows, about \d+\.\d hours and \d\.\d GB of memory", first)
        assert second.startswith("epoch 1")

    def test_the_cache_is_used_again(
        self, recordings: Path, train_arguments: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        invoke(*train_arguments("stone", "--data", recordings / "music", "-e", "1"))
        monkeypatch.setattr("stonecli_train.features.read_track", lambda *_: pytest.fail("decoded again"))
        result = invoke(*train_arguments("stone", "--data", recordings / "music", "-n", "other", "-e", "1"))
        assert (result.exit_code, result.stderr) == (0, "")

    def test_beginning_with_a_checkpoint(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        data = ("--data", recordings / "music", "-e", "1")
        assert invoke(*train_arguments("skey", *data)).exit_code == 0
        first = tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt"
        result = invoke(*train_arguments("skey", *data, "-n", "second", "--from", first, "--lr", "1e-12"))
        assert result.exit_code == 0, result.stderr
        one, other = (load_checkpoint(path).weights for path in (first, first.parents[1] / "second" / "last.pt"))
        learnt = [name for name in one if "running" not in name and "batches" not in name]
        assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in learnt)

        (tmp_path / "text.pt").write_text("text")
        for path, reason in (("text.pt", "not a readable checkpoint"), ("none.pt", "no such file or folder")):
            line = refused(invoke(*train_arguments("skey", *data, "-n", "third", "--from", tmp_path / path)), 2)
            assert line.startswith(f"{tmp_path / path}: {reason}")

    def test_signal_handlers_are_restored(self, recordings: Path, train_arguments: Any, invoke: Any) -> None:
        def handler(*_: Any) -> None: ...

        numbers = END_SIGNALS
        before = [signal.signal(number, handler) for number in numbers]
        try:
            assert invoke(*train_arguments("stone", "--data", recordings / "music", "-e", "1")).exit_code == 0
            assert [signal.getsignal(number) for number in numbers] == [handler] * len(END_SIGNALS)
        finally:
            for number, was in zip(numbers, before, strict=True):
                signal.signal(number, was)


class TestSettings:
    def test_a_configuration_is_found_by_its_name(self, recordings: Path, invoke: Any, tmp_path: Path) -> None:
        few = ("-e", "1", "--train-steps", "1", "--val-steps", "1", "--batch-size", "2", "--workers", "0")
        result = invoke(
            "train", "--type", "ks", "--data", recordings / "music", "-g", "laptop_ks", "-s", tmp_path / "runs", *few
        )
        assert result.exit_code == 0, result.stderr
        made = load_checkpoint(tmp_path / "runs" / "models" / "ks" / "7" / "basic" / "last.pt")
        assert made.frames_averaged == 4

    def test_flags_override_the_file(self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path) -> None:
        flags = ["-e", "1", "--train-steps", "2", "--val-steps", "2", "--batch-size", "2", "--lr", "0.5", "--seed", "9"]
        assert invoke(*train_arguments("stone", "--data", recordings / "music", *flags)).exit_code == 0
        config = load_checkpoint(tmp_path / "models" / "ks" / "7" / "basic" / "last.pt").config
        optimizer = config["optimizer"]
        names = ("epochs", "train_steps", "val_steps", "lr", "seed")
        assert [optimizer[name] for name in names] == [1, 2, 2, 0.5, 9]
        assert config["data"]["batch_size"] == 2

    def test_the_originals_short_options(self, recordings: Path, invoke: Any, tmp_path: Path) -> None:
        run = [
            "train",
            "-tt",
            "ks",
            "-g",
            recordings / "stone.toml",
            "--data",
            recordings / "music",
            "--cache",
            recordings / "cache",
        ]
        result = invoke(*run, "-s", tmp_path, "-n", "short", "-c", "1", "-e", "1", "-ts", "2", "-vs", "3", "-lr", "0.5")
        assert result.exit_code == 0, result.stderr
        config = load_checkpoint(tmp_path / "models" / "ks" / "1" / "short" / "last.pt").config
        assert [config["optimizer"][name] for name in ("train_steps", "val_steps", "lr")] == [2, 3, 0.5]

    def test_any_value_can_be_set(self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path) -> None:
        labels = ["--data", recordings / "music", "--labels", recordings / "labels.csv", "-e", "1"]
        sets = [
            "--set",
            "loss.mode_weight=2",
            "--set",
            "network.out_channels = [3, 6, 5]",
            "--set",
            "data.augment=true",
        ]
        assert invoke(*train_arguments("semi_tone", *labels, *sets)).exit_code == 0
        config = load_checkpoint(tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt").config
        assert config["loss"]["mode_weight"] == 2.0
        assert config["network"]["out_channels"] == [3, 6, 5]
        assert config["data"]["augment"] is True
        for wrong, reason in (
            ("loss.mode_wait=2", "unknown setting loss.mode_wait; did you mean mode_weight?"),
            ("loss.mode_weight=two", "loss.mode_weight must be a valid number, not 'two'"),
            ("mode_weight=2", "'mode_weight=2' must be TABLE.NAME=VALUE"),
        ):
            assert reason in refused(invoke(*train_arguments("semi_tone", *labels, "--set", wrong)), 2)


class TestGeneratedMusic:
    @pytest.mark.parametrize("kind", ["ks", pytest.param("ks_mode", marks=pytest.mark.slow)])
    def test_without_data_it_trains_on_music_that_it_generates(
        self, kind: str, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


class TestTeachers:
    def test_teachers_analyze_the_music_first(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        own = Path(__file__).resolve().parents[3] / "checkpoints" / "stone_8.pt"
        text = (recordings / "semi_tone.toml").read_text().replace('name = "semi_tone"', 'name = "cross_entropy"')
        text = text.replace("frames_averaged = 4", "frames_averaged = 4\ncorrects_tuning = true")
        (recordings / "pseudo_labels.toml").write_text(
            text.replace("[data]", 'unlabeled = "pseudo_labels"\nmin_confidence = 0.2\n[data]')
        )
        (recordings / "half.csv").write_text("\n".join((recordings / "labels.csv").read_text().splitlines()[:5]))
        (recordings / "long").mkdir(exist_ok=True)
        soundfile.write(
            recordings / "long" / "a.wav", np.tile(soundfile.read(recordings / "music" / "6.wav")[0], 4), 22050
        )
        given = ["--data", recordings / "long", "--labels", recordings / "half.csv"]
        result = invoke(*train_arguments("pseudo_labels", *given, "--teacher", own, "--teacher", own))
        assert (result.exit_code, result.stderr.count("the teachers are confident of")) == (0, 1), result.stderr
        assert list((recordings / "cache" / "pseudo_labels").iterdir())
        assert (
            load_checkpoint(tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt").config["loss"][
                "min_confidence"
            ]
            == 0.2
        )
        for wrong in (["--data", recordings / "long"], ["--labels", recordings / "half.csv", "--teacher", own]):
            assert invoke(*train_arguments("pseudo_labels", *wrong)).exit_code == 2
        result = invoke(*train_arguments("semi_tone", *given, "--teacher", own))
        assert (result.exit_code, "--teacher needs" in result.stderr) == (2, True)
        result = invoke(*train_arguments("pseudo_labels", *given, "--teacher", recordings / "labels.csv"))
        assert (result.exit_code, len(lines(result.stderr))) == (2, 1)


class TestTracksWithoutAKey:
    def test_few_tracks_with_a_key_among_many_without(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        text = (recordings / "semi_tone.toml").read_text().replace('name = "semi_tone"', 'name = "cross_entropy"')
        (recordings / "cross_entropy.toml").write_text(text)
        names = [f"{recordings}/music/{number}.wav," for number in range(8)]
        rows = [name + key for name, key in zip(names, ["C", "Am", *["none"] * 6], strict=True)]
        (tmp_path / "few.csv").write_text("\n".join(["path,key", *rows]))
        for seed in ("0", "3"):  # the second, drawn over all, leaves only tracks without a key to validate with
            run = train_arguments("cross_entropy", "--labels", tmp_path / "few.csv", "--seed", seed, "-n", seed)
            assert invoke(*run, "-e", "1").exit_code == 0
        (tmp_path / "few.csv").write_text("\n".join(["path,key", *rows[2:]]))
        line = refused(invoke(*train_arguments("cross_entropy", "--labels", tmp_path / "few.csv")), 1)
        assert line.startswith("the cross_entropy loss needs labels")

    def test_a_supervised_loss_needs_tracks_with_a_key(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        rows = [f"{recordings}/music/{number}.wav,{key}" for number, key in enumerate(["C", "Am", "none", "none"])]
        (tmp_path / "keys.csv").write_text("\n".join(["path,key", *rows]))
        line = refused(invoke(*train_arguments("semi_tone", "--labels", tmp_path / "keys.csv")), 1)
        assert line.startswith("the semi_tone loss cannot learn from tracks without a key")
        assert "--config with the cross_entropy loss" in line
        laptop = (
            Path(__file__).resolve().parents[3] / "train" / "configs" / "laptop_ks_mode.toml"
        )  # the one of the manual
        small = ["-e", "1", "--train-steps", "1", "--val-steps", "1", "--batch-size", "2", "--workers", "0"]
        result = invoke(
            *train_arguments("semi_tone", "--labels", tmp_path / "keys.csv", "-g", laptop, *small, "-n", "other")
        )
        assert result.exit_code == 0, result.stderr


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


class TestOwnCode:
    def test_a_custom_data_loader(
        self, train_arguments: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "my_loader.py").write_text(LOADER)
        monkeypatch.chdir(tmp_path)
        result = invoke(*train_arguments("semi_tone", "--loader", "my_loader:batches"))
        assert result.exit_code == 0, result.stderr
        assert [line.split()[0] for line in lines(result.stdout)] == ["plan:", "epoch", "epoch"]
        made = load_checkpoint(tmp_path / "models" / "ks_mode" / "7" / "basic" / "best.pt")
        assert made.trained_on == "batches of my_loader:batches"
        for wrong in ("my_loader:broken", "my_loader:nothing", "no_such_module:x", "os:getcwd", "os"):
            result = invoke(*train_arguments("semi_tone", "--loader", wrong, "-n", "other"))
            assert (result.exit_code, len(lines(result.stderr))) == (1, 1), result.stderr
            assert f"--loader {wrong}: " in result.stderr
        result = invoke(*train_arguments("semi_tone", "--loader", "my_loader:batches", "--data", tmp_path))
        assert result.exit_code == 2

    def test_a_custom_watcher(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "my_own_watchers.py").write_text(WATCHER)
        run = train_arguments("stone", "--data", recordings / "music", "-e", "1")
        result = invoke(*run, "--watcher", "my_own_watchers:Mine")
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / "basic-1.txt").read_text().splitlines() == [
            "from 0", "0 True", "1 True", "2 True", "3 True", "epoch 1",
        ]  # fmt: skip
        for wrong, reason in (
            ("my_own_watchers:Other", "must be a subclass"),
            ("my_own_watchers:None_", "has no attribute"),
            ("no_such_module:Mine", "Python finds no module no_such_module"),
        ):
            assert reason in refused(invoke(*run, "--watcher", wrong), 1)


class TestFromTrainingToTagging:
    def test_a_trained_model_is_exported_and_names_keys_right(self, invoke: Any, tmp_path: Path) -> None:
        """The whole way on the synthesized pitch fork.

        A small network learns cadences in the 24 keys from labels, the export compares its class order with that of the
        pitch fork, and ``stone tag`` names each key.
        """
        pytest.importorskip("onnx")
        from stonecli_export.pitch_fork import play_key

        rate, rows = 22050, ["path,key"]
        for key in Key.all():
            for timbre in range(3):
                name = f"{key.index}-{timbre}.wav"
                soundfile.write(tmp_path / name, 0.5 * play_key(key, timbre, 12.0, rate), rate)
                rows.append(f"{name},{key.name}")
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        toml = CONFIGURATION.format(rows=2, norm="plain", loss="cross_entropy").replace("[3, 6, 4]", "[4, 8, 8]")
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
