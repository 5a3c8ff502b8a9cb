"""One register set that every host of a group takes: conservative source, permissive destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vmm_ras.compat import registers as r
from vmm_ras.compat.accept import refusal
from vmm_ras.compat.check import Verdict, check
from vmm_ras.compat.fields import FIELDS
from vmm_ras.compat.host import Description
from vmm_ras.errors import InputError


class Setting(NamedTuple):
    """A register of which the guest must be given another value than the first host's own."""

    register: int
    own: int
    value: int
    why: str

    def plain(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"register": f"{self.register:#018x}", "name": r.name(self.register), "own": f"{self.own:#x}",
                "value": f"{self.value:#x}", "why": self.why}  # fmt: skip


class Plan(NamedTuple):
    """What the source must do before the guest's first KVM_RUN, and at every move."""

    settings: tuple[Setting, ...]
    """To be set at the first host, and to be sent to every other."""
    left_out: dict[int, tuple[int, ...]]
    """Register to the hosts (by their place in the group) that it must not be sent to."""
    problems: tuple[str, ...]
    """Why there is no such set; empty: there is."""
    values: dict[int, int]
    """The whole set."""


def plan(hosts: Sequence[Description], *, pool: bool = False) -> Plan:
    """A guest that begins at the first host, and may go to each of the others and back.

    Raises InputError for fewer than two hosts.
    """
    if len(hosts) < 2:
        raise InputError("a plan needs two hosts or more")
    first = hosts[0]
    values: dict[int, int] = {}
    for host in hosts:  # the guest comes back with what a host on the way has
        values = host.registers | values
    settings = []
    for reg, own in values.items():
        value = _value(hosts, reg, own)
        if value is not None and value != own:
            values[reg] = value
            if reg in first.registers:
                settings.append(Setting(reg, own, value, _why(reg, own, value)))
    left_out: dict[int, list[int]] = {}
    problems = []
    for index, host in enumerate(hosts):
        for row in check(values, host, pool=pool).rows:
            if row.verdict is Verdict.LEAVE_OUT:
                left_out.setdefault(row.register, []).append(index)
            elif row.verdict is Verdict.IMPOSSIBLE:
                problems.append(f"{r.name(row.register)} at {host.kernel}: {row.why}")
    places = {reg: tuple(indexes) for reg, indexes in left_out.items()}
    return Plan(tuple(settings), places, tuple(problems), values)


def _value(hosts: Sequence[Description], reg: int, own: int) -> int | None:
    """A value that every host takes that has the register, the first host's own before any other; None: none."""
    there = [host.registers[reg] for host in hosts if reg in host.registers]
    candidates = [own]
    if reg in FIELDS:
        candidates.append(_meet(reg, there))
    candidates += sorted(set(there))
    for value in candidates:
        if all(refusal(host, reg, value) is None for host in hosts if reg in host.registers):
            return value
    return None


def _meet(reg: int, values: list[int]) -> int:
    """Field by field, what is safe on all of them; other bits are the first one's."""
    out = values[0]
    for field in FIELDS[reg]:
        out = out & ~field.mask | field.meet([field.value(value) for value in values])
    return out


def _why(reg: int, own: int, value: int) -> str:
    if reg in FIELDS:
        lowered = [
            f"{f.name} {f.value(own)} to {f.value(value)}" for f in FIELDS[reg] if f.value(own) != f.value(value)
        ]
        return ", ".join(lowered)
    if reg == r.PSCI_VERSION:
        return f"PSCI {own >> 16}.{own & 0xFFFF} to {value >> 16}.{value & 0xFFFF}"
    if r.kind(reg) == r.DEMUX or reg == r.CLIDR:
        return "the caches of a host that shows no other"
    return "the most that all hosts have"
