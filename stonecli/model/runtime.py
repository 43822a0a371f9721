"""ONNX Runtime, loaded so that it tells nobody anything.

Its official builds from 1.31 on queue what machine they run on, with an identifier that stays, under the user's cache
folder, and send it to Microsoft; that can only be turned off in the environment, before it is loaded (its Privacy.md).
stone asks the network for nothing by itself, so whatever needs ONNX Runtime takes it from here. Who sets the variable
himself has his way.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
