"""Network, transform and inference against numbers that the original code computed: see ``golden.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from stonecli.detection.detect import detect_key_in_audio  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli.model.session import KeyModel  # noqa: E402
from stonecli_export.onnx_file import export_straightforward  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from stonecli_train.vqt import VQT  # noqa: E402

from .golden import GOLDEN, RATE, audio, features, network, weights  # noqa: E402

CLASSES = ["12", "24"]
ALLOWED = 1e-4


@pytest.mark.parametrize("classes", CLASSES)
def test_probabilities_and_gradients_equal_the_originals(classes: str) -> None:
    chromanet = network(classes)
    with torch.inference_mode():
        found = chromanet.eval()(features()).numpy()
    np.testing.assert_allclose(found, GOLDEN[f"{classes}/eval"], rtol=0, atol=1e-5)
    probabilities = chromanet.train()(features())
    np.testing.assert_allclose(probabilities.detach().numpy(), GOLDEN[f"{classes}/train"], rtol=0, atol=1e-5)
    factors = torch.from_numpy(np.random.default_rng(4).random(tuple(probabilities.shape), dtype=np.float32))
    (probabilities * factors).sum().backward()
    gradients = {name: parameter.grad for name, parameter in chromanet.named_parameters() if parameter.grad is not None}
    assert sorted(gradients) == GOLDEN[f"{classes}/gradient_names"].tolist()
    norms = [gradients[name].double().norm().item() for name in sorted(gradients)]
    np.testing.assert_allclose(norms, GOLDEN[f"{classes}/gradient_norms"], rtol=1e-3, atol=1e-5)


def test_the_transform_equals_the_originals() -> None:
    with torch.inference_mode():
        found = VQT().eval()(torch.from_numpy(audio()[None, : 15 * RATE]))[0, :, ::8].numpy()
    np.testing.assert_allclose(found, GOLDEN["vqt"], rtol=0, atol=2e-5)


@pytest.fixture(scope="module", params=CLASSES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, KeyModel]:
    """The network as the command line runs it, at the sample rate of training."""
    folder = tmp_path_factory.mktemp("golden")
    keys = [Key((9 + index) % 12, "major") for index in range(12)]
    twelve = request.param == "12"
    names = [f"{key.name}/{key.relative.name}" if twelve else key.name for key in keys]
    chromanet = network(request.param)
    checkpoint = Checkpoint(
        chromanet.config,
        weights(chromanet.state_dict()),
        classes=tuple(names if twelve else [*names, *(key.relative.name for key in keys)]),
    )
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    export_straightforward(folder / "checkpoint.pt", folder / "model.onnx")
    return request.param, KeyModel(folder / "model.onnx", "cpu")


@pytest.mark.parametrize(
    ("what", "seconds", "options"),
    [("windows", 40, {}), ("overlap", 40, {"overlap": 0.5}), ("short", 6.1, {})],
)
def test_windows_equal_those_of_the_originals_inference(
    what: str, seconds: float, options: dict[str, Any], model: tuple[str, KeyModel]
) -> None:
    """Only whole windows are analyzed; a shorter recording is analyzed unchanged."""
    classes, key_model = model
    sound = audio()[: int(seconds * RATE)]
    estimate = detect_key_in_audio([sound], key_model, RATE, last_window="drop", **options)
    found = np.array([window.classes for window in estimate.windows])
    expected = GOLDEN[f"{classes}/{what}"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=ALLOWED)
    assert found.mean(axis=0).argmax() == expected.mean(axis=0).argmax()


def test_the_last_window_is_kept_by_default(model: tuple[str, KeyModel]) -> None:
    estimate = detect_key_in_audio([audio()], model[1], RATE)
    assert estimate.windows[-1].end == pytest.approx(40)
