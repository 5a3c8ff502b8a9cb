"""In what two snapshots differ, value by value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from pydantic import BaseModel

from vmm_ras.snapshot import Snapshot

ABSENT = "absent"
"""Stands for a value that one of both does not have."""
_BLOCK = 64
"""Bytes that are compared at once where a part holds no JSON."""


def differences(one: Snapshot, two: Snapshot) -> list[tuple[str, Any, Any]]:
    """(path, value of the first, value of the second) of all that differs, in order; a path begins with its part."""
    names = [*one.parts, *(name for name in two.parts if name not in one.parts)]
    return [found for name in names for found in _compare(name, _plain(one, name), _plain(two, name))]


def _plain(snapshot: Snapshot, name: str) -> Any:
    value = snapshot.parts.get(name, ABSENT)
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    if isinstance(value, bytes):
        try:
            return orjson.loads(value)
        except ValueError:
            return value
    return value


def _compare(path: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, bytes) and isinstance(b, bytes):
        for at in range(0, max(len(a), len(b)), _BLOCK):
            if a[at : at + _BLOCK] != b[at : at + _BLOCK]:
                yield f"{path}[{at:#x}]", a[at : at + _BLOCK].hex(), b[at : at + _BLOCK].hex()
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _compare(f"{path}.{key}", a.get(key, ABSENT), b.get(key, ABSENT))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        for n in range(max(len(a), len(b))):
            yield from _compare(f"{path}[{n}]", a[n] if n < len(a) else ABSENT, b[n] if n < len(b) else ABSENT)
    elif a != b:
        yield path, a, b
