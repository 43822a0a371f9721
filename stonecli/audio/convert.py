"""Mix the blocks of a recording to mono and change their sample rate, as a stream."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr

from stonecli.audio.channels import PEAK_LIMIT, Samples, Signs, finite, mixed

_OUTPUTS = 16  # output samples per row of the decimating matrix product
KAISER_BETA = 7.5  # 16 taps per input step: 0.001 dB ripple up to 0.35 of the new rate, -76 dB from 0.65 of it
_ONE_THREAD = 1 << 13  # rows times columns up to which OpenBLAS multiplies by a narrow matrix in the calling thread


class StreamResampler:
    """Mixes to mono and converts the sample rate as a stream; does not resample if the rates are equal."""

    step = 1

    def __init__(self, rate: int, target: int) -> None:
        self._stream = None if rate == target else soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")

    def process(self, block: Samples, signs: Signs, *, last: bool) -> Samples:
        mono = mixed(block, signs)
        if self._stream is None:
            return mono
        out: Samples = self._stream.resample_chunk(mono, last=last)
        return out


class Decimator:
    """Mixes to mono, low-pass filters and decimates by ``factor``, in one matrix product on the interleaved samples.

    Each row of the left matrix is ``16 * factor`` frames; the right matrix is banded (Toeplitz). The filter has
    ``16 * factor + 1`` taps, so a row contributes to its own 16 outputs (first 16 columns) and to the 16 outputs of the
    row before (last 16 columns): overlap-add.
    """

    def __init__(self, channels: int, factor: int) -> None:
        self.step = _OUTPUTS * factor
        self._factor = factor
        self._channels = channels
        self._tail = np.zeros(_OUTPUTS, dtype=np.float32)  # overlap-add tail: the last row's part of its own outputs
        self._skip = _OUTPUTS // 2 if factor > 1 else 0  # outputs before the first sample, still to be dropped
        self._frames = self._written = 0

    def process(self, block: Samples, signs: Signs, *, last: bool) -> Samples:
        self._frames += len(block)
        if self._factor == 1:
            return mixed(block, signs)
        if last:
            block = np.concatenate([block, np.zeros((-len(block) % self.step, block.shape[1]), dtype=np.float32)])
        matrix = decimating_matrix(self._channels, self._factor, signs)
        parts = self._product(block, matrix)
        if len(parts) and not -PEAK_LIMIT < float(parts.min()) <= float(parts.max()) < PEAK_LIMIT:
            parts = self._product(finite(block), matrix)
        out = parts[:, _OUTPUTS:].copy()
        out[:1] += self._tail
        out[1:] += parts[:-1, :_OUTPUTS]
        if len(parts):
            self._tail = parts[-1, :_OUTPUTS].copy()
        mono = np.append(out, self._tail) if last else out.ravel()
        mono, self._skip = mono[self._skip :], max(0, self._skip - len(mono))
        if last:  # without the outputs of the padding
            mono = mono[: -(-self._frames // self._factor) - self._written]
        self._written += len(mono)
        return mono

    def _product(self, block: Samples, matrix: Samples) -> Samples:
        """The rows of ``block`` times the matrix: float32 [rows, 2 * 16]."""
        rows = block.reshape(-1, len(matrix))
        out = np.empty((len(rows), matrix.shape[1]), dtype=np.float32)
        # In pieces: OpenBLAS would split a large product among threads, which takes several times as long.
        piece = max(1, _ONE_THREAD // len(matrix))
        whole = len(rows) // piece * piece
        shape = (-1, piece, len(matrix))
        with np.errstate(invalid="ignore", over="ignore"):  # process() checks the result
            np.matmul(rows[:whole].reshape(shape), matrix, out=out[:whole].reshape(-1, piece, out.shape[1]))
            np.matmul(rows[whole:], matrix, out=out[whole:])
        return out


@lru_cache(maxsize=8)
def decimating_matrix(channels: int, factor: int, signs: Signs = ()) -> Samples:
    """The right matrix of :class:`Decimator`: windowed sinc (Kaiser), float32 [16 * factor * channels, 2 * 16].

    Args:
        channels: number of channels.
        factor: decimation factor.
        signs: sign per channel; empty for +1 in all channels.
    """
    taps = _OUTPUTS * factor + 1
    low_pass = np.sinc((np.arange(taps) - taps // 2) / factor) * np.kaiser(taps, KAISER_BETA)
    low_pass /= low_pass.sum() * channels
    band = np.zeros((2 * _OUTPUTS * factor, _OUTPUTS))
    for output in range(_OUTPUTS):
        band[output * factor : output * factor + taps, output] = low_pass
    both = np.concatenate([band[: _OUTPUTS * factor], band[_OUTPUTS * factor :]], axis=1)
    matrix = np.repeat(both, channels, axis=0).astype(np.float32)
    if -1 in signs:
        matrix *= np.tile(np.array(signs, dtype=np.float32), len(both))[:, None]
    return matrix
