"""Print numbers of the original code and of stone as a Markdown table: ``python benchmarks/original.py``.

The original numbers are the golden values of the tests (``tests/train/golden_values``): losses with gradients,
schedules, network, transform and windows of inference. ``--published FOLDER`` adds the published checkpoints, from a
folder with these and ``golden.npz`` (the original's ``audio`` and probabilities ``prob/CHECKPOINT``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the golden values are in the tests

from stonecli.detection.detect import detect_key_in_audio  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli.model.session import KeyModel  # noqa: E402
from stonecli_export.onnx_file import export_straightforward  # noqa: E402
from stonecli_export.published import read_checkpoint  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from stonecli_train.config import default_config  # noqa: E402
from stonecli_train.schedules import learning_rate, weight_decay  # noqa: E402
from stonecli_train.vqt import VQT  # noqa: E402
from tests.train import golden, test_losses_golden, test_schedules  # noqa: E402

Row = tuple[str, str, str, str]
Array = npt.NDArray[Any]
STEPS = (0, 25600, 51199)  # of 100 epochs of 512 steps
WINDOWS: dict[str, tuple[float, dict[str, Any]]] = {
    "windows": (40.0, {}),
    "overlap": (40.0, {"overlap": 0.5}),
    "short": (6.1, {}),
}


def row(name: str, original: float | Array, ours: float | Array) -> Row:
    """A row with the original's value of largest magnitude, ours at its index, and the maximum relative difference."""
    theirs, mine = np.atleast_1d(np.asarray(original, np.float64)), np.atleast_1d(np.asarray(ours, np.float64))
    if theirs.shape != mine.shape:
        raise ValueError(f"{name}: {theirs.shape} and {mine.shape}")
    index = int(np.abs(theirs).argmax())
    largest = abs(theirs.flat[index])
    difference = np.abs(theirs - mine).max() / largest
    return name, f"{theirs.flat[index]:.7g}", f"{mine.flat[index]:.7g}", f"{difference:.1e}"


def losses() -> Iterator[Row]:
    """The terms of each objective, and its gradient with respect to the logits."""
    values = test_losses_golden.GOLDEN
    for case in test_losses_golden.CASES:
        logits = torch.from_numpy(values[f"{case}/logits"]).requires_grad_()
        terms = test_losses_golden.terms_of(case, logits)
        terms["total"].backward()
        theirs = {"key": values[f"{case}/loss_pos"] + values[f"{case}/loss_equi"]}
        theirs |= {"mode": values[f"{case}/loss_mode"]} if "mode" in terms else {}
        theirs |= {"balance": values[f"{case}/loss_distribution"]} if "balance" in terms else {}
        theirs |= {"total": values[f"{case}/total"]} if len(theirs) > 1 else {}
        for name, value in theirs.items():
            yield row(f"{case} loss: {name}", value, terms[name].item())
        yield row(f"{case} loss: gradient", values[f"{case}/gradient"], np.array(logits.grad))


def schedules() -> Iterator[Row]:
    """Learning rate and weight decay at the start, in the middle and at the end of a published run."""
    config = default_config("ks").optimizer
    for step in STEPS:
        rate, decay = test_schedules.PUBLISHED[step]
        yield row(f"learning rate at step {step:,}", rate, learning_rate(step, config))
        yield row(f"weight decay at step {step:,}", decay, weight_decay(step, config))


def networks() -> Iterator[Row]:
    """The VQT, and probabilities and gradient norms of both networks with weights computed by a formula."""
    sound = torch.from_numpy(golden.audio()[None, : 15 * golden.RATE])
    with torch.inference_mode():
        yield row("VQT of 15 s", golden.GOLDEN["vqt"], VQT().eval()(sound)[0, :, ::8].numpy())
    for classes in golden.CONFIGS:
        network = golden.network(classes)
        with torch.inference_mode():
            probabilities = network.eval()(golden.features())
        yield row(f"network, {classes} classes: probabilities", golden.GOLDEN[f"{classes}/eval"], probabilities.numpy())
        probabilities = network.train()(golden.features())
        yield row(
            f"network, {classes} classes: in training",
            golden.GOLDEN[f"{classes}/train"],
            probabilities.detach().numpy(),
        )
        factors = torch.from_numpy(np.random.default_rng(4).random(tuple(probabilities.shape), dtype=np.float32))
        (probabilities * factors).sum().backward()
        parameters = dict(network.named_parameters())
        gradients = [parameters[name].grad for name in golden.GOLDEN[f"{classes}/gradient_names"].tolist()]
        norms = np.array([0.0 if gradient is None else gradient.double().norm().item() for gradient in gradients])
        yield row(f"network, {classes} classes: gradient norms", golden.GOLDEN[f"{classes}/gradient_norms"], norms)


def inference(folder: Path) -> Iterator[Row]:
    """Probabilities of the windows of a recording as by ``stone analyze --last-window drop``."""
    majors = [Key((9 + index) % 12, "major") for index in range(12)]
    for classes in golden.CONFIGS:
        network = golden.network(classes)
        names = [f"{key.name}/{key.relative.name}" for key in majors]
        if classes == "24":
            names = [*(key.name for key in majors), *(key.relative.name for key in majors)]
        weights = golden.weights(network.state_dict())
        save_checkpoint(Checkpoint(network.config, weights, classes=tuple(names)), folder / "checkpoint.pt")
        export_straightforward(folder / "checkpoint.pt", folder / "model.onnx")
        model = KeyModel(folder / "model.onnx", "cpu")
        for what, (seconds, options) in WINDOWS.items():
            sound = golden.audio()[: int(seconds * golden.RATE)]
            estimate = detect_key_in_audio([sound], model, golden.RATE, last_window="drop", **options)
            found = np.array([window.classes for window in estimate.windows])
            yield row(f"inference, {classes} classes: {what}", golden.GOLDEN[f"{classes}/{what}"], found)


def published(folder: Path) -> Iterator[Row]:
    """Probabilities of the published checkpoints for three recordings."""
    with np.load(folder / "golden.npz") as values:
        audio = torch.from_numpy(values["audio"])
        for path in sorted(folder.glob("*.pt")):
            if f"prob/{path.name}" in values:
                checkpoint = read_checkpoint(path)
                with torch.inference_mode():
                    features = VQT(checkpoint.vqt).eval()(audio)[:, : checkpoint.chromanet.n_bins]
                    probabilities = checkpoint.network()(features[:, None]).numpy()
                yield row(f"{path.name} on {len(audio)} recordings", values[f"prob/{path.name}"], probabilities)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="of published checkpoints and golden.npz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*losses(), *schedules(), *networks()]
    with tempfile.TemporaryDirectory() as folder:
        rows += inference(Path(folder))
    rows += published(options.published) if options.published else []
    print("| | original | here | largest difference, relative |\n|---|---|---|---|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
