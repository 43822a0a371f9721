"""All that leads from scores to a model, by one command: python -m stonecli_train.recipe --corpus CORPORA --out FOLDER

A recipe is a TOML file with a list of steps, each a command of this repository; ``train/recipe.toml`` is that of the
built-in model. Steps are done in their order, each in a process of its own. What is done is written down in
FOLDER/done.json: the same command goes on after a stop, at the step that was stopped (which goes on where it was, too),
also on another machine that the folder was moved to.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stonecli.errors import StoneError
from stonecli.jobs import default_jobs
from stonecli.util.atomic_file import atomic_text_file

CONFIGS = Path(__file__).with_name("configs")
RECIPE = Path(__file__).with_suffix(".toml")  # of the built-in model
DONE = "done.json"
STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)  # how a step ends that was stopped


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: by which it is known to be done.
        command: a module and its arguments; ``{out}``, ``{corpus}``, ``{configs}`` and ``{jobs}`` stand for what the
            command line says, so that a folder may be moved.
    """

    name: str
    command: tuple[str, ...]

    def arguments(self, places: dict[str, str]) -> list[str]:
        """What Python is started with, the placeholders filled in."""
        return ["-m", *(part.format(**places) for part in self.command)]


def read_recipe(path: Path) -> list[Step]:
    """The steps of the file.

    Raises:
        StoneError: it is no recipe.
        OSError: it cannot be read.
    """
    try:
        rows: Any = tomllib.loads(path.read_text(encoding="utf-8"))["step"]
        steps = [Step(str(row["name"]), tuple(shlex.split(row["run"]))) for row in rows]
        for step in steps:
            step.arguments(dict.fromkeys(("out", "corpus", "configs", "jobs"), ""))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoneError(f"{path}: not a list of steps with a name and a command: {error!r}") from None
    if not steps or len({step.name for step in steps}) < len(steps) or not all(step.command for step in steps):
        raise StoneError(f"{path}: every step needs a name of its own and a command")
    return steps


def follow(steps: Sequence[Step], corpus: Path, out: Path, jobs: int) -> None:
    """Do what is not done yet.

    Args:
        steps: in this order.
        corpus: folder of the scores.
        out: folder of everything that is made.
        jobs: processes, or threads of the network.

    Raises:
        StoneError: a step failed, or ``out`` was made by another recipe.
        OSError: ``out`` cannot be written.
        KeyboardInterrupt: a step was stopped.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = _read_done(out / DONE)
    before = [Step(name, tuple(command)) for name, command in done.items()]
    if before != list(steps[: len(before)]):
        raise StoneError(f"{out}: what was done there is not the beginning of this recipe; take another folder")
    places = {"out": str(out), "corpus": str(corpus), "configs": str(CONFIGS), "jobs": str(jobs)}
    for number, step in enumerate(steps[len(before) :], len(before) + 1):
        print(f"{number}/{len(steps)} {step.name}: {shlex.join(step.arguments(places)[1:])}", flush=True)
        begin = time.monotonic()
        code = _run([sys.executable, *step.arguments(places)])
        if code in STOPPED:
            raise KeyboardInterrupt
        if code:
            raise StoneError(f"step {step.name} ended with {code}; the same command goes on there")
        done[step.name] = list(step.command)
        _write_done(out / DONE, done)
        print(f"{number}/{len(steps)} {step.name}: {(time.monotonic() - begin) / 60:.1f} min", flush=True)


def _run(command: list[str]) -> int:
    """Exit code. Ctrl-C reaches the step as well, which is waited for; a signal to end is passed on to it as Ctrl-C."""
    with subprocess.Popen(command) as child:  # noqa: S603
        before = signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
        try:
            while True:
                try:
                    return child.wait()
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)


def _read_done(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    try:
        done: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [str(part) for part in command] for name, command in done.items()}
    except (ValueError, AttributeError, TypeError):
        raise StoneError(f"{path}: not readable; take another folder") from None


def _write_done(path: Path, done: dict[str, list[str]]) -> None:
    with atomic_text_file(path) as file:
        json.dump(done, file, indent=1)


def main(arguments: Sequence[str]) -> int:
    """Exit code after the last step: 130 when it was stopped."""
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.recipe", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path, nargs="?", default=RECIPE)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with a folder or zip for each corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--jobs", type=int, default=default_jobs())
    options = parser.parse_args(arguments)
    try:
        follow(read_recipe(options.recipe), options.corpus, options.out, options.jobs)
    except (StoneError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
