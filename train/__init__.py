"""Train key models: :func:`train` runs what ``stone train`` does; :func:`choose_config` makes its configuration.

The names below are loaded on first use, because most of ``stonecli_train.corpus`` works without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stonecli_train.training import Trained, choose_config, train

__all__ = ["Trained", "choose_config", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from stonecli_train import training

        return getattr(training, name)
    raise AttributeError(f"module 'stonecli_train' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})
