"""Commands that ask: QEMU's, as far as its injection scripts need them, and ours; and the orchestrator's part.

What a command raises is its reply: InputError a GenericError, CommandError one with another class.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from vmm_ras.errors import HostError, InputError
from vmm_ras.events import Proceed, Replaced
from vmm_ras.qmp import arguments as a
from vmm_ras.qmp import qom
from vmm_ras.qmp.session import NO_DEVICE, QEMU_VERSION
from vmm_ras.qmp.status import status
from vmm_ras.qmp.vms import MAX_VMS, CommandError, Vms

MAX_SNAPSHOT: Final = 8 << 20
"""Bytes of a snapshot that one reply carries."""


def query_version(vms: Vms, _: a.Arguments) -> Any:
    """QEMU's version that the protocol is like, and ours."""
    return {"qemu": QEMU_VERSION, "package": vms.package}


def query_status(vms: Vms, given: a.OfVm) -> Any:
    """Whether the guest runs."""
    state = getattr(vms.machine(given.vm), "status", "running")
    return {"running": state == "running", "status": state}


def query_name(vms: Vms, given: a.OfVm) -> Any:
    """The VM's name."""
    return {"name": vms.machine(given.vm).name}


def query_target(vms: Vms, _: a.Arguments) -> Any:
    """The guests' architecture."""
    return {"arch": "aarch64"}


def qom_get(vms: Vms, given: a.QomGet) -> Any:
    """A property of a device: vCPUs are /machine/unattached/device[n]."""
    try:
        return qom.get(vms.machine(given.vm), given.path, given.property)
    except KeyError:
        raise CommandError(f"Device '{given.path[:80]}' not found", NO_DEVICE) from None
    except LookupError:
        raise CommandError(f"Property '{given.path[:80]}.{given.property[:80]}' not found") from None


def qom_list(vms: Vms, given: a.QomList) -> Any:
    """Names and types of an object's properties."""
    try:
        return qom.children(vms.machine(given.vm), given.path)
    except KeyError:
        raise CommandError(f"Device '{given.path[:80]}' not found", NO_DEVICE) from None


def query_ras(vms: Vms, given: a.OfVm) -> Any:
    """All that the core knows of a VM: pages lost, sources, what the guest owes, what waits."""
    machine = vms.machine(given.vm)
    with machine.lock:
        known = status(machine.notifier)
    plain = getattr(machine, "plain", dict)
    return {"vm": machine.name} | known | plain() | {"events-dropped": vms.dropped()}


def query_snapshot(vms: Vms, given: a.OfVm) -> Any:
    """The VM as it stands, whatever is pending, as a snapshot; it goes on."""
    machine = vms.machine(given.vm)
    save = getattr(machine, "save", None)
    if save is None:
        raise CommandError(f"VM '{machine.name}' cannot be saved")
    data: bytes = save()
    if len(data) > MAX_SNAPSHOT:
        raise CommandError(f"VM '{machine.name}': a snapshot of {len(data)} bytes: at most {MAX_SNAPSHOT} go here")
    return {"vm": machine.name, "snapshot": b64encode(data).decode()}


def migrate(vms: Vms, given: a.Migrate) -> Any:
    """The VM leaves, memory and all, as a stream in a file; it ends here.  If that cannot be written, it goes on."""
    machine = vms.machine(given.vm)
    leave = getattr(machine, "migrate", None)
    if leave is None:
        raise CommandError(f"VM '{machine.name}' cannot migrate: query-snapshot has all of it")
    return {"vm": machine.name, "bytes": leave(given.uri.removeprefix("file:"))}


def proceed(vms: Vms, given: a.Proceed) -> Any:
    """After a RAS_REPORT: what waits under this rule may be told now."""
    machine = vms.machine(given.vm)
    if given.rule not in {rule.name for rule in machine.notifier.rules}:
        raise InputError(f"Invalid parameter 'rule': there is no rule {given.rule!r}")
    machine.submit(Proceed(given.rule))
    return {}


def memory_replaced(vms: Vms, given: a.MemoryReplaced) -> Any:
    """The guest has good memory again in this range: nothing is left to tell of it."""
    vms.machine(given.vm).submit(Replaced(given.gpa, given.size))
    return {}


def query_vms(vms: Vms, _: a.Arguments) -> Any:
    """The VMs."""
    found = []
    for m in vms.machines.values():
        known = {"name": m.name, "vcpus": m.vcpus, "status": getattr(m, "status", "running")}
        try:
            found.append(known | {"guest": m.notifier.guest.name})
        except HostError:  # it does not run, and has no core
            found.append(known)
    return found


def vm_add(vms: Vms, given: a.VmAdd) -> Any:
    """Make a VM with a model guest."""
    if vms.make is None:
        raise CommandError("no VM can be added to this service")
    if given.name in vms.machines or len(vms.machines) >= MAX_VMS:
        raise CommandError(f"VM '{given.name}' exists already, or there are {MAX_VMS}")
    machine = vms.make(given)
    vms.add(machine)
    vms.added(machine)
    return {}


def vm_del(vms: Vms, given: a.VmDel) -> Any:
    """Remove a VM that can be made anew."""
    if vms.make is None:
        raise CommandError("no VM can be removed from this service")
    machine = vms.machine(given.name)
    del vms.machines[given.name]
    vms.removed(machine)
    return {}
