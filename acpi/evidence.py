"""What backs each declared table and structure: data, not prose.  Tests hold it to what they see.

* **offsets**: independent headers to which the structure's fields are bound by name (``fixtures/offsets``);
* **iasl**: versions that disassemble the tables that we build without a complaint and recompile them to the same bytes;
* **foreign**: bytes written by others that decode and encode again identically;
* **kernel**: reports of real kernels that took what we built (``docs/lab``).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import NamedTuple

import acpi
from acpi.tables import MODULES
from cper.wire import Struct

_IASL = ("20200925", "20250404", "20260408")
_NEWER = _IASL[1:]
_NEWEST = _IASL[2:]
_OLD = _IASL[:1]
_LINUX = ("smoke-linux-6.1", "smoke-linux-6.12")
_VIRT = "QEMU 7.2, 11.1 arm virt"

TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "AEST": {"iasl": _NEWER, "foreign": ("iasl 20260408 template",)},
    "APIC": {"iasl": _OLD, "foreign": (_VIRT,), "kernel": _LINUX},
    "BERT": {"iasl": _IASL, "foreign": ("iasl 20200925 template",), "kernel": _LINUX},
    "CCEL": {"iasl": _NEWEST, "foreign": ("iasl 20260408 template",)},
    "EINJ": {"iasl": _IASL, "foreign": ("iasl 20200925 template",)},
    "ERST": {
        "iasl": _IASL,
        "foreign": ("iasl 20200925 template", "QEMU 7.2 acpi-erst, its table and its answers"),
        "kernel": _LINUX,
    },
    "FACP": {"iasl": _IASL, "foreign": (_VIRT,), "kernel": _LINUX},
    "GTDT": {"iasl": _IASL, "foreign": (_VIRT,), "kernel": _LINUX},
    "HEST": {
        "iasl": _IASL,
        "foreign": ("iasl 20200925 template", "QEMU 7.2, 10.0, 11.1 arm virt"),
        "kernel": _LINUX,
    },
    "RAS2": {"iasl": _NEWER, "foreign": ("iasl 20260408 template",)},
    "RASF": {"iasl": _IASL, "foreign": ("iasl 20200925 template",)},
    "SDEI": {"iasl": _IASL, "foreign": ("iasl 20200925 template",), "kernel": _LINUX},
    "SPCR": {"iasl": _OLD, "foreign": (_VIRT,), "kernel": _LINUX},
}
"""Signature to what backs the table as a whole."""

STRUCTURES: dict[str, str] = {
    "AestGic": "acpica edk2",
    "AestInterface": "acpica edk2",
    "AestInterface16k": "acpica",
    "AestInterface4k": "acpica",
    "AestInterface64k": "acpica",
    "AestInterfaceCommon": "acpica",
    "AestInterrupt": "acpica edk2",
    "AestInterruptV2": "acpica",
    "AestMemory": "acpica edk2",
    "AestNodeHeader": "acpica edk2",
    "AestPcie": "acpica",
    "AestProcessor": "acpica edk2",
    "AestProcessorCache": "acpica edk2",
    "AestProcessorGeneric": "acpica edk2",
    "AestProcessorTlb": "acpica edk2",
    "AestProxy": "acpica",
    "AestSmmu": "acpica edk2",
    "AestVendor": "acpica edk2",
    "AestVendorV2": "acpica",
    "BertHeader": "acpica edk2",
    "CcelHeader": "acpica",
    "CorrectedMachineCheck": "acpica edk2",
    "DataEntry201": "acpica",
    "DataEntry300": "acpica edk2",
    "DeferredMachineCheck": "acpica edk2",
    "EinjEntry": "acpica edk2",
    "EinjHeader": "acpica edk2",
    "Einjv2Component": "linux",
    "Einjv2Extension": "linux",
    "ErrorStatusHeader": "acpica edk2",
    "ErstEntry": "acpica edk2",
    "ErstHeader": "acpica edk2",
    "GenericAddress": "acpica edk2",
    "GenericHardwareErrorSource": "acpica edk2",
    "GenericHardwareErrorSourceV2": "acpica edk2",
    "HardwareErrorNotification": "acpica edk2",
    "HestHeader": "acpica edk2",
    "InstructionEntry": "acpica",
    "MachineCheckBank": "acpica edk2",
    "MachineCheckException": "acpica edk2",
    "NmiSource": "acpica",
    "PcieBridgeAer": "acpica edk2",
    "PcieDeviceAer": "acpica edk2",
    "PcieRootPortAer": "acpica edk2",
    "Ras2AddressTranslation": "acpica",
    "Ras2Header": "acpica edk2",
    "Ras2PatrolScrub": "acpica",
    "Ras2PccDescriptor": "acpica",
    "RasSharedMemory": "acpica edk2",
    "RasfHeader": "acpica edk2",
    "RasfPatrolScrub": "acpica edk2",
    "Rsdp": "acpica edk2",
    "SdeiHeader": "acpica",
    "SetErrorTypeWithAddress": "acpica edk2 linux",
    "TableHeader": "acpica edk2",
    "TriggerHeader": "acpica edk2",
    "VendorErrorTypeExtension": "acpica edk2 linux",
}
"""Structure to the header sets that its fields are bound to."""


class TypeEvidence(NamedTuple):
    """One declared table or structure, and what backs it; an empty tuple: nothing of that kind."""

    name: str
    kind: str
    """``table`` or ``structure``."""
    declared: str
    """``module:class``."""
    size: int | None
    """Bytes; None for tables."""
    offsets: tuple[str, ...] = ()
    iasl: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()

    @property
    def backed(self) -> bool:
        """Whether anything independent of us backs it."""
        return bool(self.offsets or self.iasl or self.foreign or self.kernel)


@cache
def types() -> tuple[TypeEvidence, ...]:
    """Every declared table, by signature, then every declared structure of this package, by name."""
    tables = [
        TypeEvidence(signature, "table", place, None, **TABLES.get(signature, {}))
        for signature, place in sorted(MODULES.items())
    ]
    found: dict[str, TypeEvidence] = {}
    for info in pkgutil.iter_modules(acpi.__path__):
        module = importlib.import_module(f"acpi.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Struct) and cls.__module__ == module.__name__ and "SIZE" in vars(cls):
                sources = tuple(STRUCTURES.get(name, "").split())
                found[name] = TypeEvidence(name, "structure", f"{module.__name__}:{name}", cls.SIZE, sources)
    return (*tables, *(found[name] for name in sorted(found)))


__all__ = ["STRUCTURES", "TABLES", "TypeEvidence", "types"]
