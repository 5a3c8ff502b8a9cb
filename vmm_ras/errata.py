"""Errata over a pool of CPU models (KVM, Documentation/virt/kvm/arm/hypercalls.rst: DISCOVER_IMPL_VER and _CPUS).

A guest that may run on several CPU models is told of all of them at its boot, and enables the work-arounds of all.  The
list, and the one MIDR_EL1 that the guest reads, stay as they are for its life: a destination that is not in the list is
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

from vmm_ras.errata_data import ERRATA, SAFE, affects, cpu_name
from vmm_ras.errors import InputError, SnapshotError

DISCOVER_IMPL_VER: Final = 0xC600_0040
DISCOVER_IMPL_CPUS: Final = 0xC600_0041
CALLS: Final = (DISCOVER_IMPL_VER, 2)
"""First function identifier and count: what the SMCCC filter forwards."""
IMPL_VERSION: Final = 1 << 16
"""1.0.  Linux takes any 1.x."""
VENDOR_HYP_BITMAP_2: Final = 0x3
"""To be set in KVM_REG_ARM_VENDOR_HYP_BMAP_2, so that KVM tells the guest that the two calls are there."""
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETER = 0, -1, -3
MAX_CPUS: Final = 4096
"""A guest asks for each with a call of its own, early in its boot."""
_U64: Final = (1 << 64) - 1


class Cpu(NamedTuple):
    """What identifies a CPU to a guest."""

    midr: int
    revidr: int = 0
    aidr: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return cpu_name(self.midr)


class Seen(NamedTuple):
    """What programs in the guest see of all this."""

    where: str
    what: str


class Pool(NamedTuple):
    """The CPUs that a guest was told of, in the order of the answers, and the MIDR_EL1 that it has."""

    cpus: tuple[Cpu, ...]
    chosen: Cpu

    @classmethod
    def of(cls, cpus: Sequence[Cpu], chosen: Cpu | None = None) -> Self:
        """A pool; equal CPUs count once.  Raises InputError for none, too many, or a choice that is none of them.

        Without ``chosen``, the guest gets the CPU with the most errata: a guest that does not know the calls then
        still has as many work-arounds as one CPU can give it.
        """
        listed = tuple(dict.fromkeys(cpus))
        if not 1 <= len(listed) <= MAX_CPUS:
            raise InputError(f"a pool of {len(listed)} CPUs: expected 1 to {MAX_CPUS}")
        for cpu in listed:
            if not 0 < cpu.midr <= 0xFFFF_FFFF or not 0 <= cpu.revidr <= _U64 or not 0 <= cpu.aidr <= _U64:
                raise InputError(f"CPU {cpu.midr:#x}: MIDR_EL1 has 32 bits, REVIDR_EL1 and AIDR_EL1 have 64")
        if chosen is not None and chosen not in listed:
            raise InputError(f"{chosen.name} is not in the pool")
        return cls(listed, chosen or max(listed, key=lambda cpu: (len(errata_of(cpu)), -cpu.midr)))

    def answer(self, function: int, args: Sequence[int]) -> tuple[int, int, int, int] | None:
        """X0 to X3 for a call of the guest; None: it is none of these calls.  ``args``: X1 onwards."""
        function &= 0xFFFF_FFFF
        if function == DISCOVER_IMPL_VER:
            return SUCCESS, IMPL_VERSION, len(self.cpus), 0
        if function == DISCOVER_IMPL_CPUS:
            index = args[0] & _U64 if args else 0
            if index >= len(self.cpus):
                return INVALID_PARAMETER, 0, 0, 0
            return SUCCESS, *self.cpus[index]
        return None

    def refuses(self, cpu: Cpu) -> str:
        """Why the guest must not go to a host with this CPU; empty: it may."""
        if cpu in self.cpus:
            return ""
        near = [known for known in self.cpus if known.midr == cpu.midr]
        which = f"only with REVIDR_EL1 {near[0].revidr:#x}, AIDR_EL1 {near[0].aidr:#x}" if near else "none of that kind"
        return f"the guest was not told of {cpu.name} (MIDR_EL1 {cpu.midr:#x}): {which} is in its pool"

    def errata(self) -> dict[str, tuple[Cpu, ...]]:
        """Erratum that a Linux 7.2 guest works around, to the CPUs because of which it does."""
        found = {name: tuple(c for c in self.cpus if affects(name, c.midr, c.revidr)) for name in ERRATA}
        return {name: because for name, because in found.items() if because}

    def hazards(self) -> list[str]:
        """Where the list misleads Linux: one model that is safe makes it take all for safe."""
        out = []
        for name, ranges in SAFE.items():
            safe = [c for c in self.cpus if any(r.holds(c.midr) for r in ranges)]
            if safe and len(safe) < len(self.cpus):
                out.append(
                    f"{name}: {safe[0].name} is on Linux's list of safe CPUs, so the guest takes every CPU of the pool "
                    "for safe, unless ID_AA64PFR0_EL1.CSV2 or firmware say so anyway"
                )
        return out

    def seen(self) -> list[Seen]:
        """What programs in the guest still see: one CPU, never the pool."""
        cpu = self.chosen
        return [
            Seen("MRS MIDR_EL1 (emulated)", f"{cpu.midr:#x}, {cpu.name}, on every host"),
            Seen("MRS REVIDR_EL1 (emulated)", "0, always"),
            Seen("sysfs .../regs/identification/midr_el1", f"{cpu.midr:#018x}"),
            Seen("sysfs .../regs/identification/revidr_el1", f"{cpu.revidr:#018x}"),
            Seen("sysfs .../regs/identification/aidr_el1", f"{cpu.aidr:#018x}, where the kernel has that file"),
            Seen("/proc/cpuinfo", f"implementer {cpu.midr >> 24:#04x}, part {cpu.midr >> 4 & 0xFFF:#05x}"),
            Seen("kernel log", f"Number of target implementation CPUs is {len(self.cpus)}"),
        ]

    def plain(self) -> dict[str, Any]:
        """As JSON-able values; ``from_plain`` takes them back."""
        return {"cpus": [list(cpu) for cpu in self.cpus], "chosen": self.cpus.index(self.chosen)}

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """What ``plain`` gave; nothing in it is trusted.  Raises SnapshotError."""
        cpus = value.get("cpus") if isinstance(value, dict) else None
        if not isinstance(value, dict) or value.keys() != {"cpus", "chosen"} or not isinstance(cpus, list):
            raise SnapshotError("pool: expected 'cpus' and 'chosen'")
        if not 1 <= len(cpus) <= MAX_CPUS:
            raise SnapshotError(f"pool.cpus: {len(cpus)}, expected 1 to {MAX_CPUS}")
        for i, cpu in enumerate(cpus):
            if not isinstance(cpu, list) or len(cpu) != 3 or not all(type(n) is int and 0 <= n <= _U64 for n in cpu):
                raise SnapshotError(f"pool.cpus[{i}]: expected MIDR_EL1, REVIDR_EL1 and AIDR_EL1")
        chosen = value["chosen"]
        if type(chosen) is not int or not 0 <= chosen < len(cpus):
            raise SnapshotError(f"pool.chosen: expected a place below {len(cpus)}")
        listed = tuple(Cpu(*cpu) for cpu in cpus)
        if len(set(listed)) != len(listed):
            raise SnapshotError("pool.cpus: a CPU is in it twice")
        try:
            return cls.of(listed, listed[chosen])
        except InputError as error:
            raise SnapshotError(f"pool: {error}") from None


def errata_of(cpu: Cpu) -> list[str]:
    """Errata of one CPU that Linux 7.2 works around because of its MIDR."""
    return [name for name in ERRATA if affects(name, cpu.midr, cpu.revidr)]


def is_discovery(function: int) -> bool:
    """Whether an SMCCC function identifier (X0 of a call) is one of the two calls."""
    return function & 0xFFFF_FFFF in (DISCOVER_IMPL_VER, DISCOVER_IMPL_CPUS)
