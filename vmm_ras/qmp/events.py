"""What clients are told unasked: QEMU's MEMORY_FAILURE, with the address, and what an orchestrator must know."""

from __future__ import annotations

from typing import Any

from vmm_ras.effects import Decided, Effect, Escalate, OwnMemory, Report
from vmm_ras.events import Code

TOLD: tuple[type, ...] = (Decided, OwnMemory, Report, Escalate)
"""Effects that clients hear of."""
_OTHERS = {"ignored": "ignore", "reset": "reset"}


def event_of(effect: Effect) -> tuple[str, dict[str, Any]] | None:
    """Name and data of the event that tells of an effect; None for those that nobody outside hears of.

    MEMORY_FAILURE (QEMU's qapi/run-state.json) has ``gpa``, ``size`` in bytes (where they are known), ``rule`` and
    ``what`` besides QEMU's members, and for the VMM's own memory ``hva``.  RAS_REPORT and RAS_ESCALATION are for an
    orchestrator.
    """
    if isinstance(effect, Decided):
        place = {"gpa": effect.gpa, "size": effect.size} if effect.gpa >= 0 else {}
        said = _failure("guest", _action(effect), effect.code) | place
        return "MEMORY_FAILURE", said | {"rule": effect.rule, "what": effect.what}
    if isinstance(effect, OwnMemory):
        action = "fatal" if effect.code == Code.AR else "ignore"
        return "MEMORY_FAILURE", _failure("hypervisor", action, effect.code) | {
            "hva": effect.hva, "size": 1 << effect.lsb,
        }  # fmt: skip
    if isinstance(effect, Report):
        known = {"code": effect.code.name, "gpa": effect.gpa, "size": effect.size, "rule": effect.rule}
        return "RAS_REPORT", known | {"waits": effect.until is not None}
    if isinstance(effect, Escalate):
        return "RAS_ESCALATION", {"source": effect.source_id, "action": effect.action, "reason": effect.reason}
    return None


def _action(effect: Decided) -> str:
    """QEMU's word for what is done: a VM that must be stopped or moved cannot take the error itself."""
    if effect.what in {"stop", "migrate"}:
        return "fatal" if effect.code == Code.AR else "ignore"
    return _OTHERS.get(effect.what, "inject")


def _failure(recipient: str, action: str, code: Code) -> dict[str, Any]:
    flags = {"action-required": code == Code.AR, "recursive": False}
    return {"recipient": recipient, "action": action, "flags": flags}
