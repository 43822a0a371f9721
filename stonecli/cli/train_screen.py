"""Shows the progress of ``stone train``: bars in a terminal, a line per epoch, messages."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from stonecli.cli.common import error_console, output_console
from stonecli.cli.running import progress_bar
from stonecli_train.loop import EpochReport, Watcher

if TYPE_CHECKING:
    from rich.progress import Progress

    from stonecli_train.chromanet import ChromaNet

_REPORT_SECONDS = 30.0


class TrainScreen(Watcher):
    """Prints the progress of the run to standard output, and that of preparing the data to standard error.

    Args:
        steps: number of steps per epoch.
        epochs: number of epochs of the run.
    """

    def __init__(self, steps: int, epochs: int) -> None:
        self._steps = steps
        self._epochs = epochs
        self._out = output_console()
        self._errors = error_console()
        self._reported = time.monotonic()
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._unit = ""

    def on_progress(self, what: str, done: int, count: int) -> None:
        """Show the progress of preparing the recordings: a bar in a terminal, otherwise a line every half minute."""
        if self._errors.is_terminal:
            self._show_bar(f"{what} recordings", done, count)
        elif time.monotonic() - self._reported > _REPORT_SECONDS:
            self._reported = time.monotonic()
            self._errors.print(f"{what} recordings: {done} of {count}")

    def on_data_message(self, text: str) -> None:
        """Print a message about the data."""
        self._errors.print(text, markup=False, soft_wrap=True)

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Move the bar of the epoch."""
        if self._out.is_terminal:
            epoch, note = f"epoch {step // self._steps + 1}/{self._epochs}", f"loss {losses['total']:.3f}"
            self._show_bar(epoch, step % self._steps + 1, self._steps, unit="steps", note=note)

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        """Print the line of the epoch."""
        line = f"epoch {report.epoch}  step {report.step}  {report.minutes:.1f} min  loss {report.losses['total']:.3f}"
        line += f"  validation {report.validation['total']:.3f}"
        if report.scores:
            scores = report.scores
            line += f"  KSEA {scores.ksea:.1%}  accuracy {scores.accuracy:.1%}  MIREX {100 * scores.mirex:.1f}"
        self.on_message(line + ("  best" if report.is_best else ""))

    def on_message(self, text: str) -> None:
        """Print a message about the run."""
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        self._stack.close()

    def _show_bar(
        self, description: str, done: int, count: int, *, unit: Literal["files", "steps"] = "files", note: str = ""
    ) -> None:
        if self._bar is not None and self._unit != unit:
            self.close()
            self._bar = None
        if self._bar is None:
            self._unit = unit
            console = self._out if unit == "steps" else self._errors
            self._bar = self._stack.enter_context(progress_bar(console, console, unit=unit))
            self._bar.add_task(description)
        self._bar.update(self._bar.task_ids[0], description=description, completed=done, total=count, note=note)
