"""Trains a model with one call: ``stone train`` calls :func:`train`.

>>> from pathlib import Path
>>> from stonecli_train import choose_config, train
>>> config = choose_config("ks_mode", labels=Path("keys.csv"), values=["optimizer.epochs=5"])
>>> trained = train(config, labels=Path("keys.csv"), name="first")
>>> trained.folder / "best.pt"
PosixPath('runs/models/ks_mode/7/first/best.pt')
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib  # noqa: F401  (for TensorBoard's figures; a missing package is reported before the run)
import tensorboard  # type: ignore[import-untyped]  # noqa: F401
import torch

from stonecli.errors import reason
from stonecli.jobs import END_SIGNALS
from stonecli.util.locks import folder_lock
from stonecli_train import generated
from stonecli_train.allocator import keep_freed_memory
from stonecli_train.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from stonecli_train.config import (
    TrainConfig,
    TrainType,
    default_config,
    find_config,
    load_config,
    override,
    with_values,
)
from stonecli_train.data import Track, WaveformTracks, check_tracks, collect_tracks, split_tracks, with_pseudo_labels
from stonecli_train.errors import ArgumentsError
from stonecli_train.features import FeatureCache
from stonecli_train.loop import Run, Watcher, check_settings, stored_split
from stonecli_train.parallel import Processes, join_processes, leave_processes
from stonecli_train.plan import advice, estimate_plan
from stonecli_train.pseudo_labels import TeacherEnsemble
from stonecli_train.user_code import load_loaders
from stonecli_train.watchers import CsvLog, TensorBoardLog, load_watcher

OnProgress = Callable[[str, int, int], None]
OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """The state of a run when :func:`train` returns.

    Attributes:
        folder: folder of ``best.pt``, ``last.pt`` and ``log.csv``.
        step: number of steps done so far.
        is_interrupted: whether a signal stopped the run; the same call resumes it.
    """

    folder: Path
    step: int
    is_interrupted: bool


def choose_config(
    train_type: TrainType,
    path: Path | None = None,
    *,
    data: Path | None = None,
    labels: Path | None = None,
    loader: str | None = None,
    values: Sequence[str] = (),
    **changes: Any,
) -> TrainConfig:
    """The configuration of a run: from a file, or the published one for the data.

    Args:
        train_type: ``ks`` for 12 key signatures, ``ks_mode`` for 24 keys.
        path: a .toml or .gin file, or the name of a built-in configuration, such as ``laptop_ks``. None for the
            default: STONE for ``ks``, Semi-TONE for ``ks_mode`` with labels, S-KEY for ``ks_mode`` without labels, and
            a small configuration for generated music if there is no data at all.
        data, labels, loader: as for :func:`train`; they only decide which configuration is the default.
        values: assignments that replace values, such as ``loss.mode_weight=2``.
        changes: values to replace by name, such as ``optimizer__lr=1e-3``; None leaves a value unchanged.

    Raises:
        ConfigError: the configuration is invalid.
        ArgumentsError: the configuration is for the other train type, or the file cannot be read.
    """
    if path is not None:
        try:
            config = load_config(find_config(path))
        except OSError as error:
            raise ArgumentsError(f"{path}: {reason(error)}") from error
    elif loader is None and data is None and labels is None:
        config = default_config(f"generated_{train_type}")
    else:
        is_skey = train_type == "ks_mode" and loader is None and labels is None
        config = default_config("skey" if is_skey else train_type)
    config = with_values(override(config, **changes), values)
    if config.train_type != train_type:
        raise ArgumentsError(f"{path} is for --type {config.train_type}, not {train_type}")
    return config


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Prevent other processes from training the run in ``folder``.

    Raises:
        ArgumentsError: another process is training it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(folder, wait=False))
        except BlockingIOError:
            raise ArgumentsError(f"{folder}: another stone train is running here; choose another --name") from None
        yield


def train(
    config: TrainConfig,
    *,
    data: Path | None = None,
    labels: Path | None = None,
    loader: str | None = None,
    name: str = "basic",
    save_dir: Path = Path("runs"),
    cache: Path | None = None,
    start: Path | None = None,
    teachers: Sequence[Path] = (),
    allow_changes: bool = False,
    watchers: Sequence[Watcher | str] = (),
    threads: int | None = None,
    device: str = "auto",
    on_progress: OnProgress = lambda what, done, count: None,
    on_message: OnMessage = lambda text: None,
) -> Trained:
    """Train a model, or resume the run of the same name; returns the state of the run.

    Ctrl-C, SIGTERM and SIGHUP end the run after the current step and save ``last.pt``. With ``torchrun``, each process
    calls this function.

    Args:
        config: all settings of the run (:func:`choose_config`).
        data: folder of unlabeled music.
        labels: CSV with the columns ``path`` and ``key``. Without ``data``, ``labels`` and ``loader``, the run trains
            on music that stone generates.
        loader: ``MODULE:FUNCTION`` of your own data loader, instead of ``data`` and ``labels``.
        name: name of the run.
        save_dir: folder of the results: ``models/TYPE/CIRCLE/NAME`` and ``tensorboard/TYPE/CIRCLE/NAME``.
        cache: folder of the features; None for ``cache`` in ``save_dir``.
        start: checkpoint whose weights a new run starts with; None for random weights.
        teachers: checkpoints that label ``data`` first; needs ``loss.unlabeled = "pseudo_labels"``.
        allow_changes: whether to resume a run although its settings or its tracks have changed.
        watchers: observers of the run, or ``MODULE:CLASS`` of your own; ``log.csv`` and TensorBoard are always written.
        threads: number of CPU threads; None for PyTorch's default.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_progress: called while the data is prepared, with the task (``decoding`` or ``generating``), the number of
            recordings that this process has finished, and their total.
        on_message: called with each message about the data, one line.

    Raises:
        ArgumentsError: the arguments contradict each other or the configuration.
        StoneError: the data or a checkpoint is unusable, or the training fails (``Run.train``).
        OSError: a folder cannot be written or a file cannot be read.
    """
    _check_arguments(config, data, labels, loader, name, teachers, device)
    if threads:
        torch.set_num_threads(threads)
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        keep_freed_memory()
    cache = cache or save_dir / "cache"
    starting = _checkpoint(start) if start is not None else None
    teacher_checkpoints = [_checkpoint(path) for path in teachers]
    run_path = Path(config.train_type) / str(config.loss.circle) / name
    folder = save_dir / "models" / run_path
    for path in (folder, cache):
        check_writable(path)
    with ExitStack() as stack:
        processes = join_processes(kind)
        stack.callback(leave_processes)
        if not processes.is_first:
            on_message, on_progress, watchers = _nothing, _nothing, ()
        elif loader is not None and processes.count > 1:
            raise ArgumentsError("--loader works only with one process: run stone train without torchrun")
        if processes.is_first:
            stack.enter_context(_only_run(folder))
        target = torch.device(kind, processes.local_rank) if kind == "cuda" else torch.device("cpu")
        run_watchers = [
            load_watcher(watcher, config, name) if isinstance(watcher, str) else watcher for watcher in watchers
        ]
        for watcher in run_watchers:
            stack.callback(watcher.close)
        last = load_checkpoint(folder / "last.pt") if (folder / "last.pt").exists() else None
        if last is not None:
            check_settings(last, config, folder, allow_changes)
        tracks = _Tracks([], [], [], [])
        batches: tuple[WaveformTracks, WaveformTracks] | tuple[None, None] = (None, None)
        if loader is not None:
            batches = load_loaders(loader, config)
        else:
            tracks = _prepare(
                config, data, labels, cache, teacher_checkpoints, last, processes, on_progress, on_message
            )
        if processes.is_first:
            shown = [*tracks.validation_labeled, *tracks.validation_unlabeled]
            tensorboard = TensorBoardLog(save_dir / "tensorboard" / run_path, config, shown, target)
            stack.callback(tensorboard.close)
            run_watchers += [CsvLog(folder / "log.csv"), tensorboard]
        received = stack.enter_context(_ended_by_signals())
        run = Run(
            config,
            folder,
            tracks.unlabeled,
            tracks.labeled,
            tracks.validation_unlabeled,
            tracks.validation_labeled,
            target,
            processes,
            run_watchers,
            stop=lambda: bool(received),
            trained_on=f"batches of {loader}" if loader else tracks.summary,
            start=starting,
            batches=batches[0],
            validation_batches=batches[1],
            allows_changes=allow_changes,
        )
        if processes.is_first:
            plan = estimate_plan(run, last.state["progress"]["step"] if last is not None else 0)
            for line in filter(None, (str(plan), advice(plan, config))):
                run.notify(line)
        progress = run.train()
    return Trained(folder, progress.step, bool(received))


def check_writable(folder: Path) -> None:
    """Create a folder, and check that files can be written to it.

    Raises:
        OSError: the folder cannot be created or written; ``filename`` is the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


@dataclass(frozen=True)
class _Tracks:
    """The tracks of a run, split into training and validation."""

    unlabeled: list[Track]
    labeled: list[Track]
    validation_unlabeled: list[Track]
    validation_labeled: list[Track]

    @property
    def summary(self) -> str:
        """One line for the model card."""
        unlabeled = len(self.unlabeled) + len(self.validation_unlabeled)
        labeled = len(self.labeled) + len(self.validation_labeled)
        return f"{unlabeled} unlabeled and {labeled} labeled tracks"


def _prepare(
    config: TrainConfig,
    data: Path | None,
    labels: Path | None,
    cache: Path,
    teachers: Sequence[Checkpoint],
    last: Checkpoint | None,
    processes: Processes,
    on_progress: OnProgress,
    on_message: OnMessage,
) -> _Tracks:
    """The tracks of the run: decoded or generated, pseudo-labeled by the teachers, and split as in ``last``."""
    if data is None and labels is None:
        own = "to train on your own, give --data FOLDER, --labels CSV, or both"
        on_message(
            f"stone: training on {generated.EXCERPTS} excerpts of music that stone generates; {own}"
            " (see docs/training.md)"
        )
        progress = partial(on_progress, "generating")
        labels = generated.generate(
            cache / "generated", config.vqt, count=generated.EXCERPTS, processes=processes, progress=progress
        )
    unlabeled, labeled = collect_tracks(
        data,
        labels,
        FeatureCache(cache, config.vqt, config.input.corrects_tuning),
        on_message,
        processes=processes,
        check=partial(check_tracks, config=config),
        progress=partial(on_progress, "decoding"),
    )
    if teachers:
        ensemble = TeacherEnsemble(teachers, config.segment_frames, cache / "pseudo_labels")
        unlabeled = with_pseudo_labels(unlabeled, ensemble, config, on_message)
    before = stored_split(last) if last is not None else None
    share, seed = config.data.validation_share, config.optimizer.seed
    training_unlabeled, validation_unlabeled = split_tracks(unlabeled, share, seed, before)
    training_labeled, validation_labeled = split_tracks(labeled, share, seed, before)
    return _Tracks(training_unlabeled, training_labeled, validation_unlabeled, validation_labeled)


def _check_arguments(
    config: TrainConfig,
    data: Path | None,
    labels: Path | None,
    loader: str | None,
    name: str,
    teachers: Sequence[Path],
    device: str,
) -> None:
    if not name or name != Path(name).name or name.startswith("."):
        raise ArgumentsError(f"--name must be a valid folder name, not {name!r}")
    if loader is not None and (data is not None or labels is not None):
        raise ArgumentsError("--loader replaces --data and --labels; give one or the other")
    if bool(teachers) != (config.loss.unlabeled == "pseudo_labels"):
        raise ArgumentsError(
            '--teacher needs loss.unlabeled = "pseudo_labels" in the --config, and this setting needs --teacher'
        )
    if teachers and data is None:
        raise ArgumentsError("--teacher needs unlabeled music; add --data FOLDER")
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentsError("PyTorch finds no CUDA device; use --device cpu")


def _checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``.

    Raises:
        ArgumentsError: the file is not a checkpoint, or cannot be read.
    """
    try:
        return load_checkpoint(path)
    except (CheckpointError, OSError) as error:
        raise ArgumentsError(f"{path}: {reason(error)}") from error


def _nothing(*_: object) -> None:
    """Ignore messages and progress: only the first process reports."""


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Collect the signals that ask a program to end in the list; a second Ctrl-C interrupts at once.

    Unlike ``stonecli.jobs.stopped_by_signals``, a second SIGTERM changes nothing: torchrun and a scheduler may
    both send one, and the step must be saved.
    """
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in END_SIGNALS}
    if sys.platform != "win32" and handlers[signal.SIGHUP] == signal.SIG_IGN:
        del handlers[signal.SIGHUP]  # nohup: the run outlives its terminal

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, handlers[signal.SIGINT])

    for number in handlers:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
