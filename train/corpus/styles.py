"""Definitions of the styles: tempo, layers, drums, instruments, probabilities of synthesizers and singers."""

from __future__ import annotations

from dataclasses import dataclass

# General MIDI programs, counted from 0.
PIANOS = (0, 0, 1, 2, 4, 5)
ORGANS = (16, 17, 18, 19)
ACOUSTIC_GUITARS = (24, 25, 25)
ELECTRIC_GUITARS = (26, 27, 28)
DISTORTED_GUITARS = (29, 30)
ACOUSTIC_BASSES = (32, 32, 43)
ELECTRIC_BASSES = (33, 34, 35, 36, 37)
SYNTH_BASSES = (38, 39, 87)
STRINGS = (48, 49, 50, 51, 44)
CHOIRS = (52, 53, 54, 91)
PADS = (88, 89, 90, 91, 92, 93, 94, 95, 50, 51)
BRASS = (61, 62, 63, 56, 57)
SYNTH_LEADS = (80, 81, 82, 83, 84, 85, 86, 87, 62)
MALLETS = (8, 9, 10, 11, 12, 13, 14, 46)
REEDS = (64, 65, 66, 68, 69, 71)
FLUTES = (72, 73, 74, 75, 77, 79)
BOWED = (40, 41, 42, 110)
VOICES = (52, 53, 54)
KEYS = (*PIANOS, *ORGANS, 6, 7, 11)

# Sixteenths of a bar: x is a hit, o a soft hit.
DRUMS: dict[str, tuple[str, str, str]] = {  # kick, snare, hat
    "house": ("x...x...x...x...", "....x.......x...", "..x...x...x...x."),
    "techno": ("x...x...x...x...", "............x...", "o.x.o.x.o.x.o.x."),
    "trance": ("x...x...x...x...", "....x.......x...", "..x.o.x.o.x.o.x."),
    "offbeat": ("x...x...x...x...", "....x..x....x...", "oox.oox.oox.oox."),
    "breaks": ("x.........x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "dnb": ("x.........x.....", "....x..o.o..x..o", "x.x.x.x.x.x.x.x."),
    "jungle": ("x.x.......x.x...", "....x..x.o..x..x", "xxx.xxx.xxx.xxx."),
    "hiphop": ("x..x...o..x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "boombap": ("x......x..x.....", "....x..o....x..o", "x.x.x.x.x.x.x.x."),
    "trap": ("x......x..x.....", "........x.......", "x.x.xxx.x.x.xxxx"),
    "rock": ("x.......x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "beat": ("x.....x.x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "punk": ("x.x...x.x.x...x.", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "half": ("x.....x.........", "........x.......", "x...x...x...x..."),
    "double": ("xxxxxxxxxxxxxxxx", "....x.......x...", "x...x...x...x..."),
    "blast": ("x.x.x.x.x.x.x.x.", ".x.x.x.x.x.x.x.x", "x.x.x.x.x.x.x.x."),
    "funk": ("x.x....x..x..x..", "....x..o.o..x..o", "xxxxxxxxxxxxxxxx"),
    "disco": ("x...x...x...x...", "....x.......x...", "o.x.o.x.o.x.o.x."),
    "onedrop": ("........x.......", "........x.......", "x.x.x.x.x.x.x.x."),
    "steppers": ("x...x...x...x...", "........x.......", "..x...x...x...x."),
    "swing": ("o...o...o...o...", "....o.......o..o", "x...x..xx...x..x"),
    "brushes": ("o.......o.......", "....o.......o...", "o...o..oo...o..o"),
    "shuffle": ("x.......x.......", "....x.......x...", "x..xx..xx..xx..x"),
    "latin": ("x..x..x.x..x..x.", "...o..o....o..o.", "x.xxx.xxx.xxx.xx"),
    "slow": ("x.......x.......", "....x.......x...", "x...x...x...x..."),
    "train": ("x.......x.......", "o.oxo.oxo.oxo.ox", "................"),
    "dembow": ("x...x...x...x...", "...x..x....x..x.", "x.x.x.x.x.x.x.x."),
    "waltz": ("x.......", "....o...", "....x..."),
}


@dataclass(frozen=True)
class Style:
    """A style of arrangement.

    Attributes:
        name: name of the style, as in labels.csv.
        bpm: range of the tempo, in quarter notes per minute.
        layers: names of functions in ``stonecli_train.corpus.layers``; each plays with a probability of 88 %.
        loops: group of ``stonecli_train.corpus.progressions.LOOPS``.
        drums: keys of ``DRUMS``; empty for a style without drums.
        minor: share of minor keys among generated progressions.
        chords, bass, lead: General MIDI programs of these layers.
        synth: probability that a numpy synthesizer plays a part.
        sung: probability of a synthetic singer.
        spoken: probability of a rap-like voice.
        guitar_amp: whether guitars go through the amplifier simulation.
        swing: probability of swung eighths.
        extensions: probability that triads are extended with sevenths and ninths.
        weight: relative probability of being drawn.
        charts: whether songs of the corpora are arranged in this style.
    """

    name: str
    bpm: tuple[float, float]
    layers: tuple[str, ...]
    loops: str
    drums: tuple[str, ...] = ()
    minor: float = 0.5
    chords: tuple[int, ...] = KEYS
    bass: tuple[int, ...] = ELECTRIC_BASSES
    lead: tuple[int, ...] = (*REEDS, *FLUTES, *SYNTH_LEADS, *PIANOS, *BRASS, *ELECTRIC_GUITARS, *BOWED)
    synth: float = 0.15
    sung: float = 0.35
    spoken: float = 0.0
    guitar_amp: bool = False
    swing: float = 0.0
    extensions: float = 0.2
    weight: float = 1.0
    charts: bool = True


_SYNTHS = (*SYNTH_LEADS, *PADS, 4, 5, 38)

STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style("house", (118, 130), ("stabs", "pad", "bass_off", "lead", "arp"), "electronic", ("house", "offbeat"), 0.6,
              (*KEYS, *_SYNTHS), SYNTH_BASSES, synth=0.5, sung=0.35, extensions=0.5, weight=1.5),
        Style("techno", (122, 142), ("stabs", "bass_16", "riff", "drone", "arp"), "electronic", ("techno", "house"),
              0.8,
              _SYNTHS, SYNTH_BASSES, SYNTH_LEADS, synth=0.7, sung=0.1, weight=1.2, charts=False),
        Style("trance", (130, 145), ("arp", "pad", "bass_off", "lead", "stabs"), "electronic", ("trance", "house"),
              0.65,
              _SYNTHS, SYNTH_BASSES, SYNTH_LEADS, synth=0.75, sung=0.2),
        Style("dubstep", (136, 150), ("pad", "bass_808", "riff", "lead", "arp"), "electronic", ("half", "trap"), 0.75,
              _SYNTHS, SYNTH_BASSES, SYNTH_LEADS, synth=0.7, sung=0.3, charts=False),
        Style("drum_and_bass", (160, 178), ("pad", "bass_long", "arp", "lead", "stabs"), "electronic", ("dnb",
              "jungle", "breaks"),
              0.7, (*KEYS, *_SYNTHS), SYNTH_BASSES, synth=0.55, sung=0.3, extensions=0.4, weight=1.2),
        Style("electro", (80, 150), ("arp", "pad", "bass_16", "lead", "octaves"), "electronic", ("house", "half",
              "hiphop"), 0.6,
              _SYNTHS, SYNTH_BASSES, SYNTH_LEADS, synth=0.6, sung=0.4),
        Style("ambient", (60, 100), ("pad", "drone", "arp", "lead"), "electronic", (), 0.5, (*PADS, *STRINGS, *CHOIRS),
              SYNTH_BASSES, synth=0.5, sung=0.15, extensions=0.5, weight=0.6),
        Style("hiphop", (78, 102), ("hook", "bass_808", "lead", "stabs", "pad"), "beds", ("hiphop", "boombap"), 0.65,
              (*KEYS, *MALLETS, *STRINGS), (*SYNTH_BASSES, *ELECTRIC_BASSES), synth=0.3, sung=0.15, spoken=0.65,
              extensions=0.4, weight=1.5),
        Style("trap", (65, 85), ("hook", "bass_808", "riff", "pad"), "beds", ("trap",), 0.8, (*KEYS, *MALLETS, *PADS,
              *FLUTES),
              SYNTH_BASSES, synth=0.5, sung=0.15, spoken=0.65, weight=1.2, charts=False),
        Style("rap_bed", (75, 105), ("hook", "bass_808", "bass_riff", "stabs"), "beds", ("hiphop", "boombap", "half"),
              0.7,
              (*KEYS, *STRINGS, *BRASS), (*SYNTH_BASSES, *ELECTRIC_BASSES), synth=0.35, sung=0.1, spoken=0.85,
              weight=1.2),
        Style("rnb", (60, 105), ("comp", "pad", "bass_808", "lead", "arp", "stabs"), "rnb", ("hiphop", "half", "trap"),
              0.55,
              (*PIANOS, 4, 5, 4, *STRINGS, *PADS, 24, 26), (*SYNTH_BASSES, *ELECTRIC_BASSES), synth=0.3, sung=0.85,
              spoken=0.1, extensions=0.8, weight=1.2),
        Style("dance_pop", (100, 130), ("stabs", "pad", "bass_8", "arp", "lead", "octaves", "hook"), "pop", ("house",
              "beat", "disco"), 0.5,
              (*KEYS, *_SYNTHS), SYNTH_BASSES, synth=0.5, sung=0.8, extensions=0.2, weight=1.2),
        Style("reggaeton", (84, 105), ("stabs", "pad", "bass_808", "hook", "lead", "arp"), "pop", ("dembow",), 0.7,
              (*KEYS, *MALLETS, *_SYNTHS, 24), SYNTH_BASSES, synth=0.4, sung=0.6, spoken=0.3),
        Style("pop", (85, 130), ("block", "pad", "bass_8", "lead", "strum", "arp"), "pop", ("beat", "rock", "house",
              "slow"), 0.4,
              (*KEYS, *STRINGS, *PADS), synth=0.3, sung=0.7, weight=1.5),
        Style("disco", (105, 130), ("octaves", "stabs", "pad", "lead", "strum"), "groove", ("disco", "house"), 0.5,
              (*KEYS, *STRINGS, *BRASS), synth=0.2, sung=0.6, extensions=0.5, weight=1.2),
        Style("rock", (95, 155), ("power", "strum", "bass_8", "lead"), "rock", ("rock", "beat", "punk"), 0.35,
              (*DISTORTED_GUITARS, *ELECTRIC_GUITARS, *ORGANS), lead=(29, 30, 27, 26), synth=0.05, sung=0.65,
              guitar_amp=True,
              extensions=0.05, weight=1.5),
        Style("rock_riff", (85, 150), ("riff_guitar", "power", "lead", "bass_8"), "rock", ("rock", "beat", "half"), 0.6,
              DISTORTED_GUITARS, lead=(29, 30, 27), synth=0.05, sung=0.6, guitar_amp=True, extensions=0.0,
              charts=False),
        Style("metal", (90, 190), ("chug", "power", "bass_8", "lead"), "metal", ("double", "rock", "half", "blast"),
              0.85,
              DISTORTED_GUITARS, lead=(29, 30), synth=0.05, sung=0.4, spoken=0.2, guitar_amp=True, extensions=0.0,
              weight=1.2, charts=False),
        Style("metal_riff", (90, 190), ("riff_guitar", "chug", "lead"), "metal", ("double", "rock", "half", "blast"),
              0.85,
              DISTORTED_GUITARS, lead=(29, 30), synth=0.05, sung=0.4, spoken=0.25, guitar_amp=True, extensions=0.0,
              weight=1.2, charts=False),
        Style("punk", (150, 195), ("power", "bass_8", "lead"), "rock", ("punk", "beat"), 0.25, DISTORTED_GUITARS,
              lead=(29, 30, 27), synth=0.0, sung=0.8, guitar_amp=True, extensions=0.0),
        Style("funk", (92, 118), ("stabs", "bass_riff", "lead", "comp"), "groove", ("funk", "beat"), 0.5,
              (*ELECTRIC_GUITARS, *KEYS, *BRASS), (36, 37, 33, 39), synth=0.15, sung=0.5, extensions=0.6),
        Style("reggae", (62, 92), ("skank", "bass_riff", "bubble", "lead"), "groove", ("onedrop", "steppers"), 0.45,
              (*ELECTRIC_GUITARS, *ORGANS, 0), synth=0.1, sung=0.6, spoken=0.1, extensions=0.1, weight=1.2),
        Style("blues", (60, 130), ("comp", "walk", "lead", "strum", "shuffle"), "blues", ("shuffle", "slow", "beat"),
              0.25,
              (*ELECTRIC_GUITARS, *PIANOS, *ORGANS), lead=(26, 27, 29, 22, 65, 66), synth=0.03, sung=0.5,
              guitar_amp=True,
              swing=0.7, extensions=0.3, weight=1.2),
        Style("soul", (70, 125), ("comp", "bass_riff", "lead", "pad", "stabs"), "groove", ("beat", "rock", "slow"), 0.4,
              (*KEYS, *STRINGS, *BRASS), synth=0.1, sung=0.75, extensions=0.5, weight=1.2),
        Style("latin", (90, 130), ("montuno", "bass_riff", "lead", "comp"), "groove", ("latin",), 0.5,
              (*PIANOS, *ACOUSTIC_GUITARS, *BRASS), (32, 33, 35), synth=0.05, sung=0.5, extensions=0.4),
        Style("country", (85, 160), ("strum", "bass_root_fifth", "lead", "pick"), "folk", ("train", "beat", "slow"),
              0.15,
              (*ACOUSTIC_GUITARS, *ELECTRIC_GUITARS, 105, 0), (32, 33), (25, 26, 27, 40, 22, 105, 110), synth=0.0,
              sung=0.7, extensions=0.05),
        Style("folk", (75, 130), ("pick", "strum", "bass_root_fifth", "lead"), "folk", ("slow",), 0.4,
              (*ACOUSTIC_GUITARS, 105, 21, 22), ACOUSTIC_BASSES, (*BOWED, *FLUTES, 21, 22, 105, 25), synth=0.03,
              sung=0.5, extensions=0.05),
        Style("ballad", (58, 84), ("block", "pad", "bass_long", "lead", "arp"), "pop", ("slow", "half"), 0.45,
              (*PIANOS, *ACOUSTIC_GUITARS, *STRINGS), synth=0.15, sung=0.7, extensions=0.25),
        Style("jazz", (80, 210), ("comp", "walk", "lead"), "jazz", ("swing", "brushes"), 0.4, (*PIANOS, 26, 11),
              ACOUSTIC_BASSES, (*REEDS, 56, 57, 59, 11, 0, 26), synth=0.02, sung=0.2, swing=0.85, extensions=0.8,
              weight=1.2),
        Style("bossa", (110, 150), ("comp", "bass_root_fifth", "lead", "pad"), "jazz", ("latin", "brushes"), 0.4,
              (24, 24, 4, 0, 11), ACOUSTIC_BASSES, (*REEDS, *FLUTES, 0, 24), synth=0.03, sung=0.4, extensions=0.8),
        Style("solo", (60, 140), ("lead", "double_stop"), "folk", (), 0.5,
              lead=(*BOWED, *FLUTES, *REEDS, 0, 24, 25, 6, 46, 21, 56, 104), synth=0.1, sung=0.25, extensions=0.0,
              weight=1.2),
        Style("solo_piano", (60, 140), ("block", "bass_long", "lead", "arp"), "classical", (), 0.5, (0, 0, 0, 1, 4),
              (0, 0, 1), (0, 0, 1), synth=0.0, sung=0.0, extensions=0.15),
        Style("solo_guitar", (60, 130), ("pick", "lead", "bass_long"), "folk", (), 0.5, ACOUSTIC_GUITARS,
              ACOUSTIC_GUITARS,
              ACOUSTIC_GUITARS, synth=0.1, sung=0.2, extensions=0.1),
        Style("orchestra", (60, 140), ("pad", "chorale", "lead", "bass_long", "ostinato"), "classical", (), 0.5,
              (*STRINGS, *BRASS, *CHOIRS, 60, 46), (42, 43, 48, 58, 32), (40, 41, 68, 71, 73, 56, 60, 48), synth=0.05,
              sung=0.1,
              extensions=0.05, weight=1.5),
        Style("strings", (50, 120), ("chorale", "lead", "pad"), "classical", (), 0.5, (*STRINGS, 40, 41, 42), (42, 43,
              48),
              (40, 41, 42), synth=0.1, sung=0.05, extensions=0.05),
        Style("choir", (50, 90), ("chorale", "lead"), "classical", (), 0.5, (*CHOIRS, 19), (52, 53, 42), VOICES,
              synth=0.3,
              sung=0.4, extensions=0.0),
        Style("classical_piano", (70, 150), ("alberti", "lead"), "classical", (), 0.5, (0, 0, 1, 6, 7), (0,), (0, 0,
              1, 6),
              synth=0.0, sung=0.0, extensions=0.0, weight=1.5),
        Style("chamber", (60, 140), ("alberti", "lead", "bass_long", "chorale"), "classical", (), 0.5, (0, 6, 24, 46,
              *BOWED),
              (42, 43, 70), (*BOWED, *FLUTES, *REEDS), synth=0.02, sung=0.05, extensions=0.0),
    )
}  # fmt: skip
