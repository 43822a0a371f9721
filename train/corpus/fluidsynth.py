"""Renders parts with FluidSynth and a soundfont, one process per excerpt.

The parts are played one after another, so that one run, which reads the soundfont once, gives each part's sound alone
for the mixer. (Hard-panning two parts does not separate them: stereo samples sound on both channels.)
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stonecli.errors import StoneError
from stonecli_train.corpus.arrange import Part

Floats = npt.NDArray[np.float32]
TICKS = 480  # per quarter note; at 120 BPM that is 960 ticks per second
_TICKS_PER_SECOND = 2 * TICKS
DRUM_CHANNEL = 9
GAP = 0.5  # seconds between two parts; in the middle, all sound of the first is switched off
_ALL_SOUND_OFF = 120  # MIDI controller
TIMEOUT_SECONDS = 60.0  # of one run


class FluidSynthError(StoneError):
    """FluidSynth is not installed or does not work on this machine."""


@dataclass(frozen=True)
class SoundFont:
    """A soundfont of a Debian package.

    Attributes:
        path: path of the installed file.
        package: name of the Debian package.
        weight: relative probability of being drawn.
        held_out: whether the soundfont is excluded from training.
    """

    path: Path
    package: str
    weight: float
    held_out: bool = False


SOUND_FONTS = (
    SoundFont(Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"), "fluid-soundfont-gm", 0.40),
    SoundFont(Path("/usr/share/sounds/sf2/TimGM6mb.sf2"), "timgm6mb-soundfont", 0.33),
    SoundFont(Path("/usr/share/sounds/sf2/sf_GMbank.sf2"), "csound-soundfont", 0.17),
    SoundFont(Path("/usr/share/sounds/sf2/OPL-3_FM_128M.sf2"), "opl3-soundfont", 0.10),
    SoundFont(Path("/usr/share/sounds/sf3/MuseScore_General.sf3"), "musescore-general-soundfont", 1.0, held_out=True),
)


def installed_fonts(held_out: bool = False) -> list[SoundFont]:
    """The installed soundfonts for training, or the held-out ones."""
    return [font for font in SOUND_FONTS if font.held_out == held_out and font.path.exists()]


def is_installed(held_out: bool = False) -> bool:
    """Whether FluidSynth and a soundfont are installed."""
    return shutil.which("fluidsynth") is not None and bool(installed_fonts(held_out))


def check_installed(held_out: bool = False) -> None:
    """Check that FluidSynth and a soundfont are installed.

    Raises:
        FluidSynthError: they are not; the message names their packages.
    """
    if not is_installed(held_out):
        packages = " ".join(font.package for font in SOUND_FONTS if font.held_out == held_out)
        raise FluidSynthError(f"FluidSynth or its soundfonts are missing: apt-get install fluidsynth {packages}")


def draw_font(rng: np.random.Generator, held_out: bool = False) -> SoundFont:
    """A random installed soundfont.

    Raises:
        FluidSynthError: FluidSynth or its soundfonts are not installed.
    """
    check_installed(held_out)
    fonts = installed_fonts(held_out)
    weights = np.array([font.weight for font in fonts])
    return fonts[int(rng.choice(len(fonts), p=weights / weights.sum()))]


def midi_file(parts: Sequence[Part], seconds: float) -> bytes:
    """The parts one after another, each in its own time slot, as a standard MIDI file of type 0.

    Args:
        parts: parts to play; the mixer applies their gain.
        seconds: duration of each part; later notes are dropped.
    """
    slot = round((seconds + GAP) * _TICKS_PER_SECOND)
    events: list[tuple[int, int, bytes]] = []
    for number, part in enumerate(parts):
        channel, first = DRUM_CHANNEL if part.role == "drums" else 0, number * slot
        silent = first + round((seconds + GAP / 2) * _TICKS_PER_SECOND)
        events.append((first, 0, bytes((0xC0 | channel, part.program))))
        events.append((silent, 0, bytes((0xB0 | channel, _ALL_SOUND_OFF, 0))))
        for tone in part.tones:
            if tone.start >= seconds:
                continue
            start = max(0, round(tone.start * _TICKS_PER_SECOND))
            end = max(start + 20, round(min(tone.start + tone.duration, seconds) * _TICKS_PER_SECOND))
            events.append((first + start, 2, bytes((0x90 | channel, tone.pitch, tone.velocity))))
            events.append((first + end, 1, bytes((0x80 | channel, tone.pitch, 0))))
    body, now = bytearray(b"\0\xff\x51\x03" + (500_000).to_bytes(3, "big")), 0
    for time, _, message in sorted(events):
        body += _variable(time - now) + message
        now = time
    body += b"\0\xff\x2f\0"
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS) + struct.pack(">4sI", b"MTrk", len(body)) + body


def _variable(value: int) -> bytes:
    """``value`` as a MIDI variable-length quantity."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | (value & 0x7F))
    return bytes(reversed(out))


def render_parts(parts: Sequence[Part], font: SoundFont, seconds: float, rate: int) -> list[Floats]:
    """Audio of each part, mono float32 [samples], dry and at full volume.

    Raises:
        FluidSynthError: FluidSynth fails.
        StoneError: it takes too long.
    """
    samples = round(seconds * rate)
    with tempfile.TemporaryDirectory(prefix="stone-") as name:
        score, sound = Path(name) / "score.mid", Path(name) / "sound.raw"
        score.write_bytes(midi_file(parts, seconds))
        command = [
            "fluidsynth", "-niq", "-o", "synth.dynamic-sample-loading=1", "-o", "synth.polyphony=128",
            "-g", "0.4", "-R", "0", "-C", "0", "-r", str(rate), "-T", "raw", "-O", "float",
            "-F", str(sound), str(font.path), str(score),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise StoneError(f"FluidSynth took longer than {TIMEOUT_SECONDS:.0f} s") from error
        if done.returncode or not sound.exists():
            raise FluidSynthError(f"FluidSynth failed: {done.stderr.decode(errors='replace')[-200:]}")
        raw = np.fromfile(sound, dtype="<f4")
    mono = raw[: len(raw) // 2 * 2].reshape(-1, 2).mean(axis=1).astype(np.float32)
    starts = [round(number * (seconds + GAP) * rate) for number in range(len(parts))]
    if len(mono) < starts[-1] + samples:  # FluidSynth renders two seconds past the end, and does not report a full disk
        raise FluidSynthError(f"FluidSynth failed: its audio is truncated; is {tempfile.gettempdir()} full?")
    return [mono[start : start + samples] for start in starts]
