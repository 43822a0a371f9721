"""``stone export``: convert a checkpoint to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import EXIT_USAGE, check_target, fail, one_line_errors, output_console
from stonecli.library.walk import MUSIC_SUFFIXES
from stonecli.util.installation import how_to_install

if TYPE_CHECKING:
    from collections.abc import Callable

    from stonecli_export.onnx_file import ExportReport


@one_line_errors
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(readable=False, metavar="CKPT.pt", help="Read this checkpoint of stone train, STONE or S-KEY."),
    ],
    model: Annotated[Path, typer.Argument(readable=False, metavar="MODEL.onnx", help="Write the model to this file.")],
    pitch_fork: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="Check the class order with this recording in C major, too."),
    ] = None,
) -> None:
    """Convert a PyTorch checkpoint to an ONNX model for --model.

    Checks the order of the classes with synthetic chords, and the output against PyTorch.
    """
    if model.suffix.lower() in MUSIC_SUFFIXES:
        raise typer.BadParameter("must not end like a music file; use .onnx", param_hint="MODEL.onnx")
    check_target(model, "MODEL.onnx")
    report = exporter("stone export")(checkpoint, model, pitch_fork)
    console = output_console()
    origin = "from the checkpoint" if report.order_was_known else "found with synthetic chords"
    console.print(
        f"{report.path}: {report.size / 1e6:.1f} MB, {len(report.classes)} classes", markup=False, soft_wrap=True
    )
    console.print(f"class order {origin}: {', '.join(report.classes[:3])}, ...", markup=False, soft_wrap=True)
    console.print(f"largest difference from PyTorch: {report.difference:.1e}", markup=False, soft_wrap=True)


def exporter(command: str) -> Callable[[Path, Path, Path | None], ExportReport]:
    """The function that converts a checkpoint; without PyTorch, ``command`` ends with one line."""
    try:
        from stonecli_export.onnx_file import export_checkpoint
    except ModuleNotFoundError as error:
        fail(f"{command} needs {error.name}; {how_to_install('train')}", EXIT_USAGE)
    return export_checkpoint


def require_exporter(command: str) -> None:
    """End the program if the converter cannot be loaded; does not load PyTorch, which is slow."""
    from importlib.util import find_spec

    for name in ("torch", "onnx"):
        if find_spec(name) is None:
            fail(f"{command} needs {name}; {how_to_install('train')}", EXIT_USAGE)
