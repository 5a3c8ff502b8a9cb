"""Section types that do not come with the product: plug-ins, and Python files given on the command line."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata, util
from pathlib import Path
from uuid import UUID

GROUP = "vmm_ras.sections"
"""The entry point group of plug-ins.  An entry's name is the section type's GUID, its value ``module:class``."""


def find_plugins() -> None:
    """Make the section types of installed plug-ins known; each loads when it is met."""
    from cper.section import MODULES, unloadable

    unloadable[:] = [_note]
    for entry in _entries(tuple(sys.path)):
        try:
            guid = UUID(entry.name)
        except ValueError:
            print(f"note: plug-in {entry.value}: its name {entry.name!r} is no GUID", file=sys.stderr)
            continue
        if MODULES.setdefault(guid, entry.value) != entry.value:
            print(f"note: plug-in {entry.value}: section type {guid} is {MODULES[guid]} already", file=sys.stderr)


@cache
def _entries(path: tuple[str, ...]) -> metadata.EntryPoints:
    """Those of all that is installed along ``path``, which is sys.path; to look takes 5 ms."""
    return metadata.entry_points(group=GROUP)


def _note(text: str) -> None:
    print(f"note: {text}".replace("\n", " "), file=sys.stderr)


def load(file: Path) -> None:
    """Run a Python file and register every section type that it declares.  Raises InputError."""
    from cper.construct_section import ConstructSection
    from cper.framed import FramedSection
    from cper.section import Section, register
    from vmm_ras.errors import InputError

    spec = util.spec_from_file_location(f"_section_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: not a Python file")
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{file}: {type(error).__name__}: {error}") from None
    bases = (Section, FramedSection, ConstructSection)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, bases) and "GUID" in vars(value)
    ]
    own = [value for value in own if value.__module__ in {spec.name, ConstructSection.__module__}]
    if not own:
        raise InputError(f"{file}: declares no section type")
    for cls in own:
        try:
            register(cls)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None
