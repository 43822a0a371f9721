"""The program inside the download, run by this Python as PyInstaller's starter would run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stonecli import __version__
from stonecli.errors import PlotError
from stonecli.plots.confusion import require_matplotlib
from stonecli.util.installation import MODULES, RUN_MODULE

LAUNCHER = Path(__file__).parents[2] / "standalone" / "launcher.py"
RATE = 22050


def launch(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, LAUNCHER, *arguments], env=environment, capture_output=True, timeout=60, check=False
    )


def test_it_is_the_command() -> None:
    done = launch("--version")
    assert (done.returncode, done.stdout.decode().strip()) == (0, f"stone {__version__}")


def test_it_runs_the_decoder_that_needs_a_process(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.wav", np.sin(np.arange(RATE) * 440 * 2 * np.pi / RATE), RATE)
    [module] = MODULES
    done = launch(RUN_MODULE, module, tmp_path / "song.wav")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"RIFF")
    assert len(done.stdout) > RATE


@pytest.mark.parametrize("arguments", [(RUN_MODULE,), (RUN_MODULE, "os"), (RUN_MODULE, "http.server", "0")])
def test_it_runs_no_other_module(arguments: tuple[str, ...]) -> None:
    done = launch(*arguments)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LD_LIBRARY_PATH": "/download", "LD_LIBRARY_PATH_ORIG": "/user"}, ["/user", None]),
        ({"LD_LIBRARY_PATH": "/download"}, [None, None]),
    ],
)
def test_other_programs_get_the_libraries_of_the_system(variables: dict[str, str], expected: list[str | None]) -> None:
    code = (
        "import json, os, launcher; launcher.restore_library_path();"
        "print(json.dumps([os.environ.get('LD_LIBRARY_PATH'), os.environ.get('LD_LIBRARY_PATH_ORIG')]))"
    )
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=LAUNCHER.parent, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == expected


def test_a_missing_package_leads_to_pipx(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no pip in the download."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotError, match=r"the download does not include it; .* pipx install 'stonecli\[plot\]'"):
        require_matplotlib()
