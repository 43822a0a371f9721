"""Watchers of a training run: a CSV log, TensorBoard, and classes of the user."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stonecli.errors import StoneError, describe, naming
from stonecli.util.atomic_file import atomic_file, remove_if_empty
from stonecli_train.chromanet import ChromaNet
from stonecli_train.config import TrainConfig
from stonecli_train.data import Track
from stonecli_train.loop import EpochReport, Watcher
from stonecli_train.losses import dft, signatures
from stonecli_train.metrics import track_profile
from stonecli_train.user_code import load_object


class WatcherError(StoneError):
    """A user's watcher cannot be loaded."""


def load_watcher(name: str, config: TrainConfig, run: str) -> Watcher:
    """A new watcher of the class that ``MODULE:CLASS`` names, made with the configuration and the name of the run.

    Python also looks for the module in the current folder.

    Raises:
        WatcherError: there is no such class, it is not a :class:`Watcher`, or its constructor fails.
    """
    try:
        watcher = load_object(name)(config, run)
    except Exception as error:  # whatever the user's code raises
        raise WatcherError(f"--watcher {name}: {describe(error)}") from error
    if not isinstance(watcher, Watcher):
        raise WatcherError(f"--watcher {name}: must be a subclass of stonecli_train.loop.Watcher")
    return watcher


LOG_COLUMNS = ("epoch", "step", "minutes", "train_total", "val_total", "mirex", "accuracy", "signature", "ksea", "best")


class CsvLog(Watcher):
    """Appends one line per epoch to a CSV file, which a resumed run continues."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_resume(self, step: int) -> None:
        """Remove the lines of later epochs, which will be trained again."""
        if not self._path.exists():
            return
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        index = LOG_COLUMNS.index("step")
        kept = rows[:1] + [row for row in rows[1:] if len(row) == len(LOG_COLUMNS) and int(row[index]) <= step]
        if kept != rows:
            with atomic_file(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(kept)

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        """Append the line of the epoch."""
        scores = report.scores
        row: dict[str, Any] = {
            "epoch": report.epoch,
            "step": report.step,
            "minutes": f"{report.minutes:.2f}",
            "train_total": f"{report.losses['total']:.4f}",
            "val_total": f"{report.validation['total']:.4f}",
            "best": int(report.is_best),
        }
        if scores:
            values = {name: getattr(scores, name) for name in ("mirex", "accuracy", "signature", "ksea")}
            row |= {name: f"{value:.4f}" for name, value in values.items()}
        try:
            with naming(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
        except OSError:
            remove_if_empty(self._path)
            raise


class TensorBoardLog(Watcher):
    """Writes losses, schedules, scores, the confusion matrix and a plot of KSPs on the circle for TensorBoard."""

    def __init__(self, folder: Path, config: TrainConfig, tracks: list[Track], device: torch.device) -> None:
        self._folder = folder
        self._writer = self._new_writer(None)
        self._config = config
        self._tracks = tracks[:64]
        self._device = device

    def _new_writer(self, step: int | None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=step)

    def on_resume(self, step: int) -> None:
        """Make TensorBoard discard this and later steps of the same folder, which will be trained again."""
        self._writer.close()
        self._writer = self._new_writer(step)

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Write losses and schedules."""
        values = {f"train/{name}": value for name, value in losses.items()}
        for name, value in (values | {"schedule/lr": lr, "schedule/weight_decay": weight_decay}).items():
            self._writer.add_scalar(name, value, step)

    def on_message(self, text: str) -> None:
        """Write the message."""
        self._writer.add_text("messages", text)

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        """Write the validation, the confusion matrix and the plot of KSPs."""
        values = {f"validation/{name}": value for name, value in report.validation.items()}
        if report.scores:
            scores = report.scores
            names = ("mirex", "accuracy", "signature", "ksea")
            values |= {f"scores/{name}": getattr(scores, name) for name in names}
            rows = scores.confusion / np.maximum(scores.confusion.sum(axis=1, keepdims=True), 1)
            image = np.kron(rows, np.ones((12, 12)))[None]  # one cell: 12 x 12 pixels
            self._writer.add_image("confusion", image, report.step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, report.step)
        if self._tracks:
            self._writer.add_figure("circle", self._circle(network), report.step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _circle(self, network: ChromaNet) -> Any:
        """Scatter plot of the DFT of each validation track's KSP, colored by its key signature if known."""
        from matplotlib.figure import Figure

        profiles = np.stack([track_profile(network, track, self._config, self._device) for track in self._tracks])
        points = dft(signatures(torch.from_numpy(profiles)), self._config.loss.circle).numpy()
        colors = [track.key.signature if track.key else 0 for track in self._tracks]
        figure = Figure(figsize=(5, 5))
        axes = figure.add_subplot(aspect="equal", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        turn = np.linspace(0, 2 * math.pi, 200)
        axes.plot(np.cos(turn), np.sin(turn), color="grey", linewidth=0.5)
        axes.scatter(points[:, 0], points[:, 1], c=colors, cmap="hsv", vmin=0, vmax=12)
        return figure
