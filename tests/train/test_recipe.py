"""Recipes: what is done, what is not done twice, and a small one from sounds to a calibrated checkpoint."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

pytest.importorskip("torch")

from stonecli.cli.main import app
from stonecli.errors import StoneError
from stonecli_train.checkpoint import load_checkpoint
from stonecli_train.recipe import CONFIGS, DONE, RECIPE, follow, main, read_recipe

TINY = """
[network]
out_channels = [3, 6, 4]
kernels = [5, 5, 3]
[input]
window_seconds = 3.0
frames_averaged = 4
[data]
batch_size = 4
validation_share = 0.4
[loss]
name = "cross_entropy"
[optimiser]
epochs = 1
train_steps = 4
val_steps = 1
"""
SMALL = """
[[step]]
name = "renderings"
run = "stonecli_train.corpus.render --source styles --out {out}/set --count 6 --seconds 8 --no-soundfonts"
[[step]]
name = "keyless"
run = "stonecli_train.corpus.render --source keyless --out {out}/set --count 3 --seconds 8 --seed 2 --no-soundfonts"
[[step]]
name = "run"
run = "stonecli train --type ks_mode -g {corpus}/tiny.toml --labels {out}/set/labels.csv -s {out}/runs"
[[step]]
name = "gate"
run = "stonecli_train.gate {out}/runs/models/ks_mode/7/basic/last.pt --labels {out}/set/labels.csv --out {out}/gated.pt"
[[step]]
name = "model"
run = "stonecli_train.calibrate {out}/gated.pt --labels {out}/set/labels.csv --out {out}/model.pt"
"""


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


def test_a_step_that_fails_is_where_it_goes_on(words: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path / "r.toml", ("first", saying("one")), ("second", saying("four")), ("third", saying("two")))
    arguments = [str(recipe), "--corpus", str(words), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "step second ended with" in capfd.readouterr().err
    assert list(json.loads((tmp_path / "out" / DONE).read_text())) == ["first"]
    (words / "four.json").write_text("4")
    assert main(arguments) == 0
    assert (tmp_path / "out" / "two.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_stops_the_step_and_what_follows(tmp_path: Path) -> None:
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
        assert run.stdout.readline().startswith("1/2 first")
        assert run.stdout.readline() == "waiting\n"
        run.terminate()
        out, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "2/2" not in out
    assert "the same command goes on" in errors
    assert not (tmp_path / "o" / DONE).exists()


def test_the_folder_of_another_recipe_is_left_alone(words: Path, tmp_path: Path) -> None:
    one = read_recipe(write(tmp_path / "r.toml", ("first", saying("one"))))
    other = read_recipe(write(tmp_path / "s.toml", ("first", saying("two"))))
    follow(one, words, tmp_path / "out", 1)
    with pytest.raises(StoneError, match="not the beginning of this recipe"):
        follow(other, words, tmp_path / "out", 1)
    (tmp_path / "out" / DONE).write_text("[1")
    with pytest.raises(StoneError, match="not readable"):
        follow(one, words, tmp_path / "out", 1)


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
def test_what_is_no_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(StoneError, match=r"r\.toml"):
        read_recipe(tmp_path / "r.toml")


def reads_and_makes(command: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """The files of ``{out}`` that a command needs, and those that it makes."""
    module, *arguments = command
    files = {part for part in arguments if part.startswith("{out}/")}
    if arguments[:1] == ["train"]:
        name = arguments[arguments.index("--name") + 1]
        makes = {"{out}/runs", "{out}/cache", f"{{out}}/runs/models/ks_mode/7/{name}/last.pt"}
    elif "--out" in arguments:
        makes = {arguments[arguments.index("--out") + 1]}
        if module == "stonecli_train.corpus.render":
            makes |= {f"{folder}/labels.csv" for folder in makes}
    else:
        makes = {arguments[-1] if arguments[0] == "export" else arguments[0]}
    return files - makes, makes


def options(module: str, command: str) -> set[str]:
    """Every option that the module takes; of ``stonecli``, that its command takes."""
    if module == "stonecli":
        return {name for option in get_command(app).commands[command].params for name in option.opts}  # type: ignore[attr-defined]
    source = Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")
    return set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', source))


def test_the_recipe_of_the_built_in_model_can_be_followed() -> None:
    """Its modules, options and configurations exist, and what a step reads an earlier one made."""
    steps = read_recipe(RECIPE)
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
    assert "{out}/model.onnx" in made


def test_a_small_recipe_makes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "r.toml").write_text(SMALL)
    assert (
        main([str(tmp_path / "r.toml"), "--corpus", str(tmp_path), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    )
    model = load_checkpoint(tmp_path / "out" / "model.pt")
    assert model.chromanet.gate_channels > 0
    assert model.rejection_threshold > 0
