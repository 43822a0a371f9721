"""Draw the pictures of the README and the site: ``python docs/make_pictures.py`` (a few minutes).

Makes a crate of generated music with invented names, runs the commands on it, and saves what they show:

- ``tag.svg``: ``stone tag`` in the terminal.
- ``page.webp``, ``page-light.webp``, ``page-phone.webp``, ``page-set.webp``: the page of ``--html`` in Chromium.
- ``analysis.webp``: the plot of ``stone analyze --plot``.

Needs ``pip install '.[dev]'``, chromium and chromedriver.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import mutagen.flac
import numpy as np
import soundfile
from PIL import Image
from rich.console import Console

from stonecli.cli import tag_screen
from stonecli.cli.main import app
from stonecli.key import Key
from stonecli_export.pitch_fork import play_key

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from page_speed import chromium

DOCS = Path(__file__).parent
RATE = 22050
FONT_ADDRESS = re.compile(r',\s*url\("https?://[^"]*"\) format\("woff2?"\)')  # the picture must not load a font
ARTISTS = (
    *("Mara Lindqvist", "Oto & Vey", "The Night Ferry", "Kassia Rhode", "Luma Field", "Ben Okoro", "Pilot Whale"),
    *("Hanne Bruun", "Saffron Tape", "Delta Arcade", "Ines Moura", "Rue Nine", "Tomoko Arai", "Glass Meridian"),
)
TITLES = (
    *("Low Tide", "Paper Lanterns", "Northbound", "Second Sunrise", "Static Garden", "Velvet Rails", "Afterglow"),
    *("Copper Sky", "Seven Bridges", "Wildfire Dub", "Hold the Line", "Moth", "Ultramarine", "Late Checkout"),
    *("Signal Lost", "Tangerine", "Slow Elevator", "Kinetic", "Salt & Neon", "Ghost Notes", "Harbor Lights"),
    *("Parallax", "Undertow", "Rooftop", "Marble", "Echo Park Drive", "Blue Hour", "Fever Logic", "Terra"),
    *("Sidewalk Choir", "Open Window", "Orbit", "Sugar Static", "Long Way Down", "Mirrorball", "Quartz"),
    *("Rainmaker", "Halcyon", "Overpass", "Last Train Out"),
)
KEYS = ("Am", "Em", "C", "G", "Dm", "F", "Bm", "Gm", "Fm", "Cm", "F#m", "D")
# Adds tracks to the set, each the cheapest after the one before, and once a clash.
BUILD_SET = """
const free = tracks.filter(track => track.key >= 0);
let last = free.find(track => keys[track.key].camelot === "8A");
addToSet(last);
while (set.length < 8) {
  const left = free.filter(track => !set.includes(track));
  const cost = track => transition(last, track).cost;
  left.sort((one, other) => cost(one) - cost(other));
  last = (set.length === 5 && left.find(track => transition(last, track).clashes)) || left[0];
  addToSet(last);
}
byId("set-name").value = "Saturday";
"""
SELECT = "select(tracks.find(track => track.segments.length > 1 && !set.includes(track)), { scroll: false });"
SHOTS = {  # file: color scheme, width, height, script
    "page.webp": ("dark", 1440, 900, BUILD_SET + SELECT),
    "page-light.webp": ("light", 1440, 900, BUILD_SET + "pin(set[2]); select(set[2]);"),
    "page-phone.webp": ("dark", 390, 780, BUILD_SET + "select(set[1]);"),
    "page-set.webp": ("dark", 390, 780, BUILD_SET + "view('set');"),
}


def main() -> None:
    """Draw all pictures, and print their sizes."""
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        crate = Path("Music", "Saturday")
        make_crate(crate)
        run("tag", crate, "--overwrite", "--no-cache", "--quiet", "--html", "keys.html")
        draw_pages(Path(name, "keys.html"))
        draw_plot(crate)
        draw_terminal(crate)
        os.chdir(DOCS)
    for picture in ("tag.svg", "analysis.webp", *SHOTS):
        print(f"{picture:16} {(DOCS / picture).stat().st_size / 1000:6.0f} kB")


def run(*arguments: str | Path) -> None:
    """Run a command of stone in this process."""
    app([str(argument) for argument in arguments], standalone_mode=False)


def make_crate(folder: Path) -> None:
    """Files of three to seven minutes. Some have a key in their tags, in several spellings; not all are right."""
    random = np.random.default_rng(6)
    folder.mkdir(parents=True)
    for number, title in enumerate(TITLES):
        key = Key.parse(KEYS[int(random.integers(len(KEYS)))])
        last = key.relative if number % 7 == 3 else key
        length, rate = float(random.integers(180, 420)), RATE * 2 ** (float(random.normal(0, 5)) / 1200)
        parts = [(key, 0.65), (last, 0.35)]
        sound = np.concatenate([tiled(part, number % 3, share * length, rate) for part, share in parts])
        sound += random.normal(0, 0.02 + 0.1 * random.random(), len(sound)).astype(np.float32)
        artist = ARTISTS[int(random.integers(len(ARTISTS)))]
        path = folder / f"{artist} - {title}.flac"
        soundfile.write(path, 0.5 * sound / np.abs(sound).max(), RATE)
        tags = mutagen.flac.FLAC(path)
        tags["title"], tags["artist"] = title, artist
        tags["bpm"] = str(round(float(random.normal(124, 1.8)), 1))
        old = (key, key, key, key.relative, key.transposed(7), key.transposed(3), None, None)[number % 8]
        if old is not None:
            tags["initialkey"] = (old.camelot, old.musical, old.open_key)[number % 3]
        tags.save()


def tiled(key: Key, timbre: int, seconds: float, rate: float) -> Any:
    """The cadence of ``key``, repeated. Played at ``RATE``, it is as sharp or flat as ``rate`` differs from it."""
    cadence = play_key(key, timbre, 8.0, round(rate))
    return np.resize(cadence, round(seconds * RATE))


def draw_pages(page: Path) -> None:
    """Pictures of the page, at twice its size on phones."""
    with chromium(Path("profile")) as browser:
        for name, (scheme, width, height, script) in SHOTS.items():
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1.25, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
            browser.get(page.as_uri())
            browser.execute_script("localStorage.clear(); sessionStorage.clear();")
            browser.get("about:blank")
            browser.get(page.as_uri())
            browser.execute_script(script)
            browser.execute_script("byId('announcement').style.display = 'none'")
            browser.execute_async_script("setTimeout(arguments[0], 500)")  # transitions end
            save(io.BytesIO(browser.get_screenshot_as_png()), DOCS / name)


def draw_plot(crate: Path) -> None:
    """The plot of a track that changes key."""
    song = next(crate.glob(f"* - {TITLES[3]}.flac"))
    run("analyze", song, "--plot", "analysis.png")
    save(Path("analysis.png"), DOCS / "analysis.webp")


def draw_terminal(crate: Path) -> None:
    """The output of ``stone tag --write-tags`` for eleven of the tracks."""
    folder = Path("terminal", "Saturday")
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(crate.iterdir())[:11]):
        tags = mutagen.flac.FLAC(shutil.copy(path, folder))
        if number % 4:
            tags.pop("initialkey", None)
        tags.save()
    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor", highlight=False
    )
    draw_progress = tag_screen.progress_bar
    tag_screen.output_console = lambda: console  # runs the command itself on a console that records
    # A still picture needs no progress bar.
    tag_screen.progress_bar = lambda out, err, hidden=False: draw_progress(out, err, hidden=True)
    console.print("$ stone tag ~/Saturday --write-tags")
    os.chdir(folder.parent)
    run("tag", folder.name, "--write-tags", "--no-cache", "--jobs", "1")
    (DOCS / "tag.svg").write_text(FONT_ADDRESS.sub("", console.export_svg(title="stone")), encoding="utf-8")


def save(source: Path | io.BytesIO, target: Path) -> None:
    """Save a picture as WebP, which is a fifth of the size of PNG."""
    Image.open(source).convert("RGB").save(target, quality=82, method=6)


if __name__ == "__main__":
    main()
