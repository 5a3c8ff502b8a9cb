"""Commands that tell a VM of errors: lost memory, records as they are, aborts, SErrors, SDEI events."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from vmm_ras import arm64
from vmm_ras.effects import Decided, Dropped, Effect, OwnMemory, Posted, Queued
from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal, TellRecord, TellSdei, TellSea, TellSerror
from vmm_ras.qmp import arguments as a
from vmm_ras.qmp.machine import Machine
from vmm_ras.qmp.vms import CommandError, Vms

_SETS = {"uer": arm64.SET_UER, "uc": arm64.SET_UC, "ueo": arm64.SET_UEO}


def inject_ghes_v2_error(vms: Vms, given: a.Cper) -> Any:
    """Give the guest an error status block as it is."""
    _record(vms, given, None, 0)
    return {}


def inject_record(vms: Vms, given: a.InjectRecord) -> Any:
    """The same through a source of one's choice; says whether it was posted, or waits."""
    return _record(vms, given, given.source, given.vcpu)


def _record(vms: Vms, given: a.Cper, source: int | None, vcpu: int) -> dict[str, Any]:
    machine = vms.machine(given.vm)
    try:
        block = b64decode(given.cper, validate=True)
    except (binascii.Error, ValueError):
        raise CommandError("Invalid parameter 'cper': Base64 data is not valid") from None
    effects = machine.submit(TellRecord(block, source, vcpu))
    for effect in effects:
        if isinstance(effect, Posted) and effect.block == block:
            return {"outcome": "posted", "source": effect.source_id, "delivery": effect.delivery}
        if isinstance(effect, Queued):
            return {"outcome": "queued", "waiting": effect.waiting}
        if isinstance(effect, Dropped):
            raise CommandError(f"the record was dropped: {effect.reason}")
    return {"outcome": "submitted"}


def inject_memory_error(vms: Vms, given: a.InjectMemoryError) -> Any:
    """Tell the core of memory that the host lost, as its SIGBUS would; says what was decided."""
    machine = vms.machine(given.vm)
    limit = getattr(machine, "max_lsb", a.MAX_LSB)
    if given.lsb > limit:
        raise InputError(f"Invalid parameter 'lsb': at most {limit} for this VM")
    hva = _host_address(machine, given)
    code = Code[given.code]
    vcpu = 0 if given.vcpu is None and code is Code.AR else given.vcpu
    thread = -1 if vcpu is None else _thread_of(machine, vcpu)
    effects = machine.submit(HostSignal(code, hva, given.lsb, thread, vms.clock()))
    for effect in effects:
        if isinstance(effect, Decided):
            return {"outcome": effect.what, "rule": effect.rule, "gpa": effect.gpa, "size": effect.size}
        if isinstance(effect, OwnMemory):
            return {"outcome": "own-memory"}
    return {"outcome": "submitted"}


def _host_address(machine: Machine, given: a.InjectMemoryError) -> int:
    gpa, hva = given.gpa, given.hva
    if (gpa is None) == (hva is None):
        raise InputError("Parameter 'gpa' or 'hva' is missing" if gpa is None else "expected 'gpa' or 'hva', not both")
    if hva is not None:
        return hva
    assert gpa is not None
    with machine.lock:
        slots = machine.notifier.memory.slots
    for slot in slots:
        if slot.gpa <= gpa < slot.gpa + slot.size:
            return slot.hva + gpa - slot.gpa
    known = ", ".join(f"{s.gpa:#x}-{s.gpa + s.size - 1:#x}" for s in slots[:4])
    raise InputError(f"Invalid parameter 'gpa': {gpa:#x} is no guest memory ({known})")


def _thread_of(machine: Machine, vcpu: int) -> int:
    with machine.lock:
        threads = [tid for tid, number in machine.notifier.threads.items() if number == vcpu]
    if not threads:
        raise InputError(f"Invalid parameter 'vcpu': there is no vCPU {vcpu}")
    return threads[0]


def inject_sea(vms: Vms, given: a.InjectSea) -> Any:
    """Make a vCPU take a synchronous external abort with this syndrome, and no record."""
    machine = vms.machine(given.vm)
    parts = (given.dfsc, given.ea, given.set)
    if given.esr is None:
        esr = arm64.sea_esr(
            0, given.far, dfsc=arm64.DFSC_SEA if given.dfsc is None else given.dfsc, ea=given.ea or 0,
            set_=_SETS[given.set or "uer"], ras=machine.notifier.guest.ras, force=given.force,
        )  # fmt: skip
    elif parts != (None, None, None):
        raise InputError("Parameter 'esr' has dfsc, ea and set in it: expected it or them")
    else:
        esr = given.esr
    return _injected(machine.submit(TellSea(given.vcpu, esr, given.far)), {"esr": esr})


def inject_serror(vms: Vms, given: a.InjectSerror) -> Any:
    """Make a virtual SError with this syndrome pending for a vCPU, without a record."""
    machine = vms.machine(given.vm)
    if given.vsesr is not None and given.aet is not None:
        raise InputError("Parameter 'vsesr' has the type in it: expected it or 'aet'")
    vsesr = arm64.serror_iss(given.aet or "ueo") if given.vsesr is None else given.vsesr
    return _injected(machine.submit(TellSerror(given.vcpu, vsesr)), {"vsesr": vsesr})


def _injected(effects: Sequence[Effect], known: dict[str, Any]) -> dict[str, Any]:
    dropped = next((e for e in effects if isinstance(e, Dropped)), None)
    if dropped is not None:
        raise CommandError(f"it was dropped: {dropped.reason}")
    return known


def inject_sdei_event(vms: Vms, given: a.InjectSdeiEvent) -> Any:
    """Signal an SDEI event; says whether it is pending still, and whether the guest registered and enabled it."""
    machine = vms.machine(given.vm)
    machine.submit(TellSdei(given.event, given.vcpu))
    with machine.lock:
        sdei = machine.notifier.sdei
        return {"pending": sdei.pending(given.event), "enabled": sdei.accepts(given.event)}
