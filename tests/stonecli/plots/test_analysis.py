import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from stonecli.detection.chroma import Chroma
from stonecli.detection.estimate import KeyEstimate
from stonecli.plots.analysis import Picture, Theme, _draw, save_analysis_plot
from tests.fixture_types import LimitFileSize

pytest.importorskip("matplotlib", reason="needs matplotlib (pip install '.[plot]')")
from matplotlib.backends.backend_agg import FigureCanvasAgg

EstimateOf = Callable[..., KeyEstimate]
EVIL = "evil $x^2 \\frac{1}$ <b>&\n\x1b[31m " + "very long " * 30 + ".mp3"


def picture(estimate: KeyEstimate, name: str = "song.mp3") -> Picture:
    return Picture(name, estimate, Chroma(np.random.default_rng(0).random((12, 40), dtype=np.float32), 0.75))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["song.mp3", EVIL])
@pytest.mark.parametrize("key", ["Am", "F#", None])
def test_no_two_texts_overlap_and_all_are_on_the_page(
    estimate_of: EstimateOf, theme: Theme, name: str, key: str | None
) -> None:
    figure = _draw(picture(estimate_of(key, changes_to="Eb" if key else None), name), theme)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found: list[Any] = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    texts = [text for text in found if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts if text.get_visible()]
    assert len(boxes) > 40
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)


@pytest.mark.parametrize("name", ["a.png", "a.SVG", "a.pdf"])
def test_a_full_disk_is_named_and_the_old_plot_stays(
    estimate_of: EstimateOf, tmp_path: Path, no_room: LimitFileSize, name: str
) -> None:
    path = tmp_path / name
    path.write_text("the plot of last time")
    with pytest.raises(OSError, match="File too large") as caught, no_room():
        save_analysis_plot(path, [picture(estimate_of("Am"))])
    assert caught.value.filename == str(path)
    assert path.read_text() == "the plot of last time"
    assert [*tmp_path.iterdir()] == [path]


def test_formats(estimate_of: EstimateOf, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ending in ("png", "svg", "pdf"):
            save_analysis_plot(tmp_path / f"a.{ending}", [picture(estimate_of("Am"), "曲 🎵.mp3")])
        save_analysis_plot(tmp_path / "b.pdf", [picture(estimate_of("Am")), picture(estimate_of(None))], "dark")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")  # noqa: S314 (our own file)
    assert (tmp_path / "a.pdf").read_bytes().count(b"/Type /Page ") == 1
    assert (tmp_path / "b.pdf").read_bytes().count(b"/Type /Page ") == 2
