"""The program inside the download: ``stone``, or with ``--run-module`` a part of it that needs a process of its own."""

import os
import runpy
import sys

from stonecli.cli.start import run
from stonecli.util.installation import MODULES, RUN_MODULE


def main() -> None:
    """Run ``stone`` with the arguments of this process."""
    restore_library_path()
    if sys.argv[1:2] == [RUN_MODULE] and sys.argv[2:3] and sys.argv[2] in MODULES:
        module = sys.argv[2]
        del sys.argv[1:3]
        runpy.run_module(module, run_name="__main__")
    else:
        run()


def restore_library_path() -> None:
    """Undo what PyInstaller's starter sets on Linux: the system's ffmpeg must not load our libraries."""
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        os.environ["LD_LIBRARY_PATH"] = original
    else:
        os.environ.pop("LD_LIBRARY_PATH", None)


if __name__ == "__main__":
    main()
