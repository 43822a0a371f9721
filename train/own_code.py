"""Code of the user's that a run uses: watchers and data loaders, named on the command line as MODULE:NAME."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from stonecli.errors import StoneError, describe

if TYPE_CHECKING:
    from stonecli_train.config import TrainConfig
    from stonecli_train.data import WaveformTracks


class LoaderError(StoneError):
    """A data loader cannot be used."""


def own_object(name: str) -> Any:
    """What ``MODULE:NAME`` names; the module is looked for where Python looks and in the current folder.

    Raises:
        ImportError, AttributeError: there is no such object; or whatever the module raises.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    finally:
        sys.path.remove("")


def load_loaders(name: str, config: TrainConfig) -> tuple[WaveformTracks, WaveformTracks]:
    """Training and validation batches of the function that ``MODULE:FUNCTION`` names, called with the configuration.

    The function returns two sources of batches; ``stonecli_train.data.WaveformTracks`` says of what shape.

    Raises:
        LoaderError: there is no such function, it fails, or returns something else.
    """
    from stonecli_train.data import WaveformTracks

    try:
        training, validation = own_object(name)(config)
    except ModuleNotFoundError as error:
        raise LoaderError(
            f"--loader {name}: there is no Python module {error.name}; run stone in its folder"
        ) from error
    except Exception as error:  # whatever the user's code raises
        raise LoaderError(f"--loader {name}: {describe(error)}") from error
    return WaveformTracks(training, config), WaveformTracks(validation, config)
