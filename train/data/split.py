"""Splits the tracks into training and validation sets; a resumed run keeps its split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stonecli_train.data.tracks import Track


@dataclass(frozen=True)
class Split:
    """The tracks for training and validation, in order, as ``Track.digest``."""

    training: tuple[str, ...]
    validation: tuple[str, ...]

    @classmethod
    def of(cls, training: Iterable[Track], validation: Iterable[Track]) -> Split:
        """The split into these tracks."""
        return cls(tuple(track.digest for track in training), tuple(track.digest for track in validation))

    def as_dict(self) -> dict[str, str]:
        """The split as two strings, for a checkpoint."""
        return {"training": " ".join(self.training), "validation": " ".join(self.validation)}

    @classmethod
    def from_dict(cls, texts: Mapping[str, str]) -> Split:
        """The split that ``as_dict`` returned.

        Raises:
            KeyError, TypeError, AttributeError: ``texts`` has another form.
        """
        return cls(tuple(texts["training"].split()), tuple(texts["validation"].split()))

    def difference(self, before: Split) -> str:
        """Description of the changes since the split ``before``; empty if there are none."""
        if self == before:
            return ""
        ours, theirs = ({*split.training, *split.validation} for split in (self, before))
        moved = set(self.validation) ^ set(before.validation)
        counts = {
            "new": len(ours - theirs),
            "missing": len(theirs - ours),
            "moved between training and validation": len(moved & ours & theirs),
        }
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"other tracks ({shown or 'in another order'})"


def split_tracks(
    tracks: Sequence[Track], share: float, seed: int, before: Split | None = None
) -> tuple[list[Track], list[Track]]:
    """Training and validation tracks; each list has at least one track if there are two or more.

    Tracks of the split ``before`` stay where they were, and new ones are for training. Tracks with and without a key
    are split separately if one list would otherwise have only tracks without a key.

    Args:
        tracks: tracks to split.
        share: share of validation tracks, 0..1.
        seed: random seed.
        before: the split of the run that is resumed; None for a new run.
    """
    if before is not None:
        known, held_out = set(before.training), set(before.validation)
        training = [track for track in tracks if track.digest in known or track.digest not in held_out]
        validation = [track for track in tracks if track.digest in held_out]
        if training and validation:
            return training, validation
    parts = _split(tracks, share, seed)
    if all(any(not track.keyless for track in part) for part in parts):
        return parts
    kinds = [[track for track in tracks if track.keyless == keyless] for keyless in (False, True)]
    (training, validation), (keyless_training, keyless_validation) = (_split(kind, share, seed) for kind in kinds)
    return [*training, *keyless_training], [*validation, *keyless_validation]


def _split(tracks: Sequence[Track], share: float, seed: int) -> tuple[list[Track], list[Track]]:
    order = np.random.default_rng([seed, 0x5117]).permutation(len(tracks))
    count = min(max(round(share * len(tracks)), 1), len(tracks) - 1) if len(tracks) > 1 else 0
    chosen = set(order[:count].tolist())
    training = [track for number, track in enumerate(tracks) if number not in chosen]
    return training, [tracks[number] for number in sorted(chosen)] or training
