from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

torch = pytest.importorskip("torch")

from stonecli_train.checkpoint import load_checkpoint  # noqa: E402
from stonecli_train.config import TrainConfig  # noqa: E402
from stonecli_train.loop import Run, Watcher  # noqa: E402
from stonecli_train.parallel import Processes, any_process, gather_rows, join_processes, leave_processes  # noqa: E402
from tests.train.fixture_types import MakeConfig  # noqa: E402

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CASES = {"stone": "unlabeled", "semi_tone": "mixed", "skey": "unlabeled", "cross_entropy": "mixed"}

# Under torchrun: every case of argv[1], then a run that only the second process is told to stop.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from stonecli.key import Key
from stonecli_train.config import config_from_dict
from stonecli_train.data import Track
from stonecli_train.loop import Run, Watcher
from stonecli_train.parallel import join_processes, leave_processes

class Losses(Watcher):
    def __init__(self): self.values = []
    def on_step(self, step, losses, *rest): self.values.append(losses)
    def on_epoch(self, *rest): pass
    def on_message(self, text): pass

folder, cases = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
processes = join_processes("cpu")
assert processes.count == 2
for name, (config, *parts) in cases.items():
    key_of = lambda index: None if index is None else Key.from_index(index)
    tracks = [[Track(Path(path), key_of(key)) for path, key in part] for part in parts]
    losses = Losses()
    watchers = [losses] if processes.is_first else []
    asked = lambda: name == "stopped" and processes.rank == 1 and run.progress.step == 3
    run = Run(config_from_dict(config), folder / name, *tracks, torch.device("cpu"), processes, watchers, stop=asked)
    run.network.get_parameter("classifier.bias").register_hook(torch.zeros_like)
    run.train()
    state = {key: value.tolist() for key, value in run.network.state_dict().items()}
    gradients = {key: value.grad.tolist() for key, value in run.network.named_parameters()}
    answer = [losses.values, run.progress.step, state, gradients]
    (folder / f"{name}.{processes.rank}.json").write_text(json.dumps(answer))
leave_processes()
leave_processes()
"""


class Losses(Watcher):
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_step(self, step: int, losses: dict[str, float], lr: float, weight_decay: float) -> None:
        self.values.append(losses)

    def on_epoch(self, report: Any, network: Any) -> None:
        pass

    def on_message(self, text: str) -> None:
        pytest.fail(text)


def config_of(loss: str, tiny_config: MakeConfig) -> TrainConfig:
    steps = {"optimizer__epochs": 2, "optimizer__train_steps": 4, "optimizer__lr": 2e-4, "optimizer__clip": 1e9}
    return tiny_config(loss, network__drop_path=0.3, **steps)


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Any, make_tracks: Any
) -> tuple[Path, dict[str, Any]]:
    """All cases trained by two processes: their folder, and the tracks of each case."""
    folder = tmp_path_factory.mktemp("parallel")
    unlabeled = make_tracks(folder / "u", 6, labeled=False, frames=200)
    labeled = make_tracks(folder / "l", 12, labeled=True, frames=200, seed=50)
    cases: dict[str, Any] = {}
    parts = {}
    for name, data in [*CASES.items(), ("stopped", "unlabeled")]:
        use = [unlabeled[:4] if data != "labeled" else [], labeled[:8] if data != "unlabeled" else []]
        use += [unlabeled[4:] if use[0] else [], labeled[8:] if use[1] else []]
        parts[name] = use
        plain = [[(str(track.features), track.key.index if track.key else None) for track in part] for part in use]
        config = config_of("stone" if name == "stopped" else name, tiny_config)
        cases[name] = [config.as_dict(), *plain]
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, folder / "script.py", folder, folder / "cases.json"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, parts


@pytest.mark.parametrize("loss", CASES)
def test_two_processes_train_as_one_does(loss: str, together: Any, tiny_config: Any, tmp_path: Path) -> None:
    """The same losses and weights with the same global batch, dropped branches included."""
    folder, parts = together
    losses = Losses()
    first, second, third, fourth = parts[loss]
    config = config_of(loss, tiny_config)
    run = Run(config, tmp_path / "alone", first, second, third, fourth, CPU, watchers=[losses])
    # A constant added to all scores changes nothing: its gradient is only rounding error, which Adam would amplify.
    run.network.get_parameter("classifier.bias").register_hook(torch.zeros_like)
    run.train()
    for rank in range(2):
        seen, step, state, gradients = json.loads((folder / f"{loss}.{rank}.json").read_text())
        assert step == run.progress.step == 8
        if rank == 0:
            assert seen == [pytest.approx(terms, abs=1e-5) for terms in losses.values]
        for name, value in run.network.state_dict().items():
            torch.testing.assert_close(torch.tensor(state[name]).to(value.dtype), value, atol=1e-5, rtol=1e-4)
        # Adam hides a constant factor of the gradients, so the gradients themselves are compared, without clipping.
        for name, parameter in run.network.named_parameters():
            torch.testing.assert_close(torch.tensor(gradients[name]), parameter.grad, atol=1e-5, rtol=1e-3)
    alone, other = (load_checkpoint(path / "best.pt") for path in (run.folder, folder / loss))
    assert other.state["progress"] == {
        name: pytest.approx(value, abs=1e-4) for name, value in alone.state["progress"].items()
    }
    for name, value in alone.weights.items():
        torch.testing.assert_close(other.weights[name], value, atol=1e-5, rtol=1e-4)


def test_all_processes_stop_at_the_same_step(together: Any) -> None:
    """A Ctrl-C may reach one process a step before the other; then neither may wait forever."""
    folder, _ = together
    steps = [json.loads((folder / f"stopped.{rank}.json").read_text())[1] for rank in range(2)]
    assert steps == [3, 3]
    assert load_checkpoint(folder / "stopped" / "last.pt").state["progress"]["step"] == 3


DECODING = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import stonecli_train.features as features
from stonecli_train.data import collect_tracks
from stonecli_train.parallel import join_processes, leave_processes
from stonecli_train.vqt import VQTConfig

folder = Path(sys.argv[1])
processes = join_processes("cpu")
decode, decoded = features.read_track, []
features.read_track = lambda path, rate: decoded.append(path.name) or decode(path, rate)
reports = []
cache = features.FeatureCache(folder / "cache", VQTConfig())
tracks, _ = collect_tracks(folder / "music", None, cache, reports.append, processes=processes)
lines = [" ".join(sorted(decoded)), " ".join(track.name for track in tracks), *reports]
(folder / f"{processes.rank}.txt").write_text("\\n".join(lines))
leave_processes()
"""


def test_each_process_decodes_its_share(tmp_path: Path, music: Any) -> None:
    (tmp_path / "music").mkdir()
    for number in range(5):
        soundfile.write(tmp_path / "music" / f"{number}.wav", music("C major", seconds=3.0), 22050)
    (tmp_path / "music" / "broken.mp3").write_text("no music")
    (tmp_path / "script.py").write_text(DECODING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, tmp_path / "script.py", tmp_path], check=True, timeout=300, capture_output=True)
    answers = [(tmp_path / f"{rank}.txt").read_text().splitlines() for rank in range(2)]
    decoded = [set(answer[0].split()) for answer in answers]
    assert not decoded[0] & decoded[1]
    assert decoded[0] | decoded[1] == {*(f"{number}.wav" for number in range(5)), "broken.mp3"}
    assert abs(len(decoded[0]) - len(decoded[1])) <= 1
    assert answers[0][1:] == answers[1][1:]  # the same tracks in the same order, and the same report
    assert answers[0][1] == " ".join(f"{number}.wav" for number in range(5))


# --- a single process -------------------------------------------------------------------------------------------------


def test_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes = join_processes("cpu")
    assert processes == Processes(0, 1, 0)
    assert processes.is_first
    assert not Processes(1, 2, 1).is_first
    rows = torch.rand(2, 3, requires_grad=True)
    assert gather_rows(rows, processes) is rows
    assert any_process(True, processes, CPU)
    assert not any_process(False, processes, CPU)
    leave_processes()
