from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.library.locations import Seen, Url, parse_location


@pytest.mark.parametrize(
    ("text", "name", "suffix"),
    [
        ("s3://bucket/a/b.mp3", "b.mp3", ".mp3"),
        ("s3://bucket/a/b?c#d.flac", "b?c#d.flac", ".flac"),  # a key may hold anything
        ("https://user:word@host/a%20b.mp3?signature=x/y.txt", "a b.mp3", ".mp3"),
        ("https://host/folder/", "", ""),
        ("memory://..", "..", ""),
        ("http://[/a.mp3", "a.mp3", ".mp3"),
    ],
)
def test_addresses(text: str, name: str, suffix: str) -> None:
    url = parse_location(text)
    assert isinstance(url, Url)
    assert (str(url), url.name, url.suffix) == (text, name, suffix)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b.mp3", "a/b.mp3"),
        ("s3:/bucket", "s3:/bucket"),  # as a path would be
        ("file:///music/a%20b%231.mp3", "/music/a b#1.mp3"),
        ("file:///music/a#1?.mp3", "/music/a#1?.mp3"),
        ("-", "-"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert parse_location(text) == Path(path)


@given(st.lists(st.text(st.characters(codec=None))))
def test_each_location_is_new_once(texts: list[str]) -> None:
    seen = Seen()
    assert sum(map(seen.add, texts)) == len({text.encode("utf-8", "backslashreplace") for text in texts}) == len(seen)
