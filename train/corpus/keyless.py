"""Excerpts without a key: drums, noise and speech. A model trained without them predicts a key for such audio."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from stonecli.errors import StoneError
from stonecli_train.corpus import synth
from stonecli_train.corpus.arrange import Part, Tone
from stonecli_train.corpus.drums import draw_drums
from stonecli_train.corpus.styles import DRUMS

SOURCE = "keyless"
SPEECH_PROGRAM = "espeak-ng"  # Debian package of the same name

Floats = npt.NDArray[np.float32]
Play = Callable[[tuple[Part, ...]], Floats]

_LANGUAGES = ("en", "en-us", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "cs", "fi", "hu", "tr", "el", "ro")
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "f1", "f2", "f3", "klatt", "croak", "whisper")
_HELD_OUT_VARIANTS = ("m7", "f4", "f5", "klatt2")
_CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "pr", "kl", "")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")


def draw_keyless(rng: np.random.Generator, seconds: float, rate: int, held_out: bool, play: Play) -> tuple[str, Floats]:
    """A random sound without a key: its kind (``drums``, ``noise`` or ``speech``), and float32 [seconds * rate].

    Args:
        rng: random generator of the excerpt.
        seconds: length in seconds; drums may be slightly longer.
        rate: sampling rate in Hz.
        held_out: whether to use the voices that are excluded from training.
        play: renders the parts of an arrangement.

    Raises:
        StoneError: espeak-ng failed.
        OSError: it cannot be started.
    """
    kind = str(rng.choice(["drums", "noise", "speech"], p=[0.45, 0.1, 0.45]))
    if kind == "drums":
        samples = play((_drums(rng, seconds),))
    elif kind == "noise":
        samples = _noise(rng, round(seconds * rate), rate)
    else:
        samples = _speech(rng, seconds, rate, held_out)
    return kind, samples


def _drums(rng: np.random.Generator, seconds: float) -> Part:
    bpm = float(rng.uniform(65.0, 180.0))
    hits = draw_drums(rng, str(rng.choice(list(DRUMS))), seconds * bpm / 60.0, 4, 0.0)
    tones = [Tone(hit.start * 60.0 / bpm, 0.2, hit.pitch, int(np.clip(hit.velocity, 1, 127))) for hit in hits]
    return Part("drums", tuple(sorted(tones, key=lambda tone: tone.start)), synthesized=bool(rng.random() < 0.4))


def _noise(rng: np.random.Generator, count: int, rate: int) -> Floats:
    """Noise with a random spectral slope (0 white, 1 pink, 2 brown); half of it swells like wind, surf or a crowd."""
    size = synth.fast_length(count)
    hertz = np.maximum(np.fft.rfftfreq(size, 1.0 / rate), 20.0)
    shaped = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * hertz ** (-0.5 * rng.uniform(0.0, 2.0)), size)
    points = max(2, int(count / rate))
    swell = np.interp(np.linspace(0.0, points - 1.0, count), np.arange(points), rng.uniform(0.3, 1.0, points))
    return (shaped[:count] * (swell if rng.random() < 0.5 else 1.0)).astype(np.float32)


def _speech(rng: np.random.Generator, seconds: float, rate: int, held_out: bool) -> Floats:
    """Speech of one voice, or of two alternating voices, with pauses."""
    count = round(seconds * rate)
    if shutil.which(SPEECH_PROGRAM) is None or rng.random() < 0.15:
        return synth.sing(rng, _syllables(rng, seconds), count, rate, spoken=True)
    voices = [_voice(rng, held_out) for _ in range(int(rng.integers(1, 3)))]
    speech: list[Floats] = []
    while sum(map(len, speech)) < count:
        speech.append(_say(_text(rng), voices[int(rng.integers(len(voices)))], rate))
        speech.append(np.zeros(int(rng.uniform(0.0, 0.8) * rate) + 1, dtype=np.float32))
    return np.concatenate(speech)[:count]


def _voice(rng: np.random.Generator, held_out: bool) -> tuple[str, ...]:
    variant = rng.choice(_HELD_OUT_VARIANTS if held_out else _VARIANTS)
    return (
        "-v", f"{rng.choice(_LANGUAGES)}+{variant}", "-p", str(rng.integers(15, 85)), "-s", str(rng.integers(110, 220)),
    )  # fmt: skip


def _text(rng: np.random.Generator) -> str:
    """Nonsense words with punctuation, which gives the speech its intonation."""
    words = []
    for _ in range(int(rng.integers(12, 30))):
        syllables = (rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(int(rng.integers(1, 4))))
        words.append("".join(syllables) + str(rng.choice(["", "", "", "", ",", ".", "?"])))
    return " ".join(words) + "."


def _say(text: str, voice: tuple[str, ...], rate: int) -> Floats:
    command = [SPEECH_PROGRAM, *voice, "--stdout", text]
    try:
        run = subprocess.run(command, capture_output=True, timeout=60, check=True)  # noqa: S603
        samples, own_rate = soundfile.read(io.BytesIO(run.stdout), dtype="float32")
    except (subprocess.SubprocessError, soundfile.LibsndfileError) as error:
        raise StoneError(f"{SPEECH_PROGRAM}: {error}") from error
    if len(samples) == 0:
        raise StoneError(f"{SPEECH_PROGRAM}: the output is empty")
    spoken: Floats = samples if own_rate == rate else soxr.resample(samples, own_rate, rate, quality="MQ")
    return spoken


def _syllables(rng: np.random.Generator, seconds: float) -> list[Tone]:
    tones, time, center = [], 0.0, int(rng.integers(42, 62))
    while time < seconds:
        duration = float(rng.uniform(0.09, 0.3))
        tones.append(Tone(time, duration, center + int(rng.integers(-5, 6)), int(rng.integers(60, 110))))
        time += duration + (float(rng.uniform(0.2, 1.0)) if rng.random() < 0.12 else 0.0)
    return tones
