"""The beets plugin: detects keys, and with ``bpm: yes`` tempos, on import and with ``beet stone`` (docs/beets.md).

On import, beets writes the files with all their fields. ``beet stone`` writes them itself, as ``stone tag`` does: only
key and tempo, with an atomic replacement, and recorded for ``stone undo``. Both follow the same rules for the fields.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import beets
from beets import plugins, ui
from beets.dbcore import types
from confuse import ConfigError

from stonecli.errors import JournalError, ModelError, TagError, describe
from stonecli.jobs import default_jobs, in_threads
from stonecli.key import NOTATIONS, Key, Notation, parse_or_none
from stonecli.model.session import KeyModel, default_model
from stonecli.tagging import TagOptions, TagResult, open_tagger
from stonecli.tags import Field, FieldRule, recorded, write_tags
from stonecli.tags.fields import with_key
from stonecli.tags.rules import MODES, check_rules, parse_rules
from stonecli.tags.tempo_text import parse_bpm_range
from stonecli.tempo.bpm import BpmRange
from stonecli.util.text import printable

if TYPE_CHECKING:
    import optparse

    from beets.importer import ImportSession, ImportTask
    from beets.library import Item, Library

    from stonecli.tags.undo.journal import JournalRun

UserError: type[Exception] = ui.UserError  # type: ignore[attr-defined]  # beets 2 has moved it, but still exports it here

LIBRARY_FIELDS: Mapping[Field, str] = {
    "key": "initial_key",
    "comment": "comments",
    "grouping": "grouping",
    "title": "title",
}
_LOWERED_CAMELOT = re.compile("(1[0-2]|[1-9])[ab]")


@dataclass(frozen=True)
class Settings:
    """The settings below ``stone:`` in the user's config.yaml, validated.

    Attributes:
        rules: the fields to write, with notation and mode.
        overwrite: whether to re-analyze tracks that already have a key.
        write: whether to write files; None for the setting ``import: write``.
        min_confidence: 0..1; keys with a lower confidence are not stored.
        model: path of a model file; None for the built-in model.
        jobs: number of files analyzed in parallel.
        bpm: whether the tempo is estimated, too.
        bpm_range: lowest and highest tempo that tempos are halved or doubled into; None for those that are estimated.
    """

    rules: tuple[FieldRule, ...]
    overwrite: bool
    write: bool | None
    min_confidence: float
    model: str | None
    jobs: int
    bpm: bool = False
    bpm_range: BpmRange | None = None


class StonePlugin(plugins.BeetsPlugin):
    """Fills ``initial_key`` with the key that stone detects."""

    # Two digits, because with one 0.95 would be shown as 1.0.
    item_types = {"key_confidence": types.Float(2)}  # noqa: RUF012 (beets reads this attribute)

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
                "bpm": False,
                "bpm_range": None,
            }
        )
        self.template_fields = {
            "key_camelot": lambda item: _spelled(item, "camelot"),
            "key_openkey": lambda item: _spelled(item, "openkey"),
        }
        self._missing_only_ours: set[int] = set()  # ids of imported items whose files lack only what stone found
        self.register_listener("write", self.restore_camelot_case)
        if self.config["auto"].get(bool):
            self.import_stages = [self.detect_imported]
            self.register_listener("import_begin", self.check_settings)
            self.register_listener("import_task_files", self.write_imported)

    def commands(self) -> list[ui.Subcommand]:
        """The command ``beet stone``."""
        command = ui.Subcommand("stone", help="detect the keys and tempos of tracks and write them")
        add = command.parser.add_option
        add(
            "-f",
            "--force",
            action="store_true",
            default=False,
            help="re-analyze tracks that already have a key and tempo (default: skip them)",
        )
        add("-p", "--pretend", action="store_true", default=False, help="show what would change, but change nothing")
        add("-w", "--write", action="store_true", default=None, help="write the files (default: as configured)")
        add(
            "-W",
            "--nowrite",
            action="store_false",
            dest="write",
            help="write only the library (default: as configured)",
        )
        add("-q", "--quiet", action="store_true", default=False, help="print only errors")
        command.func = self.command
        return [command]

    def command(self, lib: Library, options: optparse.Values, arguments: list[str]) -> None:
        """``beet stone [-f] [-p] [-w|-W] [-q] [QUERY]``: processes the tracks in order."""
        settings = self._settings()
        all_tracks = options.force or settings.overwrite
        write = not options.pretend and ui.should_write(settings.write if options.write is None else options.write)
        report = self._log.debug if options.quiet else self._log.info
        unwritten: list[Item] = []  # the library has a key that is not in the file: beets sets mtime to 0

        def to_analyze() -> Iterator[Item]:
            for item in lib.items(arguments):
                if all_tracks or _is_incomplete(item, settings):
                    yield item
                elif write and not item.mtime:
                    unwritten.append(item)

        with self._journal(write, settings) as journal:
            for item, result, error in self._detect(to_analyze(), settings):
                if result is None:
                    self._fail(item, error)
                    continue
                is_in_sync = _is_in_sync(item)
                key, bpm = self._fill(item, result, settings, replace=all_tracks)
                if key is None and bpm is None:
                    report("{}: {}", _name(item), result.status)
                elif options.pretend:
                    ui.show_model_changes(item, fields=[*LIBRARY_FIELDS.values(), "bpm"])
                else:
                    report("{}: {}", _name(item), _found(key, bpm))
                    if write:
                        self._write(item, key, bpm, settings.rules, journal, is_in_sync)
                    item.store()
            for item in unwritten:
                self._write_stored(item, settings, journal, is_in_sync=False)

    def check_settings(self, session: ImportSession) -> None:
        """Check the settings before the import starts."""
        _load_model(self._settings().model)

    def detect_imported(self, session: ImportSession, task: ImportTask) -> None:
        """Import stage, run by beets in its own thread before it moves and writes the files."""
        settings = self._settings()
        items = [item for item in task.imported_items() if settings.overwrite or _is_incomplete(item, settings)]
        for item, result, error in self._detect(items, settings):
            if result is None:
                self._fail(item, error)
                continue
            is_in_sync = _is_in_sync(item)
            key, bpm = self._fill(item, result, settings, replace=settings.overwrite)
            self._log.info("{}: {}", _name(item), _found(key, bpm) or result.status)
            if key is not None or bpm is not None:
                if is_in_sync and item.id is not None:
                    self._missing_only_ours.add(item.id)
                item.store()

    def write_imported(self, session: ImportSession, task: ImportTask) -> None:
        """With ``write: yes``, write to the files of tracks imported as they are, which beets does not write."""
        settings = self._settings()
        items = [item for item in task.imported_items() if (item.initial_key or item.bpm) and not item.mtime]
        if settings.write is not True or not items:
            return
        with self._journal(True, settings) as journal:
            for item in items:
                self._write_stored(item, settings, journal, is_in_sync=item.id in self._missing_only_ours)

    def restore_camelot_case(self, item: Item, path: bytes, tags: dict[str, Any]) -> None:
        """Restore the capital letter of Camelot codes, which beets lowers, whenever beets writes a file."""
        text = tags.get("initial_key")
        if text and _LOWERED_CAMELOT.fullmatch(text):
            tags["initial_key"] = text.upper()

    def _settings(self) -> Settings:
        """The settings; an invalid one ends the program with one line."""
        try:
            minimum = float(self.config["min_confidence"].as_number())
            jobs = self.config["jobs"].get(int)
            if not 0 <= minimum <= 1 or jobs < 0:
                raise ValueError("min_confidence must be 0 to 1, and jobs at least 0")
            write = self.config["write"].get()
            model = self.config["model"]
            notation = self.config["notation"].as_choice(NOTATIONS)
            rules = parse_rules(self.config["field"].as_str_seq(), notation, self.config["mode"].as_choice(MODES))
            check_rules(rules)
            bpm_range = self._bpm_range()
            return Settings(
                rules=rules,
                overwrite=self.config["overwrite"].get(bool),
                write=None if write is None else self.config["write"].get(bool),
                min_confidence=minimum,
                model=None if model.get() is None else os.fspath(model.as_filename()),
                jobs=jobs or (default_jobs() if beets.config["threaded"].get(bool) else 1),
                bpm=self.config["bpm"].get(bool) or bpm_range is not None,
                bpm_range=bpm_range,
            )
        except (ConfigError, ValueError) as error:
            raise UserError(f"stone: {error}") from error

    def _bpm_range(self) -> BpmRange | None:
        text = self.config["bpm_range"].get()
        try:
            return None if text is None else parse_bpm_range(str(text))
        except ValueError as error:
            raise ValueError(f"bpm_range {error}") from None

    def _detect(self, items: Iterable[Item], settings: Settings) -> Iterator[tuple[Item, TagResult | None, str | None]]:
        """Each item with the key and the tempo detected in its file, or the error."""
        options = TagOptions(
            overwrite=True,
            min_confidence=settings.min_confidence,
            bpm=settings.bpm,
            bpm_range=settings.bpm_range,
        )
        pairs = ((item, _path(item)) for item in items)
        with (
            open_tagger(_load_model(settings.model), options, on_warning=partial(self._log.warning, "{}")) as (
                tagger,
                _,
            ),
            in_threads(lambda pair: tagger(pair[1]), pairs, settings.jobs) as outcomes,
        ):
            for outcome in outcomes:
                yield outcome.item[0], outcome.result, outcome.error

    def _fill(
        self, item: Item, result: TagResult, settings: Settings, *, replace: bool
    ) -> tuple[Key | None, int | None]:
        """Set the fields of the library item that are missing, or all with ``replace``; what was set."""
        key = bpm = None
        if result.key is not None and result.status != "unsure" and (replace or not item.initial_key):
            key = result.key
            self._fill_key(item, result, settings.rules)
        if settings.bpm and result.bpm is not None and (replace or not item.bpm):
            item.bpm = bpm = round(result.bpm)
        return key, bpm

    def _fill_key(self, item: Item, result: TagResult, rules: tuple[FieldRule, ...]) -> None:
        """Set the fields of the library item by the same rules as the tags of its file."""
        if result.key is None or result.estimate is None:
            return
        current = parse_or_none(item.initial_key or "")
        for rule in rules:
            name = LIBRARY_FIELDS[rule.field]
            text: str | None = result.key.spelled(rule.notation)
            if rule.field != "key":
                text = with_key(item[name] or None, result.key.spelled(rule.notation), rule.field, rule.mode, current)
            if text is not None:
                item[name] = text
        item["key_confidence"] = round(result.estimate.confidence, 4)

    def _write(
        self,
        item: Item,
        key: Key | None,
        bpm: int | None,
        rules: tuple[FieldRule, ...],
        journal: JournalRun | None,
        is_in_sync: bool,
    ) -> None:
        """Write key and tempo to the file. If the item was in sync with it, store the new modification time."""
        try:
            changed = write_tags(_path(item), key, rules, bpm, journal=journal)
        except (TagError, OSError) as error:
            self._fail(item, describe(error))
            return
        if is_in_sync:
            item.mtime = item.current_mtime()
        if changed:
            plugins.send("after_write", item=item, path=item.path)

    def _write_stored(self, item: Item, settings: Settings, journal: JournalRun | None, is_in_sync: bool) -> None:
        """Write the key and the tempo in the library to the file, without analyzing it."""
        key = parse_or_none(item.initial_key or "")
        bpm = item.bpm if settings.bpm and item.bpm else None
        if key is not None or bpm is not None:
            self._write(item, key, bpm, settings.rules, journal, is_in_sync)
            item.store()

    @contextmanager
    def _journal(self, wanted: bool, settings: Settings) -> Iterator[JournalRun | None]:
        """A run of the undo journal. If it cannot be opened, nothing is written and the program ends."""
        if not wanted:
            yield None
            return
        try:
            with recorded(f"write key{', tempo' if settings.bpm else ''} (beets)") as record:
                yield record
        except JournalError as error:
            raise UserError(f"stone: {error}") from error

    def _fail(self, item: Item, error: str | None) -> None:
        self._log.error("{}: {}", _name(item), error)


@lru_cache(maxsize=4)
def _load_model(path: str | None) -> KeyModel:
    """The model, loaded once per process."""
    try:
        return default_model() if path is None else KeyModel(path)
    except (ModelError, OSError) as error:
        raise UserError(f"stone: {path or 'built-in model'}: {describe(error)}") from error


def _is_in_sync(item: Item) -> bool:
    """Whether the library and the file agree, by the modification time that beets stores."""
    try:
        return bool(item.mtime) and item.mtime >= item.current_mtime()
    except OSError:
        return False


def _is_incomplete(item: Item, settings: Settings) -> bool:
    """Whether the library lacks the key, or the tempo if it is wanted."""
    return not item.initial_key or (settings.bpm and not item.bpm)


def _found(key: Key | None, bpm: int | None) -> str:
    """The detected key and tempo, for a message; "" without them."""
    return ", ".join([*([key.musical] if key else []), *([f"{bpm} BPM"] if bpm else [])])


def _path(item: Item) -> Path:
    return Path(os.fsdecode(item.path))


def _name(item: Item) -> str:
    return printable(str(_path(item)))


def _spelled(item: Item, notation: Notation) -> str:
    """The key of the track in a notation, for templates and queries; "" if it has no key."""
    key = parse_or_none(item.initial_key or "")
    return key.spelled(notation) if key else ""
