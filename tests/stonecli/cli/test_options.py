from pathlib import Path

import pytest
from typer.main import get_command

from stonecli.cli.app import make_app
from stonecli.cli.main import app
from tests.fixture_types import CopySong, Invoke


def test_tag_and_watch_take_the_same_tag_options() -> None:
    commands = get_command(make_app(["tag", "watch"])).commands  # type: ignore[attr-defined]
    shared = ("write_tags", "field", "notation", "mode", "overwrite", "min_confidence", "preserve_mtime", "jobs")
    described = [
        [(param.name, param.opts, param.secondary_opts, param.help) for param in command.params if param.name in shared]
        for command in (commands["tag"], commands["watch"])
    ]
    assert [name for name, *_ in described[0]][:2] == ["write_tags", "field"]
    assert sorted(described[0]) == sorted(described[1])
    assert {name for name, *_ in described[0]} == set(shared)


def test_every_switch_can_be_turned_off() -> None:
    """The config file may have turned it on: ``[undo] dry-run = true``."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for param in command.params:
            if getattr(param, "is_flag", False) and not param.is_eager:
                assert param.secondary_opts, f"stone {name} {param.opts}"


@pytest.mark.parametrize("command", ["tag", "convert", "compare", "mix", "analyze"])
def test_quiet_prints_only_errors(invoke: Invoke, song: CopySong, command: str) -> None:
    song("flac")
    broken = song("flac", "broken")
    broken.write_bytes(b"no music")
    result = invoke(command, broken.parent, "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{broken}: ")
    assert result.stderr.count("\n") == 1
    both = invoke(command, broken.parent, "-q", "--json")
    assert (both.exit_code, "--quiet cannot be combined with --json" in both.stderr) == (2, True)


def test_a_quiet_undo(invoke: Invoke, song: CopySong) -> None:
    first, second = song("flac"), song("mp3")
    before = first.read_bytes()
    assert invoke("tag", first, second, "--write-tags", "-q").exit_code == 0
    second.write_bytes(b"changed")
    result = invoke("undo", "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{second}: ")
    assert result.stderr.count("\n") == 1
    assert first.read_bytes() == before
    assert invoke("undo", "-q", "--list").exit_code == 2


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (["--field", "key=openkey"], "12m"),
        (["--field", "comment=musical"], "Dm"),
        (["--field", "comment=musical", "--field", "key=openkey"], "12m"),
        (["--notation", "musical"], "Dm"),
    ],
)
def test_the_table_shows_the_written_notation(
    invoke: Invoke, song: CopySong, tmp_path: Path, fields: list[str], shown: str
) -> None:
    result = invoke("tag", song("flac"), *fields, "--rekordbox", tmp_path / "out.xml")
    assert result.stdout.splitlines()[1].split("\t")[2] == shown
    assert f'Tonality="{shown}"' in (tmp_path / "out.xml").read_text()
