"""Print an evaluation as tables, and convert it to the record of ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stonecli.evaluation.bootstrap import Integers, Score
from stonecli.evaluation.evaluate import Comparison, Evaluation, Scores
from stonecli.evaluation.metrics import (
    CIRCLE,
    METRICS,
    MIREX_POINTS,
    RELATIONS,
    Metric,
    Relation,
    relation,
    signature_confusion,
)
from stonecli.evaluation.tempo import TempoScores
from stonecli.key import Key
from stonecli.terminal.colors import key_style
from stonecli.util.text import printable

METRIC_NAMES: dict[Metric, str] = {
    "mirex": "MIREX weighted score",
    "accuracy": "key right",
    "signature": "key signature right",
    "ksea": "KSEA",
}
SHORT_NAMES: dict[Metric, str] = {"mirex": "MIREX", "accuracy": "key", "signature": "signature", "ksea": "KSEA"}
RELATION_STYLES: dict[Relation, str] = {
    "same": "black on #8fd18f",
    "fifth": "black on #e6b450",
    "relative": "black on #7fc4d8",
    "parallel": "black on #d3a6d8",
    "other": "black on #ee9a86",
}
WORST = 5  # number of confusions that are listed
NAME_WIDTH = 28
DIGITS = 4
_ROW_LABEL = 4  # cells


def print_evaluation(console: Console, evaluation: Evaluation, *, signatures: bool = False) -> None:
    """Print scores with intervals, the parts of MIREX, scores per genre and source if known, and the confusions.

    Args:
        signatures: whether the model only knows key signatures: the confusions are then those of the 12 signatures.
    """
    if evaluation.overall.count:
        _print_overall(console, evaluation.overall)
    if evaluation.tempo is not None:
        _print_tempo(console, evaluation.tempo)
    if not evaluation.overall.count:
        return
    for name, groups in (("genre", evaluation.genres), ("source", evaluation.sources)):
        if groups:
            _print_groups(console, name, groups)
    if signatures:
        _print_signatures(console, signature_confusion(evaluation.confusion))
        return
    _print_confusion(console, evaluation.confusion)
    _print_worst(console, evaluation.confusion)


def _print_tempo(console: Console, scores: TempoScores) -> None:
    table = _table("", "score", "95 % interval")
    names = ("tempo within 4 %", "tempo or 2, 3, 1/2, 1/3 of it")
    for name, value in zip(names, (scores.accuracy_1, scores.accuracy_2), strict=True):
        table.add_row(name, _percent(value.value), _interval(value, scores.count))
    missing = f", no tempo found in {scores.no_tempo}" if scores.no_tempo else ""
    _line(console, f"tempo of {_tracks(scores.count)}{missing}", "bold")
    console.print(table)
    console.print()


def print_comparison(console: Console, ours: str, theirs: str, comparison: Comparison) -> None:
    """Print which of two named estimators is better on the tracks that both have estimated."""
    table = _table("", "first", "second", "diff.", "95 % interval", "better", "worse", "> 0", "p")
    for metric, difference in comparison.metrics.items():
        table.add_row(
            SHORT_NAMES[metric],
            _percent(difference.ours),
            _percent(difference.theirs),
            f"{100 * difference.value:+.1f}",
            f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}" if comparison.count > 1 else "-",
            str(difference.better),
            str(difference.worse),
            f"{difference.share_above:.0%}",
            f"{difference.p_value:.3f}" if difference.p_value >= 0.001 else "<0.001",
        )
    _line(
        console, f"{printable(ours)} (first) against {printable(theirs)} (second), {_tracks(comparison.count)}", "bold"
    )
    console.print(table)
    console.print()


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as JSON values; scores are 0..1."""
    confusion = evaluation.confusion
    tempo = {} if evaluation.tempo is None else {"tempo": asdict(evaluation.tempo)}
    return {
        **tempo,
        "overall": _scores_record(evaluation.overall),
        "genres": {name: _scores_record(scores) for name, scores in evaluation.genres.items()},
        "sources": {name: _scores_record(scores) for name, scores in evaluation.sources.items()},
        "confusion": {
            "keys": [key.musical for key in CIRCLE],
            "counts": confusion[:, :24].tolist(),
            "no_key": confusion[:, 24].tolist(),
        },
    }


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON values; scores are 0..1."""
    return {
        "count": comparison.count,
        **{
            metric: {
                "ours": round(difference.ours, DIGITS),
                "theirs": round(difference.theirs, DIGITS),
                "difference": round(difference.value, DIGITS),
                "low": round(difference.low, DIGITS),
                "high": round(difference.high, DIGITS),
                "share_above": round(difference.share_above, DIGITS),
                "p_value": difference.p_value,
                "better": difference.better,
                "worse": difference.worse,
            }
            for metric, difference in comparison.metrics.items()
        },
    }


def worst_confusions(confusion: Integers, limit: int = WORST) -> list[tuple[Key, Key | None, int]]:
    """Label, estimate (None: no key) and count of the most frequent errors, at most ``limit``."""
    wrong = [(-int(confusion[row, column]), row, column) for row in range(24) for column in range(25) if row != column]
    return [
        (CIRCLE[row], CIRCLE[column] if column < 24 else None, -count) for count, row, column in sorted(wrong) if count
    ][:limit]


def _print_overall(console: Console, scores: Scores) -> None:
    table = _table("", "score", "95 % interval")
    for metric in METRICS:
        value = scores.metrics[metric]
        table.add_row(METRIC_NAMES[metric], _percent(value.value), _interval(value, scores.count))
    _line(console, _tracks(scores.count) + (f", no key detected in {scores.no_key}" if scores.no_key else ""), "bold")
    console.print(table)
    console.print()
    parts = _table("parts of MIREX", "points", "tracks", "share")
    for name in RELATIONS:
        count = scores.parts[name]
        cells = (Text(name, RELATION_STYLES[name]), f"{MIREX_POINTS[name]:.1f}", str(count))
        parts.add_row(*cells, f"{_percent(count / scores.count)} %")
    console.print(parts)
    console.print()


def _print_groups(console: Console, kind: str, groups: dict[str, Scores]) -> None:
    table = _table(kind, "tracks", "MIREX", "95 % interval", "key", "95 % interval", "signature", "KSEA")
    for name, scores in groups.items():
        mirex, accuracy = scores.metrics["mirex"], scores.metrics["accuracy"]
        shown = printable(name) or "-"
        table.add_row(
            Text(shown if len(shown) <= NAME_WIDTH else shown[: NAME_WIDTH - 1] + "…"),
            str(scores.count),
            _percent(mirex.value),
            _interval(mirex, scores.count),
            _percent(accuracy.value),
            _interval(accuracy, scores.count),
            _percent(scores.metrics["signature"].value),
            _percent(scores.metrics["ksea"].value),
        )
    console.print(table)
    console.print()


def _print_confusion(console: Console, confusion: Integers) -> None:
    _line(console, "confusion matrix: labels in rows, answers in columns, along the circle of fifths", "bold")
    cell = max(3, len(str(confusion.max())) + 1)
    minors = [*range(12, 24), *([24] if confusion[:, 24].any() else [])]
    # In one block if it fits; otherwise the estimates in major above those in minor.
    fits = _ROW_LABEL + cell * (12 + len(minors)) + 1 <= console.width
    for columns in [[list(range(12)), minors]] if fits else [[list(range(12))], [minors]]:
        for line in _confusion_lines(confusion, columns, cell):
            console.print(line, soft_wrap=True)
        console.print()


def _print_signatures(console: Console, confusion: Integers) -> None:
    """The confusions of key signatures [12, 13]; the last column only where an answer is "no key"."""
    _line(console, "confusion matrix: labels in rows, answers in columns, by key signature", "bold")
    columns = 13 if confusion[:, 12].any() else 12
    cell = max(4, len(str(confusion.max())) + 1)
    names = [key.musical for key in CIRCLE[:12]]
    console.print(Text(" " * 8 + "".join(name.rjust(cell) for name in [*names, "no"][:columns])), soft_wrap=True)
    for row, key in enumerate(CIRCLE[:12]):
        line = Text(f"{key.musical}/{key.relative.musical}".ljust(8), key_style(key))
        for column in range(columns):
            count = int(confusion[row, column])
            style = RELATION_STYLES[relation(key, CIRCLE[column] if column < 12 else None)] if count else ""
            line.append((str(count) if count else "·").rjust(cell), style)
        console.print(line, soft_wrap=True)
    console.print()


def _confusion_lines(confusion: Integers, blocks: list[list[int]], cell: int) -> list[Text]:
    modes, names = Text(" " * _ROW_LABEL, ""), Text(" " * _ROW_LABEL)
    for block in blocks:
        modes.append(f"{' ' * (cell - 2)}{CIRCLE[block[0]].mode}".ljust(cell * len(block) + 1))
        for column in block:
            # The mode is in the line above, so a name takes two cells.
            name = CIRCLE[column].musical.removesuffix("m") if column < 24 else "no"
            names.append(name.rjust(cell), key_style(CIRCLE[column]) if column < 24 else "")
        names.append(" ")
    lines = [modes, names]
    for row, key in enumerate(CIRCLE):
        line = Text(key.musical.ljust(_ROW_LABEL), key_style(key))
        for block in blocks:
            for column in block:
                count = int(confusion[row, column])
                style = RELATION_STYLES[relation(key, CIRCLE[column] if column < 24 else None)] if count else ""
                line.append((str(count) if count else "·").rjust(cell), style)
            line.append(" ")
        lines.append(line)
        if row == 11:
            lines.append(Text())
    for line in lines:
        line.rstrip()
    return lines


def _print_worst(console: Console, confusion: Integers) -> None:
    worst = worst_confusions(confusion)
    if not worst:
        return
    _line(console, "most frequent errors", "bold")
    for label, answer, count in worst:
        name = relation(label, answer)
        detected = Text(answer.musical, key_style(answer)) if answer else Text("no key")
        kind = Text.assemble("  (", (name, RELATION_STYLES[name]), ")") if answer else Text()
        line = Text.assemble(f"{count:>4} × ", (label.musical, key_style(label)), " detected as ", detected, kind)
        console.print(line, soft_wrap=True)
    console.print()


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")  # folds on a narrow terminal
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _line(console: Console, text: str, style: str) -> None:
    console.print(Text(text, style), soft_wrap=True)


def _tracks(count: int) -> str:
    return f"{count} track{'' if count == 1 else 's'}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(score: Score, count: int) -> str:
    """The interval in percent; "-" for a single track."""
    return f"{100 * score.low:.1f} to {100 * score.high:.1f}" if count > 1 else "-"


def _scores_record(scores: Scores) -> dict[str, Any]:
    return {
        "count": scores.count,
        "no_key": scores.no_key,
        **{
            metric: {
                "value": round(score.value, DIGITS),
                "low": round(score.low, DIGITS),
                "high": round(score.high, DIGITS),
            }
            for metric, score in scores.metrics.items()
        },
        "parts": dict(scores.parts),
    }
