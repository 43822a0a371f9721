import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests.fixture_types import Fingerprint, Invoke, MakeModel, MakeMusic, RunStone

KEYS = {"c.wav": "C major", "am.flac": "A minor", "fs.wav": "F# minor", "eb.flac": "Eb major"}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic) -> Path:
    """Four recordings, and one that is silent."""
    folder = tmp_path_factory.mktemp("rendered")
    for name, key in KEYS.items():
        soundfile.write(folder / name, music(key), 22050)
    soundfile.write(folder / "silence.wav", 0 * music("C major"), 22050)
    return folder


@pytest.fixture
def folder(rendered: Path, tmp_path: Path) -> Path:
    """A folder with copies of the recordings."""
    folder = tmp_path / "set"
    folder.mkdir()
    for path in rendered.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def labels_file(folder: Path, rows: list[str], header: str = "path,key") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


RIGHT = [f"{name},{key}" for name, key in KEYS.items()]


def test_all_right(folder: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", labels_file(folder, RIGHT), "--json", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["tracks"] == record["overall"]["count"] == 4
    assert record["overall"]["parts"] == {"same": 4, "fifth": 0, "relative": 0, "parallel": 0, "other": 0}
    assert record["overall"]["mirex"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (record["failed"], record["against"], record["genres"]) == ([], None, {})
    assert ".onnx@" in record["model"]


def test_each_part_of_mirex_by_labels_that_are_wrong_on_purpose(folder: Path, invoke: Invoke) -> None:
    # The keys are detected (test above); against these labels each is wrong in another way.
    rows = ["c.wav,F,pop", "am.flac,C,pop", "fs.wav,F#,rock", "eb.flac,A,rock", "silence.wav,C,"]
    result = invoke("evaluate", labels_file(folder, rows, "path,key,genre"), "--json", "--resamples", "200")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["overall"]["parts"] == {"same": 0, "fifth": 1, "relative": 1, "parallel": 1, "other": 2}
    assert record["overall"]["no_key"] == 1
    assert record["overall"]["mirex"]["value"] == 0.2  # (0.5 + 0.3 + 0.2) / 5
    assert record["overall"]["ksea"]["value"] == 0.3  # C/F a fifth, Am/C right
    assert {genre: scores["count"] for genre, scores in record["genres"].items()} == {"pop": 2, "rock": 2, "": 1}
    assert sum(record["confusion"]["no_key"]) == 1


def test_tables_go_to_standard_output(folder: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", labels_file(folder, RIGHT), "--seed", "3", "--resamples", "150")
    assert result.exit_code == 0
    assert "150 samples, seed 3" in result.stdout
    assert "4 tracks\n" in result.stdout
    assert "not in these scores" not in result.stdout
    assert result.stderr == ""
    assert max(len(line) for line in result.stdout.splitlines()[1:]) <= 100


def test_broken_and_missing_files_are_reported_and_skipped(
    folder: Path, invoke: Invoke, fingerprint: Fingerprint
) -> None:
    (folder / "broken.mp3").write_bytes(b"this is no music" * 100)
    (folder / "folder.wav").mkdir()
    rows = [*RIGHT, "broken.mp3,C", "missing.mp3,C", "folder.wav,C"]
    labels = labels_file(folder, rows)
    before = fingerprint(folder)
    result = invoke("evaluate", labels)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        str(folder / name) for name in ("broken.mp3", "missing.mp3", "folder.wav")
    ]
    assert lines[1].endswith(": no such file or folder")
    assert "3 of 7 tracks are not in these scores: 3 could not be analyzed" in result.stdout
    assert "4 tracks\n" in result.stdout
    assert fingerprint(folder) == before

    record = json.loads(invoke("evaluate", labels, "--json").stdout)
    assert [Path(failure["path"]).name for failure in record["failed"]] == ["broken.mp3", "missing.mp3", "folder.wav"]
    assert (record["tracks"], record["overall"]["count"], record["overall"]["accuracy"]["value"]) == (7, 4, 1.0)


def test_no_readable_file_is_an_error(folder: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", labels_file(folder, ["missing.mp3,C"]))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "stone: no track could be analyzed, so there is nothing to score"


def test_an_invalid_label_is_an_error(folder: Path, invoke: Invoke) -> None:
    labels = labels_file(folder, [*RIGHT, "c.wav,Q# lydian"])
    result = invoke("evaluate", labels)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"stone: {labels}: line 6: not a key: 'Q# lydian'\n"


def test_a_missing_file_of_labels(folder: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", folder / "no.csv")
    assert result.exit_code == 2
    assert result.stderr == f"stone: {folder / 'no.csv'}: no such file or folder\n"


def test_a_track_listed_twice_is_a_warning(folder: Path, invoke: Invoke) -> None:
    labels = labels_file(folder, [*RIGHT, "./c.wav,8B"])
    result = invoke("evaluate", labels)
    assert result.exit_code == 0
    assert result.stderr == f"{labels}: tracks listed twice count once (line 6)\n"
    assert "4 tracks\n" in result.stdout


def test_predictions_are_written_and_can_be_compared_with(folder: Path, invoke: Invoke) -> None:
    labels = labels_file(folder, [*RIGHT, "missing.mp3,C"])
    predictions = folder / "mine.csv"
    assert invoke("evaluate", labels, "--predictions", predictions).exit_code == 1
    with predictions.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert [(row["key"], row["relation"]) for row in rows.values()] == [
        ("C", "same"),
        ("Am", "same"),
        ("F#m", "same"),
        ("Eb", "same"),
        ("", ""),
    ]
    assert rows["missing.mp3"]["error"] == "no such file or folder"
    assert 0 < float(rows["c.wav"]["confidence"]) <= 1

    labels_file(folder, RIGHT)
    result = invoke("evaluate", labels, "--against", predictions, "--json")
    assert result.exit_code == 0
    against = json.loads(result.stdout)["against"]
    assert (against["count"], against["name"]) == (4, str(predictions))
    assert against["accuracy"] == {
        "ours": 1.0,
        "theirs": 1.0,
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
        "share_above": 0.0,
        "p_value": 1.0,
        "better": 0,
        "worse": 0,
    }


def test_against_another_tool(folder: Path, invoke: Invoke, tmp_path: Path) -> None:
    theirs = tmp_path / "them.csv"
    theirs.write_text(f"Path,Key\n{folder}/c.wav,1d\nam.flac,C\nfs.wav,none\nother.mp3,C\n")
    result = invoke("evaluate", labels_file(folder, RIGHT), "--against", theirs)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"{theirs}: tracks without a key in this file, not compared: 1 of 4",
        f"{theirs}: rows that match no track of the labels, ignored: 1",
    ]
    # Ours 1, 1, 1; theirs 1, 0.3, 0.
    line = next(line for line in result.stdout.split("(second)")[1].splitlines() if line.startswith("MIREX"))
    assert line.split()[1:4] == ["100.0", "43.3", "+56.7"]


def test_against_a_file_of_other_tracks(folder: Path, invoke: Invoke, tmp_path: Path) -> None:
    theirs = tmp_path / "them.csv"
    theirs.write_text("path,key\nother.mp3,C\n")
    result = invoke("evaluate", labels_file(folder, RIGHT), "--against", theirs)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"stone: {theirs}: no row belongs to a track of the labels; check the paths in it\n"


def test_comparing_predictions_for_unreadable_files(folder: Path, invoke: Invoke, tmp_path: Path) -> None:
    theirs = tmp_path / "them.csv"
    theirs.write_text("path,key\nmissing.mp3,C\n")
    result = invoke("evaluate", labels_file(folder, [*RIGHT, "missing.mp3,C"]), "--against", theirs)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"{theirs}: no comparison: no track has an answer from both"
    assert "4 tracks\n" in result.stdout


def test_against_another_model(folder: Path, invoke: Invoke, tmp_path: Path, tiny_model: MakeModel) -> None:
    other = tiny_model(tmp_path / "other.onnx")  # detects B minor in everything
    result = invoke("evaluate", labels_file(folder, [*RIGHT, "missing.mp3,C"]), "--against", other, "--json")
    assert result.exit_code == 1
    against = json.loads(result.stdout)["against"]
    assert against["name"].startswith("other.onnx@")
    # B minor is a fifth from F# minor, nothing to the others.
    assert against["mirex"]["theirs"] == 0.125
    assert against["accuracy"]["difference"] == 1.0
    assert against["accuracy"]["better"] == 4
    assert against["accuracy"]["p_value"] == 0.125  # 2 / 2**4

    alone = json.loads(invoke("evaluate", labels_file(folder, RIGHT), "--model", other, "--json").stdout)
    assert alone["model"] == against["name"]
    assert alone["overall"]["mirex"]["value"] == 0.125


def test_picture(folder: Path, invoke: Invoke) -> None:
    pytest.importorskip("matplotlib")
    picture = folder / "confusion.png"
    result = invoke("evaluate", labels_file(folder, RIGHT), "--confusion", picture)
    assert result.exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_model_of_key_signatures_has_a_matrix_of_twelve(
    folder: Path, invoke: Invoke, tiny_model: MakeModel, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    model, picture = tiny_model(tmp_path / "twelve.onnx", count=12), tmp_path / "confusion.png"
    result = invoke("evaluate", labels_file(folder, RIGHT), "--model", model, "--confusion", picture)
    assert result.exit_code == 0, result.stderr
    rows = [line for line in result.stdout.split("by key signature")[1].splitlines() if "/" in line]
    assert [row.split()[0] for row in rows[:2]] == ["C/Am", "G/Em"]
    assert (len(rows), {len(row.split()) for row in rows}) == (12, {13})
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--predictions", "p.txt", "must end in .csv"),
        ("--confusion", "c.jpg", "must end in .png"),
        ("--predictions", "nowhere/p.csv", "no such folder"),
        ("--predictions", "labels.csv", "is an input of this command"),
        ("--against", "nowhere.csv", "no such file"),
        ("--against", "c.wav", "not an ONNX model"),
        ("--model", "nowhere.onnx", "no such file"),
    ],
)
def test_wrong_usage_is_reported_before_the_analysis(
    folder: Path, invoke: Invoke, option: str, name: str, message: str
) -> None:
    labels = labels_file(folder, [*RIGHT, "missing.mp3,C"])
    result = invoke("evaluate", labels, option, folder / name)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "missing.mp3" not in result.stderr
    assert labels.read_text().startswith("path,key\nc.wav")


def test_missing_matplotlib_is_an_error_before_the_work(folder: Path, stone: RunStone, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker" / "matplotlib"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ModuleNotFoundError('No module named matplotlib', name='matplotlib')")
    labels = labels_file(folder, ["missing.mp3,C"])
    result = stone("evaluate", labels, "--confusion", tmp_path / "c.png", PYTHONPATH=os.fspath(tmp_path / "blocker"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "stone: plots need matplotlib; install it: pip install 'stonecli[plot]'\n"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_reports_the_finished_tracks(
    folder: Path, stone_command: list[str], tmp_path: Path, rendered: Path
) -> None:
    for index in range(400):
        (folder / f"{index}.wav").symlink_to(rendered / "c.wav")
    labels = labels_file(folder, ["missing.mp3,C", *(f"{index}.wav,C" for index in range(400))])
    predictions = tmp_path / "p.csv"
    command: list[str | Path] = [
        *stone_command,
        "evaluate",
        labels,
        "--jobs",
        "1",
        "--json",
        "--predictions",
        predictions,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(str(folder / "missing.mp3"))  # it is at work
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    with predictions.open(newline="") as file:
        detected = list(csv.DictReader(file))
    assert len(detected) < 401
    if out:
        assert json.loads(out)["overall"]["count"] == len(detected) - 1


def test_heavy_libraries_are_not_loaded_for_the_help() -> None:
    code = (
        "import sys; from stonecli.cli.main import app\n"
        "bad = {'numpy', 'onnxruntime', 'matplotlib', 'torch', 'soundfile'} & set(sys.modules)\n"
        "sys.exit(' '.join(bad) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_shared_recordings(shared: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", shared / "audio" / "labels.csv", "--json", "--resamples", "100")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record["overall"]["count"] == 7
    assert record["overall"]["mirex"]["value"] >= 0.8
