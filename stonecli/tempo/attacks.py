"""Whether a recording has notes or hits that begin, or only steady sound whose level ripples.

The level of a steady sound is not constant. Neighboring partials beat with each other, and the phase of a low tone
drifts against the frames. The novelty counts such ripple as rises, and they are periodic. They differ from a beat in
size: a hit raises a whole group of bands by many decibels, whereas the ripple of the bands of a group cancels out.
Close notes and detuned oscillators beat more strongly, but they rise as steeply as they fall, and slowly at high
frequencies. Some of them, above all low dissonant chords, still beat like a rhythm and pass.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stonecli.tempo.novelty import GROUPS

RISE_FRAMES = 4  # from the mean of four frames to that of the next four: 46 ms
MIN_RISE_DB = 2.6  # steady sounds rise by up to 2.3 dB, soft hats over a drone by 2.9, renderings with a beat by 4.3
BEATING_DB = 5.5  # most chords and detuned oscillators rise by less, development recordings by 5.7 or more
BEATING_SKEW = 1.17  # rise over fall; up to 1.15 for them
BEATING_SPEED = 0.8  # rise in half the time over the whole rise; up to 0.75 for them, 1.2 or more for hi-hats
FIRST_HIGH_GROUP = 2  # below, the frames resolve so few partials that chords ripple as fast as hits
PERCENTILE = 98.0  # of the frames: even 40 beats per minute have more than 2 % of frames with rises
FLOOR = 1e-4  # power relative to the loud frames; 40 dB below them, bands hold noise and the leakage of others
_TINY = 1e-12

Floats = npt.NDArray[np.float32]


def has_attacks(levels: npt.NDArray[np.float16]) -> bool:
    """Whether the level rises as it does when notes or hits begin.

    Args:
        levels: [frames, bands] of :class:`stonecli.tempo.novelty.BandLevels`.
    """
    if len(levels) < 2 * RISE_FRAMES:
        return False
    power: Floats = 10.0 ** levels.astype(np.float32)
    loud = float(np.percentile(power.mean(axis=1), 95)) + _TINY
    power /= np.float32(loud)
    changes = _changes(power, RISE_FRAMES)
    rises, falls = np.percentile(changes, [PERCENTILE, 100.0 - PERCENTILE], axis=0)
    group = int(rises.argmax())
    if not MIN_RISE_DB <= rises[group] < BEATING_DB:
        return bool(rises[group] >= BEATING_DB)
    if rises[group] > -BEATING_SKEW * falls[group]:
        return True
    fast = float(np.percentile(_changes(power, RISE_FRAMES // 2)[:, group], PERCENTILE))
    return group >= FIRST_HIGH_GROUP and fast > BEATING_SPEED * float(rises[group])


def _changes(power: Floats, frames: int) -> Floats:
    """Change of the level in dB from ``frames`` frames to the next ones, averaged over groups of bands.

    Pairs that are both silent are left out: float32 [frames that are left, len(GROUPS)].
    """
    count = len(power) - frames + 1
    smooth = power[:count].copy()
    for shift in range(1, frames):
        smooth += power[shift : shift + count]
    smooth /= np.float32(frames)
    audible = smooth.mean(axis=1) > FLOOR
    decibels = 10.0 * np.log10(smooth + np.float32(FLOOR))
    groups = np.stack([decibels[:, first:last].mean(axis=1) for first, last in GROUPS], axis=1)
    either = audible[frames:] | audible[:-frames]
    changes: Floats = (groups[frames:] - groups[:-frames])[either]
    return changes if len(changes) else np.zeros((1, len(GROUPS)), dtype=np.float32)
