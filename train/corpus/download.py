"""Downloads the corpora of scores from their repositories, each at a fixed commit.

    python -m stonecli_train.corpus.download FOLDER --source pop909 --source cocopops

This writes ``FOLDER/SOURCE.zip``, which ``stonecli_train.corpus.render --corpus FOLDER`` reads. The zip contains only
the scores, the license and readme of the repository, and ``SOURCE.txt`` with its URL, the commit and the license. A
corpus that exists, as a folder or a zip, is not downloaded again.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import time
import urllib.error
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from stonecli.errors import StoneError, WebError
from stonecli.util.atomic_file import atomic_file
from stonecli.util.web import network_error, open_url
from stonecli_train.corpus import bach_chorales, cocopops, grooves, jazz_standards, nottingham, pop909
from stonecli_train.errors import message

MAX_BYTES = 512 << 20  # maximum size of a repository's archive
MAX_SECONDS = 3600.0  # maximum duration of a download
HOST = "https://github.com"
_BLOCK = 1 << 20


class DownloadError(StoneError):
    """A corpus cannot be downloaded, or its archive does not contain the expected files."""


@dataclass(frozen=True)
class Corpus:
    """A corpus of scores.

    Attributes:
        repository: owner and name on GitHub.
        commit: hash of the commit to download.
        scores: patterns of the paths of the scores; ``*`` also matches ``/``.
        count: number of scores at that commit.
        license: short name of the license.
        folder: prefix to remove from the paths.
    """

    repository: str
    commit: str
    scores: tuple[str, ...]
    count: int
    license: str
    folder: str = ""

    @property
    def url(self) -> str:
        """Path of the archive on the host."""
        return f"/{self.repository}/archive/{self.commit}.zip"


CORPORA: dict[str, Corpus] = {
    pop909.SOURCE: Corpus(
        "music-x-lab/POP909-Dataset",
        "d83e6edba6872a704f5d3b8b32f5cb540088dae6",
        ("POP909/???/???.mid", "POP909/???/key_audio.txt", "POP909/???/chord_midi.txt"),
        3 * 909,
        "MIT",
        folder="POP909/",
    ),
    cocopops.SOURCE: Corpus(
        "Computational-Cognitive-Musicology-Lab/CoCoPops",
        "6b04f4f99477dd97b6e98abd86a2448a481ddf7b",
        ("Billboard/Data/*.hum", "RollingStone/Data/*.hum"),
        414,
        "none stated",
    ),
    nottingham.SOURCE: Corpus(
        "jukedeck/nottingham-dataset",
        "0992bb6cd864f6d4b90d6663e08c0ef53ffaa08f",
        ("ABC_cleaned/*.abc",),
        14,
        "GPL-3.0",
    ),
    jazz_standards.SOURCE: Corpus(
        "mikeoliphant/JazzStandards",
        "47ca0d6b624514b065413ab3c480b36ed0c5b64e",
        ("JazzStandards.json",),
        1,
        "none stated",
    ),
    bach_chorales.SOURCE: Corpus(
        "craigsapp/bach-370-chorales",
        "0fd9e00542445a522c6030c80c687b874aa569d5",
        ("kern/*.krn",),
        370,
        "CC BY-NC-SA 4.0: not for commercial use",
    ),
    grooves.FOLDER: Corpus(  # the longer performances of the Groove MIDI Dataset by Gillick et al.
        "zharry29/drums-with-llm",
        "476adbc938a600eaca26bbb02648e6127b5eca64",
        ("data_midi/*.mid",),
        463,
        "CC BY 4.0",
    ),
}
"""All corpora that can be downloaded, by the name of the source; the package music21 includes its own corpus."""


def download(source: str, folder: Path, host: str = HOST) -> bool:
    """Download a corpus; returns False if it already exists in ``folder``, otherwise True.

    Args:
        source: a key of ``CORPORA``.
        folder: folder in which ``SOURCE.zip`` is written, atomically.
        host: URL of GitHub, or of a mirror with the same paths.

    Raises:
        DownloadError: the server or the network fails, or the archive does not contain the corpus.
        OSError: the folder cannot be written.
    """
    target = folder / f"{source}.zip"
    if target.exists() or (folder / source).is_dir():
        return False
    corpus = CORPORA[source]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as archive:
        _receive(host + corpus.url, archive)
        try:
            with zipfile.ZipFile(archive) as repository, atomic_file(target) as temporary:
                _select(repository, corpus, temporary)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise DownloadError(f"{host}{corpus.url} is not a zip file: {error}") from error
    return True


def _receive(url: str, file: IO[bytes]) -> None:
    """Download ``url`` to ``file``."""
    deadline = time.monotonic() + MAX_SECONDS
    try:
        with open_url(url, deadline) as response:
            while block := response.read(_BLOCK):
                file.write(block)
                if file.tell() > MAX_BYTES:
                    raise DownloadError(f"{url} is larger than {MAX_BYTES >> 20} MB")
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
    except WebError as error:
        raise DownloadError(f"{url}: {error}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url}: {network_error(error)}") from error


def _select(repository: zipfile.ZipFile, corpus: Corpus, target: Path) -> None:
    """Copy the scores, license and readme from a repository's archive, which has one top folder, to a new zip."""
    names = {name.partition("/")[2]: name for name in repository.namelist() if not name.endswith("/")}
    scores = [name for name in names if any(fnmatchcase(name, pattern) for pattern in corpus.scores)]
    if len(scores) != corpus.count:
        raise DownloadError(f"{corpus.repository}: the archive has {len(scores)} scores instead of {corpus.count}")
    about = f"{HOST}/{corpus.repository}\ncommit {corpus.commit}\nlicense: {corpus.license}\n"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("SOURCE.txt", about)
        for name in (name for name in names if "/" not in name and name.lower().startswith(("license", "readme"))):
            out.writestr(name, repository.read(names[name]))
        for name in sorted(scores):
            out.writestr(name.removeprefix(corpus.folder), repository.read(names[name]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0 if all corpora exist, 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m stonecli_train.corpus.download", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="folder of the corpora")
    parser.add_argument(
        "--source", action="append", choices=list(CORPORA), help="download only this corpus; repeatable (default: all)"
    )
    parser.add_argument("--host", default=HOST, help=f"download from a mirror with the same paths (default: {HOST})")
    options = parser.parse_args(arguments)
    for source in options.source or CORPORA:
        corpus = CORPORA[source]
        try:
            state = "downloaded" if download(source, options.folder, options.host) else "already downloaded"
        except (StoneError, OSError) as error:
            target = options.folder / f"{source}.zip"
            print(f"{source}: {message(error)}", file=sys.stderr)
            print(
                f"Download the scores from {HOST}/{corpus.repository} yourself and save them as {target},",
                file=sys.stderr,
            )
            print("or render without this source. Run the same command again to resume.", file=sys.stderr)
            return 1
        print(
            f"{source}: {state}; {corpus.count} files from {corpus.repository}, license: {corpus.license}", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
