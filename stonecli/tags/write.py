"""Writes a key into the tags of a file, removes it, and undoes recorded changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.key import Key, parse_or_none
from stonecli.library.music_file import CHANGED_MEANWHILE, Source, opened, refuse_changed
from stonecli.tags.edit.atomic_replace import Journal, check_writable, refuse_unsafe, replace_file
from stonecli.tags.edit.audio_digest import is_same_audio
from stonecli.tags.edit.splice import UnchangedRange
from stonecli.tags.fields import OWN_SPELLINGS, with_key, without_key, written_spelling
from stonecli.tags.formats.containers import CONTAINERS, TagFamily
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import Snapshot, as_tag_error, snapshot
from stonecli.tags.rules import Changes, Field, FieldRule, check_rules
from stonecli.tags.tempo_text import bpm_text, parse_bpm
from stonecli.tags.undo.record import Undo


def write_key(
    path: Source,
    key: Key,
    rules: Sequence[FieldRule] = (FieldRule(),),
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
    write: bool = True,
) -> bool:
    """Write a key, and return whether the file was changed; False if it had the same key in all fields already.

    Args:
        path: the file. For a symbolic link, its target is written and the link stays. If the file was opened before its
            key was detected, and another program has changed it since, the key may be wrong for the new content, and
            nothing is written.
        key: the key to write.
        rules: fields to write, with notation and mode (default: the key field, in Camelot).
        preserve_mtime: whether the file keeps its modification time.
        journal: gets the undo record before the change is made; see :func:`stonecli.tags.recorded`.
        write: if False, nothing is written, and the result says whether the file would be changed.

    The file is replaced atomically by a copy whose audio and tags were verified. A file with several hard links is
    refused, since the other links would keep the old content.

    Raises:
        TagError: the file cannot be written without risk; it is unchanged.
        ValueError: a rule would replace a title.
    """
    check_rules(rules)
    return _update(path, partial(_changes, key=key, rules=rules), preserve_mtime, journal, write)


def write_tags(
    path: Source,
    key: Key | None,
    rules: Sequence[FieldRule],
    bpm: float | None,
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
    write: bool = True,
) -> bool:
    """Write a key and a tempo at once, each unless it is None; as :func:`write_key` in all other respects.

    Args:
        path, rules, preserve_mtime, journal, write: see :func:`write_key`.
        key: the key to write to the fields of the rules.
        bpm: the tempo in beats per minute; :mod:`stonecli.tags.tempo_text` says how it is rounded.

    Raises:
        TagError: the file cannot be written without risk; it is unchanged.
        ValueError: a rule would replace a title.
    """
    check_rules(rules)

    def changes(now: Snapshot, family: TagFamily) -> Changes:
        wanted = _changes(now, family, key=key, rules=rules) if key is not None else {}
        return {**wanted, **(_tempo_change(now, family, bpm) if bpm is not None else {})}

    return _update(path, changes, preserve_mtime, journal, write)


def conflicting_text(path: Source, key: Key, rules: Sequence[FieldRule]) -> str | None:
    """The text of another key that writing ``key`` to the fields of the rules would replace; None if there is none.

    In the key field, this is also a text that names no key, next to one that does.

    Raises:
        TagError: the file cannot be opened, is not music, or its tags are damaged.
    """
    with as_tag_error(), opened(path) as music:
        now = snapshot(music.file, sniff(music.file))
    for rule in rules:
        if rule.field == "key":
            if other := next(now.conflicts(key), None):
                return other
        else:
            spelling = written_spelling(now.texts.get(rule.field), rule.field, rule.mode, key)
            if spelling is not None and parse_or_none(spelling) not in (key, None):
                return spelling
    return None


def remove_key(
    path: Source,
    rules: Sequence[FieldRule] = (FieldRule(),),
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
    write: bool = True,
) -> bool:
    """Remove what stone wrote to the fields of the rules, and return whether the file was changed.

    A key field is removed if it holds a spelling that stone writes; the spelling of another program stays. With
    ``write=False`` nothing is written, and the result says whether there is anything to remove.

    Raises:
        TagError: the file cannot be written without risk; it is unchanged.
        ValueError: a rule would replace a title.
    """
    check_rules(rules)
    return _update(path, partial(_changes, key=None, rules=rules), preserve_mtime, journal, write, as_new=False)


def undo_change(path: Path, undo: Undo, *, preserve_mtime: bool = False, write: bool = True) -> bool:
    """Undo one change: restore a file byte for byte. Returns False if it is in that state already.

    Args:
        path: the file.
        undo: the record of the change.
        preserve_mtime: whether the file keeps its modification time.
        write: if False, nothing is written, and the result says whether the file would be changed.

    Raises:
        TagError: the file was changed since, or cannot be written without risk. After an error during the replacement
            the file may be restored nevertheless; the next call with the same record then returns False.
    """
    with as_tag_error(), opened(path) as music:
        file, status = music.file, music.status
        if path.is_symlink() or not undo.is_after(file):
            if undo.is_before(file):
                return False
            raise TagError("the file has changed since that run, so it stays as it is")
        if not write:
            check_writable(path, status, preserve_mtime=preserve_mtime)
            return True
        refuse_unsafe(path, status)

        def check(copy: BinaryIO, verified: Sequence[UnchangedRange]) -> None:
            if not undo.is_before(copy):
                raise TagError("the copy differs from the original file")

        replace_file(path, file, status, undo.splices, check, preserve_mtime=preserve_mtime)
    return True


def _tempo_change(now: Snapshot, family: TagFamily, bpm: float) -> Changes:
    """The change that writes the tempo; none if the file says the same in its own spelling."""
    text, old = bpm_text(bpm, family), now.texts.get("bpm")
    return {} if old is not None and parse_bpm(old) == float(text) else {"bpm": text}


def _changes(now: Snapshot, family: TagFamily, *, key: Key | None, rules: Sequence[FieldRule]) -> Changes:
    """The changes that write the key to the fields of the rules, or remove our own text from them (key None)."""
    texts: dict[Field, str | None] = dict(now.texts)
    changes: dict[Field, str | None] = {}
    current = None if now.text is None else parse_or_none(now.text)
    for rule in rules:
        spelling = None if key is None else key.spelled(rule.notation)
        if rule.field != "key":
            text = texts.get(rule.field)
            texts[rule.field] = (
                without_key(text, rule.field, rule.mode, current)
                if spelling is None
                else with_key(text, spelling, rule.field, rule.mode, current)
            )
        elif spelling is not None or (now.keys and set(now.keys) <= OWN_SPELLINGS):
            changes["key"] = spelling
    if changes.get("key") is not None and now.keys == (changes["key"],) and set(now.followers) <= {changes["key"]}:
        del changes["key"]
    return changes | {field: text for field, text in texts.items() if text != now.texts.get(field)}


def _update(
    path: Source,
    changes_of: Callable[[Snapshot, TagFamily], Changes],
    preserve_mtime: bool,
    journal: Journal | None,
    write: bool,
    *,
    as_new: bool = True,
) -> bool:
    with as_tag_error(), opened(path) as music:
        file, before = music.file, music.status
        container = sniff(file)
        now = snapshot(file, container, as_new=as_new)
        changes = changes_of(now, CONTAINERS[container].family)
        now_open = os.fstat(file.fileno())
        if write and not now_open.st_nlink:  # replaced since it was opened, so these are the tags of the old file
            raise TagError(CHANGED_MEANWHILE)
        if not changes or not write:
            return bool(changes)
        refuse_changed(now_open, before)  # replace_file checks again, just before the rename
        refuse_unsafe(music.target, before)
        splices = CONTAINERS[container].editor.splices(file, container, changes)

        def check(copy: BinaryIO, verified: Sequence[UnchangedRange]) -> None:
            if sniff(copy) != container or not is_same_audio(file, copy, container, verified):
                raise TagError("the audio of the copy differs from the file")
            # A tag that holds nothing else may have been removed; then the other tags of the file are compared.
            found = (replace(snapshot(copy, container, as_new=as_new), also=(), tempos=()) for as_new in (False, True))
            if now.with_changes(changes) not in found:
                raise TagError("the tags of the copy do not read back as written")

        music.status = replace_file(
            music.target, file, before, splices, check, preserve_mtime=preserve_mtime, journal=journal
        )
    return True
