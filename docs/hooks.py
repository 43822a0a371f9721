"""What the site has beyond the files of docs/: pages from elsewhere in the repository, and a reference of the commands.

Links are written as they are right on a plain git host, and turned into those of the site here. MkDocs calls the two
functions whose names begin with ``on_`` (``hooks:`` in mkdocs.yml).
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
    """The files of docs/ and, as pages, those that are elsewhere."""
    for source, page in ELSEWHERE.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The page with its links leading to pages of the site; what the site does not have is named without a link."""
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
            return match[0]  # a broken link: for MkDocs to complain of
        return text

    markdown = _LINK.sub(replaced, markdown)
    return markdown.replace(COMMANDS_HERE, commands()) if COMMANDS_HERE in markdown else markdown


def commands() -> str:
    """Markdown for every command of stone, from the same parts as its help."""
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
