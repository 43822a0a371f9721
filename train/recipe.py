"""Trains a model from scratch with one command, by the steps of a recipe.

    python -m stonecli_train.recipe --out FOLDER

A recipe is a TOML file: a table ``[needs]`` with the requirements, and a list of steps, each a command of this
repository. ``train/recipe.toml`` makes the built-in model; ``train/recipe_tiny.toml`` has the same kinds of steps and
takes a minute. The command first prints a plan (steps, hours, memory, disk, packages, downloads) and what is missing.
Each step runs in a separate process. Finished steps are recorded in FOLDER/done.json: the same command resumes at the
step that was interrupted, even after FOLDER was moved to another machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stonecli.errors import StoneError, describe
from stonecli.evaluation.labels import read_labels
from stonecli.jobs import default_jobs
from stonecli.util.atomic_file import atomic_text_file
from stonecli.util.small_text import read_small_text
from stonecli_train.errors import ArgumentsError, message

CONFIGS = Path(__file__).with_name("configs")
RECIPE = Path(__file__).with_suffix(".toml")  # the recipe of the built-in model
TINY = RECIPE.with_name("recipe_tiny.toml")
DONE = "done.json"
INTERRUPTED = (130, -signal.SIGINT, -signal.SIGTERM)  # exit codes of an interrupted step
PLACEHOLDERS = ("out", "corpus", "configs", "jobs", "recordings")
OWN_RECORDINGS = "{recordings}"
GB = 1e9


@dataclass(frozen=True)
class Step:
    """One command of a recipe.

    Attributes:
        name: unique name, recorded when the step is done.
        command: a module and its arguments, with the placeholders ``{out}``, ``{corpus}``, ``{configs}``, ``{jobs}``
            and ``{recordings}`` for values from the command line, so that the folders may be moved.
        minutes: approximate duration on two CPU cores; 0 if unknown.
    """

    name: str
    command: tuple[str, ...]
    minutes: float = 0.0

    def arguments(self, values: dict[str, str]) -> list[str]:
        """Arguments for the Python interpreter, with ``values`` in place of the placeholders.

        Raises:
            LookupError, ValueError: a placeholder is unknown or malformed.
        """
        return ["-m", *(part.format(**values) for part in self.command)]

    @property
    def kind(self) -> str:
        """Kind of the step in one word: the last part of its module, or the command of ``stone``."""
        return self.command[1] if self.command[0] == "stonecli" else self.command[0].rpartition(".")[2]

    @property
    def is_for_recordings(self) -> bool:
        """Whether the step scores recordings of the user; such a step runs each time ``--recordings`` is given."""
        return any(OWN_RECORDINGS in part for part in self.command)


@dataclass(frozen=True)
class Needs:
    """Requirements of a recipe, besides stone itself.

    Attributes:
        memory_gb: approximate RAM with two jobs, in GB.
        disk_gb: approximate disk space of the output folder, in GB.
        python: Python modules, all in the extra ``corpus``, which includes the extra ``train``.
        debian: packages of Debian and Ubuntu.
        downloads: descriptions of the downloads, with licenses; printed at the start.
    """

    memory_gb: float = 0.0
    disk_gb: float = 0.0
    python: tuple[str, ...] = ()
    debian: tuple[str, ...] = ()
    downloads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """The content of a recipe file."""

    steps: tuple[Step, ...]
    needs: Needs


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        StoneError: the file is not a recipe.
        OSError: it cannot be read.
    """
    try:
        content: dict[str, Any] = tomllib.loads(read_small_text(path))
        steps = tuple(
            Step(str(row["name"]), tuple(shlex.split(row["run"])), float(row.get("minutes", 0.0)))
            for row in content["step"]
        )
        for step in steps:
            step.arguments(dict.fromkeys(PLACEHOLDERS, ""))
        needs = _read_needs(content.get("needs", {}))
    except tomllib.TOMLDecodeError as error:
        raise StoneError(f"{path}: not a TOML file: {error}") from None
    except KeyError as error:
        raise StoneError(f"{path}: not a recipe: {error.args[0]!r} is missing or unknown") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoneError(f"{path}: not a list of steps with a name and a command: {error}") from None
    if not steps or len({step.name for step in steps}) < len(steps) or not all(step.command for step in steps):
        raise StoneError(f"{path}: every step needs a unique name and a command")
    return Recipe(steps, needs)


def _read_needs(table: dict[str, Any]) -> Needs:
    values: dict[str, Any] = {name: float(table[name]) for name in table.keys() & {"memory_gb", "disk_gb"}}
    values |= {name: tuple(map(str, value)) for name, value in table.items() if isinstance(value, list)}
    if unknown := table.keys() - values.keys():
        raise ValueError(f"needs.{min(unknown)}")
    return Needs(**values)


def check_arguments(steps: Sequence[Step], corpus: Path, out: Path, jobs: int, recordings: Path | None) -> None:
    """Refuse arguments of :func:`run_steps` with which a step would fail, possibly after hours.

    Raises:
        ArgumentsError: a folder is a file or cannot be written, ``out`` was made by another recipe, ``recordings`` is
            not a CSV of labels with existing files, no step scores recordings, or ``jobs`` is below 1.
        OSError: the list of finished steps cannot be read.
    """
    if jobs < 1:
        raise ArgumentsError(f"--jobs must be at least 1, not {jobs}")
    for option, folder in (("--out", out), ("--corpus", corpus)):
        existing = _existing(folder)
        if not existing.is_dir():
            raise ArgumentsError(f"{option} {folder}: {existing} is not a folder")
        if not os.access(existing, os.W_OK):
            raise ArgumentsError(f"{option} {folder}: no permission to write in the folder {existing}")
    _finished_steps(steps, out)
    if recordings is None:
        return
    if not any(step.is_for_recordings for step in steps):
        raise ArgumentsError("--recordings: this recipe does not score recordings")
    try:
        labels, _ = read_labels(recordings)
    except (StoneError, OSError) as error:
        raise ArgumentsError(f"--recordings {recordings}: {describe(error)}") from error
    if not any(label.path.exists() for label in labels):
        raise ArgumentsError(f"--recordings {recordings}: none of its files exists, such as {labels[0].path}")


def _existing(folder: Path) -> Path:
    """The folder, or its closest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def missing(needs: Needs, out: Path) -> list[str]:
    """The missing requirements, one line per kind, with the command that installs them; empty if nothing is missing."""
    lines = []
    modules = [name for name in needs.python if importlib.util.find_spec(name) is None]
    if modules:
        lines.append(f"Python packages ({', '.join(modules)}): pip install 'stonecli[corpus]'")
    packages = missing_packages(needs.debian)
    if packages and shutil.which("dpkg-query") is None:
        lines.append(f"Debian or Ubuntu, with the packages {' '.join(packages)}")
    elif packages:
        lines.append(f"Debian packages: apt-get update && apt-get install --no-install-recommends {' '.join(packages)}")
    memory = _memory_gb()
    if memory is not None and memory < needs.memory_gb:
        lines.append(f"memory: about {needs.memory_gb:g} GB, and this machine has {memory:.1f} GB")
    free = shutil.disk_usage(_existing(out)).free / GB
    used = _size(out) / GB
    if free + used < needs.disk_gb:
        lines.append(f"disk: about {needs.disk_gb:g} GB in {out}, where {free + used:.1f} GB are free or already used")
    return lines


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Those of ``packages`` that are not installed; all of them on a system without dpkg."""
    if not packages or shutil.which("dpkg-query") is None:
        return list(packages)
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    installed = {line.split()[0] for line in shown.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in packages if name not in installed]


def install_packages(packages: Sequence[str]) -> None:
    """Install Debian packages with apt-get.

    Raises:
        StoneError: the user is not root, or apt-get is missing or fails; apt-get prints its own messages.
    """
    if shutil.which("apt-get") is None:
        raise StoneError("--install needs apt-get (Debian or Ubuntu)")
    if sys.platform != "win32" and os.geteuid() != 0:
        raise StoneError("--install needs root; install the packages yourself, and run this without --install")
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        code = subprocess.run(["apt-get", *command], check=False).returncode  # noqa: S603, S607
        if code:
            raise StoneError(f"apt-get {command[0]} failed with exit code {code}")


def run_steps(steps: Sequence[Step], corpus: Path, out: Path, jobs: int, recordings: Path | None = None) -> None:
    """Run the steps that are not done yet, in order.

    Args:
        steps: steps of the recipe.
        corpus: folder of the scores.
        out: folder of all outputs.
        jobs: number of processes, or of threads in training.
        recordings: CSV with the labels of recordings of the user, for steps that score them; None skips these steps.

    Raises:
        StoneError: a step failed.
        ArgumentsError: ``out`` was made by another recipe.
        OSError: ``out`` cannot be written.
        KeyboardInterrupt: a step was interrupted.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = _finished_steps(steps, out)
    values = {"out": str(out), "corpus": str(corpus), "configs": str(CONFIGS), "jobs": str(jobs)}
    values["recordings"] = str(recordings)
    for number, step in enumerate(steps, 1):
        if step.name in done or (step.is_for_recordings and recordings is None):
            continue
        print(f"{number}/{len(steps)} {step.name}: {shlex.join(step.arguments(values)[1:])}", flush=True)
        start = time.monotonic()
        code = _run([sys.executable, *step.arguments(values)])
        if code in INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            failure = f"step {step.name} failed with exit code {code}"
            if missing_input := _missing_input(step, done, values):
                raise StoneError(
                    f"{failure}: {missing_input}, made by a finished step, is missing; restore it or use another --out"
                )
            raise StoneError(f"{failure}; run the same command again to resume")
        if not step.is_for_recordings:
            done[step.name] = list(step.command)
            _write_done(out / DONE, done)
        print(f"{number}/{len(steps)} {step.name}: {(time.monotonic() - start) / 60:.1f} min", flush=True)


def _missing_input(step: Step, done: dict[str, list[str]], values: dict[str, str]) -> str | None:
    """A missing file or folder that a finished step has made and that ``step`` reads; None if there is none."""
    named = {part for command in done.values() for part in command if part.startswith("{out}/")}
    inputs = [path for part in step.command for path in named if part == path or part.startswith(f"{path}/")]
    return next((path for part in inputs if not Path(path := part.format(**values)).exists()), None)


def _run(command: list[str]) -> int:
    """Exit code of a command, which ends before this function: Ctrl-C reaches it, SIGTERM is passed on as Ctrl-C."""
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


def _memory_gb() -> float | None:
    """Memory of the machine in GB; None if the system does not report it."""
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
    except (ValueError, OSError):
        return None


def _size(folder: Path) -> int:
    """Size of all files in a folder, in bytes; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _read_done(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    try:
        done: dict[str, list[str]] = json.loads(read_small_text(path))
        return {str(name): [str(part) for part in command] for name, command in done.items()}
    except (ValueError, AttributeError, TypeError):
        raise ArgumentsError(f"{path}: not a list of finished steps; use another --out") from None


def _finished_steps(steps: Sequence[Step], out: Path) -> dict[str, list[str]]:
    """The commands of the finished steps in the folder, by name.

    Raises:
        ArgumentsError: they are not the first steps of ``steps``, or cannot be read.
    """
    done = _read_done(out / DONE)
    before = [(name, tuple(command)) for name, command in done.items()]
    if before != [(step.name, step.command) for step in steps if not step.is_for_recordings][: len(before)]:
        raise ArgumentsError(f"{out}: made by another recipe, or another version of this one; use another --out")
    return done


def _write_done(path: Path, done: dict[str, list[str]]) -> None:
    with atomic_text_file(path) as file:
        json.dump(done, file, indent=1)


def _print_plan(recipe: Recipe, out: Path, scores_recordings: bool) -> None:
    """Print the duration of the remaining steps, and the requirements of the recipe."""
    needs = recipe.needs
    done = _read_done(out / DONE)
    steps = [
        step for step in recipe.steps if step.name not in done and (scores_recordings or not step.is_for_recordings)
    ]
    if not steps:
        print(f"plan: nothing to do; {out} has the results of all steps", flush=True)
        return
    print(
        f"plan: {len(steps)} of {len(recipe.steps)} steps, about {_duration(steps) or 'a minute'} on two cores,"
        f" {needs.memory_gb:g} GB of memory, {needs.disk_gb:g} GB of disk in {out}"
    )
    for kind in Counter(step.kind for step in steps):
        of_kind = [step for step in steps if step.kind == kind]
        print(f"  {len(of_kind)} x {kind}" + (f", about {_duration(of_kind)}" if _duration(of_kind) else ""))
    for what, names in (("Python packages", needs.python), ("Debian packages", needs.debian)):
        if names:
            print(f"needs the {what} {', '.join(names)}")
    for line in needs.downloads:
        print(f"downloads {line}")
    sys.stdout.flush()


def _duration(steps: Sequence[Step]) -> str:
    """Total duration of the steps in words; empty if the recipe does not state it."""
    minutes = sum(step.minutes for step in steps)
    if minutes >= 90:
        return f"{minutes / 60:.1f} hours"
    return "1 minute" if minutes == 1 else f"{minutes:g} minutes" if minutes else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.recipe", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path, nargs="?", help="recipe file (default: that of the built-in model)")
    parser.add_argument("--tiny", action="store_true", help="run the tiny recipe, which takes a minute")
    parser.add_argument("--out", type=Path, required=True, help="folder of all outputs")
    parser.add_argument(
        "--corpus", type=Path, help="folder of the scores; missing ones are downloaded (default: OUT/corpora)"
    )
    parser.add_argument(
        "--recordings", type=Path, metavar="CSV", help="also score the model on your labeled recordings"
    )
    parser.add_argument("--install", action="store_true", help="install missing Debian packages first (needs root)")
    parser.add_argument("--check", action="store_true", help="only print the plan and what is missing")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="processes (default: one per core)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Exit code of the command.

    0: all steps are done; 1: a requirement is missing or a step failed; 2: an argument is wrong, and no step was
    started; 130: interrupted.
    """
    options = _parser().parse_args(arguments)
    out: Path = options.out
    corpus: Path = options.corpus or out / "corpora"
    try:
        if options.tiny and options.recipe:
            raise ArgumentsError(f"give either --tiny or {options.recipe}, not both")
        try:
            recipe = read_recipe(TINY if options.tiny else options.recipe or RECIPE)
        except (StoneError, OSError) as error:
            raise ArgumentsError(message(error)) from error
        check_arguments(recipe.steps, corpus, out, options.jobs, options.recordings)
        _print_plan(recipe, out, options.recordings is not None)
        if options.install and (packages := missing_packages(recipe.needs.debian)):
            install_packages(packages)
        if lines := missing(recipe.needs, out):
            raise StoneError("\n  ".join(["missing:", *lines]))
        if options.check:
            print("nothing is missing")
        else:
            run_steps(recipe.steps, corpus, out, options.jobs, options.recordings)
    except ArgumentsError as error:
        print(message(error), file=sys.stderr)
        return 2
    except (StoneError, OSError) as error:
        print(error if isinstance(error, StoneError) else message(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
