"""Trains the tempo network on rendered and sketched music.

    python -m stonecli_train.tempo.fit --renderings FOLDER --sketches 7000 --corpus FOLDER --out tempo.pt

Listeners may perceive half or double the tempo of a track. So the target is a distribution: half and double the tempo
have a share that depends on how common such tempos are. Augmentation shifts the logarithmic tempo axis at random, which
is a change of tempo.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stonecli.errors import StoneError
from stonecli.tempo.novelty import FRAME_RATE, novelty
from stonecli.tempo.periodicity import LOWEST_BPM, periodicity
from stonecli.util.atomic_file import atomic_file
from stonecli_train.corpus.grooves import FOLDER, read_grooves
from stonecli_train.corpus.sources import Library
from stonecli_train.errors import message
from stonecli_train.tempo.network import FIRST, LAST, STEPS, TempoNet, TempoNetConfig, pooled
from stonecli_train.tempo.render import SECONDS, SKETCH_SOURCES, Renderer, settings_of
from stonecli_train.tempo.sketch import sketch

USUAL_BPM, USUAL_OCTAVES = 120.0, 0.5  # center and standard deviation of the prior over tempos
OCTAVE_SHARE = 0.2  # weight of half and double the tempo relative to the tempo itself, before the prior
TARGET_STEPS = 0.7  # standard deviation of a peak of the target, in steps of the grid
MAX_SHIFT = 4  # maximum shift of the tempo axis, in steps
_INPUT_NOISE = 0.1
_BATCH = 32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Examples:
    """Training examples.

    Attributes:
        inputs: pooled periodicity, float32 [examples, CHANNELS, len(GRID)].
        tempos: tempos in beats per minute, float64 [examples]; 0 for no tempo.
    """

    inputs: Floats
    tempos: npt.NDArray[np.float64]

    def repeated(self, times: int) -> Examples:
        """The examples, each repeated ``times`` times."""
        return Examples(np.tile(self.inputs, (times, 1, 1)), np.tile(self.tempos, times))

    def joined(self, other: Examples) -> Examples:
        """These examples, followed by those of ``other``."""
        return Examples(np.concatenate([self.inputs, other.inputs]), np.concatenate([self.tempos, other.tempos]))


def read_renderings(folder: Path) -> Examples:
    """The examples in a folder of ``stonecli_train.tempo.render``.

    Raises:
        StoneError: the folder has no renderings.
        OSError: a file cannot be read.
    """
    inputs, tempos = [], []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            inputs.append(_pooled(periodicity(novelty(file["levels"]), float(file["frame_rate"]))))
            tempos.append(float(file["bpm"]))
    if not inputs:
        raise StoneError(f"{folder}: no renderings; make them with python -m stonecli_train.tempo.render")
    return Examples(np.stack(inputs), np.array(tempos))


def draw_sketches(renderer: Renderer, count: int) -> Examples:
    """``count`` sketched examples (``stonecli_train.tempo.sketch``).

    Raises:
        StoneError: no drawn excerpt is usable.
    """
    inputs, tempos = [], []
    for number in range(count):
        rng, parts, bpm, _ = renderer.draw(number, SKETCH_SOURCES)
        inputs.append(_pooled(periodicity(novelty(sketch(rng, parts, SECONDS)), FRAME_RATE)))
        tempos.append(bpm)
    return Examples(np.stack(inputs), np.array(tempos))


def _pooled(values: Floats) -> Floats:
    return pooled(torch.tensor(values)[None])[0].numpy()


def targets(tempos: npt.NDArray[np.float64]) -> Tensor:
    """Target probabilities of the tempos of the grid and of "no tempo", float32 [examples, LAST - FIRST + 1]."""
    out = np.zeros((len(tempos), LAST - FIRST + 1), dtype=np.float32)
    has_tempo = tempos > 0.0
    for octave, share in ((-1, OCTAVE_SHARE), (0, 1.0), (1, OCTAVE_SHARE)):
        bpm = tempos[has_tempo] * 2.0**octave
        distance = (np.arange(FIRST, LAST) - STEPS * np.log2(bpm / LOWEST_BPM)[:, None]) / TARGET_STEPS
        usual = np.exp(-0.5 * (np.log2(bpm / USUAL_BPM) / USUAL_OCTAVES) ** 2)
        out[has_tempo, :-1] += share * usual[:, None] * np.exp(-0.5 * distance**2)
    out[~has_tempo, -1] = 1.0
    return torch.tensor(out / np.maximum(out.sum(axis=1, keepdims=True), 1e-6))


def train(examples: Examples, config: TempoNetConfig, epochs: int, seed: int) -> TempoNet:
    """A network trained on ``examples``, in evaluation mode; deterministic for a ``seed``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mean, deviation = (
        torch.tensor(value, dtype=torch.float32)
        for value in (
            examples.inputs.mean(axis=(0, 2), keepdims=True)[0],
            examples.inputs.std(axis=(0, 2), keepdims=True)[0],
        )
    )
    network = TempoNet(config, mean, deviation)
    steps = epochs * len(examples.tempos) // _BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1)
    network.train()
    for _ in range(steps):
        inputs, tempos = _batch(examples, rng, deviation.numpy())
        loss = -(targets(tempos) * torch.log_softmax(network(inputs), dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def _batch(examples: Examples, rng: np.random.Generator, deviation: Floats) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """A batch with randomly changed tempos and noise: inputs, and tempos in beats per minute."""
    chosen = rng.integers(0, len(examples.tempos), _BATCH)
    shifts = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, _BATCH)
    inputs = shifted(examples.inputs[chosen], shifts)
    noise = _INPUT_NOISE * deviation * rng.standard_normal(inputs.shape, dtype=np.float32)
    return torch.tensor(inputs + noise), examples.tempos[chosen] * 2.0 ** (shifts / STEPS)


def shifted(values: Floats, steps: npt.NDArray[np.int64]) -> Floats:
    """``values`` [rows, channels, n] with each row shifted up the tempo axis by its ``steps``, repeating the ends."""
    index = np.clip(np.arange(values.shape[-1]) - steps[:, None], 0, values.shape[-1] - 1)
    moved: Floats = np.take_along_axis(values, index[:, None, :], axis=2)
    return moved


def save_networks(networks: Sequence[TempoNet], path: Path) -> None:
    """Write networks to a checkpoint, atomically.

    Raises:
        OSError: the file cannot be written; an older file is unchanged.
    """
    content = [{"config": asdict(network.config), "weights": network.state_dict()} for network in networks]
    with atomic_file(path, durable=True) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_networks(path: Path) -> list[TempoNet]:
    """The networks of a checkpoint, in evaluation mode.

    Raises:
        OSError: the file cannot be read.
    """
    networks = []
    for item in torch.load(path, weights_only=True):
        network = TempoNet(TempoNetConfig(**item["config"]))
        network.load_state_dict(item["weights"])
        networks.append(network.eval())
    return networks


def main(arguments: Sequence[str]) -> int:
    """Exit code after running the command."""
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.tempo.fit", description=__doc__.split("\n")[0])
    parser.add_argument("--renderings", type=Path, required=True, help="folder of stonecli_train.tempo.render")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each rendering (default: 5)")
    parser.add_argument("--sketches", type=int, default=7000, help="number of sketched examples (default: 7000)")
    parser.add_argument("--corpus", type=Path, required=True, help="folder with a folder or zip for each corpus")
    parser.add_argument("--grooves", type=Path, help="the Groove MIDI Dataset (default: CORPUS/groove)")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the sketches (default: 1)")
    parser.add_argument(
        "--networks", type=int, default=3, help="number of networks, whose logits are averaged (default: 3)"
    )
    parser.add_argument("--epochs", type=int, default=4, help="number of epochs (default: 4)")
    parser.add_argument("--out", type=Path, required=True, help="write the checkpoint to this file")
    options = parser.parse_args(arguments)
    try:
        grooves = read_grooves(options.grooves or options.corpus / FOLDER)
        renderings = read_renderings(options.renderings)
        library = Library.load(options.corpus, list(SKETCH_SOURCES), False, None, Counter())
        sketches = draw_sketches(Renderer(library, grooves, settings_of(options.seed)), options.sketches)
        examples = sketches.joined(renderings.repeated(options.repeat))
        networks = [train(examples, TempoNetConfig(), options.epochs, seed) for seed in range(options.networks)]
        save_networks(networks, options.out)
    except (StoneError, OSError) as error:
        print(message(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
