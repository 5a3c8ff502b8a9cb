"""What a guest is still owed: asked of a running core, or of a snapshot, before anybody decides to move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vmm_ras.arm64 import DISR_A, ESR_ISS
from vmm_ras.memory import ACKED, HELD, POSTED, TOUCH, UNREPORTED
from vmm_ras.notifier import Notifier
from vmm_ras.sdei_state import SHARED
from vmm_ras.sdei_table import REGISTERED


def pending(core: Notifier, vcpus: Sequence[Any] = (), effects: Sequence[Any] = ()) -> dict[str, Any]:
    """What is owed, as JSON-able values.  Nothing of it ever has to keep a guest from moving: all of it travels.

    ``vcpus``: the registers of each, a mapping or with a ``take``, as for a snapshot: what the host kernel injected
    itself only they know (``serror`` or ``vsesr``, from KVM_GET_VCPU_EVENTS).  ``effects``: those not carried out yet.

    ``vcpus`` and ``sources`` list those that are owed something, ``pages`` counts lost pages by what the guest knows of
    them; ``idle`` says that nothing is left to tell, to acknowledge or to finish.
    """
    counts, waiting = core.poison.counts, core.poison.waiting
    by_vcpu = {n: _of_vcpu(core, n, vcpus[n] if n < len(vcpus) else None) for n in range(core.vcpus)}
    sources = [_of_source(core, s) for s in core.busy.values()]
    shared = list(core.sdei.state.pending.get(SHARED, ()))
    out: dict[str, Any] = {
        "vcpus": [{"vcpu": n, "owed": owed} for n, owed in by_vcpu.items() if owed],
        "sources": sources,
        "sdei": shared,
        "pages": {
            "unreported": counts[UNREPORTED],
            "by_rule": {rule.name: waiting[q] for q, rule in enumerate(core.rules) if waiting[q]},
            "held": waiting[HELD],
            "on_touch": waiting[TOUCH],
            "posted": counts[POSTED],
            "acked": counts[ACKED],
        },
        "records": len(core.inbox.records),
        "effects": [type(e).__name__ for e in effects],
    }
    untold = counts[UNREPORTED] - waiting[TOUCH]
    out["idle"] = not (out["vcpus"] or sources or shared or untold or effects or core.inbox.records)
    return out


def _of_source(core: Notifier, source: Any) -> dict[str, Any]:
    s = source.state
    return {
        "source_id": source.placed.source_id,
        "way": source.way,
        "owed": "acknowledgement",
        "rule": core.rules[s.queue].name,
        "pages": [list(page) for page in s.pages],
        "vcpu": s.vcpu,
        "repeated": s.tries,
        "overdue_at": None if s.overdue == float("inf") else s.overdue,
        "looked_at": None if s.poll == float("inf") else s.poll,
        "line": source.placed.vector if source.way in {"gsiv", "gpio"} else None,
    }


def _of_vcpu(core: Notifier, vcpu: int, registers: Any) -> list[dict[str, Any]]:
    owed: list[dict[str, Any]] = []
    if registers is not None:
        values = registers if isinstance(registers, Mapping) else registers.take()
        serror = values.get("serror", values.get("vsesr"))
        if serror is not None:
            owed.append({"owed": "serror", "syndrome": serror})
        if values.get("latent") is not None:
            owed.append({"owed": "latent error", "syndrome": values["latent"]})
        if (values.get("disr") or 0) & DISR_A:
            owed.append({"owed": "deferred serror", "syndrome": values["disr"] & ESR_ISS})
    abort = core.aborts.get(vcpu)
    if abort is not None:
        first = abort.first if abort.first >= 0 else None
        owed.append(
            {
                "owed": "consumed error",
                "gpa": None if first is None else first << core.page_shift,
                "pages": abort.pages,
                "state": "to be stopped" if abort.state is None else "held",
                "rule": core.rules[abort.queue].name if abort.queue >= 0 else None,
                "until": None if abort.until == float("inf") else abort.until,
            }
        )
    owed += [{"owed": "notification", "source_id": source_id} for source_id in core.wanted.get(vcpu, ())]
    owed += [{"owed": "order", "what": order._asdict()} for order in core.inbox.orders.get(vcpu, ())]
    if vcpu in core.stopping:
        owed.append({"owed": "stop", "effect": core.stopping[vcpu]})
    sdei = core.sdei.state
    owed += [{"owed": "sdei event", "event": number} for number in sdei.pending.get(vcpu, ())]
    owed += [{"owed": "sdei completion", "event": context.event} for context in sdei.contexts[vcpu]]
    if not sdei.unmasked >> vcpu & 1 and any(state & REGISTERED for state in sdei.states[vcpu].values()):
        owed.append({"owed": "sdei unmask"})
    return owed
