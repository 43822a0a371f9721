"""``python -m stonecli``: the command, for ``torchrun -m stonecli train``."""

from stonecli.cli.start import run

run()
