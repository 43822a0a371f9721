"""How this stone was installed: by pip, or as the download, which contains Python."""

from __future__ import annotations

import sys

RUN_MODULE = "--run-module"  # first argument with which the download runs one of MODULES, as python -m does
MODULES = frozenset({"stonecli.audio.other_decoders"})


def is_download() -> bool:
    """Whether this is the download; ``standalone/`` builds it with PyInstaller."""
    return bool(getattr(sys, "frozen", False))


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of ``MODULES`` in another process; it imports nothing from the current folder."""
    if is_download():
        return [sys.executable, RUN_MODULE, module, *arguments]
    return [sys.executable, "-P", "-m", module, *arguments]


def how_to_install(extra: str) -> str:
    """The end of the message about a missing package: the command that installs the extra to which it belongs."""
    if is_download():
        return f"the download does not include it; install stone with: pipx install 'stonecli[{extra}]'"
    return f"install it: pip install 'stonecli[{extra}]'"
