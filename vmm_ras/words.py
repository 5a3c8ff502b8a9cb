"""What the core asked for, or noticed, in words: the same in every timeline."""

from __future__ import annotations

from typing import Any, Protocol

from vmm_ras.effects import (
    Acked,
    Decided,
    Dropped,
    Escalate,
    Hold,
    HookFailed,
    InjectSea,
    InjectSerror,
    OwnMemory,
    Posted,
    RaiseLine,
    Report,
    SetRegisters,
    TakenBack,
    Undelivered,
)


class Names(Protocol):
    """How places and vCPUs of one machine are called."""

    def page(self, gpa: int) -> str:
        """A guest physical address in words."""

    def vcpu(self, index: int) -> str:
        """A vCPU in words."""


def asked(effect: Any, names: Names) -> str | None:
    """An effect in words; None for one of the core's inner life."""
    match effect:
        case Decided(_, code, gpa, size, rule, verdict):
            where = "a page that nobody knows" if gpa < 0 else f"{names.page(gpa)}, {size:#x} bytes"
            return f"rule {rule} decides about {where}, {code.name}: {verdict}"
        case Posted(_, source_id, delivery, vcpu, _, pages, block, rule):
            on = "" if vcpu is None else f", {names.vcpu(vcpu)}"
            by = f" by rule {rule}" if rule else ""
            more = f" and {len(pages) - 1} more" if len(pages) > 1 else ""
            about = f": {names.page(pages[0][0])}{more}" if pages else ""
            return f"block of {len(block)} bytes for source {source_id} ({delivery}{on}){by}{about}"
        case InjectSea(_, source_id, vcpu, esr, _):
            return f"SEA for {names.vcpu(vcpu)}, ESR {esr:#x}{', without a record' if source_id is None else ''}"
        case InjectSerror(_, _, vcpu, vsesr):
            return f"virtual SError for {names.vcpu(vcpu)}, syndrome {vsesr:#x}"
        case SetRegisters(_, source_id, vcpu) if source_id is not None:
            return f"SDEI event on {names.vcpu(vcpu)}"
        case RaiseLine(_, _, kind, number):
            return f"{kind} {number} is raised"
        case Hold(_, vcpu, reason, until):
            return f"{names.vcpu(vcpu)} is held until {until:.6f}: {reason}"
        case Acked(_, source_id):
            return f"source {source_id} is acknowledged"
        case TakenBack(_, source_id, _, reason):
            return f"block of source {source_id} is taken back: {reason}"
        case Undelivered(_, rule, reason):
            return f"no way of rule {rule} is open: {reason}" if rule else reason
        case OwnMemory(_, _, hva):
            return f"hva {hva:#x} is the VMM's own memory"
        case Escalate(_, _, action, reason):
            return f"asks the orchestrator to {action}: {reason}"
        case Report(_, code, gpa, _, rule):
            return f"reports {names.page(gpa)} to the orchestrator, {code.name}, rule {rule}"
        case HookFailed(_, reason) | Dropped(_, _, reason):
            return reason
    return None
