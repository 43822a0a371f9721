"""Data-parallel training with ``torchrun``: one process per device, each with its rows of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

MAX_WAIT = timedelta(days=7)  # timeout for the slowest process to finish decoding


@dataclass(frozen=True)
class Processes:
    """Rank of this process, and the number of processes of the training run.

    Attributes:
        rank: 0 for the process that reports and saves.
        count: number of processes.
        local_rank: rank on this machine, which is also the index of its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reports and saves."""
        return self.rank == 0


SINGLE_PROCESS = Processes()


def join_processes(device_type: str) -> Processes:
    """Initialize the process group of ``torchrun``; without ``torchrun``, returns a single process."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return SINGLE_PROCESS
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), count, local_rank)


def leave_processes() -> None:
    """Destroy the process group; does nothing for a single process."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def gather_rows(rows: Tensor, processes: Processes) -> Tensor:
    """The rows of all processes along dimension 1, with a gradient for this process's own.

    Each process computes the loss of the whole batch; the gradients of the weights from its own rows are then added by
    ``sum_gradients``.
    """
    if processes.count == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows, processes.rank, processes.count)  # type: ignore[no-untyped-call]
    return gathered


def sum_gradients(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Replace the gradients by their sums over all processes (all-reduce)."""
    if processes.count == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].reshape(gradient.shape))
        start += gradient.numel()


def gather_objects(value: Any, processes: Processes) -> list[Any]:
    """The objects of all processes, by rank; waits for the slowest."""
    if processes.count == 1:
        return [value]
    group = distributed.new_group(backend="gloo", timeout=MAX_WAIT)
    gathered: list[Any] = [None] * processes.count
    distributed.all_gather_object(gathered, value, group=group)
    distributed.destroy_process_group(group)
    return gathered


def any_process(flag: bool, processes: Processes, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process; all processes must call it."""
    if processes.count == 1:
        return flag
    votes = torch.tensor(float(flag), device=device)
    distributed.all_reduce(votes)
    return bool(votes > 0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, count: int) -> Tensor:
        ctx.rank, ctx.count, ctx.size = rank, count, rows.shape[1]
        parts = [torch.empty_like(rows) for _ in range(count)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        own = gradients[0][:, ctx.rank * ctx.size : (ctx.rank + 1) * ctx.size]
        return own, None, None
