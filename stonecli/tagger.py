"""One file's whole way through ``stone tag``: the key that is there, the key that is heard, and what is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stonecli.detect import KeyEstimate, detect_key
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.model import KeyModel
from stonecli.tags import FieldRule, KeyTags, read_tags, write_key

Status = Literal["detected", "written", "unchanged", "kept", "no key", "unsure"]


@dataclass(frozen=True)
class TagResult:
    """What became of one file.

    Attributes:
        path: as it was found.
        status: ``detected``: heard, nothing was to be written (a preview); ``written``; ``unchanged``: the file said
            so already; ``kept``: it has a key and was left as it is; ``no key``: there is none to be heard;
            ``unsure``: heard with less confidence than was asked for, so not written.
        key: what was heard, or the key that was kept.
        old_text: the text that the key field held before; None where it held none. Untrusted.
        old_key: the key that it names, if any.
        estimate: all that was heard, without the windows; None for a file that was kept.
    """

    path: Path
    status: Status
    key: Key | None
    old_text: str | None
    old_key: Key | None
    estimate: KeyEstimate | None


@dataclass(frozen=True)
class Tagger:
    """Handles one file when called with its path; can be sent to other processes.

    Attributes:
        model: that listens.
        rules: the fields to write and how.
        write: whether anything is written at all.
        overwrite: whether files that have a key are heard and written again.
        min_confidence: 0..1; what is heard with less is not written.
        preserve_mtime: whether a written file keeps its modification time.
    """

    model: KeyModel
    rules: tuple[FieldRule, ...] = (FieldRule(),)
    write: bool = False
    overwrite: bool = False
    min_confidence: float = 0.0
    preserve_mtime: bool = False

    def __call__(self, path: Path) -> TagResult:
        """What became of the file at ``path``.

        Raises:
            AudioError, TagError, ModelError, OSError: the file cannot be heard or written; it is as it was.
        """
        old = self._old_tags(path)
        if old.text is not None and not self.overwrite:
            return TagResult(path, "kept", old.key, old.text, old.key, None)
        estimate = replace(detect_key(path, self.model), windows=())
        status = self._act(path, estimate)
        return TagResult(path, status, estimate.key, old.text, old.key, estimate)

    def _old_tags(self, path: Path) -> KeyTags:
        try:
            return read_tags(path)
        except TagError:
            if self.write:
                raise  # before the work of listening
            return KeyTags("", None, None)  # a preview can do without

    def _act(self, path: Path, estimate: KeyEstimate) -> Status:
        if estimate.key is None:
            return "no key"
        if estimate.confidence < self.min_confidence:
            return "unsure"
        if not self.write:
            return "detected"
        changed = write_key(path, estimate.key, self.rules, preserve_mtime=self.preserve_mtime)
        return "written" if changed else "unchanged"
