"""Gradients of a whole batch, computed a few windows at a time (in micro-batches) to bound memory.

Batch norm and the losses depend on the whole batch, so the gradients of micro-batches cannot simply be averaged. As in
GradCache (Gao et al., *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, RepL4NLP 2021), there
are two passes. The first computes the scores of all windows without a graph, and the gradient of the loss with respect
to these scores. The second computes every micro-batch again, with a graph, and backpropagates that gradient to the
weights. The activations of only one micro-batch are in memory; the cost is a second forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from stonecli_train.chromanet import ChromaNet, ConvNeXtBlock
from stonecli_train.config import TrainConfig
from stonecli_train.parallel import Processes

CPU_FRAMES = 16_000  # input frames that the network processes at once: 24 windows of 15 s, about 1 GB
CUDA_FRAMES_PER_GIB = 8_000  # the same, for each GiB of the GPU's memory


def micro_batch_size(config: TrainConfig, device: torch.device) -> int:
    """Number of windows that the network processes at once: ``data.micro_batch``, or as many as the memory allows."""
    if config.data.micro_batch:
        return config.data.micro_batch
    frames = CPU_FRAMES
    if device.type == "cuda":
        frames = int(CUDA_FRAMES_PER_GIB * torch.cuda.get_device_properties(device).total_memory / 2**30)
    return max(1, frames // max(1, config.segment_frames // config.input.frames_averaged))


def in_chunks(function: Callable[[Tensor], Tensor], inputs: Tensor, size: int) -> Tensor:
    """``function(inputs)``, computed for at most ``size`` rows at a time; the rows must be independent."""
    return torch.cat([function(inputs[start : start + size]) for start in range(0, len(inputs), size)])


class MicroBatches:
    """Scores of all windows of a step, and the backpropagation of their gradient to the weights.

    Args:
        network: the network, in training mode.
        inputs: float32 [windows, 1, bins, frames], the windows of this process.
        size: number of windows in a micro-batch.
        processes: the processes that share the batch; drop path draws for all of them.
        precision: returns the context of mixed precision.
        reseed: called before every micro-batch, so that both passes draw the same random numbers.

    Attributes:
        scores: float32 [windows, rows, 12, 1], from which the caller computes the loss.
    """

    def __init__(
        self,
        network: ChromaNet,
        inputs: Tensor,
        size: int,
        processes: Processes,
        precision: Callable[[], AbstractContextManager[Any]],
        reseed: Callable[[], None],
    ) -> None:
        self._network = network
        self._inputs = inputs
        self._processes = processes
        self._precision = precision
        self._reseed = reseed
        self._ranges = [(start, min(start + size, len(inputs))) for start in range(0, len(inputs), size)]
        self._is_whole = len(self._ranges) == 1
        if self._is_whole:
            self.scores = self._forward(0, len(inputs))
        else:
            with torch.no_grad():
                self.scores = torch.cat([self._forward(start, end) for start, end in self._ranges])
            self.scores.requires_grad_()

    def backward(self, total: Tensor) -> None:
        """Backpropagate ``total``, a loss computed from ``scores``, to the weights."""
        total.backward()  # type: ignore[no-untyped-call]
        if self._is_whole:
            return
        gradient = self.scores.grad
        if gradient is None:
            raise ValueError("the loss does not depend on the scores")
        for start, end in self._ranges:
            self._forward(start, end).backward(gradient[start:end])  # type: ignore[no-untyped-call]

    def _forward(self, start: int, end: int) -> Tensor:
        rank, count = self._processes.rank, self._processes.count
        own = slice(rank + start * count, rank + (end - 1) * count + 1, count)
        for module in self._network.modules():
            if isinstance(module, ConvNeXtBlock):
                module.batch_slice = (own, len(self._inputs) * count)
        self._reseed()
        with self._precision():
            return self._network.scores(self._inputs[start:end]).float()
