"""Write the outputs of ``stone tag`` other than tags: table file, playlist, rekordbox collection and page."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeGuard

from stonecli.key import Notation
from stonecli.library.locations import Location
from stonecli.model.session import KeyModel
from stonecli.output.records import tag_record
from stonecli.output.results import Results
from stonecli.output.table_file import OutputFile
from stonecli.tagging import TagResult
from stonecli.tags.track_info import TrackInfo, read_info

if TYPE_CHECKING:  # imported late: most runs save no such file, and stone must start fast
    from stonecli.output.playlist import PlaylistEntry


@dataclass(frozen=True)
class Targets:
    """The requested output files; None for those that are not requested.

    Attributes:
        output: file with one of ``TABLE_SUFFIXES``, or .parquet folder.
        playlist: M3U8 file.
        rekordbox: XML file.
        html: HTML page.
    """

    output: Path | None = None
    playlist: Path | None = None
    rekordbox: Path | None = None
    html: Path | None = None

    @property
    def track_files(self) -> dict[str, Path]:
        """The requested files by option, without the table: they name music files on this computer."""
        return {f"--{name}": path for name, path in vars(self).items() if path is not None and name != "output"}


class Outputs:
    """A context manager with :meth:`note`; its exit writes the files.

    After an error, or if the run is unfinished, only the files that do not exist yet are written, with the results so
    far. This does not concern ``results``, to which later runs append.

    Args:
        targets: the requested files.
        notation: notation of keys in the rekordbox collection.
        model: the model that analyzed the files, for the records.
        results: output for the records instead of ``targets.output``.
        bpm: whether the tempo is estimated, too.
        collection: the rekordbox XML that the tracks are from. ``targets.rekordbox`` then has all that is in it.
        playlist_name: the playlist of the collection that is processed; None for all of it.
        overwrite: whether keys and tempos that the collection has are replaced.
        respell: whether keys that the collection has are written in the notation, also for files without a result.

    Attributes:
        is_unfinished: set this if the run was interrupted.
        kept: after the exit, the existing files that an unfinished run has not replaced.
    """

    def __init__(
        self,
        targets: Targets,
        notation: Notation,
        model: KeyModel | None,
        results: Results | None = None,
        *,
        bpm: bool = False,
        collection: Path | None = None,
        playlist_name: str | None = None,
        overwrite: bool = False,
        respell: bool = False,
    ) -> None:
        self._playlist_name = playlist_name
        self._respell = respell
        self._overwrite = overwrite
        self._bpm = bpm
        self._collection = collection
        self._results = results
        self._targets = targets
        self._notation = notation
        self.model = model
        self._entries: list[PlaylistEntry] = []
        self._tracks: list[dict[str, Any]] = []
        self.is_unfinished = False
        self.kept: list[Path] = []

    def __enter__(self) -> Outputs:
        self._stack = ExitStack()
        self._table: Results | OutputFile | None = self._results
        if self._targets.output and not self._table:
            self._table = self._stack.enter_context(OutputFile(self._targets.output, bpm=self._bpm))
        return self

    def note(self, path: Location, result: TagResult | None, error: str | None) -> dict[str, Any]:
        """Add the result of one file, and return its record."""
        record = tag_record(path, result, error, self.model, bpm=self._bpm)
        if self._table:
            self._table.write(record)
        if self._targets.track_files:
            self._note_track(path, result, error)
        return record

    def _note_track(self, path: Location, result: TagResult | None, error: str | None) -> None:
        from stonecli.output.playlist import PlaylistEntry

        info = read_info(path) if result is not None and isinstance(path, Path) else TrackInfo()
        if result is not None and result.bpm is not None:  # also in a preview, whose files do not have it yet
            info = replace(info, bpm=result.bpm)
        key, estimate = (result.key, result.estimate) if result else (None, None)
        if result is not None and isinstance(path, Path):
            self._entries.append(PlaylistEntry(path, key, info, estimate.duration if estimate else info.seconds))
        if self._targets.html:
            from stonecli.output.page import page_track

            status = result.status if result else "error"
            old_text, old_key = (result.old_text, result.old_key) if result else (None, None)
            self._tracks.append(
                page_track(
                    path,
                    key,
                    estimate,
                    info,
                    status,
                    error,
                    old_text,
                    old_key,
                    is_from_collection=result is not None and result.is_from_collection,
                    other_key=result.other_key if result else None,
                )
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_unfinished |= error is not None
        replaced = self._targets if self._results is None else replace(self._targets, output=None)
        targets = [path for path in vars(replaced).values() if path is not None]
        self.kept = [path for path in targets if self.is_unfinished and path.exists()]
        if isinstance(self._table, OutputFile):
            self._table.is_unfinished = self.is_unfinished
        with self._stack as stack:  # if one cannot be written, the others still are
            if self._is_saved(self._targets.html):
                from stonecli.output.page import save_page

                stack.callback(save_page, self._targets.html, self._tracks)
            if self._is_saved(self._targets.rekordbox):
                stack.callback(self._save_rekordbox, self._targets.rekordbox)
            if self._is_saved(self._targets.playlist):
                from stonecli.output.playlist import save_playlist

                stack.callback(save_playlist, self._targets.playlist, self._entries)

    def _is_saved(self, path: Path | None) -> TypeGuard[Path]:
        return path is not None and path not in self.kept

    def _save_rekordbox(self, path: Path) -> None:
        from stonecli.output.rekordbox import save_rekordbox, update_rekordbox

        if self._collection is not None:
            update_rekordbox(
                self._collection,
                path,
                self._entries,
                self._notation,
                source_playlist=self._playlist_name,
                bpm=self._bpm,
                overwrite=self._overwrite,
                respell=self._respell,
            )
        else:  # rekordbox shows the playlist by the name of the file
            save_rekordbox(path, self._entries, self._notation, path.stem)
