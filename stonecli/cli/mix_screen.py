"""The output of ``stone mix``: a table or JSON, a playlist, a collection, errors and a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from stonecli.cli.common import EXIT_FAILED, EXIT_USAGE, fail, fail_without_music, output_console, print_json
from stonecli.cli.running import Errors, progress_bar
from stonecli.key import Notation

if TYPE_CHECKING:
    from stonecli.jobs import Outcome
    from stonecli.library.locations import Location
    from stonecli.mixing.mix import Compatible, Mix, MixOptions, MixTrack

NO_KEY = "no key detected; not in the mix"


@dataclass(frozen=True)
class MixFiles:
    """The files to write; None for those that are not requested.

    Attributes:
        playlist: M3U8 file.
        rekordbox: XML file.
        collection: the rekordbox XML that ``rekordbox`` writes again, with the order as a playlist.
    """

    playlist: Path | None = None
    rekordbox: Path | None = None
    collection: Path | None = None


class MixScreen:
    """A context manager that shows what fails and the result, writes the files, and turns wrong names into wrong usage.

    Args:
        files: the files to write.
        options: options of the run.
        notation: notation of the keys.
        given: the paths on the command line.
        as_json: one JSON object instead of a table.
        quiet: print only errors.
    """

    def __init__(
        self,
        files: MixFiles,
        options: MixOptions,
        notation: Notation,
        given: Sequence[str],
        *,
        as_json: bool,
        quiet: bool = False,
    ) -> None:
        self._files = files
        self._options = options
        self._notation = notation
        self._given = given
        self._as_json = as_json
        self._quiet = quiet
        self._errors = Errors()
        self._bar = ExitStack()

    def __enter__(self) -> MixScreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        if isinstance(error, ValueError):
            option, _, problem = str(error).partition(" ")
            is_option = option in ("start", "end", "at", "compatible")
            fail(f"--{option} {problem}" if is_option else str(error), EXIT_USAGE)

    def start(self, count: int) -> None:
        """Show the progress bar for this number of files."""
        console = self._errors.console
        progress = self._bar.enter_context(progress_bar(console, console, hidden=self._quiet))
        if console.is_terminal:
            self._errors.console = progress.console
        self._advance = partial(progress.advance, progress.add_task("", total=count))

    def advance(self) -> None:
        """Move the progress bar by one file."""
        self._advance()

    def note(self, outcome: Outcome[Location, MixTrack]) -> None:
        """Print the file if it failed, or has no key or two."""
        if outcome.error is not None:
            self._errors.show(outcome.item, outcome.error)
        elif outcome.result is not None and outcome.result.track is None:
            self._errors.note(outcome.item, NO_KEY)
        elif outcome.result is not None and outcome.result.track and outcome.result.other_key and not self._quiet:
            key = outcome.result.track.key
            self._errors.two_keys(outcome.item, key, outcome.result.other_key, self._notation)

    def show_compatible(self, found: Compatible) -> None:
        """Print the tracks that mix with one, and end with an exit code if files failed."""
        from stonecli.terminal.mix import compatible_record, print_rows

        self._bar.close()
        if self._as_json:
            print_json(compatible_record(found))
        elif not self._quiet:
            print_rows(output_console(), [(found.track, None), *found.others], self._notation)
        self._end(has_keys=True)

    def show_mix(self, mix: Mix) -> None:
        """Print the order, write the files, and end with an exit code if files failed."""
        from stonecli.terminal.mix import mix_record, print_mix

        self._bar.close()
        if not mix.tracks and not mix.left_out:
            fail_without_music(self._given)
        if self._as_json:
            print_json(mix_record(mix))
        elif (
            mix.tracks and not self._quiet
        ):  # otherwise each file has a line on standard error, and the table would be empty
            print_mix(output_console(), mix, self._notation)
        if mix.tracks:
            self._save(mix)
        limit, over_limit = self._options.rules.max_tempo_change, sum(one.is_over_limit for one in mix.transitions)
        if over_limit:
            what = "transition changes" if over_limit == 1 else "transitions change"
            self.info(f"{over_limit} {what} the tempo by more than {limit:g} %")
        self._end(has_keys=bool(mix.tracks))

    def _save(self, mix: Mix) -> None:
        from stonecli.output.playlist import save_playlist
        from stonecli.output.rekordbox import save_rekordbox, update_rekordbox
        from stonecli.terminal.mix import playlist_entries

        entries = playlist_entries(mix)
        playlist, rekordbox, collection = self._files.playlist, self._files.rekordbox, self._files.collection
        if playlist:
            save_playlist(playlist, entries)
        if rekordbox and collection:
            name = update_rekordbox(
                collection,
                rekordbox,
                entries,
                self._notation,
                playlist=rekordbox.stem,
                source_playlist=self._options.playlist_name,
                bpm=self._options.bpm,
            )
            if name != rekordbox.stem:
                self.info(f"the collection has a playlist {rekordbox.stem}; the new one is named {name}")
        elif rekordbox:
            save_rekordbox(rekordbox, entries, self._notation, rekordbox.stem)

    def info(self, text: str) -> None:
        """Print a message to standard error, except with --quiet."""
        if not self._quiet:
            self._errors.info(text)

    def _end(self, *, has_keys: bool) -> None:
        self._errors.finish()
        if self._errors.count or not has_keys:
            raise typer.Exit(EXIT_FAILED)
