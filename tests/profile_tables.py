"""`python -m tests.profile_tables` writes docs/profiles.md from the guest and host profiles; a test keeps it so."""

# ruff: noqa: E501  # prose

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.conformance_tables import observed, scenarios
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.profiles import PROFILES, SECTION_TYPES

PAGE = Path(__file__).parents[1] / "docs" / "profiles.md"
_SECTIONS = {guid: name for name, guid in SECTION_TYPES.items()}


def shown(value: Any) -> str:
    """A member's value for people."""
    if isinstance(value, frozenset):
        names = (_SECTIONS[v] if isinstance(v, UUID) else v if isinstance(v, str) else v.name.lower() for v in value)
        return ", ".join(sorted(names)) or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def table(profile: Any, proven: Callable[[str], str] | None = None) -> Iterable[str]:
    """Each statement with its observation, and with what ``proven`` says of it."""
    yield f"| Statement | | Observation |{' Proven by |' if proven else ''}"
    yield f"|---|---|---|{'---|' if proven else ''}"
    for member in fields(profile):
        if member.name not in {"name", "doc", "evidence"}:
            value, seen = shown(getattr(profile, member.name)), profile.evidence[member.name]
            yield f"| `{member.name}` | {value} | {seen} |{f' {proven(member.name)} |' if proven else ''}"


def proof(guest: str) -> Callable[[str], str]:
    """What names the scenarios that prove a statement about this guest: those that name it, and passed on the kernel."""
    run = observed().get(guest.removeprefix("linux-"), {"scenarios": {}})["scenarios"]

    def names(statement: str) -> str:
        found = [name for name, s in scenarios().items() if statement in s.head.proves]
        passed = [f"`{name}`" for name in found if name in run and not run[name]["failed"]]
        more = f" and {len(passed) - _NAMES} more" if len(passed) > _NAMES else ""
        return ", ".join(passed[:_NAMES]) + more or "**unproven**"

    return names


_NAMES = 3


def text() -> str:
    """The page."""
    out = ["# Profiles", "", "Made from the data by `python -m tests.profile_tables`.", "", "## Guests", ""]
    out += ["`linux` is `linux-7.2`. What the members mean is said in `vmm_ras/profiles.py`.", ""]
    out += [
        "A statement is proven by the scenarios that name it and that this kernel in an unmodified QEMU has played as the model does",
        "([conformance.md](conformance.md#statements-of-the-guest-profiles) has more of them, and how far each can be seen). Without one it is",
        "unproven: then only the observation stands behind it. No scenario was played on a machine of the other guests.",
        "",
    ]
    for name, guest in PROFILES.items():
        if guest.name == name:
            out += [f"### {name}", "", guest.doc, "", *table(guest, proof(name)), ""]
    out += ["## Hosts", "", "KVM of these kernels; what the members mean is said in `vmm_ras/kvm/hosts.py`.", ""]
    out += [
        "Scenario files say nothing of hosts; the lab's `tiny` lanes and `compat` ask each of these kernels ([lab.md](lab.md)).",
        "",
    ]
    for name, host in HOSTS.items():
        out += [f"### {name}", "", *table(host), ""]
    return "\n".join(out)


if __name__ == "__main__":
    PAGE.write_text(text())
