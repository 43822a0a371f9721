"""Add pages from outside docs/ and the reference of the commands to the site.

The links in the pages are written for a git host, and rewritten for the site here. MkDocs calls the two functions
whose names start with ``on_`` (``hooks:`` in mkdocs.yml).
"""

from __future__ import annotations

import inspect
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {  # file in the repository: page of the site
    "stonecli/model/MODEL_CARD.md": "model-card.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "research/model-log.md": "model-log.md",
    "research/history.md": "model-history.md",
}
_SOURCES = {page: source for source, page in ELSEWHERE.items()}
COMMANDS_HERE = "<!-- commands -->"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/, and the files of ``ELSEWHERE`` as pages."""
    for source, page in ELSEWHERE.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The page with its links rewritten to pages of the site; links to files outside the site become text."""
    here = posixpath.dirname(_SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def replaced(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        source = posixpath.normpath(posixpath.join(here, target))
        if source in ELSEWHERE:
            return f"{image}[{text}]({ELSEWHERE[source]}{anchor or ''})"
        if source.startswith("docs/"):
            return f"{image}[{text}]({source.removeprefix('docs/')}{anchor or ''})"
        if not (ROOT / source).exists():
            return match[0]  # a broken link, which MkDocs reports
        return text

    markdown = _LINK.sub(replaced, markdown)
    return markdown.replace(COMMANDS_HERE, commands()) if COMMANDS_HERE in markdown else markdown


def commands() -> str:
    """Markdown for every command of stone, from the same source as its help."""
    from typer import Context
    from typer.main import get_command

    from stonecli.cli.help import COMMANDS, sections, usage
    from stonecli.cli.main import app

    lines = []
    group: Any = get_command(app)
    for name in COMMANDS:
        command = group.commands[name]
        lines += [f"## stone {name}", "", inspect.cleandoc(command.help), "", f"`{usage(command)}`", ""]
        for title, entries in sections(command, Context(command, info_name=name)):
            lines += [f"**{title}**", "", *(f"* `{left}`: {text}" for left, text in entries), ""]
    return "\n" + "\n".join(lines)
