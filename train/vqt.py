"""Variable-Q transform as matrix products, equal to the one that STONE and S-KEY were trained on.

Published pipeline: nnAudio's VQT (Schörkhuber et al., *A Matlab Toolbox for Efficient Perfect Reconstruction
Time-Frequency Transforms with Log-Frequency Resolution*, AES 2014; Cheuk et al., *nnAudio*, IEEE Access 2020) with
gamma = 0, 12 bins per octave from 27.5 Hz (A0), hop 512 at 22.05 kHz, then decibels with an 80 dB floor.

nnAudio filters with one-channel convolutions, the worst case for a convolution library. Here the signal is split into
blocks, adjacent blocks are concatenated, and one banded (Toeplitz) matrix filters a whole block: decimation by two is a
single matrix product, and so are the kernels of an octave. Only pad, reshape, slice, concatenate and matmul are used,
so the transform exports to ONNX without changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Array = npt.NDArray[np.float64]

LOWPASS_TAPS = 256
LOWPASS_TRANSITION = 0.001  # relative half-width of the transition band around half the Nyquist frequency
BLOCK = 128  # samples; also the kernel width of one octave
DB_RANGE = 80.0  # dB of 10 log10 |x| kept below the loudest bin
AMPLITUDE_FLOOR = 1e-10


@dataclass(frozen=True)
class VQTConfig:
    """Parameters of the transform.

    Attributes:
        sample_rate: sample rate of the input, in Hz.
        hop_length: samples from one frame to the next; a multiple of 2 ** (octaves - 1).
        fmin: center frequency of the lowest bin, in Hz.
        n_bins: number of bins.
        bins_per_octave: number of bins per octave.

    Raises:
        ValueError: a value is not positive, the top bin lies above the Nyquist frequency, the hop is not a multiple of
            2 ** (octaves - 1), or the kernels are longer than a block.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

    sample_rate: int = 22050
    hop_length: int = 512
    fmin: float = 27.5
    n_bins: int = 99
    bins_per_octave: int = 12

    def __post_init__(self) -> None:
        if not (self.sample_rate > 0 and self.hop_length > 0 and self.fmin > 0 and self.bins_per_octave > 0):
            raise ValueError("sample_rate, hop_length, fmin and bins_per_octave must be above 0")
        if self.n_bins < self.bins_per_octave:
            raise ValueError(f"n_bins must be at least one octave ({self.bins_per_octave}), not {self.n_bins}")
        top = self.fmin * 2.0 ** ((self.n_bins - 1) / self.bins_per_octave)
        if top > self.sample_rate / 2:
            raise ValueError(
                f"n_bins of {self.n_bins} is too large: the top bin ({top:.0f} Hz) lies above half the sample rate"
                f" ({self.sample_rate} Hz)"
            )
        if self.hop_length % 2 ** (self.octaves - 1):
            raise ValueError(f"hop_length must be a multiple of {2 ** (self.octaves - 1)}, not {self.hop_length}")
        longest = self.kernel_length(self.n_bins - self.bins_per_octave)
        if longest > BLOCK:
            raise ValueError(
                f"n_bins of {self.n_bins} is too small: a kernel of {longest} samples exceeds {BLOCK};"
                " raise n_bins or lower sample_rate"
            )

    @property
    def octaves(self) -> int:
        """Number of computed octaves; the lowest may be incomplete."""
        return -(-self.n_bins // self.bins_per_octave)

    @property
    def q(self) -> float:
        """Quality factor of every bin: center frequency over bandwidth."""
        return float(1.0 / (2.0 ** (1.0 / self.bins_per_octave) - 1.0))

    @property
    def min_samples(self) -> int:
        """Minimum number of samples: after decimation to the lowest octave, the audio can be reflected at its edges."""
        return (BLOCK // 2 + 1) << (self.octaves - 1)

    def frequency(self, index: int) -> float:
        """Center frequency of a bin, in Hz."""
        return float(self.fmin * 2.0 ** (index / self.bins_per_octave))

    def kernel_length(self, index: int) -> int:
        """Length of a bin's kernel at the full sample rate, ``ceil(Q fs / f)`` samples."""
        return math.ceil(self.q * self.sample_rate / self.frequency(index))


class VQT(nn.Module):
    """Log-magnitude VQT of a batch of waveforms.

    Input: float32 [batch, samples], mono, at ``config.sample_rate``, at least ``config.min_samples`` long.
    Output: float32 [batch, n_bins, samples // hop_length + 1], 1 at 0 dB and 0 at -80 dB; within an item nothing is
    lower than its maximum minus 1.

    Args:
        config: the parameters.
    """

    def __init__(self, config: VQTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VQTConfig()
        self.lowpass_matrix: Tensor
        self.scale: Tensor
        kernels = octave_kernels(config)
        for octave in range(config.octaves):
            hop = config.hop_length >> octave
            self.register_buffer(f"frame_matrix_{octave}", _float32(_frame_matrix(kernels, hop)), persistent=False)
        self.register_buffer("lowpass_matrix", _float32(_decimation_matrix(lowpass_filter())), persistent=False)
        self.register_buffer("scale", _float32(np.sqrt(_kernel_lengths(config))[:, None]), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """The log-VQT; shapes and range as described above.

        Raises:
            ValueError: the audio is shorter than ``config.min_samples``.
        """
        return self.decibels(self.magnitude(audio))

    def decibels(self, magnitude: Tensor) -> Tensor:
        """The log-VQT of the output of ``magnitude``, or of some of its frames; shapes and range as described above."""
        decibels = 10.0 * torch.log10(torch.clamp(magnitude, min=AMPLITUDE_FLOOR))
        floor = torch.amax(decibels, dim=(1, 2), keepdim=True) - DB_RANGE
        return torch.maximum(decibels, floor) / DB_RANGE + 1.0

    def magnitude(self, audio: Tensor) -> Tensor:
        """The linear magnitude times the square root of each bin's kernel length, float32 [batch, n_bins, frames].

        Raises:
            ValueError: the audio is shorter than ``config.min_samples``.
        """
        config = self.config
        if audio.shape[1] < config.min_samples:
            raise ValueError(f"{audio.shape[1]} samples are too few: the transform needs {config.min_samples}")
        frames = audio.shape[1] // config.hop_length + 1
        octaves: list[Tensor] = []
        signal = audio
        for octave in range(config.octaves):
            if octave:
                signal = self._decimate(signal)
            octaves.insert(0, self._transform_octave(signal, octave, frames))
        stacked = torch.cat(octaves, dim=2)[:, :, -config.n_bins :]
        return stacked.transpose(1, 2) * self.scale

    def _decimate(self, signal: Tensor) -> Tensor:
        """Half-band filter and keep every second sample: [batch, n] -> [batch, n // 2]."""
        half = signal.shape[1] // 2
        padded = functional.pad(signal, (LOWPASS_TAPS // 2 - 1, LOWPASS_TAPS + BLOCK))
        out: Tensor = _block_product(padded, self.lowpass_matrix, BLOCK)
        return out.flatten(1)[:, :half]

    def _transform_octave(self, signal: Tensor, octave: int, frames: int) -> Tensor:
        """Magnitudes of one octave: [batch, n] -> [batch, frames, bins_per_octave]."""
        hop = self.config.hop_length >> octave
        block = frame_block(hop)
        padded = functional.pad(signal[:, None], (BLOCK // 2, BLOCK // 2), mode="reflect")[:, 0]
        padded = functional.pad(padded, (0, 2 * block))
        product = _block_product(padded, getattr(self, f"frame_matrix_{octave}"), block)
        bins = self.config.bins_per_octave
        by_frame = product.reshape(product.shape[0], -1, 2 * bins)[:, :frames]
        return torch.sqrt(by_frame[:, :, :bins] ** 2 + by_frame[:, :, bins:] ** 2)


def _block_product(signal: Tensor, matrix: Tensor, block: int) -> Tensor:
    """The product of every run of adjacent blocks with ``matrix``.

    Args:
        signal: [batch, n]; a last, incomplete block is dropped.
        matrix: [k * block, columns]: k adjacent blocks give one row of the result.
        block: samples in a block.

    Returns:
        [batch, n // block - k + 1, columns].
    """
    count = matrix.shape[0] // block
    whole = signal.shape[1] // block
    blocks = signal[:, : whole * block].reshape(-1, whole, block)
    runs = whole - count + 1
    if count > 1:
        blocks = torch.cat([blocks[:, j : j + runs] for j in range(count)], dim=2)
    return blocks @ matrix


def frame_block(hop: int) -> int:
    """Number of samples in a block of an octave: the largest multiple of the hop up to BLOCK, at least one hop."""
    return hop * max(1, BLOCK // hop)


def octave_kernels(config: VQTConfig) -> npt.NDArray[np.complex128]:
    """Kernels of the highest octave, complex [bins_per_octave, BLOCK].

    Each is a periodic Hann window of ``ceil(Q fs / f)`` samples times a complex exponential, centered, with the sum of
    its magnitudes equal to one. Lower octaves use the same kernels on the decimated signal.
    """
    kernels = np.zeros((config.bins_per_octave, BLOCK), dtype=np.complex128)
    for row in range(config.bins_per_octave):
        index = config.n_bins - config.bins_per_octave + row
        frequency, length = config.frequency(index), config.kernel_length(index)
        # An odd kernel is off center by one sample to the left, as in the original.
        start = (BLOCK - length) // 2
        time = np.arange(length) - (length + 1) // 2 if length % 2 else np.arange(length) - length // 2
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        kernel = window * np.exp(2j * np.pi * frequency / config.sample_rate * time)
        kernels[row, start : start + length] = kernel / np.abs(kernel).sum()
    return kernels


def lowpass_filter() -> Array:
    """Taps of the half-band filter before decimation, [LOWPASS_TAPS]: frequency sampling with a Hamming window."""
    edges = [0.0, 0.5 / (1 + LOWPASS_TRANSITION), 0.5 * (1 + LOWPASS_TRANSITION), 1.0]
    frequency = np.linspace(0.0, 1.0, LOWPASS_TAPS + 1)
    gain = np.interp(frequency, edges, [1.0, 1.0, 0.0, 0.0])
    delayed = gain * np.exp(-0.5j * (LOWPASS_TAPS - 1) * np.pi * frequency)
    taps: Array = np.fft.irfft(delayed)[:LOWPASS_TAPS] * np.hamming(LOWPASS_TAPS)
    return taps


def _kernel_lengths(config: VQTConfig) -> Array:
    """Length of every bin's kernel at the full sample rate, [n_bins], in samples."""
    return np.array([config.kernel_length(index) for index in range(config.n_bins)], dtype=np.float64)


def _decimation_matrix(taps: Array) -> Array:
    """Banded matrix that maps adjacent blocks to BLOCK / 2 decimated samples."""
    outputs = BLOCK // 2
    rows = BLOCK * -(-(2 * (outputs - 1) + len(taps)) // BLOCK)
    matrix = np.zeros((rows, outputs))
    for column in range(outputs):
        matrix[2 * column : 2 * column + len(taps), column] = taps
    return matrix


def _frame_matrix(kernels: npt.NDArray[np.complex128], hop: int) -> Array:
    """Banded matrix that maps adjacent blocks to frames: per frame the real parts, then the imaginary parts."""
    block = frame_block(hop)
    frames = block // hop
    rows = block * -(-((frames - 1) * hop + BLOCK) // block)
    both = np.concatenate([kernels.real, -kernels.imag]).T  # [BLOCK, 2 bins]
    matrix = np.zeros((rows, frames * both.shape[1]))
    for frame in range(frames):
        columns = slice(frame * both.shape[1], (frame + 1) * both.shape[1])
        matrix[frame * hop : frame * hop + BLOCK, columns] = both
    return matrix


def _float32(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
