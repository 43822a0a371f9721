"""The command ``stone`` with all that it can do, as documentation and tests want it."""

from __future__ import annotations

from stonecli.cli.app import make_app, run

__all__ = ["app", "run"]

app = make_app()
