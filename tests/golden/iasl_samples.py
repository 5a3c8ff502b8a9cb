"""Tables whose fields all differ and are not zero, for a comparison with what iasl says that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from acpi.aest import Aest, AestNode
from acpi.aest_interface import (
    AestGroupFormat,
    AestInterface,
    AestInterface4k,
    AestInterface16k,
    AestInterface64k,
    AestInterfaceFlags,
    AestInterfaceType,
    AestInterrupt,
    AestInterruptV2,
)
from acpi.aest_parts import (
    AestGic,
    AestMemory,
    AestPcie,
    AestProcessor,
    AestProcessorCache,
    AestProcessorGeneric,
    AestProcessorTlb,
    AestProxy,
    AestResourceType,
    AestSmmu,
    AestVendor,
    AestVendorV2,
)
from acpi.bert import Bert
from acpi.ccel import Ccel
from acpi.einj import Einj, EinjAction, EinjEntry, EinjInstruction
from acpi.erst import Erst, ErstAction, ErstEntry, ErstInstruction
from acpi.frame import FixedTable, ListTable
from acpi.hest import FIXED, Hest
from acpi.machine_check import HEADERS, MachineCheckBank, MachineCheckSource
from acpi.notification import NotificationType
from acpi.ras2 import Ras2, Ras2PccDescriptor
from acpi.rasf import Rasf
from acpi.sdei import Sdei
from acpi.table import TableHeader
from cper.wire import OpenEnum, OpenFlags, Struct


class Filler:
    """Gives every field another value; numbers run on from structure to structure."""

    def __init__(self) -> None:
        self.numbers = count(1)

    def number(self, size: int) -> int:
        """A number that fills ``size`` bytes, none of them zero, and that no other field has."""
        n = next(self.numbers)
        return int.from_bytes(bytes((n * 37 + i * 11 + n // 256) % 255 + 1 for i in range(size)), "little")

    def __call__(self, cls: type[Struct], **given: Any) -> Any:
        """A structure of all different fields; ``given`` sets some."""
        values = {}
        for slot in cls.words.slots:
            size = cls.words.words[slot.word][1].size
            if slot.name in given or slot.const is not None:
                continue
            if slot.mask:
                values[slot.name] = self.number(8) & slot.mask
            elif slot.kind is not None and issubclass(slot.kind, Struct):
                values[slot.name] = self(slot.kind)
            elif slot.kind is not None and issubclass(slot.kind, OpenEnum):
                members = list(slot.kind)
                values[slot.name] = members[next(self.numbers) % len(members)]
            elif slot.kind is not None and issubclass(slot.kind, OpenFlags):
                masks = list(slot.kind.names.values())
                values[slot.name] = slot.kind(masks[next(self.numbers) % len(masks)])
            elif slot.load is None and slot.dump is None:
                values[slot.name] = self.number(size)
            else:
                raw = self.number(size).to_bytes(size, "little")
                values[slot.name] = slot.load(raw) if slot.load else raw
        return cls(**(values | given))


def header(signature: str, revision: int) -> TableHeader:
    """A header whose words all differ."""
    return TableHeader(
        signature=signature, length=0, revision=revision, oem_id="ABCDEF", oem_table_id="GHIJKLMN",
        oem_revision=0x01020304, creator_id="OPQR", creator_revision=0x05060708,
    )  # fmt: skip


def hest() -> Hest:
    """Every source type with two banks where it has banks, every notification type that iasl knows."""
    fill, sources = Filler(), list[Any]()
    for number in (0, 1, 2, 6, 7, 8, 9, 10, 11):
        if number in HEADERS:
            kind = HEADERS[number]
            banks = [fill(MachineCheckBank), fill(MachineCheckBank)]
            extra = {} if number == 0 else {"notification": notification(fill, number)}
            sources.append(MachineCheckSource.of(fill(kind, flags=fill_flags(kind, 5), **extra), banks))
            continue
        # iasl has GLOBAL at the wrong bit: see test_iasl_takes_firmware_first_for_global
        extra = {} if "flags" not in FIXED[number].model_fields else {"flags": fill_flags(FIXED[number], 1)}
        if number in {9, 10}:
            extra = {"flags": 0}
            for kind in range(number - 9, 12, 2):
                sources.append(fill(FIXED[number], notification=notification(fill, kind), **extra))
            continue
        sources.append(fill(FIXED[number], **extra))
    return Hest(tuple(sources), header("HEST", 2))


def notification(fill: Filler, kind: int) -> Any:
    """A notification of this type."""
    from acpi.hest import HardwareErrorNotification

    return fill(HardwareErrorNotification, type=NotificationType(kind), length=28, configuration_write_enable=0x3F)


def fill_flags(cls: type[Struct], bits: int) -> Any:
    """Flags that iasl shows bit by bit."""
    kind = next(s.kind for s in cls.words.slots if s.name == "flags")
    return kind(bits) if kind else bits


def entries(fill: Filler, kind: type[Struct], actions: Any, instructions: Any) -> Iterator[Any]:
    """An entry per action, then one per instruction."""
    for index, action in enumerate(actions):
        yield fill(kind, action=action, instruction=list(instructions)[index % len(instructions)], flags=index & 1)
    for instruction in instructions:
        yield fill(kind, action=next(iter(actions)), instruction=instruction, flags=0)


def erst() -> Erst:
    """Every action, every instruction."""
    return Erst.of(entries(Filler(), ErstEntry, ErstAction, ErstInstruction), header("ERST", 1))


def einj() -> Einj:
    """Every action, every instruction, but those that belong into a trigger table or to nobody."""
    instructions = [i for i in EinjInstruction if i != EinjInstruction.FLUSH_CACHELINE]
    actions = [a for a in EinjAction if a != EinjAction.TRIGGER_ERROR]
    return Einj.of(entries(Filler(), EinjEntry, actions, instructions), header("EINJ", 2))


def aest(revision: int) -> Aest:
    """Every node type, interface and interrupt of a revision."""
    fill = Filler()
    interrupt = AestInterrupt if revision == 1 else AestInterruptV2
    vendor = AestVendor if revision == 1 else AestVendorV2
    parts: list[tuple[Any, Any]] = [
        (fill(AestProcessor, resource_type=AestResourceType.CACHE), fill(AestProcessorCache)),
        (fill(AestProcessor, resource_type=AestResourceType.TLB), fill(AestProcessorTlb)),
        *((fill(kind), None) for kind in (AestMemory, AestSmmu, vendor, AestGic)),
    ]
    if revision == 2:
        parts += [(fill(AestPcie), None), (fill(AestProxy), None)]
    nodes = []
    for index, (data, resource) in enumerate(parts):
        kinds = [AestInterface] if revision == 1 else [AestInterface4k, AestInterface16k, AestInterface64k]
        kind = kinds[index % len(kinds)]
        interface = fill(
            kind, type=AestInterfaceType(index % (revision + 1)), group_format=AestGroupFormat(kinds.index(kind)),
            flags=AestInterfaceFlags((3 if revision == 1 else 0x7F) & ~(1 << index)),
        )  # fmt: skip
        interrupts = [fill(interrupt) for _ in range(index % 3)]
        rates = {"timestamp_rate": fill.number(8), "error_injection_rate": fill.number(8)}
        nodes.append(AestNode.of(data, interface, interrupts, resource, **rates))
    return Aest(tuple(nodes), header("AEST", revision))


def generic_aest() -> Aest:
    """A processor node with a generic resource, which iasl disassembles, but does not compile."""
    fill = Filler()
    data = fill(AestProcessor, resource_type=AestResourceType.GENERIC)
    node = AestNode.of(data, fill(AestInterface, group_format=0), [fill(AestInterrupt)], fill(AestProcessorGeneric))
    return Aest((node,), header("AEST", 1))


def _fixed(cls: type[FixedTable[Any]], revision: int) -> FixedTable[Any]:
    return cls(Filler()(cls.HEAD, header=header(cls.SIGNATURE, revision)))


def _list(cls: type[ListTable[Any, Any]], entry: type[Struct], revision: int) -> ListTable[Any, Any]:
    fill = Filler()
    return cls.of([fill(entry), fill(entry), fill(entry)], header(cls.SIGNATURE, revision))


SAMPLES: dict[str, Callable[[], Any]] = {
    "HEST": hest,
    "BERT": lambda: _fixed(Bert, 1),
    "ERST": erst,
    "EINJ": einj,
    "SDEI": lambda: _fixed(Sdei, 1),
    "AEST": lambda: aest(2),
    "AEST-1": lambda: aest(1),
    "RASF": lambda: _fixed(Rasf, 1),
    "RAS2": lambda: _list(Ras2, Ras2PccDescriptor, 1),
    "CCEL": lambda: _fixed(Ccel, 4),
}
"""Name of a sample to what makes it."""
