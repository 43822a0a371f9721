"""Types of the fixtures in the conftest files that return functions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from typer.testing import Result

from stonecli.detection.estimate import KeyEstimate

Samples = npt.NDArray[np.float32]

BytesOf = Callable[[Path], bytes]
"""``digest`` and ``decoded``: from a file to its audio digest or its samples."""
ListLeftovers = Callable[[], list[str]]
"""``left_over``: the names of the temporary files that are still there."""
MakePicture = Callable[[int], bytes]
"""``png``: a PNG of about the given number of bytes."""
Fingerprint = Callable[[Path], dict[str, tuple[int, int, str]]]
"""``fingerprint``: mode, modification time and SHA-256 of each file in a folder, by path."""
Serve = Callable[[Any], str]
"""``serve``: the address of a web server for a folder or with a handler."""
LimitFileSize = Callable[..., AbstractContextManager[None]]
"""``no_room``: a context in which no file grows beyond a kilobyte."""


class MakeMusic(Protocol):
    """``music``"""

    def __call__(
        self, key: str = "C major", *, seconds: float = 16.0, rate: int = 22050, cents: float = 0.0
    ) -> Samples: ...


class MakeNoise(Protocol):
    """``noise``"""

    def __call__(self, exponent: float, seconds: float = 16.0, rate: int = 22050) -> Samples: ...


class RunFfmpeg(Protocol):
    """``ffmpeg``"""

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None) -> None: ...


class Encode(Protocol):
    """``encode``"""

    def __call__(self, samples: npt.NDArray[Any], rate: int, container: str, path: Path) -> Path: ...


class CopySong(Protocol):
    """``song``"""

    def __call__(self, container: str, name: str | None = None, *, head: float = 1.0) -> Path: ...


class CopySample(Protocol):
    """``make``"""

    def __call__(self, sample: str, name: str = "song") -> Path: ...


class MakeEstimate(Protocol):
    """``estimate_of``"""

    def __call__(
        self, key: str | None = "Am", *, confidence: float = 0.8, changes_to: str | None = None
    ) -> KeyEstimate: ...


class Invoke(Protocol):
    """``invoke``"""

    def __call__(self, *arguments: str | Path) -> Result: ...


class RunStone(Protocol):
    """``stone``"""

    def __call__(
        self, *arguments: str | bytes | Path, weak: bool = False, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]: ...


class StartProcess(Protocol):
    """``start_process``"""

    def __call__(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]: ...


class MakeModel(Protocol):
    """``tiny_model``"""

    def __call__(
        self,
        path: Path,
        *,
        count: int = 24,
        logits: Samples | None = None,
        metadata: str | None = None,
        without: str | None = None,
        softmax: bool = True,
        major_share: float = 0.25,
        rank: int = 2,
        input_name: str = "audio",
        external: str | None = None,
        **changes: Any,
    ) -> Path: ...
