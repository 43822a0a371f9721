"""The tree of tests: a file per module of the packages, and names that read as sentences."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PACKAGES = ("stonecli", "train", "export", "benchmarks", "standalone")


def modules(folder: Path) -> set[str]:
    """The names of the modules in a folder, as test files spell them."""
    return {path.stem.strip("_") for path in folder.glob("*.py")}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_test_file_mirrors_a_module(package: str) -> None:
    """``test_decode.py`` tests ``decode.py`` of the same folder, and so does ``test_decode_of_damaged_files.py``."""
    for path in (TESTS / package).rglob("test_*.py"):
        name = path.stem.removeprefix("test_")
        found = modules(ROOT / path.parent.relative_to(TESTS))
        assert any(name == module or name.startswith(f"{module}_") for module in found), path.relative_to(ROOT)


# Words of a private vocabulary, British spellings, and "what", which hides the subject of a sentence.
FORBIDDEN = re.compile(
    r"hears?|heard|hearing|listen(s|ed|ing)?( to)?|stretch(es)?|anew|nought|least|lone|keyless|sureness|(?<!in )places?"
    r"|taught|lessons?|said|folded|kicked|(taken|takes?|taking) back|(go|goes|gone) on with|left alone|(is|are) none"
    r"|mak(e|es) no sense|obeyed|heeded|nowhere|let go|by surprise|ones own"
    r"|stands? (as|for)|(not|nobody) there|taken out"
    r"|so many|what(ever)?|whichever|however many|colours?|neighbours?|behaviours?|licences?"
    r"|(recogn|normal|optim|organ|synthes|initial|harmon|equal)is(e|ed|es|er|ing|ation)|tempi|metres?|steadier"
)
MAX_CHARACTERS = 60


def names_of_tests() -> Iterator[tuple[Path, str]]:
    """The name of each test function with its file."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.relative_to(ROOT), node.name


def test_names_have_at_most_60_characters() -> None:
    assert [(path, name) for path, name in names_of_tests() if len(name) > MAX_CHARACTERS] == []


def test_names_are_plain_english() -> None:
    """See docs/glossary.md for the words to use."""
    found = [
        (path, name, word[0])
        for path, name in names_of_tests()
        for word in re.finditer(rf"\b({FORBIDDEN.pattern})\b", name.replace("_", " "))
    ]
    assert found == []
