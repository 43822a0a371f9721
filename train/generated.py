"""Generated music with known keys, on which ``stone train`` trains if no data is given."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from stonecli.errors import StoneError
from stonecli.jobs import default_jobs, run
from stonecli.key import Key
from stonecli.util.atomic_file import atomic_text_file
from stonecli_train.corpus.plain import plain_excerpt
from stonecli_train.features import save_atomically, track_features
from stonecli_train.parallel import SINGLE_PROCESS, Processes, gather_objects
from stonecli_train.vqt import VQTConfig

EXCERPTS = 1200  # about two minutes of CPU, and 125 MB
SECONDS = 24.0


def generate(
    folder: Path,
    vqt: VQTConfig,
    *,
    count: int = EXCERPTS,
    seconds: float = SECONDS,
    seed: int = 0,
    processes: Processes = SINGLE_PROCESS,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Path:
    """Render the missing ones of ``count`` excerpts; returns the path of their labels, ``labels.csv``.

    Args:
        folder: folder of the labels (columns ``path`` and ``key``) and of the features, ``NUMBER_INDEX.npy`` with the
            ``Key.index`` of the excerpt.
        vqt: the transform.
        count: number of excerpts.
        seconds: length of each excerpt.
        seed: random seed; an excerpt depends on its number, its length and the seed only.
        processes: the processes of the training run; each renders its share.
        progress: called with the number of excerpts that this process has rendered, and their total.

    Raises:
        StoneError: an excerpt cannot be rendered.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = sorted(set(range(count)) - set(_rendered(folder)))[processes.rank :: processes.count]
    render = partial(_render, folder, vqt, seconds, seed)
    with (
        ThreadPoolExecutor(default_jobs()) as executor,
        run(render, missing, executor=executor, in_flight=2 * default_jobs()) as outcomes,
    ):
        for done, outcome in enumerate(outcomes, 1):
            if outcome.error is not None:
                raise StoneError(f"{folder}: excerpt {outcome.item}: {outcome.error}")
            progress(done, len(missing))
    gather_objects(None, processes)  # waits for the other processes
    rendered = _rendered(folder)
    labels = folder / "labels.csv"
    if processes.is_first:
        with atomic_text_file(labels) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "key"))
            writer.writerows(
                (rendered[number].name, Key.from_index(_key_index(rendered[number])).name) for number in range(count)
            )
    gather_objects(None, processes)
    return labels


def _rendered(folder: Path) -> dict[int, Path]:
    """The existing excerpts by number; a damaged file does not count, so it is rendered again."""
    return {int(path.name.partition("_")[0]): path for path in folder.glob("[0-9]*_[0-9]*.npy") if _is_complete(path)}


def _is_complete(path: Path) -> bool:
    try:
        np.load(path, mmap_mode="r")  # reads the header, and compares the declared size with that of the file
    except (ValueError, OSError, EOFError):
        return False
    return True


def _key_index(path: Path) -> int:
    return int(path.stem.partition("_")[2])


def _render(folder: Path, vqt: VQTConfig, seconds: float, seed: int, number: int) -> None:
    key, samples = plain_excerpt(seed, number, seconds)
    save_atomically(folder / f"{number:05}_{key.index}.npy", track_features(samples, vqt, corrects_tuning=False))
