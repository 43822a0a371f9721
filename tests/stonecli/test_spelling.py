"""Spellings of keys that other programs write; each group names where it was seen."""

import base64
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.key import MAJOR_NAMES, MINOR_NAMES, Key, parse_or_none
from stonecli.spelling import plain_key_index, says_no_key

SPELLINGS: dict[str, dict[str, str]] = {
    "Mixxx, src/test/keyutilstest.cpp": {
        "6d": "B",
        " 3m\t\t": "Bm",
        "8B": "C",
        "12a": "C#m",
        " \tC   \t  ": "C",
        "c": "Cm",
        "cmaj": "C",
        "Cmin": "Cm",
        "cminor": "Cm",
        "C♯": "Db",
        "D♭": "Db",
        "C#mIN": "C#m",
        "Dbmaj": "Db",
        "cb": "Bm",
        "b#": "Cm",
        "C ionian": "C",
        "A aeolian": "Am",
    },
    "Rapid Evolution, as Mixxx's tests have it": {
        "08A": "Am",
        "A#m": "Bbm",
        "A#m +50": "Bbm",
        "G#+50": "Ab",
        "Ab +50": "Ab",
        "Ab +50cents": "Ab",
        "04B +50cents": "Ab",
        "G#-50": "Ab",
        "04B -50cents": "Ab",
        "    4b    -50   cents    ": "Ab",
    },
    "Traktor: the fields Key and Key Text, classical and Open Key": {
        "1m": "Am",
        "10d": "Eb",
        "D#m": "Ebm",
        "Abm": "G#m",
        "7m (D♯m/E♭m)": "Ebm",
        "8d (C♯/D♭)": "Db",
        "Am +12ct": "Am",
        "Am (−12 ct)": "Am",
        "Am -3.5 ct": "Am",
    },
    "Mixed In Key: its notations, alone and together": {
        "8A": "Am",
        "8A (Am)": "Am",
        "8A/Am": "Am",
        "8A - Am": "Am",
        "Abm/G#m": "G#m",
        "Db/C#": "Db",
        "5A Cm": "Cm",
    },
    "Serato: musical, Camelot and Open Key": {"F#m": "F#m", "Gb": "F#", "Ebm": "Ebm", "11A": "F#m", "1d": "C"},
    "rekordbox: classical and alphanumeric": {"Abm": "G#m", "F#": "F#", "Db": "Db", "1A": "G#m"},
    "Beatport: tags of its files, old and new": {
        "fMaj": "F",
        "f#min": "F#m",
        "E♭ min": "Ebm",
        "G♯ maj": "Ab",
        "Eb Minor": "Ebm",
        "F♯ Major": "F#",
        "Ebmin": "Ebm",
    },
    "Picard: the plug-in Key Wheel Converter and classical titles": {
        "A-Flat Minor": "G#m",
        "A Flat Minor": "G#m",
        "F-Sharp Major": "F#",
        "F Sharp Minor": "F#m",
        "A♭ Minor": "G#m",
        "C-sharp minor": "C#m",
        "B flat": "Bb",
    },
    "Engine DJ and VirtualDJ: both names of a black key": {
        "F♯/G♭": "F#",
        "F♯/G♭ minor": "F#m",
        "C♯/D♭ Major (3B)": "Db",
        "D#m/Ebm": "Ebm",
        "F#m / 11A": "F#m",
        "11A | F#m": "F#m",
        "2B, F#": "F#",
    },
    "KeyFinder: its standard and custom codes": {"Gb": "F#", "Bbm": "Bbm", "6d; Bmaj": "B", "[8A] Am": "Am"},
    "German, as classical catalogues have it": {
        "B-Dur": "Bb",
        "B Dur": "Bb",
        "b-moll": "Bbm",
        "B Moll": "Bbm",
        "H-Dur": "B",
        "h-moll": "Bm",
        "h moll": "Bm",
        "His-Dur": "C",
        "Es-Dur": "Eb",
        "es-moll": "Ebm",
        "As-Dur": "Ab",
        "as moll": "G#m",
        "Fis-Moll": "F#m",
        "Cis-Dur": "Db",
        "Des-Dur": "Db",
        "Ges Dur": "F#",
        "Ces-Dur": "B",
        "Dis-Moll": "Ebm",
        "Ais-moll": "Bbm",
        "gis-Moll": "G#m",
        "C-Dur": "C",
        "a-moll": "Am",
        "FIS-MOLL": "F#m",
        "Bb-Dur": "Bb",
        "B-Dur (6B)": "Bb",
        "Fis": "F#",
        "cis": "C#m",
    },
    "Unicode that looks the same": {
        "A♭\ufe0fm": "G#m",
        "8A\u200b": "Am",
        "\ufeff8A": "Am",
        "8\u2060A": "Am",
        "\u200e8A\u200f": "Am",
        "８Ａ": "Am",
        "Ｆ＃ｍ": "F#m",
        "８Ａ（Ａｍ）": "Am",
        "A\u00a0minor": "Am",
        "A\u3000minor": "Am",
        "F–Sharp Minor": "F#m",
        "8A — Am": "Am",
        "F𝄪": "G",
        "A𝄫": "G",
    },
}
NO_KEY = (
    "",
    "  ",
    "o",
    "O",
    "All",
    "INVALID",
    "0",
    "-",
    "--",
    "–",
    "None",
    "n/a",
    "N/A",
    "unknown",
    "?",
    "No Key",
    "ｏ",
)
NOT_KEYS = {
    "words": (
        *("Am I wrong", "Be", "Dad", "Bad", "Ad", "As", "Es", "Ebb", "Add", "Cab", "Edge", "Face", "Ebony", "Him"),
        *(
            "E - Motion",
            "Plan - B",
            "a-ha",
            "A minor thing",
            "D minor setback",
            "A House",
            "C me",
            "G String",
            "B Side",
        ),
        *("Key of A minor", "Am Cm", "A or Am", "do", "la menor"),
    ),
    "chords and other notes": (
        "Amaj7",
        "Am7",
        "A dim",
        "Am/C",
        "C/E",
        "Asus4",
        "C+",
        "A-",
        "C4",
        "C-4",
        "C+5",
        "H",
        "h",
    ),
    "two keys": ("8A/9A", "8A 9A", "8A (Cm)", "A/Am", "F#m/Gb", "A B", "Am - C", "B-Dur (1B)", "8A/8B", "A b"),
    "almost": (
        *("13A", "0A", "00A", "8C", "A8", "8", "88A", "8AA", "8A -", "/Am", "Am/", "8A()x", "AB", "EB", "EBM", "F#b"),
        *("8A - 6", "8A - Energy 6", "Am +440", "Am +101", "Am +", "Am ++12", "+50", "Am 440", "Am +50 -50", "8-A"),
        *(
            "B#-Dur",
            "Hes-Dur",
            "Bis-Dur",
            "Bis",
            "Fs-Dur",
            "8ª",
            "1º",
            "A\0",
            "Am\0Cm",
            "\x1b[31mA",
            "1\n2A",
            "Cm ionian",
        ),
    ),
}

KEYS = st.sampled_from(list(Key.all()))
SHARP_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
GERMAN_MAJOR = ("C", "Des", "D", "Es", "E", "F", "Fis", "G", "As", "A", "B", "H")
INVISIBLE = st.sampled_from(["", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\ufe0f", "\u202a"])


@pytest.mark.parametrize(
    ("text", "expected"), [(text, key) for group in SPELLINGS.values() for text, key in group.items()]
)
def test_spellings_of_other_programs(text: str, expected: str) -> None:
    assert Key.parse(text).musical == expected
    assert not says_no_key(text)


@pytest.mark.parametrize("text", NO_KEY)
def test_texts_for_no_key(text: str) -> None:
    assert says_no_key(text)
    assert parse_or_none(text) is None
    block = json.dumps({"algorithm": 94, "key": text, "source": "mixedinkey"})
    assert says_no_key(base64.b64encode(block.encode()).decode())


@pytest.mark.parametrize("text", [text for group in NOT_KEYS.values() for text in group])
def test_text_that_only_looks_like_a_key(text: str) -> None:
    assert parse_or_none(text) is None
    assert not says_no_key(text)


def _forms(key: Key) -> list[str]:
    """Spellings of one key in all families."""
    word = key.mode
    names = {MAJOR_NAMES[key.tonic], MINOR_NAMES[key.tonic], SHARP_NAMES[key.tonic]}
    spoken = [name.replace("#", "-Sharp").replace("b", "-Flat") for name in names]
    german = GERMAN_MAJOR[key.tonic] + ("-Dur" if word == "major" else "-Moll")
    musical = [f"{name}{between}{end}" for name in names for between in ("", " ", ":") for end in (word, word[:3])]
    signs = [text.replace("#", "♯").replace("b", "♭") for text in musical]
    return [key.camelot, key.open_key, key.musical, german, *musical, *signs, *(f"{name} {word}" for name in spoken)]


@given(KEYS, st.data())
def test_every_spelling_is_read_alone_in_pairs_and_tuned(key: Key, data: st.DataObject) -> None:
    first, second = (data.draw(st.sampled_from(_forms(key))) for _ in range(2))
    assert Key.parse(first) == key
    separator = data.draw(st.sampled_from(["/", " / ", " - ", " ", ", ", "|", " = "]))
    assert Key.parse(first + separator + second) == key
    assert Key.parse(f"{first} ({second})") == key
    tuning = data.draw(st.sampled_from([" +50", " -7", " +12ct", " -50 cents", " +3,5 ct"]))
    assert Key.parse(first + tuning) == key
    assert Key.parse(f"{first}{tuning} ({second})") == key


@given(KEYS, KEYS, st.data())
def test_two_keys_in_one_text_are_no_key(one: Key, other: Key, data: st.DataObject) -> None:
    first, second = data.draw(st.sampled_from(_forms(one))), data.draw(st.sampled_from(_forms(other)))
    found = parse_or_none(f"{first} / {second}")
    assert found == (one if one == other else None)


@given(KEYS, st.data())
def test_invisible_characters_and_width_make_no_difference(key: Key, data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(_forms(key)))
    if data.draw(st.booleans()):
        form = "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in form)
    text = "".join(sign + data.draw(INVISIBLE) for sign in form)
    assert Key.parse(text) == key


@given(KEYS, st.data(), st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8))
def test_a_word_behind_a_spelling_is_never_ignored(key: Key, data: st.DataObject, word: str) -> None:
    form = data.draw(st.sampled_from(_forms(key)))
    found = parse_or_none(f"{form} {word}")
    assert found is None or parse_or_none(word) == found or parse_or_none(f"A {word}") or parse_or_none(f"A{word}")


@given(st.text() | st.text(st.sampled_from("ABCDEFGHabcdefghm#♭♯ 0123456789/-()+isesdurmoll\u200bªＡ"), max_size=100))
def test_random_text_never_raises(text: str) -> None:
    key = parse_or_none(text)
    assert key is None or not says_no_key(text)
    assert plain_key_index(text) in (key.index if key else None, None)


@pytest.mark.parametrize(
    "text", ["8A " * 10**6, "8A/" * 27, " " * 4000 + "x", "ﷺ" * 4000, "(" * 4096, "A-" * 2000, "A" + " " * 4090 + "q"]
)
def test_long_texts_are_not_keys(text: str) -> None:
    assert parse_or_none(text) is None
    assert not says_no_key(text)


def test_energy_blocks_of_mixed_in_key_are_not_a_plain_key() -> None:
    block = json.dumps({"algorithm": 94, "key": "5A", "source": "mixedinkey"})
    for text in (block, base64.b64encode(block.encode()).decode()):
        assert Key.parse(text).camelot == "5A"
        assert plain_key_index(text) is None


@pytest.mark.usefixtures("unmeasured")
def test_importing_key_loads_no_parser() -> None:
    code = "import sys, stonecli.key; print({'stonecli.spelling', 'json', 'unicodedata'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
