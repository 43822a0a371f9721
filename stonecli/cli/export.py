"""``stone export``: a checkpoint becomes a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import EXIT_USAGE, check_target, fail, one_line_errors, output_console
from stonecli.library import MUSIC_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from stonecli_export.onnx_file import ExportReport


@one_line_errors
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT.pt", help="Of stone train, or published: STONE, S-KEY.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to write.")],
    pitch_fork: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A recording in C major that the model has to name as well.")
    ] = None,
) -> None:
    """Turn a checkpoint into a model for --model; its class order is checked by ear, its numbers against PyTorch."""
    if model.suffix.lower() in MUSIC_SUFFIXES:
        raise typer.BadParameter("would replace music", param_hint="MODEL.onnx")
    check_target(model)
    report = exporter("stone export")(checkpoint, model, pitch_fork)
    console = output_console()
    origin = "as the checkpoint says" if report.order_was_known else "found by the pitch fork"
    console.print(
        f"{report.path}: {report.size / 1e6:.1f} MB, {len(report.classes)} classes", markup=False, soft_wrap=True
    )
    console.print(f"class order {origin}: {', '.join(report.classes[:3])}, …", markup=False, soft_wrap=True)
    console.print(f"largest difference from PyTorch: {report.difference:.1e}", markup=False, soft_wrap=True)


def exporter(command: str) -> Callable[[Path, Path, Path | None], ExportReport]:
    """What turns a checkpoint into a model; where torch is not installed, ``command`` ends with one line."""
    try:
        from stonecli_export.onnx_file import export_checkpoint
    except ModuleNotFoundError as error:
        fail(f"{command} needs {error.name}: pip install 'stonecli[train]'", EXIT_USAGE)
    return export_checkpoint


def require_exporter(command: str) -> None:
    """The same before there is a checkpoint, without loading torch, which is slow."""
    from importlib.util import find_spec

    for name in ("torch", "onnx"):
        if find_spec(name) is None:
            fail(f"{command} needs {name}: pip install 'stonecli[train]'", EXIT_USAGE)
