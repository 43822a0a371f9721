from typing import Any

import pytest

from stonecli.tagging import TagOptions
from stonecli.tags import FieldRule


class TestTagOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {"min_confidence": 1.1},
            {"min_confidence": -0.1},
            {"jobs": 0},
            {"remove": True, "overwrite": True},
            {"rules": (FieldRule("title", mode="replace"),)},
        ],
    )
    def test_values_out_of_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"must be|cannot be|never"):
            TagOptions(**options)

    def test_the_description_names_each_field_once(self) -> None:
        rules = (FieldRule("key", "camelot"), FieldRule("comment"))
        assert TagOptions(rules).description == "write key, comment"
        assert TagOptions(rules, remove=True).description == "remove key, comment"
