"""What happened to a machine, moment by moment, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vmm_ras.effects import ArmAck, PollAck, Release, Reply, SetRegisters, Stop, WriteGuest
from vmm_ras.events import (
    Code,
    GuestAbort,
    HostSignal,
    MemoryFault,
    Proceed,
    TellRecord,
    TellSdei,
    TellSea,
    TellSerror,
)
from vmm_ras.guests.os import Action
from vmm_ras.memory import MemorySlot
from vmm_ras.rows import OUTCOMES, size_of
from vmm_ras.traces.items import AckDelay, MaskSerror, PollStop, RunAt, SdeiRegistered, VcpuThread
from vmm_ras.words import asked


class Moment(NamedTuple):
    """One thing that happened."""

    at: float
    """Seconds since the guest booted."""
    what: Any
    """A trace item (what was said), an Effect (what the core asked for), an Action (what the guest did), or a Wait."""


class Wait(NamedTuple):
    """Time passes."""

    seconds: float


class Place(NamedTuple):
    """Where the machine's memory and threads are, for words about addresses and threads."""

    slot: MemorySlot
    page_shift: int
    threads: tuple[int, ...]

    def page(self, gpa: int) -> str:
        """A guest physical address in words."""
        if self.slot.gpa <= gpa < self.slot.gpa + self.slot.size:
            return f"page {gpa - self.slot.gpa >> self.page_shift} (gpa {gpa:#x})"
        return f"gpa {gpa:#x}"

    def gpa(self, hva: int) -> int:
        """The guest physical address of a host virtual one."""
        return hva - self.slot.hva + self.slot.gpa

    def vcpu(self, index: int) -> str:
        """A vCPU in words."""
        return f"vCPU {index}"

    def thread(self, tid: int) -> str:
        """A host thread in words."""
        return f"vCPU {self.threads.index(tid)}" if tid in self.threads else "no vCPU"


def seconds(value: float) -> str:
    """Seconds as people write them."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + " s"


def lines(journal: Iterable[Moment], place: Place) -> Iterator[str]:
    """The timeline: seconds since boot, who, what; a line for each moment that people ask for."""
    for at, what in journal:
        who, text = _words(what, place)
        if text:
            yield f"{at:12.6f}  {who:<6}  {text}"


_QUIET = (Stop, Release, ArmAck, WriteGuest, PollAck, Reply, MemorySlot, VcpuThread)


def _words(what: Any, place: Place) -> tuple[str, str]:
    if isinstance(what, _QUIET) or (isinstance(what, SetRegisters) and what.source_id is None):
        return "", ""
    if isinstance(what, Action):
        source = "" if what.source_id is None else f" (source {what.source_id})"
        return "guest", OUTCOMES.get(what.outcome, what.outcome).removeprefix("guest ") + source
    said = _said(what, place)
    if said is not None:
        return said
    text = asked(what, place)
    return "core", repr(what) if text is None else text


def _said(what: Any, place: Place) -> tuple[str, str] | None:
    """What was said to the machine."""
    match what:
        case HostSignal(code, hva, lsb, tid):
            where = f"{place.page(place.gpa(hva))}, {size_of(lsb)}"
            if code == Code.AR:
                return "host", f"BUS_MCEERR_AR: {place.thread(tid)} consumes {where}"
            told = f", told to the thread of {place.thread(tid)}" if tid in place.threads else ""
            return "host", f"BUS_MCEERR_AO: {where} is lost{told}"
        case GuestAbort(vcpu, esr, gva, gpa):
            known = "".join(f", gva {v:#x}" for v in [gva] if v is not None)
            where = "memory unknown" if gpa is None else place.page(gpa)
            return "host", f"KVM_EXIT_ARM_SEA: vCPU {vcpu} consumes {where}, ESR {esr:#x}{known}"
        case MemoryFault(gpa, size):
            return "host", f"memory fault: {place.page(gpa)}, {size:#x} bytes"
        case Proceed(rule):
            return "host", f"the orchestrator lets rule {rule} proceed"
        case TellRecord(block, source_id, _):
            where = "the first free source" if source_id is None else f"source {source_id}"
            return "host", f"a record of {len(block)} bytes is told through {where}"
        case TellSea(vcpu, esr, _):
            return "host", f"vCPU {vcpu} is told an SEA without a record, ESR {esr:#x}"
        case TellSerror(vcpu, vsesr):
            return "host", f"vCPU {vcpu} is told an SError, syndrome {vsesr:#x}"
        case TellSdei(number, _):
            return "host", f"SDEI event {number} is signalled"
        case Wait(value):
            return "time", f"{seconds(value)} pass"
        case AckDelay(ms, source_id):
            when = "never again" if ms is None else f"{ms:g} ms late" if ms else "at once"
            return "guest", f"acknowledges {'every source' if source_id is None else f'source {source_id}'} {when}"
        case MaskSerror(vcpu, masked):
            return "guest", f"vCPU {vcpu} {'masks' if masked else 'unmasks'} SErrors"
        case SdeiRegistered(registered):
            return "guest", f"{'registers' if registered else 'unregisters'} its SDEI events"
        case RunAt(vcpu, el):
            return "guest", f"vCPU {vcpu} runs at EL{el}"
        case PollStop(stopped):
            return "guest", f"{'stops' if stopped else 'starts'} looking at polled sources"
    return None
