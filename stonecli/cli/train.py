"""``stone train``: train a model on a folder of music, a list of keys, both, or music that stone generates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from stonecli.cli.common import EXIT_INTERRUPTED, EXIT_USAGE, fail, one_line_errors
from stonecli.cli.options import PROCESSING, DeviceOption, number, whole_number
from stonecli.errors import StoneError, reason
from stonecli.util.installation import how_to_install

SETTINGS = "Settings (default: from --config)"


@one_line_errors
def train(
    train_type: Annotated[
        Literal["ks", "ks_mode"],
        typer.Option("--type", "-tt", metavar="ks|ks_mode", help="Train 12 key signatures (ks) or 24 keys (ks_mode)."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="FOLDER", help="Train on this music, which needs no labels (default: none)."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="CSV", help="Train on labeled music: columns path and key (default: none)."
        ),
    ] = None,
    loader: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Train on batches of your own data loader (default: none)."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", "-n", metavar="NAME", help="Name the run; the same name resumes it.")
    ] = "basic",
    save_dir: Annotated[
        Path,
        typer.Option(
            "--save-dir", "-s", readable=False, metavar="FOLDER", help="Save checkpoints and logs in this folder."
        ),
    ] = Path("runs"),
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-g",
            readable=False,
            metavar="FILE",
            help="Read settings from a .toml or .gin file, or built-in ones: laptop_ks.",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            readable=False,
            metavar="CKPT",
            help="Start with the weights of this checkpoint (default: random).",
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False, metavar="CKPT", help="Label the music of --data with this checkpoint; repeatable."
        ),
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes/--no-allow-changes", help="Resume a run with other settings or tracks (default: refuse)."
        ),
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
            readable=False,
            metavar="FOLDER",
            rich_help_panel=PROCESSING,
            help="Cache features here (default: cache in the --save-dir).",
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
    with _usage_errors():
        from stonecli.cli.train_screen import TrainScreen
        from stonecli_train import training

        settings = training.choose_config(
            train_type,
            config,
            data=data,
            labels=labels,
            loader=loader,
            values=values or (),
            loss__circle=int(circle) if circle else None,
            data__batch_size=batch_size,
            data__workers=workers,
            optimizer__epochs=epochs,
            optimizer__train_steps=train_steps,
            optimizer__val_steps=val_steps,
            optimizer__lr=lr,
            optimizer__seed=seed,
        )
        screen = TrainScreen(settings.optimizer.train_steps, settings.optimizer.epochs)
        trained = training.train(
            settings,
            data=data,
            labels=labels,
            loader=loader,
            name=name,
            save_dir=save_dir,
            cache=cache,
            start=start,
            teachers=teacher or (),
            allow_changes=allow_changes,
            watchers=(screen, *(watcher or ())),
            threads=threads,
            device=device,
            on_progress=screen.on_progress,
            on_message=screen.on_data_message,
        )
    if trained.is_interrupted:
        fail("interrupted; run the same command again to resume", EXIT_INTERRUPTED)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """End the program with the exit code of wrong usage if a package is missing or an argument is wrong."""
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"stone train needs {error.name}; {how_to_install('train')}", EXIT_USAGE)
    except StoneError as error:
        from stonecli_train.config import ConfigError
        from stonecli_train.errors import ArgumentsError

        if isinstance(error, ConfigError | ArgumentsError):
            fail(reason(error), EXIT_USAGE)
        raise
