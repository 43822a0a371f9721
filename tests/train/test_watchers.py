from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

import io  # noqa: E402

from stonecli.evaluation.metrics import CIRCLE, confusion_matrix  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli_train.chromanet import ChromaNet  # noqa: E402
from stonecli_train.config import TrainConfig  # noqa: E402
from stonecli_train.loop import EpochReport  # noqa: E402
from stonecli_train.losses import dft, signatures  # noqa: E402
from stonecli_train.metrics import Scores, track_profile  # noqa: E402
from stonecli_train.watchers import LOG_COLUMNS, CsvLog, TensorBoardLog  # noqa: E402
from tests.fixture_types import LimitFileSize  # noqa: E402

CPU = torch.device("cpu")
Config = Callable[..., TrainConfig]


def report(epoch: int, *, labeled: bool) -> EpochReport:
    truth = np.arange(24)
    answers = np.array([Key.from_index(int(index)).transposed(7).index for index in truth])
    confusion = confusion_matrix(truth, answers)
    scores = Scores(0.5, 0.25, 0.125, 0.75, confusion, 24) if labeled else None
    losses = {"key": 1.0, "total": 2.0 / epoch}
    return EpochReport(epoch, 10 * epoch, losses, {"key": 1.5, "total": 3.0 / epoch}, scores, 0.5 * epoch, epoch == 1)


@pytest.fixture
def network(tiny_config: Config) -> ChromaNet:
    torch.manual_seed(0)
    return ChromaNet(tiny_config("semi_tone").network).eval()


def test_the_csv_log(tmp_path: Path, network: ChromaNet) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path)
    log.on_step(0, {"total": 1.0}, 0.1, 0.2)
    log.on_message("nothing")
    assert not path.exists()
    log.on_epoch(report(1, labeled=False), network)
    CsvLog(path).on_epoch(report(2, labeled=True), network)  # a resumed run
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == LOG_COLUMNS
    assert (first["epoch"], first["step"], first["minutes"], first["best"]) == ("1", "10", "0.50", "1")
    assert (first["train_total"], first["val_total"], first["mirex"]) == ("2.0000", "3.0000", "")
    assert (second["epoch"], second["best"], second["val_total"]) == ("2", "0", "1.5000")
    assert [second[name] for name in ("mirex", "accuracy", "signature", "ksea")] == [
        "0.5000",
        "0.2500",
        "0.1250",
        "0.7500",
    ]


def test_a_full_disk_is_named(tmp_path: Path, network: ChromaNet, no_room: LimitFileSize) -> None:
    (tmp_path / "log.csv").write_text("epoch\n" * 170)
    with pytest.raises(OSError, match="File too large") as caught, no_room():
        CsvLog(tmp_path / "log.csv").on_epoch(report(1, labeled=True), network)
    assert caught.value.filename == str(tmp_path / "log.csv")


def test_a_full_disk_leaves_no_empty_log(tmp_path: Path, network: ChromaNet, no_room: LimitFileSize) -> None:
    log = CsvLog(tmp_path / "log.csv")
    with pytest.raises(OSError, match="File too large"), no_room(0):
        log.on_epoch(report(1, labeled=True), network)
    assert not [*tmp_path.iterdir()]
    log.on_epoch(report(1, labeled=True), network)
    assert (tmp_path / "log.csv").read_text().startswith("epoch,step,")


def read(folder: Path) -> Any:
    events = accumulators.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_tensorboard(tmp_path: Path, network: ChromaNet, tiny_config: Config, make_tracks: Any) -> None:
    tracks = make_tracks(tmp_path / "tracks", 3, labeled=True)
    log = TensorBoardLog(tmp_path / "tb", tiny_config("semi_tone"), tracks, CPU)
    for step in range(3):
        log.on_step(step, {"key": 0.5, "total": float(step)}, 0.1 * step, 0.2)
    log.on_message("back to the best")
    log.on_epoch(report(1, labeled=True), network)
    log.on_epoch(report(2, labeled=True), network)
    log.close()
    events = read(tmp_path / "tb")
    assert [(event.step, event.value) for event in events.Scalars("train/total")] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert [event.value for event in events.Scalars("schedule/lr")] == pytest.approx([0.0, 0.1, 0.2])
    assert [event.value for event in events.Scalars("schedule/weight_decay")] == pytest.approx([0.2] * 3)
    assert [(event.step, event.value) for event in events.Scalars("validation/total")] == [(10, 3.0), (20, 1.5)]
    assert [event.value for event in events.Scalars("scores/ksea")] == [0.75, 0.75]
    assert set(events.Tags()["images"]) == {"confusion", "circle"}
    assert any(tag.startswith("messages") for tag in events.Tags()["tensors"])
    (_, picture) = events.Images("confusion")
    pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)).convert("L"))
    assert pixels.shape == (24 * 12, 25 * 12)  # rows in circle order; the last column is "no key"
    for row, key in enumerate(CIRCLE):
        column = CIRCLE.index(key.transposed(7))
        assert pixels[12 * row + 6, 12 * column + 6] == 255
        assert (pixels[12 * row + 6] == 255).sum() == 12
    circle = Image.open(io.BytesIO(events.Images("circle")[0].encoded_image_string)).convert("RGB")
    assert min(circle.size) > 200
    assert len(circle.getcolors(1 << 20)) > 10


def test_tensorboard_without_labels(tmp_path: Path, network: ChromaNet, tiny_config: Config) -> None:
    log = TensorBoardLog(tmp_path / "tb", tiny_config("semi_tone"), [], CPU)
    log.on_epoch(report(1, labeled=False), network)
    log.close()
    events = read(tmp_path / "tb")
    assert events.Tags()["images"] == []
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("scores")]


def test_the_circle_shows_the_dft_of_each_track(
    tmp_path: Path, network: ChromaNet, tiny_config: Config, make_tracks: Any
) -> None:
    config = tiny_config("semi_tone", loss__circle=1)
    tracks = make_tracks(tmp_path / "tracks", 5, labeled=True)
    figure = TensorBoardLog(tmp_path / "tb", config, tracks, CPU)._circle(network)
    (axes,) = figure.axes
    (points,) = axes.collections
    profiles = torch.from_numpy(np.stack([track_profile(network, track, config, CPU) for track in tracks]))
    np.testing.assert_allclose(points.get_offsets(), dft(signatures(profiles), 1).numpy(), atol=1e-6)
    assert points.get_array().tolist() == [track.key.signature for track in tracks]
    assert "hsv" in points.get_cmap().name


def test_a_resumed_run_logs_each_step_once(tmp_path: Path, network: ChromaNet, tiny_config: Config) -> None:
    """A run that crashed at step 5 is resumed at step 3, which was saved."""
    for start, end in ((0, 5), (3, 7)):
        started = int(time.time())
        log = TensorBoardLog(tmp_path / "tb", tiny_config("semi_tone"), [], CPU)
        log.on_resume(start)
        for step in range(start, end):
            log.on_step(step, {"total": float(step + 10 * start)}, 0.1, 0.2)
        log.close()
        while int(time.time()) == started:  # TensorBoard orders its files by the second, then by a counter as text
            time.sleep(0.05)
    values = [(event.step, event.value) for event in read(tmp_path / "tb").Scalars("train/total")]
    assert values == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 33.0), (4, 34.0), (5, 35.0), (6, 36.0)]


def test_the_lines_of_repeated_epochs_are_removed(tmp_path: Path, network: ChromaNet) -> None:
    log = CsvLog(tmp_path / "log.csv")
    for epoch in (1, 2, 3):
        log.on_epoch(report(epoch, labeled=False), network)
    log.on_resume(20)
    log.on_epoch(report(3, labeled=False), network)
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    CsvLog(tmp_path / "other.csv").on_resume(0)
    assert not (tmp_path / "other.csv").exists()
