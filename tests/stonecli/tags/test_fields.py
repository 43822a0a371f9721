import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.errors import TagError
from stonecli.key import NOTATIONS, Key
from stonecli.tags.fields import OWN_SPELLINGS, SEPARATOR, checked_utf8, with_key, without_key
from stonecli.tags.rules import Field, WriteMode

TEXTS = st.text() | st.sampled_from(["8A - x", "x - 8A", "E - Motion", "Plan - B", " - ", "8A", "A", "", " ", "8A - "])
TEXTS |= st.from_regex(r"(8A|Am|C)?( - | \| )?(Energy )?(6|10|12)?( - | \| )?(7A|mine)?", fullmatch=True)
SPELLINGS = st.sampled_from(sorted(OWN_SPELLINGS))


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        (None, "prepend", "8A"),
        ("", "append", "8A"),
        ("  ", "prepend", "8A"),
        ("played at dawn", "prepend", "8A - played at dawn"),
        ("played at dawn", "append", "played at dawn - 8A"),
        ("played at dawn", "replace", "8A"),
        ("8A - played", "prepend", "8A - played"),
        ("Am - played", "prepend", "8A - played"),
        ("1m - played", "prepend", "8A - played"),
        ("12B - played", "prepend", "8A - played"),
        ("C - played", "prepend", "8A - C - played"),  # a letter may be a word: "A - Side"
        ("Side - B", "append", "Side - B - 8A"),
        ("A", "prepend", "8A - A"),
        ("played - 12B", "append", "played - 8A"),
        ("7A", "prepend", "8A"),
        ("7A", "append", "8A"),
        ("A minor thing", "prepend", "8A - A minor thing"),
        ("8a - played", "prepend", "8A - 8a - played"),  # not as we spell it
        ("13A - played", "prepend", "8A - 13A - played"),
        ("8A- played", "prepend", "8A - 8A- played"),
        # Mixed In Key's own texts, which stay as they are
        ("4A - Energy 6", "prepend", "8A - 4A - Energy 6"),
        ("4A - 6", "prepend", "8A - 4A - 6"),
        ("Fm - Energy 10 - mine", "prepend", "8A - Fm - Energy 10 - mine"),
        ("9m - 6 | mine", "prepend", "8A - 9m - 6 | mine"),
        ("8A - Energy 6", "prepend", "8A - Energy 6"),  # says so already
        ("4A - Energy 6", "append", "4A - Energy 6 - 8A"),
        ("4A - Energy 6 - 7A", "append", "4A - Energy 6 - 8A"),
        ("9A - 4A - Energy 6", "prepend", "8A - 4A - Energy 6"),  # ours in front of theirs
        ("Energy 6", "prepend", "8A | Energy 6"),
        ("7A | Energy 6", "prepend", "8A | Energy 6"),
        ("8A | Energy 6", "prepend", "8A | Energy 6"),
        ("6", "prepend", "8A | 6"),
        ("7A | played", "prepend", "8A - 7A | played"),  # not as we write it
        ("7A - Energy 60", "prepend", "8A - Energy 60"),
        ("7A - 12 inch", "prepend", "8A - 12 inch"),
        ("7A - 6 string", "prepend", "8A - 6 string"),
    ],
)
def test_comment_with_key(text: str | None, mode: WriteMode, expected: str) -> None:
    assert with_key(text, "8A", "comment", mode) == expected


@pytest.mark.parametrize(
    ("text", "mode", "spelling", "expected"),
    [
        ("Motion", "prepend", "8A", "8A - Motion"),
        ("Motion", "append", "Am", "Motion - Am"),
        ("7A - Motion", "prepend", "8A", "8A - Motion"),
        ("F#m - Motion", "prepend", "Am", "Am - Motion"),
        ("E - Motion", "prepend", "8A", "8A - E - Motion"),  # a word, for all we know
        ("Plan - B", "append", "8A", "Plan - B - 8A"),
        ("E - Motion", "prepend", "E", "E - Motion"),
        ("8A", "prepend", "7A", "7A - 8A"),  # a title may be just that
        ("22", "prepend", "8A", "8A - 22"),
        ("7A - 7", "prepend", "8A", "8A - 7"),
        (None, "prepend", "8A", None),
        ("", "append", "8A", ""),
    ],
)
def test_title_with_key(text: str | None, mode: WriteMode, spelling: str, expected: str | None) -> None:
    assert with_key(text, spelling, "title", mode) == expected


@pytest.mark.parametrize(
    ("text", "field", "mode", "expected"),
    [
        ("8A - played", "comment", "prepend", "played"),
        ("played - Am", "comment", "append", "played"),
        ("8A - played", "comment", "append", "8A - played"),
        ("played - 8A", "comment", "replace", "played - 8A"),
        ("8A", "comment", "replace", None),
        ("8A", "grouping", "prepend", None),
        (None, "grouping", "prepend", None),
        ("E - Motion", "title", "prepend", "E - Motion"),
        ("Bbm - Motion", "title", "prepend", "Motion"),
        ("8A", "title", "prepend", "8A"),
        ("warm - 8A - up", "comment", "prepend", "warm - 8A - up"),
        ("8A - Energy 6", "comment", "prepend", "8A - Energy 6"),
        ("8A - 6", "grouping", "prepend", "8A - 6"),
        ("8A | Energy 6", "comment", "prepend", "Energy 6"),
        ("8A - 4A - Energy 6", "comment", "prepend", "4A - Energy 6"),
        ("8A | mine", "comment", "prepend", "8A | mine"),
        ("8A - 7", "title", "prepend", "7"),
    ],
)
def test_without_key(text: str | None, field: Field, mode: WriteMode, expected: str | None) -> None:
    assert without_key(text, field, mode) == expected


class TestLetters:
    """A to G are spellings of major keys, and words."""

    @pytest.mark.parametrize(
        ("text", "mode", "current", "expected"),
        [
            ("C - played", "prepend", "C", "8A - played"),
            ("C - played", "prepend", "8B", "8A - played"),
            ("C - played", "prepend", "Am", "8A - C - played"),
            ("played - C", "append", "C", "played - 8A"),
            ("C", "prepend", "C", "8A"),
        ],
    )
    def test_the_key_of_the_file_is_replaced(self, text: str, mode: WriteMode, current: str, expected: str) -> None:
        assert with_key(text, "8A", "comment", mode, Key.parse(current)) == expected

    def test_in_a_title_they_are_always_words(self) -> None:
        assert with_key("C - Side", "8A", "title", "prepend", Key.parse("C")) == "8A - C - Side"

    def test_only_the_key_of_the_file_is_removed(self) -> None:
        assert without_key("A - Side", "comment", "prepend") == "A - Side"
        assert without_key("A - Side", "comment", "prepend", Key.parse("Dm")) == "A - Side"
        assert without_key("A - Side", "comment", "prepend", Key.parse("A")) == "Side"


@given(TEXTS, SPELLINGS, st.sampled_from(["comment", "grouping", "title"]), st.sampled_from(["prepend", "append"]))
def test_a_second_run_changes_nothing(text: str, spelling: str, field: Field, mode: WriteMode) -> None:
    once = with_key(text, spelling, field, mode)
    assert with_key(once, spelling, field, mode) == once


@given(TEXTS, SPELLINGS, SPELLINGS, st.sampled_from(["comment", "grouping"]), st.sampled_from(["prepend", "append"]))
def test_the_user_text_is_restored(text: str, first: str, second: str, field: Field, mode: WriteMode) -> None:
    users = without_key(text, field, mode)
    if users is not None and without_key(users, field, mode) != users:
        return  # a key in front of a key: the second is the user's until the first is gone
    keys = Key.parse(first), Key.parse(second)
    written = with_key(with_key(users, first, field, mode), second, field, mode, keys[0])
    assert (without_key(written, field, mode, keys[1]) or "").strip() == (users or "").strip()


def test_own_spellings_are_those_of_all_notations() -> None:
    assert len(OWN_SPELLINGS) == 82  # 24 of Camelot, 24 of Open Key, 34 note names: ten keys have two
    assert {Key.parse("Am").spelled(notation) for notation in NOTATIONS} == {"8A", "1m", "Am"} <= OWN_SPELLINGS
    assert {Key.parse("Bbm").spelled(notation) for notation in NOTATIONS} == {"3A", "8m", "Bbm", "A#m"} <= OWN_SPELLINGS
    assert not any(SEPARATOR in spelling for spelling in OWN_SPELLINGS)


def test_text_that_is_not_utf8_is_refused() -> None:
    assert checked_utf8("ü".encode()) == b"\xc3\xbc"
    with pytest.raises(TagError, match="not UTF-8"):
        checked_utf8(b"\xfc")
