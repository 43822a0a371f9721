"""The page of 20,000 tracks: few rows in the document, and the times that the benchmark measures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stonecli.output.page import save_page

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from page_speed import chromium, generated_tracks, measured

MANY = 20_000
LOAD_SECONDS, STEP_SECONDS = 1.5, 0.3


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    pytest.importorskip("selenium", reason="needs selenium (pip install '.[dev]')")
    with chromium(tmp_path / "profile") as driver:
        yield driver


@pytest.mark.slow
def test_a_page_of_20000_tracks_is_fast(browser: Any, tmp_path: Path) -> None:
    """The page's thread needs at most half of the time that the user waits, so that drawing has the other half.

    CPU time counts, because other processes may use the same cores.
    """
    save_page(tmp_path / "page.html", generated_tracks(MANY))
    times = {
        step: min(cpu for _, cpu in found) for step, found in measured(browser, tmp_path / "page.html", runs=2).items()
    }
    assert 0 < times.pop("load") < LOAD_SECONDS / 2
    assert len(times) > 15
    assert {step: seconds for step, seconds in times.items() if seconds >= STEP_SECONDS / 2} == {}
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.find_element("id", "count").text == "20,000 tracks"
    assert 15 < len(browser.find_elements("css selector", ".row")) < 80
