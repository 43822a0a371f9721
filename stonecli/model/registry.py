"""The models that the user has added, by name, in the data folder.

``models/NAME.json`` is the record of a model: its SHA-256 and its source. ``models/DIGITS/NAME.onnx`` is the model;
DIGITS are the first of its SHA-256. The record is written last and removed first, each by one rename or unlink. So
after any interruption, a name belongs to a complete, checked model or to none. A lock allows one process at a time to
add or remove models; otherwise one could delete the file whose record another has just written.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonecli.errors import ModelError, naming
from stonecli.util.app_dirs import data_folder
from stonecli.util.atomic_file import atomic_file
from stonecli.util.locks import folder_lock

if TYPE_CHECKING:
    from stonecli.model.metadata import ModelInfo

RECORD_VERSION = 1
MAX_RECORD = 64 << 10
BUILT_IN = "stone_8"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NOT_ON_WINDOWS = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")
_MAX_AGE = 24 * 3600.0  # seconds after which files of interrupted runs are removed


@dataclass(frozen=True)
class StoredModel:
    """A model that ``--model`` accepts by name.

    Attributes:
        name: name of the model.
        path: path of its file; None if unknown.
        sha256: SHA-256 of the file when it was added; empty if unknown.
        size: size of the file in bytes.
        source: URL or path that it was added from; empty for the built-in model.
        added: date and time in ISO 8601 with time zone; empty for the built-in model.
        info: description of the model; None if it is damaged.
        error: why the model cannot be used, or None.
    """

    name: str
    path: Path | None
    sha256: str
    size: int
    source: str
    added: str
    info: ModelInfo | None
    error: str | None

    @property
    def is_built_in(self) -> bool:
        """Whether it is the built-in model."""
        return self.name == BUILT_IN


def is_name(text: str) -> bool:
    """Whether ``text`` is a valid name: lower-case letters, digits, ``-`` and ``_``, so that it differs from a path."""
    return _NAME.fullmatch(text) is not None and _NOT_ON_WINDOWS.fullmatch(text) is None


def name_for(file_name: str) -> str:
    """A valid model name made from a file name; empty if there is none."""
    stem = Path(file_name).stem.lower()
    name = re.sub(r"[^a-z0-9_]+", "-", stem).strip("-_")[:64]
    return name if is_name(name) else ""


def stored_models() -> list[StoredModel]:
    """The built-in model, then the added ones by name, damaged ones included; each file is checked again."""
    with suppress(FileNotFoundError):
        names = sorted(path.stem for path in _folder().iterdir() if path.suffix == ".json" and is_name(path.stem))
        return [stored_model(BUILT_IN), *map(stored_model, names)]
    return [stored_model(BUILT_IN)]


def stored_model(name: str) -> StoredModel:
    """The model with this name, checked but not run.

    Raises:
        ModelError: there is no such model.
    """
    from stonecli.errors import describe
    from stonecli.model.session import built_in_path, describe_model, read_model

    path, record, info, size = None, {"sha256": "", "source": "", "added": ""}, None, 0
    try:
        if name == BUILT_IN:
            path, content = built_in_path(), read_model(None)
            record["sha256"] = hashlib.sha256(content).hexdigest()
        else:
            record = _read_record(name)
            path = _file(name, record["sha256"])
            content = read_model(path)
            _check_sha256(content, record["sha256"])
        size, info = len(content), describe_model(content)
    except _NoSuchModelError:
        raise
    except (ModelError, OSError) as error:
        return StoredModel(name, path, **record, size=size, info=None, error=describe(error))
    return StoredModel(name, path, **record, size=size, info=info, error=None)


def model_path(text: str) -> Path:
    """The file for a value of ``--model``: that of the model with this name, or else the path itself.

    Raises:
        ModelError: there is no such model or file, or the record of the model is damaged.
    """
    if not is_name(text):
        return Path(text)
    if text == BUILT_IN:
        from stonecli.model.session import built_in_path

        return built_in_path()
    try:
        return _file(text, _read_record(text)["sha256"])
    except _NoSuchModelError:
        if Path(text).exists():
            return Path(text)
        raise


def recorded_sha256(path: Path) -> str | None:
    """The recorded SHA-256 of an added model's file; None for files in other folders."""
    if path.parent.parent != _folder() or not is_name(path.stem):
        return None
    return _read_record(path.stem)["sha256"]


def add_model(content: bytes, name: str, source: str, *, replace: bool = False) -> StoredModel:
    """Store a model under a name after checking, loading and running it; adding it again changes nothing.

    Args:
        content: bytes of the ONNX file.
        name: see :func:`is_name`.
        source: URL or path that it comes from.
        replace: replace another model of that name.

    Raises:
        ModelError: the name is invalid or in use, or the model cannot be used.
        OSError: the data folder cannot be written.
    """
    from stonecli.model.session import describe_model

    if not is_name(name):
        raise ModelError(f"invalid model name {name[:80]!r}; use lower-case letters, digits, - and _")
    if name == BUILT_IN:
        raise ModelError(f"{name} is the built-in model; choose another --name")
    describe_model(content)
    _folder().mkdir(parents=True, exist_ok=True)
    with folder_lock(_folder()):
        return _add(content, name, source, replace)


def _add(content: bytes, name: str, source: str, replace: bool) -> StoredModel:
    sha256 = hashlib.sha256(content).hexdigest()
    before = _recorded(name)
    if before == sha256 and stored_model(name).error is None:
        return stored_model(name)
    if before and before != sha256 and not replace:
        raise ModelError(f"there is another model called {name}; use --replace, or choose another --name")
    _sweep()
    target = _file(name, sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target):
        _write(target, content, lambda temporary: _try(temporary, sha256))
    record = {
        "version": RECORD_VERSION,
        "sha256": sha256,
        "source": source,
        "added": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with naming(_record_path(name)):
        _write(_record_path(name), json.dumps(record).encode(), lambda temporary: None)
    if before and before != sha256:
        _remove_file(_file(name, before))
    return stored_model(name)


def remove_model(name: str) -> None:
    """Remove an added model, damaged or not.

    Raises:
        ModelError: there is no model of that name, or it is the built-in model.
        OSError: it cannot be removed.
    """
    if name == BUILT_IN:
        raise ModelError(f"{name} is the built-in model and cannot be removed")
    if _recorded(name) is None:
        raise _NoSuchModelError(name)
    with folder_lock(_folder()):
        before = _recorded(name)
        if before is None:  # another process has removed it meanwhile
            raise _NoSuchModelError(name)
        _record_path(name).unlink()
        if before:
            _remove_file(_file(name, before))


class _NoSuchModelError(ModelError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no model {name[:80]!r}; stone models lists the models, stone models add adds one")


def _folder() -> Path:
    return data_folder() / "models"


def _record_path(name: str) -> Path:
    return _folder() / f"{name}.json"


def _file(name: str, sha256: str) -> Path:
    return _folder() / sha256[:16] / f"{name}.onnx"


def _read_record(name: str) -> dict[str, str]:
    """The record of a model: ``sha256``, ``source`` and ``added``."""
    try:
        if not is_name(name):
            raise FileNotFoundError
        with _record_path(name).open("rb") as file:
            values: Any = json.loads(file.read(MAX_RECORD))
        record = {key: values[key] for key in ("sha256", "source", "added")}
        if values["version"] != RECORD_VERSION or not all(isinstance(text, str) for text in record.values()):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _NoSuchModelError(name) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError("its record is damaged; remove it and add it again") from error
    if re.fullmatch("[0-9a-f]{64}", record["sha256"]) is None:
        raise ModelError("its record is damaged; remove it and add it again")
    return record


def _recorded(name: str) -> str | None:
    """The recorded SHA-256 of a name; empty if the record is damaged, None if there is no record."""
    try:
        return _read_record(name)["sha256"]
    except _NoSuchModelError:
        return None
    except ModelError:
        return ""


def _check_sha256(content: bytes, sha256: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError("the file has changed since it was added; remove it and add it again")


def _try(path: Path, sha256: str) -> None:
    """Load the file and run it on a window of noise."""
    import numpy as np

    from stonecli.model.session import KeyModel

    model = KeyModel(path, "cpu", sha256=sha256)
    samples = max(model.info.window_samples, model.info.minimum_samples)
    model(0.1 * np.random.default_rng(0).standard_normal((1, samples), dtype=np.float32))


def _write(path: Path, content: bytes, check: Callable[[Path], None]) -> None:
    """Write ``content`` to ``path`` atomically, after ``check`` accepted the temporary file."""
    try:
        with atomic_file(path, durable=True) as temporary:
            temporary.write_bytes(content)
            check(temporary)
    except BaseException:
        with suppress(OSError):
            path.parent.rmdir()  # if it is empty
        raise


def _remove_file(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def _sweep() -> None:
    """Remove the files of interrupted runs: temporary files, and models without a record."""
    for path in (*_folder().glob(".*.tmp"), *_folder().glob("*/.*.tmp"), *_folder().glob("*/*.onnx")):
        with suppress(OSError):
            is_old = path.stat().st_mtime < time.time() - _MAX_AGE
            if is_old and (path.suffix == ".tmp" or path != _file(path.stem, _recorded(path.stem) or "")):
                _remove_file(path)
