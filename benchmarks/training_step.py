"""Measure a step of ``stone train``, and the share of the network in it: ``python benchmarks/training_step.py``.

The tracks are random features in a temporary folder, so neither music nor decoding is needed. Every part of a step is
timed: waiting for the batch, moving it to the device and cropping its views, forward, loss and backward, optimizer and
clipping, moving average of the weights. The share outside the network is all but forward, loss and backward. Prints
medians over the steps, because the machine may be shared.

    python benchmarks/training_step.py --config train/configs/laptop_ks.toml
    python benchmarks/training_step.py --config train/configs/laptop_ks.toml --no-channels-last
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stonecli.key import Key
from stonecli_train import loop
from stonecli_train.allocator import keep_freed_memory
from stonecli_train.chromanet import ChromaNet
from stonecli_train.config import CONFIGS, TrainConfig, load_config, override
from stonecli_train.data import Batch, Track
from stonecli_train.loop import Run

NETWORK = ("forward", "loss", "backward")
WARM_UP = 2  # steps that are not counted


def draw_tracks(folder: Path, count: int, minutes: float, config: TrainConfig, labeled: bool) -> list[Track]:
    """``count`` tracks of random features, stored in ``folder``; the cost of a step does not depend on the content."""
    rng = np.random.default_rng(0)
    frames = int(minutes * 60 * config.vqt.sample_rate / config.vqt.hop_length)
    tracks = []
    for number in range(count):
        path = folder / f"{labeled}{number}.npy"
        np.save(path, rng.integers(0, 256, (frames, config.vqt.n_bins), dtype=np.uint8))
        tracks.append(Track(path, Key.from_index(number % 24) if labeled else None))
    return tracks


class Clock:
    """Measures the seconds of each named part, with one list entry per step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.parts: dict[str, list[float]] = {}
        self._open: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, with the time of its calls added to the part ``name``."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            started = self._now()
            try:
                return function(*arguments, **options)
            finally:
                self._open[name] = self._open.get(name, 0.0) + self._now() - started

        return wrapped

    def close_step(self) -> None:
        """End a step: append the time of each part since the last call."""
        for name, seconds in self._open.items():
            self.parts.setdefault(name, []).append(seconds)
        self._open.clear()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(
    config: TrainConfig, steps: int, labels: str, channels_last: bool, device: torch.device, precision: str = "auto"
) -> dict[str, Any]:
    """Medians over ``steps`` training steps of ``stone train``, after two that are not counted."""
    with tempfile.TemporaryDirectory() as folder:
        unlabeled = draw_tracks(Path(folder), 12, 3.0, config, labeled=False) if labels != "all" else []
        labeled = draw_tracks(Path(folder), 12, 3.0, config, labeled=True) if labels != "none" else []
        run = Run(config, Path(folder), unlabeled, labeled, [], [], device, channels_last=channels_last)
        if precision != "auto":
            run._half_precision = lambda: torch.bfloat16 if precision == "bf16" else None  # type: ignore[method-assign]
        clock = Clock(device)
        stream = run.new_stream()
        wait = clock.timed("batch", lambda: next(stream))
        ChromaNet.scores = clock.timed("forward", ChromaNet.scores)  # type: ignore[method-assign]
        run.update_average = clock.timed("moving average", run.update_average)  # type: ignore[method-assign]
        run.optimizer.step = clock.timed("optimizer", run.optimizer.step)  # type: ignore[method-assign]
        Batch.to = clock.timed("to device", Batch.to)  # type: ignore[method-assign]
        loop.view_inputs = clock.timed("views", loop.view_inputs)  # type: ignore[attr-defined]
        loop.batch_loss = clock.timed("loss", loop.batch_loss)  # type: ignore[attr-defined]
        ChromaNet.normalize = clock.timed("forward", ChromaNet.normalize)  # type: ignore[method-assign]
        torch.Tensor.backward = clock.timed("backward", torch.Tensor.backward)  # type: ignore[method-assign]
        loop.clip_gradients = clock.timed("clipping", loop.clip_gradients)  # type: ignore[attr-defined]
        totals, windows, faults, processor = [], [], [], []
        for _ in range(steps + WARM_UP):
            started, used = time.perf_counter(), usage()
            batch = wait()
            run.train_step(batch)
            run.progress.step += 1
            totals.append(time.perf_counter() - started)
            faults.append(usage().faults - used.faults)
            processor.append(usage().seconds - used.seconds)
            windows.append(len(batch.first) * (2 if batch.is_labeled else 3))
            clock.close_step()
    totals = totals[WARM_UP:]
    parts = {name: statistics.median(seconds[WARM_UP:]) for name, seconds in clock.parts.items()}
    inside = [sum(clock.parts[name][step + WARM_UP] for name in NETWORK) for step in range(steps)]
    shares = [1.0 - part / total for part, total in zip(inside, totals, strict=True)]
    return {
        "device": device.type,
        "precision": precision,
        "channels_last": channels_last,
        "batch_size": config.data.batch_size,
        "workers": config.data.workers,
        "threads": torch.get_num_threads(),
        "steps": steps,
        "step_seconds": statistics.median(totals),
        "windows_per_second": sum(windows[WARM_UP:]) / sum(totals),
        "share_outside_network": statistics.median(shares),
        "parts_seconds": parts,
        "micro_batch": run.micro_batch,
        "cpu_seconds": statistics.median(processor[WARM_UP:]),
        "page_faults": statistics.median(faults[WARM_UP:]),
        "peak_gigabytes": usage().gigabytes if device.type == "cpu" else torch.cuda.max_memory_allocated(device) / 1e9,
    }


class Usage(NamedTuple):
    """CPU time, page faults and peak memory of this process; the last two are 0 on Windows."""

    seconds: float
    faults: int
    gigabytes: float


def usage() -> Usage:
    """The usage of this process until now."""
    try:
        import resource
    except ImportError:
        return Usage(time.process_time(), 0, 0.0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return Usage(used.ru_utime + used.ru_stime, used.ru_minflt, used.ru_maxrss * unit / 1e9)


MODES = {
    "whole batch": ["--micro-batch", "1000000", "--no-keep-memory"],
    "micro-batches": ["--no-keep-memory"],
    "micro-batches, freed memory kept": [],
}


def compare(arguments: list[str]) -> list[dict[str, Any]]:
    """The results of each of ``MODES``, measured in separate processes."""
    found = []
    for name, more in MODES.items():
        command = [sys.executable, __file__, "--json", "--steps", "1", *more]
        command += [argument for argument in arguments if argument != "--compare"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append({"mode": name} | json.loads(done.stdout))
    return found


def main() -> None:
    """Print the measurements of one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIGS / "laptop_ks.toml")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--labels", choices=["none", "half", "all"], default="none", help="share of batches with labels"
    )
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--micro-batch", type=int, help="windows per micro-batch (default: data.micro_batch)")
    parser.add_argument("--keep-memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="precision on a GPU (default: auto)"
    )
    parser.add_argument("--compare", action="store_true", help="compare with and without micro-batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    options = parser.parse_args()
    if options.compare:
        for result in compare(sys.argv[1:]):
            print(
                f"{result['mode']:32} {result['cpu_seconds']:6.1f} CPU s per step, "
                f"{result['page_faults'] / 1e6:5.2f} million page faults, {result['peak_gigabytes']:5.2f} GB"
            )
        return
    if options.keep_memory and options.device == "cpu":
        keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    changes = {
        "data__batch_size": options.batch_size,
        "data__workers": options.workers,
        "data__micro_batch": options.micro_batch,
    }
    config = override(load_config(options.config), **changes)
    result = measure(
        config, options.steps, options.labels, options.channels_last, torch.device(options.device), options.precision
    )
    if options.json:
        print(json.dumps({"config": str(options.config)} | result))
        return
    print(
        f"{options.config.name}: {result['windows_per_second']:.1f} windows/s, {result['step_seconds']:.3f} s per step"
    )
    for name, seconds in sorted(result["parts_seconds"].items(), key=lambda item: -item[1]):
        print(f"  {name:20} {1000 * seconds:9.2f} ms  {seconds / result['step_seconds']:7.2%}")
    print(f"outside the network: {result['share_outside_network']:.1%}")
    print(f"peak memory: {result['peak_gigabytes']:.2f} GB, {result['micro_batch']} windows per micro-batch")


if __name__ == "__main__":
    main()
