"""``stone train``: a model of one's own, from a folder of music, a list of keys, or both."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stonecli.cli.common import EXIT_INTERRUPTED, EXIT_USAGE, error_console, fail, one_line_errors, output_console
from stonecli.cli.running import ENDS

if TYPE_CHECKING:
    from stonecli_train.checkpoint import Checkpoint
    from stonecli_train.config import TrainConfig


@one_line_errors
def train(
    train_type: Annotated[Literal["ks", "ks_mode"], typer.Option("--type", help="12 key signatures, or 24 keys.")],
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Music without labels.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="CSV", help="Columns path and key.")] = None,
    name: Annotated[str, typer.Option("--name", "-n", help="Of the run; the same name resumes it.")] = "basic",
    circle: Annotated[
        Literal["1", "7"] | None, typer.Option("--circle", "-c", help="Circle of semitones (1) or of fifths (7).")
    ] = None,
    save_dir: Annotated[Path, typer.Option("--save-dir", "-s", help="Where checkpoints and logs go.")] = Path("runs"),
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", min=1)] = None,
    train_steps: Annotated[int | None, typer.Option(min=1, help="Batches in an epoch.")] = None,
    val_steps: Annotated[int | None, typer.Option(min=1, help="Batches in a validation.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-g", metavar="FILE", help="TOML, or the original's gin; flags override.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="CKPT", help="Begin with the weights of this checkpoint.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(metavar="CKPT", help="Hears the music without labels beforehand; several are asked together."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of features; else in SAVE_DIR.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that make batches.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the network on the CPU.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
) -> None:
    """Train a key model; stop it with Ctrl-C (or SIGTERM), go on with the same command.

    Without --config: STONE for --type ks; for ks_mode Semi-TONE where there are labels, else S-KEY. Several GPUs:
    torchrun --nproc-per-node N -m stonecli train ...
    """
    if data is None and labels is None:
        fail("nothing to train on: give --data FOLDER, --labels CSV, or both", EXIT_USAGE)
    if not name or name != Path(name).name or name.startswith("."):
        fail(f"--name {name}: is the name of a folder", EXIT_USAGE)
    try:
        import matplotlib  # noqa: F401  (of TensorBoard's figures; its absence is better known now)
        import tensorboard  # type: ignore[import-untyped]  # noqa: F401
        import torch

        from stonecli_train.config import ConfigError, default_config, load_config, override
    except ModuleNotFoundError as error:
        fail(f"stone train needs {error.name}: pip install 'stonecli[train]'", EXIT_USAGE)
    try:
        settings = load_config(config) if config else default_config(_config_name(train_type, labels is not None))
        settings = override(
            settings,
            loss__circle=int(circle) if circle else None,
            data__batch_size=batch_size,
            data__workers=workers,
            optimiser__epochs=epochs,
            optimiser__train_steps=train_steps,
            optimiser__val_steps=val_steps,
            optimiser__lr=lr,
            optimiser__seed=seed,
        )
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(f"{config}: {error.strerror}", EXIT_USAGE)
    if settings.train_type != train_type:
        fail(f"{config}: is for --type {settings.train_type}", EXIT_USAGE)
    if threads:
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        fail("no CUDA device can be used: PyTorch finds none", EXIT_USAGE)
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if bool(teacher) != (settings.loss.unlabelled == "lessons"):
        fail('--teacher goes with loss.unlabelled = "lessons" in the configuration, and that with it', EXIT_USAGE)
    if teacher and data is None:
        fail("the teachers have nothing to hear: give --data FOLDER", EXIT_USAGE)
    begin = _checkpoint(start) if start is not None else None
    teachers = [_checkpoint(path) for path in teacher or ()]
    interrupted = _train(settings, data, labels, name, save_dir, cache or save_dir / "cache", kind, begin, teachers)
    if interrupted:
        fail("interrupted; the same command goes on from here", EXIT_INTERRUPTED)


def _checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, or one line and the end."""
    from stonecli_train.checkpoint import CheckpointError, load_checkpoint

    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        fail(f"{path}: {error}", EXIT_USAGE)
    except OSError as error:
        fail(f"{path}: {error.strerror}", EXIT_USAGE)


def _config_name(train_type: str, has_labels: bool) -> str:
    return "ks" if train_type == "ks" else "ks_mode" if has_labels else "skey"


def _train(
    config: TrainConfig,
    data: Path | None,
    labels: Path | None,
    name: str,
    save_dir: Path,
    cache: Path,
    kind: str,
    start: Checkpoint | None,
    teachers: Sequence[Checkpoint],
) -> bool:
    """Run the training; True when interrupted."""
    import torch

    from stonecli_train.data import collect_tracks, split_tracks, taught
    from stonecli_train.features import FeatureCache
    from stonecli_train.lessons import Teachers
    from stonecli_train.loop import Run
    from stonecli_train.parallel import join_processes, leave_processes
    from stonecli_train.watchers import CsvLog, TensorBoardLog

    processes = join_processes(kind)
    device = torch.device(kind, processes.local_rank) if kind == "cuda" else torch.device("cpu")
    errors = error_console()
    features = FeatureCache(cache, config.vqt, config.input.corrects_tuning)

    def report(text: str) -> None:
        if processes.is_first:
            errors.print(text, markup=False, soft_wrap=True)

    unlabelled, labelled = collect_tracks(data, labels, features, report)
    if teachers:
        asked = Teachers(teachers, config.segment_frames, cache / "lessons")
        unlabelled = taught(unlabelled, asked, config.loss.least_sure, report)
    share, seed = config.data.validation_share, config.optimiser.seed
    training_unlabelled, validation_unlabelled = split_tracks(unlabelled, share, seed)
    training_labelled, validation_labelled = split_tracks(labelled, share, seed)
    place = Path(config.train_type) / str(config.loss.circle) / name
    folder = save_dir / "models" / place
    folder.mkdir(parents=True, exist_ok=True)
    wanted: list[bool] = []
    before = {number: signal.getsignal(number) for number in ENDS}
    if sys.platform != "win32" and before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup: the run outlives its terminal

    def interrupt(number: int, _: Any) -> None:
        wanted.append(True)
        if number == signal.SIGINT:  # a second Ctrl-C does not wait for the step; SIGTERM may come from two at once
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    with ExitStack() as stack:
        stack.callback(leave_processes)
        watchers: list[Any] = []
        if processes.is_first:
            screen = _Screen(config)
            stack.callback(screen.close)
            shown = [*validation_labelled, *validation_unlabelled]
            tensorboard = TensorBoardLog(save_dir / "tensorboard" / place, config, shown, device)
            stack.callback(tensorboard.close)
            watchers = [screen, CsvLog(folder / "log.csv"), tensorboard]
        for number, handler in before.items():
            signal.signal(number, interrupt)
            stack.callback(signal.signal, number, handler)
        run = Run(
            config,
            folder,
            training_unlabelled,
            training_labelled,
            validation_unlabelled,
            validation_labelled,
            device,
            processes,
            watchers,
            stop=lambda: bool(wanted),
            trained_on=f"{len(unlabelled)} unlabelled and {len(labelled)} labelled tracks",
            start=start,
        )
        run.train()
    return bool(wanted)


class _Screen:
    """Training in the terminal: a bar for the epoch, a line when it is over."""

    def __init__(self, config: TrainConfig) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._steps = config.optimiser.train_steps
        self._epochs = config.optimiser.epochs
        self._out = output_console()
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            console=self._out,
            transient=True,
            disable=not self._out.is_terminal,
        )
        self._bar = self._progress.add_task("", total=self._steps, epoch="", loss=float("nan"))
        self._progress.start()

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Move the bar."""
        done, epoch = step % self._steps + 1, f"{step // self._steps + 1}/{self._epochs}"
        self._progress.update(self._bar, completed=done, epoch=epoch, loss=losses["total"])

    def on_epoch(self, report: Any, network: Any) -> None:
        """Print the epoch's line."""
        line = f"epoch {report.epoch}  step {report.step}  {report.minutes:.1f} min  loss {report.losses['total']:.3f}"
        line += f"  validation {report.validation['total']:.3f}"
        if report.scores:
            scores = report.scores
            line += f"  KSEA {scores.ksea:.1%}  accuracy {scores.accuracy:.1%}  MIREX {100 * scores.mirex:.1f}"
        self._out.print(line + ("  best" if report.is_best else ""), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def on_message(self, text: str) -> None:
        """Print it."""
        self._out.print(text, markup=False, soft_wrap=True)
