"""A JSON Schema checker that knows the words our schemas use, and refuses every other."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

NOTES = {"$schema", "title", "description", "default", "$defs", "examples"}
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$") -> list[str]:
    """Why ``value`` does not match; nothing where it does."""
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, path)
    out: list[str] = []
    for word, want in schema.items():
        if word in NOTES:
            continue
        check = globals().get(f"_{word}")
        assert check is not None, f"{path}: a schema word that the checker does not know: {word}"
        out += check(value, want, schema, root, path)
    return out


def _type(value, want, schema, root, path):
    right = isinstance(value, KINDS[want]) and (want == "boolean" or not isinstance(value, bool))
    return [] if right else [f"{path}: {value!r} is no {want}"]


def _enum(value, want, schema, root, path):
    return [] if value in want else [f"{path}: {value!r} is none of {want}"]


def _const(value, want, schema, root, path):
    return [] if value == want and type(value) is type(want) else [f"{path}: {value!r} is not {want!r}"]


def _minimum(value, want, schema, root, path):
    return [f"{path}: {value} < {want}"] if isinstance(value, int) and value < want else []


def _maximum(value, want, schema, root, path):
    return [f"{path}: {value} > {want}"] if isinstance(value, int) and value > want else []


def _minItems(value, want, schema, root, path):
    return [f"{path}: fewer than {want}"] if isinstance(value, list) and len(value) < want else []


def _maxItems(value, want, schema, root, path):
    return [f"{path}: more than {want}"] if isinstance(value, list) and len(value) > want else []


def _format(value, want, schema, root, path):
    if want == "uuid":
        return [] if str(UUID(value)) == value else [f"{path}: {value!r} is no UUID"]
    assert want == "binary", want
    return (
        []
        if not isinstance(value, str) or re.fullmatch("([0-9a-f]{2})*", value)
        else [f"{path}: {value!r} is not hexadecimal"]
    )


def _anyOf(value, want, schema, root, path):
    found = [problems(value, option, root, path) for option in want]
    return [] if not all(found) else [f"{path}: {value!r} fits no option: {found}"]


def _properties(value, want, schema, root, path):
    if not isinstance(value, dict):
        return []
    return [p for key in want if key in value for p in problems(value[key], want[key], root, f"{path}.{key}")]


def _additionalProperties(value, want, schema, root, path):
    assert want is False
    extra = set(value) - set(schema.get("properties", ())) if isinstance(value, dict) else set()
    return [f"{path}: {sorted(extra)} are not in the schema"] if extra else []


def _required(value, want, schema, root, path):
    missing = [key for key in want if key not in value] if isinstance(value, dict) else []
    return [f"{path}: {missing} missing"] if missing else []


def _items(value, want, schema, root, path):
    if not isinstance(value, list):
        return []
    return [p for i, item in enumerate(value) for p in problems(item, want, root, f"{path}[{i}]")]
