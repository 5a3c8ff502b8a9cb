"""Every register that a guest of one host sends to another: taken, left out, or what stops the move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from vmm_ras.compat import registers as r
from vmm_ras.compat.accept import Refusal, refusal
from vmm_ras.compat.fields import FIELDS
from vmm_ras.compat.history import change
from vmm_ras.compat.host import Description


class Verdict(Enum):
    """What becomes of a register."""

    SAME = "same"
    ZERO = "accepted as zero"
    """Both read it as zero: it is unallocated, or of a feature that the guest has not."""
    SETTABLE = "settable"
    LEAVE_OUT = "must be left out"
    """The destination refuses it, and the guest cannot miss it."""
    IMPOSSIBLE = "impossible"


class Row(NamedTuple):
    """One register."""

    register: int
    source: int
    destination: int | None
    """What the destination has after KVM_ARM_VCPU_INIT; None where it has no such register."""
    verdict: Verdict
    errno: str
    """With which KVM_SET_ONE_REG of the source's value fails at the destination; empty: it does not."""
    why: str

    def plain(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "register": f"{self.register:#018x}", "name": r.name(self.register), "source": f"{self.source:#x}",
            "destination": None if self.destination is None else f"{self.destination:#x}",
            "verdict": self.verdict.value, "errno": self.errno or None, "why": self.why,
        }  # fmt: skip


class Check(NamedTuple):
    """What was found."""

    rows: tuple[Row, ...]
    only_there: tuple[int, ...]
    """Registers that only the destination has: they keep the value that a reset gives them."""

    @property
    def possible(self) -> bool:
        """Whether the guest can move."""
        return all(row.verdict is not Verdict.IMPOSSIBLE for row in self.rows)

    def counts(self) -> dict[str, int]:
        """Verdict to how many registers have it."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict.value: found[verdict] for verdict in Verdict}


def check(sent: Mapping[int, int], destination: Description, *, pool: bool = False) -> Check:
    """Judge each register that a source sends: a host's ``registers``, or what a guest has.

    ``pool``: the guest was told at its boot of the destination's CPU (DISCOVER_IMPL_CPUS), so that another MIDR does
    no harm.
    """
    rows = tuple(_row(destination, reg, value, sent, pool) for reg, value in sent.items())
    return Check(rows, tuple(reg for reg in destination.registers if reg not in sent))


def _row(destination: Description, reg: int, value: int, sent: Mapping[int, int], pool: bool) -> Row:
    there = destination.registers.get(reg)
    refused = refusal(destination, reg, value)
    verdict, why = _judge(destination, reg, value, sent, refused, pool)
    return Row(reg, value, there, verdict, refused.errno if refused else "", why)


def _judge(
    destination: Description, reg: int, value: int, sent: Mapping[int, int], refused: Refusal | None, pool: bool
) -> tuple[Verdict, str]:
    there = destination.registers.get(reg)
    if refused is not None and there is None:
        harmless = _dispensable(reg, value, sent)
        return (Verdict.LEAVE_OUT, harmless) if harmless else (Verdict.IMPOSSIBLE, f"{refused.why}: {_lost(reg)}")
    if refused is not None:
        if r.kind(reg) == r.DEMUX:
            return Verdict.IMPOSSIBLE, f"{refused.why} ({change('caches').reference}, 6.3)"
        return Verdict.IMPOSSIBLE, refused.why
    if value == there:
        return (Verdict.ZERO, _zero(reg, sent)) if not value and _zero(reg, sent) else (Verdict.SAME, "")
    if reg in r.IMPLEMENTATION:
        if not pool:
            return Verdict.IMPOSSIBLE, (
                "the destination would take it, but the guest was not told of that CPU: it runs without its "
                "work-arounds (--pool if it was)"
            )
        return Verdict.SETTABLE, "KVM_ENABLE_CAP of KVM_CAP_ARM_WRITABLE_IMP_ID_REGS before the first vCPU"
    if r.is_aarch32(reg) and not destination.aarch32:
        return Verdict.SETTABLE, "ignored: the destination has no AArch32, and shows zero"
    if reg in FIELDS:
        lower = [f.name for f in FIELDS[reg] if f.value(value) != f.value(there or 0)]
        return Verdict.SETTABLE, f"before the first KVM_RUN; differs in {', '.join(lower)}"
    if reg == r.SVE_VLS:
        return Verdict.SETTABLE, "before KVM_ARM_VCPU_FINALIZE"
    if r.kind(reg) in (r.FW, r.FW_BITMAP):
        return Verdict.SETTABLE, "before the first KVM_RUN; the destination has more"
    return Verdict.SETTABLE, ""


def _zero(reg: int, sent: Mapping[int, int]) -> str:
    """Why a register that is zero is zero always; empty where it may be something else."""
    if reg == r.ZFR0 and not r.has(sent, r.NEEDS_SVE):
        return "the guest has no SVE"
    if r.is_identity(reg) and reg >> 11 & 7 == 0 and 1 <= reg >> 3 & 15 <= 7:
        if reg not in FIELDS:
            return "unallocated, or hidden by KVM"
        if not FIELDS[reg]:
            return "hidden by KVM"
    return ""


def _dispensable(reg: int, value: int, sent: Mapping[int, int]) -> str:
    """Why the guest does not miss a register that the destination has not; empty where it would."""
    if r.is_identity(reg) and (reg in FIELDS or 1 <= reg >> 3 & 15 <= 7):
        if reg == r.ZFR0 and not r.has(sent, r.NEEDS_SVE):
            return f"the guest has no SVE, and the destination does not list it then ({change('zfr0-gone').reference})"
        if not value:
            return "it reads as zero"
        return ""
    needs = r.NEEDS.get(reg)
    if needs is not None and not r.has(sent, needs):
        return f"the guest has no {r.name(needs.register)}.{needs.field}"
    if r.kind(reg) == r.DEMUX:
        return "the destination has no such cache"
    if reg in r.PHYSICAL_TIMER:
        if sent.get(r.CNTP_CTL, 0) & 1:
            return ""
        return "the guest's physical timer is off; its counter will be the destination's"
    if reg == r.VENDOR_HYP_BITMAP_2 and not value:
        return "none of its services is on"
    if value in (0, r.RESET_UNKNOWN):
        return "the guest has not touched it"
    return ""


def _lost(reg: int) -> str:
    return "what the guest keeps there would be lost" if not r.is_identity(reg) else "the guest would see another value"
