"""The beets plugin: keys on import and by ``beet stone``, in the library and in the files (docs/beets.md).

On import beets writes the files, as it does with all its fields. ``beet stone`` writes them itself, as ``stone tag``
does: only the key, crash-safe, and recorded for ``stone undo``. Both go by the same rules for the same fields.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import beets
from beets import plugins, ui
from beets.dbcore import types
from confuse import ConfigError

from stonecli.errors import JournalError, ModelError, TagError
from stonecli.jobs import default_jobs, error_line, in_threads
from stonecli.key import NOTATIONS, Key, Notation, parse_or_none
from stonecli.model.session import KeyModel, default_model
from stonecli.tagging import TagOptions, TagResult, open_tagger
from stonecli.tags import Field, FieldRule, recorded, write_key
from stonecli.tags.fields import with_key
from stonecli.tags.rules import MODES, check_rules, parse_rules
from stonecli.util.text import printable

if TYPE_CHECKING:
    import optparse

    from beets.importer import ImportSession, ImportTask
    from beets.library import Item, Library

    from stonecli.tags.undo.journal import JournalRun

UserError: type[Exception] = ui.UserError  # type: ignore[attr-defined]  # it has moved within beets 2, not from here

LIBRARY_FIELDS: Mapping[Field, str] = {
    "key": "initial_key",
    "comment": "comments",
    "grouping": "grouping",
    "title": "title",
}
_LOWERED_CAMELOT = re.compile("(1[0-2]|[1-9])[ab]")


@dataclass(frozen=True)
class Settings:
    """What the table ``stone:`` of the user's config.yaml says, checked.

    Attributes:
        rules: the fields to fill and how.
        overwrite: whether tracks that have a key are analyzed again.
        write: whether files are written; None: as ``import: write`` says.
        min_confidence: 0..1; keys with less confidence are not written.
        model: file of another model than the built-in one, or None.
        jobs: files analyzed in parallel.
    """

    rules: tuple[FieldRule, ...]
    overwrite: bool
    write: bool | None
    min_confidence: float
    model: str | None
    jobs: int


class StonePlugin(plugins.BeetsPlugin):
    """Fills ``initial_key`` with the key that stone detects."""

    # With two digits: 0.95 with one is 1.0.
    item_types = {"key_confidence": types.Float(2)}  # noqa: RUF012 (beets reads it as it is)

    def __init__(self) -> None:
        super().__init__("stone")
        self.config.add(
            {
                "auto": True,
                "overwrite": False,
                "write": None,
                "notation": "musical",
                "field": ["key"],
                "mode": "prepend",
                "min_confidence": 0.0,
                "model": None,
                "jobs": 0,
            }
        )
        self.template_fields = {
            "key_camelot": lambda item: _spelled(item, "camelot"),
            "key_openkey": lambda item: _spelled(item, "openkey"),
        }
        self._behind: set[int] = set()  # ids of imported items whose files lack what was heard, and nothing else
        self.register_listener("write", self.about_to_write)
        if self.config["auto"].get(bool):
            self.import_stages = [self.imported]
            self.register_listener("import_begin", self.import_begins)
            self.register_listener("import_task_files", self.files_are_in_place)

    def commands(self) -> list[ui.Subcommand]:
        """The one command, ``beet stone``."""
        command = ui.Subcommand("stone", help="detect the keys of tracks and write them")
        add = command.parser.add_option
        add("-f", "--force", action="store_true", default=False, help="analyze tracks that have a key as well")
        add("-p", "--pretend", action="store_true", default=False, help="show what would change, and change nothing")
        add("-w", "--write", action="store_true", default=None, help="write the files, whatever is configured")
        add("-W", "--nowrite", action="store_false", dest="write", help="write the library only")
        add("-q", "--quiet", action="store_true", default=False, help="say nothing but errors")
        command.func = self.command
        return [command]

    def command(self, lib: Library, options: optparse.Values, arguments: list[str]) -> None:
        """``beet stone [-f] [-p] [-w|-W] [-q] [QUERY]``: one track after the other, as they finish in their order."""
        settings = self._settings()
        wants_all = options.force or settings.overwrite
        write = not options.pretend and ui.should_write(settings.write if options.write is None else options.write)
        say = self._log.debug if options.quiet else self._log.info
        lagging: list[Item] = []  # of which beets itself notes that the library knows more than the file

        def silent_items() -> Iterator[Item]:
            for item in lib.items(arguments):
                if wants_all or not item.initial_key:
                    yield item
                elif write and not item.mtime:
                    lagging.append(item)

        with self._journal(write) as journal:
            for item, result, error in self._hear(silent_items(), settings):
                if result is None:
                    self._fail(item, error)
                elif result.key is None or result.status == "unsure":
                    say("{}: {}", _name(item), result.status)
                else:
                    agrees = _agrees(item)
                    self._fill(item, result, settings.rules)
                    if options.pretend:
                        ui.show_model_changes(item, fields=[*LIBRARY_FIELDS.values()])
                        continue
                    say("{}: {}", _name(item), result.key.musical)
                    if write:
                        self._write(item, result.key, settings.rules, journal, agrees)
                    item.store()
            for item in lagging:
                self._write_known(item, settings.rules, journal, agrees=False)

    def import_begins(self, session: ImportSession) -> None:
        """Finds wrong settings before anything is imported."""
        _load_model(self._settings().model)

    def imported(self, session: ImportSession, task: ImportTask) -> None:
        """A stage of the import, in a thread of its own; beets moves and writes the files after it."""
        settings = self._settings()
        items = [item for item in task.imported_items() if settings.overwrite or not item.initial_key]
        for item, result, error in self._hear(items, settings):
            if result is None:
                self._fail(item, error)
            elif result.key is None or result.status == "unsure":
                self._log.info("{}: {}", _name(item), result.status)
            else:
                if _agrees(item) and item.id is not None:
                    self._behind.add(item.id)
                self._fill(item, result, settings.rules)
                self._log.info("{}: {}", _name(item), result.key.musical)
                item.store()

    def files_are_in_place(self, session: ImportSession, task: ImportTask) -> None:
        """Where ``write: yes`` asks for it, writes what beets has not: tracks that are imported as they are."""
        settings = self._settings()
        items = [item for item in task.imported_items() if item.initial_key and not item.mtime]
        if settings.write is not True or not items:
            return
        with self._journal(True) as journal:
            for item in items:
                self._write_known(item, settings.rules, journal, agrees=item.id in self._behind)

    def about_to_write(self, item: Item, path: bytes, tags: dict[str, Any]) -> None:
        """Gives Camelot codes their capital letter back, which beets takes from them, whenever beets writes a file."""
        text = tags.get("initial_key")
        if text and _LOWERED_CAMELOT.fullmatch(text):
            tags["initial_key"] = text.upper()

    def _settings(self) -> Settings:
        """The settings; what is wrong with them ends the program with one line."""
        try:
            minimum = float(self.config["min_confidence"].as_number())
            jobs = self.config["jobs"].get(int)
            if not 0 <= minimum <= 1 or jobs < 0:
                raise ValueError("min_confidence is from 0 to 1, jobs from 0")
            write = self.config["write"].get()
            model = self.config["model"]
            notation = self.config["notation"].as_choice(NOTATIONS)
            rules = parse_rules(self.config["field"].as_str_seq(), notation, self.config["mode"].as_choice(MODES))
            check_rules(rules)
            return Settings(
                rules=rules,
                overwrite=self.config["overwrite"].get(bool),
                write=None if write is None else self.config["write"].get(bool),
                min_confidence=minimum,
                model=None if model.get() is None else os.fspath(model.as_filename()),
                jobs=jobs or (default_jobs() if beets.config["threaded"].get(bool) else 1),
            )
        except (ConfigError, ValueError) as error:
            raise UserError(f"stone: {error}") from error

    def _hear(self, items: Iterable[Item], settings: Settings) -> Iterator[tuple[Item, TagResult | None, str | None]]:
        """Each item with the key detected in its file, or the error."""
        options = TagOptions(overwrite=True, min_confidence=settings.min_confidence)
        pairs = ((item, _path(item)) for item in items)
        with (
            open_tagger(_load_model(settings.model), options) as (tagger, _),
            in_threads(lambda pair: tagger(pair[1]), pairs, settings.jobs) as outcomes,
        ):
            for outcome in outcomes:
                yield outcome.item[0], outcome.result, outcome.error

    def _fill(self, item: Item, result: TagResult, rules: tuple[FieldRule, ...]) -> None:
        """The library says what the files say or will say: the same rules, on beets' own fields."""
        if result.key is None or result.estimate is None:
            return
        for rule in rules:
            name = LIBRARY_FIELDS[rule.field]
            spelling = result.key.spelled(rule.notation)
            text = spelling if rule.field == "key" else with_key(item[name] or None, spelling, rule.field, rule.mode)
            if text is not None:
                item[name] = text
        item["key_confidence"] = round(result.estimate.confidence, 4)

    def _write(
        self, item: Item, key: Key, rules: tuple[FieldRule, ...], journal: JournalRun | None, agrees: bool
    ) -> None:
        """The file says the key; beets then knows the file's time, if the two ``agrees`` before."""
        try:
            changed = write_key(_path(item), key, rules, journal=journal)
        except (TagError, OSError) as error:
            self._fail(item, error_line(error))
            return
        if agrees:
            item.mtime = item.current_mtime()
        if changed:
            plugins.send("after_write", item=item, path=item.path)

    def _write_known(self, item: Item, rules: tuple[FieldRule, ...], journal: JournalRun | None, agrees: bool) -> None:
        """Write the key that the library has to the file, without analyzing it."""
        key = parse_or_none(item.initial_key)
        if key is not None:
            self._write(item, key, rules, journal, agrees)
            item.store()

    @contextmanager
    def _journal(self, wanted: bool) -> Iterator[JournalRun | None]:
        """A run of the undo journal; without a journal nothing is written, so its errors end the program."""
        if not wanted:
            yield None
            return
        try:
            with recorded("write key (beets)") as record:
                yield record
        except JournalError as error:
            raise UserError(f"stone: {error}") from error

    def _fail(self, item: Item, error: str | None) -> None:
        self._log.error("{}: {}", _name(item), error)


@lru_cache(maxsize=4)
def _load_model(path: str | None) -> KeyModel:
    """The model, loaded once a process."""
    try:
        return default_model() if path is None else KeyModel(path)
    except (ModelError, OSError) as error:
        raise UserError(f"stone: {path or 'built-in model'}: {error_line(error)}") from error


def _agrees(item: Item) -> bool:
    """Whether, by beets' own bookkeeping, the library says what the file says: neither has been changed alone since."""
    try:
        return bool(item.mtime) and item.mtime >= item.current_mtime()
    except OSError:
        return False


def _path(item: Item) -> Path:
    return Path(os.fsdecode(item.path))


def _name(item: Item) -> str:
    return printable(str(_path(item)))


def _spelled(item: Item, notation: Notation) -> str:
    """The track's key in another notation, for templates and queries; "" where it has none."""
    key = parse_or_none(item.initial_key or "")
    return key.spelled(notation) if key else ""
