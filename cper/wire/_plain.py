"""Writes, per structure, the Python source of a function that makes bytes from JSON without an object in between.

It takes what ``plain_of`` gives and little else; for anything out of the common it returns None, and
``Struct.of_plain`` reads the same JSON with all its checks and words for what is wrong.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cper.wire._cells import Cell, bcd, guid
from cper.wire._codegen import indented, run
from cper.wire._layout import Layout, Slot, packer
from cper.wire._names import OpenEnum, OpenFlags

if TYPE_CHECKING:
    from cper.wire._struct import Struct


@lru_cache(maxsize=256)
def _guid_raw(text: str) -> bytes:
    if len(text) != 36:
        raise ValueError
    return UUID(text).bytes_le


def _hex_raw(size: int) -> Any:
    def raw(text: str) -> bytes:
        if len(text) != 2 * size:
            raise ValueError
        return bytes.fromhex(text)

    return raw


def _numbers(dump: Any) -> Any:
    def raw(values: Any) -> Any:
        if type(values) is not list or not set(map(type, values)) <= {int}:
            raise ValueError
        return dump(values)

    return raw


def generate_packer(cls: type[Struct], layout: Layout) -> Any:
    """The function of ``Struct.raw_of_plain``: bytes, or None where the JSON is out of the common.

    Numbers that do not fit their cell are refused by packing.  That nothing is left over is seen by counting: as many
    members as validation bits were set and other fields were given.
    """
    names: dict[str, Any] = {"pack_words": packer(layout).pack, "ERRORS": (Exception,)}
    out: list[str] = []
    given = 0
    for w, (_, cell, _) in enumerate(layout.words):
        mine = [s for s in layout.slots if s.word == w]
        if w != layout.flags and (not mine or any(s.mask or (s.flag and not _is_number(s, cell)) for s in mine)):
            out.append(f"w{w} = {'0' if not cell.fmt.endswith('s') else repr(bytes(cell.size))}")
    for i, s in enumerate(layout.slots):
        cell = layout.words[s.word][1]
        target = "v" if s.word == layout.flags else f"w{s.word}"
        given += 0 if s.flag else 1
        names[f"default{i}"] = _default(cls, s)
        plainly = _is_number(s, cell) and not s.mask
        out.append(f"{target if plainly else 'x'} = get({s.name!r})")
        if plainly and not s.flag and names[f"default{i}"] is None:
            out.append(f"if type({target}) is not int: return None")
            continue
        x = target if plainly else "x"
        body = _convert(i, s, cell, names, x)
        if s.mask:
            body += [] if s.kind is bool else [f"if x & {~s.mask}: return None"]
            body.append(f"{target} |= x{f' << {s.lo}' if s.lo else ''}")
        elif not plainly:
            body.append(f"{target} = x")
        if s.flag:
            out += [f"if {x} is not None:", *indented([*body, f"v |= {s.flag:#x}"])]
            out += [f"else: {target} = 0"] if plainly else []
            continue
        default = names[f"default{i}"]
        store = f"{target} |= default{i} << {s.lo}" if s.mask else f"{target} = default{i}"
        out += [f"if {x} is not None:", *indented(body), f"elif {s.name!r} in p: return None"]
        out.append("else: return None" if default is None else f"else: n += 1; {store}")
    known = ""
    if layout.flags is not None:
        inside = sum({s.mask << s.lo for s in layout.slots if s.mask and s.word == layout.flags})
        known = f" + (v & {layout.known & ~inside:#x}).bit_count()"
        out.insert(0, "v = 0")
    words = ", ".join("v" if w == layout.flags else f"w{w}" for w in range(len(layout.words)))
    lines = ["get, n = p.get, len(p)", *out, f"if n != {given}{known}: return None", f"return pack_words({words})"]
    source = ["def pack_plain(p):", "    try:", *indented(indented(lines)), "    except ERRORS:", "        return None"]
    run(f"<packer of {cls.__module__}.{cls.__qualname__}>", "\n".join(source), names)
    return names["pack_plain"]


def _is_number(s: Slot, cell: Cell) -> bool:
    return s.kind is None and s.const is None and s.load is None and s.dump is None and not cell.fmt.endswith("s")


def _default(cls: type[Struct], s: Slot) -> Any:
    """The field's default as it goes into its word; None where it has none."""
    field = cls.model_fields[s.name]
    if field.is_required() or s.flag:
        return None
    value = field.get_default(call_default_factory=True)
    if value is None:
        return None
    if isinstance(value, bool | OpenEnum | OpenFlags):
        return int(value)
    return s.dump(value) if s.dump else value


def _convert(i: int, s: Slot, cell: Cell, names: dict[str, Any], x: str) -> list[str]:
    """Lines that make of ``x`` as JSON holds it what goes into the word; an exception, or None, refuses it."""
    number = f"if type({x}) is not int: return None"
    if s.const is not None:
        names[f"const{i}"] = s.const
        if not isinstance(s.const, int):
            names[f"raw{i}"] = s.dump(s.const) if s.dump else s.const
            return [f"if x != const{i}: return None", f"x = raw{i}"]
        return [f"if type(x) is not int or x != const{i}: return None"]
    if s.kind is not None and issubclass(s.kind, OpenEnum):
        names[f"names{i}"] = {m.plain: int(m) for m in s.kind}
        return [f"if type(x) is str: x = names{i}[x]", number]
    if s.kind is not None and issubclass(s.kind, OpenFlags):
        names[f"names{i}"] = {name.lower(): mask for name, mask in s.kind.names.items()}
        return [
            "if type(x) is not list: return None",
            "total = 0",
            "for y in x:",
            f"    if type(y) is str: y = names{i}[y]",
            "    if type(y) is not int: return None",
            "    total |= y",
            "x = total",
        ]
    if s.kind is bool:
        return ["if type(x) is not bool: return None"]
    if s.kind is not None:  # a nested structure
        names[f"inner{i}"] = s.kind._pack_plain  # type: ignore[attr-defined]
        return [f"x = inner{i}(x)", "if x is None: return None"]
    if _is_number(s, cell):
        return [number]
    if cell is guid:
        names[f"raw{i}"] = _guid_raw
    elif cell is bcd:
        names[f"raw{i}"] = s.dump
        return ["if type(x) is not int or not 0 <= x <= 165: return None", f"x = raw{i}(x)"]
    elif s.plain is list:
        names[f"raw{i}"] = _numbers(s.dump)
    elif s.load is None:  # bytes
        names[f"raw{i}"] = _hex_raw(cell.size)
    elif cell.size == 3 and s.plain is None and cell.fmt == "3s":
        names[f"raw{i}"] = s.dump
        return [number, f"x = raw{i}(x)"]
    else:
        names[f"raw{i}"] = s.dump
        return ["if type(x) is not str: return None", f"x = raw{i}(x)"]
    return [f"x = raw{i}(x)"]


__all__ = ["generate_packer"]
