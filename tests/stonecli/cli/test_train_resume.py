"""``stone train``: runs that are interrupted, fail, and are resumed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.fixture_types import StartProcess
from tests.stonecli.cli.train_runs import lines, refused

torch = pytest.importorskip("torch")

from stonecli_train.checkpoint import load_checkpoint  # noqa: E402

LONG = ["-e", "5", "--train-steps", "12"]


@pytest.fixture(scope="module")
def straight(recordings: Path, invoke: Any) -> Path:
    """The folder of a run that nothing interrupted."""
    config, data, labels = recordings / "semi_tone.toml", recordings / "music", recordings / "labels.csv"
    options = [
        "-g",
        config,
        "--data",
        data,
        "--labels",
        labels,
        "-s",
        recordings / "runs",
        "--cache",
        recordings / "cache",
    ]
    result = invoke("train", "--type", "ks_mode", "--threads", "1", *options, *LONG)
    assert result.exit_code == 0, result.stderr
    return recordings / "runs" / "models" / "ks_mode" / "7" / "basic"


WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


class TestInterruptedRun:
    @WINDOWS
    @pytest.mark.parametrize(
        "name", ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGHUP", "SIGKILL"))]
    )
    def test_an_interrupted_run_resumes_bit_for_bit(
        self,
        name: str,
        straight: Path,
        recordings: Path,
        train_arguments: Any,
        invoke: Any,
        stone_command: list[str],
        start_process: StartProcess,
        tmp_path: Path,
    ) -> None:
        """Real recordings, a real process, a real signal after the first epoch, also to the worker that makes batches.

        Ctrl-C as a terminal sends it, SIGTERM as systemd and Slurm do, SIGHUP of a closed terminal, and kill -9.
        """
        kind = getattr(signal, name)
        run = train_arguments("semi_tone", "--data", recordings / "music", "--labels", recordings / "labels.csv", *LONG)
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
    @pytest.mark.slow  # the default run has the same of the stream of batches, in tests/train/test_workers.py
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
    def test_a_stopped_worker_does_not_delay_the_end(
        self, name: str, recordings: Path, train_arguments: Any, stone_command: list[str], start_process: Any
    ) -> None:
        """On a busy machine a worker may not run for seconds; here it is stopped, so that it never does."""
        run = train_arguments("semi_tone", "--data", recordings / "music", "--labels", recordings / "labels.csv", *LONG)
        process = start_process([*stone_command, *map(str, run), "--workers", "1"])
        assert process.stdout.readline().startswith("plan: ")
        assert process.stdout.readline().startswith("epoch 1 ")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (worker,) = (int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
        os.kill(worker, signal.SIGSTOP)
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, lines(errors)) == (
            130,
            ["stone: interrupted; run the same command again to resume"],
        )


class TestFailingRun:
    @WINDOWS
    def test_an_error_ends_the_run_and_its_workers(
        self, recordings: Path, train_arguments: Any, stone_command: list[str], start_process: StartProcess
    ) -> None:
        """A checkpoint cannot be written while a worker waits to be asked for its next batch: one line, and the end."""
        run = train_arguments(
            "semi_tone", "--data", recordings / "music", "--labels", recordings / "labels.csv", *LONG, "-n", "blocked"
        )
        run[run.index("-s") + 1] = recordings / "blocked"
        (recordings / "blocked" / "models" / "ks_mode" / "7" / "blocked" / "best.pt").mkdir(parents=True)
        process = start_process([*stone_command, *map(str, run), "--workers", "1"])
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        (line,) = lines(errors)
        assert line.startswith("stone: ")
        assert "is a directory" in line

    @pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
    @pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.slow), "1"])
    def test_more_tracks_than_files_may_be_open(
        self,
        workers: str,
        recordings: Path,
        train_arguments: Any,
        stone_command: list[str],
        tmp_path: Path,
        start_process: Any,
    ) -> None:
        import resource

        rows = ["path,key"]
        for number in range(300):
            np.save(tmp_path / f"{number}.npy", np.full((120, 99), number % 250, dtype=np.uint8))
            rows.append(f"{number}.npy,{'C' if number % 2 else 'Am'}")
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        text = (recordings / "semi_tone.toml").read_text().replace('name = "semi_tone"', 'name = "cross_entropy"')
        (recordings / "many.toml").write_text(text)
        run = train_arguments("many", "--labels", tmp_path / "labels.csv", "--batch-size", "128", "--workers", workers)
        process = start_process(
            [*stone_command, *map(str, run)], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        )
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")


class TestOtherRun:
    def test_a_run_of_another_architecture(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        assert invoke(*train_arguments("skey", "--data", recordings / "music", "-e", "1")).exit_code == 0
        last = tmp_path / "models" / "ks_mode" / "7" / "basic" / "last.pt"
        before = last.read_bytes()
        other = tmp_path / "other.toml"
        other.write_text((recordings / "skey.toml").read_text().replace("[3, 6, 4]", "[3, 6, 5]"))
        result = invoke(*train_arguments("skey", "--data", recordings / "music", "-g", other))
        assert result.exit_code == 1
        (line,) = lines(result.stderr)
        assert line.startswith(f"stone: {last.parent}: the run in it has another architecture")
        assert last.read_bytes() == before

    def test_a_run_with_other_settings_is_resumed_only_when_asked_to(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        run = train_arguments("stone", "--data", recordings / "music", "-e", "1")
        assert invoke(*run).exit_code == 0
        last = tmp_path / "models" / "ks" / "7" / "basic" / "last.pt"
        content = last.read_bytes()
        for option, value, before in (
            ("--seed", "3", "optimizer.seed = 0"),
            ("--batch-size", "2", "data.batch_size = 4"),
            ("--lr", "1", "lr = 0.01"),
        ):
            line = refused(invoke(*run, option, value), 1)
            assert before in line
            assert line.endswith("choose another --name, or resume it with --allow-changes")
            assert last.read_bytes() == content
        assert invoke(*run, "--seed", "3", "--batch-size", "2", "--lr", "1", "--allow-changes").exit_code == 0
        assert invoke(*run, "-e", "2").exit_code == 0  # more epochs are no other run

    def test_a_run_with_other_tracks_is_resumed_only_when_asked_to(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        music = tmp_path / "music"
        shutil.copytree(recordings / "music", music)
        run = train_arguments("stone", "--data", music)
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

    def test_a_damaged_checkpoint_is_named(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        last = tmp_path / "models" / "ks" / "7" / "basic" / "last.pt"
        last.parent.mkdir(parents=True)
        last.write_bytes(b"\x80\x02}q\x00.")
        assert refused(invoke(*train_arguments("stone", "--data", recordings / "music")), 1).startswith(
            f"{last}: not a"
        )
        assert last.read_bytes() == b"\x80\x02}q\x00."
