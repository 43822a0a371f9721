"""The VQT of a trained model at half its sample rate: features within a few thousandths at a fifth of the cost.

The bins that the network sees end at 3.3 kHz; the 15 above exist so that training can crop a transposition. So 11.025
kHz carries everything. There the transform is cheapest when the octaves are taken two by two: at each level the
kernels of an octave and of the one below it, twice as long, are one matrix; then the rate is divided by four with 65
taps (``stonecli.audio.decode``), for no bin of the next level lies near the edge that 256 taps would keep sharp.

``stonecli_train.vqt`` is the definition: windows are Hann windows as long as there (rounded up at the octave's own
rate), scaled as there, centred on the same times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.decode import decimating_matrix
from stonecli_export.context import is_as_published
from stonecli_export.graph_builder import END, GraphBuilder
from stonecli_train.checkpoint import Checkpoint
from stonecli_train.vqt import VQTConfig

STEP = 4  # from one level's rate to the next one's
LEVEL_OCTAVES = 2
N_BINS = 84  # computed, whatever the network sees of them: the most that lie below HIGHEST_SHARE
WIDTH = 256  # samples that hold the longest kernel of two octaves
BLOCK = 32  # of samples, whose neighbours make the rows of a matrix product; with longer ones, more of it is zeros
HIGHEST_SHARE = 0.35  # of the rate: up to it a signal that was decimated to the rate is what it was


@dataclass(frozen=True)
class LowRateVQT:
    """Parameters of the transform at half the rate.

    Attributes:
        original: the transform that the network was trained with.
        n_bins: that the network sees, counted from the lowest.
    """

    original: VQTConfig
    n_bins: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LowRateVQT | None:
        """The parameters for ``checkpoint``; None where the transform itself has to be used.

        That is where the bins need the full rate, and for what was trained on single frames without a correction of
        the tuning, as published models were: they are kept to the last digit.
        """
        config, n_bins = checkpoint.vqt, checkpoint.chromanet.n_bins
        highest = config.frequency(N_BINS - 1) * (1 + 2 / config.q)  # where its kernel's main lobe ends
        longest = config.kernel_length(N_BINS - LEVEL_OCTAVES * config.bins_per_octave)
        if (
            is_as_published(checkpoint)
            or n_bins > N_BINS
            or config.sample_rate % 2
            or highest > HIGHEST_SHARE * config.sample_rate / 2
            or longest > 2 * WIDTH
            or config.hop_length != 2 * WIDTH
        ):
            return None
        return cls(config, n_bins)

    @property
    def sample_rate(self) -> int:
        """Of the input, in Hz."""
        return self.original.sample_rate // 2

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.original.hop_length // 2

    @property
    def levels(self) -> int:
        """How often two octaves are taken."""
        return -(-N_BINS // self._level_bins)

    @property
    def min_samples(self) -> int:
        """Shortest audio: at the lowest level it can still be reflected at its edges."""
        return (WIDTH // 2 + 1) * int(STEP ** (self.levels - 1))

    @property
    def _level_bins(self) -> int:
        return LEVEL_OCTAVES * self.original.bins_per_octave

    def bins(self, level: int) -> range:
        """The bins of a level."""
        end = N_BINS - level * self._level_bins
        return range(max(0, end - self._level_bins), end)

    def kernels(self, level: int) -> npt.NDArray[np.complex128]:
        """Kernels of a level, complex [bins, WIDTH], centred on sample WIDTH / 2."""
        config = self.original
        rate = self.sample_rate / STEP**level
        kernels = np.zeros((len(self.bins(level)), WIDTH), dtype=np.complex128)
        for row, index in enumerate(self.bins(level)):
            octave = (config.n_bins - 1 - index) // config.bins_per_octave
            length = config.kernel_length(index + octave * config.bins_per_octave)
            # In seconds; the original's window lies half a sample early where it is odd, and its decimation, by an even
            # number of taps, half a sample late.
            duration = length * 2**octave / config.sample_rate
            centre = 0.5 * (2**octave * (1 - length % 2) - 1) / config.sample_rate
            time = (np.arange(WIDTH) - WIDTH // 2) / rate - centre
            window = np.where(np.abs(time) < duration / 2, 0.5 + 0.5 * np.cos(2 * np.pi * time / duration), 0.0)
            kernel = window * np.exp(2j * np.pi * config.frequency(index) * time)
            kernels[row] = kernel / window.sum() * np.sqrt(config.kernel_length(index))
        return kernels


def add_power(graph: GraphBuilder, vqt: LowRateVQT) -> str:
    """Nodes for the power of ``audio`` [batch, samples]: the square of ``VQT.magnitude``, [batch, frames, n_bins]."""
    graph.op("Add", graph.divide(graph.length("audio", 1), vqt.hop), graph.constant([1]), name="frames")
    decimation = decimating_matrix(1, STEP)
    signal = "audio"
    levels: list[str] = []
    for level in range(vqt.levels):
        if level:
            signal = _decimated(graph, signal, graph.constant(decimation, "decimation"), decimation.shape)
        hop = vqt.hop // STEP**level
        block = max(hop, BLOCK)
        matrix = _frame_matrix(vqt.kernels(level), hop, block)
        padded = graph.pad(signal, WIDTH // 2, WIDTH // 2, "reflect")
        if level:  # whatever the length, there are blocks for the last frame
            padded = graph.pad(padded, 0, 2 * block)
        product = graph.block_product(padded, graph.constant(matrix, f"level_{level}"), len(matrix), block)
        squares = graph.op("Mul", product, product)
        half = matrix.shape[1] // 2
        power = graph.op("Add", graph.slice(squares, 2, 0, half), graph.slice(squares, 2, half, END))
        by_frame = graph.reshape(power, [0, -1, len(vqt.bins(level))])
        levels.insert(0, graph.slice(by_frame, 1, 0, "frames"))
    power = graph.op("Concat", *levels, axis=2)
    return power if vqt.n_bins == N_BINS else graph.slice(power, 2, 0, vqt.n_bins)


def _decimated(graph: GraphBuilder, signal: str, matrix: str, shape: tuple[int, ...]) -> str:
    """``signal`` low-passed at a quarter of its rate as in ``stonecli.audio.decode``: [batch, n] -> [batch, n // 4]."""
    block, columns = shape
    quarter = graph.divide(graph.length(signal, 1), STEP)
    parts = graph.block_product(graph.pad(signal, block // 2, 2 * block), matrix, block, block)
    both_axes, half = graph.constant([1, 2]), columns // 2
    own = graph.op("Slice", parts, graph.constant([0, 0]), graph.constant([-1, half]), both_axes)
    ahead = graph.op("Slice", parts, graph.constant([1, half]), graph.constant([END, END]), both_axes)
    return graph.slice(graph.reshape(graph.op("Add", own, ahead), [0, -1]), 1, 0, quarter)


def _frame_matrix(kernels: npt.NDArray[np.complex128], hop: int, block: int) -> npt.NDArray[np.float64]:
    """Banded matrix that turns neighbouring blocks into frames: the real parts of all, then the imaginary ones."""
    frames = block // hop
    rows = -(-((frames - 1) * hop + WIDTH) // block) * block
    matrix = np.zeros((rows, 2, frames, len(kernels)))
    for frame in range(frames):
        matrix[frame * hop : frame * hop + WIDTH, 0, frame] = kernels.real.T
        matrix[frame * hop : frame * hop + WIDTH, 1, frame] = -kernels.imag.T
    return matrix.reshape(rows, -1)
