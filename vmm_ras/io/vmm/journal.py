"""What happens to a live guest, as a line for people and as JSON-able values."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from cper.words import counted
from vmm_ras.effects import (
    Acked,
    Decided,
    Dropped,
    Effect,
    Escalate,
    HookFailed,
    InjectSea,
    InjectSerror,
    OwnMemory,
    Posted,
    Report,
    TakenBack,
    Undelivered,
)
from vmm_ras.events import Event, GuestAbort, HostSignal, MemoryFault, Replaced
from vmm_ras.words import asked

_KINDS: dict[type, str] = {
    HostSignal: "host-signal", GuestAbort: "guest-abort", MemoryFault: "memory-fault", Replaced: "replaced",
    Decided: "decided", Posted: "posted", InjectSea: "sea", InjectSerror: "serror", Acked: "acked",
    TakenBack: "taken-back", Undelivered: "undelivered", OwnMemory: "own-memory", Escalate: "escalate",
    Report: "report", HookFailed: "hook-failed", Dropped: "dropped",
}  # fmt: skip
"""What is told, and its name."""


def plain(item: Event | Effect) -> dict[str, Any] | None:
    """Its name as ``kind``, and its members; None for what is of the core's inner life."""
    kind = _KINDS.get(type(item))
    if kind is None:
        return None
    return {"kind": kind} | {key.replace("_", "-"): _value(value) for key, value in item._asdict().items()}


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple):
        return [_value(v) for v in value]
    return value


class _Names(NamedTuple):
    vcpus: tuple[str, ...]

    def page(self, gpa: int) -> str:
        return f"guest address {gpa:#x}"

    def vcpu(self, index: int) -> str:
        return self.vcpus[index]


def line(item: Event | Effect, names: tuple[str, ...], threads: dict[int, str]) -> str | None:
    """For people; ``names`` are those of the vCPUs, ``threads`` names by thread id."""
    match item:
        case HostSignal(code, hva, lsb, tid):
            who = threads.get(tid, "a thread")
            return f"SIGBUS {code.name} at host address {hva:#x}, {counted(1 << lsb, 'byte')}, in {who}"
        case GuestAbort(vcpu, esr, _, gpa):
            place = "" if gpa is None else f" at guest address {gpa:#x}"
            return f"{names[vcpu]}: the host relays an abort{place}, ESR {esr:#x}"
        case MemoryFault(gpa, size):
            return f"memory is lost at guest address {gpa:#x}, {counted(size, 'byte')}"
        case Replaced(gpa, size):
            return f"guest address {gpa:#x}, {counted(size, 'byte')}: good memory again"
    return asked(item, _Names(names)) if type(item) in _KINDS else None
