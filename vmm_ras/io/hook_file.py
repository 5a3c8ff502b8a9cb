"""A policy's hook from a Python file: ``def decide(lost, view)`` that names a rule, or None (``vmm_ras.deciding``)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vmm_ras.deciding import Hook
from vmm_ras.errors import InputError


def load_hook(path: Path) -> Hook:
    """Run the file and take its ``decide``.  Raises InputError: one line that names the file, and the line in it."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    names: dict[str, Any] = {"__name__": "vmm_ras_hook"}
    try:
        exec(compile(source, str(path), "exec"), names)
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno or 1}: {error.msg}") from None
    except Exception as error:
        line = error.__traceback__.tb_next.tb_lineno if error.__traceback__ and error.__traceback__.tb_next else 1
        raise InputError(f"{path}:{line}: {type(error).__name__}: {error}".splitlines()[0]) from None
    decide = names.get("decide")
    if not callable(decide):
        raise InputError(f"{path}: expected a function decide(lost, view)")
    return Hook(decide, hashlib.sha256(source).hexdigest())
