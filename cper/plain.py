"""What ``of_plain`` takes out of JSON: each part with its type checked, so that wrong input is one clear ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def members(plain: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """``plain`` itself, which must be an object, less some keys.  Raises ValueError."""
    if not isinstance(plain, Mapping):
        raise ValueError(f"an object expected, not {type(plain).__name__}")
    return {key: value for key, value in plain.items() if key not in without}


def hex_in(plain: Mapping[str, Any], key: str) -> bytes:
    """The bytes that stand under ``key`` in hexadecimal; none where the key is missing.  Raises ValueError."""
    try:
        return bytes.fromhex(members(plain).get(key, ""))
    except (TypeError, ValueError):
        raise ValueError(f"{key!r}: hexadecimal text expected") from None


def number_in(plain: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The number that stands under ``key``, also as text (``"0x300"``); without ``default`` it must be there.

    Raises ValueError.
    """
    value = members(plain).get(key, default)
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{key!r}: a number expected")
    return number


def object_in(plain: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object that stands under ``key``.  Raises ValueError."""
    found = members(plain).get(key)
    if not isinstance(found, dict):
        raise ValueError(f"{key!r}: an object expected")
    return found


def objects_in(plain: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects that stand under ``key``; none where the key is missing.  Raises ValueError."""
    found = members(plain).get(key, [])
    if not isinstance(found, list | tuple) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{key!r}: a list of objects expected")
    return list(found)
