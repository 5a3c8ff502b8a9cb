"""The operating system's RAS side of the model guest: it finds the tables, reads blocks, acts, acknowledges.

What it does follows the profile (``vmm_ras.profiles``), whose statements cite real kernels; the order of its steps is
that of ``ghes_proc`` and ``ghes_notify_*`` in Linux (read, act, clear the block status, acknowledge).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from acpi.entries import EntryFront, entry_places
from acpi.ghes import MAX_BLOCK_SIZE, ErrorStatusHeader, raw_data_place
from acpi.hest import NotificationType
from acpi.image import PlacedSource, find_sources, find_tables
from cper.common import SectionFlags, Severity
from cper.memory import PlatformMemory
from cper.wire import WireError
from vmm_ras import sdei_table
from vmm_ras.arm64 import AET, PSTATE_EL, PSTATE_I, PSTATE_NRW
from vmm_ras.errors import GuestError, Poisoned
from vmm_ras.events import new
from vmm_ras.guests.memory import GuestMemory
from vmm_ras.guests.pages import PageSet
from vmm_ras.guests.printed import PrintedBlocks
from vmm_ras.guests.processor import cache_errors
from vmm_ras.guests.vcpu import Vcpu
from vmm_ras.profiles import SECTION_TYPES, GuestProfile
from vmm_ras.sdei_state import EventDescription

VBAR: Final = 0xFFFF_8000_0801_0000
SDEI_ENTRY: Final = 0xFFFF_8000_0802_0000
USER_PC = 0x40_0AA4
KERNEL_PC = 0xFFFF_8000_0803_0000
NEVER: Final = float("inf")
_VECTOR_SYNC: Final = 0x000
_VECTOR_SERROR: Final = 0x180
_RESUME_KERNEL: Final = ((sdei_table.EVENT_COMPLETE_AND_RESUME, (VBAR + 0x280,)),)
_RESUME_USER: Final = ((sdei_table.EVENT_COMPLETE_AND_RESUME, (VBAR + 0x480,)),)
_RESUME_USER_AARCH32: Final = ((sdei_table.EVENT_COMPLETE_AND_RESUME, (VBAR + 0x680,)),)
_COMPLETE: Final = ((sdei_table.EVENT_COMPLETE, (0,)),)
_RECOVERABLE: Final = Severity.RECOVERABLE
_SURVIVABLE: Final = frozenset({Severity.RECOVERABLE, Severity.CORRECTED, Severity.INFORMATIONAL})
_CORRECTED: Final = frozenset({Severity.CORRECTED, Severity.INFORMATIONAL})
_MEMORY: Final = PlatformMemory.GUID.bytes_le
_ARM_PROCESSOR: Final = SECTION_TYPES["arm_processor"].bytes_le
_SEA: Final = NotificationType.SEA
_THRESHOLD: Final = SectionFlags.ERROR_THRESHOLD_EXCEEDED
_HEADER_SIZE: Final = ErrorStatusHeader.SIZE
_LARGEST: Final = MAX_BLOCK_SIZE
_VALID: Final = PlatformMemory.at("validation_bits")
_ADDRESS: Final = PlatformMemory.at("physical_address")
assert (_VALID.offset, _VALID.size, _ADDRESS.size) == (0, 8, 8)
assert _ADDRESS.valid is not None
_ADDRESS_VALID: Final = 1 << _ADDRESS.valid
_address: Final = Struct(f"<Q{_ADDRESS.offset - 8}xQ").unpack_from
"""Validation bits, which a section begins with, and the address."""
_SHORTEST: Final = PlatformMemory.SIZES[0]
_MOST: Final = 64
Program = Iterator[tuple[int, tuple[int, ...]]]
"""What a guest calls, one after the other: (function, arguments) of each HVC.  No call depends on an answer."""
_heads: Final[dict[bytes, tuple[int, Severity, int, ErrorStatusHeader | None]]] = {}
"""Headers that were read: blocks differ, their headers hardly do."""


def _head(raw: bytes) -> tuple[int, Severity, int, ErrorStatusHeader | None]:
    """Bytes of a block, its severity, bytes of its entries, and its header if it has raw data.  Raises WireError."""
    found = _heads.get(raw)
    if found is None:
        head = ErrorStatusHeader.decode(raw)
        length = head.data_length
        if head.raw_data_length:
            found = head.raw_data_offset + head.raw_data_length, head.severity, length, head
        else:
            found = _HEADER_SIZE + length, head.severity, length, None
        if len(_heads) == _MOST:
            _heads.clear()
        _heads[raw] = found
    return found


class Action(NamedTuple):
    """What the guest did about one block, or about an abort for which it found none."""

    source_id: int | None
    outcome: str
    """``offlined``, ``soft-offlined``, ``ignored``, ``swallowed``, ``malformed``, ``unreadable``, ``panic``; without a
    record ``objerr`` (the process got BUS_OBJERR), ``oops`` (an abort in the kernel) or ``serror-panic``."""
    raw: bytes = b""
    """The block as the guest read it."""


_ACTION: Final = Action


class GuestOs:
    """One operating system: what it bound, what it remembers, what it did."""

    def __init__(
        self, memory: GuestMemory, vcpus: list[Vcpu], profile: GuestProfile, *, page_shift: int = 12, sdei: bool = True
    ) -> None:
        self.memory, self.vcpus, self.profile, self.page_shift = memory, vcpus, profile, page_shift
        self.uses_sdei = sdei
        self.sdei_events: tuple[EventDescription, ...] = ()
        """Events that its client registers besides those of its sources."""
        self.sdei_handled: Counter[int] = Counter()
        """How often each of them was handled."""
        self.sources: tuple[PlacedSource, ...] = ()
        self.by_type: dict[NotificationType, list[PlacedSource]] = {}
        self.actions: list[Action] = []
        """Since the last :meth:`drain`."""
        self.offlined = PageSet()
        self.memory_failures = 0
        """Memory failures that were reported, the ignored ones too."""
        self.signalled = 0
        """Processes that got a SIGBUS."""
        self.panicked = ""
        self.ack_delay: dict[int | None, float] = {}
        """Source id (None: all) to seconds that its acknowledgement is late; infinity: it never comes."""
        self.polls_stopped = False
        self._survivable_aet = frozenset(AET[name] for name in profile.serror_survived)
        self.printed = PrintedBlocks(profile) if profile.cache_slots else None
        self.late: list[tuple[float, PlacedSource]] = []
        """When it acknowledges which source."""
        self.polled: dict[int, PlacedSource] = {}
        """Sources that it looks at by itself, by id."""
        self.unpolled: dict[int, PlacedSource] = {}
        """Polled sources that were filled and not looked at since."""

    # -- boot ------------------------------------------------------------------------

    def boot(self, rsdp: int) -> None:
        """Find HEST by walking RSDP and XSDT in the guest's own memory, and bind its sources.

        Raises DecodeError, GuestError: a guest whose tables cannot be read has no firmware-first reporting.
        """
        tables = find_tables(self.memory.read, rsdp)
        if "HEST" not in tables:
            raise GuestError("the guest found no HEST")
        self.bind(find_sources(self.memory.read, tables["HEST"][1]))
        for vcpu in self.vcpus:
            vcpu.vbar = VBAR
            vcpu.run_at(0, USER_PC)

    def bind(self, sources: tuple[PlacedSource, ...]) -> None:
        """Bind those sources that the profile knows a way for."""
        self.sources = sources
        for source in sources:
            if source.notification in self.profile.notifications:
                self.by_type.setdefault(source.notification, []).append(source)
                if source.notification == NotificationType.POLLED and source.poll_interval_ms:
                    self.polled[source.source_id] = source

    def register_sdei(self, first: bool) -> Program:
        """The SDEI client on one vCPU: the first registers and enables the shared events; each unmasks itself."""
        calls: list[tuple[int, tuple[int, ...]]] = [(sdei_table.VERSION, ()), (sdei_table.PRIVATE_RESET, ())]
        if first:
            calls.append((sdei_table.SHARED_RESET, ()))
            for index, source in enumerate(self.sources):
                if source.notification == NotificationType.SDEI and source.vector:
                    handler = source.vector, SDEI_ENTRY, index, sdei_table.RM_ANY, 0
                    calls += [(sdei_table.EVENT_REGISTER, handler), (sdei_table.EVENT_ENABLE, (source.vector,))]
        for event in self.sdei_events:
            if first or not event.shared:
                handler = event.number, SDEI_ENTRY, len(self.sources), sdei_table.RM_ANY, 0
                calls += [(sdei_table.EVENT_REGISTER, handler), (sdei_table.EVENT_ENABLE, (event.number,))]
        return iter([*calls, (sdei_table.PE_UNMASK, ())])

    def unregister_sdei(self) -> Program:
        """The SDEI client gives its events up."""
        calls: list[tuple[int, tuple[int, ...]]] = []
        for source in self.sources:
            if source.notification == NotificationType.SDEI and source.vector:
                calls += [(call, (source.vector,)) for call in (sdei_table.EVENT_DISABLE, sdei_table.EVENT_UNREGISTER)]
        return iter(calls)

    # -- running ---------------------------------------------------------------------

    def run(self, index: int, now: float) -> Program | None:
        """The vCPU goes on: handle the exception that it stands at.  A program is returned where it makes calls."""
        vcpu = self.vcpus[index]
        pc = vcpu.pc
        if pc == SDEI_ENTRY:
            return self._sdei_handler(vcpu, now)
        if 0 <= pc - VBAR < 0x800 and vcpu.pstate & PSTATE_EL:
            taken = True
            while taken:  # the return may let in an SError that waited
                kind = vcpu.pc & 0x180
                if self.panicked:
                    pass  # nobody is left to handle it
                elif kind == _VECTOR_SYNC:
                    self._sea(vcpu, index, now)
                elif kind == _VECTOR_SERROR:
                    self._serror(vcpu, now)
                taken = vcpu.eret()  # an interrupt, as SDEI's COMPLETE_AND_RESUME makes it look, only returns
        return None

    def interrupt(self, source_id: int, now: float) -> None:
        """The error device (PNP0C33) was notified: read the GSIV and GPIO sources, as its notifier list is walked."""
        for kind in (NotificationType.GSIV, NotificationType.GPIO_SIGNAL):
            for source in self.by_type.get(kind, ()):
                self.read_source(source, now)

    def _sea(self, vcpu: Vcpu, index: int, now: float) -> None:
        from_user = vcpu.spsr & 0xF == 0
        claimed = False
        if from_user or self.profile.claims_sea_at_el1:
            sources = self.by_type.get(_SEA, [])
            if not self.profile.walks_all_sea_sources and len(sources) > 1:
                sources = [sources[index % len(sources)]]
            for source in sources:
                claimed = self.read_source(source, now) or claimed
        if claimed:
            self.signalled += from_user and not self.panicked
        elif from_user:
            self.signalled += 1
            self.actions.append(Action(None, "objerr"))
        else:
            self.actions.append(Action(None, "oops"))

    def _serror(self, vcpu: Vcpu, now: float) -> None:
        claimed = False
        for source in self.by_type.get(NotificationType.SEI, ()):
            claimed = self.read_source(source, now) or claimed
        if claimed:
            return
        aet = vcpu.esr >> 10 & 7
        survivable = vcpu.esr & 0x3F == 0x11 and not vcpu.esr >> 24 & 1 and aet in self._survivable_aet
        if not survivable:
            self._panic("SError")
            self.actions.append(Action(None, "serror-panic"))

    def _sdei_handler(self, vcpu: Vcpu, now: float) -> Program:
        event, argument, _, pstate = vcpu.x[:4]
        source = self.sources[argument] if argument < len(self.sources) else None
        if source is not None and source.vector == event:
            self.read_source(source, now)
        else:
            self.sdei_handled[event] += 1
        if pstate & 0xF == 0:  # as Linux: make it look like an interrupt, unless the kernel has those masked
            return iter(_RESUME_USER_AARCH32 if pstate & PSTATE_NRW else _RESUME_USER)
        return iter(_COMPLETE if pstate & PSTATE_I else _RESUME_KERNEL)

    # -- time ------------------------------------------------------------------------

    def block_written(self, source_id: int) -> None:
        """Host side: a block of this polled source was published, and is looked at later."""
        self.unpolled[source_id] = self.polled[source_id]

    def next_time(self, now: float) -> float:
        """When the guest does something by itself: its next poll of a filled source, or a late acknowledgement."""
        if not self.late and not self.unpolled:
            return NEVER
        soonest = min((at for at, _ in self.late), default=NEVER)
        if not self.polls_stopped and not self.panicked:
            for source in self.unpolled.values():
                soonest = min(soonest, self._poll_time(source, now))
        return soonest

    def advance(self, now: float) -> None:
        """Do what is due at ``now``."""
        for entry in [e for e in self.late if e[0] <= now]:
            self.late.remove(entry)
            source = entry[1]
            if source.ack is not None:
                self._acknowledge(source.source_id, source.ack, source.ack_preserve, source.ack_write)
        if not self.polls_stopped and not self.panicked:
            for source in [s for s in self.unpolled.values() if self._poll_time(s, now) <= now]:
                del self.unpolled[source.source_id]
                self.read_source(source, now)

    @staticmethod
    def _poll_time(source: PlacedSource, now: float) -> float:
        interval = source.poll_interval_ms / 1000
        periods = -(-now // interval)
        return periods * interval

    # -- reading a source --------------------------------------------------------------

    def drain(self) -> list[Action]:
        """What the guest did since the last call."""
        actions = self.actions
        self.actions = []
        return actions

    def read_source(self, source: PlacedSource, now: float) -> bool:
        """Read the source's block, act on it, clear and acknowledge it; whether it held anything that can be read.

        Nothing that lies in guest memory makes this raise.
        """
        if self.panicked:
            return False
        memory = self.memory
        source_id, by, _, _, register, _, block_length, _, ack, preserve, write = source
        try:
            at = memory.word(register)
            if not at:
                return False
            raw = memory.read(at, _HEADER_SIZE)
            if raw[:4] == b"\0\0\0\0":
                return False
            outcome = "malformed"
            try:
                size, severity, length, head = _head(raw)
                if size <= block_length and size <= _LARGEST:
                    raw = memory.read(at, size)
                    entries = entry_places(raw, length)  # a malformed block is refused before anything is done about it
                    if head is not None:
                        raw_data_place(head, _HEADER_SIZE + length, size)
                    outcome = self._process(raw, entries, severity, now, by)
            except WireError:
                pass
            memory.write(at, b"\0\0\0\0")
        except (Poisoned, GuestError):
            self.actions.append(Action(source_id, "unreadable"))
            return False
        self.actions.append(new(_ACTION, (source_id, outcome, raw)))
        delay = self.ack_delay
        if delay:
            late = delay.get(source_id, delay.get(None, 0.0))
            if late:
                if late != NEVER:
                    self.late.append((now + late, source))
                return outcome != "malformed"
        if ack is not None:
            self._acknowledge(source_id, ack, preserve, write)
        return outcome != "malformed"

    def _acknowledge(self, source_id: int, ack: int, preserve: int, write: int) -> None:
        try:
            self.memory.update_word(ack, preserve, write)
        except GuestError:
            self.actions.append(Action(source_id, "unreadable"))

    def _process(
        self, raw: bytes, entries: list[tuple[EntryFront, int, int, int]], severity: Severity, now: float,
        by: NotificationType,
    ) -> str:  # fmt: skip
        if severity not in _SURVIVABLE:
            self._panic(f"GHES: {severity.plain} hardware error")
            return "panic"
        if self.printed is not None and self.printed.swallows(raw, severity in _CORRECTED, now, by):
            return "swallowed"
        outcome = "ignored"
        for (_, _, section_type, length, of_entry, flags), _, body, end in entries:
            if section_type != _MEMORY:
                if section_type == _ARM_PROCESSOR and of_entry == severity == _RECOVERABLE:
                    for lost in cache_errors(raw[body:end], self.profile.arm_error_types == "ordinal"):
                        outcome = self._memory_failure(lost, outcome)
                continue
            if length < _SHORTEST:
                continue
            valid, address = _address(raw, body)
            if not valid & _ADDRESS_VALID:
                continue
            if of_entry == severity == _RECOVERABLE:
                outcome = self._memory_failure(address, outcome)
            elif of_entry == Severity.CORRECTED and flags & _THRESHOLD and self.memory.is_ram(address):
                self.offlined.add(address >> self.page_shift)
                outcome = "soft-offlined"
        return outcome

    def _memory_failure(self, address: int, outcome: str) -> str:
        """Take the page at ``address`` out of use; the outcome of the block, so far ``outcome``."""
        if self.memory.is_ram(address):
            self.memory_failures += 1
            self.offlined.add(address >> self.page_shift)
            return "offlined"
        self.memory_failures += self.profile.memory_failure_outside_ram
        return outcome

    def _panic(self, why: str) -> None:
        self.panicked = self.panicked or why
