"""What a client may ask for: QEMU's commands as far as its injection scripts need them, and our own.

Each is a function of the VMs and its arguments; its first docstring line is its help.  What it raises is the reply:
InputError a GenericError, CommandError one with another class.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from vmm_ras import arm64
from vmm_ras.effects import Decided, Dropped, Effect, OwnMemory, Posted, Queued
from vmm_ras.errors import HostError, InputError, RasError
from vmm_ras.events import Code, HostSignal, Proceed, Replaced, TellRecord, TellSdei, TellSea, TellSerror
from vmm_ras.qmp import arguments as a
from vmm_ras.qmp import qom
from vmm_ras.qmp.machine import Machine
from vmm_ras.qmp.session import GENERIC, NO_DEVICE, NOT_FOUND, QEMU_VERSION
from vmm_ras.qmp.status import status

MAX_VMS: Final = 64
_SETS = {"uer": arm64.SET_UER, "uc": arm64.SET_UC, "ueo": arm64.SET_UEO}


class CommandError(RasError):
    """A command that is refused; ``kind`` is QMP's error class."""

    def __init__(self, reason: str, kind: str = GENERIC) -> None:
        super().__init__(reason)
        self.kind = kind


class Commands:
    """The VMs of a service, and what can be asked of them.

    ``make``: makes the VM that vm-add asks for, or None where there are no others than those that were added.
    ``clock``: seconds since the epoch.  ``package``: what query-version says of the program.
    """

    def __init__(
        self, package: str, clock: Callable[[], float], make: Callable[[a.VmAdd], Machine] | None = None
    ) -> None:
        self.package, self.clock, self.make = package, clock, make
        self.machines: dict[str, Machine] = {}
        self.added: Callable[[Machine], None] = lambda machine: None
        """Called with each VM that vm-add made."""
        self.removed: Callable[[Machine], None] = lambda machine: None
        self.dropped: Callable[[], int] = lambda: 0
        """How many events no client could be told of, because they did not read."""

    def add(self, machine: Machine) -> None:
        """One more VM.  Raises InputError."""
        if machine.name in self.machines:
            raise InputError(f"VM '{machine.name}' exists already")
        if len(self.machines) >= MAX_VMS:
            raise InputError(f"there are {MAX_VMS} VMs already")
        self.machines[machine.name] = machine

    def machine(self, name: str | None) -> Machine:
        """The VM of that name, or the only one.  Raises CommandError."""
        if name is not None:
            if name not in self.machines:
                raise CommandError(f"VM '{name[:80]}' not found", NO_DEVICE)
            return self.machines[name]
        if len(self.machines) != 1:
            known = ", ".join(sorted(self.machines)[:8]) or "none"
            raise CommandError(f"there are {len(self.machines)} VMs ({known}): Parameter 'vm' names one")
        return next(iter(self.machines.values()))

    def execute(self, name: str, given: dict[str, Any]) -> Any:
        """What the command returns.  Raises RasError."""
        known = COMMANDS.get(name)
        if known is None:
            raise CommandError(f"The command {name[:80]} has not been found", NOT_FOUND)
        return known.run(self, a.checked(known.arguments, given))


class _Known(NamedTuple):
    arguments: type[a.Arguments]
    run: Callable[[Commands, Any], Any]


COMMANDS: Final[dict[str, _Known]] = {}
"""Name to command, in the order of query-commands."""
_Run = TypeVar("_Run", bound=Callable[..., Any])


def _command(name: str, arguments: type[a.Arguments] = a.Arguments) -> Callable[[_Run], _Run]:
    def keep(run: _Run) -> _Run:
        COMMANDS[name] = _Known(arguments, run)
        return run

    return keep


# -- QEMU's ------------------------------------------------------------------------


@_command("query-version")
def _query_version(all_: Commands, _: a.Arguments) -> Any:
    """QEMU's version that the protocol is like, and ours."""
    return {"qemu": QEMU_VERSION, "package": all_.package}


@_command("query-commands")
def _query_commands(all_: Commands, _: a.Arguments) -> Any:
    """Names of all commands."""
    return [{"name": name} for name in ("qmp_capabilities", *COMMANDS)]


@_command("query-status", a.OfVm)
def _query_status(all_: Commands, given: a.OfVm) -> Any:
    """Whether the guest runs."""
    state = getattr(all_.machine(given.vm), "status", "running")
    return {"running": state == "running", "status": state}


@_command("query-name", a.OfVm)
def _query_name(all_: Commands, given: a.OfVm) -> Any:
    """The VM's name."""
    return {"name": all_.machine(given.vm).name}


@_command("query-target")
def _query_target(all_: Commands, _: a.Arguments) -> Any:
    """The guests' architecture."""
    return {"arch": "aarch64"}


@_command("qom-get", a.QomGet)
def _qom_get(all_: Commands, given: a.QomGet) -> Any:
    """A property of a device: vCPUs are /machine/unattached/device[n]."""
    try:
        return qom.get(all_.machine(given.vm), given.path, given.property)
    except KeyError:
        raise CommandError(f"Device '{given.path[:80]}' not found", NO_DEVICE) from None
    except LookupError:
        raise CommandError(f"Property '{given.path[:80]}.{given.property[:80]}' not found") from None


@_command("qom-list", a.QomList)
def _qom_list(all_: Commands, given: a.QomList) -> Any:
    """Names and types of an object's properties."""
    try:
        return qom.children(all_.machine(given.vm), given.path)
    except KeyError:
        raise CommandError(f"Device '{given.path[:80]}' not found", NO_DEVICE) from None


@_command("inject-ghes-v2-error", a.Cper)
def _inject_ghes_v2_error(all_: Commands, given: a.Cper) -> Any:
    """Give the guest an error status block as it is."""
    _record(all_, given, None, 0)
    return {}


# -- records, aborts, SErrors, SDEI --------------------------------------------------


@_command("inject-record", a.InjectRecord)
def _inject_record(all_: Commands, given: a.InjectRecord) -> Any:
    """The same through a source of one's choice; says whether it was posted, or waits."""
    return _record(all_, given, given.source, given.vcpu)


def _record(all_: Commands, given: a.Cper, source: int | None, vcpu: int) -> dict[str, Any]:
    machine = all_.machine(given.vm)
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


@_command("inject-memory-error", a.InjectMemoryError)
def _inject_memory_error(all_: Commands, given: a.InjectMemoryError) -> Any:
    """Tell the core of memory that the host lost, as its SIGBUS would; says what was decided."""
    machine = all_.machine(given.vm)
    limit = getattr(machine, "max_lsb", a.MAX_LSB)
    if given.lsb > limit:
        raise InputError(f"Invalid parameter 'lsb': at most {limit} for this VM")
    hva = _host_address(machine, given)
    code = Code[given.code]
    vcpu = 0 if given.vcpu is None and code is Code.AR else given.vcpu
    thread = -1 if vcpu is None else _thread_of(machine, vcpu)
    effects = machine.submit(HostSignal(code, hva, given.lsb, thread, all_.clock()))
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


@_command("inject-sea", a.InjectSea)
def _inject_sea(all_: Commands, given: a.InjectSea) -> Any:
    """Make a vCPU take a synchronous external abort with this syndrome, and no record."""
    machine = all_.machine(given.vm)
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


@_command("inject-serror", a.InjectSerror)
def _inject_serror(all_: Commands, given: a.InjectSerror) -> Any:
    """Make a virtual SError with this syndrome pending for a vCPU, without a record."""
    machine = all_.machine(given.vm)
    if given.vsesr is not None and given.aet is not None:
        raise InputError("Parameter 'vsesr' has the type in it: expected it or 'aet'")
    vsesr = arm64.serror_iss(given.aet or "ueo") if given.vsesr is None else given.vsesr
    return _injected(machine.submit(TellSerror(given.vcpu, vsesr)), {"vsesr": vsesr})


def _injected(effects: Sequence[Effect], known: dict[str, Any]) -> dict[str, Any]:
    dropped = next((e for e in effects if isinstance(e, Dropped)), None)
    if dropped is not None:
        raise CommandError(f"it was dropped: {dropped.reason}")
    return known


@_command("inject-sdei-event", a.InjectSdeiEvent)
def _inject_sdei_event(all_: Commands, given: a.InjectSdeiEvent) -> Any:
    """Signal an SDEI event; says whether it is pending still, and whether the guest registered and enabled it."""
    machine = all_.machine(given.vm)
    machine.submit(TellSdei(given.event, given.vcpu))
    with machine.lock:
        sdei = machine.notifier.sdei
        return {"pending": sdei.pending(given.event), "enabled": sdei.accepts(given.event)}


# -- what is known, and the orchestrator's part -----------------------------------------


@_command("query-ras", a.OfVm)
def _query_ras(all_: Commands, given: a.OfVm) -> Any:
    """All that the core knows of a VM: pages lost, sources, what the guest owes, what waits."""
    machine = all_.machine(given.vm)
    with machine.lock:
        known = status(machine.notifier)
    plain = getattr(machine, "plain", dict)
    return {"vm": machine.name} | known | plain() | {"events-dropped": all_.dropped()}


@_command("proceed", a.Proceed)
def _proceed(all_: Commands, given: a.Proceed) -> Any:
    """After a RAS_REPORT: what waits under this rule may be told now."""
    machine = all_.machine(given.vm)
    if given.rule not in {rule.name for rule in machine.notifier.rules}:
        raise InputError(f"Invalid parameter 'rule': there is no rule {given.rule!r}")
    machine.submit(Proceed(given.rule))
    return {}


@_command("memory-replaced", a.MemoryReplaced)
def _memory_replaced(all_: Commands, given: a.MemoryReplaced) -> Any:
    """The guest has good memory again in this range: nothing is left to tell of it."""
    all_.machine(given.vm).submit(Replaced(given.gpa, given.size))
    return {}


@_command("query-vms")
def _query_vms(all_: Commands, _: a.Arguments) -> Any:
    """The VMs."""
    found = []
    for m in all_.machines.values():
        known = {"name": m.name, "vcpus": m.vcpus, "status": getattr(m, "status", "running")}
        try:
            found.append(known | {"guest": m.notifier.guest.name})
        except HostError:  # it does not run, and has no core
            found.append(known)
    return found


@_command("vm-add", a.VmAdd)
def _vm_add(all_: Commands, given: a.VmAdd) -> Any:
    """Make a VM with a model guest."""
    if all_.make is None:
        raise CommandError("no VM can be added to this service")
    if given.name in all_.machines or len(all_.machines) >= MAX_VMS:
        raise CommandError(f"VM '{given.name}' exists already, or there are {MAX_VMS}")
    machine = all_.make(given)
    all_.add(machine)
    all_.added(machine)
    return {}


@_command("vm-del", a.VmDel)
def _vm_del(all_: Commands, given: a.VmDel) -> Any:
    """Remove a VM that can be made anew."""
    if all_.make is None:
        raise CommandError("no VM can be removed from this service")
    machine = all_.machine(given.name)
    del all_.machines[given.name]
    all_.removed(machine)
    return {}
