"""Each registry of docs/architecture.md as a whole: no row is forgotten in the program, the help or the documentation.

Containers have a test of their own in tests/stonecli/tags/formats/test_containers.py, and the fields of the network in
tests/export/test_graph.py. A recording is read from each storage in tests/stonecli/remote/test_storage.py.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from stonecli.cli.help import COMMANDS, program_help
from stonecli.key import NOTATIONS, Key, Notation
from stonecli.library.locations import Url, parse_location
from stonecli.output import TABLE_SUFFIXES
from stonecli.output.records import tag_record
from stonecli.output.table_file import OutputFile
from stonecli.remote.storage import STORAGES, storage_of
from stonecli.tags.fields import OWN_SPELLINGS, with_key

ROOT = Path(__file__).parents[1]


def help_of(command: str) -> str:
    """The help of a command as one line, without the breaks of the terminal."""
    from typer.testing import CliRunner

    from stonecli.cli.app import make_app

    return " ".join(CliRunner().invoke(make_app(), [command, "--help"]).output.split())


class TestCommands:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_has_a_function_and_its_own_help(self, command: str) -> None:
        function = getattr(import_module(f"stonecli.cli.{command}"), command)
        assert function.__doc__.startswith(COMMANDS[command])
        assert COMMANDS[command] in help_of(command)
        assert f"  {command} " in program_help()

    def test_each_module_with_a_command_is_listed(self) -> None:
        found = {
            name
            for path in (ROOT / "stonecli" / "cli").glob("*.py")
            for name in re.findall(r"^@one_line_errors\n(?:@.*\n)*def (\w+)\(", path.read_text("utf-8"), re.MULTILINE)
        }
        assert found == set(COMMANDS)


class TestNotations:
    def test_the_type_names_each(self) -> None:
        assert get_args(Notation) == NOTATIONS

    def test_no_two_are_the_same(self) -> None:
        spelled = {notation: tuple(key.spelled(notation) for key in Key.all()) for notation in NOTATIONS}
        assert len(set(spelled.values())) == len(NOTATIONS), "add a case to Key.spelled"

    @pytest.mark.parametrize("notation", NOTATIONS)
    def test_each_spells_24_keys_that_are_read_again(self, notation: Notation) -> None:
        spelled = [key.spelled(notation) for key in Key.all()]
        assert [Key.parse(text) for text in spelled] == list(Key.all())
        assert len(set(spelled)) == 24
        assert all(text.isascii() and len(text) <= 3 for text in spelled), "the limit of ID3 TKEY"

    @pytest.mark.parametrize("letter", sorted(text for text in OWN_SPELLINGS if len(text) == 1))
    def test_a_single_letter_is_a_word_unless_it_is_the_key(self, letter: str) -> None:
        assert with_key(f"{letter} - Side", "8A", "comment", "prepend") == f"8A - {letter} - Side"
        assert with_key(f"{letter} - Side", "8A", "comment", "prepend", Key.parse(letter)) == "8A - Side"

    @pytest.mark.parametrize("notation", NOTATIONS)
    def test_each_is_in_help_and_documentation(self, notation: Notation) -> None:
        assert notation in help_of("tag")
        assert f"`{notation}`" in (ROOT / "docs" / "tags.md").read_text("utf-8")
        assert f"--notation {notation}" in (ROOT / "docs" / "tagging.md").read_text("utf-8")


class TestStorages:
    @pytest.mark.parametrize("protocol", [protocol for storage in STORAGES for protocol in storage.protocols])
    def test_each_protocol_has_one_storage_and_is_documented(self, protocol: str) -> None:
        url = parse_location(f"{protocol}://host/music/a.mp3")
        assert isinstance(url, Url)
        assert [storage for storage in STORAGES if protocol in storage.protocols] == [storage_of(url)]
        assert f"`{protocol}://`" in (ROOT / "docs" / "cluster.md").read_text("utf-8")

    def test_the_last_one_is_for_all_other_protocols(self) -> None:
        assert (
            [storage for storage in STORAGES if not storage.protocols] == [STORAGES[-1]] == [storage_of(Url("gs://a"))]
        )


class TestOutputFormats:
    @pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
    def test_each_is_written(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"keys{suffix}"
        with OutputFile(path) as file:
            for name in ("a.mp3", "b.mp3"):
                file.write(tag_record(Path(name), None, "no such file", None))
        text = path.read_text("utf-8")
        assert "a.mp3" in text, "write the record in stonecli/output/table_file.py"
        assert "b.mp3" in text

    @pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
    def test_each_is_in_help_and_documentation(self, suffix: str) -> None:
        assert all(suffix in help_of(command) for command in ("tag", "convert", "compare"))
        assert suffix in (ROOT / "docs" / "formats.md").read_text("utf-8")


class TestConfigurations:
    @pytest.mark.parametrize("path", sorted((ROOT / "train" / "configs").glob("*.toml")), ids=lambda path: path.stem)
    def test_each_is_in_the_documentation(self, path: Path) -> None:
        assert path.name in (ROOT / "docs" / "training.md").read_text("utf-8")
