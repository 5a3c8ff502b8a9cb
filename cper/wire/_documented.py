"""What the string under an annotation says of its field: read from the source when asked for, not when declared."""

from __future__ import annotations

import ast
import inspect
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Documented(BaseModel):
    """A model whose JSON Schema describes each field by the string under its annotation.

    Its validator is built when the first object is checked; most classes of a run are never met.
    """

    model_config = ConfigDict(defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        properties = handler.resolve_ref_schema(found).get("properties", {})
        for name, field in cls.model_fields.items():
            said, doc = properties.get(field.alias or name), doc_of(cls, name)
            if said is not None and doc and field.description is None:
                said["description"] = doc
        return found


@lru_cache(maxsize=4096)
def doc_of(cls: type[BaseModel], name: str) -> str:
    """What is written under the annotation of a field; "" where nothing is, or where there is no source."""
    owner = next((base for base in cls.__mro__ if name in inspect.get_annotations(base)), cls)
    return _docs(owner.__module__).get((owner.__qualname__, name), "")


@cache
def _docs(module: str) -> dict[tuple[str, str], str]:
    """The strings under annotations of a module's classes, by the class's qualified name and the field's."""
    try:
        tree = ast.parse(inspect.getsource(import_module(module)))
    except (ImportError, OSError, TypeError):
        return {}
    found: dict[tuple[str, str], str] = {}
    rooms: list[tuple[str, ast.AST]] = [("", tree)]
    for prefix, room in rooms:
        for node in ast.iter_child_nodes(room):
            if isinstance(node, ast.ClassDef):
                rooms.append((f"{prefix}{node.name}.", node))
                _read(node, prefix + node.name, found)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                rooms.append((f"{prefix}{node.name}.<locals>.", node))
            elif not isinstance(node, ast.expr):  # where a class may stand: if, try, with
                rooms.append((prefix, node))
    return found


def _read(declared: ast.ClassDef, cls: str, found: dict[tuple[str, str], str]) -> None:
    for above, below in zip(declared.body, declared.body[1:], strict=False):
        if (
            isinstance(above, ast.AnnAssign)
            and isinstance(above.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[cls, above.target.id] = inspect.cleandoc(below.value.value)


__all__ = ["Documented", "doc_of"]
