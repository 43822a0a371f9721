"""Renders scores with known keys to features with labels.

    python -m stonecli_train.corpus.render --source all --corpus FOLDER --out FOLDER --count 20000 --seed 1 --jobs 2

This writes for each excerpt ``SEED_NUMBER.npy`` (uint8 [frames, bins], ``stonecli_train.features``, tuning corrected),
its metadata ``SEED_NUMBER.json`` and, if it has a key, ``SEED_NUMBER.score`` (``stonecli_train.corpus.annotation``, in
the same format), and ``labels.csv`` for all excerpts in the folder. With ``--audio``, it also writes
``SEED_NUMBER.flac``, and ``audio.csv`` for ``stone evaluate``. An excerpt depends on the seed and its number only, so a
run can be interrupted, resumed and distributed over processes. Another source needs another seed or folder.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stonecli.errors import StoneError, describe
from stonecli.jobs import run
from stonecli.util.atomic_file import atomic_file, atomic_text_file
from stonecli_train.corpus import fluidsynth, keyless, mma, pop909, songs
from stonecli_train.corpus.score import Skipped
from stonecli_train.corpus.sources import GENERATED, MIX, READERS, Library
from stonecli_train.corpus.styles import STYLES
from stonecli_train.errors import message
from stonecli_train.parent import end_with_parent

if TYPE_CHECKING:  # imported where it is used, because it needs the extra ``corpus``
    from stonecli_train.corpus.excerpt import Settings

LABEL_COLUMNS = ("path", "key", "source", "style", "seed")
RENDERED, EXISTS = "rendered", "already rendered"
MIN_SECONDS, MAX_SECONDS = 1.0, 1800.0  # range of the length of an excerpt
_REPORT_EVERY = 200  # excerpts; labels.csv is then rebuilt too, so that training can start

_library: Library | None = None  # of this worker process


def stem_of(settings: Settings, number: int) -> str:
    """Name of the files of an excerpt, without the extension."""
    return f"{'h' if settings.held_out else ''}{settings.seed}_{number:06d}"


def render_to(library: Library, settings: Settings, out: Path, keeps_audio: bool, number: int) -> str:
    """Render excerpt ``number`` to ``out``; returns ``RENDERED``, ``EXISTS``, or the reason why it was skipped.

    Args:
        library: passages of the corpora.
        settings: settings of the run.
        out: folder of the excerpts.
        keeps_audio: whether to store the audio as FLAC, too.
        number: number of the excerpt.

    Raises:
        StoneError: a program for rendering is missing or fails.
        OSError: a file cannot be written.
    """
    from stonecli_train.corpus.annotation import NO_KEY, SCORE
    from stonecli_train.corpus.excerpt import UnsuitableError, render_excerpt
    from stonecli_train.corpus.plain import RATE
    from stonecli_train.features import save_atomically, track_features
    from stonecli_train.vqt import VQTConfig

    stem = stem_of(settings, number)
    features, record = out / f"{stem}.npy", out / f"{stem}.json"
    if features.exists() and record.exists():
        return EXISTS
    try:
        rendering = render_excerpt(library, settings, number)
    except UnsuitableError as error:
        return f"failed: {error}"
    if keeps_audio:
        import soundfile

        sound = io.BytesIO()  # libsndfile does not distinguish a full disk from other errors
        soundfile.write(sound, rendering.samples, RATE, format="FLAC")
        with atomic_file(out / f"{stem}.flac") as temporary:
            temporary.write_bytes(sound.getvalue())
    save_atomically(features, track_features(rendering.samples, VQTConfig(), corrects_tuning=True))
    if rendering.annotation is not None:
        save_atomically(out / f"{stem}{SCORE}", rendering.annotation)
    key = rendering.key.name if rendering.key else NO_KEY
    row = {
        "path": features.name, "key": key, "source": rendering.source, "style": rendering.style,
        "seed": settings.seed, "origin": rendering.origin, "cents": round(rendering.cents, 1),
    }  # fmt: skip
    with atomic_text_file(record) as file:
        file.write(json.dumps(row))
    return RENDERED


def check_sources(settings: Settings, out: Path, numbers: Iterable[int]) -> None:
    """Check that existing excerpts have the sources that this run would draw for them.

    Raises:
        StoneError: an excerpt has another source, from another command with the same seed.
        OSError: metadata cannot be read.
    """
    from stonecli_train.corpus.excerpt import source_of

    for number in numbers:
        stem = stem_of(settings, number)
        features, record = out / f"{stem}.npy", out / f"{stem}.json"
        if features.exists() and record.exists():
            found, expected = json.loads(record.read_text("utf-8"))["source"], source_of(settings, number)
            if found != expected:
                raise StoneError(
                    f"{features}: already rendered from {found} instead of {expected}; use another --seed or --out"
                )


def write_labels(out: Path) -> int:
    """Rebuild ``labels.csv``, and ``audio.csv`` if there is audio, from the metadata in ``out``.

    Returns:
        The number of rows of ``labels.csv``.
    """
    rows = []
    audio = []
    for metadata in sorted(out.glob("*_*.json")):
        row = json.loads(metadata.read_text("utf-8"))
        if (out / row["path"]).exists():
            rows.append([row[column] for column in LABEL_COLUMNS])
            flac = Path(row["path"]).with_suffix(".flac")
            if row["source"] != keyless.SOURCE and (out / flac).exists():
                audio.append([flac.name, *rows[-1][1:]])
    _write_csv(out / "labels.csv", rows)
    if audio:
        _write_csv(out / "audio.csv", audio)
    return len(rows)


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(LABEL_COLUMNS)
    writer.writerows(rows)
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _start_worker(library: Library) -> None:
    global _library
    _library = library
    end_with_parent()
    _one_thread()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _in_worker(settings: Settings, out: Path, keeps_audio: bool, number: int) -> str:
    assert _library is not None  # noqa: S101
    return render_to(_library, settings, out, keeps_audio, number)


def render_all(
    library: Library,
    settings: Settings,
    out: Path,
    numbers: Sequence[int],
    jobs: int = 1,
    keeps_audio: bool = False,
    report: Callable[[str], None] = print,
) -> Counter[str]:
    """Render the excerpts ``numbers`` to ``out``; returns the number of excerpts per outcome (:func:`render_to`).

    Raises:
        StoneError: an excerpt cannot be rendered or written; finished excerpts are kept.
        OSError: the folder or the labels cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    try:
        for done, outcome in enumerate(_outcomes(library, settings, out, numbers, jobs, keeps_audio), start=1):
            counts[outcome] += 1
            if done % _REPORT_EVERY == 0:
                rows = write_labels(out)
                report(f"{done} of {len(numbers)}, {rows} rows in labels.csv: {dict(counts)}")
    finally:
        write_labels(out)
    return counts


def _outcomes(
    library: Library, settings: Settings, out: Path, numbers: Iterable[int], jobs: int, keeps_audio: bool
) -> Iterator[str]:
    if jobs == 1:
        _one_thread()
        for number in numbers:
            try:
                yield render_to(library, settings, out, keeps_audio, number)
            except (StoneError, OSError) as error:
                raise _stopped(number, describe(error)) from error
        return
    task = partial(_in_worker, settings, out, keeps_audio)
    with (
        ProcessPoolExecutor(jobs, initializer=_start_worker, initargs=(library,)) as executor,
        run(task, numbers, executor=executor, in_flight=4 * jobs) as outcomes,
    ):
        for outcome in outcomes:
            if outcome.result is None:
                raise _stopped(outcome.item, outcome.error)
            yield outcome.result


def _stopped(number: int, reason: str | None) -> StoneError:
    """The error that ends a run; skipping the excerpts that fail would bias the corpus."""
    return StoneError(
        f"excerpt {number}: {reason}; the rendered excerpts are kept; run the same command again to resume"
    )


def _min_int(minimum: int) -> Callable[[str], int]:
    """A converter for argparse from text to an integer of at least ``minimum``."""

    def number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {text}")
        return int(text)

    return number


def number_of_seconds(text: str) -> float:
    """Length of an excerpt in seconds, from the text of an option.

    Raises:
        argparse.ArgumentTypeError: the length is out of range.
        ValueError: the text is not a number.
    """
    seconds = float(text)
    if not MIN_SECONDS < seconds <= MAX_SECONDS:  # also rejects NaN
        raise argparse.ArgumentTypeError(f"must be above {MIN_SECONDS:.0f} and at most {MAX_SECONDS:.0f}, not {text}")
    return seconds


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.corpus.render", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--source",
        required=True,
        choices=[GENERATED, songs.SOURCE, mma.SOURCE, *READERS, keyless.SOURCE, "all"],
        help="source of the scores; all: a mix of styles and corpora",
    )
    parser.add_argument("--corpus", type=Path, help="folder with a folder or zip for each corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder of the renderings")
    parser.add_argument("--count", type=_min_int(1), required=True, help="number of excerpts")
    parser.add_argument("--start", type=_min_int(0), default=0, help="number of the first excerpt (default: 0)")
    parser.add_argument("--seed", type=_min_int(0), default=1, help="random seed (default: 1)")
    parser.add_argument("--jobs", type=_min_int(1), default=1, help="number of processes (default: 1)")
    parser.add_argument(
        "--seconds", type=number_of_seconds, default=24.0, help="length of an excerpt in seconds (default: 24)"
    )
    parser.add_argument(
        "--style", action="append", choices=list(STYLES), help="render only this style; repeatable (default: all)"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=list(READERS), help="exclude a source; repeatable"
    )
    parser.add_argument("--held-out", action="store_true", help="use material that training never uses")
    parser.add_argument("--no-soundfonts", action="store_true", help="use only the numpy synthesizers")
    parser.add_argument(
        "--instruments",
        type=Path,
        help="folder of stonecli_train.corpus.instruments, to play about half of the parts (default: none)",
    )
    parser.add_argument("--audio", action="store_true", help="also store the audio as FLAC")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Exit code after running the command."""
    options = parse_arguments(arguments)
    mix = MIX if options.source == "all" else {options.source: 1.0}
    mix = {name: share for name, share in mix.items() if name not in options.without}
    try:
        import torch  # noqa: F401  (computes the features; a missing package is reported before rendering)

        if pop909.SOURCE in mix or mma.SOURCE in mix:
            import mido  # noqa: F401  (reads their scores)

        from stonecli_train.corpus.excerpt import Settings
        from stonecli_train.corpus.sampler import load_sampler
    except ModuleNotFoundError as error:
        print(f"rendering needs {error.name}: pip install 'stonecli[corpus]'", file=sys.stderr)
        return 1
    settings = Settings(
        tuple(mix.items()),
        options.seconds,
        options.seed,
        options.held_out,
        soundfonts=not options.no_soundfonts,
        instruments=options.instruments,
    )
    skipped: Skipped = Counter()
    try:
        if settings.soundfonts:
            fluidsynth.check_installed(settings.held_out)
        if mma.SOURCE in mix:
            mma.check_installed()
        if not mix:
            raise StoneError(f"--without excludes all sources of --source {options.source}")
        options.out.mkdir(parents=True, exist_ok=True)
        numbers = range(options.start, options.start + options.count)
        check_sources(settings, options.out, numbers)
        if options.instruments is not None:
            load_sampler(options.instruments, options.held_out)  # raises before any rendering starts
        library = Library.load(options.corpus, list(mix), options.held_out, options.style, skipped)
        for reason, count in skipped.most_common():
            print(f"skipped: {count} x {reason}", flush=True)
        counts = render_all(
            library, settings, options.out, numbers, options.jobs, options.audio, partial(print, flush=True)
        )
    except (StoneError, OSError) as error:
        print(message(error), file=sys.stderr)
        return 1
    for reason, count in counts.most_common():
        print(f"{count} x {reason}", flush=True)
    return 0 if counts[RENDERED] + counts[EXISTS] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
