"""Reads the published checkpoints of STONE, Semi-TONE and S-KEY, and those of early experiments of this project.

They are recognized by content, never by file name. This repository contains no part of the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from stonecli.key import Key
from stonecli_train.checkpoint import FORMAT, Checkpoint, CheckpointError, checkpoint_from_content, load_untrusted
from stonecli_train.chromanet import ChromaNetConfig
from stonecli_train.gin import parse_gin
from stonecli_train.vqt import VQTConfig, lowpass_filter, octave_kernels

# Class order of Semi-TONE (`keymode_to_num` in deezer/stone, src/stone24/stone.py): relative keys have the same index
# in the two rows, and the rows start with B minor and D major.
SEMI_TONE_CLASSES = (
    *(Key((11 + step) % 12, "minor").name for step in range(12)),
    *(Key((2 + step) % 12, "major").name for step in range(12)),
)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``: of ``stone train``, a published one, or one of the early experiments.

    Raises:
        CheckpointError: the file is not one of these, is damaged, or contains code.
        OSError: the file cannot be read.
    """
    content = load_untrusted(path)
    try:
        if content.get("format") == FORMAT:
            return checkpoint_from_content(content)
        if str(content.get("format", "")).startswith("lab-"):
            return _from_lab(content)
        if "stone" in content and "gin_info" in content:
            return _from_published(content)
    except (LookupError, TypeError, ValueError, AttributeError, SyntaxError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"damaged checkpoint: {type(error).__name__}: {reason}") from error
    raise CheckpointError("not a checkpoint of stone train, STONE or S-KEY")


def _from_lab(content: Mapping[str, Any]) -> Checkpoint:
    """The format of the early experiments: ``chromanet`` (weights), ``classes``, ``config``, ``training``."""
    config = content["config"]
    return Checkpoint(
        chromanet=ChromaNetConfig(
            rows=2,
            normalization="plain",
            n_bins=config["n_bins"],
            out_channels=tuple(config["out_channels"]),
            kernels=tuple(config["kernels"]),
            temperature=config["temperature"],
            drop_path=config["drop_path"],
        ),
        weights=dict(content["chromanet"]),
        vqt=VQTConfig(
            sample_rate=config["sample_rate"],
            hop_length=config["hop_length"],
            fmin=config["fmin"],
            n_bins=config["vqt_bins"],
            bins_per_octave=config["bins_per_octave"],
        ),
        frames_averaged=config["frames_averaged"],
        corrects_tuning=config["tuning_corrected_to_hz"] == 440.0,
        classes=tuple(Key.parse(name).name for name in content["classes"]),
        trained_on=str(content["training"]),
        license="MIT",
    )


def _from_published(content: Mapping[str, Any]) -> Checkpoint:
    """The format of STONE and S-KEY: weights of transform and network in ``stone``, configuration in ``gin_info``."""
    gin = parse_gin(content["gin_info"])
    state = cast(dict[str, Tensor], content["stone"])
    weights = {name.removeprefix("chromanet."): value for name, value in state.items() if name.startswith("chromanet.")}
    if gin["HarmonicVQT.harmonics"] != [1]:
        raise CheckpointError(f"harmonics {gin['HarmonicVQT.harmonics']} are not supported, only [1]")
    vqt = VQTConfig(
        sample_rate=content["audio"]["sr"],
        hop_length=gin.get("HarmonicVQT.hop_length", 512),
        fmin=gin["HarmonicVQT.fmin"],
        n_bins=gin["HarmonicVQT.n_bins"],
        bins_per_octave=gin.get("HarmonicVQT.bins_per_octave", 12),
    )
    _check_transform(state, vqt)
    rows: Literal[1, 2] = 2 if weights["classifier.weight"].shape[0] == 2 else 1  # validated by loading the weights
    supervised = gin.get("get_datasets.dataset_type_train") in ("mix", "supervised")
    balanced = "CrossPowerSpectralDensityLoss.weights" in gin  # only S-KEY has the balance term
    name = "S-KEY" if balanced else "STONE" if rows == 1 else "Semi-TONE" if supervised else "STONE (24 classes)"
    return Checkpoint(
        chromanet=ChromaNetConfig(
            rows=rows,
            normalization="affine" if "convnext_blocks.0.norm.weight" in weights else "plain",
            n_bins=gin["Stone.n_bins"],
            out_channels=tuple(gin["Stone.out_channels"]),
            kernels=tuple(gin["Stone.kernels"]),
            temperature=float(gin["Stone.temperature"]),
        ),
        weights=weights,
        vqt=vqt,
        window_seconds=float(content["audio"]["dur"]),
        classes=SEMI_TONE_CLASSES if rows == 2 and supervised else None,
        circle_type=content["circle_type"],
        trained_on=f"published checkpoint of {name}, epoch {content['epoch']}",
        license="MIT code; see the S-KEY repository" if balanced else "none stated by its authors: local use only",
    )


def _check_transform(state: Mapping[str, Tensor], config: VQTConfig) -> None:
    """Check that the checkpoint was trained with the same transform that the export uses.

    Raises:
        CheckpointError: its transform is another one.
    """
    kernels = octave_kernels(config)
    ours = {
        "hcqt.cqt_kernels_real_0": torch.from_numpy(kernels.real),
        "hcqt.cqt_kernels_imag_0": torch.from_numpy(kernels.imag),
        "hcqt.lowpass_filter": torch.from_numpy(lowpass_filter()),
    }
    for name, expected in ours.items():
        theirs = state[name].double().squeeze()
        if theirs.shape != expected.shape or not torch.allclose(theirs, expected, atol=1e-6):
            raise CheckpointError(f"trained with another transform ({name.removeprefix('hcqt.')} differs)")
