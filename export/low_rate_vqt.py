"""The VQT at half the sample rate of training: a fifth of the cost, with features that differ by a few thousandths.

The bins of the network's input end at 3.3 kHz; the 15 bins above only exist for transpositions in training. So a sample
rate of 11.025 kHz is sufficient. The transform is cheapest with two octaves per level: one matrix has the kernels of an
octave and those of the octave below, which are twice as long. Between levels, the signal is decimated by four with 65
taps (``stonecli.audio.convert``), which suffices because no bin of the next level is near the cutoff.

``stonecli_train.vqt`` is the reference: the Hann windows have the same length (rounded up at the rate of the octave),
the same scale and the same centers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.convert import decimating_matrix
from stonecli_export.context import is_as_published
from stonecli_export.graph_builder import END, GraphBuilder
from stonecli_train.checkpoint import Checkpoint
from stonecli_train.vqt import VQTConfig

STEP = 4  # decimation factor between two levels
LEVEL_OCTAVES = 2
N_BINS = 84  # number of computed bins: the largest with all bins below HIGHEST_SHARE
WIDTH = 256  # length of the longest kernel of two octaves, in samples
BLOCK = 32  # samples; adjacent blocks are the rows of a matrix product; longer ones would need a matrix with more zeros
HIGHEST_SHARE = 0.35  # frequency relative to the sample rate up to which decimation does not change the signal


@dataclass(frozen=True)
class LowRateVQT:
    """Parameters of the transform at half the rate.

    Attributes:
        original: the transform of training.
        n_bins: number of bins in the network's input, from the lowest one.
    """

    original: VQTConfig
    n_bins: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LowRateVQT | None:
        """The parameters for ``checkpoint``; None if the original transform must be used.

        This is the case if the bins need the full rate, and for models trained on single frames without tuning
        correction, like the published ones, so that their output stays identical to the last digit.
        """
        config, n_bins = checkpoint.vqt, checkpoint.chromanet.n_bins
        highest = config.frequency(N_BINS - 1) * (1 + 2 / config.q)  # end of the main lobe of its kernel
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
        """Sample rate of the input in Hz."""
        return self.original.sample_rate // 2

    @property
    def hop(self) -> int:
        """Samples per hop."""
        return self.original.hop_length // 2

    @property
    def levels(self) -> int:
        """Number of levels of two octaves."""
        return -(-N_BINS // self._level_bins)

    @property
    def min_samples(self) -> int:
        """Minimum number of samples, so that the lowest level can be reflected at its edges."""
        return (WIDTH // 2 + 1) * int(STEP ** (self.levels - 1))

    @property
    def _level_bins(self) -> int:
        return LEVEL_OCTAVES * self.original.bins_per_octave

    def bins(self, level: int) -> range:
        """Indices of the bins of a level."""
        end = N_BINS - level * self._level_bins
        return range(max(0, end - self._level_bins), end)

    def kernels(self, level: int) -> npt.NDArray[np.complex128]:
        """Kernels of a level, complex [bins, WIDTH], centered on sample WIDTH / 2."""
        config = self.original
        rate = self.sample_rate / STEP**level
        kernels = np.zeros((len(self.bins(level)), WIDTH), dtype=np.complex128)
        for row, index in enumerate(self.bins(level)):
            octave = (config.n_bins - 1 - index) // config.bins_per_octave
            length = config.kernel_length(index + octave * config.bins_per_octave)
            # Times in seconds. In the original, a window of odd length is half a sample early, and the decimation,
            # with an even number of taps, is half a sample late.
            duration = length * 2**octave / config.sample_rate
            center = 0.5 * (2**octave * (1 - length % 2) - 1) / config.sample_rate
            time = (np.arange(WIDTH) - WIDTH // 2) / rate - center
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
        if level:  # the last frame needs complete blocks at any length
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
    """``signal`` low-passed at a quarter of its rate, see ``stonecli.audio.convert``: [batch, n] -> [batch, n // 4]."""
    block, columns = shape
    quarter = graph.divide(graph.length(signal, 1), STEP)
    parts = graph.block_product(graph.pad(signal, block // 2, 2 * block), matrix, block, block)
    both_axes, half = graph.constant([1, 2]), columns // 2
    current = graph.op("Slice", parts, graph.constant([0, 0]), graph.constant([-1, half]), both_axes)
    following = graph.op("Slice", parts, graph.constant([1, half]), graph.constant([END, END]), both_axes)
    return graph.slice(graph.reshape(graph.op("Add", current, following), [0, -1]), 1, 0, quarter)


def _frame_matrix(kernels: npt.NDArray[np.complex128], hop: int, block: int) -> npt.NDArray[np.float64]:
    """Banded matrix that maps adjacent blocks to frames: first all real parts, then all imaginary parts."""
    frames = block // hop
    rows = -(-((frames - 1) * hop + WIDTH) // block) * block
    matrix = np.zeros((rows, 2, frames, len(kernels)))
    for frame in range(frames):
        matrix[frame * hop : frame * hop + WIDTH, 0, frame] = kernels.real.T
        matrix[frame * hop : frame * hop + WIDTH, 1, frame] = -kernels.imag.T
    return matrix.reshape(rows, -1)
