"""Recipes: their requirements, the steps that run, and the tiny recipe from an empty folder to a scored model."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from typer.main import get_command

pytest.importorskip("torch")

from stonecli.cli.main import app
from stonecli.errors import StoneError
from stonecli_train.checkpoint import load_checkpoint
from stonecli_train.errors import ArgumentsError
from stonecli_train.recipe import (
    CONFIGS,
    DONE,
    RECIPE,
    TINY,
    Step,
    check_arguments,
    main,
    missing,
    missing_packages,
    read_recipe,
    run_steps,
)

TEMPO = RECIPE.with_name("recipe_tempo.toml")
SCORE = 'zipfile -c "{out}/score.zip" {recordings}'  # of a recipe: reads any file


def write(path: Path, *steps: tuple[str, str]) -> Path:
    path.write_text("".join(f"[[step]]\nname = '{name}'\nrun = '''{run}'''\n" for name, run in steps))
    return path


def saying(word: str) -> str:
    """A command that copies a word from the corpus to the folder, by a module that every Python has."""
    return f'json.tool --no-indent {{corpus}}/{word}.json "{{out}}/{word}.txt"'


@pytest.fixture
def words(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder with words"
    folder.mkdir()
    for word in ("one", "two", "three"):
        (folder / f"{word}.json").write_text(json.dumps(word))
    return folder


def test_steps_are_done_once(words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path / "r.toml", ("first", saying("one")), ("second", saying("two")))
    arguments = [str(recipe), "--corpus", str(words), "--out", str(tmp_path / "made here")]
    assert main(arguments) == 0
    assert "2/2 second" in capfd.readouterr().out
    made = tmp_path / "made here"
    assert (made / "one.txt").read_text().strip() == '"one"'

    (made / "one.txt").unlink()
    made = made.rename(tmp_path / "moved")
    write(recipe, ("first", saying("one")), ("second", saying("two")), ("third", saying("three")))
    assert main([*arguments[:-1], str(made)]) == 0  # elsewhere, and with a step more
    assert not (made / "one.txt").exists()
    assert (made / "three.txt").exists()
    assert list(json.loads((made / DONE).read_text())) == ["first", "second", "third"]


def test_the_recipe_resumes_at_the_step_that_failed(
    words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path / "r.toml", ("first", saying("one")), ("second", saying("four")), ("third", saying("two")))
    arguments = [str(recipe), "--corpus", str(words), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "step second failed with" in capfd.readouterr().err
    assert list(json.loads((tmp_path / "out" / DONE).read_text())) == ["first"]
    (words / "four.json").write_text("4")
    assert main(arguments) == 0
    assert (tmp_path / "out" / "two.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_stops_the_recipe(tmp_path: Path) -> None:
    waiting = "import sys,time; print('waiting', flush=True); time.sleep(60)"
    (tmp_path / "waits.py").write_text(waiting)
    recipe = write(tmp_path / "r.toml", ("first", "waits"), ("second", "json.tool --help"))
    command = [
        sys.executable,
        "-m",
        "stonecli_train.recipe",
        str(recipe),
        "--corpus",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(CONFIGS.parents[1])])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("plan: 2 of 2 steps")
        assert run.stdout.readline() == "  1 x waits\n"
        assert run.stdout.readline() == "  1 x tool\n"
        assert run.stdout.readline().startswith("1/2 first")
        assert run.stdout.readline() == "waiting\n"
        run.terminate()
        out, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "2/2" not in out
    assert "run the same command again to resume" in errors
    assert not (tmp_path / "o" / DONE).exists()


def test_the_folder_of_another_recipe_is_refused(words: Path, tmp_path: Path) -> None:
    one = read_recipe(write(tmp_path / "r.toml", ("first", saying("one")))).steps
    other = read_recipe(write(tmp_path / "s.toml", ("first", saying("two")))).steps
    run_steps(one, words, tmp_path / "out", 1)
    with pytest.raises(StoneError, match="made by another recipe"):
        run_steps(other, words, tmp_path / "out", 1)
    (tmp_path / "out" / DONE).write_text("[1")
    with pytest.raises(StoneError, match="not a list of finished steps"):
        run_steps(one, words, tmp_path / "out", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "step = 3",
        "[[step]]\nname = 'a'",
        "[[step]]\nname = 'a'\nrun = ''",
        "[[step]]\nname = 'a'\nrun = 'x {home}'",
        "[[step]]\nname = 'a'\nrun = 'x {}'",
        "[[step]]\nname = 'a'\nrun = 'x \"'",
        "[[step]]\nname = 'a'\nrun = 'x'\n[[step]]\nname = 'a'\nrun = 'y'",
        "[[step",
        "\ufeff\ud800",
    ],
)
def test_a_file_that_is_not_a_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(StoneError, match=r"r\.toml"):
        read_recipe(tmp_path / "r.toml")


def reads_and_makes(command: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """The files of ``{out}`` that a command needs, and those that it makes."""
    module, *arguments = command
    files = {part for part in arguments if part.startswith("{out}/")}
    if module == "stonecli_export.tempo_model":
        makes = {arguments[1]}
    elif arguments[:1] == ["train"]:
        name = arguments[arguments.index("--name") + 1] if "--name" in arguments else "basic"
        makes = {"{out}/runs", "{out}/cache", f"{{out}}/runs/models/ks_mode/7/{name}/last.pt"}
    elif arguments[:1] == ["evaluate"]:
        makes = {arguments[arguments.index("--predictions") + 1]}
    elif "--out" in arguments:
        makes = {arguments[arguments.index("--out") + 1]}
        if module == "stonecli_train.corpus.render":
            makes |= {f"{folder}/{name}.csv" for folder in makes for name in ("labels", "audio")}
    else:
        makes = {arguments[-1] if arguments[0] == "export" else arguments[0]}
    return files - makes, makes


def options(module: str, command: str) -> set[str]:
    """Every option that the module takes; of ``stonecli``, that its command takes."""
    if module == "stonecli":
        return {name for option in get_command(app).commands[command].params for name in option.opts}  # type: ignore[attr-defined]
    source = Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")
    return set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', source))


@pytest.mark.parametrize("recipe", [RECIPE, TINY, TEMPO], ids=["built-in", "tiny", "tempo"])
def test_every_step_finds_its_inputs(recipe: Path) -> None:
    """Modules, options and configurations exist, and every input is an output of an earlier step."""
    steps = read_recipe(recipe).steps
    made: set[str] = set()
    for step in steps:
        module, *arguments = step.command
        assert {part for part in arguments if part.startswith("-")} <= options(module, arguments[0]), step.name
        for part in arguments:
            if part.startswith("{configs}/"):
                assert (CONFIGS / part.removeprefix("{configs}/")).is_file()
        reads, makes = reads_and_makes(step.command)
        assert reads <= made, (step.name, reads - made)
        made |= makes
    assert made & {"{out}/model.onnx", "{out}/tempo.onnx"}


def test_the_card_of_tempo_1_has_the_numbers_of_its_recipe() -> None:
    numbers = {
        part: int(value)
        for step in read_recipe(TEMPO).steps
        for part, value in pairwise(step.command)
        if part in ("--count", "--sketches")
    }
    card = (TEMPO.parents[1] / "stonecli" / "tempo" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{numbers['--count']} renderings of 24 s and {numbers['--sketches']:,} sketches" in card


class TestNeeds:
    """Messages of the command before the first step."""

    @pytest.fixture
    def recipe(self, tmp_path: Path) -> Path:
        needs = """[needs]
            memory_gb = 0.5
            disk_gb = 1
            python = ["json", "no_such_module"]
            debian = ["no-such-package"]
            downloads = ["a corpus (MIT)"]
            """
        steps = "[[step]]\nname = 'a'\nminutes = 60\nrun = 'json.tool --help'\n"
        steps += "[[step]]\nname = 'b'\nminutes = 60.5\nrun = 'stonecli train --help'\n"
        path = tmp_path / "r.toml"
        path.write_text(needs + steps)
        return path

    def test_all_that_is_missing_is_named_before_the_first_step(
        self, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(recipe), "--out", str(tmp_path / "out")]) == 1
        out, errors = capfd.readouterr()
        assert out.splitlines() == [
            f"plan: 2 of 2 steps, about 2.0 hours on two cores, 0.5 GB of memory, 1 GB of disk in {tmp_path / 'out'}",
            "  1 x tool, about 60 minutes",
            "  1 x train, about 60.5 minutes",
            "needs the Python packages json, no_such_module",
            "needs the Debian packages no-such-package",
            "downloads a corpus (MIT)",
        ]
        assert "(no_such_module): pip install 'stonecli[corpus]'" in errors
        assert "no-such-package" in errors
        assert not (tmp_path / "out").exists()

    def test_a_full_disk_is_named(self, recipe: Path, tmp_path: Path) -> None:
        needs = replace(read_recipe(recipe).needs, python=(), debian=(), disk_gb=1e9)
        (line,) = missing(needs, tmp_path / "not" / "there")
        assert line.startswith("disk: about 1e+09 GB in ")
        assert not missing(replace(needs, disk_gb=0.0), tmp_path)

    @pytest.mark.skipif(sys.platform == "win32", reason="the system does not say how much memory there is")
    def test_too_little_memory_is_named(self, recipe: Path, tmp_path: Path) -> None:
        needs = replace(read_recipe(recipe).needs, python=(), debian=(), disk_gb=0.0, memory_gb=1e9)
        (line,) = missing(needs, tmp_path)
        assert line.startswith("memory: about 1e+09 GB, and this machine has ")

    def test_the_plan_of_a_resumed_run_has_only_the_rest(
        self, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / DONE).write_text(json.dumps({"a": ["json.tool", "--help"]}))
        assert main([str(recipe), "--out", str(tmp_path)]) == 1
        assert capfd.readouterr().out.startswith("plan: 1 of 2 steps, about 60.5 minutes on two cores")

    @pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="not Debian")
    def test_installed_debian_packages_are_not_missing(self) -> None:
        assert missing_packages(["dpkg", "no-such-package", "coreutils"]) == ["no-such-package"]

    def test_check_runs_nothing(self, words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        recipe = write(tmp_path / "r.toml", ("first", saying("one")))
        assert main([str(recipe), "--out", str(tmp_path / "out"), "--check"]) == 0
        assert "nothing is missing" in capfd.readouterr().out
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("line", ["disk = 3", "disk_gb = 'much'", "python = 3"])
    def test_an_unknown_need_is_refused(self, line: str, tmp_path: Path) -> None:
        path = tmp_path / "r.toml"
        path.write_text(f"[needs]\n{line}\n[[step]]\nname = 'a'\nrun = 'x'")
        with pytest.raises(StoneError, match=r"r\.toml"):
            read_recipe(path)


def test_recordings_are_scored_only_if_there_are_any(words: Path, tmp_path: Path) -> None:
    """A step with {recordings} is skipped without the option, runs every time with it, and is never done."""
    recipe = write(tmp_path / "r.toml", ("first", saying("one")), ("score", SCORE))
    arguments = [str(recipe), "--corpus", str(words), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert not (tmp_path / "out" / "score.zip").exists()
    for word in ("one", "two"):
        labels = words / f"{word}.csv"
        labels.write_text("path,key\none.json,Am\n")
        assert main([*arguments, "--recordings", str(labels)]) == 0
        assert zipfile.ZipFile(tmp_path / "out" / "score.zip").namelist() == [labels.name]
    assert list(json.loads((tmp_path / "out" / DONE).read_text())) == ["first"]


class TestArguments:
    """Wrong arguments end the command with one line, before anything is started or printed."""

    @pytest.fixture
    def refused(self, words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
        """The line, for arguments after those that are right: ``refused("--jobs", "0")``."""
        recipe = write(tmp_path / "r.toml", ("first", saying("one")), ("score", SCORE))

        def run(*arguments: str | Path, recipe: Path = recipe, check: bool = True) -> str:
            right = [str(recipe), "--out", str(tmp_path / "out"), *["--check"] * check]
            assert main([*right, *map(str, arguments)]) == 2
            out, errors = capfd.readouterr()
            assert not out
            assert not (tmp_path / "out" / "one.txt").exists()
            (line,) = errors.splitlines()
            return line

        return run

    @pytest.mark.parametrize("check", [True, False])
    @pytest.mark.parametrize("jobs", ["0", "-1"])
    def test_jobs(self, refused: Callable[..., str], jobs: str, check: bool) -> None:
        assert refused("--jobs", jobs, check=check) == f"--jobs must be at least 1, not {jobs}"

    @pytest.mark.parametrize("option", ["--out", "--corpus"])
    def test_a_file_is_not_a_folder(self, refused: Callable[..., str], words: Path, option: str) -> None:
        file = words / "one.json"
        assert refused(option, file) == f"{option} {file}: {file} is not a folder"
        assert refused(option, file / "x") == f"{option} {file / 'x'}: {file} is not a folder"

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
    def test_a_folder_without_permission(self, words: Path, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        words.chmod(0o555)
        steps = (Step("first", ("json.tool",)),)
        with pytest.raises(ArgumentsError, match="no permission to write in the folder"):
            check_arguments(steps, tmp_path, words / "new", 1, None)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "no such file or folder"),
            ("no labels", "line 1: no column path"),
            ("path,key\none.json,H\n", "line 2: not a key: 'H'"),
            ("path,key\nno.mp3,Am\n", "none of its files exists"),
        ],
    )
    def test_recordings(self, refused: Callable[..., str], words: Path, content: str | None, reason: str) -> None:
        labels = words / "labels.csv"
        if content is not None:
            labels.write_text(content)
        assert refused("--recordings", labels).startswith(f"--recordings {labels}: {reason}")

    def test_recordings_that_no_step_scores(self, refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
        recipe = write(tmp_path / "s.toml", ("first", saying("one")))
        assert refused("--recordings", words / "one.json", recipe=recipe).endswith("does not score recordings")

    def test_tiny_and_a_recipe(self, refused: Callable[..., str]) -> None:
        assert refused("--tiny").startswith("give either --tiny or ")

    @pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), ("[", "not a TOML file")])
    def test_no_recipe(self, refused: Callable[..., str], tmp_path: Path, content: str | None, reason: str) -> None:
        path = tmp_path / "s.toml"
        if content is not None:
            path.write_text(content)
        assert refused(recipe=path).startswith(f"{path}: {reason}")

    def test_the_folder_of_another_recipe(self, refused: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / DONE).write_text(json.dumps({"first": ["json.tool", "--help"]}))
        assert "made by another recipe" in refused()


def test_a_lost_file_of_a_finished_step_is_named(
    words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Running the same command again would not help."""
    made, again = "{out}/one.txt", "{out}/two.txt"
    recipe = write(
        tmp_path / "r.toml", ("first", f"json.tool {{corpus}}/one.json {made}"), ("second", f"json.tool {made} {again}")
    )
    arguments = [str(recipe), "--corpus", str(words), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    (tmp_path / "out" / DONE).write_text(json.dumps({"first": ["json.tool", "{corpus}/one.json", made]}))
    (tmp_path / "out" / "one.txt").unlink()
    assert main(arguments) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'out' / 'one.txt'}, made by a finished step, is missing" in line
    assert "run the same command again" not in line


def test_a_finished_folder_has_nothing_to_do(words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path / "r.toml", ("first", saying("one")), ("score", SCORE))
    arguments = [str(recipe), "--corpus", str(words), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    capfd.readouterr()
    assert main(arguments) == 0
    assert capfd.readouterr().out == f"plan: nothing to do; {tmp_path / 'out'} has the results of all steps\n"


def test_one_minute_is_singular(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.toml").write_text("[[step]]\nname = 'a'\nminutes = 1\nrun = 'x'")
    assert main([str(tmp_path / "r.toml"), "--out", str(tmp_path), "--check"]) == 0
    assert capfd.readouterr().out.splitlines()[1] == "  1 x x, about 1 minute"


@pytest.mark.slow
@pytest.mark.timeout(900)  # of about 45 CPU seconds; a busy machine takes minutes
def test_the_tiny_recipe_makes_and_scores_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same command as for the built-in model: render, train, gate, calibrate, export, score."""
    pytest.importorskip("pedalboard")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    assert main(["--tiny", "--out", str(out), "--jobs", "1"]) == 0, capfd.readouterr().err
    model = load_checkpoint(out / "model.pt")
    assert model.chromanet.gate_channels > 0
    assert model.rejection_threshold > 0
    assert len((out / "score.csv").read_text().splitlines()) == 1 + 40
    assert "MIREX" in capfd.readouterr().out
