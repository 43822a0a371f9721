"""The output of ``stone analyze``: text or JSON, and output files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from stonecli.cli.common import EXIT_FAILED, EXIT_INTERRUPTED, fail, fail_without_music, print_json
from stonecli.cli.running import Errors, listed_were
from stonecli.tempo.bpm import BpmRange, fold_tempo, rounded_bpm

if TYPE_CHECKING:
    from stonecli.detection.estimate import KeyEstimate
    from stonecli.detection.many import AnalysisSummary
    from stonecli.jobs import Outcome
    from stonecli.library.locations import Location
    from stonecli.model.session import KeyModel
    from stonecli.plots.analysis import Picture


@dataclass(frozen=True)
class AnalysisFiles:
    """The files to save; None for those that are not requested.

    Attributes:
        npz: probabilities of all windows.
        html: web page.
        plot: picture, in the ``theme``.
    """

    npz: Path | None = None
    html: Path | None = None
    plot: Path | None = None
    theme: Literal["light", "dark"] = "light"


class AnalysisScreen:
    """Prints the estimate of each file, and collects what the files to save need.

    Args:
        model: the model that analyzes the files.
        files: the files to save at the end.
        as_json: print one JSON object per file instead of text.
        quiet: print only errors.
        per_window: print every window, too.
        bpm_range: tempos are halved or doubled into this range; None: they are shown as estimated.
    """

    def __init__(
        self,
        model: KeyModel,
        files: AnalysisFiles,
        *,
        as_json: bool,
        quiet: bool,
        per_window: bool,
        bpm_range: BpmRange | None = None,
    ) -> None:
        from stonecli.terminal.screen import output_screen

        self._model = model
        self._files = files
        self._as_json = as_json
        self._quiet = quiet
        self._per_window = per_window
        self._bpm_range = bpm_range
        self._screen = output_screen()
        self._errors = Errors()
        self._has_estimate = False
        self._estimates: list[tuple[Path, KeyEstimate]] = []
        self._pictures: list[Picture] = []
        self._tracks: list[dict[str, Any]] = []

    def show(self, outcome: Outcome[Location, KeyEstimate]) -> None:
        """Print the estimate or the error of one file."""
        from stonecli.output.records import estimate_record
        from stonecli.terminal.analysis import print_analysis

        path, estimate, error = outcome.item, outcome.result, outcome.error
        if error is not None:
            self._errors.show(path, error)
        if estimate is not None and isinstance(path, Path):
            self._has_estimate = True
            for note in () if self._quiet else estimate.notes:
                self._errors.note(path, note)
            if self._files.npz:
                self._estimates.append((path, estimate))
            if self._files.plot:
                self._pictures.append(_picture(path, estimate))
        if self._files.html:
            self._tracks.append(_track(path, estimate, error, self._bpm_range))
        if self._as_json:
            record = estimate_record(path, estimate, error, self._model, per_window=self._per_window)
            if estimate is not None and estimate.tempo is not None:
                record["bpm"] = _bpm(estimate, self._bpm_range)
            print_json(record)
        elif estimate is not None and isinstance(path, Path) and not self._quiet:
            print_analysis(self._screen, path, estimate, per_window=self._per_window, bpm_range=self._bpm_range)

    def end(self, summary: AnalysisSummary, names: list[Path]) -> None:
        """Save the files, and end the program with an exit code if not all is well.

        Args:
            summary: the result of the run.
            names: names of the searched paths.
        """
        if not summary.files and not summary.interrupted:
            fail_without_music(names)
        self._errors.finish()
        if not self._has_estimate:
            self._info_not_saved(self._targets(), "saved, because no file was analyzed")
        else:
            kept = [path for path in self._targets() if summary.interrupted and path.exists()]
            self._info_not_saved(kept, "replaced, because the run did not finish")
            self._save(kept)
        if summary.interrupted:
            fail("interrupted; the files shown above are done", EXIT_INTERRUPTED)
        if summary.failed:
            raise typer.Exit(EXIT_FAILED)

    def _targets(self) -> list[Path]:
        return [path for path in (self._files.npz, self._files.html, self._files.plot) if path]

    def _info_not_saved(self, paths: list[Path], reason: str) -> None:
        if paths:
            self._errors.info(f"{listed_were(paths)} not {reason}")

    def _save(self, kept: list[Path]) -> None:
        """Save the files, except the existing ones in ``kept``."""
        files = self._files
        if files.npz and files.npz not in kept:
            from stonecli.output.npz import save_npz

            save_npz(files.npz, self._estimates, self._model)
        if files.html and files.html not in kept:
            from stonecli.output.page import save_page

            save_page(files.html, self._tracks)
        if files.plot and files.plot not in kept:
            from stonecli.plots.analysis import save_analysis_plot

            save_analysis_plot(files.plot, self._pictures, files.theme)


def _bpm(estimate: KeyEstimate, bpm_range: BpmRange | None) -> float | None:
    """The tempo in the range, rounded as in tags; None if there is none."""
    bpm = estimate.tempo.bpm if estimate.tempo else None
    return None if bpm is None else rounded_bpm(fold_tempo(bpm, *bpm_range) if bpm_range else bpm)


def _track(
    path: Location, estimate: KeyEstimate | None, error: str | None, bpm_range: BpmRange | None
) -> dict[str, Any]:
    """The row of the file on the page, with its tags if it could be analyzed."""
    from stonecli.output.page import page_track
    from stonecli.tags.track_info import TrackInfo, read_info  # imports readers of all kinds of tags

    if estimate is None or not isinstance(path, Path):
        return page_track(path, None, None, TrackInfo(), "error", error)
    info = read_info(path)
    info = replace(info, bpm=_bpm(estimate, bpm_range) or info.bpm)
    return page_track(path, estimate.key, estimate, info, "detected")


def _picture(path: Path, estimate: KeyEstimate) -> Picture:
    from stonecli.audio.decode import read_audio
    from stonecli.detection.chroma import SAMPLE_RATE, chroma_of
    from stonecli.plots.analysis import Picture

    chroma = chroma_of(read_audio(path, SAMPLE_RATE), estimate.tuning_cents or 0.0)
    return Picture(path.name, estimate, chroma)
