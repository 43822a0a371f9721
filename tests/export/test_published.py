from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stonecli.key import Key  # noqa: E402
from stonecli_export.published import SEMI_TONE_CLASSES, read_checkpoint  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, CheckpointError, save_checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402
from stonecli_train.gin import parse_gin  # noqa: E402
from stonecli_train.vqt import VQTConfig, lowpass_filter, octave_kernels  # noqa: E402

GIN = [
    "import ismir24.model",
    "",
    "HarmonicVQT.harmonics = [1]",
    "HarmonicVQT.fmin = 27.5",
    "HarmonicVQT.n_bins = 99",
    "HarmonicVQT.bins_per_octave = 12",
    "Stone.out_channels = [2, 3]",
    "Stone.kernels = [7, 5]",
    "Stone.temperature = 2",
    "Stone.n_bins = 84",
    'get_datasets.dataset_type_train = "unsupervised"',
    "get_datasets.batch_size = 128 ",
]


def published_content(rows: int = 2, normalization: str = "plain", gin: tuple[str, ...] = ()) -> dict[str, Any]:
    """A checkpoint as STONE and S-KEY save theirs, of a small network; later lines of ``gin`` win."""
    torch.manual_seed(0)
    config = ChromaNetConfig(rows=rows, normalization=normalization, out_channels=(2, 3), kernels=(7, 5))  # type: ignore[arg-type]
    kernels = octave_kernels(VQTConfig())
    transform = {
        "hcqt.lowpass_filter": torch.from_numpy(lowpass_filter()).float()[None, None],
        "hcqt.cqt_kernels_real_0": torch.from_numpy(kernels.real).float()[:, None],
        "hcqt.cqt_kernels_imag_0": torch.from_numpy(kernels.imag).float()[:, None],
    }
    network = {f"chromanet.{name}": value for name, value in ChromaNet(config).state_dict().items()}
    return {
        "stone": OrderedDict(transform | network),
        "loss_fn": OrderedDict(),
        "optimizer": {},
        "circle_type": 7,
        "epoch": 12,
        "gin_info": [*GIN, *gin],
        "val_loss": np.float64(1.5),
        "audio": {"dur": 15, "sr": 22050},
    }


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Any], Checkpoint]:
    def save_and_read(content: Any) -> Checkpoint:
        torch.save(content, tmp_path / "x.pt")
        return read_checkpoint(tmp_path / "x.pt")

    return save_and_read


# --- recognized by content --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "normalization", "gin", "name", "classes", "license"),
    [
        (1, "affine", (), "STONE", None, "none stated"),
        (2, "plain", ('get_datasets.dataset_type_train = "mix"',), "Semi-TONE", SEMI_TONE_CLASSES, "none stated"),
        (2, "plain", ("CrossPowerSpectralDensityLoss.weights = [1, 1.7, 1]",), "S-KEY", None, "MIT code"),
        (2, "plain", (), "STONE (24 classes)", None, "none stated"),
    ],
)
def test_a_published_checkpoint_is_recognized(
    read: Callable[[Any], Checkpoint],
    rows: int,
    normalization: str,
    gin: tuple[str, ...],
    name: str,
    classes: Any,
    license: str,
) -> None:
    content = published_content(rows, normalization, gin)
    checkpoint = read(content)
    assert checkpoint.chromanet == ChromaNetConfig(
        rows=rows,  # type: ignore[arg-type]
        normalization=normalization,  # type: ignore[arg-type]
        out_channels=(2, 3),
        kernels=(7, 5),
        temperature=2.0,
    )
    assert checkpoint.vqt == VQTConfig()
    assert checkpoint.classes == classes
    assert (checkpoint.circle_type, checkpoint.window_seconds, checkpoint.frames_averaged) == (7, 15.0, 1)
    assert not checkpoint.corrects_tuning
    assert checkpoint.trained_on == f"published checkpoint of {name}, epoch 12"
    assert checkpoint.license.startswith(license)
    ours = checkpoint.network().state_dict()
    for key, value in ours.items():
        torch.testing.assert_close(value, content["stone"][f"chromanet.{key}"])


SHARPS = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")


def lab_content() -> dict[str, Any]:
    config = ChromaNetConfig(out_channels=(2, 3), kernels=(7, 5))
    return {
        "format": "lab-2",
        "chromanet": ChromaNet(config).state_dict(),
        "classes": [f"{name} {mode}" for mode in ("major", "minor") for name in SHARPS],
        "config": {
            "n_bins": 84,
            "out_channels": [2, 3],
            "kernels": [7, 5],
            "temperature": 0.5,
            "drop_path": 0.2,
            "sample_rate": 22050,
            "hop_length": 512,
            "fmin": 27.5,
            "bins_per_octave": 12,
            "vqt_bins": 99,
            "frames_averaged": 4,
            "tuning_corrected_to_hz": 440.0,
        },
        "training": "rendered",
    }


def test_a_checkpoint_of_the_lab_is_recognized(read: Callable[[Any], Checkpoint]) -> None:
    checkpoint = read(lab_content())
    assert checkpoint.chromanet == ChromaNetConfig(out_channels=(2, 3), kernels=(7, 5), temperature=0.5, drop_path=0.2)
    assert checkpoint.frames_averaged == 4
    assert checkpoint.corrects_tuning
    assert checkpoint.classes is not None
    assert checkpoint.classes[:4] == ("A major", "Bb major", "B major", "C major")
    assert checkpoint.network()


def test_another_hop_length_is_read(read: Callable[[Any], Checkpoint]) -> None:
    assert read(published_content(gin=("HarmonicVQT.hop_length = 256",))).vqt.hop_length == 256


def test_our_own_checkpoint_is_recognized(tmp_path: Path, hand_made: Callable[..., Checkpoint]) -> None:
    save_checkpoint(hand_made(1), tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").train_type == "ks"


def test_semi_tone_pairs_relatives_at_one_index() -> None:
    keys = [Key.parse(name) for name in SEMI_TONE_CLASSES]
    assert sorted(key.index for key in keys) == [*range(24)]
    assert [key.relative for key in keys[:12]] == keys[12:]
    assert keys[0] == Key(11, "minor")


def test_published_files_are_recognized(published: Path) -> None:
    checkpoint = read_checkpoint(published)
    expected = {
        "semisupervised_ks_mode.pt": ("Semi-TONE, epoch 253", 2, "plain", SEMI_TONE_CLASSES),
        "semitone_ks.pt": ("STONE, epoch 50", 1, "affine", None),
        "skey.pt": ("S-KEY, epoch 98", 2, "plain", None),
        "first_default.pt": ("self-training on free game music", 2, "plain", checkpoint.classes),
    }
    name, rows, normalization, classes = expected[published.name]
    assert name in checkpoint.trained_on
    assert (checkpoint.chromanet.rows, checkpoint.chromanet.normalization) == (rows, normalization)
    assert checkpoint.classes == classes
    assert (checkpoint.frames_averaged, checkpoint.corrects_tuning) == (
        (4, True) if published.name == "first_default.pt" else (1, False)
    )


# --- refused files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [{}, {"a": 1}, {"stone": {}}, {"gin_info": []}, {"format": "other"}, {"format": 3}, {"model": {}, "epoch": 3}],
    ids=str,
)
def test_other_dictionaries_are_refused(read: Callable[[Any], Checkpoint], content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint of stone train, STONE or S-KEY"):
        read(content)


def change(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with ``value`` at ``place``, a path of keys joined by ``|``; ``...`` removes what is there."""
    content = copy.deepcopy(content)
    *folders, last = place.split("|")
    inner = content
    for folder in folders:
        inner = inner[folder]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("stone|hcqt.lowpass_filter", ...),
        ("stone|hcqt.lowpass_filter", torch.zeros(1, 1, 256)),
        ("stone|hcqt.lowpass_filter", torch.zeros(1, 1, 100)),
        ("stone|hcqt.cqt_kernels_real_0", torch.zeros(12, 1, 128)),
        ("stone|hcqt.cqt_kernels_real_0", torch.zeros(24, 1, 128)),
        ("stone|hcqt.cqt_kernels_imag_0", [1, 2]),
        ("stone|chromanet.classifier.weight", ...),
        ("stone|chromanet.classifier.weight", torch.zeros(())),
        ("stone", torch.zeros(3)),
        ("stone", {}),
        ("stone", None),
        ("gin_info", None),
        ("gin_info", 5),
        ("gin_info", [1, 2]),
        ("gin_info", []),
        ("gin_info", "HarmonicVQT.harmonics = [1]"),
        ("gin_info", [*GIN, "Stone.kernels = 3"]),
        ("gin_info", [*GIN, "Stone.kernels = [3, 'x']"]),
        ("gin_info", [*GIN, "Stone.n_bins = 85"]),
        ("gin_info", [*GIN, "Stone.temperature = -1"]),
        ("gin_info", [*GIN, "Stone.temperature = @other"]),
        ("gin_info", [*GIN, "HarmonicVQT.harmonics = [1, 2]"]),
        ("gin_info", [*GIN, "HarmonicVQT.fmin = 32.7"]),
        ("gin_info", [*GIN, "HarmonicVQT.n_bins = 84"]),
        ("gin_info", [*GIN, "HarmonicVQT.n_bins = 10 ** 9"]),
        ("gin_info", [*GIN, "HarmonicVQT.n_bins = 1000000000"]),
        ("gin_info", [*GIN, "HarmonicVQT.bins_per_octave = 24"]),
        ("gin_info", [*GIN, "HarmonicVQT.hop_length = 100"]),
        ("audio", {}),
        ("audio", None),
        ("audio|sr", 44100),
        ("audio|sr", "22050"),
        ("audio|dur", "long"),
        ("audio|dur", -1),
        ("circle_type", "seven"),
        ("circle_type", ...),
        ("epoch", ...),
    ],
    ids=lambda value: str(value)[-50:],
)
def test_a_damaged_published_checkpoint_is_refused(read: Callable[[Any], Checkpoint], place: str, value: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(change(published_content(), place, value)).network()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("chromanet", None),
        ("chromanet", torch.zeros(3)),
        ("config", []),
        ("config|n_bins", 13),
        ("config|kernels", "75"),
        ("config|sample_rate", None),
        ("config|hop_length", 500),
        ("config|frames_averaged", 0),
        ("classes", 24),
        ("classes", ["no key"] * 24),
        ("classes", [["A major"]]),
    ],
    ids=str,
)
def test_a_damaged_checkpoint_of_the_lab_is_refused(read: Callable[[Any], Checkpoint], place: str, value: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(change(lab_content(), place, value)).network()
    assert "\n" not in str(caught.value)


# --- gin --------------------------------------------------------------------------------------------------------------


def test_gin_lines_are_literals() -> None:
    lines = ["import a.b", "", "a.b = 3", "c.d=[1, 2.5]", "e.f = 'x = y' ", 'g.h = {"k": None}', "a.b = 4"]
    assert parse_gin(lines) == {"a.b": 4, "c.d": [1, 2.5], "e.f": "x = y", "g.h": {"k": None}}


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os').system('touch {marker}')",
        "open('{marker}', 'w')",
        "[open('{marker}', 'w') for _ in (1,)]",
        "(lambda: open('{marker}', 'w'))()",
        "f\"{{open('{marker}', 'w')}}\"",
        "@reference",
        "%MACRO",
        "name",
        "",
        "3 = 4",
    ],
)
def test_gin_is_never_executed(tmp_path: Path, value: str) -> None:
    marker = tmp_path / "ran"
    with pytest.raises((ValueError, SyntaxError)):
        parse_gin([f"Stone.n_bins = {value.format(marker=marker)}"])
    assert not marker.exists()


@pytest.mark.parametrize("bomb", ["(" * 5000, "[" * 90 + "]" * 90 + "[", "-" * 200_000 + "1", "{0:" * 5000])
def test_a_gin_bomb_is_an_error_like_others(read: Callable[[Any], Checkpoint], bomb: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        parse_gin([f"a.b = {bomb}"])
    with pytest.raises(CheckpointError):
        read(published_content(gin=(f"a.b = {bomb}",)))


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_gin_text_is_a_literal_or_an_error(text: str) -> None:
    try:
        values = parse_gin(text.splitlines())
    except (ValueError, SyntaxError):
        return
    assert all("=" in text and not callable(value) for value in values.values())
