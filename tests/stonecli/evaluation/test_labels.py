import csv
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from stonecli.errors import LabelsError
from stonecli.evaluation import labels
from stonecli.evaluation.labels import (
    MAX_LINE,
    PREDICTION_COLUMNS,
    Label,
    Prediction,
    answers_of,
    read_labels,
    read_predictions,
    write_predictions,
)
from stonecli.evaluation.metrics import NO_KEY
from stonecli.key import Key

HINT = "; it must name the columns path, and key or tempo"


def labels_file(tmp_path: Path, text: bytes | str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def label(name: str, key: str, genre: str = "", source: str = "", line: int = 2, folder: Path = Path("music")) -> Label:
    return Label(folder / name, name, Key.parse(key), genre, source, line)


class TestLabels:
    def test_labels_have_any_spelling_and_relative_paths(self, tmp_path: Path) -> None:
        rows = [
            "\ufeffGenre,PATH,Key,bpm",
            'jazz,"a, b.mp3",F♯ minor,120',
            "",
            ",sub/c.ogg, 8B ,",
            "pop,/abs/d.wav,6m,99",
            "",
        ]
        text = "\r\n".join(rows)
        tracks, repeated = read_labels(labels_file(tmp_path, text))
        assert [track.path for track in tracks] == [tmp_path / "a, b.mp3", tmp_path / "sub/c.ogg", Path("/abs/d.wav")]
        assert [track.key.musical for track in tracks if track.key] == ["F#m", "C", "G#m"]
        assert [track.genre for track in tracks] == ["jazz", "", "pop"]
        assert [track.line for track in tracks] == [2, 4, 5]
        assert repeated == []

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_columns_may_be_separated_by_semicolons_or_tabs(self, tmp_path: Path, separator: str) -> None:
        rows = (("path", "key", "genre"), ("a, b.mp3", "8A", "jazz"))
        tracks, _ = read_labels(labels_file(tmp_path, "".join(separator.join(row) + "\r\n" for row in rows)))
        assert [(track.name, track.key, track.genre) for track in tracks] == [("a, b.mp3", Key.parse("Am"), "jazz")]

    def test_line_numbers_count_line_breaks_in_quotes(self, tmp_path: Path) -> None:
        path = labels_file(tmp_path, 'path,key,genre\na.mp3,C,"two\nlines"\nb.mp3,H,\n')
        with pytest.raises(LabelsError, match=r"^line 4: not a key: 'H'$"):
            read_labels(path)

    def test_names_that_are_not_utf8_come_through(self, tmp_path: Path) -> None:
        tracks, _ = read_labels(labels_file(tmp_path, b"path,key\ncaf\xe9.mp3,C\n"))
        assert bytes(tracks[0].path).endswith(b"caf\xe9.mp3")

    def test_a_track_listed_twice_counts_once(self, tmp_path: Path) -> None:
        path = labels_file(tmp_path, "path,key\na.mp3,C\nb.mp3,Am\n./x/../a.mp3,C major\n")
        tracks, repeated = read_labels(path)
        assert [track.name for track in tracks] == ["a.mp3", "b.mp3"]
        assert repeated == [4]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the file is empty"),
            ("path,key\n", "the file contains no tracks"),
            ("\n\n", f"line 1: no column path and no column key (columns: nothing){HINT}"),
            ("file,key\na,C\n", f"line 1: no column path (columns: file, key){HINT}"),
            ("path;key\na;b;C\n", "line 2: 3 fields for 2 columns (put a path with a semicolon in quotes)"),
            ("path,key,KEY\na,C,C\n", "line 1: two columns are named key"),
            ("path,key\na.mp3,C\nb.mp3,no\n", "line 3: not a key: 'no'"),
            ("path,key\na.mp3,x\nb.mp3,y\nc.mp3,z\n", "line 2: not a key: 'x' (and 2 more such lines)"),
            ("path,key\na.mp3\n", "line 2: no key"),
            ("path,key\n,C\n", "line 2: no path"),
            ("path,key\na\0.mp3,C\n", "line 2: no path"),
            ("path,key\na, b.mp3,C\n", "line 2: 3 fields for 2 columns (put a path with a comma in quotes)"),
            ("path,key\na,C\nb,C\na,Am\n", "line 4: a is labeled A minor, but C major in line 2"),
            (
                "path,key,tempo\na,C,128\na,C,\na,C,64\n",
                "line 4: the tempo of a is 64 BPM, but 128 BPM in line 2",
            ),
            ("path,key\na," + 200_000 * "x" + "\n", "line 2: not valid CSV: field larger than field limit (131072)"),
        ],
    )
    def test_bad_labels(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(LabelsError) as caught:
            read_labels(labels_file(tmp_path, text))
        assert str(caught.value) == message

    def test_a_long_line_is_not_read_to_its_end(self, tmp_path: Path) -> None:
        path = labels_file(tmp_path, "path,key\na,C\n" + "\0" * (MAX_LINE + 1))
        with pytest.raises(LabelsError, match="line 3 is longer than 1,048,576 characters, so this is not a table"):
            read_labels(path)

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device")
    def test_an_endless_device_is_refused(self) -> None:
        with pytest.raises(LabelsError, match="line 1 is longer than"):
            read_labels(Path("/dev/zero"))

    def test_a_table_has_a_maximum_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = labels_file(tmp_path, "path,key\n" + "".join(f"{number},C\n" for number in range(1000)))
        assert len(read_labels(path)[0]) == 1000
        monkeypatch.setattr(labels, "MAX_CHARACTERS", 5000)
        with pytest.raises(LabelsError, match="larger than"):
            read_labels(path)


class TestPredictions:
    def test_predictions_are_matched_by_name_and_by_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        music, other = tmp_path / "music", tmp_path / "other"
        music.mkdir()
        other.mkdir()
        tracks, _ = read_labels(labels_file(music, "path,key\na.mp3,C\nb.mp3,C\nc.mp3,C\nd.mp3,C\ne.mp3,C\n"))
        text = f"path,key\na.mp3,8A\n{music}/b.mp3,\n../music/./c.mp3,Em\nmusic/d.mp3,none\nz.mp3,C\n"
        monkeypatch.chdir(tmp_path)
        found = read_predictions(labels_file(other, text, "them.csv"), tracks, music)
        assert found.answers == (Key.parse("Am").index, NO_KEY, Key.parse("Em").index, NO_KEY, None)
        assert (found.unmatched, found.kept) == (1, 0)

    def test_the_output_of_stone_tag_is_read(self, tmp_path: Path) -> None:
        tracks = [label("a.mp3", "C"), label("b.mp3", "C"), label("c.mp3", "C"), label("d.mp3", "C")]
        text = (
            "path,camelot,key,open_key,confidence,old_key,tuning_cents,duration,error,status\n"
            "a.mp3,8A,Am,1m,0.9,,0,10,,detected\nb.mp3,,,,,,,,no audio in it,error\nc.mp3,8B,C,1d,,C,,,,kept\n"
            "d.mp3,,,,,loud,,,,unreadable key\n"
        )
        found = read_predictions(labels_file(tmp_path, text, "them.csv"), tracks, Path("music"))
        assert found.answers == (Key.parse("Am").index, None, Key.parse("C").index, None)
        assert (found.unmatched, found.kept) == (0, 1)

    @pytest.mark.parametrize("status", ["kept", "incomplete", "tempo missing"])
    def test_keys_that_the_files_had_are_counted(self, status: str, tmp_path: Path) -> None:
        file = labels_file(tmp_path, f"path,key,status\na.mp3,C,{status}\n", "them.csv")
        assert read_predictions(file, [label("a.mp3", "C")], Path("music")).kept == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,key\na.mp3,Q\n", "line 2: not a key: 'Q'"),
            ("path,key\na.mp3,C\na.mp3,Am\n", "line 3: another key for a.mp3 than in line 2"),
            ("path,key\n,Am\n", "line 2: no path"),
            ("path\na.mp3\n", "line 1: no column key (columns: path); it must name the columns path and key"),
        ],
    )
    def test_bad_predictions(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(LabelsError) as caught:
            read_predictions(labels_file(tmp_path, text), [label("a.mp3", "C")], tmp_path)
        assert str(caught.value) == message

    def test_written_predictions_are_read_back(self, tmp_path: Path) -> None:
        names = ["a, b.mp3", "caf\udce9.mp3", "none.mp3", "broken.mp3"]
        tracks = [label(name, "C", genre="jazz", line=index + 2) for index, name in enumerate(names)]
        detected = [
            Prediction(tracks[0], Key.parse("Am"), 0.75, None),
            Prediction(tracks[1], Key.parse("C"), 0.5, None),
            Prediction(tracks[2], None, 0.0, None),
            Prediction(tracks[3], None, 0.0, "the file is empty"),
        ]
        path = tmp_path / "p.csv"
        path.write_text("old")
        write_predictions(path, detected)
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == PREDICTION_COLUMNS
        assert list(rows[0].values()) == ["a, b.mp3", "Am", "8A", "0.7500", "C", "relative", "jazz", "", ""]
        assert list(rows[3].values()) == ["broken.mp3", "", "", "", "C", "", "jazz", "", "the file is empty"]
        answers = read_predictions(path, tracks, Path("music")).answers
        assert answers == answers_of(tracks, detected) == (Key.parse("Am").index, Key.parse("C").index, NO_KEY, None)
        assert [child.name for child in tmp_path.iterdir()] == ["p.csv"]

    def test_an_old_file_survives_a_failure(self, tmp_path: Path) -> None:
        path = tmp_path / "p.csv"
        path.write_text("old")

        def breaks_off() -> Iterator[Prediction]:
            yield Prediction(label("a.mp3", "C"), None, 0.0, None)
            raise OSError(errno.ENOSPC, "disk full")

        with pytest.raises(OSError, match="disk full"):
            write_predictions(path, breaks_off())
        assert path.read_text() == "old"
        assert [child.name for child in tmp_path.iterdir()] == ["p.csv"]
