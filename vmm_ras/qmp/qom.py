"""QEMU's object model (``qom-get``, ``qom-list``), as far as injection scripts walk it: vCPUs among the devices."""

from __future__ import annotations

from typing import Any

from vmm_ras.qmp.machine import Machine

DEVICES = "/machine/unattached"
CPU_TYPE = "host-arm-cpu"
"""What a vCPU of KVM is in QEMU; QEMU's injection script looks for this word before ``-arm-cpu``."""


def _properties(machine: Machine, path: str) -> dict[str, tuple[str, Any]] | None:
    """Name to (type, value) of an object's properties; None: there is no such object."""
    path = "/" + "/".join(part for part in path.split("/") if part)
    if path == "/":
        return {"type": ("string", "container"), "machine": ("child<machine>", "/machine")}
    if path == "/machine":
        child = ("child<container>", DEVICES)
        return {"type": ("string", "machine"), "unattached": child}
    if path == DEVICES:
        cpus = {f"device[{n}]": (f"child<{CPU_TYPE}>", f"{DEVICES}/device[{n}]") for n in range(machine.vcpus)}
        return {"type": ("string", "container"), **cpus}
    name = path.removeprefix(f"{DEVICES}/device[")
    number = name.removesuffix("]")
    if name in {path, number} or not (number.isascii() and number.isdigit() and len(number) < 5):
        return None
    if int(number) >= machine.vcpus or str(int(number)) != number:
        return None
    with machine.lock:
        affinity = machine.notifier.sdei.state.mpidrs[int(number)]
    return {
        "type": ("string", CPU_TYPE),
        "midr": ("uint64", getattr(machine, "midr", 0)),
        "mp-affinity": ("uint64", affinity),
        "core-id": ("int", int(number)),
    }


def get(machine: Machine, path: str, name: str) -> Any:
    """The value of a property.  Raises KeyError for the object, LookupError for the property."""
    properties = _properties(machine, path)
    if properties is None:
        raise KeyError(path)
    if name not in properties:
        raise LookupError(name)
    return properties[name][1]


def children(machine: Machine, path: str) -> list[dict[str, str]]:
    """Names and types of an object's properties.  Raises KeyError."""
    properties = _properties(machine, path)
    if properties is None:
        raise KeyError(path)
    return [{"name": name, "type": type_} for name, (type_, _) in properties.items()]
