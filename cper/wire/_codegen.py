"""Writes, per structure, the Python source of its codec; ``Struct.source()`` shows it.

Three functions come out of one layout: ``decode`` (bytes to object), ``encode`` (object to bytes) and ``pack`` (keyword
arguments to bytes, without an object).  Whatever bits no valid field claims are caught by comparing with what
``encode`` would write: that difference is the residue, so decoding and encoding is the identity for any bytes.  JSON
has its own two: ``_plain_of`` and ``_plain``.
"""

from __future__ import annotations

import linecache
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from cper.wire._encoder import encoder
from cper.wire._errors import DecodeError, EncodeError, WireError
from cper.wire._layout import Layout, Slot
from cper.wire._names import OpenEnum, OpenFlags

if TYPE_CHECKING:
    from cper.wire._struct import Struct

    Read: TypeAlias = Callable[[int, Slot, str], list[str]]
    """Lines that read a field, by its number, from an expression for its word."""


def generate(cls: type[Struct], layout: Layout) -> tuple[str, dict[str, Any]]:
    """Source and names of the codec of ``cls``."""
    packer = struct.Struct(layout.format)
    names: dict[str, Any] = {
        "unpack_from": packer.unpack_from,
        "pack_words": packer.pack,
        "struct_error": struct.error,
        "WireError": WireError,
        "DecodeError": DecodeError,
        "EncodeError": EncodeError,
        "new": object.__new__,
        # what BaseModel.__init__ sets, without the detour over __setattr__
        **{f"set_{slot}": vars(BaseModel)[slot].__set__ for slot in BaseModel.__slots__},
        "FIELDS": set(cls.model_fields),
        "blank": dict.fromkeys([*(s.name for s in layout.slots), "residue"]).copy,
        "CLASS": cls,
        "NAME": cls.__name__,
    }
    for index, slot in enumerate(layout.slots):
        names[f"load{index}"], names[f"dump{index}"] = slot.load, slot.dump
        if slot.kind is not None and issubclass(slot.kind, OpenEnum):
            names[f"load{index}"] = slot.kind
            names[f"known{index}"] = slot.kind._value2member_map_.get
        elif slot.kind is not None and issubclass(slot.kind, OpenFlags | bool):
            names[f"load{index}"] = slot.kind
        elif slot.kind is not None:  # a nested structure
            kind: Any = slot.kind
            names |= {f"load{index}": kind.decode, f"dump{index}": kind.encode}
        if slot.const is not None:
            names[f"const{index}"] = slot.const
        field = cls.model_fields[slot.name]
        names[f"default{index}"] = None if field.is_required() else field.get_default(call_default_factory=True)
    source = "\n\n".join([_decode(layout), encoder(cls, layout, "encode"), encoder(cls, layout, "pack")])
    run(f"<wire codec of {cls.__module__}.{cls.__qualname__}>", source, names)
    return source, names


def run(filename: str, source: str, names: dict[str, Any]) -> None:
    """Put what generated source defines among ``names``; tracebacks show its lines."""
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), names)


def generate_reader(cls: type[Struct], layout: Layout, names: dict[str, Any], wanted: tuple[str, ...]) -> Any:
    """The function of ``Struct.reader``; ``names`` are those of the codec.  Raises KeyError for an unknown field."""
    slots = {s.name: (i, s) for i, s in enumerate(layout.slots)}
    chosen = [slots[name] for name in wanted]
    needed = {s.word for _, s in chosen}
    if layout.flags is not None and any(s.flag for _, s in chosen):
        needed.add(layout.flags)
    words = [(i, cell) for i, (_, cell, _) in enumerate(layout.words)]
    packer = struct.Struct("<" + "".join(cell.fmt if i in needed else f"{cell.size}x" for i, cell in words))
    into = "".join(f"w{i}, " for i in sorted(needed))
    out = [
        "def read(data, offset=0):",
        "    try:",
        f"        {into}= unpack_some(data, offset if offset >= 0 else len(data))",
        "    except struct_error:",
        "        raise CLASS._truncated(len(data), offset) from None",
    ]
    for i, s in chosen:
        lines = [line for line in _read(i, s, slice_of(s), "") if not line.endswith(" odd = 1")]
        if s.flag:
            lines = [f"f{i} = None", f"if w{layout.flags} & {s.flag:#x}:", *indented(lines)]
        out += indented(lines)
    out.append(f"    return {''.join(f'f{i}, ' for i, _ in chosen)}")
    some = {**names, "unpack_some": packer.unpack_from}
    run(f"<reader of {cls.__module__}.{cls.__qualname__}: {', '.join(wanted)}>", "\n".join(out), some)
    return some["read"]


def _words(layout: Layout) -> str:
    return ", ".join(f"w{i}" for i in range(len(layout.words)))


def _decode(layout: Layout) -> str:
    flags = f"w{layout.flags}" if layout.flags is not None else ""
    into = "d" if flags else ""
    read = partial(_read, into=into)
    out = [
        "def decode(data, offset=0):",
        "    try:",
        f"        {_words(layout)}, = unpack_from(data, offset if offset >= 0 else len(data))",
        "    except struct_error:",
        "        raise CLASS._truncated(len(data), offset) from None",
    ]
    if flags:
        out.append("    d = blank()")
    out.append(f"    odd = {unknown_flags(layout) or 0}")
    for i, s in enumerate(layout.slots):
        if s.mask and s.word == layout.flags:  # counts and the like beside the validation bits
            out += [f"    {line}" for line in read(i, s, slice_of(s))]
    for words in runs(layout):
        out += [f"    {line}" for line in read_run(layout, words, flags, read)]
    if not flags:
        fields = ", ".join(f"{s.name!r}: f{i}" for i, s in enumerate(layout.slots))
        out.append(f"    d = {{{fields}{', ' if fields else ''}'residue': None}}")
    out += [
        "    self = new(CLASS)",
        "    set___dict__(self, d)",
        "    set___pydantic_fields_set__(self, FIELDS)",
        "    set___pydantic_extra__(self, None)",
        "    set___pydantic_private__(self, None)",
        "    if odd:",
    ]
    if all(s.exact for s in layout.slots):
        out += [f"        {line}" for line in residue(layout, flags)]
    else:
        out += [f"        raw = bytes(data[offset:offset + {layout.size}])"]
        out += ["        residue = CLASS._difference(raw, encode(self))"]
    return "\n".join([*out, "        d['residue'] = residue", "    return self"])


def unknown_flags(layout: Layout) -> str:
    """An expression for the validation bits that no field has; "" where there are none."""
    if layout.flags is None:
        return ""
    left = ~layout.known & (1 << 8 * layout.words[layout.flags][1].size) - 1
    return f"w{layout.flags} & {left:#x}" if left else ""


def slice_of(s: Slot) -> str:
    """An expression for what the field takes of its word."""
    if not s.mask:
        return f"w{s.word}"
    return f"w{s.word} >> {s.lo} & {s.mask:#x}" if s.lo else f"w{s.word} & {s.mask:#x}"


def residue(layout: Layout, flags: str) -> list[str]:
    """Lines that set ``residue``, the bits that no valid field claims; every field's bytes must be written as read."""
    always, some = 0, []
    if layout.flags is not None:
        always = layout.known << 8 * layout.words[layout.flags][2]
    for s in layout.slots:
        claim = (s.mask << s.lo or (1 << 8 * layout.words[s.word][1].size) - 1) << 8 * s.offset
        if s.flag:
            some.append(f"if {flags} & {s.flag:#x}: claimed |= {claim:#x}")
        else:
            always |= claim
    return [
        f"claimed = {always:#x}",
        *some,
        f"residue = int.from_bytes(data[offset:offset + {layout.size}], 'little') & ~claimed",
        f"residue = residue.to_bytes({layout.size}, 'little') if residue else None",
    ]


RUN = 3
"""Words of conditional fields that are tested one by one."""


def _flags_of(layout: Layout, word: int) -> int:
    """The validation bits of a word all of whose fields are conditional; 0 for other words."""
    mine = [s for s in layout.slots if s.word == word]
    return sum({s.flag for s in mine}) if mine and all(s.flag for s in mine) else 0


def runs(layout: Layout) -> list[list[int]]:
    """The words to read, in order; neighbours all of whose fields are conditional together."""
    runs: list[list[int]] = []
    for w in range(len(layout.words)):
        if w == layout.flags:
            continue
        if runs and runs[-1][-1] == w - 1 and _flags_of(layout, w) and _flags_of(layout, runs[-1][-1]):
            runs[-1].append(w)
        else:
            runs.append([w])
    return runs


def read_run(layout: Layout, run: list[int], flags: str, read: Read) -> list[str]:
    """Lines that read a run of words.  Most records have few valid fields: one test passes over a run without any."""
    if len(run) == 1:
        return _read_word(layout, run[0], flags, read)
    parts = [[w] for w in run] if len(run) <= RUN else [run[: len(run) // 2], run[len(run) // 2 :]]
    lines = [line for part in parts for line in read_run(layout, part, flags, read)]
    mask = 0
    for w in run:
        mask |= _flags_of(layout, w)
    if len(run) <= RUN:
        odd = " or ".join(not_zero(layout, w) for w in run)
    else:
        start, end = layout.words[run[0]][2], layout.words[run[-1]][2] + layout.words[run[-1]][1].size
        odd = f"data[offset + {start}:offset + {end}] != b'\\0' * {end - start}"
    return [f"if {flags} & {mask:#x}:", *[f"    {line}" for line in lines], f"elif {odd}: odd = 1"]


def not_zero(layout: Layout, word: int) -> str:
    """An expression that is true where any bit of the word is set."""
    cell = layout.words[word][1]
    return f"w{word} != {bytes(cell.size)!r}" if cell.fmt.endswith("s") else f"w{word}"


def _read_word(layout: Layout, w: int, flags: str, read: Read) -> list[str]:
    """Lines that read all fields of one word, and note bits that none of them claims."""
    cell = layout.words[w][1]
    mine = [(i, s) for i, s in enumerate(layout.slots) if s.word == w]
    full = (1 << 8 * cell.size) - 1
    if not mine:
        return [f"if {not_zero(layout, w)}: odd = 1"]
    if len(mine) == 1 and not mine[0][1].mask:
        i, s = mine[0]
        lines = read(i, s, f"w{w}")
        if not s.flag:
            return lines
        return [f"if {flags} & {s.flag:#x}:", *indented(lines), f"elif {not_zero(layout, w)}: odd = 1"]
    fixed = 0
    for _, s in mine:
        fixed |= 0 if s.flag else s.mask << s.lo or full
    some = any(s.flag for _, s in mine)
    out = [f"claimed = {fixed:#x}"] if some else []
    for i, s in mine:
        lines = read(i, s, slice_of(s))
        if s.flag:
            claim = s.mask << s.lo or full
            lines = [f"if {flags} & {s.flag:#x}:", f"    claimed |= {claim:#x}", *indented(lines)]
        out += lines
    if some:
        out.append(f"if w{w} & ~claimed: odd = 1")
    elif fixed != full:
        out.append(f"if w{w} & {full & ~fixed:#x}: odd = 1")
    return out


def indented(lines: list[str]) -> list[str]:
    """The lines, one step further in."""
    return [f"    {line}" for line in lines]


def _read(i: int, s: Slot, value: str, into: str) -> list[str]:
    """Lines that put the field's value into ``f<i>``, or under its name into the dict ``into``."""
    target = f"{into}[{s.name!r}]" if into else f"f{i}"
    lines: list[str] = []
    if s.const is not None:
        lines += constant(i, s, value)
        lines += [f"{target} = f{i}"] if into else []
    elif s.kind is not None and issubclass(s.kind, OpenEnum):
        lines += [f"f{i} = known{i}({value})", f"if f{i} is None: f{i} = load{i}({value})"]
        lines += [f"{target} = f{i}"] if into else []
    elif s.kind is not None and issubclass(s.kind, OpenFlags):
        lines.append(f"{target} = load{i}({value})")
    elif s.kind is bool:
        lines.append(f"{target} = ({value}) != 0")
    elif s.kind is not None:  # a nested structure
        lines += nested(s, f"{target} = load{i}({value})")
    elif s.load is None:
        lines.append(f"{target} = {value}")
    elif s.exact:
        lines.append(f"{target} = load{i}({value})")
    else:
        lines += [f"f{i} = load{i}({value})", f"if dump{i}(f{i}) != {value}: odd = 1"]
        lines += [f"{target} = f{i}"] if into else []
    return lines


def constant(i: int, s: Slot, value: str) -> list[str]:
    """Lines that read a constant into ``f<i>``."""
    return [
        f"f{i} = " + (f"load{i}({value})" if s.load else value),
        f"if f{i} != const{i}:",
        f"    raise DecodeError(f'expected {{const{i}!r}}, found {{f{i}!r}}', structure=NAME, "
        f"path={s.name!r}, offset=offset + {s.offset})",
    ]


def nested(s: Slot, line: str) -> list[str]:
    """Lines that read a nested structure by ``line``, and name the field where that fails."""
    return [
        "try:",
        f"    {line}",
        "except WireError as error:",
        f"    raise error.within(NAME, {s.name!r}, offset + {s.offset}) from None",
    ]
