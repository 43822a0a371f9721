"""Draw docs/training.svg from the logs of the runs in docs/training.md (python research/make_curves.py)."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

folder = Path(__file__).parent
picture = folder.parent / "docs" / "training.svg"
figure = Figure(figsize=(10, 3.4), layout="constrained")
losses, scores = figure.subplots(1, 2)
for path in sorted((folder / "runs").glob("*.csv")):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    losses.plot(steps, [float(row["val_total"]) for row in rows], label=path.stem.replace("_", " "))
    if rows[0]["mirex"]:
        scores.plot(steps, [100 * float(row["mirex"]) for row in rows], label=path.stem.replace("_", " "))
losses.set(xlabel="step", ylabel="validation loss", title="Loss (terms differ from run to run)", ylim=(0, None))
scores.set(xlabel="step", ylabel="MIREX", title="Score on held-out renderings", ylim=(0, 100))
for axes in (losses, scores):
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
figure.savefig(picture, metadata={"Date": None})
