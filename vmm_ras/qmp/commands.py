"""What a client may ask for, by name: the arguments of each command, and what carries it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from vmm_ras.qmp import arguments as a
from vmm_ras.qmp import injections, queries
from vmm_ras.qmp.session import NOT_FOUND
from vmm_ras.qmp.vms import CommandError, Vms


def query_commands(vms: Vms, _: a.Arguments) -> Any:
    """Names of all commands."""
    return [{"name": name} for name in ("qmp_capabilities", *COMMANDS)]


COMMANDS: Final[dict[str, tuple[type[a.Arguments], Callable[[Vms, Any], Any]]]] = {
    "query-version": (a.Arguments, queries.query_version),
    "query-commands": (a.Arguments, query_commands),
    "query-status": (a.OfVm, queries.query_status),
    "query-name": (a.OfVm, queries.query_name),
    "query-target": (a.Arguments, queries.query_target),
    "qom-get": (a.QomGet, queries.qom_get),
    "qom-list": (a.QomList, queries.qom_list),
    "inject-ghes-v2-error": (a.Cper, injections.inject_ghes_v2_error),
    "inject-record": (a.InjectRecord, injections.inject_record),
    "inject-memory-error": (a.InjectMemoryError, injections.inject_memory_error),
    "inject-sea": (a.InjectSea, injections.inject_sea),
    "inject-serror": (a.InjectSerror, injections.inject_serror),
    "inject-sdei-event": (a.InjectSdeiEvent, injections.inject_sdei_event),
    "query-ras": (a.OfVm, queries.query_ras),
    "query-snapshot": (a.OfVm, queries.query_snapshot),
    "migrate": (a.Migrate, queries.migrate),
    "proceed": (a.Proceed, queries.proceed),
    "memory-replaced": (a.MemoryReplaced, queries.memory_replaced),
    "query-vms": (a.Arguments, queries.query_vms),
    "vm-add": (a.VmAdd, queries.vm_add),
    "vm-del": (a.VmDel, queries.vm_del),
}
"""In the order of query-commands."""


class Commands(Vms):
    """The VMs of a service, and what can be asked of them."""

    def execute(self, name: str, given: dict[str, Any]) -> Any:
        """What the command returns.  Raises RasError."""
        if name not in COMMANDS:
            raise CommandError(f"The command {name[:80]} has not been found", NOT_FOUND)
        kind, run = COMMANDS[name]
        return run(self, a.checked(kind, given))
