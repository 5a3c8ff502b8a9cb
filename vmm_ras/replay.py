"""Replay a trace: every event through the core into a model guest, with one row for what became of each.

A row is finished when its page is acknowledged, or nothing more can become of it.  Rows come out in trace order; at
most ``WINDOW`` wait for their end, so that memory is bounded by the guest's RAM and not by the number of events.  A row
that leaves the window unfinished says ``waiting``; the summary, made from the poison map, still counts its pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import crcmod.predefined

from acpi.image import Image
from vmm_ras.deciding import Hook
from vmm_ras.effects import (
    Acked,
    Decided,
    Effect,
    Escalate,
    HookFailed,
    InjectSea,
    OwnMemory,
    Posted,
    Report,
    TakenBack,
    Undelivered,
)
from vmm_ras.errors import InputError
from vmm_ras.events import Event, GuestAbort, HostSignal, MemoryFault, Proceed
from vmm_ras.guests.model import ModelGuest
from vmm_ras.guests.os import Action
from vmm_ras.memory import ACKED, POSTED, UNREPORTED, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.record import NATIVE, RecordStyle
from vmm_ras.rows import PANIC, Row, Summary
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
WINDOW = 65536
"""Rows that may wait for their end."""
STEP = 0.001
"""Seconds between events of a trace that tells no times."""
SETTLE = 30.0
"""Seconds that the guest is given, after the last event, to finish."""
MAX_RAM = 1 << 40
"""Bytes of guest RAM that a trace, or the order of appearance, may make: the poison map has a byte for each page."""
MAX_ESCALATIONS = 100
"""Escalations whose text the summary keeps."""
_SETTLED = frozenset({"known", "ignored", "on-touch"})

crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


class Replay:
    """One model machine that a trace is replayed into.

    ``slots``: the guest's memory; without any, and without ones in the trace, windows are mapped as addresses appear.
    ``vcpus``: how many; threads that consume poison become vCPUs in order of appearance.
    """

    def __init__(
        self,
        image: Image,
        *,
        policy: Policy | None = None,
        guest: GuestProfile = PROFILES["linux"],
        slots: Iterable[MemorySlot] = (),
        vcpus: int = 8,
        page_shift: int = 12,
        style: RecordStyle = NATIVE,
        sdei: bool = True,
        hook: Hook | None = None,
    ) -> None:
        self.image = image
        memory = MemoryMap(slots)
        self.mapped = bool(memory.slots)
        self.notifier = Notifier(
            image.sources, memory, policy=policy, guest=guest, vcpus=vcpus, page_shift=page_shift, style=style,
            hook=hook,
        )  # fmt: skip
        self.guest = ModelGuest(image, guest, vcpus=vcpus, page_shift=page_shift)
        for slot in memory.slots:
            self.guest.memory.add_region(slot.gpa, slot.size)
        self.page_shift, self.now, self.seq = page_shift, 0.0, 0
        self.summary = Summary()
        self.notices: list[str] = []
        """What people should be told about the trace itself; take and clear."""
        self.watch: Callable[[list[Effect], list[Action]], None] | None = None
        """Called, where it is set, with the effects that were carried out and what the guest did then."""
        self.blocks: Any = None
        """Called with (source id, block bytes) for each block that is published, where it is set."""
        self._origin: float | None = None
        self._next_gpa = RAM_BASE
        self._next_vcpu = 0
        self._rows: deque[Row] = deque()
        self._open: dict[int, list[Row]] = {}
        self._by_source: dict[int, list[Row]] = {}
        self._published: dict[int, bytes] = {}
        self.handling: Row | None = None
        """The row whose event is being handled."""
        self._bare: InjectSea | None = None
        self._hook_reasons: set[str] = set()
        self.guest.listeners = {
            Posted: self._posted,
            Acked: self._acked,
            Decided: self._decided,
            InjectSea: self._injected,
            OwnMemory: self._own_memory,
            TakenBack: self._taken_back,
            Undelivered: self._undelivered,
            Escalate: self._escalated,
            Report: self._reported,
            HookFailed: self._hook_failed,
        }
        regions = [(gpa, gpa + len(data)) for _, gpa, data in image.regions]
        self._firmware = min(low for low, _ in regions), max(high for _, high in regions)
        """Span of what the model really reads: only there poison matters to its memory."""
        if sdei:
            self.guest.start_sdei(self.notifier, 0.0)

    # -- the loop ----------------------------------------------------------------------

    def run(self, entries: Iterable[tuple[int, float | None, Any]]) -> Iterator[Row]:
        """Replay a trace; a row per event, in trace order.  Raises what iterating ``entries`` raises."""
        rows, core, guest = self._rows, self.notifier, self.guest.os
        for line, at, item in entries:
            kind = item.__class__
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
                yield self._emit()
        self.settle()
        while rows:
            yield self._emit()

    def play(self, item: Any, line: int = 0) -> None:
        """One item of a trace, or the orchestrator's Proceed, now."""
        if item.__class__ is HostSignal:
            self._signal(line, item)
        elif item.__class__ is Proceed:
            self._drive(self.notifier.receive(item, self.now))
        else:
            self._entry(line, item)
        while self._rows and (self._rows[0].closed or len(self._rows) > WINDOW):
            self._emit()

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
            self._outcomes()

    def _entry(self, line: int, item: Any) -> None:
        if item.__class__ is GuestAbort or item.__class__ is MemoryFault:
            self._other(line, item)
        else:
            self._action(line, item)

    # -- events --------------------------------------------------------------------------

    def _signal(self, line: int, event: HostSignal) -> None:
        code, hva, lsb, tid, _ = event
        notifier = self.notifier
        slot = notifier.memory.slot_of(hva)
        if slot is None and not self.mapped:
            slot = self._map_window(hva)
        gpa = None if slot is None else slot.gpa + hva - slot.hva
        vcpu = None
        if code.value == 4:
            vcpu = notifier.threads.get(tid)
            if vcpu is None and slot is not None:
                vcpu = self._new_vcpu(tid)
        self._begin(Row(self.seq, line, self.now, code._name_, hva, gpa, lsb, vcpu), event, gpa, 1 << lsb)

    def _other(self, line: int, event: GuestAbort | MemoryFault) -> None:
        if isinstance(event, GuestAbort):
            row = Row(self.seq, line, self.now, "AR", None, event.gpa, self.page_shift, event.vcpu)
            if event.vcpu >= self.notifier.vcpus:
                self.notices.append(f"line {line}: there is no vCPU {event.vcpu}")
        else:
            row = Row(self.seq, line, self.now, "AO", None, event.gpa, max(event.size - 1, 0).bit_length())
        self._begin(row, event, row.gpa, 1 << row.lsb)

    def _begin(self, row: Row, event: Event, gpa: int | None, size: int) -> None:
        self.seq += 1
        self._rows.append(row)
        if gpa is not None:
            page = gpa >> self.page_shift
            if page in self._open:
                self._open[page].append(row)
            else:
                self._open[page] = [row]
            first, end = self._firmware
            low = gpa & -size
            if low < end and low + size > first:
                low, high = max(low, first), min(low + size, end)
                self.guest.memory.poison(low, high - low)
        notifier, now = self.notifier, self.now
        self.handling = row
        effects = notifier.handlers[event.__class__](event, now)
        self.guest.drive(notifier, effects, now, self._follow if self.watch is not None else None)
        if self.guest.os.actions:
            self._outcomes()
        self.handling = None

    def _follow(self, effects: list[Effect]) -> None:
        """Effects were carried out, and somebody wants to see them, and what the guest did then."""
        actions = self.guest.os.actions
        if actions:
            self._outcomes()
        if self.watch is not None:
            self.watch(effects, actions)

    def _posted(self, e: Posted) -> None:
        _, source_id, delivery, vcpu, esr, pages, block, rule = e
        self.summary.blocks += 1
        if self.blocks is not None:
            self.blocks(source_id, block)
        crc, shift, rows, now = crc32c(block), self.page_shift, self._open, self.now
        found: list[Row] = []
        for gpa, _ in pages:
            for r in rows.get(gpa >> shift, ()):
                r.delivery, r.source_id, r.block, r.crc32c = delivery, source_id, block, crc
                r.pages, r.rule, r.esr = len(pages), r.rule or rule, r.esr if esr is None else esr
                r.posted_at = now
                if r.vcpu is None:
                    r.vcpu = vcpu
                found.append(r)
        self._by_source[source_id] = found
        self._published[source_id] = block

    def _acked(self, e: Acked) -> None:
        if self.guest.os.actions:  # what the guest did before: it is about the block that is acknowledged now
            self._outcomes()
        now = self.now
        for r in self._by_source.pop(e.source_id, ()):
            r.acked, r.acked_at = True, now
            self._close(r)

    def _decided(self, e: Decided) -> None:
        row = self.handling
        if row is not None:
            row.rule = e.rule
            if e.what in _SETTLED:
                row.outcome = e.what
                self._close(row)

    def _injected(self, e: InjectSea) -> None:
        if e.source_id is None:
            if self.guest.os.actions:
                self._outcomes()
            self._bare = e
            self._told_bare(e, None)

    def _own_memory(self, e: OwnMemory) -> None:
        if self.handling is not None:
            self.handling.outcome = "own-memory"
            self._close(self.handling)

    def _taken_back(self, e: TakenBack) -> None:
        if self.guest.os.actions:
            self._outcomes()
        self.summary.taken_back += 1
        for r in self._by_source.pop(e.source_id, ()):
            r.delivery = r.source_id = r.block = r.crc32c = r.posted_at = None
            r.outcome = "waiting"

    def _undelivered(self, e: Undelivered) -> None:
        self.summary.undelivered[f"{e.rule}: {e.reason}"] += 1
        if self.handling is not None and not e.rule:
            self.handling.outcome = "no-guest-memory"
            self._close(self.handling)

    def _escalated(self, e: Escalate) -> None:
        self.summary.escalated += 1
        if self.summary.escalated <= MAX_ESCALATIONS:
            self.summary.escalations.append(f"{e.action}: {e.reason}")

    def _reported(self, e: Report) -> None:
        self.summary.reports += 1

    def _hook_failed(self, e: HookFailed) -> None:
        if e.reason not in self._hook_reasons and len(self._hook_reasons) < MAX_ESCALATIONS:
            self._hook_reasons.add(e.reason)
            self.notices.append(f"{e.reason}; the rules decide")

    def _outcomes(self) -> None:
        """What the guest made of what it was told."""
        for source_id, did, raw in self.guest.os.drain():
            if source_id is None:
                self._told_bare(self._bare, did)
                continue
            outcome = did if not raw or raw == self._published.get(source_id, raw) else "garbled"
            for r in self._by_source.get(source_id, ()):
                if r.outcome not in PANIC:
                    r.outcome = outcome

    def _told_bare(self, sea: InjectSea | None, outcome: str | None) -> None:
        """An SEA went without a record: it is about the latest AR of its vCPU."""
        for r in reversed(self._rows):
            if r.code == "AR" and not r.closed and (sea is None or r.vcpu == sea.vcpu):
                if outcome in PANIC or (outcome and r.outcome == "waiting"):
                    r.outcome = outcome
                r.esr = sea.esr if sea else r.esr
                return

    def _close(self, row: Row) -> None:
        row.closed = True
        if row.gpa is not None:
            page = row.gpa >> self.page_shift
            rows = self._open.get(page)
            if rows is not None:
                if len(rows) == 1:
                    del self._open[page]
                else:
                    rows.remove(row)

    def _emit(self) -> Row:
        row = self._rows.popleft()
        if not row.closed:
            self._close(row)
        self.summary.count(row)
        return row

    # -- what the trace says beside events -------------------------------------------------

    def _action(self, line: int, item: Any) -> None:
        guest, os = self.guest, self.guest.os
        match item:
            case Header() | Unlocated():  # the trace's own notes count what has no place
                pass
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
                    self.summary.bad_lines += 1
                    self.notices.append(f"line {line}: {error}")
            case VcpuThread(vcpu, tid):
                if vcpu >= self.notifier.vcpus:
                    self.notices.append(f"line {line}: there is no vCPU {vcpu}")
                else:
                    self.notifier.threads[tid] = vcpu
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
                self.summary.bad_lines += 1
                self.notices.append(f"line {line}: {reason}")
            case _:
                self.notices.append(f"line {line}: there is no such vCPU")

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
