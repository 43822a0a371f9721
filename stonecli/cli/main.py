"""The application with all commands, for the documentation and the tests."""

from __future__ import annotations

from stonecli.cli.app import make_app, run

__all__ = ["app", "run"]

app = make_app()
