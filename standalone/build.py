"""Build the download for this system: stone with Python, onnxruntime's CPU build and ffmpeg, in one archive.

    python standalone/build.py [FOLDER]        (default: dist)

writes ``stone-VERSION-SYSTEM-MACHINE.tar.xz`` (on Windows ``.zip``) and runs ``try_download.py`` on it. It needs
Python 3.11 or newer with a shared library, and installs everything else into a temporary environment. The program runs
on systems whose C library is not older than the one here, so build it on the oldest system that it has to run on.
"""

import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MAX_BYTES = 150_000_000
IS_WINDOWS = os.name == "nt"
SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
TOOLS = ["pyinstaller>=6.16,<7", "pip-licenses>=5"]


def main(folder: Path) -> Path:
    """Build the archive in ``folder``, try it, and return its path.

    Raises:
        subprocess.CalledProcessError: a step failed; its output is on the screen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        python = new_environment(work / "environment")
        program = freeze(python, work)
        add_documents(python, program)
        archive = pack(program, folder)
    size = archive.stat().st_size
    print(f"{archive}: {size / 1e6:.0f} MB")
    if size > MAX_BYTES:
        raise SystemExit(f"more than {MAX_BYTES / 1e6:.0f} MB")
    run(sys.executable, HERE / "try_download.py", archive)
    return archive


def run(*command: str | Path, folder: Path | None = None) -> None:
    """Run a command and require success."""
    subprocess.run(command, check=True, cwd=folder)


def new_environment(folder: Path) -> Path:
    """Its Python, with stone, its base dependencies and the tools.

    onnxruntime's CPU build replaces the GPU build, which alone would be larger than the limit.
    """
    run(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts/python.exe" if IS_WINDOWS else "bin/python")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    run(*pip, *TOOLS, *cpu_dependencies(project["dependencies"]))
    run(*pip, "--no-deps", ROOT)
    return python


def cpu_dependencies(dependencies: list[str]) -> list[str]:
    """The dependencies with the CPU build of onnxruntime on every system."""
    others = [line for line in dependencies if not line.startswith("onnxruntime")]
    [version] = {line.split(";")[0].partition(">=")[2].strip() for line in dependencies if line not in others}
    return [*others, f"onnxruntime>={version}"]


def freeze(python: Path, work: Path) -> Path:
    """Run PyInstaller; the folder with the program."""
    out = work / "programs"
    options = ("--noconfirm", "--log-level=WARN", f"--distpath={out}", f"--workpath={work / 'build'}")
    run(python, "-m", "PyInstaller", *options, HERE / "stone.spec", folder=work)
    return out / "stone"


def add_documents(python: Path, program: Path) -> None:
    """Add the licenses of all packages inside, and a text that says how to start."""
    licenses = program / "LICENSES.txt"
    options = ("--from=mixed", "--with-urls", "--with-license-file", "--with-notice-file", "--no-license-path")
    run(python, "-m", "piplicenses", *options, "--format=plain-vertical", f"--output-file={licenses}")
    about = (ROOT / "docs" / "licenses.md").read_text(encoding="utf-8")
    licenses.write_text(f"{about}\n\n{licenses.read_text(encoding='utf-8')}", encoding="utf-8")
    (program / "LICENSE.txt").write_bytes((ROOT / "LICENSE").read_bytes())
    (program / "README.txt").write_bytes((HERE / "README.txt").read_bytes())


def archive_name() -> str:
    """For example ``stone-1.2.0-linux-x86_64.tar.xz``."""
    line = (ROOT / "stonecli" / "_version.py").read_text(encoding="utf-8")
    version = line.split('"')[1]
    ending = "zip" if IS_WINDOWS else "tar.xz"
    return f"stone-{version}-{SYSTEMS[sys.platform]}-{MACHINES[platform.machine().lower()]}.{ending}"


def pack(program: Path, folder: Path) -> Path:
    """The archive of the program's folder. It contains one folder, ``stone``."""
    archive = folder / archive_name()
    if IS_WINDOWS:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
            for path in sorted(program.rglob("*")):
                file.write(path, Path("stone") / path.relative_to(program))
    else:
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(program, "stone", filter=_as_root)
    return archive


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member without the name of the user who built it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "dist").resolve())
