"""Every known section type, with what backs its layout; data, not prose, and tests hold it to what they see."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, NamedTuple
from uuid import UUID

from cper.construct_section import ConstructSection
from cper.evidence import SECTIONS
from cper.section import MODULES, Section, known_guids, section_class


class KnownSection(NamedTuple):
    """One section type; an empty tuple: no evidence of that kind."""

    name: str
    guid: UUID
    declared: str
    """``module:class``."""
    sizes: str
    """Bytes: all lengths, or the smallest and ``+`` where parts are of no fixed size."""
    clause: str
    """Where it is specified."""
    offsets: tuple[str, ...] = ()
    """Independent headers to which all its fields are bound by name."""
    foreign: tuple[str, ...] = ()
    """Programs that share no code with us and made bodies of it which decode and encode again identically."""
    kernel: tuple[str, ...] = ()
    """Kernels whose reading of a body, fields all different, is compared with ours."""
    libcper: tuple[str, ...] = ()
    """Versions of libcper whose reading of random bodies is compared with ours field by field."""

    @property
    def backed(self) -> bool:
        """Whether anything independent of us backs it."""
        return bool(self.offsets or self.foreign or self.kernel or self.libcper)

    def plain(self) -> dict[str, Any]:
        """What JSON holds."""
        return self._asdict() | {"guid": str(self.guid), "backed": self.backed}


def known() -> tuple[KnownSection, ...]:
    """Every known section type: those that come along in the order of the specification, then others."""
    out = []
    for guid in known_guids():
        cls = section_class(guid)
        if cls is None:  # a plug-in that does not load
            continue
        if issubclass(cls, Section):
            sizes = ", ".join(map(str, cls.SIZES))
        else:
            sizes = f"{cls.SIZE}" if issubclass(cls, ConstructSection) and cls.SIZE else f"{cls.SIZE}+"
        backing = SECTIONS.get(cls.__name__, {}) if MODULES.get(guid, "").startswith("cper.") else {}
        place = f"{cls.__module__}:{cls.__name__}"
        out.append(KnownSection(cls.__name__, guid, place, sizes, _clause(cls.__module__), **backing))
    return tuple(out)


def _clause(module: str) -> str:
    """What the first line of the module's docstring cites."""
    if module.startswith("_section_") or module == ConstructSection.__module__:
        return ""  # of a file given on the command line
    doc = import_module(module).__doc__ or ""
    first = " ".join(doc.split("\n\n")[0].split())
    found = re.search(r"\(([^()]*(?:UEFI|CXL|Arm) [^()]*)\)", first)
    return found[1] if found else ""


__all__ = ["KnownSection", "known"]
