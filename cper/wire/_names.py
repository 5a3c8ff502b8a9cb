"""Numbers some of which have a name: open enums and flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import lru_cache
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema as cs


def number(value: Any) -> Any:
    """JSON written by people may give numbers as ``"0x1000"``; a bool or a float is no number here."""
    if isinstance(value, str) and value[:2].lower() == "0x":
        return int(value, 16)
    return value


class OpenEnum(IntEnum):
    """An IntEnum that passes on values which have no name (yet).  In JSON: the lower-case name, or the number.

    An unknown value is a fresh member that the class does not keep: a million different ones take no memory.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = f"UNKNOWN_{value:#x}", value
        return member

    @property
    def known(self) -> bool:
        """Whether the value has a name."""
        return self._value_ in type(self)._value2member_map_

    @property
    def plain(self) -> str | int:
        """What JSON holds."""
        return self._name_.lower() if self.known else int(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        def load(value: Any) -> OpenEnum:
            value = number(value)
            if isinstance(value, str):
                if value.upper() in cls.__members__:
                    return cls[value.upper()]
                raise ValueError(f"{value!r} is none of {', '.join(m.lower() for m in cls.__members__)}, nor a number")
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{value!r} is neither a name nor a number")
            return cls(value)

        def dump(value: OpenEnum) -> str | int:
            return value.plain

        return cs.no_info_plain_validator_function(
            load, serialization=cs.plain_serializer_function_ser_schema(dump, when_used="json")
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: cs.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "title": cls.__name__,
            "description": (cls.__doc__ or "").strip(),
            "anyOf": [{"enum": [m.lower() for m in cls.__members__]}, {"type": "integer", "minimum": 0}],
        }


class OpenFlags(int):
    """A set of named bits that passes on the unnamed ones.  In JSON: a list of lower-case names, odd bits as a number.

    Subclasses declare ``NAME = mask``; of combinations the last 256 are remembered.
    """

    names: ClassVar[dict[str, int]] = {}
    names_of: ClassVar[Callable[[int], tuple[str | int, ...]]]
    """What JSON holds of a number."""

    def __init_subclass__(cls) -> None:
        cls.names = {k: v for k, v in vars(cls).items() if isinstance(v, int) and k.isupper()}
        for name, mask in cls.names.items():
            setattr(cls, name, cls(mask))
        cls.names_of = staticmethod(lru_cache(maxsize=256)(cls._names_of))

    @classmethod
    def _names_of(cls, left: int) -> tuple[str | int, ...]:
        found: list[str | int] = []
        for name, mask in cls.names.items():
            if left & mask:
                left &= ~mask
                found.append(name.lower())
        return (*found, left) if left else tuple(found)

    def __iter__(self) -> Iterator[str | int]:
        return iter(type(self).names_of(int(self)))

    @property
    def plain(self) -> list[str | int]:
        """What JSON holds."""
        return list(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self):#x})"

    def __str__(self) -> str:
        return "|".join(hex(p) if isinstance(p, int) else p for p in self) or "0"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        def load(value: Any) -> OpenFlags:
            total = 0
            for part in value if isinstance(value, list | tuple) else [value]:
                part = number(part)  # noqa: PLW2901
                if isinstance(part, str):
                    if part.upper() not in cls.names:
                        raise ValueError(f"{part!r} is none of {', '.join(n.lower() for n in cls.names)}, nor a number")
                    part = cls.names[part.upper()]  # noqa: PLW2901
                if isinstance(part, bool) or not isinstance(part, int) or part < 0:
                    raise ValueError(f"{part!r} is neither a name nor a number")
                total |= part
            return cls(total)

        def dump(value: OpenFlags) -> list[str | int]:
            return value.plain

        return cs.no_info_plain_validator_function(
            load, serialization=cs.plain_serializer_function_ser_schema(dump, when_used="json")
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: cs.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        item = {"anyOf": [{"enum": [n.lower() for n in cls.names]}, {"type": "integer", "minimum": 0}]}
        return {"title": cls.__name__, "anyOf": [{"type": "array", "items": item}, {"type": "integer", "minimum": 0}]}
