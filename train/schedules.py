"""AdamW with its two groups of parameters, its schedules, and clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from stonecli_train.config import OptimizerConfig


def new_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW in two groups, as published: tensors of two and more dimensions decay, biases and vectors do not.

    The scale of the affine layer norm has two dimensions and therefore decays, in the published code too.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith("bias")
        (decaying if decays else others).append(parameter)
    groups = [{"params": decaying, "decays": True}, {"params": others, "decays": False}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Linear warm-up to ``lr``, then a cosine to ``min_lr`` at ``cosine_epochs``, constant from there."""
    warmup = config.warmup_epochs * config.train_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    end = (config.cosine_epochs or config.epochs) * config.train_steps
    return _cosine(config.lr, config.min_lr, (step - warmup) / max(1.0, end - warmup))


def weight_decay(step: int, config: OptimizerConfig) -> float:
    """A cosine from ``weight_decay`` to ``weight_decay_end`` at ``weight_decay_epochs``, constant from there."""
    end = (config.weight_decay_epochs or config.epochs) * config.train_steps
    return _cosine(config.weight_decay, config.weight_decay_end, step / end)


def clip_gradients(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
    """Scale gradients down to a norm of ``clip``: all together, or those of each parameter alone.

    Of a parameter alone, as published, entries that are not numbers become 0 first.
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
