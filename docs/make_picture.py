"""Draw docs/tag.svg: what ``stone tag`` shows for a folder of music (python docs/make_picture.py FOLDER)."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from stonecli.cli import tag as command

folder = Path(sys.argv[1])
console = Console(
    record=True, file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor", highlight=False
)
nowhere = Console(file=io.StringIO())
draw_progress = command._progress
command.output_console = lambda: console  # the command itself runs, onto a console that remembers
command._progress = lambda *_: draw_progress(nowhere, nowhere)  # a still picture has no use for its frames
console.print(f"$ stone tag ~/{folder.name} --write-tags")
command.tag(paths=[folder], write_tags=True)
console.save_svg(str(Path(__file__).with_name("tag.svg")), title="stone")
