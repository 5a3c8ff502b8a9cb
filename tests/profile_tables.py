"""`python -m tests.profile_tables` writes docs/profiles.md from the guest and host profiles; a test keeps it so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

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


def table(profile: Any) -> Iterable[str]:
    """Each statement with its observation."""
    yield from ("| Statement | | Observation |", "|---|---|---|")
    for member in fields(profile):
        if member.name not in {"name", "doc", "evidence"}:
            value, observed = shown(getattr(profile, member.name)), profile.evidence[member.name]
            yield f"| `{member.name}` | {value} | {observed} |"


def text() -> str:
    """The page."""
    out = ["# Profiles", "", "Made from the data by `python -m tests.profile_tables`.", "", "## Guests", ""]
    out += ["`linux` is `linux-7.2`. What the members mean is said in `vmm_ras/profiles.py`.", ""]
    for name, guest in PROFILES.items():
        if guest.name == name:
            out += [f"### {name}", "", guest.doc, "", *table(guest), ""]
    out += ["## Hosts", "", "KVM of these kernels; what the members mean is said in `vmm_ras/kvm/hosts.py`.", ""]
    for name, host in HOSTS.items():
        out += [f"### {name}", "", *table(host), ""]
    return "\n".join(out)


if __name__ == "__main__":
    PAGE.write_text(text())
