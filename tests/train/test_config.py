from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stonecli_train.chromanet import ChromaNetConfig  # noqa: E402
from stonecli_train.config import (  # noqa: E402
    CONFIGS,
    ConfigError,
    DataConfig,
    InputConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    config_from_dict,
    default_config,
    load_config,
    override,
)
from stonecli_train.vqt import VQTConfig  # noqa: E402

KS_GIN = """\
src.hcqt.HarmonicVQT.harmonics = [1]
src.hcqt.HarmonicVQT.fmin = 27.5
src.hcqt.HarmonicVQT.n_bins = 99
src.hcqt.HarmonicVQT.bins_per_octave = 12

src.stone12.stone.Stone.out_channels = [2, 3, 40, 40, 30, 10, 3]
src.stone12.stone.Stone.kernels = [7, 7, 7, 7, 7, 5, 5]
src.stone12.stone.Stone.temperature = 1
src.stone12.stone.Stone.n_bins = 84

src.stone12.dataloader.get_datasets.sr = 22050
src.stone12.dataloader.get_datasets.duration = 15
src.stone12.dataloader.get_datasets.batch_size = 128\x20
"""
KS_MODE_GIN = (
    KS_GIN.replace("stone12", "stone24")
    + """\
src.stone24.dataloader.get_datasets.dataset_type_train = "mix"
src.stone24.dataloader.get_datasets.dataset_type_test = "mix"
"""
)
SKEY_GIN = """\
import src.model
import src.stone

VQT.harmonics = [1]
VQT.fmin = 27.5
VQT.n_bins = 99
VQT.bins_per_octave = 12

Stone.out_channels = [2, 3, 40, 40, 30, 10, 3]
Stone.kernels = [7, 7, 7, 7, 7, 5, 5]
Stone.temperature = 1
Stone.n_bins = 84
"""


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "run.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def paper(name: str) -> TrainConfig:
    """The values of the papers and of the published code."""
    published = {"n_bins": 84, "out_channels": (2, 3, 40, 40, 30, 10, 3), "kernels": (7, 7, 7, 7, 7, 5, 5)}
    rows, normalization, loss = {
        "ks": (1, "affine", "stone"),
        "ks_mode": (2, "plain", "semi_tone"),
        "skey": (2, "plain", "skey"),
    }[name]
    return TrainConfig(
        ChromaNetConfig(rows=rows, normalization=normalization, temperature=1.0, **published),  # type: ignore[arg-type]
        VQTConfig(sample_rate=22050, hop_length=512, fmin=27.5, n_bins=99, bins_per_octave=12),
        InputConfig(window_seconds=15.0, frames_averaged=1, corrects_tuning=False),
        LossConfig(
            name=loss,  # type: ignore[arg-type]
            circle=7,
            mode_weight=1.5,
            skey_weights=(1.0, 1.7, 1.0),
            skey_chroma="log",
            skey_tonic="index",
        ),
        DataConfig(batch_size=128),
        OptimizerConfig(
            epochs=100,
            train_steps=512,
            val_steps=256,
            lr=1e-3,
            min_lr=5e-8,
            warmup_epochs=0.0,
            cosine_epochs=99.0,
            betas=(0.9, 0.98),
            weight_decay=0.04,
            weight_decay_end=0.4,
            weight_decay_epochs=999.0,
            clip=3.0,
            clip_per="parameter",
            ema=0.0,
            patience=0,
        ),
    )


# --- the included configurations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ks", "ks_mode", "skey"])
def test_the_papers_configurations(name: str) -> None:
    config = default_config(name)
    assert config == paper(name)
    assert config.train_type == ("ks" if name == "ks" else "ks_mode")
    assert config.segment_frames == 646  # 15 s of 22,050 Hz in hops of 512


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_file_states_its_values(path: Path) -> None:
    config = load_config(path).as_dict()
    for table, values in tomllib.loads(path.read_text()).items():
        for key, value in values.items():
            assert config[table][key] == value, f"{table}.{key}"


def test_an_empty_file_has_consistent_defaults(written: Any) -> None:
    assert load_config(written("[network]\nrows = 1\n")) == TrainConfig(network=ChromaNetConfig(rows=1))


# --- gin --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name"), [(KS_GIN, "ks"), (KS_MODE_GIN, "ks_mode"), (SKEY_GIN, "skey")])
def test_the_originals_gin_files_are_read(text: str, name: str, written: Any) -> None:
    assert load_config(written(text, "original.GIN")) == paper(name)


def test_gin_values_override_the_defaults(written: Any) -> None:
    text = KS_MODE_GIN.replace("duration = 15", "duration = 20").replace(
        "[7, 7, 7, 7, 7, 5, 5]", "[3, 3, 3, 3, 3, 3, 3]"
    )
    config = load_config(written(text, "a.gin"))
    assert (config.input.window_seconds, config.network.kernels) == (20.0, (3,) * 7)


def test_the_originals_schedules_can_be_set_in_gin(written: Any) -> None:
    text = (
        KS_GIN
        + """\
src.utils.scheduler.get_learning_rate_scheduler.n_epochs_cosine = 60
src.utils.scheduler.get_learning_rate_scheduler.warmup_epochs = 3
get_weights_decay_scheduler.schedule_epochs = 200
clip_gradients.clip_grad = 1.0
"""
    )
    found = load_config(written(text, "a.gin")).optimizer
    assert (found.cosine_epochs, found.warmup_epochs, found.weight_decay_epochs, found.clip) == (60, 3, 200, 1)


@pytest.mark.parametrize("mode_first", [False, True])
def test_skeys_weights_in_gin_select_skey(mode_first: bool, written: Any) -> None:
    line = "src.stone24.stone_loss.CrossPowerSpectralDensityLoss.weights = [1, 1.7, 2]\n"
    config = load_config(written(KS_MODE_GIN + line if mode_first else line + KS_MODE_GIN, "a.gin"))
    assert (config.loss.name, config.loss.skey_weights) == ("skey", (1.0, 1.7, 2.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src.hcqt.HarmonicVQT.harmonics = [1, 2]", r"a\.gin: .*harmonics = \[1, 2\]: only \[1\]"),
        ("VQT.harmonics = [1, 2]", r"a\.gin: VQT\.harmonics = \[1, 2\]: only \[1\]"),
        ("src.hcqt.HarmonicVQT.fminn = 3", r"a\.gin: unknown parameter .*fminn; did you mean HarmonicVQT\.fmin\?"),
        ("src.hcqt.HarmonicVQT.fmin = 'low'", r"a\.gin: vqt\.fmin must be a valid number, not 'low'"),
        ("\nsrc.hcqt.HarmonicVQT.fmin = print(1)", r"a\.gin: line 2: not a Python literal: print\(1\)"),
    ],
)
def test_mistakes_in_gin(text: str, message: str, written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(text, "a.gin"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", ["toml", "gin"])
def test_a_file_that_is_not_utf8_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"run.{ending}"
    path.write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"run.{ending}: is not UTF-8; save it in that encoding"


def test_a_byte_order_mark_of_an_editor_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf[network]\nrows = 1\n")
    assert load_config(path).network.rows == 1


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[networks]\nrows = 1", r"run\.toml: unknown setting networks; did you mean network\?"),
        ("[optimizer]\nlearning = 1", r"unknown setting optimizer\.learning \(known: .*\blr\b"),
        ("[data]\nbatchsize = 2", r"unknown setting data\.batchsize; did you mean batch_size\?"),
        ("network = 3", "network must be a table, not 3"),
        ("[data]\nbatch_size = '2'", r"data\.batch_size must be a valid whole number, not '2'"),
        ("[data]\nbatch_size = 2.0", r"data\.batch_size must be a valid whole number, not 2\.0"),
        ("[data]\nbatch_size = true", r"data\.batch_size must be a valid whole number, not True"),
        ("[data]\naugment = 1", r"data\.augment must be a valid boolean, not 1"),
        ("[optimizer]\nlr = true", r"optimizer\.lr must be a valid number, not True"),
        ("[optimizer]\nlr = nan", r"optimizer\.lr must be a finite number"),
        ("[optimizer]\nclip = inf", r"optimizer\.clip must be a finite number"),
        ("[optimizer]\nbetas = 0.9", r"optimizer\.betas must be a valid list"),
        ("[optimizer]\nbetas = [0.9]", r"optimizer\.betas needs more entries than \[0\.9\]"),
        ("[network]\nrows = 1\n[optimizer]\nbetas = [0.9, 1.0]", r"optimizer\.betas\.1 must be less than 1, not 1\.0"),
        ("[network]\nkernels = [7, '7']", r"network\.kernels\.1 must be a valid whole number, not '7'"),
        ("[loss]\ncircle = 5", r"loss\.circle must be 1 or 7, not 5"),
        (
            "[loss]\nname = 'stones'",
            r"loss\.name must be 'stone', 'semi_tone', 'skey' or 'cross_entropy', not 'stones'",
        ),
        ("[network]\nrows = 3", r"network\.rows must be 1 or 2, not 3"),
        ("[network]\nrows = 1\nn_bins = 80", r"network\..*multiple of 12"),
        ("[vqt]\nhop_length = 100", r"vqt\.hop_length must be a multiple of 256"),
        ("[network]\nrows = 2", r"the stone loss needs network\.rows = 1"),
        ("[network]\nrows = 1\n[loss]\nname = 'skey'", r"the skey loss needs network\.rows = 2"),
        ("[network]\nrows = 1\nn_bins = 108", r"network\.n_bins must be below"),
        ("[network]\nrows = 1\n[input]\nwindow_seconds = 2.0", "window_seconds is too short"),
        (
            "[network]\nrows = 1\n[input]\nwindow_seconds = 1e9",
            r"input\.window_seconds must be less than or equal to 600, not 1000000000\.0",
        ),
        ("[network]\nrows = 1\n[input]\nshortest_seconds = 2.0", "shortest_seconds is too short"),
        ("[network]\nrows = 1\n[input]\nshortest_seconds = 16.0", "shortest_seconds must be from 0 to"),
        (
            "[network]\nrows = 1\n[input]\nshortest_seconds = -1.0",
            r"input\.shortest_seconds must be greater than or equal to 0, not -1\.0",
        ),
        (
            "[network]\nrows = 1\n[input]\nframes_averaged = 0",
            r"input\.frames_averaged must be greater than or equal to 1, not 0",
        ),
        ("[network]\nrows = 1\n[data]\nworkers = -1", r"data\.workers must be greater than or equal to 0, not -1"),
        (
            "[network]\nrows = 1\n[data]\nvalidation_share = 1.0",
            r"data\.validation_share must be less than 1, not 1\.0",
        ),
        ("[network]\nrows = 1\n[data]\ntempo = 0.7", r"data\.tempo must be greater than or equal to 1, not 0\.7"),
        ("[network]\nrows = 1\n[optimizer]\nseed = -1", r"optimizer\.seed must be greater than or equal to 0, not -1"),
        ("[network]\nrows = 1\n[optimizer]\nlr = 0.0", r"optimizer\.lr must be greater than 0, not 0\.0"),
        ("[network]\nrows = 1\n[optimizer]\nema = 1.0", r"optimizer\.ema must be less than 1, not 1\.0"),
        ("[network\nrows = 1", r"run\.toml: .*line 1"),
        (b"\xff\xfe\x00", r"run\.toml: is not UTF-8"),
        ("a = " + "[" * 5000, r"run\.toml: "),
    ],
)
def test_mistakes_are_named(text: str | bytes, message: str, written: Any) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(written(text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.toml")


# --- override and hash ------------------------------------------------------------------------------------------------


def test_override() -> None:
    config = default_config("ks")
    changed = override(config, optimizer__lr=0.5, optimizer__epochs=3, loss__circle=1, data__workers=None)
    assert (changed.optimizer.lr, changed.optimizer.epochs, changed.loss.circle) == (0.5, 3, 1)
    assert override(changed, optimizer__lr=1e-3, optimizer__epochs=100, loss__circle=7) == config
    assert override(config, data__batch_size=None) == config


@pytest.mark.parametrize("changes", [{"optimizer__lr": math.nan}, {"optimizer__lr": -1.0}, {"network__n_bins": 5}])
def test_override_checks(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        override(default_config("ks"), **changes)


def test_it_can_be_saved_as_json() -> None:
    config = default_config("skey")
    assert config_from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_the_hash_is_that_of_the_values() -> None:
    assert default_config("ks").sha256 == default_config("ks").sha256 == paper("ks").sha256
    assert len(default_config("ks").sha256) == 64


def paths_of(values: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where the single values are in nested dictionaries and lists."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        return [found for key, value in items for found in paths_of(value, (*path, key))]
    return [path]


def test_the_hash_changes_with_any_value(monkeypatch: pytest.MonkeyPatch) -> None:
    config = default_config("ks")
    hashes = {config.sha256}
    paths = paths_of(config.as_dict())
    for path in paths:
        values = config.as_dict()
        holder: Any = values
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = "other"
        with monkeypatch.context() as patch:
            patch.setattr(TrainConfig, "as_dict", lambda _, values=values: values)
            hashes.add(config.sha256)
    assert len(hashes) == len(paths) + 1
    assert len(paths) > 45


def test_every_field_is_part_of_the_hash() -> None:
    config = default_config("ks")
    for table in dataclasses.fields(config):
        assert set(config.as_dict()[table.name]) == {
            field.name for field in dataclasses.fields(getattr(config, table.name))
        }
