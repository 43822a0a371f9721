"""Who is told how training goes: a CSV log, TensorBoard, the terminal."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stonecli_train.chromanet import ChromaNet
from stonecli_train.config import TrainConfig
from stonecli_train.data import Track
from stonecli_train.loop import EpochReport
from stonecli_train.losses import dft, signatures
from stonecli_train.metrics import track_profile

LOG_COLUMNS = ("epoch", "step", "minutes", "train_total", "val_total", "mirex", "accuracy", "signature", "ksea", "best")


class CsvLog:
    """Adds a line an epoch to a CSV file, which a resumed run continues."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Nothing: steps are TensorBoard's."""

    def on_message(self, text: str) -> None:
        """Nothing."""

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        """Write the line."""
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
        is_new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


class TensorBoardLog:
    """Losses, schedules, scores, the confusion matrix as an image, and KSPs of validation tracks on the circle."""

    def __init__(self, folder: Path, config: TrainConfig, tracks: list[Track], device: torch.device) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._config = config
        self._tracks = tracks[:64]
        self._device = device

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Losses and schedules."""
        values = {f"train/{name}": value for name, value in losses.items()}
        for name, value in (values | {"schedule/lr": lr, "schedule/weight_decay": weight_decay}).items():
            self._writer.add_scalar(name, value, step)

    def on_message(self, text: str) -> None:
        """The text."""
        self._writer.add_text("messages", text)

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        """Validation, confusion matrix and the circle."""
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
        """Write what is not written yet."""
        self._writer.close()

    def _circle(self, network: ChromaNet) -> Any:
        """Each validation track's KSP as the point that its DFT is, coloured by its key signature where known."""
        from matplotlib.figure import Figure

        profiles = np.stack([track_profile(network, track, self._config, self._device) for track in self._tracks])
        points = dft(signatures(torch.from_numpy(profiles)), self._config.loss.circle).numpy()
        colours = [track.key.signature if track.key else 0 for track in self._tracks]
        figure = Figure(figsize=(5, 5))
        axes = figure.add_subplot(aspect="equal", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        turn = np.linspace(0, 2 * math.pi, 200)
        axes.plot(np.cos(turn), np.sin(turn), color="grey", linewidth=0.5)
        axes.scatter(points[:, 0], points[:, 1], c=colours, cmap="hsv", vmin=0, vmax=12)
        return figure
