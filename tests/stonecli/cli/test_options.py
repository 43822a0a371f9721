from typer.main import get_command

from stonecli.cli.app import make_app
from stonecli.cli.main import app


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
