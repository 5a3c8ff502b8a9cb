"""`python -m tests.layouts` writes docs/layouts.md from the declarations; a test keeps it so."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import acpi
import cper
import vmm_ras.boot
import vmm_ras.kvm
from cper.section import Section
from cper.wire import Struct

PAGE = Path(__file__).parents[1] / "docs" / "layouts.md"


def structures() -> list[type[Struct]]:
    """Every declared structure, in order of module and place."""
    for package in (cper, acpi, vmm_ras.boot, vmm_ras.kvm):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)

    def below(cls: type[Struct]) -> list[type[Struct]]:
        return [s for sub in cls.__subclasses__() for s in [*([sub] if "SIZE" in vars(sub) else []), *below(sub)]]

    packages = ("cper.", "acpi.", "vmm_ras.boot.", "vmm_ras.kvm.")
    found = {s for s in below(Struct) if s.__module__.startswith(packages)}
    return sorted(found, key=lambda s: (not s.__module__.startswith("cper."), s.__module__, s.__name__))


def text() -> str:
    """The page."""
    out = ["# Layouts", "", "Made from the declarations by `python -m tests.layouts`. Offsets and sizes in bytes.", ""]
    module = ""
    for cls in structures():
        if cls.__module__ != module:
            module = cls.__module__
            out += [f"## {module}", "", (importlib.import_module(module).__doc__ or "").strip().splitlines()[0], ""]
        guid = f", section type `{cls.GUID}`" if issubclass(cls, Section) and hasattr(cls, "GUID") else ""
        out += [f"### {cls.__name__}", "", f"{(cls.__doc__ or '').strip().splitlines()[0]} {cls.SIZE} bytes{guid}.", ""]
        out += [cls.layout_table(), ""]
    return "\n".join(out)


if __name__ == "__main__":
    PAGE.write_text(text())
