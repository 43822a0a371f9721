"""Speed of the page of ``--html`` with 20,000 tracks: ``python benchmarks/page_speed.py [--tracks N] [--runs N]``.

Opens a page of generated tracks in headless Chromium. Prints the size of the page, and for loading, each sort, search
and filter, and the selection of a track, the median seconds until the result is on the screen, and the median CPU
seconds of the page's thread, which do not depend on other processes. The goals are 1.5 s to load, 0.3 s for the rest.
Needs ``pip install '.[dev]'``, chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stonecli.detection.estimate import KeyEstimate
from stonecli.detection.segments import Segment
from stonecli.key import Key
from stonecli.output.page import page_track, save_page
from stonecli.tags.track_info import TrackInfo

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)
LOADED = "const [entry] = performance.getEntriesByType('navigation'); return entry.loadEventEnd / 1000;"
# Runs a step, and waits until the browser has drawn its result: two frames later.
TIMED = """
const [step, done] = arguments, start = performance.now();
new Function(step)();
requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - start) / 1000)));
"""
SEARCH = (
    "const field = document.getElementById('{id}'); field.value = '{text}'; field.dispatchEvent(new Event('{event}'));"
)


def main() -> None:
    """Print the median times of each step as a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=20_000, help="number of tracks")
    parser.add_argument("--runs", type=int, default=5, help="times that each step is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "page.html"
        save_page(path, generated_tracks(arguments.tracks))
        print(f"{arguments.tracks:,} tracks, {path.stat().st_size / 1e6:.1f} MB")
        with chromium(Path(name) / "profile") as browser:
            print(f"{'':28} {'seconds':>7} {'CPU':>7}")
            for step, times in measured(browser, path, arguments.runs).items():
                seconds, cpu = (statistics.median(column) for column in zip(*times, strict=True))
                print(f"{step:28} {seconds:7.3f} {cpu:7.3f}")


def generated_tracks(count: int) -> list[dict[str, Any]]:
    """The page data of ``count`` tracks with random keys, tempos and tunings; a fifth of them change key."""
    random = np.random.default_rng(0)
    tracks = []
    for number in range(count):
        key = Key.from_index(int(random.integers(24)))
        last = key.transposed(1) if number % 5 == 0 else key
        seconds = float(random.integers(180, 420))
        half = Segment(0.0, seconds / 2, key, 0.8), Segment(seconds / 2, seconds, last, 0.7)
        probabilities = np.full(24, 0.3 / 23, dtype=np.float32)
        probabilities[key.index] = 0.7
        tuning = float(random.normal(0, 8))
        estimate = KeyEstimate(key, 0.7, probabilities, (), half if last != key else half[:1], tuning, seconds)
        info = TrackInfo(f"Title number {number}", f"Artist {number % 800}", bpm=float(random.integers(90, 150)))
        path = Path(f"/music/crates/house/Artist {number % 800} - Title number {number}.mp3")
        old = key if number % 3 else key.transposed(int(random.integers(12)))
        tracks.append(page_track(path, old, estimate, info, "kept", None, old.musical, old))
    return tracks


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Headless Chromium, driven by selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1400,900"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def measured(browser: Any, path: Path, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of each step, measured ``runs`` times."""
    times: dict[str, list[tuple[float, float]]] = {"load": []}
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    for _ in range(runs):
        browser.get("about:blank")
        browser.get(path.as_uri())
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        times["load"].append((browser.execute_script(LOADED), cpu_seconds(browser)))
        for name, step in steps(browser).items():
            before = cpu_seconds(browser)
            seconds = browser.execute_async_script(TIMED, step)
            times.setdefault(name, []).append((seconds, cpu_seconds(browser) - before))
        browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    return times


def cpu_seconds(browser: Any) -> float:
    """CPU seconds of the tasks of the page's thread since the page was opened."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def steps(browser: Any) -> dict[str, str]:
    """Scripts by the name of the step, in the order to run them."""
    columns = [button.text for button in browser.find_elements("css selector", "#names button")]
    found = {
        f"sort by {name}": f"document.querySelectorAll('#names button')[{index}].click()"
        for index, name in enumerate(columns)
    }
    for text in ("t", "title number 19", "8A", "~8A", "artist 7 ~3B", "no such track", ""):
        found[f"search {text!r}"] = SEARCH.format(id="search", text=text, event="input")
    found["BPM from 120"] = SEARCH.format(id="low", text="120", event="input")
    found["tag key: clash"] = SEARCH.format(id="relation", text="clash", event="change")
    found["clear filters"] = "document.getElementById('reset').click()"
    found["choose a key on the wheel"] = "document.querySelector('#wheel g').dispatchEvent(new Event('click'))"
    found["all keys"] = "document.getElementById('clear').click()"
    found["select a track"] = "document.querySelector('.row').click()"
    found["only what mixes"] = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'm' }))"
    found["show all tracks"] = "document.querySelector('#pin button').click()"
    found["scroll to the end"] = "document.getElementById('table').scrollTop = 1e9"
    return found


if __name__ == "__main__":
    main()
