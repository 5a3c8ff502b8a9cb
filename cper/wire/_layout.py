"""From annotations to a layout: which words lie on the wire, and how each field is read from them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

from cper.wire._cells import Bits, Cell, Valid, ValidationBits, Word
from cper.wire._documented import doc_of
from cper.wire._errors import LayoutError
from cper.wire._names import OpenEnum, OpenFlags

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from cper.wire._struct import Struct


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One field's place on the wire, in bytes: what documents, errors, hex dumps and tests read."""

    path: str
    offset: int
    size: int
    valid: int | None = None
    bits: tuple[int, int] | None = None
    """Lowest and highest bit of the word at ``offset``, where the field is a slice."""
    reserved: bool = False
    declared: tuple[type[Struct], str] | None = field(default=None, repr=False, compare=False)
    """The class and the name that the field is declared under."""

    @property
    def doc(self) -> str:
        """What the declaration says of it."""
        return doc_of(*self.declared) if self.declared else ""


@dataclass(frozen=True, slots=True)
class Slot:
    """How one field is read from, and written to, the unpacked words."""

    name: str
    word: int
    offset: int
    flag: int = 0
    """The validation bit as a mask, or 0: always there."""
    lo: int = 0
    mask: int = 0
    """Mask of a slice, shifted down by ``lo``; 0: the whole word."""
    kind: type | None = None
    """Open enum, open flags or bool that the number becomes, or nested structure."""
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None
    plain: Callable[[Any], Any] | None = None
    exact: bool = True
    const: Any = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that the declaration of one structure says about bytes."""

    size: int
    words: tuple[tuple[str, Cell, int], ...]
    """(name, cell, offset) of each word, in wire order."""
    slots: tuple[Slot, ...]
    rows: tuple[FieldLayout, ...]
    flags: int | None
    """Index of the validation word."""
    known: int
    """All bits of the validation word that a field has: its validation bit, or a slice."""

    @property
    def format(self) -> str:
        """The ``struct`` format of the words."""
        return "<" + "".join(cell.fmt for _, cell, _ in self.words)


def field_names(cls: type[Struct]) -> list[str]:
    """What ``cls`` annotates, in wire order: base classes first."""
    from cper.wire._struct import Struct

    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Struct) and base is not Struct:
            names.update(dict.fromkeys(vars(base).get("__annotations__", ())))
    return list(names)


def lay_out(
    cls: type[Struct], size: int, names: Iterable[str] | None = None, fields: Mapping[str, FieldInfo] | None = None
) -> Layout:
    """Read ``cls``'s annotations as a layout of ``size`` bytes.

    ``names`` and ``fields`` say what the layout would be if the class declared another order, or other fields.  Raises
    LayoutError where the declaration contradicts itself.
    """
    words: dict[str, tuple[int, Cell, int]] = {}
    slots: list[Slot] = []
    rows: list[FieldLayout] = []
    offset = 0

    def complain(reason: str, name: str = "") -> LayoutError:
        return LayoutError(reason, structure=cls.__name__, path=name, offset=offset)

    declared = cls.model_fields if fields is None else fields
    for name in field_names(cls) if names is None else names:
        field = declared.get(name)
        if field is None:  # a ClassVar: room that is no field
            cell = getattr(cls, name, None)
            if isinstance(cell, Word):
                words[name] = len(words), cell, offset
                rows.append(FieldLayout(name, offset, cell.size, reserved=not isinstance(cell, ValidationBits)))
                offset += cell.size
            continue
        annotation: Any = field.annotation
        nested, kind, literal, valid, part, cell = _read(annotation, *field.metadata)
        flag, bit = (1 << valid.bit, valid.bit) if valid else (0, None)
        if part is not None:
            if part.word not in words:
                raise complain(f"slices {part.word!r}, which is not declared above", name)
            index, whole, at = words[part.word]
            if not 0 <= part.lo < part.hi <= 8 * whole.size or whole.fmt not in {"B", "H", "I", "Q"}:
                raise complain(f"bits {part.lo} to {part.hi} are not in {part.word!r}", name)
            mask = (1 << part.hi - part.lo) - 1
            lo, mask = (0, mask << part.lo) if part.in_place else (part.lo, mask)
            slots.append(Slot(name, index, at, flag, lo, mask, kind))
            rows.append(FieldLayout(name, at, whole.size, bit, (part.lo, part.hi - 1), declared=(cls, name)))
            continue
        if cell is None:
            raise complain("has no wire cell", name)
        slots.append(
            Slot(
                name, len(words), offset, flag, kind=nested or kind, load=cell.load, dump=cell.dump,
                plain=cell.plain, exact=cell.exact, const=literal,
            )
        )  # fmt: skip
        rows.append(FieldLayout(name, offset, cell.size, bit, declared=(cls, name)))
        if nested is not None:
            rows += [replace(r, path=f"{name}.{r.path}", offset=offset + r.offset) for r in nested.layout]
        words[name] = len(words), cell, offset
        offset += cell.size

    flags = [index for index, cell, _ in words.values() if isinstance(cell, ValidationBits)]
    bits = [s.flag for s in slots if s.flag]
    if offset != size:
        raise complain(f"fields add up to {offset} bytes, not {size}")
    if len(set(bits)) != len(bits):
        raise complain("two fields claim one validation bit")
    if bits and len(flags) != 1:
        raise complain("Valid() needs exactly one ValidationBits word")
    if flags and sum(bits) >= 1 << 8 * next(c.size for i, c, _ in words.values() if i == flags[0]):
        raise complain("a validation bit lies outside its word")
    inside = [s for s in slots if s.mask and flags and s.word == flags[0]]
    if any(s.flag for s in inside):
        raise complain("a slice of the validation word is always valid")
    if any(s.mask << s.lo & sum(bits) for s in inside):
        raise complain("a slice of the validation word holds a field's validation bit")
    _no_overlap(cls, list(words), slots)
    return Layout(
        size, tuple((n, c, o) for n, (_, c, o) in words.items()), tuple(slots), tuple(rows),
        flags[0] if flags else None, sum(bits) | sum({s.mask << s.lo for s in inside}),
    )  # fmt: skip


def _no_overlap(cls: type[Struct], words: list[str], slots: list[Slot]) -> None:
    taken = [0] * len(words)
    for s in slots:
        if taken[s.word] & s.mask << s.lo:
            raise LayoutError(
                f"overlaps another slice of {words[s.word]!r}", structure=cls.__name__, path=s.name, offset=s.offset
            )
        taken[s.word] |= s.mask << s.lo


class _Read(NamedTuple):
    """What an annotation says, whatever the field is called."""

    nested: type[Struct] | None
    kind: type | None
    literal: Any
    valid: Valid | None
    part: Bits | None
    cell: Cell | None


@lru_cache(maxsize=4096)
def _read(annotation: Any, *metadata: Any) -> _Read:
    """Looks through ``Annotated[...] | None``."""
    from cper.wire._struct import Struct

    kinds, marks = [], list(metadata)
    for kind in (annotation, *get_args(annotation)):
        marks += getattr(kind, "__metadata__", ())
        kinds.append(getattr(kind, "__origin__", kind))
        kinds += [a for a in get_args(kind) if isinstance(a, type)] if get_origin(kind) is not None else []
    kinds.append(annotation)
    types = [k for k in kinds if isinstance(k, type)]
    nested = next((k for k in types if issubclass(k, Struct)), None)
    return _Read(
        nested,
        next((k for k in types if issubclass(k, OpenEnum | OpenFlags | bool)), None),
        next((get_args(k)[0] for k in kinds if get_origin(k) is Literal and len(get_args(k)) == 1), None),
        _first(marks, Valid),
        _first(marks, Bits),
        _first(marks, Cell) if nested is None else _nested(nested),
    )


def _nested(kind: type[Struct]) -> Cell:
    """Room for a structure.  To look its functions up now would have its codec written, which few need."""
    return Cell(
        f"{kind.SIZE}s",
        load=lambda raw: kind.decode(raw),  # noqa: PLW0108
        dump=lambda value: kind.encode(value),  # noqa: PLW0108
        plain=lambda raw: kind.plain_of(raw),  # noqa: PLW0108
    )


def _first(items: list[Any], kind: type) -> Any:
    return next((i for i in items if isinstance(i, kind)), None)


def packer(layout: Layout) -> struct.Struct:
    """The ``struct`` that packs the layout's words."""
    return struct.Struct(layout.format)
