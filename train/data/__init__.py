"""From recordings and labels to batches: find tracks, split them, draw segments.

A run calls ``collect_tracks``, then ``split_tracks``, and reads its batches from a ``StepDataset``, or from
``WaveformTracks`` if the user has a data loader.
"""

from stonecli_train.data.batch import NO_KEY_INDEX, Batch
from stonecli_train.data.labels import read_labels, read_styles
from stonecli_train.data.segments import cut, draw_shifts, two_starts
from stonecli_train.data.split import Split, split_tracks
from stonecli_train.data.step_dataset import StepDataset, check_tracks
from stonecli_train.data.teachers import with_pseudo_labels
from stonecli_train.data.tracks import UNKNOWN_STYLE, Track, collect_tracks
from stonecli_train.data.waveforms import WaveformTracks
from stonecli_train.errors import DataError

__all__ = [
    "NO_KEY_INDEX",
    "UNKNOWN_STYLE",
    "Batch",
    "DataError",
    "Split",
    "StepDataset",
    "Track",
    "WaveformTracks",
    "check_tracks",
    "collect_tracks",
    "cut",
    "draw_shifts",
    "read_labels",
    "read_styles",
    "split_tracks",
    "two_starts",
    "with_pseudo_labels",
]
