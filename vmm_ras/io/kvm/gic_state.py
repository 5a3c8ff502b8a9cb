"""What the in-kernel GICv3 holds, taken out and put back (KVM devices/arm-vgic-v3; GICv3, IHI 0069, 12.9 to 12.11).

Distributor, redistributors, CPU interfaces and the levels of the lines.  There are no LPIs, so no tables in the guest's
memory.  All vCPUs are out of the guest, or KVM refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from cper.words import counted
from vmm_ras.errors import SnapshotError
from vmm_ras.io.kvm.gic import GicV3
from vmm_ras.io.kvm.ioctl import KvmError
from vmm_ras.kvm import ioctls
from vmm_ras.sdei_calls import MPIDR_AFFINITY
from vmm_ras.snapshot.container import Part
from vmm_ras.snapshot.made_of import MAX_VCPUS, U32, U64, Plain, first_error
from vmm_ras.snapshot.parts import plain_part

PART: Final = "gicv3"
_PRIVATE: Final = 32
"""SGIs and PPIs: a bank for each vCPU."""
GICD_CTLR, GICD_IIDR, GICD_IROUTER = 0x0000, 0x0008, 0x6000
_BITMAPS: Final = {"group": 0x080, "enabled": 0x100, "pending": 0x200, "active": 0x300}
"""IGROUPR, ISENABLER, ISPENDR and ISACTIVER: a bit for each interrupt."""
_PRIORITY, _CONFIG = 0x400, 0xC00
"""IPRIORITYR and ICFGR: 8 bits and 2 for each interrupt."""
_SGI_BASE: Final = 0x10000
_REDISTRIBUTOR: Final = (0x0000, 0x0014, *(_SGI_BASE + offset for offset in (
    *_BITMAPS.values(), *range(_PRIORITY, _PRIORITY + _PRIVATE, 4), _CONFIG, _CONFIG + 4)))  # fmt: skip
"""GICR_CTLR, GICR_WAKER, and the bank of the private interrupts."""
_READ_ONLY: Final = frozenset({_SGI_BASE + _CONFIG})
"""GICR_ICFGR0: SGIs are edge-triggered."""


def _icc(crn: int, crm: int, op2: int) -> int:
    return 3 << 14 | crn << 7 | crm << 3 | op2


_CPU_INTERFACE: Final = (
    _icc(12, 12, 5), _icc(12, 12, 4), _icc(12, 12, 6), _icc(12, 12, 7), _icc(4, 6, 0), _icc(12, 8, 3), _icc(12, 12, 3),
    *(_icc(12, 8, 4 + n) for n in range(4)), *(_icc(12, 9, n) for n in range(4)),
)  # fmt: skip
"""ICC_SRE, ICC_CTLR, ICC_IGRPEN0, ICC_IGRPEN1, ICC_PMR, ICC_BPR0, ICC_BPR1, ICC_AP0Rn, ICC_AP1Rn, all _EL1."""
_SOME_LACK: Final = frozenset(_CPU_INTERFACE[7:])
"""Active priorities: how many registers there are depends on the bits of a priority."""
_LEVELS: Final = 10
"""Shift of what KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO asks for: 0, the level of the lines."""


class _Cpu(Plain):
    """Of one vCPU."""

    redistributor: dict[str, U32]
    interface: dict[str, U64]
    lines: U32
    """Levels of its private interrupts."""


class _Gic(Plain):
    """Part ``gicv3``: registers by offset or encoding, in hexadecimal."""

    interrupts: Annotated[int, Field(ge=64, le=1020, multiple_of=32)]
    distributor: dict[str, U32]
    lines: list[U32]
    """Levels of the shared interrupts, 32 in each."""
    cpus: Annotated[list[_Cpu], Field(max_length=MAX_VCPUS)]


def _distributor(interrupts: int) -> Iterator[int]:
    """Offsets of the registers of the shared interrupts, in the order in which they are put back."""
    yield GICD_IIDR
    yield GICD_CTLR
    for first in (_CONFIG, *(_BITMAPS[name] for name in ("group", "enabled"))):
        step = 2 if first == _CONFIG else 1
        yield from range(first + _PRIVATE * step // 8, first + interrupts * step // 8, 4)
    yield from range(_PRIORITY + _PRIVATE, _PRIORITY + interrupts, 4)
    yield from range(GICD_IROUTER + 8 * _PRIVATE, GICD_IROUTER + 8 * interrupts, 4)
    for first in (_BITMAPS["pending"], _BITMAPS["active"]):
        yield from range(first + _PRIVATE // 8, first + interrupts // 8, 4)


def _affinity(mpidr: int) -> int:
    """As the attributes name a vCPU: Aff3 to Aff0 in bits 63:32."""
    mpidr &= MPIDR_AFFINITY
    return (mpidr >> 32 << 24 | mpidr & 0xFF_FFFF) << 32


def take(gic: GicV3, mpidrs: Sequence[int]) -> Part:
    """All that it holds, as a part of a snapshot; ``mpidrs``: MPIDR_EL1 of each vCPU.  Raises KvmError."""
    cpus = []
    for mpidr in mpidrs:
        own = _affinity(mpidr)
        interface = {}
        for reg in _CPU_INTERFACE:
            try:
                interface[f"{reg:#x}"] = gic.get(ioctls.DEV_ARM_VGIC_GRP_CPU_SYSREGS, own | reg, 8)
            except KvmError:
                if reg not in _SOME_LACK:
                    raise
        found = {f"{at:#x}": gic.get(ioctls.DEV_ARM_VGIC_GRP_REDIST_REGS, own | at) for at in _REDISTRIBUTOR}
        lines = gic.get(ioctls.DEV_ARM_VGIC_GRP_LEVEL_INFO, own | 0 << _LEVELS)
        cpus.append({"redistributor": found, "interface": interface, "lines": lines})
    shared = {f"{at:#x}": gic.get(ioctls.DEV_ARM_VGIC_GRP_DIST_REGS, at) for at in _distributor(gic.interrupts)}
    first = _affinity(mpidrs[0])
    levels = [gic.get(ioctls.DEV_ARM_VGIC_GRP_LEVEL_INFO, first | at) for at in range(_PRIVATE, gic.interrupts, 32)]
    return plain_part(PART, {"interrupts": gic.interrupts, "distributor": shared, "lines": levels, "cpus": cpus})


def read(body: bytes) -> _Gic:
    """A part that ``take`` gave, taken as hostile.  Raises SnapshotError."""
    try:
        found = _Gic.model_validate_json(body)
    except ValidationError as error:
        raise SnapshotError(f"snapshot: part {PART!r}: {first_error(error)}") from None
    _same("distributor", found.distributor, _distributor(found.interrupts))
    if len(found.lines) != found.interrupts // 32 - 1:
        raise SnapshotError(f"snapshot: part {PART!r}: lines: expected a word for each 32 interrupts")
    for cpu in found.cpus:
        _same("redistributor", cpu.redistributor, _REDISTRIBUTOR)
        _same(
            "interface", cpu.interface, [r for r in _CPU_INTERFACE if r not in _SOME_LACK or f"{r:#x}" in cpu.interface]
        )
    return found


def put(gic: GicV3, value: _Gic, mpidrs: Sequence[int]) -> None:
    """Make a new one hold this, before a vCPU runs.  Raises SnapshotError, and KvmError where the host refuses it."""
    if value.interrupts != gic.interrupts or len(value.cpus) != len(mpidrs):
        raise SnapshotError(
            f"snapshot: part {PART!r}: {counted(value.interrupts, 'interrupt')}, {counted(len(value.cpus), 'vCPU')}: "
            f"{gic.interrupts} and {len(mpidrs)} here"
        )
    for at in (GICD_IIDR, GICD_CTLR):
        gic.set(ioctls.DEV_ARM_VGIC_GRP_DIST_REGS, at, value.distributor[f"{at:#x}"])
    for mpidr, cpu in zip(mpidrs, value.cpus, strict=True):
        for at in _REDISTRIBUTOR:
            if at not in _READ_ONLY:
                gic.set(ioctls.DEV_ARM_VGIC_GRP_REDIST_REGS, _affinity(mpidr) | at, cpu.redistributor[f"{at:#x}"])
    for at in _distributor(gic.interrupts):
        if at not in (GICD_IIDR, GICD_CTLR):
            gic.set(ioctls.DEV_ARM_VGIC_GRP_DIST_REGS, at, value.distributor[f"{at:#x}"])
    first = _affinity(mpidrs[0])
    for number, word in enumerate(value.lines, 1):
        gic.set(ioctls.DEV_ARM_VGIC_GRP_LEVEL_INFO, first | 32 * number, word)
    for mpidr, cpu in zip(mpidrs, value.cpus, strict=True):
        own = _affinity(mpidr)
        gic.set(ioctls.DEV_ARM_VGIC_GRP_LEVEL_INFO, own | 0 << _LEVELS, cpu.lines)
        for reg in _CPU_INTERFACE:
            if f"{reg:#x}" in cpu.interface:
                gic.set(ioctls.DEV_ARM_VGIC_GRP_CPU_SYSREGS, own | reg, cpu.interface[f"{reg:#x}"], 8)


def _same(what: str, found: dict[str, Any], expected: Iterable[int]) -> None:
    wanted = {f"{at:#x}" for at in expected}
    if found.keys() != wanted:
        odd = min(found.keys() ^ wanted)
        raise SnapshotError(f"snapshot: part {PART!r}: {what}: {odd[:20]}: missing, or no register of it")
