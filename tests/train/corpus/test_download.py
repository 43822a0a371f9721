"""Downloads of corpora, from a real server on this machine."""

from __future__ import annotations

import io
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stonecli_train.corpus.download import CORPORA, DownloadError, download, main
from stonecli_train.corpus.sources import MIX, READERS

TUNE = b"X:1\nT:A tune\nM:4/4\nL:1/4\nK:G\n|:" + b'"G"GBdB|"C"ceg2|"D7"adfa|"G"g4|' * 4 + b":|\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it serves."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    root = tmp_path / "served"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", root
        server.shutdown()
        thread.join()


def serve(root: Path, source: str, files: dict[str, bytes]) -> None:
    """Put the archive of a repository where GitHub has it: all files in one folder."""
    corpus = CORPORA[source]
    path = root / corpus.url.removeprefix("/")
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name-commit/", b"")
        for name, content in files.items():
            archive.writestr(f"name-commit/{name}", content)


def tunes(count: int = 14) -> dict[str, bytes]:
    return {f"ABC_cleaned/{number}.abc": TUNE for number in range(count)}


def test_only_scores_and_license_are_kept_and_can_be_read(host: tuple[str, Path], tmp_path: Path) -> None:
    address, root = host
    more = {"LICENSE": b"GPL", "MIDI/large.mid": b"x", "ABC_original/a.abc": TUNE, "../../outside.abc": TUNE}
    serve(root, "nottingham", tunes() | more)
    folder = tmp_path / "corpora"
    assert download("nottingham", folder, address)
    with zipfile.ZipFile(folder / "nottingham.zip") as file:
        assert sorted(file.namelist()) == sorted([*tunes(), "LICENSE", "SOURCE.txt"])
        assert b"license: GPL-3.0" in file.read("SOURCE.txt")
    assert len(list(READERS["nottingham"](folder / "nottingham", Counter()))) == 14
    assert [path.name for path in folder.iterdir()] == ["nottingham.zip"]


def test_paths_are_those_inside_the_corpus_folder(host: tuple[str, Path], tmp_path: Path) -> None:
    address, root = host
    songs = [f"{number:03}" for number in range(1, 910)]
    kinds = ("key_audio.txt", "chord_midi.txt", "{}.mid")
    files = {f"POP909/{song}/{kind.format(song)}": b"" for song in songs for kind in kinds}
    serve(root, "pop909", files | {"POP909/001/versions/001-v1.mid": b""})
    assert download("pop909", tmp_path, address)
    with zipfile.ZipFile(tmp_path / "pop909.zip") as file:
        assert {"001/001.mid", "909/key_audio.txt"} <= set(file.namelist())
        assert len(file.namelist()) == 1 + 3 * 909


def test_an_existing_corpus_is_not_downloaded(tmp_path: Path) -> None:
    (tmp_path / "pop909").mkdir()
    (tmp_path / "cocopops.zip").touch()
    for source in ("pop909", "cocopops"):
        assert not download(source, tmp_path, "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "the server answered 404"),
        (tunes(13), "13 scores instead of 14"),
        ({}, "0 scores instead of 14"),
    ],
)
def test_another_archive_leaves_no_files(
    files: dict[str, bytes] | None, reason: str, host: tuple[str, Path], tmp_path: Path
) -> None:
    address, root = host
    if files is not None:
        serve(root, "nottingham", files)
    with pytest.raises(DownloadError, match=reason):
        download("nottingham", tmp_path / "corpora", address)
    assert not list((tmp_path / "corpora").iterdir())


def test_a_file_that_is_not_a_zip_leaves_no_files(host: tuple[str, Path], tmp_path: Path) -> None:
    address, root = host
    serve(root, "nottingham", tunes())
    path = root / CORPORA["nottingham"].url.removeprefix("/")
    path.write_bytes(io.BytesIO(path.read_bytes()).getvalue()[:200])
    with pytest.raises(DownloadError, match="not a zip file"):
        download("nottingham", tmp_path / "corpora", address)
    assert not list((tmp_path / "corpora").iterdir())


def test_without_a_network_the_error_has_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--source", "pop909", "--host", "http://127.0.0.1:9"]) == 1
    errors = capsys.readouterr().err
    assert "refused" in errors.lower()
    assert (
        f"https://github.com/music-x-lab/POP909-Dataset yourself and save them as {tmp_path / 'pop909.zip'}" in errors
    )
    (tmp_path / "pop909.zip").touch()
    assert main([str(tmp_path), "--source", "pop909"]) == 0
    assert "already downloaded; 2727 files from music-x-lab/POP909-Dataset, license: MIT" in capsys.readouterr().out


def test_every_corpus_of_the_mix_can_be_downloaded() -> None:
    """Except the generated styles, and music21's corpus, which its Python package contains."""
    assert set(CORPORA) - {"groove"} == set(READERS) - {"music21"} == set(MIX) - {"styles", "music21"}
