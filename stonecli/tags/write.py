"""The key is written into a file, or taken out again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags.edit.atomic_replace import Journal, check_writable, refuse_changed, refuse_unsafe, replace_file
from stonecli.tags.edit.audio_digest import is_same_audio
from stonecli.tags.edit.splice import Kept
from stonecli.tags.fields import OWN_SPELLINGS, with_key, without_key
from stonecli.tags.formats.containers import editor_for
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import Snapshot, as_tag_error, open_regular, snapshot
from stonecli.tags.rules import Changes, Field, FieldRule, check_rules
from stonecli.tags.undo.record import Undo


def write_key(
    path: str | os.PathLike[str],
    key: Key,
    rules: Sequence[FieldRule] = (FieldRule(),),
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
    write: bool = True,
    seen: os.stat_result | None = None,
) -> bool:
    """Whether the file was changed; False if it was right already, and then nothing was written.

    Args:
        path: the file. A symbolic link stays, and its target is written.
        key: what to write.
        rules: into which fields, and how it is spelled there: the key field in Camelot, if nothing else is asked for.
        preserve_mtime: whether the file keeps its modification time.
        journal: gets the record of how to go back before the change is made: see :func:`stonecli.tags.recorded`.
        write: with False nothing ever is, and the answer is what would be.
        seen: the file's status when the key was looked for; if another program has written the file since, the key may
            not be that of what is in it now, and nothing is written.

    The file is replaced in one step by a copy whose audio and tags have been checked. A file with more than one hard
    link is refused: the other names would keep the old content, or writing in place would give up the safety.

    Raises:
        TagError: the file cannot be written without risk; it is exactly as it was.
        ValueError: a rule would replace a title.
    """
    return _update(path, key, rules, preserve_mtime, journal, write, seen)


def remove_key(
    path: str | os.PathLike[str],
    rules: Sequence[FieldRule] = (FieldRule(),),
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
    write: bool = True,
) -> bool:
    """Whether the file was changed: our own text is taken out of the fields that the rules name.

    A key field goes if it holds one of our own spellings; what another program has spelled in its own way stays.
    With ``write=False`` the file stays as it is, and the answer is whether there is anything to take out.

    Raises:
        TagError: the file cannot be written without risk; it is exactly as it was.
        ValueError: a rule would replace a title.
    """
    return _update(path, None, rules, preserve_mtime, journal, write)


def take_back(path: Path, undo: Undo, *, preserve_mtime: bool = False, write: bool = True) -> bool:
    """Whether the file was restored to what it was, byte for byte; False if that is what it is already.

    Args:
        path: the file.
        undo: the record of the change.
        preserve_mtime: whether the file keeps its modification time.
        write: with False nothing is written, and the answer is what would be.

    Raises:
        TagError: the file has changed since, or cannot be written without risk. If the error came up while the file
            was replaced, it may be restored all the same: the next call with the same record says so.
    """
    with as_tag_error(), open_regular(path) as file:
        status = os.fstat(file.fileno())
        if path.is_symlink() or not undo.is_after(file):
            if undo.is_before(file):
                return False
            raise TagError("the file has changed since")
        if not write:
            check_writable(path, preserve_mtime=preserve_mtime)
            return True
        refuse_unsafe(path, status)

        def check(copy: BinaryIO, known: Sequence[Kept]) -> None:
            if not undo.is_before(copy):
                raise TagError("the copy is not what the file was")

        replace_file(path, file, status, undo.splices, check, preserve_mtime=preserve_mtime)
    return True


def _changes(now: Snapshot, key: Key | None, rules: Sequence[FieldRule]) -> Changes:
    """What has to change for the fields to say the key, or for our own text to be gone from them."""
    texts: dict[Field, str | None] = dict(now.texts)
    changes: dict[Field, str | None] = {}
    for rule in rules:
        spelling = None if key is None else key.spelled(rule.notation)
        if rule.field != "key":
            text = texts.get(rule.field)
            texts[rule.field] = (
                without_key(text, rule.field, rule.mode)
                if spelling is None
                else with_key(text, spelling, rule.field, rule.mode)
            )
        elif spelling is not None or (now.keys and set(now.keys) <= OWN_SPELLINGS):
            changes["key"] = spelling
    if changes.get("key") is not None and now.keys == (changes["key"],) and set(now.followers) <= {changes["key"]}:
        del changes["key"]
    return changes | {field: text for field, text in texts.items() if text != now.texts.get(field)}


def _update(
    path: str | os.PathLike[str],
    key: Key | None,
    rules: Sequence[FieldRule],
    preserve_mtime: bool,
    journal: Journal | None,
    write: bool,
    seen: os.stat_result | None = None,
) -> bool:
    check_rules(rules)
    with as_tag_error():
        target = Path(os.path.realpath(path))
        with open_regular(target) as file:
            before = os.fstat(file.fileno())
            container = sniff(file)
            now = snapshot(file, container, as_new=key is not None)
            changes = _changes(now, key, rules)
            if not changes or not write:
                return bool(changes)
            if seen:
                refuse_changed(before, seen)
            refuse_unsafe(target, before)
            splices = editor_for(container).splices(file, container, changes)

            def check(copy: BinaryIO, known: Sequence[Kept]) -> None:
                if sniff(copy) != container or not is_same_audio(file, copy, container, known):
                    raise TagError("the audio of the copy is not that of the file")
                # Without what nobody needs any more, the tag may be gone: then the others say it.
                found = (replace(snapshot(copy, container, as_new=as_new), also=()) for as_new in (False, True))
                if now.changed(changes) not in found:
                    raise TagError("the tags of the copy do not read back as written")

            replace_file(target, file, before, splices, check, preserve_mtime=preserve_mtime, journal=journal)
    return True
