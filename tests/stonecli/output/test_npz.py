import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stonecli.model.session import KeyModel
from stonecli.output.npz import save_npz
from tests.fixture_types import MakeEstimate, MakeModel

NAMES = ["a.mp3", "file", "allow_pickle", "../up/[x] 🎹.mp3", "/abs/olute.mp3", "line\nbreak", "\udcff.mp3"]


def test_arrays_by_path(tmp_path: Path, key_model: KeyModel, estimate_of: MakeEstimate) -> None:
    estimates = [(Path(name), estimate_of("Am", changes_to="C")) for name in NAMES]
    save_npz(tmp_path / "out.npz", estimates, key_model)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        shown = [name.replace("\udcff", "\\udcff").replace("\n", "\\u000a") for name in NAMES]
        assert set(arrays.files) == {
            "__classes__",
            *shown,
            *(f"__{what}__/{name}" for name in shown for what in ("times", "mean")),
        }
        assert list(arrays["__classes__"]) == [keys[0].name for keys in key_model.info.classes]
        for name, (_, estimate) in zip(shown, estimates, strict=True):
            assert arrays[name].shape == (2, 24)
            assert arrays[name].dtype == np.float32
            assert (arrays[name][1] == estimate.windows[1].classes).all()
            assert arrays[f"__times__/{name}"].tolist() == [[0.0, 15.0], [15.0, 30.0]]
            assert arrays[f"__mean__/{name}"] == pytest.approx(arrays[name].mean(axis=0))


def test_the_mean_is_over_tonal_windows(tmp_path: Path, key_model: KeyModel, estimate_of: MakeEstimate) -> None:
    estimate = estimate_of("Am", changes_to="C")
    silent = replace(estimate.windows[1], tonal=False)
    half = replace(estimate, windows=(estimate.windows[0], silent))
    save_npz(tmp_path / "out.npz", [(Path("half"), half), (Path("none"), replace(half, windows=(silent,)))], key_model)
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["__mean__/half"] == pytest.approx(estimate.windows[0].classes)
        assert arrays["__mean__/none"] == pytest.approx(np.full(24, 1 / 24))


def test_names_of_signatures(tmp_path: Path, tiny_model: MakeModel) -> None:
    save_npz(tmp_path / "out.npz", [], KeyModel(tiny_model(tmp_path / "x.onnx", count=12), "cpu"))
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["__classes__"][0] == "C major/A minor"
        assert len(arrays["__classes__"]) == 12


def test_an_old_file_is_replaced_in_one_step(tmp_path: Path, key_model: KeyModel, estimate_of: MakeEstimate) -> None:
    path = tmp_path / "out.npz"
    path.write_text("old")

    def failing() -> object:
        yield Path("a"), estimate_of("Am")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        save_npz(path, failing(), key_model)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    save_npz(path, [], key_model)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.npz"]
    (tmp_path / "any").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "any").stat().st_mode)
