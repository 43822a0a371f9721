"""The options of a run: :class:`TagOptions`."""

from __future__ import annotations

from dataclasses import dataclass

from stonecli.key import Notation
from stonecli.tags import FieldRule
from stonecli.tags.rules import check_rules


@dataclass(frozen=True)
class TagOptions:
    """The options for each file. The defaults are those of ``stone tag``: a preview that changes nothing.

    Raises:
        ValueError: an option is out of its range, or two of them contradict each other.
    """

    rules: tuple[FieldRule, ...] = (FieldRule(),)
    """Fields to write the key to, each with its notation and its mode."""

    write: bool = False
    """Whether files are changed. False: a preview."""

    overwrite: bool = False
    """Whether files that already have a key are analyzed and written again.

    False: their key field stays as it is, and the key in it is written to the other fields of ``rules``. A text that
    says "no key" (``o``) does not count as a key.
    """

    remove: bool = False
    """Remove what stone wrote to the fields of ``rules`` instead of detecting keys."""

    min_confidence: float = 0.0
    """Lowest confidence, 0 to 1, of a key that is written."""

    preserve_mtime: bool = False
    """Whether changed files keep their modification time."""

    jobs: int | None = None
    """Files processed in parallel. None: one per CPU core that the process may use."""

    use_cache: bool = True
    """Whether results are taken from the result cache and stored in it."""

    match_audio: bool = False
    """Whether a file that keeps its key, and whose path the cache does not know, is read once to find its earlier
    result by the content of its audio."""

    bpm: bool = False
    """Whether the tempo is estimated, too, and written to its own field.

    A file that already has a tempo keeps it, unless ``overwrite`` is set. A tempo of zero does not count.
    """

    bpm_range: tuple[float, float] | None = None
    """Lowest and highest tempo in beats per minute: others are halved or doubled into it, or stay if that does not
    fit. None: as estimated. Only with ``bpm``."""

    convert: bool = False
    """Write the key that a file already has to the fields of ``rules``, in their notations, and analyze nothing. A file
    without a key stays as it is."""

    @property
    def shown_notation(self) -> Notation:
        """The notation in which results are shown: that of the key field, or of the first field without one."""
        return next((rule.notation for rule in self.rules if rule.field == "key"), self.rules[0].notation)

    def __post_init__(self) -> None:
        check_rules(self.rules)
        if self.bpm_range is not None and not 0 < self.bpm_range[0] < self.bpm_range[1]:
            raise ValueError(f"bpm_range must be two ascending tempos, not {self.bpm_range}")
        if self.bpm_range is not None and not self.bpm:
            raise ValueError("bpm_range needs bpm")
        if self.remove and self.bpm:
            raise ValueError("remove cannot be combined with bpm")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must be from 0 to 1, not {self.min_confidence}")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, not {self.jobs}")
        if self.remove and self.overwrite:
            raise ValueError("remove cannot be combined with overwrite")
        if self.convert and (self.remove or self.overwrite or self.bpm):
            raise ValueError("convert cannot be combined with remove, overwrite or bpm")

    @property
    def description(self) -> str:
        """Description of the run for ``stone undo --list``, such as ``write key, comment``."""
        fields = ", ".join([*dict.fromkeys(rule.field for rule in self.rules), *(["tempo"] if self.bpm else [])])
        return f"{'remove' if self.remove else 'convert' if self.convert else 'write'} {fields}"


PREVIEW = TagOptions()
