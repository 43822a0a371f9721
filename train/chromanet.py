"""ChromaNet, the octave-equivalent convolutional network of STONE and S-KEY, with one body for both heads.

Kong et al., *STONE: Self-supervised Tonality Estimator*, ISMIR 2024, section 3; *S-KEY: Self-supervised Learning of
Major and Minor Keys from Audio*, ICASSP 2025. The output is the key signature profile (KSP): a distribution over 12
key signatures, or over 24 keys as two rows of 12. Shifting the input by one bin (a semitone) shifts the KSP by one
index, except for effects at the edge of the VQT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

BINS_PER_OCTAVE = 12
GATE_RANGE = 5.0  # the gate clips levels beyond this number of standard deviations

Normalization = Literal["affine", "plain"]


@dataclass(frozen=True)
class ChromaNetConfig:
    """Hyper-parameters; the defaults are the published S-KEY and Semi-TONE network (47 k parameters).

    Attributes:
        rows: 1 for 12 key signatures (``ks``), 2 for 24 keys (``ks_mode``).
        normalization: ``"affine"``: layer norm over bins and channels of each frame, with learned scale and offset
            (the published 12-class network); ``"plain"``: layer norm over channel, bin and frame, nothing learned
            (the published 24-class networks).
        n_bins: number of VQT bins in the input, a multiple of 12.
        out_channels: number of output channels of each block.
        kernels: size of each block's square depthwise kernel, odd.
        temperature: temperature of the softmax.
        drop_path: probability that a residual branch is dropped in training (stochastic depth).
        head_channels: width of a ``CircularHead`` between the blocks and the classifier; 0, as published, for only the
            mean over octaves.
        gate_channels: width of a ``TonalGate``, which ``stonecli_train.gate`` fits to a trained network; 0, as
            published, for none.
        gate_statistics: number of statistics per channel in the gate's input: 2, or 4 with those over time.
        dense_blocks: number of last blocks that downsample with stride 1 instead of 2, with the layers after them
            dilated accordingly: the a trous algorithm (Sermanet et al., *OverFeat*, ICLR 2014, section 3.5). Stride 2
            drops odd frames, in the last blocks up to half of a window. With the same weights, dense blocks give the
            mean over all frames at which the downsampling could start. 0, as published, for none.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

    rows: Literal[1, 2] = 2
    normalization: Normalization = "plain"
    n_bins: int = 84
    out_channels: tuple[int, ...] = (2, 3, 40, 40, 30, 10, 3)
    kernels: tuple[int, ...] = (7, 7, 7, 7, 7, 5, 5)
    temperature: float = 1.0
    drop_path: float = 0.1
    head_channels: int = 0
    gate_channels: int = 0
    gate_statistics: Literal[2, 4] = 2
    dense_blocks: int = 0

    def __post_init__(self) -> None:
        if self.rows not in (1, 2):
            raise ValueError(f"rows must be 1 or 2, not {self.rows}")
        if self.normalization not in ("affine", "plain"):
            raise ValueError(f"normalization must be 'affine' or 'plain', not {self.normalization!r}")
        if self.n_bins <= 0 or self.n_bins % BINS_PER_OCTAVE:
            raise ValueError(f"n_bins must be a multiple of {BINS_PER_OCTAVE}, not {self.n_bins}")
        if not self.out_channels or len(self.out_channels) != len(self.kernels):
            raise ValueError("out_channels and kernels must have one entry per block")
        if min(self.out_channels) < 1 or any(size < 1 or size % 2 == 0 for size in self.kernels):
            raise ValueError("out_channels must be positive and kernels odd")
        if self.head_channels < 0:
            raise ValueError("head_channels must be at least 0")
        if self.gate_channels < 0:
            raise ValueError("gate_channels must be at least 0")
        if self.gate_statistics not in (2, 4):
            raise ValueError(f"gate_statistics must be 2 or 4, not {self.gate_statistics}")
        if not 0 <= self.dense_blocks <= len(self.out_channels):
            raise ValueError(f"dense_blocks must be from 0 to the number of blocks, not {self.dense_blocks}")
        if not self.temperature > 0 or not 0 <= self.drop_path < 1:
            raise ValueError("temperature must be above 0, and drop_path at least 0 and below 1")

    @property
    def min_frames(self) -> int:
        """Minimum number of input frames: one remains after all blocks."""
        return 1 << len(self.out_channels)

    def stride_and_dilations(self, block: int) -> tuple[int, int, int]:
        """Stride and dilation of a block's downsampling, and dilation of its ConvNeXt kernel; 2, 1, 1 if not dense."""
        dense = self.dense_blocks - (len(self.out_channels) - block)
        return (2, 1, 1) if dense < 0 else (1, 1 << dense, 2 << dense)


class ChromaNet(nn.Module):
    """Log-VQT to key signature profile.

    Input: float32 [batch, 1, n_bins, frames], at least ``config.min_frames`` frames.
    Output: float32 [batch, 12 * rows], each row of the batch a distribution.

    Parameter names are those of the published checkpoints.
    """

    def __init__(self, config: ChromaNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ChromaNetConfig()
        inputs = (1, *config.out_channels[:-1])
        self.time_downsampling_blocks = nn.ModuleList(
            TimeDownsamplingBlock(channels, out, _norm(config, channels), *config.stride_and_dilations(block)[:2])
            for block, (channels, out) in enumerate(zip(inputs, config.out_channels, strict=True))
        )
        self.convnext_blocks = nn.ModuleList(
            ConvNeXtBlock(
                channels, size, config.drop_path, _norm(config, channels), config.stride_and_dilations(block)[2]
            )
            for block, (channels, size) in enumerate(zip(config.out_channels, config.kernels, strict=True))
        )
        channels, octaves = config.out_channels[-1], config.n_bins // BINS_PER_OCTAVE
        width = config.head_channels
        self.head: nn.Module = CircularHead(channels, octaves, width) if width else OctavePool()
        self.classifier = nn.Conv2d(width or channels, config.rows, kernel_size=1)
        self.batch_norm = nn.BatchNorm2d(config.rows, affine=False) if config.rows == 2 else nn.Identity()
        levels = config.gate_statistics * sum(config.out_channels)
        self.gate = TonalGate(levels, config.gate_channels) if config.gate_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """The KSP: softmax of ``logits`` over all classes."""
        return functional.softmax(self.logits(x), dim=-1)

    def logits(self, x: Tensor) -> Tensor:
        """Class scores divided by the temperature, [batch, 12 * rows]; for losses that need them before the softmax.

        A gate scales them down for sounds that are less tonal; at 0, all classes are equally likely.
        """
        return self.logits_of(self.blocks(x))

    def scores(self, x: Tensor) -> Tensor:
        """Class scores before batch norm, [batch, rows, 12, 1]; each depends on its own item of the batch only.

        Training uses these. The gate is not included: it is fitted later to the fixed network.
        """
        pooled: Tensor = self.classifier(self.head(self.blocks(x)[-1]))
        return pooled

    def logits_of(self, outputs: list[Tensor]) -> Tensor:
        """``logits`` computed from the output of ``blocks``, [batch, 12 * rows]."""
        logits = self.normalize(self.classifier(self.head(outputs[-1])))
        if self.gate is not None:
            logits = logits * self.gate(block_levels(outputs, self.config.gate_statistics))
        return logits

    def blocks(self, x: Tensor) -> list[Tensor]:
        """Output of each block, [batch, out channels, bins, frames]."""
        outputs = []
        for downsample, block in zip(self.time_downsampling_blocks, self.convnext_blocks, strict=True):
            x = block(downsample(x))
            outputs.append(x)
        return outputs

    def normalize(self, scores: Tensor) -> Tensor:
        """Logits [batch, 12 * rows] of the ``scores`` of the whole batch, by batch norm and temperature."""
        normalized: Tensor = self.batch_norm(scores)
        return normalized.flatten(1) / self.config.temperature


class ConvNeXtBlock(nn.Module):
    """x + gamma * MLP(norm(depthwise(x))), shape [batch, channels, bins, frames] kept (Liu et al., CVPR 2022).

    The edges are replicated, not padded with zeros: zero is -80 dB, which would be a visible edge.

    Args:
        channels: number of channels.
        kernel_size: size of the square depthwise kernel, odd.
        drop_path: probability that the residual branch of an item is dropped in training.
        norm: normalization of the branch.
        dilation: dilation of the kernel over frames.

    Attributes:
        batch_slice: which items of the whole batch the input contains, and the size of the whole batch; None if it
            contains all. Drop path then makes the same choice per item as if the whole batch were processed at once.
    """

    def __init__(self, channels: int, kernel_size: int, drop_path: float, norm: nn.Module, dilation: int = 1) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(
            channels,
            channels,
            kernel_size,
            padding=(kernel_size // 2, kernel_size // 2 * dilation),
            dilation=(1, dilation),
            groups=channels,
            padding_mode="replicate",
        )
        self.norm = norm
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.1))
        self.drop_path = drop_path
        self.batch_slice: tuple[slice, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The output of the block, of the same shape as ``x``."""
        branch = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        branch = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(branch)))
        return x + _drop_path(branch.permute(0, 3, 1, 2), self.drop_path if self.training else 0.0, self.batch_slice)


class TimeDownsamplingBlock(nn.Module):
    """gelu(conv(norm(x))) with a kernel of 1 bin by 2 frames: [batch, c, bins, n] -> [batch, out, bins, n // 2].

    With a ``stride`` of 1, the output has n - ``dilation`` frames.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: nn.Module, stride: int = 2, dilation: int = 1
    ) -> None:
        super().__init__()
        self.norm = norm
        self.conv = nn.Conv2d(in_channels, out_channels, (1, 2), stride=(1, stride), dilation=(1, dilation))

    def forward(self, x: Tensor) -> Tensor:
        """The output of the block, with fewer frames."""
        return functional.gelu(self.conv(self.norm(x)))


class OctavePool(nn.Module):
    """Mean over octaves and frames: [batch, channels, bins, n] -> [batch, channels, 12, 1] (STONE, section 3)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return octave_pool(x).mean(dim=-1, keepdim=True)


class CircularHead(nn.Module):
    """Mixes the channels of all octaves, followed by a circular convolution over the pitch classes.

    [batch, channels, bins, n] -> [batch, width, 12, 1]. Not in the papers. The mean over octaves loses whether a note
    was in the bass, and no block before it spans a whole octave. Here each pitch class is a mixture of the channels of
    all octaves, followed by one circular convolution over the twelve. Shifting the input by one bin shifts the output
    by one index, except for bins that move to the next octave. The network learns to be invariant to that, because
    training crops cover more than an octave.
    """

    def __init__(self, channels: int, octaves: int, width: int) -> None:
        super().__init__()
        self.norm = ItemNorm()
        self.mix = nn.Conv2d(channels * octaves, width, kernel_size=1)
        self.around = nn.Conv2d(width, width, kernel_size=(BINS_PER_OCTAVE, 1))
        nn.init.normal_(self.around.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Channels of the twelve pitch classes, ascending from that of the lowest bin."""
        folded = x.mean(dim=-1, keepdim=True).reshape(len(x), -1, BINS_PER_OCTAVE, 1)
        mixed = functional.gelu(self.mix(self.norm(folded)))
        circle = torch.cat([mixed, mixed[:, :, : BINS_PER_OCTAVE - 1]], dim=2)
        out: Tensor = mixed + functional.gelu(self.around(circle))
        return out


class TonalGate(nn.Module):
    """Tonality gate: 0 for drums, noise and speech, 1 for music in a key.

    ``block_levels`` [batch, n] -> [batch, 1]. Not in the papers. A ringing drum is one loud pitch: the classifier
    predicts a key for it, but the blocks before it distinguish a drum by its envelope and overtones.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.hidden = nn.Linear(inputs, width)
        self.out = nn.Linear(width, 1)

    def forward(self, levels: Tensor) -> Tensor:
        """The gate, 0..1, [batch, 1]."""
        return torch.sigmoid(self.score(levels))

    def score(self, levels: Tensor) -> Tensor:
        """The logit of the gate, [batch, 1]."""
        score: Tensor = self.out(functional.gelu(self.hidden(self.standardized(levels))))
        return score

    def standardized(self, levels: Tensor) -> Tensor:
        """The standardized and clipped levels, which are the input of the hidden layer, [batch, n]."""
        return ((levels - self.mean) / self.deviation).clamp(-GATE_RANGE, GATE_RANGE)


class FrameNorm(nn.LayerNorm):
    """Layer norm over bins and channels of each frame, with learned scale and offset [bins, channels].

    y[c, b, t] = (x[c, b, t] - mean_t) / sqrt(var_t + 1e-5) * weight[b, c] + bias[b, c].
    """

    def __init__(self, bins: int, channels: int) -> None:
        super().__init__([bins, channels])

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, [batch, channels, bins, frames]."""
        return super().forward(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)


class ItemNorm(nn.Module):
    """Layer norm over channel, bin and frame, nothing learned: y = (x - mean) / sqrt(var + 1e-5)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, [batch, channels, bins, frames]."""
        if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            return functional.group_norm(x, 1)  # the same values; layer_norm would copy a channels-last tensor
        return functional.layer_norm(x, x.shape[1:])


def octave_pool(x: Tensor) -> Tensor:
    """Mean over octaves: [batch, channels, 12 * octaves, n] -> [batch, channels, 12, n] (STONE, section 3)."""
    batch, channels, bins, _ = x.shape
    return x.reshape(batch, channels, bins // BINS_PER_OCTAVE, BINS_PER_OCTAVE, -1).mean(dim=2)


def block_levels(outputs: Sequence[Tensor], statistics: int) -> Tensor:
    """The input of a ``TonalGate``: statistics of each channel of each block, which do not depend on the pitches.

    Args:
        outputs: output of each block, [batch, channels, bins, frames].
        statistics: 2 or 4 per channel.

    Returns:
        [batch, statistics * channels of all blocks], block by block: the mean and the standard deviation over bins of
        the mean over frames; with 4 ``statistics``, also the standard deviation over frames of the mean over bins
        (broadband changes, as of a drum), and the mean over bins of the standard deviation over frames.
    """
    levels = []
    for output in outputs:
        over_time = output.mean(dim=-1)
        levels += [over_time.mean(dim=-1), over_time.std(dim=-1, correction=0)]
        if statistics == 4:
            levels += [output.mean(dim=-2).std(dim=-1, correction=0), output.std(dim=-1, correction=0).mean(dim=-1)]
    return torch.cat(levels, dim=-1)


def average_frames(vqt: Tensor, count: int) -> Tensor:
    """Mean of every ``count`` frames, an incomplete last group dropped: [..., n] -> [..., n // count]."""
    if count == 1:
        return vqt
    groups = vqt.shape[-1] // count
    return vqt[..., : groups * count].reshape(*vqt.shape[:-1], groups, count).mean(dim=-1)


def _norm(config: ChromaNetConfig, channels: int) -> nn.Module:
    return FrameNorm(config.n_bins, channels) if config.normalization == "affine" else ItemNorm()


def _drop_path(branch: Tensor, probability: float, batch_slice: tuple[slice, int] | None) -> Tensor:
    """``branch``, dropped per item with ``probability``, otherwise scaled up to preserve its mean."""
    if probability == 0.0:
        return branch
    items, total = batch_slice or (slice(None), branch.shape[0])
    kept = torch.rand(total, device=branch.device)[items, None, None, None] >= probability
    return branch * kept.to(branch.dtype) / (1.0 - probability)
