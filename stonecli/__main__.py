"""``python -m stonecli``: the command, for ``torchrun -m stonecli train``."""

from stonecli.cli.main import run

run()
