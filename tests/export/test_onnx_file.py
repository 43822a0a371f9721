from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from stonecli.detection.detect import detect_key  # noqa: E402
from stonecli.errors import AudioError, ModelError  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli.model.metadata import FORMAT_VERSION, METADATA_KEY  # noqa: E402
from stonecli.model.session import KeyModel  # noqa: E402
from stonecli_export import onnx_file  # noqa: E402
from stonecli_export.graph import OPSET, build_model  # noqa: E402
from stonecli_export.onnx_file import TOLERANCE, AudioNetwork, ExportError, ExportReport, export_checkpoint  # noqa: E402
from stonecli_export.pitch_fork import ClassOrderError, play_key  # noqa: E402
from stonecli_export.published import read_checkpoint  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, CheckpointError, file_sha256, load_untrusted, save_checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402

MakeCheckpoint = Callable[..., Checkpoint]
C_MAJOR = Key(0, "major")
FIELDS = {
    "format_version",
    "train_type",
    "classes",
    "corrects_tuning",
    "frames_averaged",
    "sample_rate",
    "window_seconds",
    "minimum_samples",
    "circle_type",
    "temperature",
    "licence",
    "trained_on",
    "checkpoint_sha256",
}  # docs/formats.md, "Model file"


def by_pitch(first_major: int, first_minor: int) -> tuple[str, ...]:
    """Names of 24 classes, major first, each row from a tonic on."""
    rows = ((first_major, "major"), (first_minor, "minor"))
    return tuple(Key((first + step) % 12, mode).name for first, mode in rows for step in range(12))  # type: ignore[arg-type]


def metadata(path: Path) -> dict[str, Any]:
    (entry,) = (item for item in onnx.load(path).metadata_props if item.key == METADATA_KEY)
    return dict(json.loads(entry.value))


def recording(path: Path, key: Key | None, seconds: float = 20.0) -> Path:
    """A sound file in ``key``, silent without one."""
    audio = np.zeros(round(seconds * 44100), np.float32) if key is None else play_key(key, 1, seconds, 44100)
    soundfile.write(path, 0.5 * audio, 44100)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The path of the model to write, in a new folder that has an older model."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"the older model")
    return folder / "model.onnx"


def assert_untouched(target: Path) -> None:
    assert [*target.parent.iterdir()] == [target]
    assert target.read_bytes() == b"the older model"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the check with the synthesized pitch fork, for tests of the later steps."""
    monkeypatch.setattr(onnx_file, "find_class_order", lambda *_: by_pitch(9, 9))


@pytest.fixture(scope="module")
def own(hand_made_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The export of the network that is made by hand."""
    return export_checkpoint(hand_made_file, tmp_path_factory.mktemp("own") / "model.onnx")


@pytest.fixture(scope="module")
def own_ks(hand_made: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The same with its row of major only: 12 key signatures."""
    folder = tmp_path_factory.mktemp("own ks")
    save_checkpoint(hand_made(1, circle_type=7), folder / "hand.pt")
    return export_checkpoint(folder / "hand.pt", folder / "model.onnx")


# --- the published checkpoints ----------------------------------------------------------------------------------------


def test_a_published_model_equals_the_original(
    published: Path, exported: ExportReport, golden: dict[str, npt.NDArray[np.float32]]
) -> None:
    model = KeyModel(exported.path, device="cpu")
    audio, allowed = golden["audio"], 1e-4
    if model.info.sample_rate == 11025:  # the lab's
        around = model.info.context_samples
        audio, allowed = np.pad(soxr.resample(audio.T, 22050, 11025).T, ((0, 0), (around, around)), "reflect"), 0.02
    assert np.abs(model(audio).classes - golden[f"prob/{published.name}"]).max() < allowed
    assert exported.difference <= TOLERANCE


def test_a_published_model_has_the_right_order(
    published: Path, exported: ExportReport, golden: dict[str, npt.NDArray[np.float32]]
) -> None:
    """The first recording is the pitch fork of STONE's authors, in C major; our synthesized fork found the order."""
    answer = exported.classes[int(golden[f"prob/{published.name}"][0].argmax())]
    assert answer.split("/")[0] == "C major"
    assert exported.order_was_known == (published.name in ("semisupervised_ks_mode.pt", "first_default.pt"))
    assert len(set(exported.classes)) == len(exported.classes)


def test_a_published_model_describes_itself(published: Path, exported: ExportReport) -> None:
    values = metadata(exported.path)
    ours = published.name == "first_default.pt"
    assert set(values) >= FIELDS
    assert values["format_version"] == FORMAT_VERSION
    assert values["train_type"] == ("ks" if published.name == "semitone_ks.pt" else "ks_mode")
    assert values["classes"] == list(exported.classes)
    assert (values["corrects_tuning"], values["frames_averaged"]) == ((True, 4) if ours else (False, 1))
    assert (values["sample_rate"], values["window_seconds"]) == (11025 if ours else 22050, 15.0)
    assert values["minimum_samples"] == ((511 + 2 * 8) * 256 if ours else 127 * 512)
    assert values["context_samples"] == (8 * 256 if ours else 0)
    assert (values["circle_type"], values["temperature"]) == (None, 1.0)
    assert values["licence"]
    assert values["trained_on"]
    assert values["checkpoint_sha256"] == file_sha256(published)


@pytest.mark.parametrize("key", [Key(0, "major"), Key(7, "major"), Key(1, "minor")], ids=lambda key: key.name)
def test_a_published_model_detects_rendered_music(exported: ExportReport, key: Key) -> None:
    model = KeyModel(exported.path, device="cpu")
    audio = np.stack([play_key(key, timbre, 15.0, model.info.sample_rate) for timbre in range(3)])
    answer = model.info.classes[int(model(audio).classes.mean(0).argmax())]
    assert key in answer


def test_the_published_pitch_fork_is_accepted(shared: Path, tmp_path: Path) -> None:
    fork = shared / "audio" / "pitch_fork_c_major.mp3"
    assert export_checkpoint(shared / "checkpoints" / "skey.pt", tmp_path / "x.onnx", fork).path.exists()


@pytest.mark.parametrize("turn", ["rotated", "modes swapped"])
def test_a_published_checkpoint_with_another_order_is_refused(
    shared: Path, tmp_path: Path, target: Path, turn: str
) -> None:
    content = load_untrusted(shared / "model" / "first_default.pt")
    names = content["classes"]
    content["classes"] = names[1:12] + names[:1] + names[12:] if turn == "rotated" else names[12:] + names[:12]
    torch.save(content, tmp_path / "turned.pt")
    with pytest.raises(ClassOrderError):
        export_checkpoint(tmp_path / "turned.pt", target)
    assert_untouched(target)


# --- end to end without them ------------------------------------------------------------------------------------------


def test_an_export(own: ExportReport, hand_made_file: Path) -> None:
    assert own.classes == by_pitch(9, 9)
    assert not own.order_was_known
    assert own.size == own.path.stat().st_size
    assert [*own.path.parent.iterdir()] == [own.path]
    assert 0 <= own.difference < TOLERANCE
    values = metadata(own.path)
    assert set(values) >= FIELDS
    assert values["checkpoint_sha256"] == file_sha256(hand_made_file)
    assert (values["licence"], values["trained_on"]) == ("MIT", "nothing: made by hand")


def test_the_model_holds_all_its_data(own: ExportReport, tmp_path: Path) -> None:
    model = onnx.load(own.path, load_external_data=False)
    assert not any(item.external_data for item in model.graph.initializer)
    assert [item.version for item in model.opset_import] == [OPSET]
    alone = tmp_path / "moved elsewhere.onnx"
    alone.write_bytes(own.path.read_bytes())
    assert KeyModel(alone, device="cpu").info == KeyModel(own.path, device="cpu").info


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_the_model_may_be_read_by_others(own: ExportReport) -> None:
    assert stat.S_IMODE(own.path.stat().st_mode) == 0o644


def test_the_same_checkpoint_gives_the_same_bytes(own: ExportReport, hand_made_file: Path, target: Path) -> None:
    export_checkpoint(hand_made_file, target)
    assert target.read_bytes() == own.path.read_bytes()


@pytest.mark.parametrize("key", [*Key.all()], ids=lambda key: key.name)
def test_the_runtime_detects_every_key(own: ExportReport, key: Key) -> None:
    model = KeyModel(own.path, device="cpu")
    answer = model(play_key(key, 0, 8.0, model.info.sample_rate)[None])
    assert Key.from_index(int(answer.keys[0].argmax())) == key
    assert answer.keys.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("tonic", range(12))
def test_a_model_with_12_classes_detects_a_key(own_ks: ExportReport, tonic: int) -> None:
    model = KeyModel(own_ks.path, device="cpu")
    assert model.info.train_type == "ks"
    assert model.info.circle_type == 7
    answer = model(play_key(Key(tonic, "major"), 0, 8.0, model.info.sample_rate)[None])
    assert model.info.classes[int(answer.classes[0].argmax())][0] == Key(tonic, "major")
    assert Key.from_index(int(answer.keys[0].argmax())).signature == tonic
    assert answer.keys.sum() == pytest.approx(1, abs=1e-5)


def test_a_recording_is_analyzed_from_start_to_end(own: ExportReport, tmp_path: Path) -> None:
    model = KeyModel(own.path, device="cpu")
    for key in (Key(9, "minor"), Key(6, "major")):
        assert detect_key(recording(tmp_path / "x.wav", key), model).key == key


def test_minimum_samples_are_enough(own: ExportReport) -> None:
    model = KeyModel(own.path, device="cpu")
    assert model(np.ones((1, model.info.minimum_samples), np.float32)).classes.shape == (1, 24)
    with pytest.raises(ModelError):
        model(np.ones((1, model.info.minimum_samples - 1), np.float32))


def test_minimum_samples_of_a_published_model_are_enough(exported: ExportReport) -> None:
    model = KeyModel(exported.path, device="cpu")
    audio = np.random.default_rng(0).standard_normal((1, model.info.minimum_samples)).astype(np.float32)
    assert np.isfinite(model(audio).classes).all()
    with pytest.raises(ModelError):
        model(audio[:, 1:])


@pytest.mark.usefixtures("quick")
def test_windows_shorter_than_the_network_needs(hand_made: MakeCheckpoint, tmp_path: Path) -> None:
    checkpoint = hand_made(frames_averaged=32, window_seconds=1.0)  # the network needs two of these: 1.5 s
    save_checkpoint(checkpoint, tmp_path / "x.pt")
    assert checkpoint.minimum_samples > checkpoint.vqt.sample_rate
    report = export_checkpoint(tmp_path / "x.pt", tmp_path / "x.onnx")
    info = KeyModel(report.path, device="cpu").info
    assert info.window_samples == info.min_window_samples == checkpoint.minimum_samples // 2
    assert info.minimum_samples == info.min_window_samples + 2 * info.context_samples


# --- the order of the classes -----------------------------------------------------------------------------------------


def test_an_order_that_is_right_is_accepted_in_any_spelling(
    hand_made: MakeCheckpoint, tmp_path: Path, own: ExportReport
) -> None:
    stated = tuple(Key.parse(name).camelot for name in by_pitch(9, 9))
    save_checkpoint(hand_made(classes=stated), tmp_path / "x.pt")
    report = export_checkpoint(tmp_path / "x.pt", tmp_path / "x.onnx")
    assert report.order_was_known
    assert report.classes == own.classes  # in our spelling


@pytest.mark.parametrize(
    "stated",
    [by_pitch(10, 10), by_pitch(9, 0), by_pitch(0, 9), (*by_pitch(9, 9)[12:], *by_pitch(9, 9)[:12]), ("C major",)],
    ids=["rotated", "minor rotated", "major rotated", "modes swapped", "too few"],
)
def test_an_order_that_is_wrong_is_refused(
    hand_made: MakeCheckpoint, tmp_path: Path, target: Path, stated: tuple[str, ...]
) -> None:
    save_checkpoint(hand_made(classes=stated), tmp_path / "x.pt")
    with pytest.raises(ClassOrderError) as caught:
        export_checkpoint(tmp_path / "x.pt", target)
    assert_untouched(target)
    assert vars(caught.value)["filename"] == str(tmp_path / "x.pt")


@pytest.mark.parametrize("rows", [1, 2])
def test_a_network_that_was_not_trained_is_refused(tmp_path: Path, target: Path, rows: int) -> None:
    torch.manual_seed(1)
    config = ChromaNetConfig(rows=rows)  # type: ignore[arg-type]
    checkpoint = Checkpoint(config, ChromaNet(config).state_dict(), window_seconds=4.0)
    save_checkpoint(checkpoint, tmp_path / "x.pt")
    with pytest.raises(ClassOrderError, match="does not distinguish keys"):
        export_checkpoint(tmp_path / "x.pt", target)
    assert_untouched(target)


def test_a_network_of_nan_is_refused(hand_made: MakeCheckpoint, tmp_path: Path, target: Path) -> None:
    checkpoint = hand_made()
    checkpoint.weights["classifier.bias"].fill_(float("nan"))
    save_checkpoint(checkpoint, tmp_path / "x.pt")
    with pytest.raises(ClassOrderError):
        export_checkpoint(tmp_path / "x.pt", target)
    assert_untouched(target)


# --- a recording as pitch fork ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_recording_in_c_major_is_accepted(hand_made_file: Path, target: Path, tmp_path: Path) -> None:
    fork = recording(tmp_path / "fork.wav", C_MAJOR)
    assert export_checkpoint(hand_made_file, target, fork).size == target.stat().st_size


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("key", "error", "reason"),
    [
        (Key(2, "major"), ClassOrderError, "in C major, but the model detects D major"),
        (Key(9, "minor"), ClassOrderError, "detects A minor"),
        (None, ExportError, "is not tonal"),
    ],
)
def test_a_recording_in_another_key_is_refused(
    hand_made_file: Path, target: Path, tmp_path: Path, key: Key | None, error: type[Exception], reason: str
) -> None:
    fork = recording(tmp_path / "fork.wav", key)
    with pytest.raises(error, match=reason) as caught:
        export_checkpoint(hand_made_file, target, fork)
    assert vars(caught.value)["filename"] == str(fork)
    assert_untouched(target)


@pytest.mark.usefixtures("quick")
def test_a_recording_that_is_not_audio_is_refused(hand_made_file: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "fork.wav").write_text("la la la")
    with pytest.raises(AudioError):
        export_checkpoint(hand_made_file, target, tmp_path / "fork.wav")
    assert_untouched(target)


def not_so_far(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("something slow has started")


def test_a_missing_recording_is_reported_before_the_export(
    hand_made_file: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_class_order", not_so_far)
    with pytest.raises(FileNotFoundError):
        export_checkpoint(hand_made_file, target, tmp_path / "none.wav")
    assert_untouched(target)


# --- failures during the run ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_graph_with_other_results_is_deleted(
    hand_made_file: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_another(checkpoint: Checkpoint, *args: Any, **options: Any) -> Any:
        weights = {name: value.clone() for name, value in checkpoint.weights.items()}
        weights["classifier.weight"] *= 1.01
        return build_model(replace(checkpoint, weights=weights), *args, **options)

    monkeypatch.setattr(onnx_file, "build_model", build_another)
    with pytest.raises(ExportError, match="differ by"):
        export_checkpoint(hand_made_file, target)
    assert_untouched(target)


@pytest.mark.usefixtures("quick")
def test_a_difference_of_nan_is_an_error(hand_made_file: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch answers the last of the comparisons, the only one of noise, with NaN."""
    forward = AudioNetwork.forward

    def forget(self: AudioNetwork, audio: Any) -> Any:
        quiet = audio.shape == (1, read_checkpoint(hand_made_file).minimum_samples)
        return forward(self, audio) * (float("nan") if quiet else 1.0)

    monkeypatch.setattr(AudioNetwork, "forward", forget)
    with pytest.raises(ExportError, match="differ by nan"):
        export_checkpoint(hand_made_file, target)
    assert_untouched(target)


class Broken(Exception):
    pass


def raise_broken(*args: Any, **kwargs: Any) -> None:
    raise Broken


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "stonecli_export.onnx_file.KeyModel"])
def test_after_a_failure_the_old_model_is_unchanged(
    hand_made_file: Path, target: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(step, raise_broken)
    with pytest.raises(Broken):
        export_checkpoint(hand_made_file, target)
    assert_untouched(target)


def test_the_checkpoint_is_never_replaced_by_the_model(
    hand_made_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_class_order", not_so_far)
    content = hand_made_file.read_bytes()
    fork = recording(tmp_path / "fork.wav", C_MAJOR, 1.0)
    checkpoint, link = tmp_path / "x.pt", tmp_path / "link.onnx"
    checkpoint.write_bytes(content)
    link.symlink_to(checkpoint)
    for target in (checkpoint, link, fork):
        with pytest.raises(ExportError, match="would replace its own input"):
            export_checkpoint(checkpoint, target, fork)
    assert checkpoint.read_bytes() == content


def test_a_folder_as_target_is_reported_before_the_export(
    hand_made_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_class_order", not_so_far)
    with pytest.raises(IsADirectoryError):
        export_checkpoint(hand_made_file, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "x.pt").write_text("weights")
    with pytest.raises(CheckpointError) as caught:
        export_checkpoint(tmp_path / "x.pt", target)
    assert vars(caught.value)["filename"] == str(tmp_path / "x.pt")
    assert_untouched(target)
    with pytest.raises(FileNotFoundError):
        export_checkpoint(tmp_path / "none.pt", target)
    assert_untouched(target)
