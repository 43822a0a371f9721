from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import pickle
import re
import stat
import struct
import subprocess
import zipfile
from collections import OrderedDict
from dataclasses import asdict, replace
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stonecli_train.checkpoint import (  # noqa: E402
    Checkpoint,
    CheckpointError,
    file_sha256,
    load_checkpoint,
    load_untrusted,
    save_checkpoint,
)
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402
from stonecli_train.vqt import VQTConfig  # noqa: E402

SMALL = ChromaNetConfig(rows=1, normalization="affine", out_channels=(2, 3), kernels=(3, 5), temperature=0.5)


def checkpoint(**changes: Any) -> Checkpoint:
    torch.manual_seed(0)
    return replace(Checkpoint(SMALL, ChromaNet(SMALL).state_dict()), **changes)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(checkpoint(), tmp_path / "good.pt")
    return tmp_path / "good.pt"


def rewritten(path: Path, **changes: Any) -> Path:
    """The file at ``path`` with top-level values changed, or removed where the change is ``...``."""
    content = load_untrusted(path) | changes
    torch.save({name: value for name, value in content.items() if value is not ...}, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path).network()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# --- round trip -------------------------------------------------------------------------------------------------------


def test_a_saved_checkpoint_loads_unchanged(tmp_path: Path) -> None:
    original = checkpoint(
        vqt=VQTConfig(sample_rate=24000),
        frames_averaged=4,
        corrects_tuning=True,
        window_seconds=12.5,
        classes=tuple(f"class {index}" for index in range(12)),
        circle_type=7,
        trained_on="Noten, “alte” ♯",
        license="MIT",
        config={"lr": 1e-3, "names": ["a", "b"], "nested": {"x": None}},
        state={"step": 12, "optimizer": {"moments": [torch.arange(4.0)]}},
    )
    path = tmp_path / "new" / "folders" / "run.pt"
    save_checkpoint(original, path)
    loaded = load_checkpoint(path)
    for name in Checkpoint.__dataclass_fields__:
        if name not in ("weights", "state"):
            assert getattr(loaded, name) == getattr(original, name), name
    assert loaded.state["step"] == 12
    torch.testing.assert_close(loaded.state["optimizer"], original.state["optimizer"])
    torch.testing.assert_close(loaded.weights, dict(original.weights))
    x = torch.randn(1, 1, 84, 8)
    network = loaded.network()
    assert not network.training
    torch.testing.assert_close(network(x), original.network()(x), atol=0, rtol=0)


def test_the_network_does_not_share_memory_with_the_checkpoint() -> None:
    original = checkpoint()
    before = original.weights["classifier.bias"].clone()
    with torch.no_grad():
        original.network().get_parameter("classifier.bias").add_(1)
    torch.testing.assert_close(original.weights["classifier.bias"], before)


@pytest.mark.parametrize(("rows", "train_type"), [(1, "ks"), (2, "ks_mode")])
def test_train_type(rows: int, train_type: str) -> None:
    assert checkpoint(chromanet=replace(SMALL, rows=rows)).train_type == train_type  # type: ignore[arg-type]


def test_minimum_samples_are_one_frame_of_the_network() -> None:
    assert Checkpoint(ChromaNetConfig(), {}).minimum_samples == 127 * 512
    assert Checkpoint(ChromaNetConfig(), {}, frames_averaged=4).minimum_samples == 511 * 512
    assert checkpoint().minimum_samples == VQTConfig().min_samples > 3 * 512  # four frames the transform cannot make


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- saving -----------------------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def raise_broken(*args: Any, **kwargs: Any) -> None:
    raise Broken


def half_save(content: Any, file: io.BufferedWriter, **kwargs: Any) -> None:
    file.write(b"half of it")
    file.flush()
    raise Broken


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("torch.save", half_save),
        ("os.fsync", raise_broken),
        ("tempfile.mkstemp", raise_broken),
        ("pathlib.Path.replace", raise_broken),
        ("pathlib.Path.chmod", raise_broken),
    ],
)
def test_after_a_failure_the_old_file_is_unchanged(
    saved: Path, monkeypatch: pytest.MonkeyPatch, target: str, fault: Any
) -> None:
    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(target, fault)
        with pytest.raises(Broken):
            save_checkpoint(checkpoint(trained_on="something else"), saved)
    assert saved.read_bytes() == before
    assert [*saved.parent.iterdir()] == [saved]
    save_checkpoint(checkpoint(trained_on="something else"), saved)
    assert load_checkpoint(saved).trained_on == "something else"


def test_the_data_is_flushed_before_the_file_is_renamed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        steps.append(f"fsync {os.fstat(handle).st_size > 1000}")
        fsync(handle)

    def spy_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return rename(self, target)

    monkeypatch.setattr("os.fsync", spy_fsync)
    monkeypatch.setattr("pathlib.Path.replace", spy_replace)
    save_checkpoint(checkpoint(), saved)
    assert steps[:2] == ["fsync True", "replace"]  # then the folder


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_a_checkpoint_may_be_read_by_others(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o644


# --- refused files ----------------------------------------------------------------------------------------------------


def test_a_newer_version_is_refused(saved: Path) -> None:
    assert "version 2 is unknown" in refusal(rewritten(saved, version=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"format": ...},
        {"version": ...},
        {"version": torch.tensor([1, 1])},
        {"chromanet": ...},
        {"chromanet": None},
        {"chromanet": {"rows": 1, "evil": 2}},
        {"chromanet": {"rows": 7}},
        {"chromanet": asdict(SMALL) | {"n_bins": 108}},
        {"chromanet": asdict(SMALL) | {"n_bins": "84"}},
        {"chromanet": asdict(SMALL) | {"out_channels": [2.5, 3]}},
        {"chromanet": asdict(SMALL) | {"out_channels": "23", "kernels": "35"}},
        {"chromanet": asdict(SMALL) | {"out_channels": [2, 10**9]}},
        {"chromanet": asdict(SMALL) | {"kernels": [3, 7]}},
        {"chromanet": asdict(SMALL) | {"normalization": "plain"}},
        {"vqt": {}, "frames_averaged": 10**9},
        {"vqt": {"hop_length": 500}},
        {"vqt": {"sample_rate": "22050"}},
        {"vqt": {"fmin": float("inf")}},
        {"vqt": {"n_bins": 99.0}},
        {"vqt": {"bins_per_octave": 10, "n_bins": 80}},
        {"vqt": ["sample_rate"]},
        {"frames_averaged": 0},
        {"frames_averaged": 2.5},
        {"frames_averaged": None},
        {"window_seconds": 0.0},
        {"window_seconds": -15.0},
        {"window_seconds": float("nan")},
        {"window_seconds": 1e12},
        {"window_seconds": "15"},
        {"classes": 12},
        {"classes": [1, 2]},
        {"circle_type": "7"},
        {"trained_on": torch.zeros(1)},
        {"licence": None},
        {"weights": ...},
        {"weights": {}},
        {"weights": [torch.zeros(1)]},
        {"weights": {"classifier.bias": torch.zeros(3)}},
        {"weights": {1: torch.zeros(3)}},
        {"weights": {"classifier.bias": "zeros"}},
        {"state": None},
        {"config": 3},
    ],
    ids=str,
)
def test_a_damaged_checkpoint_is_refused(saved: Path, changes: dict[str, Any]) -> None:
    refusal(rewritten(saved, **changes))


@pytest.mark.parametrize(
    "name", ["classifier.weight", "convnext_blocks.1.gamma", "time_downsampling_blocks.0.norm.bias"]
)
def test_weights_that_do_not_fit_are_refused(saved: Path, name: str) -> None:
    weights = dict(checkpoint().weights)
    rest = {key: value for key, value in weights.items() if key != name}
    assert "do not fit" in refusal(rewritten(saved, weights=rest))
    assert "do not fit" in refusal(rewritten(saved, weights=weights | {name: torch.zeros(1, 9)}))
    assert "do not fit" in refusal(rewritten(saved, weights=weights | {"another": torch.zeros(1)}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"these are no weights\n" * 50,
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(100),
        b"PK\x05\x06" + bytes(18),
        b"\x80\x02",
        b"\x80\x02}q\x00.",
        b"\x80\x05.",
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        pickle.dumps({"format": "stone-checkpoint"}),
        pickle.dumps([1, 2, 3], protocol=0),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text", None, 4])
def test_a_checkpoint_that_is_not_a_dictionary_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert "does not contain a dictionary" in refusal(tmp_path / "x.pt")


@given(data=st.binary(max_size=400), head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(tmp_path: Path, data: bytes, head: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(head + data)
    refusal(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path, zipped: bool) -> None:
    cut = tmp_path / "cut.pt"
    torch.save(load_untrusted(saved), saved, _use_new_zipfile_serialization=zipped)
    whole = saved.read_bytes()
    assert load_checkpoint(saved)
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        cut.write_bytes(whole[:size])
        refusal(cut)


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_gives_a_checkpoint_or_a_refusal(tmp_path: Path, position: float, flip: int) -> None:
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    if not good.exists():
        save_checkpoint(checkpoint(), good)
    content = bytearray(good.read_bytes())
    content[int(position * len(content))] ^= flip
    bad.write_bytes(content)
    try:
        network = load_checkpoint(bad).network()
    except CheckpointError:
        return
    assert isinstance(network, ChromaNet)


def test_a_missing_file_or_a_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        load_checkpoint(tmp_path)


# --- malicious files --------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of ``function``, which may be a call itself: a plain unpickler makes it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None:
        """Only to look like a function to the pickler."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Items(dict[str, Any]):
    """Pickles as an empty dictionary whose items are set afterwards."""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, iter(self.items())


def attacks(marker: Path) -> dict[str, Any]:
    """Objects that create the file ``marker`` when they are unpickled with trust."""
    shell, python = f"touch '{marker}'", f"open({str(marker)!r}, 'w').close()"
    the_os = Call(__import__, "os")
    numpy_scalar = np.float64(1).__reduce__()[0]
    return {
        "os.system": Call(os.system, shell),
        "subprocess": Call(subprocess.call, ["touch", str(marker)]),
        "exec": Call(exec, python),
        "eval": Call(eval, python),
        "open": Call(open, str(marker), "w"),
        "Path.touch": Call(Path.touch, marker),
        "nested getattr": Call(Call(getattr, the_os, "system"), shell),
        "getattr of builtins": Call(Call(getattr, Call(__import__, "builtins"), "exec"), python),
        "functools.partial": Call(functools.partial(os.system, shell)),
        "attrgetter": Call(Call(attrgetter("system"), the_os), shell),
        "methodcaller": Call(methodcaller("system", shell), the_os),
        "object scalar of numpy": Call(numpy_scalar, np.dtype("O"), Call(os.system, shell)),
        "numpy dtype that is made": Call(np.dtype, Call(os.system, shell)),
        "argument of an allowed maker": Call(OrderedDict, [("a", Call(os.system, shell))]),
        "item of a dictionary": Items(a=Call(os.system, shell)),
        "key of a dictionary": {Call(os.system, shell): 1},
    }


ATTACKS = tuple(attacks(Path()))


@pytest.mark.skipif(os.name != "posix", reason="the attacks use a shell")
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("form", ["zip", "zip, protocol 4", "legacy", "bare pickle"])
@pytest.mark.parametrize("place", ["alone", "in a checkpoint"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_nothing_in_a_malicious_file_runs(tmp_path: Path, attack: str, form: str, place: str) -> None:
    marker, path = tmp_path / "it ran", tmp_path / "x.pt"
    content = attacks(marker)[attack]
    if place == "in a checkpoint":
        save_checkpoint(checkpoint(), path)
        content = load_untrusted(path) | {"state": {"optimizer": [content]}}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content))
        load_with_trust = functools.partial(pickle.loads, path.read_bytes())
    else:
        protocol = 4 if "4" in form else 2
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form != "legacy")
        load_with_trust = functools.partial(torch.load, path, weights_only=False)

    refusal(path)
    with pytest.raises(CheckpointError, match=r"contains code|not a readable"):
        load_untrusted(path)
    assert not marker.exists()

    with contextlib.suppress(Exception):  # the attack is real: with trust it works
        load_with_trust()
    assert marker.exists()


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A megabyte of it would unpack to a gigabyte."""
    path = tmp_path / "x.pt"
    torch.save({"weights": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 20_000
    assert len(torch.load(path, weights_only=True)["weights"]) == 1 << 20  # the attack is real
    with pytest.raises(CheckpointError, match="compressed"):
        load_untrusted(path)


def test_records_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"weights": [torch.zeros(1 << 16) for _ in range(9)]}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info.filename) for info in archive.infolist()}
    largest = max(members, key=lambda name: len(members[name]))
    copies = [name for name in members if name != largest and members[name] == members[largest]]
    assert len(copies) == 8
    with zipfile.ZipFile(path, "w") as archive:
        for name in members.keys() - copies:
            archive.writestr(name, members[name])
        for name in copies:  # one record under many names; only the directory of the archive is trusted
            entry = copy.copy(archive.getinfo(largest))
            entry.filename = entry.orig_filename = name
            archive.filelist.append(entry)
    with pytest.raises(CheckpointError, match="overlap"):
        load_untrusted(path)


@pytest.mark.parametrize(
    ("place", "empty"), [("version", []), ("least_confidence", ()), ("frames_averaged", {}), ("config", [])]
)
def test_a_structure_that_is_endless_when_written_out_is_refused(saved: Path, place: str, empty: Any) -> None:
    nested = empty
    for _ in range(60):
        nested = {0: nested, 1: nested} if isinstance(nested, dict) else type(nested)([nested, nested])
    assert "more than" in refusal(rewritten(saved, **{place: nested}))


def test_a_list_in_itself_is_refused(saved: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "more than" in refusal(rewritten(saved, state={"a": endless}))


def with_pickle(path: Path, data: bytes) -> Path:
    """A ``torch.save`` archive at ``path`` whose pickle is ``data``."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize("value", [1.25, -0.0, float("inf"), 5e-324])
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_a_float64_of_numpy_is_a_plain_number(tmp_path: Path, value: float, module: bytes) -> None:
    data = re.sub(rb"numpy\._?core\.multiarray", module, pickle.dumps({"loss": np.float64(value)}, protocol=2))
    assert module in data
    loaded = load_untrusted(with_pickle(tmp_path / "x.pt", data))["loss"]
    assert type(loaded) is float
    assert struct.pack("d", loaded) == struct.pack("d", value)


def test_a_big_endian_float64_is_read(tmp_path: Path) -> None:
    number = np.array([1.25], dtype=">f8")
    data = pickle.dumps({"loss": Call(np.float64(1).__reduce__()[0], number.dtype, number.tobytes())}, protocol=2)
    assert load_untrusted(with_pickle(tmp_path / "x.pt", data)) == {"loss": 1.25}


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1),
        np.int64(1),
        np.str_("a"),
        np.dtype("f4"),
        np.zeros(3),
        np.void(b"12345678"),
        np.datetime64("2024"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_other_object_of_numpy_is_built(tmp_path: Path, value: Any) -> None:
    refusal(with_pickle(tmp_path / "x.pt", pickle.dumps({"value": value}, protocol=2)))


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\0" * 9, "text", None, 3])
def test_a_number_of_another_size_is_refused(tmp_path: Path, data: Any) -> None:
    scalar = Call(np.float64(1).__reduce__()[0], np.dtype("f8"), data)
    refusal(with_pickle(tmp_path / "x.pt", pickle.dumps({"value": scalar}, protocol=2)))
