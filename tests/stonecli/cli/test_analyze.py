import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from tests.fixture_types import Fingerprint, MakeModel, MakeMusic

Invoke = Callable[..., Result]
Song = Callable[..., Path]

CONTRACT = [
    *("path", "key", "confidence", "alternatives", "tuning_cents", "duration", "segments"),
    *("first_key", "last_key", "other_name", "tuning_confidence", "model", "error"),
]


@pytest.fixture
def medley(tmp_path: Path, music: MakeMusic) -> Path:
    """A minute in C major, a minute in F# minor."""
    path = tmp_path / "medley.wav"
    soundfile.write(path, np.concatenate([music("C major", seconds=60), music("F# minor", seconds=60)]), 22050)
    return path


def test_the_page_of_a_recording(invoke: Invoke, song: Song) -> None:
    result = invoke("analyze", song("flac"))
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "flac.flac"
    assert lines[1] == "  D minor   Camelot 7A   Open Key 12m"
    assert lines[2].startswith("  confidence ")
    assert "0:16   A = 4" in lines[2]
    candidates = [line for line in lines if "━" in line or "·" in line]
    assert len(candidates) == 4
    assert candidates[0].split()[:2] == ["7A", "Dm"]
    assert "window by window" not in result.stdout


def test_the_timeline(invoke: Invoke, medley: Path) -> None:
    result = invoke("analyze", medley, "--per-window")
    assert "  0:00 - 1:00  8B  C major\n" in result.stdout.replace("0:59", "1:00")
    assert "11A F# minor" in result.stdout
    windows = result.stdout.split("window by window\n")[1].strip().splitlines()
    assert len(windows) == 8
    assert [line.split()[4] for line in windows] == ["C"] * 4 + ["F#m"] * 4


def test_json(invoke: Invoke, song: Song, medley: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp3"
    broken.write_text("text")
    result = invoke("analyze", song("mp3"), broken, medley, tmp_path / "nothing.mp3", "--json")
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [list(record) for record in records] == [CONTRACT] * 4
    assert records[0]["key"]["musical"] == "Dm"
    assert [segment["key"]["musical"] for segment in records[2]["segments"]] == ["C", "F#m"]
    assert "cannot be decoded" in records[1]["error"]
    assert records[3]["error"] == "no such file or folder"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [str(broken), str(tmp_path / "nothing.mp3")]


def test_json_per_window(invoke: Invoke, medley: Path) -> None:
    record = json.loads(invoke("analyze", medley, "--json", "--per-window", "--overlap", "0.5").stdout)
    assert list(record) == [*CONTRACT[:7], "windows", *CONTRACT[7:]]
    assert len(record["windows"]) == 15
    assert record["windows"][0].keys() == {"start", "end", "key", "confidence"}
    assert record["windows"][1]["start"] == pytest.approx(7.5, abs=0.1)


def test_window_length(invoke: Invoke, medley: Path) -> None:
    record = json.loads(invoke("analyze", medley, "--json", "--per-window", "--window", "30").stdout)
    assert len(record["windows"]) == 4
    for seconds in ("1", "301"):
        result = invoke("analyze", medley, "--window", seconds)
        assert result.exit_code == 2
        wrong = f"--window must be 11.9 to 300 s long with this model, not {seconds}"
        assert result.stderr == f"stone: {wrong}; see stone analyze --help\n"


def test_last_window(invoke: Invoke, medley: Path) -> None:
    """The medley has 120 s: two windows of 50 s, and 20 s more that one of them takes or that are dropped."""
    ends = {}
    for last in ("keep", "drop"):
        arguments = ("--json", "--per-window", "--window", "50", "--last-window", last)
        record = json.loads(invoke("analyze", medley, *arguments).stdout)
        ends[last] = [window["end"] for window in record["windows"]]
    assert ends["keep"] == [pytest.approx(50, abs=0.5), pytest.approx(120, abs=0.5)]
    assert ends["drop"] == [pytest.approx(50, abs=0.5), pytest.approx(100, abs=0.5)]


def test_npz(invoke: Invoke, song: Song, medley: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    first, silent = song("flac"), tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(44100), 22050)
    assert invoke("analyze", first, medley, silent, "--npz", target).exit_code == 0
    with np.load(target, allow_pickle=False) as arrays:
        assert set(arrays.files) == {
            "__classes__",
            *(str(path) for path in (first, medley, silent)),
            *(f"__{what}__/{path}" for path in (first, medley, silent) for what in ("times", "mean")),
        }
        assert arrays[f"__mean__/{medley}"] == pytest.approx(arrays[str(medley)].mean(axis=0))
        assert arrays["__classes__"].shape == (24,)
        assert arrays[str(first)].shape == (1, 24)
        assert arrays[str(medley)].shape == (8, 24)
        assert arrays[f"__times__/{medley}"].shape == (8, 2)
        assert arrays[str(medley)].dtype == np.float32
        assert arrays[str(medley)].sum(axis=1) == pytest.approx(1, abs=1e-3)
        detected = [arrays["__classes__"][row.argmax()] for row in arrays[str(medley)]]
        assert detected == ["C major"] * 4 + ["F# minor"] * 4


def test_silence_is_reported(invoke: Invoke, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(22050 * 5), 22050)
    result = invoke("analyze", tmp_path / "a.wav")
    assert result.exit_code == 0
    assert "no key: stone finds nothing tonal" in result.stdout


def test_a_bad_file_does_not_stop_the_run(
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "[red]empty.mp3").touch()
    result = invoke("analyze", tmp_path / "[red]empty.mp3", "/dev/null", song("flac"))
    assert result.exit_code == 1
    assert "D minor" in result.stdout
    assert result.stderr.splitlines() == [
        f"{tmp_path}/[red]empty.mp3: the file is empty; re-rip or re-download it",
        "/dev/null: not a regular file but a folder, pipe, socket or device",
    ]

    def broken(path: Path, *_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("stonecli.detection.many.detect_key", broken)
    result = invoke("analyze", song("flac"), song("mp3"))
    assert result.exit_code == 1
    assert result.stderr.count("unexpected ZeroDivisionError: a bug\n") == 2


def test_a_bad_file_is_not_a_usage_error(
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch, music: MakeMusic, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "low.wav", music("D minor", rate=2000), 2000)
    result = invoke("analyze", song("flac"), tmp_path / "low.wav", song("mp3"), "--json")
    assert result.exit_code == 0
    assert [json.loads(line)["key"]["musical"] for line in result.stdout.splitlines()] == ["Dm"] * 3

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("stonecli.detection.windows.frame_peaks", broken)
    result = invoke("analyze", song("flac"), song("mp3"))
    assert result.exit_code == 1
    assert result.stderr.count("unexpected ValueError: a bug\n") == 2


def test_invalid_windows_are_refused_before_the_analysis(invoke: Invoke, tmp_path: Path) -> None:
    for options in (("--window", "1"), ("--overlap", "nan")):
        result = invoke("analyze", tmp_path / "none.wav", *options)
        assert result.exit_code == 2
        assert "none.wav" not in result.stderr


def test_targets_are_checked_before_the_work(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "none" / "x.npz"):
        result = invoke("analyze", song("flac"), "--npz", target)
        assert result.exit_code == 2
        assert result.stdout == ""


def test_nothing_is_written(invoke: Invoke, song: Song, fingerprint: Fingerprint) -> None:
    paths = [song("mp3"), song("m4a aac"), song("wav float")]
    before = fingerprint(paths[0].parent)
    assert invoke("analyze", *paths, "--per-window").exit_code == 0
    assert fingerprint(paths[0].parent) == before


def test_a_model_of_signatures(invoke: Invoke, song: Song, tiny_model: MakeModel, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "ks.onnx", count=12)
    record = json.loads(invoke("analyze", song("flac"), "--json", "--model", model).stdout)
    assert record["model"].startswith("ks.onnx@")
    assert record["key"]["musical"] == "G#m"  # the last signature, and three in four of it minor
    with_arrays = invoke("analyze", song("flac"), "--model", model, "--npz", tmp_path / "x.npz")
    assert with_arrays.exit_code == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays[str(song("flac"))].shape == (1, 12)


def test_a_picture(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "a.png"
    assert invoke("analyze", song("mp3"), "--plot", target, "--theme", "dark").exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert invoke("analyze", song("mp3"), song("flac"), "--plot", tmp_path / "a.pdf").exit_code == 0
    for wrong in ([song("mp3"), "--plot", "a.mp3"], [song("mp3"), song("flac"), "--plot", "a.svg"]):
        result = invoke("analyze", *wrong)
        assert (result.exit_code, result.stdout) == (2, "")


def test_a_picture_without_matplotlib(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("analyze", song("mp3"), "--plot", tmp_path / "a.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "stone: plots need matplotlib; install it: pip install 'stonecli[plot]'\n"


def test_a_page(invoke: Invoke, medley: Path, tmp_path: Path) -> None:
    assert invoke("analyze", medley, tmp_path / "none.mp3", "--html", tmp_path / "a.html").exit_code == 1
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    tracks = json.loads(text.split('id="data">')[1].split("</script>")[0])["tracks"]
    assert [len(track["segments"]) for track in tracks] == [2, 0]
    assert len(tracks[0]["windows"]) == 8


def test_first_and_last_key_and_the_shortest_segment(invoke: Invoke, medley: Path) -> None:
    record = json.loads(invoke("analyze", medley, "--json").stdout)
    assert (record["first_key"]["musical"], record["last_key"]["musical"]) == ("C", "F#m")
    assert record["tuning_confidence"] > 0.9
    assert record["other_name"] is None
    record = json.loads(invoke("analyze", medley, "--json", "--min-segment", "90").stdout)
    assert len(record["segments"]) == 1


def test_a_record_between_two_semitones(invoke: Invoke, music: MakeMusic, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", music("A minor", seconds=30, cents=46), 22050)
    record = json.loads(invoke("analyze", tmp_path / "a.wav", "--json").stdout)
    assert record["tuning_cents"] == pytest.approx(46, abs=3)
    assert {record["key"]["musical"], record["other_name"]["musical"]} == {"Am", "Bbm"}


@pytest.mark.parametrize("option", ["--npz", "--html", "--plot"])
def test_outputs_never_replace_music(invoke: Invoke, song: Song, option: str) -> None:
    first, second = song("mp3", "1.mp3"), song("mp3", "2.mp3")
    before = first.read_bytes()
    assert invoke("analyze", option, first, second).exit_code == 2
    assert first.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_keeps_the_finished_results(stone_command: list[str], song: Song, tmp_path: Path) -> None:
    files = [song("flac", f"{number}.flac") for number in range(200)]
    npz, page = tmp_path / "keys.npz", tmp_path / "keys.html"
    page.write_text("the page of another library")
    command = [*stone_command, "analyze", *map(str, files), "--json", "--npz", str(npz), "--html", str(page)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, errors = process.stdout.read(), process.stderr.read()  # communicate() would miss what was read ahead
    assert process.wait(timeout=60) == 130
    assert errors.splitlines() == [
        f"stone: {page} was not replaced, because the run did not finish",
        "stone: interrupted; the files shown above are done",
    ]
    detected = {json.loads(line)["path"] for line in [first, *rest.splitlines()]}
    assert 1 <= len(detected) < len(files)
    with np.load(npz) as arrays:
        assert detected <= set(arrays.files)
    assert page.read_text() == "the page of another library"


def test_outputs_of_no_analysis_are_not_written(invoke: Invoke, tmp_path: Path) -> None:
    page, npz = tmp_path / "old.html", tmp_path / "new.npz"
    page.write_text("the page of another library")
    result = invoke("analyze", tmp_path / "nosuch", "--html", page, "--npz", npz)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{tmp_path / 'nosuch'}: no such file or folder",
        f"stone: {npz}, {page} were not saved, because no file was analyzed",
    ]
    assert (page.read_text(), npz.exists()) == ("the page of another library", False)


def test_a_folder_is_searched_for_music(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    """Found as by ``stone tag``, at the position of the folder among the arguments."""
    first, second = song("flac", "1"), song("mp3", "10")
    inner = song("wav 16 bit", "x")
    (inner.parent / "sub").mkdir()
    inner = inner.rename(inner.parent / "sub" / "2.wav")
    (first.parent / "cover.jpg").write_bytes(b"no music")
    (first.parent / "broken.ogg").write_bytes(b"no music")
    other = song("aiff", "other").rename(tmp_path / "other.aiff")
    result = invoke("analyze", other, first.parent, other, "--json")
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    broken = first.parent / "broken.ogg"
    assert [record["path"] for record in records] == list(map(str, [other, first, second, broken, inner, other]))
    assert [record["error"] is None for record in records] == [True, True, True, False, True, True]
    assert result.stderr.count("\n") == 1
    assert "broken.ogg: cannot be decoded" in result.stderr


def test_the_outputs_of_a_folder(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    folder = song("flac", "a").parent
    song("mp3", "b")
    outputs = ["--html", tmp_path / "a.html", "--npz", tmp_path / "a.npz", "--plot", tmp_path / "a.pdf"]
    result = invoke("analyze", folder, *outputs)
    assert (result.exit_code, result.stderr) == (0, "")
    page = (tmp_path / "a.html").read_text()
    assert "a.flac" in page
    assert "b.mp3" in page
    assert {str(folder / "a.flac"), str(folder / "b.mp3")} < set(np.load(tmp_path / "a.npz").files)
    assert (tmp_path / "a.pdf").read_bytes().count(b"/Type /Page ") == 2
    result = invoke("analyze", folder, "--plot", tmp_path / "a.png")
    assert result.exit_code == 2
    (folder / "b.mp3").unlink()
    assert invoke("analyze", folder, "--plot", tmp_path / "a.png").exit_code == 0


def test_a_folder_without_music(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("analyze", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"stone: no music files found in {tmp_path}\n")


@pytest.mark.parametrize("command", [["analyze"], ["tag"], ["tag", "--jobs", "1"], ["mix"]])
def test_no_decoder_is_one_line(
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    files = [song("m4a aac", "a"), song("m4a aac", "b"), song("wma"), song("flac")]
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
    monkeypatch.setenv("PATH", "/nonexistent")
    result = invoke(*command, *files, "--json")
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("stone: ffmpeg cannot be started (no such file or folder); install it, or reinstall")
    if command != ["mix"]:
        records = {Path(record["path"]).name: record for record in map(json.loads, result.stdout.splitlines())}
        assert [name for name, record in records.items() if record["error"]] == ["a.m4a", "b.m4a", "wma.wma"]


@pytest.mark.parametrize("command", ["analyze", "tag"])
def test_an_mp3_shorter_than_its_header_is_truncated(invoke: Invoke, song: Song, command: str) -> None:
    path = song("mp3")
    content = path.read_bytes()
    size = 144 * 64000 // 44100
    start = content.index(b"\xff\xfb")
    while content[start + size * 20 : start + size * 20 + 2] != b"\xff\xfb":
        size += 1  # the bit rate is the encoder's choice
    frames = [at for at in range(start, len(content) - 1) if content[at : at + 2] == b"\xff\xfb"]
    path.write_bytes(content[: frames[len(frames) // 2]])
    result = invoke(command, path)
    assert result.exit_code == 0
    assert "mp3.mp3: shorter than its header declares (8 of 16 s); analyzed to the end of the file" in result.stderr
