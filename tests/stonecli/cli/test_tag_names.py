"""``stone tag`` on files whose names are odd: no option, no URL, no markup and no terminal escape."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from stonecli.util.text import unescaped
from tests.fixture_types import CopySong, Invoke, RunStone
from tests.stonecli.cli.tag_table import key_in

NAMES: list[str | bytes] = [
    "two  spaces",
    'it\'s "quoted"',
    "[red]loud[bold]",
    "line\nbreak\tand tab",
    "\x1b[31mred\x1b]0;title\x07",
    "🎹 Ünï ‮rtl",
    "-leading --dashes",
    b"not \xff\xfe UTF-8",
    "http:",
    "concat:a|b",
]


class TestOddNames:
    def test_names_are_never_read_as_options_or_urls(
        self, stone: RunStone, songs: Mapping[str, Path], folder: Path
    ) -> None:
        paths = []
        for name in NAMES:
            for container in ("mp3", "m4a aac"):
                path = folder / (os.fsdecode(name) + songs[container].suffix)
                paths.append(Path(shutil.copy(songs[container], path)))
                path.with_suffix(".flac").write_text("broken, with the same name")
        # Named one by one from within the folder, so that each name comes first in its argument.
        result = stone("tag", "--write-tags", "--", *(os.fsencode(path.name) for path in paths), cwd=folder)
        assert (result.returncode, result.stderr) == (0, "")
        assert all(key_in(path) == "7A" for path in paths)
        assert result.stdout.count("\twritten\n") == len(result.stdout.splitlines()) - 1 == len(paths)
        # And as they come out of a folder, the broken ones too.
        again = stone("tag", "--write-tags", folder)
        assert again.returncode == 1
        assert again.stdout.count("\tkept\n") == len(paths)
        assert len(again.stderr.splitlines()) == len(NAMES)
        for text in (result.stdout, again.stdout, again.stderr):
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
        for text in (again.stdout, again.stderr):
            assert "[red]loud[bold]" in text
            assert "line\\nbreak\\tand tab" in text
            assert "\\x1b[31mred\\x1b]0;title\\x07" in text
            assert "not \\xff\\xfe UTF-8" in text

    def test_names_in_json_and_csv_come_back(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
        paths = [song("flac", os.fsdecode(name)) for name in NAMES]
        result = invoke("tag", *paths, "--json", "--output", tmp_path / "out.csv")
        assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == [str(path) for path in paths]
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            assert [unescaped(row["path"]) for row in csv.DictReader(file)] == [str(path) for path in paths]

    def test_a_list_on_standard_input(self, stone_command: list[str], song: CopySong) -> None:
        paths = [song("mp3", "a\nb"), song("flac")]
        listing = b"\0".join(os.fsencode(path) for path in paths)
        process = subprocess.run(
            [*stone_command, "tag", "-0", "--json", "-"], input=listing, capture_output=True, check=True
        )
        assert [json.loads(line)["path"] for line in process.stdout.splitlines()] == [str(path) for path in paths]
