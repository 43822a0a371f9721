"""Renders presets of real synthesizers with LMMS, without its window.

LMMS 1.2 plays its own synthesizers (TripleOscillator, Organic, BitInvader, OpulenZ ...) and ZynAddSubFX. A project with
one track is written around the preset; the same preset gives the same samples every time.
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
ZYN_BANKS = (Path("/usr/share/zynaddsubfx/banks"), Path("/usr/share/yoshimi/banks"))  # the second where it has more
SECONDS_LIMIT = 120.0  # that a run may take
ATTEMPTS = 4  # LMMS 1.2 crashes or renders silence in about 1 % of runs; a retry helps

_RATE = 44100  # Hz, the lowest rate that LMMS renders
_LARGEST_PRESET = 8 << 20  # bytes of XML
_TICKS_A_BAR, _SECONDS_A_BAR = 192, 2.0  # at 120 quarter notes a minute
_TICKS_PER_SECOND = _TICKS_A_BAR / _SECONDS_A_BAR
_LMMS_KEY = -12  # LMMS calls the A of 440 Hz 57, MIDI 69

# A part of ZynAddSubFX as it is when the program starts.
_ZYN_PART = {
    "volume": 96, "panning": 64, "min_key": 0, "max_key": 127, "key_shift": 64, "rcv_chn": 0, "velocity_sensing": 64,
    "velocity_offset": 64, "key_limit": 20,
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A preset of a synthesizer.

    Attributes:
        synth: its plugin, or ``ZynAddSubFX``.
        bank: its folder.
        name: without number and extension.
        path: its file, ``.xpf`` of LMMS or ``.xiz`` of ZynAddSubFX.
    """

    synth: str
    bank: str
    name: str
    path: Path

    @property
    def id(self) -> str:
        """A name that no other preset has."""
        return f"{self.synth}/{self.bank}/{self.path.stem}"


def is_installed() -> bool:
    """Whether LMMS is installed."""
    return shutil.which(PROGRAM) is not None


def presets() -> Iterator[Preset]:
    """The installed presets by name; only the first of several with the same bank and name."""
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


def play(preset: Preset, pitches: Sequence[int], held: float, rest: float) -> tuple[Floats, int]:
    """The ``pitches`` one after the other, mono float32, and the sampling rate in Hz.

    Args:
        preset: the instrument.
        pitches: MIDI; a preset may play all of them octaves higher or lower.
        held: seconds from the start of a note to its end.
        rest: seconds from there to the next note.

    Raises:
        StoneError: the preset cannot be read, or LMMS fails or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="stone-") as name:
        folder = Path(name)
        project, sound = folder / "preset.mmp", folder / "preset.wav"
        project.write_bytes(_project(preset, pitches, held, rest))
        command = [PROGRAM, "--allowroot", "render", str(project), "-o", str(sound), "-f", "wav", "-s", str(_RATE)]
        # A private home folder: LMMS writes a configuration and would read the user's.
        environment = {**os.environ, "HOME": name, "QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": name}
        try:
            for _ in range(ATTEMPTS):
                sound.unlink(missing_ok=True)
                done = subprocess.run(  # noqa: S603
                    command, capture_output=True, timeout=SECONDS_LIMIT, check=False, env=environment, cwd=folder
                )
                if done.returncode == 0 and _is_audible(sound):
                    break
        except OSError as error:
            raise StoneError(f"LMMS is not here: apt-get install {' '.join(PACKAGES)}") from error
        except subprocess.TimeoutExpired as error:
            raise StoneError("LMMS took too long") from error
        if done.returncode or not sound.exists():
            raise StoneError(f"LMMS ended with {done.returncode} and without a sound")
        try:
            samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise StoneError(f"LMMS wrote no sound: {error}") from error
    wanted = round(len(pitches) * (held + rest) * rate)
    mono = samples.mean(axis=1)[:wanted]
    return np.pad(mono, (0, wanted - len(mono))).astype(np.float32), int(rate)


def _is_audible(sound: Path) -> bool:
    try:
        samples, _ = soundfile.read(sound, dtype="float32")
    except (OSError, soundfile.LibsndfileError):
        return False
    return bool(np.abs(samples).max(initial=0.0) > 0.0)


def _project(preset: Preset, pitches: Sequence[int], held: float, rest: float) -> bytes:
    is_zyn = preset.path.suffix == ".xiz"
    root = _parsed(preset.path)
    instrument_track = _zyn_track(root) if is_zyn else root.find(".//instrumenttrack")
    if instrument_track is None:
        raise StoneError("not a preset")
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
    step = round((held + rest) * _TICKS_PER_SECOND)
    bars = -(-len(pitches) * step // _TICKS_A_BAR)
    pattern = ET.SubElement(
        track, "pattern", type="1", pos="0", len=str(bars * _TICKS_A_BAR), muted="0", name="", steps="16"
    )
    shift = 0 if is_zyn else _LMMS_KEY  # LMMS passes its key number to ZynAddSubFX as a MIDI note
    for index, pitch in enumerate(pitches):
        ET.SubElement(
            pattern, "note", key=str(pitch + shift), pos=str(index * step), len=str(round(held * _TICKS_PER_SECOND)),
            vol="100", pan="0",
        )  # fmt: skip
    written: bytes = ET.tostring(project, encoding="utf-8", xml_declaration=True)
    return written


def _parsed(path: Path) -> ET.Element:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(_LARGEST_PRESET)
        elif path.suffix == ".xpt":  # Qt's: four bytes of length before a zlib stream
            raw = zlib.decompressobj().decompress(raw[4:], _LARGEST_PRESET)
        return ET.fromstring(raw[:_LARGEST_PRESET].lstrip())  # noqa: S314  files of a Debian package; expat bounds entities
    except (OSError, EOFError, zlib.error, ET.ParseError) as error:
        raise StoneError(f"cannot be read: {error}") from error


def _zyn_track(root: ET.Element) -> ET.Element | None:
    """The instrument of a ``.xiz`` as the first part of a whole ZynAddSubFX, which LMMS keeps in a track."""
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
