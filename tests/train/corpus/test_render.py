"""From the command line to labels: a few excerpts, with numpy's synthesizers and with FluidSynth."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixture_types import StartProcess

pytest.importorskip("torch")
pytest.importorskip("pedalboard")

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train import features
from stonecli_train.corpus import fluidsynth
from stonecli_train.corpus.excerpt import Settings, render_excerpt
from stonecli_train.corpus.plain import RATE
from stonecli_train.corpus.render import RENDERED, check_sources, main, parse_arguments, render_all, write_labels
from stonecli_train.corpus.score import Chord, Note, Passage
from stonecli_train.corpus.sources import MIX, READERS, Library, RejectedError, is_held_out

GENERATED = (("styles", 1.0),)
NUMPY = Settings(GENERATED, seconds=8.0, seed=5, soundfonts=False)
PITCHES = (60, 62, 64, 65, 67, 65, 64, 62)


def song(number: int, mode_third: int = 4) -> Passage:
    """Eight bars of C."""
    chords = tuple(
        Chord(4.0 * bar, 4.0, root, (0, 4 if root else mode_third, 7), root)
        for bar, root in enumerate((0, 5, 7, 0) * 4)
    )
    melody = tuple(Note(float(beat), 1.0, PITCHES[beat % 8]) for beat in range(64))
    key = Key(0, "major" if mode_third == 4 else "minor")
    return Passage(((0.0, key),), 64.0, "cocopops", f"song {number}", chords, melody)


def library() -> Library:
    return Library({"cocopops": [song(number, 3 + number % 2) for number in range(40)]})


def test_the_mix_names_all_sources_and_adds_up() -> None:
    assert set(MIX) == {"styles", *READERS}
    assert sum(MIX.values()) == pytest.approx(1.0)


def test_excerpts_are_a_function_of_seed_and_number() -> None:
    first, again = (render_excerpt(Library({}), NUMPY, 3) for _ in range(2))
    assert (first.key, first.style, first.origin, first.cents) == (again.key, again.style, again.origin, again.cents)
    assert np.array_equal(first.samples, again.samples)
    assert first.samples.shape == (8 * RATE,)
    others = [render_excerpt(Library({}), NUMPY, number) for number in (4, 5)]
    assert not any(np.array_equal(first.samples, other.samples) for other in others)


def test_keys_of_a_corpus_cover_all_tonics_and_both_modes() -> None:
    rng = np.random.default_rng(0)
    keys: list[Key] = []
    while len(keys) < 240:
        try:
            keys.append(library().draw(rng, "cocopops", 8.0).passage.key)
        except RejectedError:
            continue
    assert len(set(keys)) == 24
    assert 0.4 < np.mean([key.mode == "minor" for key in keys]) < 0.6


@pytest.mark.parametrize(
    ("keys", "roots"),
    [
        (tuple((4.0 * bar, Key(7 * (bar % 2), "major")) for bar in range(16)), (0, 5, 7, 0)),  # two keys by turns
        (((0.0, Key(0, "major")),), (6, 11, 1, 6)),  # a bridge in another key than the piece
    ],
)
def test_an_excerpt_whose_label_does_not_fit_is_rejected(
    keys: tuple[tuple[float, Key], ...], roots: tuple[int, ...]
) -> None:
    number = next(number for number in range(100) if not is_held_out(f"song {number}"))
    chords = tuple(Chord(4.0 * bar, 4.0, root, (0, 4, 7), root) for bar, root in enumerate(roots * 4))
    mixed = Library({"cocopops": [Passage(keys, 64.0, "cocopops", f"song {number}", chords)]})
    for seed in range(20):
        with pytest.raises(RejectedError):
            mixed.draw(np.random.default_rng(seed), "cocopops", 20.0)


def test_held_out_pieces_are_not_drawn_for_training() -> None:
    passages = {"cocopops": [song(number) for number in range(60)]}
    drawn = []
    for held_out in (False, True):
        origins = set()
        for seed in range(60):
            try:
                origins.add(
                    Library(passages, held_out).draw(np.random.default_rng(seed), "cocopops", 8.0).passage.origin
                )
            except RejectedError:
                continue
        drawn.append(origins)
    assert drawn[0]
    assert drawn[1]
    assert not drawn[0] & drawn[1]


def rows(out: Path) -> Sequence[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_resumable_and_parallel_runs_give_the_same(tmp_path: Path) -> None:
    arguments = ["--source", "styles", "--no-soundfonts", "--seconds", "6", "--seed", "2"]
    assert main([*arguments, "--out", str(tmp_path / "a"), "--count", "3"]) == 0
    (tmp_path / "a" / "2_000001.npy").unlink()  # as if it had been interrupted
    assert write_labels(tmp_path / "a") == 2
    stamp = (tmp_path / "a" / "2_000000.npy").stat().st_mtime_ns
    assert main([*arguments, "--out", str(tmp_path / "a"), "--count", "4"]) == 0
    assert (tmp_path / "a" / "2_000000.npy").stat().st_mtime_ns == stamp
    assert main([*arguments, "--out", str(tmp_path / "b"), "--count", "4", "--jobs", "2"]) == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert [row["path"] for row in rows(tmp_path / "a")] == [f"2_{number:06d}.npy" for number in range(4)]
    for row in rows(tmp_path / "a"):
        Key.parse(row["key"])
        found = np.load(tmp_path / "a" / row["path"])
        assert found.dtype == np.uint8
        assert found.shape[1] == 99
        assert abs(len(found) - 6 * RATE / 512) < 12  # the correction of the tuning changes the length
        assert found.max() == 255
        assert np.array_equal(found, np.load(tmp_path / "b" / row["path"]))


def test_failures_are_counted_and_the_run_continues(tmp_path: Path) -> None:
    settings = Settings((("cocopops", 0.5), ("styles", 0.5)), seconds=4.0, soundfonts=False)
    counts = render_all(Library({}), settings, tmp_path, range(6), report=lambda line: None)
    assert counts[RENDERED] >= 1
    assert counts[RENDERED] + sum(n for reason, n in counts.items() if "cocopops: nothing in" in reason) == 6
    assert len(rows(tmp_path)) == counts[RENDERED]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on standard error."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_full_disk_ends_the_run_which_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = features.save_atomically

    def full(path: Path, array: np.ndarray) -> None:
        if path.stem == "1_000001":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, array)

    monkeypatch.setattr(features, "save_atomically", full)
    arguments = ["--source", "styles", "--no-soundfonts", "--seconds", "4", "--out", str(tmp_path), "--count", "3"]
    assert main(arguments) == 1
    assert one_line(capsys).startswith("excerpt 1: no space left on device; ")
    assert [row["path"] for row in rows(tmp_path)] == ["1_000000.npy"]
    monkeypatch.undo()
    assert main(arguments) == 0
    assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("held_out", [False, True])
def test_missing_soundfonts_are_reported_first(
    held_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fluidsynth, "installed_fonts", lambda held_out=False: [])
    arguments = ["--source", "keyless", "--seconds", "4", "--out", str(tmp_path / "out"), "--count", "2"]
    assert main([*arguments, *["--held-out"] * held_out]) == 1
    assert ("musescore-general-soundfont" if held_out else "timgm6mb-soundfont") in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not fluidsynth.is_installed(), reason="FluidSynth or its soundfonts are not installed")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_fluidsynth_that_fails_ends_the_run(
    jobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise, only excerpts without soundfonts would be rendered."""
    program = tmp_path / "bin" / "fluidsynth"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no soundfont >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    arguments = ["--source", "styles", "--style", "folk", "--seconds", "4", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--count", "2", "--jobs", jobs]) == 1
    assert one_line(capsys).startswith("excerpt 0: FluidSynth failed: no soundfont")


def test_wrong_arguments_are_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--count", "1", "--no-soundfonts"]
    assert main(["--source", "pop909", "--corpus", str(tmp_path), *arguments]) == 1
    assert "pop909" in capsys.readouterr().err
    assert main(["--source", "pop909", *arguments]) == 1
    assert "--corpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seconds", value) for value in ("0", "-3", "1", "nan", "inf", "1e9", "long")]
    + [("--count", "0"), ("--jobs", "0"), ("--seed", "-1"), ("--start", "-1"), ("--jobs", "two")],
)
def test_numbers_out_of_range(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--source", "styles", "--no-soundfonts", "--out", str(tmp_path / "a"), "--count", "1", option, value])
    assert ended.value.code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(f"python -m stonecli_train.corpus.render: error: argument {option}")
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("source", ["styles", "keyless"])
def test_the_shortest_excerpts_can_be_rendered(source: str, tmp_path: Path) -> None:
    arguments = ["--source", source, "--no-soundfonts", "--out", str(tmp_path), "--count", "4", "--seconds", "1.01"]
    assert main(arguments) == 0


def test_a_folder_that_cannot_be_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "file", tmp_path / "file" / "a"):
        assert main(["--source", "styles", "--no-soundfonts", "--out", str(out), "--count", "1"]) == 1
        assert one_line(capsys).startswith(f"{out}: ")


def test_another_source_with_the_same_seed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--no-soundfonts", "--seconds", "4", "--out", str(tmp_path), "--count", "2"]
    assert main(["--source", "styles", *arguments]) == 0
    assert main(["--source", "keyless", *arguments]) == 1
    expected = f"{tmp_path / '1_000000.npy'}: already rendered from styles instead of keyless; "
    assert one_line(capsys).startswith(expected)
    assert main(["--source", "keyless", *arguments, "--seed", "2"]) == 0
    assert Counter(row["source"] for row in rows(tmp_path)) == {"styles": 2, "keyless": 2}
    assert main(["--source", "styles", *arguments]) == 0  # excerpts of the same source can be resumed


def test_a_mix_is_recognized_by_its_sources(tmp_path: Path) -> None:
    mixed = Settings((("cocopops", 0.5), ("styles", 0.5)), seconds=4.0, soundfonts=False)
    render_all(library(), mixed, tmp_path, range(6), report=lambda line: None)
    assert {row["source"] for row in rows(tmp_path)} == {"cocopops", "styles"}
    check_sources(mixed, tmp_path, range(6))
    for other in (replace(mixed, sources=GENERATED), replace(mixed, sources=mixed.sources[::-1])):
        with pytest.raises(StoneError, match="use another --seed"):
            check_sources(other, tmp_path, range(6))


def test_a_mix_without_sources_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--no-soundfonts", "--out", str(tmp_path / "a"), "--count", "1"]
    assert main(["--source", "pop909", "--without", "pop909", *arguments]) == 1
    assert "excludes all sources of --source pop909" in one_line(capsys)


def test_the_commands_of_the_manual_write_different_files() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "corpus.md").read_text(encoding="utf-8")
    runs = []
    for line in text.splitlines():
        if line.startswith("python -m stonecli_train.corpus.render"):
            options = parse_arguments(line.split()[3:])
            runs.append((options.out, options.seed))
    assert len(runs) == len(set(runs)) == 13


def agreement(settings: Settings, numbers: range) -> float:
    """Share of excerpts whose key the built-in model names."""
    import soxr

    from stonecli.detection.detect import detect_key_in_audio
    from stonecli.model.session import default_model

    model = default_model()
    right = []
    for number in numbers:
        rendering = render_excerpt(Library({}), settings, number)
        samples = soxr.resample(rendering.samples, RATE, model.info.sample_rate)
        right.append(detect_key_in_audio(iter([samples]), model, model.info.sample_rate).key == rendering.key)
    return float(np.mean(right))


def test_the_built_in_model_agrees_with_numpy_renderings() -> None:
    assert agreement(Settings(GENERATED, seconds=16.0, soundfonts=False, seed=1), range(24)) > 0.5


@pytest.mark.slow
@pytest.mark.skipif(not fluidsynth.is_installed(), reason="FluidSynth or its soundfonts are not installed")
def test_the_built_in_model_agrees_with_soundfont_renderings() -> None:
    assert agreement(Settings(GENERATED, seconds=16.0, seed=1), range(24)) > 0.5


def test_missing_soundfonts_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fluidsynth, "installed_fonts", lambda held_out=False: [])
    folk = Library({}, styles=["folk"])  # hardly anything in it is synthesized
    with pytest.raises(StoneError, match="apt-get install fluidsynth"):
        render_excerpt(folk, Settings(GENERATED, seconds=4.0), 0)


def test_pedalboard_is_imported_by_renderings_alone() -> None:
    code = """
import sys
import stonecli.cli.start, stonecli_train.loop, stonecli_train.corpus.render
assert not {name for name in sys.modules if name.startswith("pedalboard")}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "source"), [("pedalboard", "styles"), ("torch", "styles"), ("mido", "pop909")])
def test_without_the_extra_the_error_tells_how_to_install_it(
    name: str, source: str, without: Any, tmp_path: Path
) -> None:
    done = without(name, "stonecli_train.corpus.render", "--source", source, "--out", tmp_path / "a", "--count", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"rendering needs {name}: pip install 'stonecli[corpus]'"]
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_workers_exit_when_the_command_is_killed(tmp_path: Path, start_process: StartProcess) -> None:
    arguments = ["--source", "styles", "--no-soundfonts", "--seconds", "3", "--count", "1000", "--jobs", "2"]
    process = start_process(
        [sys.executable, "-m", "stonecli_train.corpus.render", *arguments, "--out", str(tmp_path / "out")]
    )
    wait_until(lambda: any((tmp_path / "out").glob("*.npy")))
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) >= 2
    process.kill()
    process.wait(60)
    wait_until(lambda: not any(map(is_running, children)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
