"""The result for one file (:class:`TagResult`), and the summary of a run (:class:`TagSummary`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stonecli.detection.estimate import KeyEstimate
from stonecli.jobs import Outcome
from stonecli.key import Agreement, Key
from stonecli.library.locations import Location

if TYPE_CHECKING:
    from stonecli.tags.undo.journal import JournalRun

Status = Literal[
    "detected",
    "written",
    "unchanged",
    "kept",
    "unreadable key",
    "incomplete",
    "tempo missing",
    "no key",
    "unsure",
    "removed",
    "removable",
    "convertible",
    "different keys",
]


@dataclass(frozen=True)
class TagResult:
    """The result for one file.

    Attributes:
        path: the path or URL, as it was found.
        status: one of

            - ``detected``: a key was detected (a preview, nothing was written)
            - ``written``: the key was written
            - ``unchanged``: the file already said what would have been written
            - ``kept``: the file already has a key and stays as it is
            - ``unreadable key``: the key field holds a text that stone cannot read, so nothing was written (a preview:
              no key would be written)
            - ``incomplete``: the file has a key, but another field of the rules lacks it (a preview)
            - ``tempo missing``: the file has a key, but no tempo, which would be written (a preview)
            - ``no key``: the recording has no key
            - ``unsure``: the confidence is below ``min_confidence``, so nothing was written
            - ``removed``: what stone wrote was removed
            - ``removable``: what stone wrote would be removed (a preview)
            - ``convertible``: the key of the file would be written in another spelling or field (a preview)
            - ``different keys``: the fields to convert name two different keys, so nothing was written
        key: the detected key, or the file's own key if it was kept; None after a removal.
        old_text: text of the key field before the run; None if there was none. Untrusted data.
        old_key: the key that ``old_text`` names, or None.
        estimate: the analysis without its windows: from this run, or, for a file that kept its key, from the result
            cache, so that its key may differ from ``key``. None if there is none.
        bpm: the tempo of the file in beats per minute: its own if it was kept, otherwise the estimated one, in
            ``bpm_range`` and rounded as in the tags. Without ``bpm`` in the options, that of a rekordbox collection for
            a file that has none. None if there is none.
        old_bpm_text: text of the tempo field before the run; None if there was none. Untrusted data.
        is_from_collection: whether ``old_text`` is from a rekordbox collection, because the file has no key. Only if
            keys are converted or compared, as the next one.
        differs_from_collection: whether the file has another key than a rekordbox collection says.
        other_key: another key that the tags had before the run; ``old_key`` counts. None if all fields named one key.
    """

    path: Location
    status: Status
    key: Key | None
    old_text: str | None
    old_key: Key | None
    estimate: KeyEstimate | None
    bpm: float | None = None
    old_bpm_text: str | None = None
    is_from_collection: bool = False
    differs_from_collection: bool = False
    other_key: Key | None = None

    @property
    def relation(self) -> Agreement | None:
        """How the detected key agrees with the key that the tags had before the run; None if either is missing."""
        detected = self.estimate.key if self.estimate else None
        return None if detected is None or self.old_key is None else detected.agreement_with(self.old_key)


@dataclass(frozen=True)
class TagSummary:
    """The summary of a run.

    Attributes:
        files: number of files that have a result or an error.
        failed: number of files with an error.
        interrupted: whether a signal, such as Ctrl-C, ended the run early.
        run: number of the run for ``stone undo`` and :func:`stonecli.tags.undo_run`; None for a preview. A run that
            changed no file is not recorded.
    """

    files: int
    failed: int
    interrupted: bool
    run: int | None


OnResult = Callable[[Outcome[Location, TagResult]], None]


class ResultCounter:
    """Counts outcomes and passes them on, when called with one.

    Args:
        on_result: called with each outcome; None to count only.
    """

    def __init__(self, on_result: OnResult | None) -> None:
        self._on_result = on_result
        self.files = self._failed = 0

    def __call__(self, outcome: Outcome[Any, Any]) -> None:
        """Count the outcome, then pass it on."""
        self.files += 1
        self._failed += outcome.error is not None
        if self._on_result:
            self._on_result(outcome)

    def summary(self, run: JournalRun | None, *, interrupted: bool) -> TagSummary:
        """The summary of the run."""
        return TagSummary(self.files, self._failed, interrupted, run.number if run else None)
