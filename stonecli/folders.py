"""Where stone keeps what is its own: the undo journal, the result cache, added models, and the user's defaults."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """The folder of the undo journal; ``STONE_STATE_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_STATE_DIR") or platformdirs.user_state_path("stone", appauthor=False))


def cache_folder() -> Path:
    """The folder of the result cache; ``STONE_CACHE_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_CACHE_DIR") or platformdirs.user_cache_path("stone", appauthor=False))


def data_folder() -> Path:
    """The folder of the models that were added; ``STONE_DATA_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_DATA_DIR") or platformdirs.user_data_path("stone", appauthor=False))


def config_folder() -> Path:
    """The folder of the config file; ``STONE_CONFIG_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_CONFIG_DIR") or platformdirs.user_config_path("stone", appauthor=False))
