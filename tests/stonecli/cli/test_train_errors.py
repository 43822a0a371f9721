"""``stone train``: invalid settings, labels and recordings give one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stonecli.cli.train_runs import lines, refused

torch = pytest.importorskip("torch")


class TestSettings:
    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden"])
    def test_a_run_name_that_cannot_be_a_folder(
        self, name: str, recordings: Path, train_arguments: Any, invoke: Any
    ) -> None:
        assert "--name" in refused(invoke(*train_arguments("stone", "--data", recordings / "music", "-n", name)), 2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[optimzer]\nlr = 1.0", "run.toml: unknown setting optimzer; did you mean optimizer?"),
            ("[data]\nbatch_sizes = 1", "run.toml: unknown setting data.batch_sizes; did you mean batch_size?"),
            ("[data]\nbatch_size = 'x'", "run.toml: data.batch_size must be a valid whole number, not 'x'"),
            ("[data\n", "run.toml: "),
        ],
    )
    def test_mistakes_in_the_configuration(
        self, text: str, message: str, recordings: Path, invoke: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "run.toml").write_text(text)
        result = invoke(
            "train", "--type", "ks", "--data", recordings / "music", "-g", tmp_path / "run.toml", "-s", tmp_path
        )
        assert refused(result, 2).startswith(message)

    def test_other_wrong_settings(self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path) -> None:
        data = ["--data", recordings / "music"]
        assert "none.toml: no such file" in refused(
            invoke(*train_arguments("stone", *data, "-g", tmp_path / "none.toml")), 2
        )
        assert "--lr must be a number of at least 0" in refused(
            invoke(*train_arguments("stone", *data, "--lr", "-1")), 2
        )
        assert "is for --type ks_mode" in refused(
            invoke(*train_arguments("stone", *data, "-g", recordings / "skey.toml")), 2
        )
        assert not (tmp_path / "models").exists()

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
    def test_no_cuda_device(self, recordings: Path, train_arguments: Any, invoke: Any) -> None:
        assert "no CUDA device" in refused(
            invoke(*train_arguments("stone", "--data", recordings / "music", "--device", "cuda")), 2
        )


class TestData:
    def test_unreadable_files_are_reported_and_skipped(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        music = tmp_path / "[bold]music"
        music.mkdir()
        for number in range(4):
            (music / f"{number}.wav").write_bytes((recordings / "music" / f"{number}.wav").read_bytes())
        (music / "broken.mp3").write_text("no music")
        result = invoke(*train_arguments("stone", "--data", music, "-e", "1"))
        assert result.exit_code == 0
        assert len(lines(result.stderr)) == 1
        assert "[bold]music/broken.mp3: " in result.stderr

    def test_data_is_checked_before_anything_is_decoded(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stonecli_train.features.read_track", lambda *_: pytest.fail("decoded"))
        rows = [f"{recordings}/music/{number}.wav,none" for number in range(4)]
        (tmp_path / "keys.csv").write_text("\n".join(["path,key", *rows]))
        line = refused(
            invoke(*train_arguments("semi_tone", "--labels", tmp_path / "keys.csv", "--cache", tmp_path / "new")), 1
        )
        assert line.startswith("the semi_tone loss cannot learn from tracks without a key")

    def test_a_folder_without_audio(self, train_arguments: Any, invoke: Any, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        line = refused(invoke(*train_arguments("stone", "--data", tmp_path / "empty")), 1)
        assert line == f"there is no audio to train on in {tmp_path / 'empty'}"

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
    def test_mistakes_in_labels(
        self, text: str, message: str, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "labels.csv").write_text(text.format(music=recordings / "music"))
        assert refused(invoke(*train_arguments("stone", "--labels", tmp_path / "labels.csv")), 1) == message

    def test_missing_labels(self, train_arguments: Any, invoke: Any, tmp_path: Path) -> None:
        line = refused(invoke(*train_arguments("stone", "--labels", tmp_path / "none.csv")), 1)
        assert line == f"{tmp_path / 'none.csv'}: no such file or folder"

    def test_a_cache_that_cannot_be_written_is_an_error_at_once(
        self, recordings: Path, train_arguments: Any, invoke: Any, tmp_path: Path
    ) -> None:
        """Also without --data, before music is generated; root may write everywhere but below a file."""
        (tmp_path / "file").touch()
        cache = tmp_path / "file" / "cache"
        for data in (["--data", recordings / "music"], []):
            assert str(cache) in refused(invoke(*train_arguments("stone", *data, "--cache", cache)), 1)


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


class TestExtra:
    @pytest.mark.parametrize("name", ["torch", "tensorboard"])
    def test_without_the_extra(self, name: str, recordings: Path) -> None:
        command: list[str | Path] = [
            sys.executable,
            "-c",
            BLOCK.format(name=name),
            "train",
            "--type",
            "ks",
            "--data",
            recordings / "music",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert lines(done.stderr) == [f"stone: stone train needs {name}; install it: pip install 'stonecli[train]'"]
