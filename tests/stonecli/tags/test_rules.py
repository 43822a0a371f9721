import pytest

from stonecli.tags.rules import FieldRule, parse_rules


def test_named_fields_become_rules() -> None:
    assert parse_rules([], "camelot", "prepend") == ()
    assert parse_rules(["key", "comment=openkey", "title"], "musical", "append") == (
        FieldRule("key", "musical", "replace"),
        FieldRule("comment", "openkey", "append"),
        FieldRule("title", "musical", "append"),
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["album"], "must be one of key, comment, grouping, title, not 'album'"),
        (["key=german"], "must have one of the notations camelot, openkey, .*, not 'german'"),
        (["key="], "must have one of the notations camelot, openkey, .*, not ''"),
        (["comment=camelot", "key", "comment=openkey"], "must not name 'comment' twice"),
        (["key", "key"], "must not name 'key' twice"),
    ],
)
def test_an_invalid_rule_is_named_in_the_error(fields: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_rules(fields, "camelot", "prepend")
