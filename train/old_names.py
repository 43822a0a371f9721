"""Earlier names in the files of users: checkpoints and training configurations.

This is the only module that contains them. All others use the names of the dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHECKPOINT_NAMES = {
    "rejection_threshold": "least_confidence",
    "posterior_exponent": "sharpness",
    "exponent_per_doubling": "sharpness_per_doubling",
    "major_prior_odds": "major_odds",
    "license": "licence",
}
"""Attributes of ``Checkpoint`` whose names in the file differ."""

NETWORK_NAMES = {"normalization": "normalisation"}
"""The same for the hyper-parameters of the network in a checkpoint."""

OPTIMIZER_STATE = "optimiser"  # in the state of a checkpoint

_TABLES = {"optimiser": "optimizer"}
_SETTINGS = {
    ("network", "normalisation"): "normalization",
    ("loss", "labelled_weight"): "labeled_weight",
    ("loss", "unlabelled_weight"): "unlabeled_weight",
    ("loss", "unlabelled"): "unlabeled",
    ("loss", "least_sure"): "min_confidence",
    ("data", "unlabelled_every"): "unlabeled_every",
    ("data", "keyless_share"): "no_key_share",
}
_VALUES = {
    ("loss", "unlabeled"): {"lessons": "pseudo_labels", "teacher": "mean_teacher"},
    ("loss", "skey_tonic"): {"place": "index"},
}


def with_current_names(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a configuration, with the current names of tables, settings and values.

    If a setting is given under both names, the old one stays, so that it is reported as unknown.
    """
    renamed: dict[str, Any] = {}
    for table, values in tables.items():
        name = _TABLES.get(table, table)
        name = table if name != table and name in tables else name
        renamed[name] = _settings(name, values) if isinstance(values, Mapping) else values
    return renamed


def _settings(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {}
    for setting, value in values.items():
        name = _SETTINGS.get((table, setting), setting)
        name = setting if name != setting and name in values else name
        current = _VALUES.get((table, name), {})
        renamed[name] = current.get(value, value) if isinstance(value, str) else value
    return renamed
