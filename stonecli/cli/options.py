"""Options that several commands have, as Typer reads them; what they mean is done elsewhere, without Typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stonecli.cli.common import Device


def model_file(text: str) -> Path:
    """The file of the model that ``text`` names, else ``text`` as a path; :func:`load_model` says what is wrong."""
    from stonecli.errors import ModelError
    from stonecli.model_store import model_path

    try:
        return model_path(text)
    except ModelError:
        return Path(text)


DeviceOption = Annotated[Device, typer.Option(help="Where the network runs; auto takes CUDA when it is there.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model", parser=model_file, metavar="NAME|FILE", help="Another model: see stone models, stone export."
    ),
]
WriteTagsOption = Annotated[
    bool,
    typer.Option(
        "--write-tags/--no-write-tags", help="Write the keys. Without it nothing changes.", show_default=False
    ),
]
ModeOption = Annotated[
    Literal["replace", "prepend", "append"], typer.Option(help="What to do with the text of a comment or title.")
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite/--no-overwrite",
        help="Hear and write files that have a key as well; else they are left.",
        show_default=False,
    ),
]
MinConfidenceOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, metavar="0..1", help="Do not write what is heard with less.")
]
PreserveMtimeOption = Annotated[
    bool,
    typer.Option(
        "--preserve-mtime/--no-preserve-mtime", help="Keep the modification time of written files.", show_default=False
    ),
]
NullOption = Annotated[
    bool, typer.Option("--null", "-0", help="With - for a list of files on standard input: NUL stands between them.")
]
