"""``stone train``: train a model on a folder of music, a list of keys, both, or music that stone generates."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stonecli.cli.common import EXIT_INTERRUPTED, EXIT_USAGE, error_console, fail, one_line_errors, output_console
from stonecli.cli.options import PROCESSING, DeviceOption, number, whole_number
from stonecli.cli.running import progress_bar
from stonecli.jobs import END_SIGNALS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from stonecli_train.checkpoint import Checkpoint
    from stonecli_train.config import TrainConfig
    from stonecli_train.data import Track

_REPORT_SECONDS = 30.0
SETTINGS = "Settings (default: from --config)"


@one_line_errors
def train(
    train_type: Annotated[
        Literal["ks", "ks_mode"],
        typer.Option("--type", "-tt", metavar="ks|ks_mode", help="Train 12 key signatures (ks) or 24 keys (ks_mode)."),
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Train on this music, which needs no labels (default: none).")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Train on labeled music: columns path and key (default: none)."),
    ] = None,
    loader: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Train on batches of your own data loader (default: none)."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", "-n", metavar="NAME", help="Name the run; the same name resumes it.")
    ] = "basic",
    save_dir: Annotated[
        Path, typer.Option("--save-dir", "-s", metavar="FOLDER", help="Save checkpoints and logs in this folder.")
    ] = Path("runs"),
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-g",
            metavar="FILE",
            help="Read settings from a .toml or .gin file, or built-in ones: laptop_ks.",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="CKPT", help="Start with the weights of this checkpoint (default: random)."),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(metavar="CKPT", help="Label the music of --data with this checkpoint; repeatable."),
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option("--allow-changes", help="Resume a run with other settings or tracks (default: refuse)."),
    ] = False,
    circle: Annotated[
        Literal["1", "7"] | None,
        typer.Option(
            "--circle",
            "-c",
            metavar="1|7",
            rich_help_panel=SETTINGS,
            help="Use the circle of semitones (1) or of fifths (7).",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", "-e", parser=whole_number(1), metavar="N", rich_help_panel=SETTINGS, help="Train N epochs."
        ),
    ] = None,
    train_steps: Annotated[
        int | None,
        typer.Option(
            "--train-steps",
            "-ts",
            parser=whole_number(1),
            metavar="N",
            rich_help_panel=SETTINGS,
            help="Train N batches per epoch.",
        ),
    ] = None,
    val_steps: Annotated[
        int | None,
        typer.Option(
            "--val-steps",
            "-vs",
            parser=whole_number(1),
            metavar="N",
            rich_help_panel=SETTINGS,
            help="Validate on N batches.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(parser=whole_number(1), metavar="N", rich_help_panel=SETTINGS, help="Put N tracks in a batch."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", "-lr", parser=number(0), metavar="RATE", rich_help_panel=SETTINGS, help="Set the learning rate."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(parser=whole_number(0), metavar="N", rich_help_panel=SETTINGS, help="Set the random seed."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(0), metavar="N", rich_help_panel=SETTINGS, help="Prepare batches in N processes."
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.NAME=VALUE",
            rich_help_panel=SETTINGS,
            help="Set any value of the configuration, e.g. loss.mode_weight=2; repeatable.",
        ),
    ] = None,
    watcher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:CLASS",
            rich_help_panel=PROCESSING,
            help="Report losses and events to your own class; repeatable.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=PROCESSING, help="Cache features here (default: cache in the --save-dir)."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1),
            metavar="N",
            rich_help_panel=PROCESSING,
            help="Use N CPU threads (default: PyTorch's).",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a key model on your own music.

    Without --data and --labels, stone trains on music that it generates. Ctrl-C or SIGTERM stop it; the same command
    resumes it. Without --config, --type ks trains STONE, and --type ks_mode trains Semi-TONE with labels and S-KEY
    without. For several GPUs:
    torchrun --nproc-per-node N -m stonecli train ...
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise typer.BadParameter(f"must be a valid folder name, not {name!r}", param_hint="--name")
    try:
        import matplotlib  # noqa: F401  (of TensorBoard's figures; its absence is better known now)
        import tensorboard  # type: ignore[import-untyped]  # noqa: F401
        import torch

        from stonecli_train.config import (
            ConfigError,
            default_config,
            find_config,
            load_config,
            override,
            with_values,
        )
    except ModuleNotFoundError as error:
        fail(f"stone train needs {error.name}; install it: pip install 'stonecli[train]'", EXIT_USAGE)
    try:
        if loader is not None and (data is not None or labels is not None):
            fail("--loader replaces --data and --labels; give one or the other", EXIT_USAGE)
        name_of_default = _config_name(train_type, data, labels, loader)
        settings = load_config(find_config(config)) if config else default_config(name_of_default)
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
        settings = with_values(settings, values or ())
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(f"{config}: {error.strerror}", EXIT_USAGE)
    if settings.train_type != train_type:
        fail(f"{config} is for --type {settings.train_type}, not {train_type}", EXIT_USAGE)
    if threads:
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        fail("PyTorch finds no CUDA device; use --device cpu", EXIT_USAGE)
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if bool(teacher) != (settings.loss.unlabelled == "lessons"):
        fail('--teacher needs loss.unlabelled = "lessons" in the --config, and the other way round', EXIT_USAGE)
    if teacher and data is None:
        fail("--teacher needs music without labels; add --data FOLDER", EXIT_USAGE)
    begin = _checkpoint(start) if start is not None else None
    teachers = [_checkpoint(path) for path in teacher or ()]
    interrupted = _train(
        settings,
        data,
        labels,
        name,
        save_dir,
        cache or save_dir / "cache",
        kind,
        begin,
        teachers,
        allow_changes,
        watcher or (),
        loader,
    )
    if interrupted:
        fail("interrupted; run the same command again to resume", EXIT_INTERRUPTED)


def _checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, or one line and the end."""
    from stonecli_train.checkpoint import CheckpointError, load_checkpoint

    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        fail(f"{path}: {error}", EXIT_USAGE)
    except OSError as error:
        fail(f"{path}: {error.strerror}", EXIT_USAGE)


def _config_name(train_type: str, data: Path | None, labels: Path | None, loader: str | None) -> str:
    if loader is not None:
        return "ks" if train_type == "ks" else "ks_mode"
    if data is None and labels is None:
        return f"generated_{train_type}"
    return "ks" if train_type == "ks" else "skey" if labels is None else "ks_mode"


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
    allow_changes: bool,
    watcher_names: Sequence[str],
    loader: str | None,
) -> bool:
    """Run the training; True when interrupted."""
    import torch

    from stonecli_train.allocator import keep_freed_memory
    from stonecli_train.checkpoint import load_checkpoint
    from stonecli_train.data import check_tracks, collect_tracks, split_tracks, taught
    from stonecli_train.features import FeatureCache
    from stonecli_train.generated import EXCERPTS, generate
    from stonecli_train.lessons import Teachers
    from stonecli_train.loop import Run, check_settings, stored_split
    from stonecli_train.own_code import load_loaders
    from stonecli_train.parallel import join_processes, leave_processes
    from stonecli_train.plan import advice, plan_of
    from stonecli_train.watchers import CsvLog, TensorBoardLog, load_watcher

    if kind == "cpu":
        keep_freed_memory()
    processes = join_processes(kind)
    device = torch.device(kind, processes.local_rank) if kind == "cuda" else torch.device("cpu")
    errors = error_console()
    features = FeatureCache(cache, config.vqt, config.input.corrects_tuning)

    def report(text: str) -> None:
        if processes.is_first:
            errors.print(text, markup=False, soft_wrap=True)

    run_path = Path(config.train_type) / str(config.loss.circle) / name
    folder = save_dir / "models" / run_path
    folder.mkdir(parents=True, exist_ok=True)
    last = before = None
    if (folder / "last.pt").exists():
        last = load_checkpoint(folder / "last.pt")
        check_settings(last, config, folder, allow_changes)
        before = stored_split(last)
    own_watchers = [load_watcher(watcher, config, name) for watcher in watcher_names if processes.is_first]
    if loader is not None and processes.count > 1:
        fail("--loader needs a run of one process: its batches cannot be shared", EXIT_USAGE)
    training, validation = load_loaders(loader, config) if loader is not None else (None, None)
    unlabelled: list[Track] = []
    labelled: list[Track] = []
    with _Bar(errors if processes.is_first else None) as bar:
        if loader is None and data is None and labels is None:
            own = "for your own: --data FOLDER, --labels CSV, or both"
            report(
                f"stone: training on {EXCERPTS} excerpts of music that stone generates; {own} (see docs/training.md)"
            )
            labels = generate(
                cache / "generated", config.vqt, count=EXCERPTS, processes=processes, progress=bar.of("generated")
            )
        if loader is None:
            unlabelled, labelled = collect_tracks(
                data,
                labels,
                features,
                report,
                processes=processes,
                check=partial(check_tracks, config=config),
                progress=bar.of("decoded"),
            )
    if teachers:
        asked = Teachers(teachers, config.segment_frames, cache / "lessons")
        unlabelled = taught(unlabelled, asked, config.loss.least_sure, report)
    share, seed = config.data.validation_share, config.optimiser.seed
    training_unlabelled, validation_unlabelled = split_tracks(unlabelled, share, seed, before)
    training_labelled, validation_labelled = split_tracks(labelled, share, seed, before)
    wanted: list[bool] = []
    handlers = {number: signal.getsignal(number) for number in END_SIGNALS}
    if sys.platform != "win32" and handlers[signal.SIGHUP] == signal.SIG_IGN:
        del handlers[signal.SIGHUP]  # nohup: the run outlives its terminal

    def interrupt(number: int, _: Any) -> None:
        wanted.append(True)
        if number == signal.SIGINT:  # a second Ctrl-C does not wait for the step; SIGTERM may come from two at once
            signal.signal(signal.SIGINT, handlers[signal.SIGINT])

    with ExitStack() as stack:
        stack.callback(leave_processes)
        watchers: list[Any] = []
        if processes.is_first:
            screen = _Screen(config)
            stack.callback(screen.close)
            shown = [*validation_labelled, *validation_unlabelled]
            tensorboard = TensorBoardLog(save_dir / "tensorboard" / run_path, config, shown, device)
            stack.callback(tensorboard.close)
            watchers = [screen, CsvLog(folder / "log.csv"), tensorboard, *own_watchers]
            for watcher in own_watchers:
                stack.callback(watcher.close)
        for number, handler in handlers.items():
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
            trained_on=f"batches of {loader}"
            if loader
            else f"{len(unlabelled)} unlabelled and {len(labelled)} labelled tracks",
            start=start,
            batches=training,
            validation_batches=validation,
            allows_changes=allow_changes,
        )
        if processes.is_first:
            plan = plan_of(run, last.state["progress"]["step"] if last is not None else 0)
            for line in filter(None, (str(plan), advice(plan, config))):
                screen.on_message(line)
        run.train()
    return bool(wanted)


class _Bar:
    """How far the preparation of the data is: a bar in a terminal, else a line every half minute."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._told = time.monotonic()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def of(self, what: str) -> Callable[[int, int], None]:
        """What shows how many of how many recordings are ``what``, which is a participle."""
        return partial(self._show, what)

    def _show(self, what: str, done: int, count: int) -> None:
        if self._console is None:
            return
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = progress_bar(self._console, self._console)
                self._bar.add_task(what)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=count)
        elif time.monotonic() - self._told > _REPORT_SECONDS:
            self._told = time.monotonic()
            self._console.print(f"{done} of {count} recordings {what}")


class _Screen:
    """Training in the terminal: a bar for the epoch, a line when it is over."""

    def __init__(self, config: TrainConfig) -> None:
        self._steps = config.optimiser.train_steps
        self._epochs = config.optimiser.epochs
        self._out = output_console()
        self._progress = progress_bar(self._out, self._out, unit="steps")
        self._bar = self._progress.add_task("", total=self._steps)
        self._progress.start()

    def on_resume(self, step: int) -> None:
        """Nothing: the bar shows where the run is."""

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Move the bar."""
        done, epoch = step % self._steps + 1, f"{step // self._steps + 1}/{self._epochs}"
        note = f"loss {losses['total']:.3f}"
        self._progress.update(self._bar, completed=done, description=f"epoch {epoch}", note=note)

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
