"""The context around a window: frames that are computed at both ends and then dropped."""

from __future__ import annotations

from stonecli_train.checkpoint import Checkpoint

# 0.19 s on each side at the default hop. The kernel of the lowest bin extends to 0.31 s, but its window is near zero
# there: twice as many frames changed no probability by more than 0.001.
MIN_FRAMES = 8


def context_frames(checkpoint: Checkpoint) -> int:
    """Number of context frames at each end of a window, a multiple of ``frames_averaged``; 0 for published models.

    Without context, the transform reflects the audio at the edges of a window and its decimation pads with silence, so
    the first and last frames contain artifacts that resemble a chord. With context, probabilities changed by up to
    0.12. Published models have no context, so that their output stays exactly as published.
    """
    if is_as_published(checkpoint):
        return 0
    return -(-MIN_FRAMES // checkpoint.frames_averaged) * checkpoint.frames_averaged


def is_as_published(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint was trained on single frames without tuning correction, as STONE and S-KEY were."""
    return checkpoint.frames_averaged == 1 and not checkpoint.corrects_tuning
