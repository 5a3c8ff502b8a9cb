"""Replay a trace: every event through the core into a model guest; ``ledger`` has a row for what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from acpi.image import Image
from vmm_ras.deciding import Hook
from vmm_ras.effects import Effect
from vmm_ras.errors import InputError
from vmm_ras.events import Code, Event, GuestAbort, HostSignal, MemoryFault, Proceed, Told
from vmm_ras.guests.model import ModelGuest
from vmm_ras.guests.os import Action
from vmm_ras.ledger import WINDOW, Ledger
from vmm_ras.memory import ACKED, POSTED, UNREPORTED, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.record import NATIVE, RecordStyle
from vmm_ras.rows import Row
from vmm_ras.traces.items import (
    AckDelay,
    BadLine,
    Header,
    MaskSerror,
    PollStop,
    RunAt,
    SdeiRegistered,
    Unlocated,
    VcpuThread,
)

RAM_BASE = 0x4000_0000
"""Where guest RAM begins, as on QEMU's virt machine."""
WINDOW_SIZE = 1 << 30
"""Without a map, each new window of this many bytes of host addresses gets the next of guest RAM."""
TABLES = 0x3FF0_0000
"""Where the tables and blocks lie: below guest RAM, in a slot of the VMM's own."""
_AR: Final = Code.AR
STEP: Final = 0.001
"""Seconds between events of a trace that tells no times."""
SETTLE = 60.0
"""Seconds that the guest is given, after the last event, to finish."""
MAX_RAM = 1 << 40
"""Bytes of guest RAM that a trace, or the order of appearance, may make: the poison map has a byte for each page."""


class Replay:
    """One model machine that a trace is replayed into.

    ``slots``: the guest's memory; without any, and without ones in the trace, windows are mapped as addresses appear.
    ``vcpus``: how many; threads that consume poison become vCPUs in order of appearance.  ``machine``: one that is made
    already, instead of an image and all that is said of another.
    """

    def __init__(
        self,
        image: Image | None,
        *,
        policy: Policy | None = None,
        guest: GuestProfile = PROFILES["linux"],
        slots: Iterable[MemorySlot] = (),
        vcpus: int = 8,
        page_shift: int = 12,
        style: RecordStyle = NATIVE,
        sdei: bool = True,
        hook: Hook | None = None,
        machine: tuple[Notifier, ModelGuest] | None = None,
    ) -> None:
        if machine is None:
            assert image is not None
            self.image = image
            memory = MemoryMap(slots)
            core = Notifier(
                image.sources, memory, policy=policy, guest=guest, vcpus=vcpus, page_shift=page_shift, style=style,
                hook=hook,
            )  # fmt: skip
            model = ModelGuest(image, guest, vcpus=vcpus, page_shift=page_shift)
            for slot in memory.slots:
                model.memory.add_region(slot.gpa, slot.size)
            regions = [(gpa, gpa + len(data)) for _, gpa, data in image.regions]
            firmware = min(low for low, _ in regions), max(high for _, high in regions)
        else:
            (core, model), firmware = machine, (0, 0)
        self.notifier, self.guest, self.page_shift = core, model, core.page_shift
        self.mapped = bool(core.memory.slots)
        self.now, self.seq = 0.0, 0
        self.ledger = Ledger(model, core.page_shift)
        self.summary, self.notices = self.ledger.summary, self.ledger.notices
        self.watch: Callable[[list[Effect], list[Action]], None] | None = None
        """Called, where it is set, with the effects that were carried out and what the guest did then."""
        self._origin: float | None = None
        self._next_gpa = RAM_BASE
        self._next_vcpu = 0
        self._firmware = firmware
        """Span of what the model really reads: only there poison matters to its memory."""
        if machine is None and sdei:
            model.start_sdei(core, 0.0)

    # -- the loop ----------------------------------------------------------------------

    def run(self, entries: Iterable[tuple[int, float | None, Any]]) -> Iterator[Row]:
        """Replay a trace; a row per event, in trace order.  Raises what iterating ``entries`` raises."""
        ledger, core, guest = self.ledger, self.notifier, self.guest.os
        rows = ledger.rows
        for line, at, item in entries:
            kind = type(item)
            if kind is HostSignal:
                until = self._clock(at)
                if core.next_deadline() is None and guest.next_time(self.now) > until:
                    self.now = until
                else:
                    self._advance(until)
                self._signal(line, item)
            else:
                if at is not None or kind is GuestAbort or kind is MemoryFault:
                    self._advance(self._clock(at))
                self._entry(line, item)
            while rows and (rows[0].closed or len(rows) > WINDOW):
                yield ledger.emit()
        self.settle()
        while rows:
            yield ledger.emit()

    def play(self, item: Any, line: int = 0) -> None:
        """One item of a trace, or what an orchestrator, a person or a test asks for, now."""
        if item.__class__ is HostSignal:
            self._signal(line, item)
        elif item.__class__ is Proceed:
            self._drive(self.notifier.receive(item, self.now))
        else:
            self._entry(line, item)
        while self.ledger.ready:
            self.ledger.emit()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._advance(self.now + seconds)

    def settle(self) -> None:
        """Let the guest finish what it has: up to SETTLE seconds of its time."""
        end = self.now + SETTLE
        while self.now < end:
            counts = self.notifier.poison.counts
            if not counts[UNREPORTED] and not counts[POSTED] and not self.notifier.aborts:
                break
            before = self.now
            self._advance(min(end, self._next_time()))
            if self.now == before:
                break
        counts, s = self.notifier.poison.counts, self.summary
        s.pages = {"unreported": counts[UNREPORTED], "posted": counts[POSTED], "acked": counts[ACKED]}
        s.offlined, s.signalled, s.panicked = (
            self.guest.os.offlined.count, self.guest.os.signalled, self.guest.os.panicked,
        )  # fmt: skip

    def _next_time(self) -> float:
        core, guest = self.notifier.next_deadline(), self.guest.os.next_time(self.now)
        return guest if core is None else min(core, guest)

    def _clock(self, at: float | None) -> float:
        if at is None:
            return self.now + STEP
        if self._origin is None:
            self._origin = at - self.now
        return max(self.now, at - self._origin)

    def _advance(self, until: float) -> None:
        """Let time pass: what core and guest do by themselves happens at its time, in order."""
        while (due := self._next_time()) <= until:
            self.now = max(self.now, due)
            self.guest.os.advance(self.now)
            if self.guest.os.actions:
                self._follow([])
            self._drive(self.notifier.expire(self.now))
        self.now = until

    def _drive(self, effects: list[Effect]) -> None:
        self.guest.drive(self.notifier, effects, self.now, self._follow if self.watch is not None else None)
        if self.guest.os.actions:
            self.ledger.outcomes()

    def _entry(self, line: int, item: Any) -> None:
        if item.__class__ is GuestAbort or item.__class__ is MemoryFault:
            self._other(line, item)
        elif isinstance(item, Told):
            self._drive(self.notifier.receive(item, self.now))
        else:
            self._action(line, item)

    # -- events --------------------------------------------------------------------------

    def _signal(self, line: int, event: HostSignal) -> None:
        code, hva, lsb, tid, _ = event
        notifier = self.notifier
        slot = notifier.memory.slot_of(hva)
        if slot is None and not self.mapped:
            slot = self._map_window(hva)
        gpa = vcpu = None
        if slot is not None:
            low, start, _ = slot
            gpa = start + (hva - low)
        name = "AO"
        if code is _AR:
            name, vcpu = "AR", notifier.threads.get(tid)
            if vcpu is None and slot is not None:
                vcpu = self._new_vcpu(tid)
        self._begin(Row(self.seq, line, self.now, name, hva, gpa, lsb, vcpu), event, gpa, 1 << lsb)

    def _other(self, line: int, event: GuestAbort | MemoryFault) -> None:
        if isinstance(event, GuestAbort):
            row = Row(self.seq, line, self.now, "AR", None, event.gpa, self.page_shift, event.vcpu)
            if event.vcpu >= self.notifier.vcpus:
                self._bad(line, f"there is no vCPU {event.vcpu} (--vcpus)")
                if event.gpa is None:
                    row.outcome = "ignored"
        else:
            row = Row(self.seq, line, self.now, "AO", None, event.gpa, max(event.size - 1, 0).bit_length())
        self._begin(row, event, row.gpa, 1 << row.lsb)

    def _begin(self, row: Row, event: Event, gpa: int | None, size: int) -> None:
        self.seq += 1
        ledger, guest = self.ledger, self.guest
        ledger.begin(row)
        if gpa is not None:
            first, end = self._firmware
            low = gpa & -size
            if low < end and low + size > first:
                low, high = max(low, first), min(low + size, end)
                guest.memory.poison(low, high - low)
        notifier, now = self.notifier, self.now
        effects = notifier.handlers[type(event)](event, now)
        guest.drive(notifier, effects, now, self._follow if self.watch is not None else None)
        if guest.os.actions:
            ledger.outcomes()
        ledger.handling = None

    def _follow(self, effects: list[Effect]) -> None:
        """Effects were carried out, and somebody wants to see them, and what the guest did then."""
        actions = self.guest.os.actions
        if actions:
            self.ledger.outcomes()
        if self.watch is not None:
            self.watch(effects, actions)

    # -- what the trace says beside events -------------------------------------------------

    def _action(self, line: int, item: Any) -> None:
        guest, os = self.guest, self.guest.os
        match item:
            case Header():
                pass
            case Unlocated():
                self.summary.unlocated += 1
            case MemorySlot():
                if not self.mapped and self.notifier.memory.slots:
                    self.notices.append(f"line {line}: memory after addresses that were mapped by appearance: ignored")
                    return
                if item.size + sum(slot.size for slot in self.notifier.memory.slots) > MAX_RAM:
                    self.notices.append(
                        f"line {line}: more than {MAX_RAM >> 40} TiB of guest memory: ignored (use --map)"
                    )
                    return
                self.mapped = True
                try:
                    self._add_slot(item)
                except InputError as error:
                    self._bad(line, str(error))
            case VcpuThread(vcpu, tid):
                if vcpu >= self.notifier.vcpus:
                    self._bad(line, f"there is no vCPU {vcpu} (--vcpus)")
                else:
                    self.notifier.threads[tid] = vcpu
            case AckDelay(_, source_id) if source_id is not None and source_id not in self.notifier.sources:
                self._bad(line, f"there is no source {source_id}")
            case AckDelay(ms, source_id):
                os.ack_delay[source_id] = float("inf") if ms is None else ms / 1000
            case MaskSerror(vcpu, masked) if vcpu < self.notifier.vcpus:
                cpu = guest.vcpus[vcpu]
                if masked:
                    cpu.mask_serror()
                elif cpu.unmask_serror():
                    self._run_on(vcpu)
            case SdeiRegistered(registered):
                guest.start_sdei(self.notifier, self.now, registered, self._follow)
            case RunAt(vcpu, el) if vcpu < self.notifier.vcpus:
                if guest.vcpus[vcpu].run_at(el):
                    self._run_on(vcpu)
            case PollStop(stopped):
                os.polls_stopped = stopped
            case BadLine(reason):
                self._bad(line, reason)
            case _:
                self._bad(line, f"there is no vCPU {item.vcpu} (--vcpus)")

    def _bad(self, line: int, reason: str) -> None:
        self.summary.bad_lines += 1
        self.notices.append(f"line {line}: {reason}")

    def _run_on(self, vcpu: int) -> None:
        """The vCPU took a pending SError: let the guest handle it, and look at the acks."""
        self.guest.os.run(vcpu, self.now)
        looks: list[Effect] = [s.look(0) for s in self.notifier.ways["sei"] if s.state.pages]
        for index, look in enumerate(looks):
            looks[index] = look._replace(id=self.notifier.done + 1)
        self._drive(looks)

    def _add_slot(self, slot: MemorySlot) -> None:
        self.notifier.add_slot(slot)
        self.guest.memory.add_region(slot.gpa, slot.size)

    def _map_window(self, hva: int) -> MemorySlot | None:
        if len(self.notifier.memory.slots) >= MAX_RAM // WINDOW_SIZE:
            return None
        slot = MemorySlot(hva & -WINDOW_SIZE, self._next_gpa, WINDOW_SIZE)
        self._next_gpa += WINDOW_SIZE
        self._add_slot(slot)
        self.summary.windows.append((slot.hva, slot.gpa, slot.size))
        self.notices.append(
            f"no map given: host {slot.hva:#x}-{slot.hva + slot.size - 1:#x} stands for guest {slot.gpa:#x}-"
            f"{slot.gpa + slot.size - 1:#x}, by order of appearance (--map HVA:GPA:SIZE)"
        )
        return slot

    def _new_vcpu(self, tid: int) -> int | None:
        taken = set(self.notifier.threads.values())
        vcpu = next((v for v in range(self.notifier.vcpus) if v not in taken), None)
        if vcpu is None:
            self.notices.append(
                f"thread {tid} consumed poison, but all {self.notifier.vcpus} vCPUs have threads (--vcpus)"
            )
            return None
        self.notifier.threads[tid] = vcpu
        return vcpu
