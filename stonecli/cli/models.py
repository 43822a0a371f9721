"""``stone models``: list, show, add and remove the models that ``--model`` takes by name."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    error_console,
    fail,
    one_line_errors,
    output_console,
    print_json,
)
from stonecli.cli.options import json_option
from stonecli.cli.running import progress_bar

if TYPE_CHECKING:
    from stonecli.model.published import PublishedModel
    from stonecli.model.registry import StoredModel

MAX_TEXT_WIDTH = 100  # characters; longer lines are hard to read
WANTED = {"show": "show NAME", "add": "add NAME|FILE|URL", "remove": "remove NAME"}


def _sha256(text: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise typer.BadParameter(f"must be 64 hexadecimal digits, not {text!r}")
    return text


@one_line_errors
def models(
    action: Annotated[
        Literal["list", "show", "add", "remove"],
        typer.Argument(metavar="[list|show|add|remove]", help="Choose what to do."),
    ] = "list",
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE|URL]",
            help="Name a model; add also takes the published stone, semi-tone and skey.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="With add: store the model under this name (default: file name).")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(parser=_sha256, metavar="HEX", help="With add: require this SHA-256 (default: any)."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace/--no-replace",
            help="With add: replace a model of the same name (default: refuse).",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes/--no-yes", "-y", help="With add: accept the license without asking (default: ask).")
    ] = False,
    as_json: Annotated[bool, json_option("Print one JSON object per model (default: a table).")] = False,
) -> None:
    """List, show, add and remove models for --model.

    Only stone models add uses the network, and only for the model you name.
    """
    from stonecli.errors import ModelError
    from stonecli.model.registry import remove_model, stored_model, stored_models

    if (what is None) != (action == "list"):
        fail(f"usage: stone models {WANTED.get(action, '[list]')}", EXIT_USAGE)
    if action != "add" and (sha256 or name or replace or yes):
        fail("--sha256, --name, --replace and --yes only work with stone models add", EXIT_USAGE)
    if action == "list":
        _list(stored_models(), as_json)
    elif action == "add":
        stored = _add(what or "", sha256, name, replace, yes)
        if as_json:
            print_json(_record(stored))
        else:
            _print(f"{stored.name}: {_classes(stored)}, {_size(stored)}, SHA-256 {stored.sha256}")
            _print(f"license: {_licence(stored)}")
            _print(f"use it: stone tag --model {stored.name}")
    elif action == "show":
        stored = stored_model(what or "")
        _show(stored, as_json)
        if stored.error is not None:
            raise ModelError(f"{stored.name}: {stored.error}")
    else:
        remove_model(what or "")


def _add(what: str, sha256: str | None, name: str | None, replace: bool, yes: bool) -> StoredModel:
    """Download or read a model, convert it if it is a checkpoint, and store it."""
    from stonecli.cli.export import require_exporter
    from stonecli.errors import ModelError
    from stonecli.model.published import PUBLISHED
    from stonecli.model.registry import add_model

    published = PUBLISHED.get(what)
    if published is not None and sha256 is not None:
        raise typer.BadParameter(f"cannot be combined with {what}, whose hash stone knows", param_hint="--sha256")
    wanted = _name_of(what, name)
    if published is not None:
        require_exporter("stone models add")  # before the download
        _agree(published, yes)
        content, source = _fetch(published.url, published.sha256), published.url
    elif "://" in what:
        content, source = _fetch(what, sha256), urlsplit(what)._replace(query="", fragment="").geturl()
    else:
        content, source = _read(what, sha256), str(Path(what).absolute())
    if _is_checkpoint(content):
        _agree_to_known(content, published, yes)
        content = _converted(content)
    try:
        return add_model(content, wanted, source, replace=replace)
    except ModelError as error:
        vars(error).setdefault("filename", what)
        raise


def _name_of(what: str, name: str | None) -> str:
    """The name to store the model under: ``name``, or that of the published model, file or URL, which is checked."""
    from stonecli.errors import DownloadError
    from stonecli.model.download import check_url
    from stonecli.model.published import PUBLISHED
    from stonecli.model.registry import is_name, name_for

    is_url = "://" in what
    if is_url:
        try:
            check_url(what)
        except DownloadError as error:
            vars(error).setdefault("filename", what)
            raise
    wanted = name or (what if what in PUBLISHED else name_for(urlsplit(what).path if is_url else what))
    if not wanted:
        file = urlsplit(what).path.rpartition("/")[2] if is_url else Path(what).name
        raise typer.BadParameter(
            f"is missing: {file} gives no name for the model; add --name NAME", param_hint="--name"
        )
    if not is_name(wanted):
        raise typer.BadParameter(
            f"must be lower-case letters, digits, - and _, and no name that Windows reserves, not {wanted!r};"
            " choose another",
            param_hint="--name",
        )
    return wanted


def _read(file: str, sha256: str | None) -> bytes:
    """The content of a model file, which must have the hash ``sha256`` if one is given."""
    from stonecli.errors import ModelError
    from stonecli.model.published import PUBLISHED
    from stonecli.model.registry import is_name
    from stonecli.model.session import read_model

    if is_name(file) and not Path(file).exists():
        raise ModelError(f"{file}: no such file or published model; the published models are {', '.join(PUBLISHED)}")
    content = read_model(file)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ModelError(f"{file}: its SHA-256 is {found}, not the one of --sha256; check where the file is from")
    return content


def _agree_to_known(content: bytes, agreed: PublishedModel | None, yes: bool) -> None:
    """Ask for agreement with the license of a published checkpoint that came from a file or another URL."""
    from stonecli.model.published import published_by_sha256

    known = published_by_sha256(hashlib.sha256(content).hexdigest())
    if known is not None and known is not agreed:
        _agree(known, yes)


def _agree(published: PublishedModel, yes: bool) -> None:
    """Show authors and license of a published model, and ask; a no ends the program."""
    from rich.text import Text

    errors = error_console()
    errors.print(Text(f"{published.name}: {published.title}, {published.page}"), soft_wrap=True)
    errors.print(Text(f"license: {published.licence}"), soft_wrap=True)
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{published.name}: add --yes if you agree to its license", EXIT_USAGE)
    if not typer.confirm("Do you agree?", err=True):
        fail("you did not agree to the license, so no model was added; run the command again to agree")


def _fetch(url: str, sha256: str | None) -> bytes:
    """The bytes at ``url``, with a progress bar on a terminal."""
    from stonecli.errors import DownloadError
    from stonecli.model.download import fetch

    errors = error_console()
    with progress_bar(errors, errors, unit="bytes") as bar:
        task = bar.add_task("", total=None)
        try:
            return fetch(url, sha256=sha256, progress=lambda done, total: bar.update(task, completed=done, total=total))
        except DownloadError as error:
            vars(error).setdefault("filename", url)
            raise


def _is_checkpoint(content: bytes) -> bool:
    """Whether ``torch.save`` wrote it: a ZIP archive or, in old versions, a pickle. An ONNX file is neither."""
    return content.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04"))


def _converted(content: bytes) -> bytes:
    """The checkpoint as a model: the pitch fork finds the class order, and the output is compared with PyTorch."""
    from stonecli.cli.export import exporter
    from stonecli.errors import StoneError

    export = exporter("stone models add, for a checkpoint,")
    with tempfile.TemporaryDirectory(prefix="stone-") as folder:
        checkpoint, model = Path(folder) / "checkpoint.pt", Path(folder) / "model.onnx"
        checkpoint.write_bytes(content)
        with error_console().status("converting the checkpoint"):
            try:
                export(checkpoint, model, None)
            except StoneError as error:
                vars(error).pop("filename", None)  # the name of a temporary file
                raise
        return model.read_bytes()


def _list(stored: list[StoredModel], as_json: bool) -> None:
    """Print the models as a table (tab-separated in a pipe), and the published models that can be added."""
    from rich.table import Table
    from rich.text import Text

    from stonecli.model.published import PUBLISHED
    from stonecli.util.text import printable

    if as_json:
        for model in stored:
            print_json(_record(model))
    else:
        names = ("name", "detects", "size", "license", "from")
        rows = [
            [printable(text) for text in (model.name, _classes(model), _size(model), _licence(model), _source(model))]
            for model in stored
        ]
        out = output_console()
        if not out.is_terminal:
            for row in (names, *rows):
                print("\t".join(row))
        else:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for title in names:
                table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            out.print(table)
            more = [title for title in PUBLISHED if title not in {model.name for model in stored}]
            if more:
                out.print(Text(f"published models for stone models add: {', '.join(more)}"))
    for model in stored:
        if model.error is not None:
            error_console().print(Text(f"stone: {model.name}: {printable(model.error)}"), soft_wrap=True)
    if any(model.error is not None for model in stored):
        raise typer.Exit(EXIT_FAILED)


def _show(stored: StoredModel, as_json: bool) -> None:
    """Print the properties of a model, and the model card of the built-in one."""
    if as_json:
        print_json({**_record(stored), "text": _card_text() if stored.is_built_in else None})
        return
    if stored.is_built_in:
        _show_markdown(_card_text())
        return
    _print(f"{stored.name}: {_classes(stored)}")
    for title, value in {
        "from": stored.source,
        "added": stored.added,
        "file": str(stored.path or ""),
        "size": _size(stored),
        "sha256": stored.sha256,
        **(_card(stored) or {}),
    }.items():
        text = ", ".join(value) if isinstance(value, list) else "unknown" if value is None else str(value)
        _print(f"{title.replace('_', ' ')}: {text}")


def _show_markdown(text: str) -> None:
    """Print Markdown: rendered on a terminal, unchanged in a pipe."""
    out = output_console()
    if not out.is_terminal:
        for line in text.splitlines():
            _print(line)
        return
    from rich.markdown import Markdown

    out.width = min(out.width, MAX_TEXT_WIDTH)
    out.print(Markdown(text, hyperlinks=False))


def _record(stored: StoredModel) -> dict[str, Any]:
    return {
        "name": stored.name,
        "status": "built-in" if stored.is_built_in else "added",
        "path": str(stored.path) if stored.path else None,
        "sha256": stored.sha256 or None,
        "size": stored.size,
        "source": stored.source or None,
        "added": stored.added or None,
        "card": _card(stored),
        "error": stored.error,
    }


def _card(stored: StoredModel) -> dict[str, Any] | None:
    """The metadata in the model as JSON values."""
    from dataclasses import asdict

    if stored.info is None:
        return None
    classes = ["/".join(key.name for key in keys) for keys in stored.info.classes]
    return {**asdict(stored.info), "classes": classes}


def _card_text() -> str:
    from importlib import resources

    return (resources.files("stonecli") / "model" / "MODEL_CARD.md").read_text("utf-8")


def _classes(stored: StoredModel) -> str:
    if stored.info is None:
        return "damaged"
    return "24 keys" if stored.info.train_type == "ks_mode" else "12 key signatures"


def _size(stored: StoredModel) -> str:
    return f"{stored.size / 1e6:.1f} MB"


def _licence(stored: StoredModel) -> str:
    return stored.info.licence or "not stated" if stored.info else ""


def _source(stored: StoredModel) -> str:
    return "built in" if stored.is_built_in else stored.source


def _print(line: str) -> None:
    from stonecli.util.text import printable

    print(printable(line))
