"""User code in a run: watchers and data loaders, named on the command line as MODULE:NAME."""

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


def load_object(name: str) -> Any:
    """The object that ``MODULE:NAME`` names; the module may also be in the current folder.

    Raises:
        StoneError: the name has another form, or a module is missing.
        AttributeError: the module has no such object.
        Exception: any exception that the module raises on import.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise StoneError("must have the form MODULE:NAME")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise StoneError(f"Python finds no module {error.name}; install it or run stone in its folder") from error
    finally:
        sys.path.remove("")


def load_loaders(name: str, config: TrainConfig) -> tuple[WaveformTracks, WaveformTracks]:
    """Training and validation batches from the function that ``MODULE:FUNCTION`` names.

    The function is called with the configuration and returns two sources of batches
    (``stonecli_train.data.WaveformTracks`` describes their shapes).

    Raises:
        LoaderError: there is no such function, it fails, or it returns something else.
    """
    from stonecli_train.data import WaveformTracks

    try:
        function = load_object(name)
    except Exception as error:  # user code can raise any exception
        raise LoaderError(f"--loader {name}: {describe(error)}") from error
    try:
        training, validation = function(config)
    except Exception as error:
        raise LoaderError(
            f"--loader {name}: it must return two sources of batches, but failed: {describe(error)}"
        ) from error
    return WaveformTracks(training, config), WaveformTracks(validation, config)
