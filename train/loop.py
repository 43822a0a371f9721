"""The training loop: batches, loss, optimizer step, moving average of the weights, validation, checkpoints."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from stonecli.errors import StoneError
from stonecli_train.auxiliary import AuxiliaryHeads
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stonecli_train.chromanet import ChromaNet
from stonecli_train.config import TrainConfig
from stonecli_train.data import Batch, Split, StepDataset, Track
from stonecli_train.metrics import Scores, score_network
from stonecli_train.micro_batch import MicroBatches, in_chunks, micro_batch_size
from stonecli_train.old_names import OPTIMIZER_STATE, with_current_names
from stonecli_train.parallel import Processes, any_process, gather_rows, sum_gradients
from stonecli_train.schedules import clip_gradients, learning_rate, new_optimizer, weight_decay
from stonecli_train.views import batch_chroma, batch_loss, class_names, view_inputs
from stonecli_train.workers import batch_stream

SAVE_MINUTES = 5.0
TRAINING, VALIDATION = 1, 2  # purposes of random numbers


class TrainError(StoneError):
    """Training cannot start or continue; saved checkpoints are intact."""


@dataclass(frozen=True)
class EpochReport:
    """Results of an epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        step: total number of steps so far.
        losses: mean losses over the epoch, by term.
        validation: mean losses on the validation tracks, by term.
        scores: scores on the labeled validation tracks; None without any.
        minutes: minutes of training since this run was started or resumed.
        is_best: whether the validation is the best so far.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    validation: dict[str, float]
    scores: Scores | None
    minutes: float
    is_best: bool


class Watcher:
    """Observer of a run: for the command line, TensorBoard, or your own code.

    Subclass it and override what you need (docs/training.md, ``stone train --watcher MODULE:CLASS``).
    """

    def on_resume(self, step: int) -> None:
        """Called before the first step, and when the run goes back to ``step``; later steps are then reported again."""

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        """Called after every step."""

    def on_epoch(self, report: EpochReport, network: ChromaNet) -> None:
        """Called after every validation; ``network`` has the averaged weights."""

    def on_message(self, text: str) -> None:
        """Called with a one-line message."""

    def close(self) -> None:
        """Called at the end of the run, also after errors."""


@dataclass
class Progress:
    """Progress of a run; saved in its checkpoints.

    Attributes:
        step: number of optimizer steps done.
        best: lowest value of the validation criterion so far.
        bad_epochs: epochs since then.
        recoveries: number of returns to the best checkpoint after a loss that was not finite.
        is_tuned: whether the run started from the weights of a checkpoint.
    """

    step: int = 0
    best: float = math.inf
    bad_epochs: int = 0
    recoveries: int = 0
    is_tuned: bool = False


@dataclass
class Run:
    """One training run.

    Attributes:
        config: configuration of the run.
        folder: folder of the checkpoints, ``last.pt`` and ``best.pt``.
        unlabeled, labeled: training tracks.
        validation_unlabeled, validation_labeled: validation tracks.
        device: device of the network.
        processes: this process and the number of processes of the run.
        watchers: observers of the run, in the first process only.
        stop: called after every step; if it returns True, the run is saved and ends.
        trained_on: one line for the model card.
        start: checkpoint with the initial weights of a new run; None for random ones.
        batches: source of batches instead of the tracks (``stonecli_train.data.WaveformTracks``).
        validation_batches: the same for validation; None for the first of ``batches``.
        allows_changes: whether a run is resumed although its settings or tracks have changed.
        channels_last: whether to use the channels-last memory format, which is faster on the CPU: 1.4 times with
            frames averaged by four (``benchmarks/training_step.py``), more with longer segments.
    """

    config: TrainConfig
    folder: Path
    unlabeled: Sequence[Track]
    labeled: Sequence[Track]
    validation_unlabeled: Sequence[Track]
    validation_labeled: Sequence[Track]
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    watchers: Sequence[Watcher] = ()
    stop: Callable[[], bool] = lambda: False
    trained_on: str = ""
    start: Checkpoint | None = None
    batches: Dataset[Batch] | None = None
    validation_batches: Dataset[Batch] | None = None
    allows_changes: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.stream: Generator[Batch, None, None] | None = None
        seed_everything(self.config.optimizer.seed, 0)
        self.network = self._new_network()
        self.average = self._new_network()
        self.average.load_state_dict(self.network.state_dict())
        self.average.eval()
        self.auxiliary = AuxiliaryHeads(self.config.network).to(self.device) if self.config.has_auxiliary else None
        if self.auxiliary is not None and self.processes.count > 1:
            raise TrainError("auxiliary losses (loss.score_weight, loss.style_weight) need a run of one process")
        self.trained = nn.ModuleList([self.network] if self.auxiliary is None else [self.network, self.auxiliary])
        self.optimizer = new_optimizer(self.trained, self.config.optimizer)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self._half_precision() is torch.float16)
        self.micro_batch = micro_batch_size(self.config, self.device)

    def train(self) -> Progress:
        """Train to the last epoch, or until the patience is exhausted or ``stop`` returns True; returns the progress.

        A run that was saved in the folder is resumed.

        Raises:
            TrainError: the run in the folder or ``start`` has another architecture, or the loss is not finite.
            DataError: the loss cannot be trained or validated on these tracks; raised before the first step.
            OSError: a checkpoint cannot be written; the old one is unchanged.
        """
        self.validation_data()  # raise errors now instead of after the first epoch
        self.resume()
        if self.start is not None and not self.progress.step:
            self.start_from(self.start)
        try:
            self.train_epochs()
        finally:
            self.close_stream()
        return self.progress

    def train_epochs(self) -> None:
        """Run the remaining epochs, each with its validation and checkpoint."""
        config = self.config.optimizer
        started = saved = time.monotonic()
        stream = self.new_stream()
        while self.progress.step < config.epochs * config.train_steps:
            if config.patience and self.progress.bad_epochs >= config.patience:
                self.notify(f"stopped: the validation has not improved for {config.patience} epochs")
                break
            seen: list[dict[str, float]] = []
            while not seen or self.progress.step % config.train_steps:  # an epoch, or its remainder
                losses = self.train_step(next(stream))
                if not math.isfinite(losses["total"]):
                    self.restore_best()
                    stream = self.new_stream()
                    seen.clear()
                    continue
                self.progress.step += 1
                seen.append(losses)
                is_over = self.progress.step % config.train_steps == 0
                if not is_over and self.must_stop():
                    self.save("last.pt")
                    return
                if not is_over and time.monotonic() - saved > SAVE_MINUTES * 60:
                    self.save("last.pt")
                    saved = time.monotonic()
            self.finish_epoch(_means(seen), (time.monotonic() - started) / 60)
            saved = time.monotonic()
            if self.must_stop():
                break

    def new_stream(self) -> Iterator[Batch]:
        """Training batches from the current step on; closes the previous stream."""
        self.close_stream()
        for watcher in self.watchers:
            watcher.on_resume(self.progress.step)
        purpose = (TRAINING, self.progress.recoveries)
        data = self.batches or StepDataset(
            self.unlabeled, self.labeled, self.config, purpose, self.processes.rank, self.processes.count
        )
        self.stream = batch_stream(data, self.progress.step, self.config.data.workers, self.notify, self.stop)
        return self.stream

    def close_stream(self) -> None:
        """End the worker processes that make batches."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def validation_data(self) -> Dataset[Batch]:
        """Validation batches, the same every time."""
        return (
            self.validation_batches
            or self.batches
            or StepDataset(self.validation_unlabeled, self.validation_labeled, self.config, (VALIDATION,))
        )

    def must_stop(self) -> bool:
        """Whether ``stop`` returns True in any process."""
        return any_process(self.stop(), self.processes, self.device)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Make one step of the optimizer; returns the losses by term. A loss that is not finite changes no weights."""
        config, step = self.config.optimizer, self.progress.step
        lr, decay = learning_rate(step, config), weight_decay(step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            group["weight_decay"] = decay if group["decays"] else 0.0
        self.network.train()
        terms, backward = self.losses(batch.to(self.device))
        total = terms["total"]
        if torch.isfinite(total):
            self.optimizer.zero_grad(set_to_none=True)
            backward(self.scaler.scale(total))
            sum_gradients(self.trained.parameters(), self.processes)
            self.scaler.unscale_(self.optimizer)
            clip_gradients(self.trained.parameters(), config)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.update_average()
        losses = {name: float(value.detach()) for name, value in terms.items()}
        for watcher in self.watchers:
            watcher.on_step(step, losses, lr, decay)
        return losses

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Callable[[Tensor], None]]:
        """The terms of the loss over the rows of all processes, and a function that backpropagates the total loss."""
        inputs = view_inputs(batch, self.config)
        if self.auxiliary is not None and batch.is_scored:
            self.reseed()
            return self.losses_with_auxiliary(batch, inputs, self.network), Tensor.backward
        has_teacher = self.config.loss.unlabeled == "mean_teacher" and not batch.is_labeled
        trained = inputs[2:] if has_teacher else inputs
        parts = MicroBatches(
            self.network, trained.flatten(0, 1), self.micro_batch, self.processes, self.autocast, self.reseed
        )
        raw = parts.scores
        shared = gather_rows(raw.reshape(*trained.shape[:2], *raw.shape[1:]), self.processes)
        whole_batch = batch if self.processes.count == 1 else self.gathered(batch)
        chroma = batch_chroma(inputs, batch, self.config)
        if chroma is not None:
            chroma = gather_rows(chroma[None], self.processes)[0]
        logits = self.network.normalize(shared.flatten(0, 1)).reshape(*shared.shape[:2], -1)
        if has_teacher:
            logits = torch.cat([self.teacher_logits(inputs[:2]), logits])
        return batch_loss(logits, chroma, whole_batch, self.config), parts.backward

    def reseed(self) -> None:
        """Seed the random numbers of drop path by the step."""
        seed_everything(self.config.optimizer.seed, self.progress.step, self.progress.recoveries)

    def losses_with_auxiliary(self, batch: Batch, inputs: Tensor, network: ChromaNet) -> dict[str, Tensor]:
        """The terms of the loss of a labeled batch with scores, including the auxiliary ones."""
        assert self.auxiliary is not None  # noqa: S101
        with self.autocast():
            outputs = network.blocks(inputs[0])
            raw = network.classifier(network.head(outputs[-1]))
        terms = batch_loss(network.normalize(raw.float())[None], None, batch, self.config)
        more: dict[str, Tensor] = self.auxiliary(outputs, batch)
        loss = self.config.loss
        total = terms["total"] + loss.score_weight * more["score"] + loss.style_weight * more["style"]
        return terms | more | {"key": terms["total"], "total": total}

    def teacher_logits(self, inputs: Tensor) -> Tensor:
        """Logits of the averaged weights for the views of all processes, [views, rows, classes]."""
        with torch.no_grad(), self.autocast():
            logits = in_chunks(self.average.logits, inputs.flatten(0, 1), self.micro_batch).float()
        return gather_rows(logits.reshape(*inputs.shape[:2], -1), self.processes)

    def gathered(self, batch: Batch) -> Batch:
        """``batch`` with the labels and shifts of all processes, in the order of ``gather_rows``."""
        shifts = gather_rows(batch.shifts[None], self.processes)[0]
        labels = gather_rows(batch.labels[None], self.processes)[0] if batch.is_labeled else batch.labels
        return replace(batch, labels=labels, shifts=shifts)

    def update_average(self) -> None:
        """Update the exponential moving average of the weights; its decay starts low unless the run is fine-tuned."""
        decay = self.config.optimizer.ema
        if decay and not self.progress.is_tuned:
            decay = min(decay, (1 + self.progress.step) / (20 + self.progress.step))
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
            for mean, current in pairs:
                if mean.dtype.is_floating_point:
                    mean.lerp_(current, 1.0 - decay)
                else:
                    mean.copy_(current)

    def finish_epoch(self, losses: dict[str, float], minutes: float) -> None:
        """Validate the averaged weights, save, and report."""
        config = self.config
        epoch = self.progress.step // config.optimizer.train_steps
        validation = self.validate()
        scores = None
        if self.validation_labeled:
            scores = score_network(self.average, self.validation_labeled, config, self.device)
        # With labels, the score decides which epoch is the best, otherwise the validation loss.
        criterion = (
            validation["total"] if scores is None else -(scores.mirex if config.network.rows == 2 else scores.ksea)
        )
        is_best = criterion < self.progress.best
        self.progress.bad_epochs += 1
        if is_best:
            self.progress.best, self.progress.bad_epochs = criterion, 0
            self.save("best.pt")
        self.save("last.pt")
        if config.optimizer.snapshot_epochs and epoch % config.optimizer.snapshot_epochs == 0:
            self.save(f"epoch_{epoch:04}.pt")
        report = EpochReport(epoch, self.progress.step, losses, validation, scores, minutes, is_best)
        for watcher in self.watchers:
            watcher.on_epoch(report, self.average)

    def validate(self) -> dict[str, float]:
        """Mean losses of the averaged weights on the validation tracks, by term; the same in every process."""
        data = self.validation_data()
        seen: list[dict[str, float]] = []
        with torch.inference_mode():
            for step in range(self.config.optimizer.val_steps):
                batch = data[step].to(self.device)
                inputs = view_inputs(batch, self.config)
                logits = in_chunks(self.average.logits, inputs.flatten(0, 1), self.micro_batch)
                logits = logits.reshape(*inputs.shape[:2], -1)
                terms = batch_loss(logits, batch_chroma(inputs, batch, self.config), batch, self.config)
                seen.append({name: float(value) for name, value in terms.items()})
        return _means(seen)

    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the run: averaged weights, and the state for resuming."""
        has_labels = bool(self.labeled)
        return Checkpoint(
            chromanet=self.config.network,
            weights=_on_cpu(self.average.state_dict()),
            vqt=self.config.vqt,
            frames_averaged=self.config.input.frames_averaged,
            corrects_tuning=self.config.input.corrects_tuning,
            window_seconds=self.config.input.window_seconds,
            classes=class_names(self.config) if has_labels else None,
            circle_type=self.config.loss.circle,
            trained_on=self.trained_on,
            config=self.config.as_dict() | {"sha256": self.config.sha256},
            state={
                "weights": _on_cpu(self.network.state_dict()),
                "auxiliary": _on_cpu(self.auxiliary.state_dict()) if self.auxiliary is not None else {},
                OPTIMIZER_STATE: _on_cpu(self.optimizer.state_dict()),
                "scaler": self.scaler.state_dict(),
                "progress": vars(self.progress).copy(),
                "split": self.split.as_dict(),
            },
        )

    @property
    def split(self) -> Split:
        """Which tracks are for training and which for validation."""
        return Split.of([*self.unlabeled, *self.labeled], [*self.validation_unlabeled, *self.validation_labeled])

    def save(self, name: str) -> None:
        """Write a checkpoint to the folder atomically, in the first process only."""
        if self.processes.is_first:
            save_checkpoint(self.checkpoint(), self.folder / name)

    def resume(self) -> None:
        """Resume from ``last.pt``, if it exists."""
        path = self.folder / "last.pt"
        if path.exists():
            self.restore(load_checkpoint(path))
            self.notify(f"resumed after step {self.progress.step}")

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Load only the weights of a checkpoint; its windows, data and objective may differ.

        Raises:
            TrainError: it has another architecture or other classes.
        """
        mine, theirs = self.config, checkpoint.without_gate()
        ours = (mine.network, mine.vqt, mine.input.frames_averaged, mine.input.corrects_tuning)
        # Calibration changes the temperature, and dense_blocks does not change the weights.
        chromanet = replace(
            theirs.chromanet, temperature=mine.network.temperature, dense_blocks=mine.network.dense_blocks
        )
        if ours != (chromanet, theirs.vqt, theirs.frames_averaged, theirs.corrects_tuning):
            raise TrainError("the checkpoint of --from has another architecture than the configuration")
        if self.labeled and theirs.classes not in (None, class_names(mine)):
            raise TrainError("the checkpoint of --from has other classes than the labels need")
        for network in (self.network, self.average):
            network.load_state_dict(theirs.weights)
        self.progress.is_tuned = True

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint's state.

        Raises:
            TrainError: it has another architecture or objective, or cannot be resumed.
        """
        theirs, advice = checkpoint, "choose another --name, or the same configuration"
        check_settings(checkpoint, self.config, self.folder, self.allows_changes)
        try:
            before = stored_split(checkpoint)
            change = self.split.difference(before) if before is not None else ""
            if change and not self.allows_changes:
                raise TrainError(f"{self.folder}: this run was started with {change}; {_CONFIRM}")
            self.average.load_state_dict(theirs.weights)
            self.network.load_state_dict(theirs.state["weights"])
            if self.auxiliary is not None:
                self.auxiliary.load_state_dict(theirs.state["auxiliary"])
            self.optimizer.load_state_dict(theirs.state[OPTIMIZER_STATE])
            self.scaler.load_state_dict(theirs.state["scaler"])
            self.progress = Progress(**theirs.state["progress"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainError(f"{self.folder}: the checkpoint in it cannot be resumed; {advice}") from error

    def restore_best(self) -> None:
        """Return to the best checkpoint after a loss that is not finite, and continue with other random numbers.

        Raises:
            TrainError: there is no best checkpoint, or this has happened too often.
        """
        path = self.folder / "best.pt"
        step, recoveries = self.progress.step, self.progress.recoveries + 1
        if not path.exists() or recoveries > 5:
            raise TrainError(f"the loss is not finite at step {step}; lower the learning rate (--lr)")
        self.restore(load_checkpoint(path))
        self.progress.recoveries = recoveries
        self.notify(f"the loss was not finite at step {step}; back to the best checkpoint, step {self.progress.step}")

    def notify(self, text: str) -> None:
        """Send a message to the watchers."""
        for watcher in self.watchers:
            watcher.on_message(text)

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast to half precision on CUDA; a null context on the CPU, where half precision is slower."""
        dtype = self._half_precision()
        return torch.autocast("cuda", dtype=dtype) if dtype else nullcontext()

    def _new_network(self) -> ChromaNet:
        network = ChromaNet(self.config.network).to(self.device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _half_precision(self) -> torch.dtype | None:
        if self.device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


_CONFIRM = "choose another --name, or resume it with --allow-changes"
_MAY_CHANGE = (
    "optimizer.epochs",
    "optimizer.patience",
    "optimizer.val_steps",
    "optimizer.snapshot_epochs",
    "data.workers",
    "data.micro_batch",
)


def stored_split(checkpoint: Checkpoint) -> Split | None:
    """The split of a run's tracks; None in checkpoints from before it was stored."""
    return Split.from_dict(checkpoint.state["split"]) if "split" in checkpoint.state else None


def check_settings(checkpoint: Checkpoint, config: TrainConfig, folder: Path, allows_changes: bool = False) -> None:
    """Check that the run in ``folder`` can be resumed with ``config``.

    Raises:
        TrainError: it has another architecture or loss, or other settings and ``allows_changes`` is False.
    """
    theirs, advice = checkpoint, "choose another --name, or the same configuration"
    ours = (config.network, config.vqt, config.input.frames_averaged, config.input.corrects_tuning)
    if ours != (theirs.chromanet, theirs.vqt, theirs.frames_averaged, theirs.corrects_tuning):
        raise TrainError(f"{folder}: the run in it has another architecture; {advice}")
    changes = _changes(config.as_dict(), with_current_names(theirs.config))
    if "loss.name" in changes:
        raise TrainError(f"{folder}: the run in it uses the {changes['loss.name']} loss; {advice}")
    if changes and not allows_changes:
        shown = ", ".join(f"{name} = {value}" for name, value in changes.items())
        raise TrainError(f"{folder}: this run was started with {shown}; {_CONFIRM}")


def _changes(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The earlier values of changed settings by ``table.name``; settings that did not exist yet are ignored."""
    changes = {}
    for table, values in ours.items():
        before = theirs.get(table)
        for name, value in values.items():
            if isinstance(before, dict) and before.get(name, value) != value and f"{table}.{name}" not in _MAY_CHANGE:
                changes[f"{table}.{name}"] = before[name]
    return changes


def seed_everything(seed: int, step: int, recoveries: int = 0) -> None:
    """Seed Python's and PyTorch's random numbers by the seed, the step and the number of recoveries."""
    state = int(np.random.SeedSequence([seed, step, recoveries]).generate_state(1)[0])
    random.seed(state)
    torch.manual_seed(state)


def _means(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each term, over the steps that have it."""
    names = {name for step in steps for name in step}
    return {name: float(np.mean([step[name] for step in steps if name in step])) for name in sorted(names)}


def _on_cpu(state: Any) -> Any:
    """A copy of a nested state on the CPU, so that later steps do not change it."""
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_cpu(value) for value in state)
    return state
