import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.key import AGREEMENTS, NOTATIONS, Key, Notation, parse_or_none
from stonecli.spelling import says_no_key

KEYS = st.sampled_from(list(Key.all()))

TABLE = """
C 8B 1d Am 8A 1m
G 9B 2d Em 9A 2m
D 10B 3d Bm 10A 3m
A 11B 4d F#m 11A 4m
E 12B 5d C#m 12A 5m
B 1B 6d G#m 1A 6m
F# 2B 7d Ebm 2A 7m
Db 3B 8d Bbm 3A 8m
Ab 4B 9d Fm 4A 9m
Eb 5B 10d Cm 5A 10m
Bb 6B 11d Gm 6A 11m
F 7B 12d Dm 7A 12m
"""
"""Key, Camelot, Open Key and the same for its relative, as DJ programs show them."""

SPELLINGS = {
    "C♯m": (1, "minor"),
    "D♭": (1, "major"),
    "D♭ maj": (1, "major"),
    "d♭m": (1, "minor"),
    "E maj": (4, "major"),
    "E min": (4, "minor"),
    "E major": (4, "major"),
    "E Minor": (4, "minor"),
    "EMIN": (4, "minor"),
    "EB MINOR": (3, "minor"),
    "F#min": (6, "minor"),
    "A:minor": (9, "minor"),
    "A:maj": (9, "major"),
    "Bb:min": (10, "minor"),
    "b": (11, "minor"),
    "bb": (10, "minor"),
    "f#": (6, "minor"),
    "c major": (0, "major"),
    "Cb": (11, "major"),
    "B#": (0, "major"),
    "E#m": (5, "minor"),
    "Fbm": (4, "minor"),
    "F##": (7, "major"),
    "cis moll": (1, "minor"),
    "Es dur": (3, "major"),
    "CM": (0, "major"),
    "Cm": (0, "minor"),
    "01A": (8, "minor"),
    "08b": (0, "major"),
    "8 A": (9, "minor"),
    "12B": (4, "major"),
    "1d": (0, "major"),
    "01m": (9, "minor"),
    "12M": (2, "minor"),
    "  Am \n": (9, "minor"),
}
NONSENSE = (
    *("", " ", "o", "H", "0A", "13A", "00A", "8C", "8", "A8", "8A 9A", "A\0", "null", "120 BPM"),
    *("Amm", "A dim", "Am/C", "Amaj7", "[red]", "\x1b[31mA"),
    *("{}", "[]", '{"key": 5}', '{"key": {"key": "5A"}}', '{"key": "loud"}', "e30="),
)


def mixed_in_key(text: str) -> str:
    return json.dumps({"algorithm": 94, "key": text, "source": "mixedinkey"}, separators=(",", ":"))


def test_the_table_of_spellings() -> None:
    rows = [row.split() for row in TABLE.strip().splitlines()]
    for major, camelot, open_key, minor, minor_camelot, minor_open_key in rows:
        key, relative = Key.parse(major), Key.parse(minor)
        assert (key.musical, key.camelot, key.open_key) == (major, camelot, open_key)
        assert (relative.musical, relative.camelot, relative.open_key) == (minor, minor_camelot, minor_open_key)
        assert key.relative == relative
        assert relative.relative == key
        assert key.signature == relative.signature == key.tonic
        assert key.wheel == relative.wheel
    assert {Key.parse(row[column]) for row in rows for column in (0, 3)} == set(Key.all())


@given(KEYS, st.sampled_from(NOTATIONS))
def test_every_notation_reads_back(key: Key, notation: Notation) -> None:
    spelled = key.spelled(notation)
    assert spelled.isascii()
    assert len(spelled) <= 3  # the grammar of TKEY
    assert Key.parse(spelled) == key
    assert Key.parse(mixed_in_key(spelled)) == key
    assert Key.parse(base64.b64encode(mixed_in_key(spelled).encode()).decode()) == key
    assert Key.parse(key.name) == key


@given(
    KEYS,
    st.sampled_from(["{}", " {} ", "{}\n"]),
    st.sampled_from(["", " ", ":", "_", "-", "  "]),
    st.sampled_from([("maj", "min"), ("major", "minor"), ("Major", "Minor"), ("MAJ", "MIN"), ("ionian", "aeolian")]),
    st.booleans(),
    st.booleans(),
)
def test_any_spelling_in_words(
    key: Key, frame: str, between: str, words: tuple[str, str], signs: bool, small: bool
) -> None:
    tonic = key.musical.removesuffix("m")
    tonic = tonic.lower() if small else tonic
    if signs:
        tonic = tonic[0] + tonic[1:].replace("#", "♯").replace("b", "♭")
    text = frame.format(tonic + between + words[key.mode == "minor"])
    assert Key.parse(text) == key


@given(KEYS)
def test_a_lower_case_letter_is_minor_and_codes_ignore_case(key: Key) -> None:
    tonic = key.musical.removesuffix("m")
    assert Key.parse(tonic.lower()) == Key(key.tonic, "minor")
    assert Key.parse(tonic) == Key(key.tonic, "major")
    assert Key.parse(key.camelot.lower()) == key
    assert Key.parse(key.open_key.upper()) == key
    assert Key.parse(f"{key.wheel:02}{key.camelot[-1]}") == key


@pytest.mark.parametrize("text", [text for text, key in SPELLINGS.items() if key])
def test_spellings_found_in_tags(text: str) -> None:
    key = Key.parse(text)
    assert (key.tonic, key.mode) == SPELLINGS[text]


@pytest.mark.parametrize("text", [*NONSENSE, *(text for text, key in SPELLINGS.items() if not key)])
def test_nonsense_is_not_a_key(text: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        Key.parse(text)
    assert parse_or_none(text) is None


ALMOST_KEYS = st.from_regex(r"[A-Ga-g0-9#b♯♭{}\[\]\":=mM ]{0,12}")


@given(st.one_of(st.text(), ALMOST_KEYS, st.binary().map(lambda data: base64.b64encode(data).decode())))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    key = parse_or_none(text)
    says_no_key(text)
    if key is not None and text.isascii():  # and then it starts like one
        assert re.match(r"[\s(\[]*([A-Ha-h]|0?1?\d)", text) or "key" in text or base64.b64decode(text)


def test_a_flat_sign_is_not_a_letter() -> None:
    assert Key.parse("B♭m") == Key.parse("bb") == Key.parse("A♯ minor")
    assert parse_or_none("♭") is None
    assert parse_or_none("8♭") is None


def test_deep_and_long_blocks_end_in_a_value_error() -> None:
    deep = "[" * 4000
    for text in (deep, base64.b64encode(deep.encode()[:3000]).decode(), '{"key":' * 500, "A" * 10**6, "1" * 4096):
        assert parse_or_none(text) is None


@given(KEYS)
def test_neighbors_are_one_step_on_the_wheel(key: Key) -> None:
    relative, up, down = key.neighbors()
    assert (relative.wheel, relative.mode == key.mode) == (key.wheel, False)
    assert (up.wheel - key.wheel) % 12 == 1
    assert (key.wheel - down.wheel) % 12 == 1
    assert up.mode == down.mode == key.mode
    assert key in relative.neighbors()
    assert key in up.neighbors()


@given(KEYS, st.integers(-40, 40))
def test_transposing_back_restores_the_key(key: Key, semitones: int) -> None:
    assert key.transposed(semitones).transposed(-semitones) == key
    assert key.transposed(semitones).tonic == (key.tonic + semitones) % 12
    assert key.transposed(12) == key
    assert key.parallel.parallel == key
    assert key.parallel.tonic == key.tonic


def test_the_order_of_all_keys_is_that_of_their_indices() -> None:
    keys = list(Key.all())
    assert [key.index for key in keys] == list(range(24))
    assert [Key.from_index(index) for index in range(24)] == keys
    assert keys[0].name == "C major"
    assert keys[21].name == "A minor"


@pytest.mark.parametrize(("tonic", "mode"), [(-1, "major"), (12, "minor"), (0, "dorian"), (0, "")])
def test_keys_out_of_range_are_refused(tonic: int, mode: str) -> None:
    with pytest.raises(ValueError, match="no such key"):
        Key(tonic, mode)  # type: ignore[arg-type]


def test_relation_to_names_the_related_keys() -> None:
    a_minor = Key.parse("Am")
    related = {key.relation_to(a_minor): key.musical for key in Key.all() if key.relation_to(a_minor) != "other"}
    assert related == {"same": "Am", "fifth up": "Em", "fifth down": "Dm", "relative": "C", "parallel": "A"}


@given(KEYS, KEYS)
def test_two_answers_agree_the_same_way_in_both_orders(one: Key, other: Key) -> None:
    assert one.agreement_with(other) == other.agreement_with(one)


def test_agreement_has_five_values() -> None:
    a_minor = Key.parse("Am")
    found = {key.musical: key.agreement_with(a_minor) for key in Key.all()}
    named = {"Am": "same", "C": "relative", "Em": "fifth", "Dm": "fifth", "A": "parallel"}
    assert found == dict.fromkeys(found, "clash") | named
    assert set(found.values()) == set(AGREEMENTS)


SIGNS = {"#": ("#", "♯", " sharp", "-Sharp", "is"), "b": ("b", "♭", " flat", "-Flat", "es")}
MODES = {
    "minor": ("m", "min", " minor", ":minor", "-Minor", " aeolian"),
    "major": ("", "maj", " major", ":maj", "-Major"),
}


@given(KEYS, st.sampled_from(NOTATIONS), st.data())
def test_every_spelling_is_read_and_written_again(key: Key, notation: Notation, data: st.DataObject) -> None:
    written = key.spelled(notation)
    assert Key.parse(written) == key
    assert len(written) <= 3
    assert Key.parse(written).spelled(notation) == written
    text = written
    if notation in ("camelot", "openkey"):
        text = data.draw(st.sampled_from([written, written.lower(), written.upper(), written.zfill(3), f" {written} "]))
    else:
        letter, sign = written[0], written[1:].removesuffix("m")
        mode = data.draw(st.sampled_from(MODES[key.mode]))
        spelled = data.draw(st.sampled_from(SIGNS[sign])) if sign else ""
        if spelled == "es" and letter in "AE":
            spelled = "b"  # German has As and Es
        text = f"{letter}{spelled}{' ' if len(spelled) > 1 and mode else ''}{mode}"
    assert Key.parse(text) == key, text
    assert Key.parse(f"{text} ({key.camelot})") == key
    other = data.draw(st.sampled_from(NOTATIONS))
    assert Key.parse(Key.parse(text).spelled(other)) == key


def test_sharps_and_flats_have_one_kind_of_accidentals() -> None:
    for key in Key.all():
        assert "b" not in key.spelled("sharps")
        assert "#" not in key.spelled("flats")
    assert [Key.parse(name).spelled("sharps") for name in ("Db", "Ebm", "Gb", "Abm", "Bb")] == [
        "C#",
        "D#m",
        "F#",
        "G#m",
        "A#",
    ]
    assert [Key.parse(name).spelled("flats") for name in ("C#m", "D#", "F#m", "G#", "A#m")] == [
        "Dbm",
        "Eb",
        "Gbm",
        "Ab",
        "Bbm",
    ]
