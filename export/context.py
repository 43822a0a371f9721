"""How much of its surroundings a window is given, so that the cut does not sound."""

from __future__ import annotations

from stonecli_train.checkpoint import Checkpoint

# 0.19 s of either side at the usual hop. The kernel of the lowest bin reaches 0.31 s, but what is left of its window
# there weighs nothing: with twice as many no probability moved by more than 0.001.
MIN_FRAMES = 8


def context_frames(checkpoint: Checkpoint) -> int:
    """Frames at either end of a window that are computed and dropped, a multiple of the frames averaged.

    At the edges of a window, the transform mirrors the audio and its decimations pad with silence: the first and last
    frames contain artifacts that the network takes for a chord. With the real music around the window instead,
    probabilities changed by up to 0.12. Published models get no context: their output stays exactly as published.
    """
    if is_as_published(checkpoint):
        return 0
    return -(-MIN_FRAMES // checkpoint.frames_averaged) * checkpoint.frames_averaged


def is_as_published(checkpoint: Checkpoint) -> bool:
    """Whether it was trained on single frames without a correction of the tuning, as STONE and S-KEY were."""
    return checkpoint.frames_averaged == 1 and not checkpoint.corrects_tuning
