"""Draw docs/tag.svg: what ``stone tag`` shows for a folder of music (python docs/make_picture.py FOLDER)."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from stonecli.cli import tag_screen
from stonecli.cli.main import app

FONT_ADDRESS = re.compile(r',\s*url\("https?://[^"]*"\) format\("woff2?"\)')  # the picture must not load a font

folder = Path(sys.argv[1])
console = Console(
    record=True, file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor", highlight=False
)
draw_progress = tag_screen.progress_bar
tag_screen.output_console = lambda: console  # runs the command itself on a console that records
# A still picture needs no progress bar.
tag_screen.progress_bar = lambda out, err, hidden=False: draw_progress(out, err, hidden=True)
console.print(f"$ stone tag ~/{folder.name} --write-tags")
app(["tag", str(folder), "--write-tags", "--no-cache"], standalone_mode=False)
picture = Path(__file__).with_name("tag.svg")
picture.write_text(FONT_ADDRESS.sub("", console.export_svg(title="stone")), encoding="utf-8")
