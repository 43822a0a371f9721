"""Write the file of ``stone analyze --npz``: the model's output for every window, and its mean over the windows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import numpy.typing as npt

from stonecli.detection.estimate import KeyEstimate
from stonecli.model.session import KeyModel
from stonecli.util.atomic_file import atomic_file
from stonecli.util.text import escaped


def save_npz(path: Path, estimates: Iterable[tuple[Path, KeyEstimate]], model: KeyModel) -> None:
    """Write one array per recording, named by its escaped path: float32 [windows, classes], the model's output.

    ``__classes__`` names the classes in order; ``__times__/PATH`` float64 [windows, 2] gives start and end in seconds.
    ``__mean__/PATH`` float32 [classes] is the mean over the tonal windows, uniform if there are none: the average from
    which the published code takes the most probable class.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    arrays = {"__classes__": np.array(["/".join(key.name for key in keys) for keys in model.info.classes])}
    for recording, estimate in estimates:
        name = escaped(str(recording))
        rows = [window.classes for window in estimate.windows]
        arrays[name] = np.array(rows, dtype=np.float32).reshape(-1, len(model.info.classes))
        tonal = [window.classes for window in estimate.windows if window.tonal]
        arrays[f"__mean__/{name}"] = np.array(tonal or [_uniform(model)]).mean(axis=0)
        times = [(window.start, window.end) for window in estimate.windows]
        arrays[f"__times__/{name}"] = np.array(times).reshape(-1, 2)
    # Like numpy.savez_compressed, in which a recording called "file" would clash with a parameter name.
    with atomic_file(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _uniform(model: KeyModel) -> npt.NDArray[np.float32]:
    classes = len(model.info.classes)
    return np.full(classes, 1 / classes, dtype=np.float32)
