"""Renders presets of synthesizers with LMMS, without its window.

LMMS 1.2 plays its own synthesizers (TripleOscillator, Organic, BitInvader, OpulenZ ...) and ZynAddSubFX. This module
writes a project with one track that uses the preset. The same preset gives the same samples every time.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from stonecli.errors import StoneError

Floats = npt.NDArray[np.float32]

PROGRAM = "lmms"
PACKAGES = ("lmms", "lmms-common", "zynaddsubfx-data", "yoshimi-data")
LMMS_PRESETS = Path("/usr/share/lmms/presets")
ZYN_BANKS = (Path("/usr/share/zynaddsubfx/banks"), Path("/usr/share/yoshimi/banks"))  # the first has precedence
TIMEOUT_SECONDS = 120.0  # of one run
MAX_ATTEMPTS = 4  # LMMS 1.2 crashes or renders silence in about 1 % of runs; a retry helps

_RATE = 44100  # Hz, the lowest rate that LMMS renders
_MAX_PRESET_BYTES = 8 << 20  # bytes of XML
_TICKS_PER_BAR, _SECONDS_PER_BAR = 192, 2.0  # at 120 quarter notes per minute
_TICKS_PER_SECOND = _TICKS_PER_BAR / _SECONDS_PER_BAR
_LMMS_KEY = -12  # LMMS calls the A of 440 Hz 57, MIDI 69

# Default parameters of a part of ZynAddSubFX.
_ZYN_PART = {
    "volume": 96, "panning": 64, "min_key": 0, "max_key": 127, "key_shift": 64, "rcv_chn": 0, "velocity_sensing": 64,
    "velocity_offset": 64, "key_limit": 20,
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A preset of a synthesizer.

    Attributes:
        synth: name of the LMMS plugin, or ``ZynAddSubFX``.
        bank: name of the folder.
        name: name without number and file extension.
        path: the file, ``.xpf`` of LMMS or ``.xiz`` of ZynAddSubFX.
    """

    synth: str
    bank: str
    name: str
    path: Path

    @property
    def id(self) -> str:
        """A unique name."""
        return f"{self.synth}/{self.bank}/{self.path.stem}"


def is_installed() -> bool:
    """Whether LMMS is installed."""
    return shutil.which(PROGRAM) is not None


def presets() -> Iterator[Preset]:
    """The installed presets, sorted by path; of presets with the same bank and name, only the first."""
    for path in sorted(LMMS_PRESETS.glob("*/*.xp[ft]")):
        yield Preset(path.parent.name, path.parent.name, path.stem, path)
    seen = set()
    for root in ZYN_BANKS:
        for path in sorted(root.glob("*/*.xiz")):
            name = path.stem.partition("-")[2].replace("_", " ").strip() or path.stem
            bank = path.parent.name.replace("_", " ")
            if (bank.casefold(), name.casefold()) not in seen:
                seen.add((bank.casefold(), name.casefold()))
                yield Preset("ZynAddSubFX", bank, name, path)


def play(preset: Preset, pitches: Sequence[int], note_seconds: float, gap_seconds: float) -> tuple[Floats, int]:
    """The rendered notes one after the other, mono float32 [samples], and the sampling rate in Hz.

    Args:
        preset: the preset.
        pitches: MIDI pitches; a preset may play all of them octaves higher or lower.
        note_seconds: seconds from note-on to note-off.
        gap_seconds: seconds from note-off to the next note-on.

    Raises:
        StoneError: the preset cannot be read, or LMMS fails or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="stone-") as name:
        folder = Path(name)
        project, sound = folder / "preset.mmp", folder / "preset.wav"
        project.write_bytes(_project(preset, pitches, note_seconds, gap_seconds))
        command = [PROGRAM, "--allowroot", "render", str(project), "-o", str(sound), "-f", "wav", "-s", str(_RATE)]
        # With a temporary home folder, LMMS neither reads nor writes the configuration of the user.
        environment = {**os.environ, "HOME": name, "QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": name}
        try:
            for _ in range(MAX_ATTEMPTS):
                sound.unlink(missing_ok=True)
                done = subprocess.run(  # noqa: S603
                    command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False, env=environment, cwd=folder
                )
                if done.returncode == 0 and _is_audible(sound):
                    break
        except OSError as error:
            raise StoneError(f"LMMS is missing: apt-get install {' '.join(PACKAGES)}") from error
        except subprocess.TimeoutExpired as error:
            raise StoneError(f"LMMS took longer than {TIMEOUT_SECONDS:.0f} s") from error
        if done.returncode or not sound.exists():
            raise StoneError(f"LMMS failed with exit code {done.returncode}, or wrote no audio")
        try:
            samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise StoneError(f"LMMS wrote invalid audio: {error}") from error
    count = round(len(pitches) * (note_seconds + gap_seconds) * rate)
    mono = samples.mean(axis=1)[:count]
    return np.pad(mono, (0, count - len(mono))).astype(np.float32), int(rate)


def _is_audible(sound: Path) -> bool:
    try:
        samples, _ = soundfile.read(sound, dtype="float32")
    except (OSError, soundfile.LibsndfileError):
        return False
    return bool(np.abs(samples).max(initial=0.0) > 0.0)


def _project(preset: Preset, pitches: Sequence[int], note_seconds: float, gap_seconds: float) -> bytes:
    is_zyn = preset.path.suffix == ".xiz"
    root = _parsed(preset.path)
    instrument_track = _zyn_track(root) if is_zyn else root.find(".//instrumenttrack")
    if instrument_track is None:
        raise StoneError(f"{preset.path}: not a preset of LMMS or ZynAddSubFX")
    for switch in instrument_track.iter():  # disable chords and arpeggios
        for name in ("chord-enabled", "arp-enabled"):
            if name in switch.attrib:
                switch.set(name, "0")
    project = ET.Element("lmms-project", version="1.0", type="song", creator="LMMS", creatorversion="1.2.0")
    ET.SubElement(
        project, "head", timesig_numerator="4", timesig_denominator="4", bpm="120", mastervol="100", masterpitch="0"
    )
    container = ET.SubElement(ET.SubElement(project, "song"), "trackcontainer", type="song")
    track = ET.SubElement(container, "track", type="0", name="preset", muted="0", solo="0")
    track.append(instrument_track)
    step = round((note_seconds + gap_seconds) * _TICKS_PER_SECOND)
    bars = -(-len(pitches) * step // _TICKS_PER_BAR)
    pattern = ET.SubElement(
        track, "pattern", type="1", pos="0", len=str(bars * _TICKS_PER_BAR), muted="0", name="", steps="16"
    )
    shift = 0 if is_zyn else _LMMS_KEY  # LMMS passes its key number to ZynAddSubFX as a MIDI note
    length = str(round(note_seconds * _TICKS_PER_SECOND))
    for index, pitch in enumerate(pitches):
        ET.SubElement(pattern, "note", key=str(pitch + shift), pos=str(index * step), len=length, vol="100", pan="0")
    written: bytes = ET.tostring(project, encoding="utf-8", xml_declaration=True)
    return written


def _parsed(path: Path) -> ET.Element:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(_MAX_PRESET_BYTES)
        elif path.suffix == ".xpt":  # Qt's: four bytes of length before a zlib stream
            raw = zlib.decompressobj().decompress(raw[4:], _MAX_PRESET_BYTES)
        return ET.fromstring(raw[:_MAX_PRESET_BYTES].lstrip())  # noqa: S314  files of a Debian package; expat bounds entities
    except (OSError, EOFError, zlib.error, ET.ParseError) as error:
        raise StoneError(f"{path}: the preset cannot be read: {error}") from error


def _zyn_track(root: ET.Element) -> ET.Element | None:
    """An LMMS track with ZynAddSubFX whose first part is the instrument of a ``.xiz``; None if the file has none."""
    instrument = root.find("INSTRUMENT")
    if instrument is None:
        return None
    data = ET.Element("ZynAddSubFX-data", root.attrib)
    base = root.find("BASE_PARAMETERS")
    if base is not None:
        data.append(base)
    master = ET.SubElement(data, "MASTER")
    ET.SubElement(master, "par", name="volume", value="80")
    ET.SubElement(master, "par", name="key_shift", value="64")
    part = ET.SubElement(master, "PART", id="0")
    for name, value in _ZYN_PART.items():
        ET.SubElement(part, "par", name=name, value=str(value))
    for name in ("enabled", "note_on", "poly_mode"):
        ET.SubElement(part, "par_bool", name=name, value="yes")
    part.append(instrument)
    track = ET.Element(
        "instrumenttrack", pan="0", fxch="0", pitchrange="1", pitch="0", basenote="57", vol="100", usemasterpitch="1"
    )
    plugin = ET.SubElement(ET.SubElement(track, "instrument", name="zynaddsubfx"), "zynaddsubfx")
    for name in ("filterfreq", "filterq", "bandwidth", "resonancecenter", "resonancebandwidth"):
        plugin.set(name, "64")
    plugin.set("portamento", "0")
    plugin.set("fmgain", "127")
    plugin.append(data)
    return track
