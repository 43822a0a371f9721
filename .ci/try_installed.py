"""Check that the installed package works with only the base dependencies and without a checkout.

CI runs this on every system. Copy it into an empty folder and run it there with the Python that has stone installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import imageio_ffmpeg
import soundfile

import stonecli
from stonecli import Key
from stonecli_export.pitch_fork import play_key

STONE = Path(sysconfig.get_path("scripts")) / ("stone.exe" if os.name == "nt" else "stone")
RATE = 44100


def stone(*arguments: str | Path) -> str:
    """The standard output of the installed command; AssertionError if it fails."""
    result = subprocess.run([STONE, *arguments], capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, f"stone {arguments}: {result.returncode}\n{result.stdout}{result.stderr}"
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout


def main() -> None:
    """Raises AssertionError with what is wrong."""
    here = Path.cwd()
    assert Path(stonecli.__file__).is_relative_to(sys.prefix), f"{stonecli.__file__} is not what was installed"
    for name in ("torch", "onnx", "matplotlib"):
        assert importlib.util.find_spec(name) is None, f"the base install has {name} in it"
    subprocess.run([sys.executable, "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)
    version = metadata.version("stonecli")
    assert stone("--version").strip() == f"stone {version}" == f"stone {stonecli.__version__}"

    for folder in ("state", "cache", "config"):  # nothing of the user's own
        os.environ[f"STONE_{folder.upper()}_DIR"] = str(here / folder)
    music = here / "music"
    music.mkdir()
    keys = {"flac": Key.parse("D minor"), "mp3": Key.parse("E major"), "m4a": Key.parse("Bb major")}
    for ending, key in keys.items():
        samples = sum(play_key(key, timbre, 30, RATE) for timbre in range(3)) / 3
        soundfile.write(music / ("song.wav" if ending == "m4a" else f"song.{ending}"), samples, RATE)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([ffmpeg, "-v", "error", "-i", music / "song.wav", music / "song.m4a"], check=True)
    (music / "song.wav").unlink()

    files = sorted(music.iterdir())
    lines = stone("analyze", "--json", *files).splitlines()
    detected = {
        Path(record["path"]).suffix[1:]: Key.parse(record["key"]["musical"]) for record in map(json.loads, lines)
    }
    assert detected == keys, detected
    before = {path: path.read_bytes() for path in files}
    stone("tag", music, "--write-tags")
    shown = [json.loads(line) for line in stone("tag", music, "--json").splitlines()]
    assert {Path(record["path"]).suffix[1:]: Key.parse(record["key"]["musical"]) for record in shown} == keys, shown
    assert all(record["status"] == "kept" for record in shown), shown
    stone("undo")
    assert {path: path.read_bytes() for path in files} == before, "undo does not lead back"
    print(f"stone {version} on Python {sys.version.split()[0]}: {len(keys)} files analyzed, tagged and undone")


if __name__ == "__main__":
    main()
