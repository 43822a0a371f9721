"""Configurations and checkpoints of earlier versions are still read."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from stonecli_train.checkpoint import load_checkpoint, load_untrusted, save_checkpoint  # noqa: E402
from stonecli_train.config import ConfigError, config_from_dict, default_config, load_config, with_values  # noqa: E402
from stonecli_train.old_names import with_current_names  # noqa: E402

OLD = """
[network]
normalisation = "plain"
[loss]
name = "cross_entropy"
labelled_weight = 0.5
unlabelled_weight = 0.25
unlabelled = "lessons"
least_sure = 0.3
skey_tonic = "place"
[data]
unlabelled_every = 5
keyless_share = 0.2
[optimiser]
epochs = 7
"""
CHECKPOINT = Path(__file__).resolve().parents[2] / "checkpoints" / "stone_8.pt"


def test_a_configuration_with_old_names_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text(OLD)
    config = load_config(tmp_path / "old.toml")
    assert (config.network.normalization, config.optimizer.epochs) == ("plain", 7)
    loss, data = config.loss, config.data
    assert (loss.labeled_weight, loss.unlabeled_weight, loss.min_confidence) == (0.5, 0.25, 0.3)
    assert (loss.unlabeled, loss.skey_tonic) == ("pseudo_labels", "index")
    assert (data.unlabeled_every, data.no_key_share) == (5, 0.2)


@pytest.mark.parametrize("name", ["optimizer", "optimiser"])
def test_values_of_the_command_line_have_either_name(name: str) -> None:
    assert with_values(default_config("ks"), [f"{name}.epochs=3"]).optimizer.epochs == 3


@pytest.mark.parametrize("table", [{"least_sure": 0.3, "min_confidence": 0.4}, {"lessons": 0.3}])
def test_a_setting_under_both_names_is_unknown(table: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="unknown setting loss"):
        config_from_dict({"loss": table})


def test_both_names_of_a_table_are_not_merged() -> None:
    tables = {"optimiser": {"epochs": 1}, "optimizer": {"epochs": 2}}
    assert with_current_names(tables) == tables
    assert with_current_names({"loss": "text", "new": 1}) == {"loss": "text", "new": 1}


def test_a_checkpoint_keeps_the_names_of_its_format(tmp_path: Path) -> None:
    """Versions before this one can read it, and this one reads theirs."""
    before = load_untrusted(CHECKPOINT)
    save_checkpoint(load_checkpoint(CHECKPOINT), tmp_path / "again.pt")
    after = load_untrusted(tmp_path / "again.pt")
    assert {"licence", "sharpness", "major_odds", "least_confidence"} <= after.keys() == before.keys()
    assert after["chromanet"] == before["chromanet"]
    assert after["chromanet"]["normalisation"] == "plain"
