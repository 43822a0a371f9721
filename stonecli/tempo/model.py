"""TempoModel: run the tempo network, a self-describing ONNX file, on the periodicity of a recording."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stonecli.errors import ModelError
from stonecli.model.session import cpu_session

FILE_NAME = "tempo_1.onnx"
METADATA_KEY = "stone_tempo"
FORMAT_VERSION = 1
INPUT, OUTPUT = "periodicity", "logits"

Floats = npt.NDArray[np.float32]


class TempoModel:
    """A loaded tempo model; one instance may be used by many threads at once.

    Args:
        content: bytes of the file; None for the built-in model.

    Attributes:
        tempos: float64 [n], beats per minute of the logits but the last, which stands for no tempo.

    Raises:
        ModelError: it is not a tempo model.
    """

    def __init__(self, content: bytes | None = None) -> None:
        content = Path(__file__).with_name(FILE_NAME).read_bytes() if content is None else content
        self._session = cpu_session(content)
        try:
            info = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])
            if info["version"] != FORMAT_VERSION:
                raise ModelError("a tempo model of another version")
            steps = np.arange(info["tempi"]) / info["steps_per_octave"]
            self.tempos: npt.NDArray[np.float64] = info["slowest_bpm"] * 2.0**steps
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError("not a tempo model: no stone metadata") from error

    def logits(self, periodicity: Floats) -> Floats:
        """Logits of the tempos and of no tempo, float32 [n + 1], for :func:`stonecli.tempo.periodicity.periodicity`.

        Raises:
            ModelError: the model cannot be run.
        """
        try:
            (found,) = self._session.run([OUTPUT], {INPUT: periodicity[None]})
        except Exception as error:  # onnxruntime has a dozen exception classes
            raise ModelError(f"the tempo model failed: {str(error).splitlines()[0]}") from error
        logits: Floats = found[0]
        return logits


@lru_cache(maxsize=1)
def default_tempo_model() -> TempoModel:
    """The built-in tempo model, loaded once per process."""
    return TempoModel()
