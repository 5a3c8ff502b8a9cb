"""Wrong declarations: the mistakes that leave every law of one declaration intact, because it makes them everywhere.

A mutant is the layout which the kernel computes for the same class with two things exchanged: the places of two words
of one size, the bits of two slices of one width, or two validation bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import combinations
from typing import Any, NamedTuple

from cper.wire import Bits, FieldLayout, LayoutError, Struct, Valid
from cper.wire._codegen import generate
from cper.wire._layout import Layout, lay_out


class Mutant(NamedTuple):
    """What was exchanged, and the layout that came of it; None where the kernel itself refused it."""

    kind: str
    """``words``, ``slices`` or ``bits``."""
    first: str
    second: str
    layout: Layout | None

    @property
    def rows(self) -> tuple[FieldLayout, ...]:
        """The mutated layout's rows."""
        assert self.layout is not None
        return self.layout.rows

    def codec(self, cls: type[Struct]) -> dict[str, Any]:
        """The generated functions of the mutated declaration."""
        assert self.layout is not None
        return generate(cls, self.layout)[1]


def words(cls: type[Struct]) -> Iterator[Mutant]:
    """Every pair of words of one size, exchanged; slices stay with their word."""
    order = [name for name, _, _ in cls.words.words]
    slices = [slot.name for slot in cls.words.slots if slot.mask]
    size = {name: cell.size for name, cell, _ in cls.words.words}
    for i, j in combinations(range(len(order)), 2):
        if size[order[i]] == size[order[j]]:
            names = list(order)
            names[i], names[j] = order[j], order[i]
            yield _mutant(cls, "words", order[i], order[j], [*names, *slices], None)


def slices(cls: type[Struct]) -> Iterator[Mutant]:
    """Every pair of slices of one width, exchanged."""
    marked = {slot.name: slot.mask for slot in cls.words.slots if slot.mask}
    for a, b in combinations(marked, 2):
        if marked[a] == marked[b]:
            yield _mutant(cls, "slices", a, b, None, _exchanged(cls, a, b, Bits))


def validation_bits(cls: type[Struct]) -> Iterator[Mutant]:
    """Every pair of validation bits, exchanged."""
    valid = [slot.name for slot in cls.words.slots if slot.flag]
    for a, b in combinations(valid, 2):
        yield _mutant(cls, "bits", a, b, None, _exchanged(cls, a, b, Valid))


def all_of(cls: type[Struct]) -> Iterator[Mutant]:
    """All three kinds."""
    yield from words(cls)
    yield from slices(cls)
    yield from validation_bits(cls)


def _mutant(cls: type[Struct], kind: str, a: str, b: str, names: list[str] | None, fields: Any) -> Mutant:
    try:
        return Mutant(kind, a, b, lay_out(cls, cls.SIZE, names, fields))
    except LayoutError:
        return Mutant(kind, a, b, None)


def _exchanged(cls: type[Struct], a: str, b: str, mark: type) -> dict[str, Any]:
    fields = dict(cls.model_fields)
    for name, other in ((a, b), (b, a)):
        field = fields[name] = copy(cls.model_fields[name])
        theirs = next(m for m in cls.model_fields[other].metadata if isinstance(m, mark))
        field.metadata = [theirs if isinstance(m, mark) else m for m in field.metadata]
    return fields
