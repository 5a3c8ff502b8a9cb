"""The VMs of a service, by name; and how a command is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vmm_ras.errors import InputError, RasError
from vmm_ras.qmp.arguments import VmAdd
from vmm_ras.qmp.machine import Machine
from vmm_ras.qmp.session import GENERIC, NO_DEVICE

MAX_VMS: Final = 64


class CommandError(RasError):
    """A command that is refused; ``kind`` is QMP's error class."""

    def __init__(self, reason: str, kind: str = GENERIC) -> None:
        super().__init__(reason)
        self.kind = kind


class Vms:
    """The VMs.

    ``make``: makes the VM that vm-add asks for, or None where there are no others than those that were added.
    ``clock``: seconds since the epoch.  ``package``: what query-version says of the program.
    """

    def __init__(
        self, package: str, clock: Callable[[], float], make: Callable[[VmAdd], Machine] | None = None
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
