"""Makes batches from the waveforms of the user's own data loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stonecli.key import Key
from stonecli_train.config import TrainConfig
from stonecli_train.data.batch import Batch
from stonecli_train.data.segments import draw_shifts
from stonecli_train.errors import DataError

_ENDLESS = "it must yield batches without end"


class WaveformTracks(Dataset[Batch]):
    """Batches of waveforms from the user's data loader, in the shapes of the published code.

    ``source`` has the batch of each step (``source[step]``), or is an iterable of batches (such as an
    ``IterableDataset`` or a ``DataLoader``) without end. A batch is one of

    - float32 [batch, samples, 2]: two segments of each track, without labels (``selfsupervised``);
    - (float32 [batch, samples, 1], list of key names): one segment of each, with labels (``supervised``);
    - the dictionary ``{"audio": waveforms, "keymode": (names,)}`` of the published code, of either kind, with the names
      "-1" if there are no labels.

    Both kinds may alternate in any way (``mix``). A resumed run skips the batches that it has used: a source
    with ``source[step]`` resumes at once and exactly; an iterable must yield the same batches again.

    Args:
        source: the batches.
        config: configuration of the run.
    """

    def __init__(self, source: Any, config: TrainConfig) -> None:
        from stonecli_train.vqt import VQT

        self._source = source
        self._config = config
        self._vqt = VQT(config.vqt).eval()
        self._iterator: Iterator[Any] | None = None
        self._position = 0  # of the next batch of the iterator

    def _batch(self, step: int) -> Any:
        source = self._source
        if hasattr(source, "__getitem__") and not isinstance(source, IterableDataset | DataLoader):
            try:
                return source[step]
            except IndexError:
                raise DataError(f"the data loader has no batch for step {step}: {_ENDLESS}") from None
        if self._iterator is None or step < self._position:
            iterator = iter(source)
            if self._iterator is not None and iterator is self._iterator:
                raise DataError("the data loader cannot be restarted: return an iterable instead of an iterator")
            self._iterator, self._position = iterator, 0
        try:
            while self._position < step:
                next(self._iterator)
                self._position += 1
            self._position += 1
            return next(self._iterator)
        except StopIteration:
            raise DataError(f"the data loader ended before step {step}: {_ENDLESS}") from None

    def __getitem__(self, step: int) -> Batch:
        """The batch of one step.

        Raises:
            DataError: the data loader has no such batch, or its shape or a key name is invalid.
        """
        audio, names = _waveforms(self._batch(step))
        if audio.ndim != 3 or audio.shape[2] != (2 if names is None else 1):
            raise DataError(
                "waveforms must have the shape [batch, samples, 2], or [batch, samples, 1] with labels,"
                f" not {list(audio.shape)}"
            )
        if names is not None and len(names) != len(audio):
            raise DataError(f"{len(names)} labels for {len(audio)} waveforms")
        if audio.shape[1] < self._config.vqt.min_samples:
            raise DataError(
                f"waveforms of {audio.shape[1]} samples are too short; the transform needs"
                f" {self._config.vqt.min_samples}"
            )
        spare = self._config.vqt.n_bins - self._config.network.n_bins
        rng = np.random.default_rng([self._config.optimizer.seed, step])
        segments = [self._features(audio[:, :, channel]) for channel in range(audio.shape[2])]
        try:
            labels = [Key.parse(name).index for name in names or ()]
        except ValueError as error:
            raise DataError(str(error)) from error
        return Batch(
            segments[0],
            segments[1] if names is None else torch.empty(0, dtype=torch.uint8),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor([draw_shifts(spare, rng) for _ in range(len(audio))], dtype=torch.int64),
        )

    def _features(self, audio: Tensor) -> Tensor:
        with torch.inference_mode():
            level = self._vqt(audio.float())
        scaled: Tensor = (level - level.amax(dim=(1, 2), keepdim=True) + 1.0) * 255.0
        return scaled.round().clamp(0, 255).to(torch.uint8).transpose(1, 2)


def _waveforms(item: Any) -> tuple[Tensor, Sequence[str] | None]:
    """Waveforms of a batch, and its labels; None instead of labels for an unlabeled batch."""
    if isinstance(item, dict):  # the published format: labels as a tuple of one list, "-1" for no label
        audio, (names,) = item["audio"], item["keymode"]
        return audio, names if audio.shape[-1] == 1 else None
    if isinstance(item, tuple | list):
        audio, names = item
        return audio, names
    return item, None
