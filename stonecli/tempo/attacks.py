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

from stonecli.tempo.novelty import BANDS, CHUNK, GROUPS, group_means, power_of

RISE_FRAMES = 4  # from the mean of four frames to that of the next four: 46 ms
MIN_RISE_DB = 2.6  # steady sounds rise by up to 2.3 dB, soft hats over a drone by 2.9, renderings with a beat by 4.3
BEATING_DB = 5.5  # most chords and detuned oscillators rise by less, development recordings by 5.7 or more
BEATING_SKEW = 1.17  # rise over fall; up to 1.15 for them
BEATING_SPEED = 0.8  # rise in half the time over the whole rise; up to 0.75 for them, 1.2 or more for hi-hats
FIRST_HIGH_GROUP = 2  # below, the frames resolve so few partials that chords ripple as fast as hits
PERCENTILE = 98.0  # of the frames: even 40 beats per minute have more than 2 % of frames with rises
FLOOR = 1e-4  # power relative to the loud frames; 40 dB below them, bands hold noise and the leakage of others

Floats = npt.NDArray[np.float32]


def has_attacks(levels: npt.NDArray[np.float16], loud: float) -> bool:
    """Whether the level rises as it does when notes or hits begin.

    Args:
        levels: [frames, BANDS] of :class:`stonecli.tempo.novelty.BandLevels`.
        loud: their :func:`stonecli.tempo.novelty.loudness`.
    """
    if len(levels) < 2 * RISE_FRAMES:
        return False
    changes = _changes(levels, loud, RISE_FRAMES)
    rises, falls = np.percentile(changes, [PERCENTILE, 100.0 - PERCENTILE], axis=0)
    group = int(rises.argmax())
    if not MIN_RISE_DB <= rises[group] < BEATING_DB:
        return bool(rises[group] >= BEATING_DB)
    if rises[group] > -BEATING_SKEW * falls[group]:
        return True
    fast = float(np.percentile(_changes(levels, loud, RISE_FRAMES // 2)[:, group], PERCENTILE))
    return group >= FIRST_HIGH_GROUP and fast > BEATING_SPEED * float(rises[group])


def _changes(levels: npt.NDArray[np.float16], loud: float, frames: int) -> Floats:
    """Change of the level in dB from ``frames`` frames to the next ones, averaged over groups of bands.

    Pairs that are both silent are left out: float32 [frames that are left, len(GROUPS)].
    """
    means = 10.0 * group_means()
    mean = np.full(BANDS, 1.0 / BANDS, dtype=np.float32)
    found = []
    for start in range(0, len(levels) - 2 * frames + 1, CHUNK):
        power = power_of(levels[start : start + CHUNK + 2 * frames - 1])
        count = len(power) - frames + 1
        smooth = power[:count].copy()
        for shift in range(1, frames):
            smooth += power[shift : shift + count]
        smooth *= np.float32(1.0 / (frames * loud))
        audible = smooth @ mean > FLOOR
        smooth += np.float32(FLOOR)
        groups = np.log10(smooth, out=smooth) @ means
        found.append((groups[frames:] - groups[:-frames])[audible[frames:] | audible[:-frames]])
    changes: Floats = np.concatenate(found)
    return changes if len(changes) else np.zeros((1, len(GROUPS)), dtype=np.float32)
