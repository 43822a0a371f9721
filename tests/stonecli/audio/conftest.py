"""Recordings of a tone in each container."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixture_types import Encode
from tests.tones import tone


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("tones")

    def of(container: str) -> Path:
        path = next(iter(folder.glob(container.replace(" ", "-") + ".*")), None)
        return path or encode(tone(), 44100, container, folder / container.replace(" ", "-"))

    return of
