import builtins
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from stonecli.errors import PlotError
from stonecli.evaluation.evaluate import Evaluation, compare_answers, evaluate_answers
from stonecli.evaluation.labels import Label
from stonecli.evaluation.metrics import CIRCLE, NO_KEY, confusion_matrix
from stonecli.key import Key
from stonecli.plots.confusion import save_confusion_plot
from stonecli.terminal.evaluation import (
    comparison_record,
    evaluation_record,
    print_comparison,
    print_evaluation,
    worst_confusions,
)


def answered(rows: Any) -> Any:
    """Labels and answers from (label, answer, genre)."""
    names = [f"{index}.mp3" for index in range(len(rows))]
    tracks = [
        Label(Path(name), name, Key.parse(key), genre, "", 2) for name, (key, _, genre) in zip(names, rows, strict=True)
    ]
    return tracks, tuple(NO_KEY if answer is None else Key.parse(answer).index for _, answer, _ in rows)


def shown(width: int, show: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False, **options)
    show(console, *arguments)
    return text.getvalue()


ROWS = [("C", "C", "rock")] * 5 + [("C", "G", "rock")] * 2 + [("Am", "C", "jazz")] + [("Dm", None, "")] * 2


@pytest.fixture
def evaluation() -> Evaluation:
    return evaluate_answers(*answered(ROWS), resamples=500)


def lines_of(text: str) -> list[list[Any] | list[str]]:
    return [line.split() for line in text.splitlines()]


def test_scores_and_parts(evaluation: Evaluation) -> None:
    lines = lines_of(shown(100, print_evaluation, evaluation))
    assert ["10", "tracks,", "no", "key", "detected", "in", "2"] in lines
    # 5 right, 2 fifths, 1 relative, 2 without: (5 + 1 + 0.3) / 10
    assert next(line for line in lines if line[:1] == ["MIREX"])[3] == "63.0"
    assert next(line for line in lines if line[:1] == ["KSEA"])[1] == "70.0"
    assert ["same", "1.0", "5", "50.0", "%"] in lines
    assert ["fifth", "0.5", "2", "20.0", "%"] in lines
    assert ["relative", "0.3", "1", "10.0", "%"] in lines
    assert ["parallel", "0.2", "0", "0.0", "%"] in lines
    assert ["other", "0.0", "2", "20.0", "%"] in lines


def test_groups(evaluation: Evaluation) -> None:
    lines = lines_of(shown(100, print_evaluation, evaluation))
    assert next(line for line in lines if line[:1] == ["rock"])[:3] == ["rock", "7", "85.7"]
    assert next(line for line in lines if line[:1] == ["jazz"]) == [
        "jazz",
        "1",
        "30.0",
        "-",
        "0.0",
        "-",
        "100.0",
        "100.0",
    ]
    assert next(line for line in lines if line[:2] == ["-", "2"])[2] == "0.0"


def test_matrix_and_worst(evaluation: Evaluation) -> None:
    lines = lines_of(shown(100, print_evaluation, evaluation))
    empty = ["·"] * 23
    assert ["C", "5", "2", *empty] in lines
    assert ["Am", "1", *empty, "·"] in lines
    assert ["Dm", *empty, "·", "2"] in lines
    assert lines.index(["2", "×", "C", "detected", "as", "G", "(fifth)"]) > 0
    assert lines.index(["2", "×", "Dm", "detected", "as", "no", "key"]) > 0
    assert lines.index(["1", "×", "Am", "detected", "as", "C", "(relative)"]) > 0


@pytest.mark.parametrize("copies", [1, 99, 100, 1234])
@pytest.mark.parametrize("width", [80, 100])
def test_matrix_fits_and_its_columns_stand_below_each_other(copies: int, width: int) -> None:
    reference = np.repeat(np.arange(24), copies)
    estimate = (reference + 1) % 24
    estimate[:2] = NO_KEY
    confusion = confusion_matrix(reference, estimate)
    text = shown(
        width, print_evaluation, replace(evaluate_answers(*answered(ROWS), resamples=100), confusion=confusion)
    )
    assert max(len(line) for line in text.splitlines()) <= width
    lines = [line for line in text.split("circle of fifths\n")[1].splitlines() if line.strip()]
    # Each right edge of a count is the right edge of a name in the line of names above it.
    names = ""
    for line in lines:
        if line.split()[:2] == ["C", "G"] or line.split()[:2] == ["A", "E"]:
            names = line
        elif "×" in line or "errors" in line or line.split()[0] in ("major", "minor"):
            continue
        elif names:
            edges = {i for i in range(5, len(line)) if line[i] != " " and line[i + 1 : i + 2] in (" ", "")}
            assert edges == {i for i in range(len(names)) if names[i] != " " and names[i + 1 : i + 2] in (" ", "")}
    assert names


def test_names_of_genres_cannot_command_the_terminal() -> None:
    rows = [("C", "C", "[red]\x1b[2J" + 60 * "x")]
    text = shown(100, print_evaluation, evaluate_answers(*answered(rows), resamples=100))
    assert "\x1b" not in text
    assert "[red]\\x1b[2J" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_comparison() -> None:
    tracks, theirs = answered(ROWS)
    ours = tuple(track.key.index for track in tracks)
    comparison = compare_answers(tracks, ours, theirs, resamples=500)
    text = shown(80, print_comparison, "ours.onnx", "[b]them.csv", comparison)
    lines = lines_of(text)
    assert lines[0] == ["ours.onnx", "(first)", "against", "[b]them.csv", "(second),", "10", "tracks"]
    row = next(line for line in lines if line[:1] == ["key"])
    assert row[:4] == ["key", "100.0", "50.0", "+50.0"]
    assert row[-4:] == ["5", "0", "100%", "0.062"]  # 5 better, none worse: 2 / 2**5
    assert max(len(line) for line in text.splitlines()) <= 80
    record = comparison_record(comparison)
    assert record["count"] == 10
    assert record["accuracy"]["difference"] == 0.5
    assert record["accuracy"]["p_value"] == 0.0625


def test_record(evaluation: Evaluation) -> None:
    record = evaluation_record(evaluation)
    assert record["overall"]["mirex"]["value"] == 0.63
    assert record["overall"]["parts"] == {"same": 5, "fifth": 2, "relative": 1, "parallel": 0, "other": 2}
    assert set(record["genres"]) == {"rock", "jazz", ""}
    assert record["confusion"]["keys"] == [key.musical for key in CIRCLE]
    assert record["confusion"]["counts"][0][:2] == [5, 2]
    assert record["confusion"]["no_key"][-1] == 2


def test_worst_confusions_are_sorted_and_limited() -> None:
    reference = np.repeat([0, 0, 2, 4, 5, 7, 9], [6, 3, 2, 2, 1, 1, 1])
    estimate = np.repeat([0, 7, 3, 5, 6, 8, 10], [6, 3, 2, 2, 1, 1, 1])
    found = worst_confusions(confusion_matrix(reference, estimate))
    assert [(label.musical, answer and answer.musical, count) for label, answer, count in found] == [
        ("C", "G", 3),
        ("D", "Eb", 2),
        ("E", "F", 2),
        ("G", "Ab", 1),
        ("A", "Bb", 1),
    ]
    assert worst_confusions(confusion_matrix(np.arange(24), np.arange(24))) == []


# The picture


def pixels(path: Path) -> npt.NDArray[Any]:
    return pytest.importorskip("matplotlib.image").imread(path)


def test_picture_shows_the_cells(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    right, wrong = tmp_path / "right.png", tmp_path / "wrong.png"
    save_confusion_plot(right, confusion_matrix(np.arange(24), np.arange(24)), "$x$ title")
    save_confusion_plot(wrong, confusion_matrix(np.arange(24), np.arange(24)[::-1].copy()), "$x$ title")
    first, second = pixels(right), pixels(wrong)
    assert first.shape == second.shape
    assert first.shape[0] >= 1000
    blue = [((image[..., 2] - image[..., 0]) > 0.3) for image in (first, second)]
    # 24 cells of a 24 x 24 square are dark in both, and few of the same.
    assert blue[0].sum() == pytest.approx(blue[1].sum(), rel=0.05)
    assert (blue[0] & blue[1]).sum() < 0.1 * blue[0].sum()
    assert sorted(child.name for child in tmp_path.iterdir()) == ["right.png", "wrong.png"]


def test_labels_of_the_picture_do_not_overlap() -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    from stonecli.plots import confusion as confusion_plot

    figure = figure_module.Figure(
        figsize=(confusion_plot.SIZE_INCHES,) * 2, dpi=confusion_plot.DPI, layout="constrained"
    )
    axes = figure.add_subplot()
    confusion = confusion_matrix(np.repeat(np.arange(24), 1234), np.repeat(np.arange(24), 1234))
    confusion[:, 24] = 1000
    confusion_plot._draw(axes, confusion, "a title")
    figure.draw_without_rendering()
    for row in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
        boxes = [text.get_window_extent() for text in row if text.get_text()]
        assert len(boxes) >= 24
        for index, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    title, top = (
        axes.title.get_window_extent(),
        [tick.label2.get_window_extent() for tick in axes.xaxis.get_major_ticks()],
    )
    assert not any(title.overlaps(box) for box in top)


def test_without_matplotlib_the_error_tells_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> ModuleType | None:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PlotError, match=r"^plots need matplotlib; install it: pip install 'stonecli\[plot\]'$"):
        save_confusion_plot(tmp_path / "c.png", np.zeros((24, 25), dtype=int), "")
    assert list(tmp_path.iterdir()) == []
