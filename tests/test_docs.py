"""The documentation: examples run and type-check, commands and file names exist, figures can be drawn."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.fixture_types import CopySong, MakeModel

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)


def test_the_examples_run(
    song: CopySong, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "music"
    songs = {name: song(name, "song") for name in ("mp3", "flac")}
    before = {name: sha256(path.read_bytes()).hexdigest() for name, path in songs.items()}
    tiny_model(folder / "my_model.onnx")
    (folder / "broken.mp3").write_bytes(b"no music")
    (folder / "labels.csv").write_text("path,key\nsong.mp3,Dm\nsong.flac,F\n", encoding="utf-8")
    (folder / "music").mkdir()
    (folder / "music" / "other.flac").write_bytes(songs["flac"].read_bytes())
    monkeypatch.chdir(folder)
    outputs = []
    for example in EXAMPLES:
        done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    text = "".join(outputs)
    assert "7A Dm D minor" in text
    assert f"{Path('music', 'other.flac')} 7A" in text
    assert f"{Path('music', 'other.flac')} written 7A" in text
    assert "accuracy: 50.0%" in text
    assert "cannot be decoded: " in text
    assert text.count("restored, byte for byte") == 2  # files, one of them changed twice
    assert {name: sha256(path.read_bytes()).hexdigest() for name, path in songs.items()} == before


def test_the_examples_satisfy_a_strict_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    files = []
    for number, example in enumerate(EXAMPLES):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(example)
    flags = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *files],
        env={**os.environ, "MYPYPATH": str(ROOT)},  # mypy does not find an editable install
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=300,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert all("soundfile" in line for line in errors), done.stdout  # soundfile has no types
    assert f"checked {len(EXAMPLES)} source files" in done.stdout


def test_the_reference_has_every_command_and_option() -> None:
    pytest.importorskip("mkdocs")
    from stonecli.cli.help import COMMANDS

    text = _loaded("hooks").commands()
    sections = dict(part.split("\n", 1) for part in f"\n{text}".split("\n## stone ")[1:])
    assert set(COMMANDS) <= set(sections)
    assert "`--[no-]write-tags`: Write the keys" in sections["tag"]
    assert "{PATH" not in text


def test_links_to_files_outside_docs_lead_to_pages_of_the_site() -> None:
    pytest.importorskip("mkdocs")
    hooks = _loaded("hooks")

    def shown(page: str, markdown: str) -> str:
        return str(hooks.on_page_markdown(markdown, SimpleNamespace(file=SimpleNamespace(src_uri=page))))

    assert shown("index.md", "[a](../stonecli/model/MODEL_CARD.md#b)") == "[a](model-card.md#b)"
    assert shown("model-card.md", "![a](../../docs/reliability.svg)") == "![a](reliability.svg)"
    assert shown("contributing.md", "[docs/corpus.md](docs/corpus.md)") == "[docs/corpus.md](corpus.md)"
    assert shown("contributing.md", "[the licence](LICENSE), [x](https://example.org/LICENSE)") == (
        "the licence, [x](https://example.org/LICENSE)"
    )
    assert shown("index.md", "[a](../gone.md)") == "[a](../gone.md)"  # MkDocs reports it


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = re.findall(
        r"`((?:stonecli|train|export|tests|benchmarks|research|docs|\.ci)/[\w./-]*)`", (ROOT / page).read_text("utf-8")
    )
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_reference_to_a_document_outside_the_repository() -> None:
    known = {path.name for path in ROOT.rglob("*.md") if ".venv" not in path.parts}
    for folder in ("stonecli", "train", "export", "benchmarks", "tests", "docs", "research"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml"):
                named = set(re.findall(r"\b[A-Z][A-Z_-]{2,}\.md\b", path.read_text("utf-8")))
                assert named <= known, (path, named - known)


def test_the_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_figures.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("circle", "cpsd"):
        drawn, committed = (
            ElementTree.parse(folder / f"{name}.svg").getroot()  # noqa: S314 (our own)
            for folder in (tmp_path, ROOT / "docs")
        )
        assert drawn.get("viewBox") == committed.get("viewBox")
        assert min(sum(element.tag.endswith("}path") for element in root.iter()) for root in (drawn, committed)) > 20


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lines_of_stone() -> list[tuple[str, str]]:
    """The command lines of stone in the README and in the pages, each with its file."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(
            r"^ *```(?:sh|powershell)\n(.*?)^ *```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            for line in block.splitlines():
                for part in re.split(r"&&|\|\|?|; ", line.partition("  #")[0]):
                    if re.match(r" *(?:\S*[/\\])?stone ", part):
                        found.append((page.name, part.strip()))
    return found


def test_stone_accepts_every_command_line_in_the_docs() -> None:
    from typer.main import get_command

    from stonecli.cli.main import app

    commands: Any = get_command(app)
    lines = _lines_of_stone()
    assert len(lines) > 30
    for page, line in lines:
        _, name, *rest = line.split()
        if name.startswith("--") or name in ("help", "COMMAND"):
            continue
        assert name in commands.commands, (page, line)
        options = {
            option for param in commands.commands[name].params for option in (*param.opts, *param.secondary_opts)
        }
        for word in rest:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in options | {"--help"}, (page, line)


def test_the_readme_previews_before_it_writes() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    setup = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    assert len(setup) == 2  # all that a fresh machine needs, one line each; .ci/run runs them
    assert setup[0].endswith("stone tag ~/Music")
    assert text.index(setup[0]) < text.index("--write-tags")
    assert text.index("activate") < text.index("\nstone tag ~/Music --write-tags")
