"""The words of the repository: docs/glossary.md has those of the field; private ones and British spellings stay out."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("stonecli", "train", "export", "benchmarks", "docs", ".ci", ".github")
PROSE_FOLDERS = ("tests",)  # names in the code are to follow
HAVE_THE_WORDS = ("test_language.py", "test_layout.py", "old_names.py", "test_old_names.py")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
SUFFIXES = {".py", ".md", ".html", ".toml", ".yml", ".sh", ""}

WORDS = {
    r"hears?|heard|hearing|hearable|listen(s|ed|ing)? to": "detect, analyze, estimate",
    r"nought": "zero",
    r"anew": "again",
    r"steadiness|steadier": "equivariance",
    r"tempi": "tempos",
    r"metres?": "meter",
    r"lessons?": "pseudo-labels",
    r"already there|there already": "already exists, already rendered",
    r"(?:is|are) to come": "not yet run, not yet written",
    r"nothing to \w+ after": "a whole sentence with the remedy",
    r"kicked|kicks": "perturbed",
    r"wherein|whereof|thereof": "a plain clause",
    r"taken? back|takes back|taking back": "undo, undone",
    r"go(es|ne|ing)? on with": "resume, append",
    r"so many": "N, or a name of the number",
    r"is none of|are none of": "must be one of",
    r"(?:is|are|was|were) not there|at hand|of one's own": "missing, available, separate",
    r"ha(s|ve) to be had|as (is|are) those": "a plain clause",
    r"\w*neighbour\w*|\w*colour\w*|\w*behaviour\w*|favour\w*": "American spelling",
    r"labell\w+|normalis\w+|recognis\w+|organis\w+|initialis\w+|summaris\w+": "American spelling",
    r"harmonis\w+|equalis\w+|standardis\w+|quantis\w+|synchronis\w+": "American spelling",
    r"analysed|analysing|analyser|centred?|synthesis(ed|ing)": "American spelling",
}
IDENTIFIERS = {
    r"(least|longest|fewest)_\w+|\w+_least": "min_, max_",
    r"places? (?:=|in)|(?<=for )places?": "location, index, offset, position",
    r"most_(?!likely|probable|common|frequent|recent)\w+": "max_",
    r"\w+_an?_(file|second|window|thread|process|run|track)s?": "_per_",
}
UNITS = r"(?:files|seconds|ms|milliseconds|bytes|windows|MB|KB|rows|lines|objects|samples)"
PER = re.compile(rf"\b{UNITS} an? (?:file|second|window|thread|process|processor|core|recording|track|minute)\b")

# Names of other formats and of parts of the repository.
NAMES = re.compile(
    r"`?tests/\S+::\S+"  # names of tests
    r"|least_confidence|least_segment|sharpness\w*"  # names in model files and configurations of format 1
    r"|`kicks`|_?KICKS|\bkicks\b"  # kick drums
    r'|"tempi"|"lessons"'  # in tempo models and in configurations of old versions
)

# A docstring or comment that starts so is half a sentence: its subject is missing. So is a description of an argument
# such as "rate: of the samples".
FRAGMENT = re.compile(
    r'^(?:# (?:--- )?|""")(?:[Ww]hat|[Ww]hatever|[Ww]hoever|[Ww]hose)\b(?!.*\?)'
    r"|^[a-z_]+(?:, [a-z_]+)*: (?:of|by which|in which) (?!.*[=()])"
)


def texts() -> list[Path]:
    found = [ROOT / name for name in PAGES]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts and path.name not in HAVE_THE_WORDS]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and string literals of a Python file, docstrings among them, by lines with their numbers."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}  # Python 3.12
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in kinds:
                yield from enumerate(token.string.splitlines(), token.start[0])


def words_of(line: str) -> str:
    """The line with identifiers split into words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", NAMES.sub("", line))


WORD = re.compile("|".join(rf"(?P<w{number}>\b(?:{words})\b)" for number, words in enumerate(WORDS)), re.IGNORECASE)
IDENTIFIER = re.compile(
    "|".join(rf"(?P<i{number}>\b_*(?:{words})\b)" for number, words in enumerate(IDENTIFIERS)), re.IGNORECASE
)


def private_words(line: str) -> list[str]:
    """The words of the line that are not to be used, each with what to write instead."""
    found = []
    for match in WORD.finditer(words_of(line)):
        found.append(f"{match[0]!r}: {list(WORDS.values())[int(str(match.lastgroup)[1:])]}")
    for match in IDENTIFIER.finditer(NAMES.sub("", line)):
        found.append(f"{match[0]!r}: {list(IDENTIFIERS.values())[int(str(match.lastgroup)[1:])]}")
    found += [f"{match[0]!r}: per" for match in PER.finditer(line)]
    return found


def fragments(line: str) -> list[str]:
    """The start of a docstring or comment without a subject, such as ``What the tests share``."""
    return [f"{match[0]!r}: name the subject" for match in FRAGMENT.finditer(line)]


class TestWords:
    def test_they_are_those_of_the_field(self) -> None:
        found = [
            f"{path.relative_to(ROOT)}:{number}: {word}"
            for path in texts()
            for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
            for word in (*private_words(line), *(fragments(line.strip()) if path.suffix == ".py" else ()))
        ]
        assert not found, "\n".join(found)

    @pytest.mark.parametrize("folder", PROSE_FOLDERS)
    def test_comments_and_texts_have_those_of_the_field(self, folder: str) -> None:
        found = [
            f"{path.relative_to(ROOT)}:{number}: {word}"
            for path in sorted((ROOT / folder).rglob("*.py"))
            if path.name not in HAVE_THE_WORDS
            for number, line in prose(path)
            for word in (*private_words(line), *fragments(line))
        ]
        assert not found, "\n".join(found)

    def test_comments_and_strings_are_prose_and_names_are_not(self, tmp_path: Path) -> None:
        path = tmp_path / "module.py"
        path.write_text('"""What is\nheard."""\n\nplace = f"anew {1}"  # so many\n')
        assert [number for number, line in prose(path) if private_words(line)] == [2, 4, 4]

    @pytest.mark.parametrize(
        "line",
        [
            "what is heard at 44.1 kHz",
            "it was listened to",
            "def _hear(self) -> None:",
            "class Heard:",
            "the run is taken back",
            "--jobs: files at once, MB a file",
            "MOST_TEMPO_POINTS = 6.0",
            "cpu_ms_a_file = 3",
            "_LEAST_IN_FLIGHT = 4",
            "keys.neighbours()",
            "after so many seconds",
            "for place in range(3):",
            "its colour",
            "no encoder is at hand",
            "the device is not there",
            "after the normalisation",
            "TEMPI = (90, 120)",
            "the metre of the tune",
            "it is there already",
        ],
    )
    def test_a_private_word_is_found(self, line: str) -> None:
        assert private_words(line)

    @pytest.mark.parametrize(
        "line",
        ["# What is found", '"""What the tests share.', '"""Whatever its age.', "rate: of the samples", "x, y: of it"],
    )
    def test_half_a_sentence_is_found(self, line: str) -> None:
        assert fragments(line)

    @pytest.mark.parametrize("line", ["# that is what counts", '"""What is a key?"""', "what = 1  # the rest"])
    def test_a_whole_sentence_is_not(self, line: str) -> None:
        assert not fragments(line)

    @pytest.mark.parametrize("line", ["the shared key", "most_likely_path", "at least one file", "a window of a file"])
    def test_plain_english_is_not(self, line: str) -> None:
        assert not private_words(line)
