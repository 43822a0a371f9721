"""Compares batches, and the sample rate of the recordings in these tests."""

from __future__ import annotations

import torch

from stonecli_train.data import Batch

RATE = 22050


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
