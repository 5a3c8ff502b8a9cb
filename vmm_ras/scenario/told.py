"""What is asserted: verdicts that say their reason, what a page was told, and blocks that differ field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from acpi.ghes import Entry, StatusBlock
from cper.memory import PlatformMemory
from cper.wire import Struct, WireError
from cper.words import counted
from vmm_ras.effects import Posted
from vmm_ras.errors import InputError
from vmm_ras.profiles import WAYS
from vmm_ras.rows import OUTCOMES
from vmm_ras.scenario.journal import seconds

MOST = 20
"""Fields that a difference shows."""


class Verdict:
    """True or false, and why: its repr is the sentence that a failed assertion shows."""

    __slots__ = ("holds", "words")

    def __init__(self, holds: bool, words: str) -> None:
        self.holds, self.words = holds, words

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return self.words


class Block(bytes):
    """A status block; its repr names it, and comparing two in a test shows the fields that differ."""

    def decode_block(self) -> StatusBlock:
        """The block's structure."""
        return StatusBlock.decode(self)

    def __repr__(self) -> str:
        try:
            count = len(self.decode_block().entries)
        except WireError:
            return f"Block({self.hex()})"
        return f"<status block, {len(self)} bytes, {counted(count, 'entry', 'entries')}>"


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 255:
        return f"{value:#x}"
    return repr(value)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{index}]")
    else:
        yield path, value


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a block or structure by path."""
    try:
        if isinstance(value, bytes):
            value = StatusBlock.decode(value)
        if isinstance(value, StatusBlock | Struct):
            return dict(_flat(value.plain()))
    except WireError:
        pass
    return None


def differences(left: Any, right: Any) -> list[str]:
    """The fields in which two blocks, or two structures, differ; for bytes also where the first difference is.

    Of fields, the first ``MOST``.
    """
    mine, theirs, out = _fields(left), _fields(right), []
    if mine is not None and theirs is not None:
        for path in [*mine, *(p for p in theirs if p not in mine)]:
            one, two = (f.get(path) for f in (mine, theirs))
            if one != two:
                out.append(f"{path}: {_shown(one)} != {_shown(two)}")
        if len(out) > MOST:
            out[MOST:] = [f"... and {counted(len(out) - MOST, 'field')} more"]
    if isinstance(left, bytes) and isinstance(right, bytes) and left != right:
        at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
        sizes = f", {len(left)} and {len(right)} bytes" if len(left) != len(right) else ""
        out.append(f"first different byte: {at:#x}{sizes}")
        out += [
            f"  {name} {data[at & -16 : (at & -16) + 16].hex(' ')}"
            for name, data in (("left ", left), ("right", right))
        ]
    return out


def _same(have: Any, wanted: Any) -> bool:
    return bool(have == wanted) or (isinstance(wanted, str) and getattr(have, "plain", None) == wanted)


@dataclass(frozen=True, repr=False)
class Telling:
    """What the guest was told of a page by one block; false where it was told nothing.

    Times are seconds; ``outcome`` is what the guest did about the block (``vmm_ras.rows.OUTCOMES``), None while it has
    not read it.
    """

    where: str
    gpa: int
    posted: Posted | None = None
    why_not: str = ""
    happened_at: float = 0.0
    """When the host lost the page, or a vCPU consumed it."""
    posted_at: float = 0.0
    acked_at: float | None = None
    outcome: str | None = None
    taken_back: str = ""
    """Why the block was withdrawn."""

    def __bool__(self) -> bool:
        return self.posted is not None and not self.taken_back

    def __repr__(self) -> str:
        p = self.posted
        if p is None:
            return f"{self.where} was not told: {self.why_not}"
        if self.taken_back:
            return f"{self.where} was not told: its block for {p.delivery} was taken back, {self.taken_back}"
        on = "" if p.vcpu is None else f", vCPU {p.vcpu}"
        esr = "" if p.esr is None else f", ESR {p.esr:#x}"
        did = "not read yet" if self.outcome is None else OUTCOMES.get(self.outcome, self.outcome)
        ack = "not acked" if self.acked_at is None else f"acked after {seconds(self.acked_at - self.happened_at)}"
        return f"{self.where} was told by {p.delivery}: source {p.source_id}{on}, rule {p.rule}{esr}; {did}; {ack}"

    @property
    def _told(self) -> Posted:
        if self.posted is None or not self:
            raise InputError(repr(self))
        return self.posted

    @property
    def delivery(self) -> str:
        """``sea``, ``sei``, ``sdei``, ``gsiv``, ``gpio`` or ``polled``."""
        return self._told.delivery

    @property
    def source_id(self) -> int:
        """The error source whose block it is."""
        return self._told.source_id

    @property
    def vcpu(self) -> int | None:
        """The vCPU that was notified, where one was."""
        return self._told.vcpu

    @property
    def esr(self) -> int | None:
        """ESR of the SEA or SError."""
        return self._told.esr

    @property
    def rule(self) -> str:
        """The rule of the policy that told it."""
        return self._told.rule

    @property
    def pages(self) -> int:
        """Entries in the block."""
        return len(self._told.pages)

    @property
    def block(self) -> Block:
        """The block's bytes."""
        return Block(self._told.block)

    @property
    def entry(self) -> Entry:
        """The data entry about this page."""
        index = next(i for i, (gpa, size) in enumerate(self._told.pages) if gpa <= self.gpa < gpa + size)
        return self.block.decode_block().entries[index]

    @property
    def section(self) -> PlatformMemory:
        """The CPER section about this page."""
        section = self.entry.section()
        assert isinstance(section, PlatformMemory)
        return section

    @property
    def acked_after(self) -> float | None:
        """Seconds from the error to the acknowledgement; None: it is not acknowledged."""
        return None if self.acked_at is None else self.acked_at - self.happened_at

    def by(self, *ways: str) -> Verdict:
        """Whether it was told by one of these ways.  Raises InputError for what is no way."""
        for way in ways:
            if way not in WAYS.values():
                raise InputError(f"way {way!r}: expected one of {', '.join(WAYS.values())}")
        if not self or self.delivery in ways:
            return Verdict(bool(self), repr(self))
        p = self._told
        return Verdict(
            False,
            f"{self.where} was told by {p.delivery} (source {p.source_id}, rule {p.rule}), not by {' or '.join(ways)}",
        )

    def is_acked(self) -> Verdict:
        """Whether the guest acknowledged it."""
        return Verdict(bool(self) and self.acked_at is not None, repr(self))

    def within(self, seconds: float) -> Verdict:
        """Whether the guest acknowledged it in that time after the error."""
        after = self.acked_after
        return Verdict(bool(self) and after is not None and after <= seconds, repr(self))

    def says(self, **fields: Any) -> Verdict:
        """Whether fields of the record have these values.

        A name is looked up in the memory section, then in the data entry, then in the block's header; an enumeration
        may be given by its word: ``says(severity="recoverable", physical_address=0x40003000)``.
        Raises InputError for a name that none of them has.
        """
        if not self:
            return Verdict(False, repr(self))
        entry, wrong = self.entry, []
        parts: tuple[Struct, ...] = (self.section, entry.header, self.block.decode_block().header)
        for name, wanted in fields.items():
            part = next((p for p in parts if name in type(p).model_fields), None)
            if part is None:
                raise InputError(f"a record has no field {name!r}")
            have = getattr(part, name)
            if not _same(have, wanted):
                wrong.append(f"{name} is {_shown(getattr(have, 'plain', have))}, not {_shown(wanted)}")
        if wrong:
            return Verdict(False, f"the record about {self.where}: {'; '.join(wrong)}")
        return Verdict(
            True, f"the record about {self.where} says {', '.join(f'{k} {_shown(v)}' for k, v in fields.items())}"
        )
