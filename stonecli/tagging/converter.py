"""Write the key that a file already has in another notation or to other fields: :class:`Converter`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stonecli.cache.results import ResultCache
from stonecli.key import parse_or_none
from stonecli.library.collection_tags import NO_COLLECTION, CollectionTags
from stonecli.library.music_file import MusicFile, Source, opened
from stonecli.tagging.collection import completed, completed_result
from stonecli.tagging.options import TagOptions
from stonecli.tagging.results import Status, TagResult
from stonecli.tags import KeyTags, conflicting_text, read_tags, write_tags
from stonecli.tags.edit.atomic_replace import Journal

RESPELL = TagOptions(convert=True)


@dataclass(frozen=True)
class Converter:
    """Respells the key of one file when called with its path; analyzes nothing. It can be pickled.

    Attributes:
        options: the rules name the fields to write, with their notations.
        journal: records each change before it is made; without one, changes cannot be undone.
        cache: the result cache, which then recognizes the written file. None: it will read the file again.
        collection: the keys of files that have none in their tags.
    """

    options: TagOptions = RESPELL
    journal: Journal | None = None
    cache: ResultCache | None = None
    collection: CollectionTags = NO_COLLECTION

    def __call__(self, path: Source) -> TagResult:
        """The result for a file, given by its path or open.

        Raises:
            TagError, OSError: the file cannot be read or written; it is unchanged.
        """
        with opened(path) as music:
            own = read_tags(music)
            given = self.collection.of(music.path)
            result = self._convert(music, completed(own, given))
            return completed_result(result, own, given)

    def _convert(self, music: MusicFile, old: KeyTags) -> TagResult:
        if old.key is None:
            status: Status = "unreadable key" if old.is_unreadable else "no key"
            return TagResult(music.path, status, None, old.text, None, None)
        other = conflicting_text(music, old.key, self.options.rules)
        if other is not None:
            if parse_or_none(other) is None:
                return TagResult(music.path, "unreadable key", None, other, None, None)
            found = TagResult(music.path, "different keys", old.key, old.text, old.key, None)
            return replace(found, other_key=parse_or_none(other))
        write = self.options.write
        content_hash = self.cache.content_hash(music) if self.cache and write else None
        changed = write_tags(
            music,
            old.key,
            self.options.rules,
            None,
            preserve_mtime=self.options.preserve_mtime,
            journal=self.journal,
            write=write,
        )
        if self.cache and content_hash and changed:  # new tags, and the same recording
            self.cache.record(music, content_hash)
        status = "unchanged" if not changed else "written" if write else "convertible"
        return TagResult(music.path, status, old.key, old.text, old.key, None, other_key=old.other_key)
