"""ONNX Runtime, imported with its telemetry turned off.

From 1.31 on, its official builds store details of the machine and a persistent identifier in the user's cache folder,
and send them to Microsoft. Only an environment variable that is set before the import turns this off (its Privacy.md).
stone makes no network connections that the user did not ask for, so all modules import ONNX Runtime from here. A value
that the user has set is kept.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
