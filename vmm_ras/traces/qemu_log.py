"""QEMU's messages about memory errors (x86; some arm64 builds too), as on its stderr or in libvirt's log of a domain.

``Guest MCE Memory Error at QEMU addr HVA and GUEST addr GPA of type BUS_MCEERR_AR injected`` has both addresses, so the
page of each comes before its first signal as a MemorySlot.  It has no thread, and no granule but where it says ``on
lost large page SIZE@ADDRESS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from vmm_ras.events import Code, HostSignal, MemoryFault
from vmm_ras.memory import MemorySlot
from vmm_ras.traces.items import Entry, Tally, TraceItem, Unlocated, shown
from vmm_ras.traces.lines import LONGEST

PAGE_SHIFT = 12
"""log2 of the bytes lost where QEMU does not say."""
SLOTS_MAX = 4096
"""Pages that become slots of guest memory."""

_SAYS = re.compile(rb"Guest (?:MCE )?Memory Error at |Hardware memory error")
_TOLD = re.compile(
    rb"Guest (?:MCE )?Memory Error at QEMU addr 0x([0-9a-f]{1,16}) and GUEST addr 0x([0-9a-f]{1,16})"
    rb"(?: on lost large page ([0-9a-f]{1,16})@[0-9a-f]{1,16})? of type BUS_MCEERR_(A[RO]) injected\s*\Z"
)
_OWN = re.compile(rb"Hardware memory error(?: at addr (0x[0-9a-f]{1,16}))?(?: of type BUS_MCEERR_(A[RO]))?")
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ")  # -msg timestamp=on
_PROGRAM = re.compile(rb"(?:\A|[ /])(?:qemu-system-[\w.-]{1,20}|qemu-kvm): ")


def recognises(line: bytes) -> bool:
    """Whether a line can only be QEMU's: it names the program that speaks, or says what only QEMU says."""
    return _TOLD.search(line[:500]) is not None or _PROGRAM.search(line[:200]) is not None


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally) -> Iterator[Entry]:
    """HostSignal per error that QEMU told the guest; all else that it says is ignored.  Raises InputError when strict.

    Trace clock and wall clock are known with ``-msg timestamp=on`` (libvirt's default).
    """
    slots = _Slots()
    for first, lines in batches:
        for number, line in enumerate(lines, first):
            if line is None:
                reason = f"a line of more than {LONGEST} bytes, expected a message of QEMU"
                yield number, None, tally.reject(number, reason)
                continue
            says = _SAYS.search(line)
            if says is None:
                continue
            at = _seconds(line)
            text = line[says.start() :]
            if text.startswith(b"Hardware"):
                yield number, at, _own(text, at, tally)
                continue
            items = _told(text, at, tally, slots)
            if isinstance(items, str):
                yield number, at, tally.reject(number, items)
            else:
                for item in items:
                    yield number, at, item


class _Slots:
    """Pages whose place in guest memory the log has told."""

    def __init__(self) -> None:
        self.sizes: set[int] = set()
        self.gpas: dict[tuple[int, int], int] = {}
        """Guest address by host address and size."""

    def gpa_of(self, hva: int) -> int | None:
        for size in self.sizes:
            gpa = self.gpas.get((hva & -size, size))
            if gpa is not None:
                return gpa + (hva & size - 1)
        return None

    def add(self, slot: MemorySlot) -> bool:
        """Whether there is room for one more, and it covers none that is there."""
        end = slot.hva + slot.size
        covers = slot.size > 1 << PAGE_SHIFT and any(slot.hva <= hva < end for hva, _ in self.gpas)
        if covers or len(self.gpas) >= SLOTS_MAX:
            return False
        self.gpas[slot.hva, slot.size] = slot.gpa
        self.sizes.add(slot.size)
        return True


def _told(text: bytes, time: float | None, tally: Tally, slots: _Slots) -> list[TraceItem] | str:
    """A signal, and before it the slot of its page where that was not told yet; or what is wrong."""
    match = _TOLD.match(text)
    if match is None:
        return f"{shown(text)}, expected QEMU addr ... and GUEST addr ... of type BUS_MCEERR_AR or _AO injected"
    hva, gpa, size = int(match[1], 16), int(match[2], 16), int(match[3] or b"1000", 16)
    lsb = size.bit_length() - 1
    if size != 1 << lsb or not PAGE_SHIFT <= lsb <= 40:
        return f"a large page of {size:#x} bytes, expected a power of two"
    signal = HostSignal(Code[match[4].decode()], hva, lsb, 0, time)
    known = slots.gpa_of(hva)
    if known is not None:
        if known != gpa:
            return f"QEMU addr {hva:#x} at GUEST addr {gpa:#x}, expected {known:#x} as before"
        return [signal]
    slot = MemorySlot(hva & -size, gpa - (hva & size - 1), size)
    if slot.gpa < 0 or slot.gpa + size > 1 << 64:
        return f"GUEST addr {gpa:#x} in a page of {size:#x} bytes, expected it within 64 bits"
    if not slots.add(slot):
        tally.notes[f"pages that overlap others, or beyond {SLOTS_MAX}: by guest address only, without AR or AO"] += 1
        return [MemoryFault(slot.gpa, size, time)]
    if match[3] is not None:
        tally.notes["large pages: their whole is taken to lie in one piece in the guest"] += 1
    return [slot, signal]


def _own(text: bytes, time: float | None, tally: Tally) -> Unlocated:
    """An error in memory that is not the guest's."""
    match = _OWN.match(text)
    assert match is not None  # _SAYS found the same words
    address, code = match.groups()
    tally.notes["errors in memory of QEMU itself: no guest has lost anything by them"] += 1
    where = "" if address is None else f" at host address {address.decode()}"
    return Unlocated(None if code is None else Code[code.decode()], 0, f"in memory of QEMU itself{where}", time)


def _seconds(line: bytes) -> float | None:
    match = _TIME.match(line)
    if match is None:
        return None
    try:
        return (datetime.fromisoformat(match[1].decode()) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except ValueError:
        return None
