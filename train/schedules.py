"""AdamW with two parameter groups, its schedules, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from stonecli_train.config import OptimizerConfig


def new_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with two parameter groups, as published: weight decay for tensors of two or more dimensions, but not for
    biases and vectors.

    The scale of the affine layer norm has two dimensions and therefore decays, as in the published code.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith("bias")
        (decaying if decays else others).append(parameter)
    groups = [{"params": decaying, "decays": True}, {"params": others, "decays": False}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Learning rate at a step: linear warm-up to ``lr``, a cosine to ``min_lr`` at ``cosine_epochs``, then constant."""
    warmup = config.warmup_epochs * config.train_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    end = (config.cosine_epochs or config.epochs) * config.train_steps
    return _cosine(config.lr, config.min_lr, (step - warmup) / max(1.0, end - warmup))


def weight_decay(step: int, config: OptimizerConfig) -> float:
    """Weight decay at a step: a cosine to ``weight_decay_end`` at ``weight_decay_epochs``, then constant."""
    end = (config.weight_decay_epochs or config.epochs) * config.train_steps
    return _cosine(config.weight_decay, config.weight_decay_end, step / end)


def clip_gradients(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
    """Scale gradients down to a norm of at most ``clip``, over the whole network or per parameter (``clip_per``).

    Per parameter, as published, entries that are NaN or infinite are first replaced (``torch.nan_to_num``).
    """
    if config.clip_per == "network":
        nn.utils.clip_grad_norm_(parameters, config.clip)
        return
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = torch.nan_to_num(parameter.grad)
            factor = config.clip / (gradient.norm() + 1e-6)
            parameter.grad = gradient * factor.clamp(max=1.0)


def _cosine(start: float, end: float, share: float) -> float:
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * min(1.0, share)))
