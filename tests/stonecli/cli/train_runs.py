"""A tiny configuration for ``stone train``, and what a run prints."""

from __future__ import annotations

from typing import Any

CONFIGURATION = """
[network]
rows = {rows}
normalization = "{norm}"
out_channels = [3, 6, 4]
kernels = [5, 5, 3]
[input]
window_seconds = 1.5
frames_averaged = 4
[loss]
name = "{loss}"
[data]
batch_size = 4
validation_share = 0.25
workers = 0
[optimizer]
epochs = 2
train_steps = 4
val_steps = 1
lr = 0.01
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def refused(result: Any, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = lines(result.stderr)
    assert line.startswith("stone: ")
    return line.removeprefix("stone: ")
