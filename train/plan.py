"""Estimates the steps, hours and memory of a training run before its first step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from stonecli_train.chromanet import ChromaNetConfig
from stonecli_train.config import TrainConfig
from stonecli_train.loop import Run
from stonecli_train.views import windows_per_row

BASE_GB = 0.9  # Python, PyTorch, features of the tracks in use; measured
TRIAL_FRAMES = 4_000  # input frames with which the speed is measured
LONG_HOURS = 24.0  # a run on a CPU that takes longer gets the advice to use a smaller configuration
LAPTOP_CONFIGS = {"stone": "laptop_ks", "semi_tone": "laptop_ks_mode", "skey": "laptop_skey"}
_FLOAT = 4


@dataclass(frozen=True)
class Plan:
    """The remaining work of a run.

    Attributes:
        steps: number of training steps.
        windows: windows per step, in this process.
        hours: estimated from the speed of a few windows; without decoding, and without scoring in the validation.
        gigabytes: estimated peak memory, on the GPU if there is one.
        device: ``cpu`` or ``cuda``.
    """

    steps: int
    windows: float
    hours: float
    gigabytes: float
    device: str

    def __str__(self) -> str:
        hours = f"{self.hours:.0f}" if self.hours >= 10 else f"{self.hours:.1f}"
        where = "GPU memory" if self.device == "cuda" else "memory"
        return (
            f"plan: {self.steps:,} steps of {self.windows:.0f} windows, about {hours} hours"
            f" and {self.gigabytes:.1f} GB of {where}"
        )

    @property
    def is_long(self) -> bool:
        """Whether the run takes more than a day on a CPU."""
        return self.device == "cpu" and self.hours > LONG_HOURS


def advice(plan: Plan, config: TrainConfig) -> str:
    """One line of advice if a published configuration would take days on this machine; otherwise empty."""
    if not plan.is_long or config.input.frames_averaged > 1 or config.loss.name not in LAPTOP_CONFIGS:
        return ""
    laptop = LAPTOP_CONFIGS[config.loss.name]
    return f"this is the published configuration; for a laptop, start another run with --config {laptop}"


def estimate_plan(run: Run, steps_done: int = 0) -> Plan:
    """The plan of a run, from the measured speed of a few windows; the run is not changed.

    Args:
        run: the run, before training.
        steps_done: number of steps in the checkpoint that it resumes from.
    """
    config = run.config
    optimizer = config.optimizer
    rows = config.data.batch_size / run.processes.count
    windows = rows * windows_per_row(config, bool(run.unlabeled), bool(run.labeled))
    steps = max(0, optimizer.epochs * optimizer.train_steps - steps_done)
    validation = steps / optimizer.train_steps * optimizer.val_steps * windows * run.processes.count
    frames = config.segment_frames // config.input.frames_averaged
    forward, both = _seconds_per_window(run, frames)
    is_whole = windows <= run.micro_batch
    seconds = steps * windows * (both if is_whole else both + forward) + validation * forward
    at_once = min(windows, run.micro_batch)
    inputs = windows * config.network.n_bins * frames * _FLOAT
    memory = (at_once * window_bytes(config.network, frames) + inputs) / 1e9
    if run.device.type == "cpu":
        memory += BASE_GB
    return Plan(steps, windows, seconds / 3600, memory, run.device.type)


def window_bytes(network: ChromaNetConfig, frames: int) -> int:
    """Bytes of memory for one window in training: float32 activations, and temporary tensors of the layers."""
    values = 0
    channels_in = 1
    for channels in network.out_channels:
        after = max(1, frames // 2)
        # Downsampling: the norm and its input. ConvNeXt block: two norms, the padded input of the kernel, and the
        # hidden layer, which is four times as wide, with its input and GELU.
        values += network.n_bins * (2 * frames * channels_in + after * channels * (6 + 3 * 4))
        frames, channels_in = after, channels
    return values * _FLOAT


def _seconds_per_window(run: Run, frames: int) -> tuple[float, float]:
    """Seconds per window for the forward pass, and for forward and backward together; the second of two trials."""
    count = max(1, min(run.micro_batch, TRIAL_FRAMES // max(1, frames)))
    inputs = torch.rand(count, 1, run.config.network.n_bins, frames, device=run.device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    parameters = list(run.network.parameters())
    forward = both = 0.0
    run.network.train()
    for _ in range(2):
        started = _now(run.device)
        with run.autocast():
            scores = run.network.scores(inputs)
        forward = _now(run.device) - started
        torch.autograd.grad(scores.float().sum(), parameters, allow_unused=True)
        both = _now(run.device) - started
    return forward / count, both / count


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
