"""The rules of the house that a machine can keep: who may import whom, no I/O in the core, lazy loading, docstrings."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cper", "acpi", "vmm_ras")
FILES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))

# cper.wire <- cper <- acpi <- core <- guests, traces <- replay <- io, lab, cli
WIRE, CPER, ACPI, CORE, GUEST, REPLAY, DOORS = range(7)
ROOMS = {"guests": GUEST, "traces": GUEST}
ROOMS |= dict.fromkeys(("ledger", "replay", "replay_state", "explain", "scenario", "compare"), REPLAY)
OUTSIDE = {"io", "lab", "cli", "show", "timeline", "pytest_plugin"}
"""Of ``vmm_ras``: what talks to people, files and hosts.  Every other module directly in it is the core."""


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank(module: str) -> int | None:
    """How far out a module of ours lies; None for everybody else's."""
    top, _, rest = module.partition(".")
    first = rest.split(".")[0]
    if top == "cper":
        return WIRE if first == "wire" else CPER
    if top == "acpi":
        return ACPI
    if top == "vmm_ras":
        return DOORS if first in OUTSIDE else ROOMS.get(first, CORE)
    return None


@lru_cache(maxsize=1)
def nodes(tree: ast.AST) -> list[ast.Import | ast.ImportFrom | ast.Call]:
    """What the rules look at."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom | ast.Call)]


def imports(tree: ast.AST, module: str, is_package: bool = False) -> list[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions and for type checkers too."""
    found = []
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                own = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*own[: len(own) - node.level + 1], *([base] if base else [])])
            found.append((node.lineno, base))
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def wrong_imports(tree: ast.AST, module: str, is_package: bool = False) -> list[str]:
    """Imports that point outwards, or from one room of the same distance to another."""
    own = rank(module)
    assert own is not None
    out = []
    for line, name in imports(tree, module, is_package):
        theirs = rank(name)
        if theirs is None:
            continue
        if name == "cper":
            continue  # ``from cper import wire`` stands in the list as cper.wire too
        if theirs > own or (theirs == own == GUEST and name.split(".")[:2] != module.split(".")[:2]):
            out.append(f"{module}:{line} imports {name}")
    return out


FORBIDDEN_MODULES = {
    "asyncio", "ctypes", "fcntl", "getpass", "glob", "gzip", "http", "io", "logging", "mmap", "multiprocessing", "os",
    "pathlib", "platform", "queue", "random", "resource", "secrets", "select", "selectors", "shutil", "signal",
    "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
    "warnings", "rich", "typer",
}  # fmt: skip
FORBIDDEN_CALLS = {"open", "print", "input", "breakpoint"}
CLOCKS = {"now", "utcnow", "today", "uuid1", "uuid4", "monotonic", "perf_counter", "getenv"}


def io_in(tree: ast.AST, module: str) -> list[str]:
    """What a module does that only the doors may do."""
    out = [
        f"{module}:{line} imports {name}"
        for line, name in imports(tree, module)
        if name.split(".")[0] in FORBIDDEN_MODULES
    ]
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                out.append(f"{module}:{node.lineno} calls {node.func.id}()")
            elif isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS and not node.args:
                out.append(f"{module}:{node.lineno} calls .{node.func.attr}()")
    return out


def undocumented(tree: ast.Module, module: str) -> list[str]:
    """Public classes, functions and methods without a docstring."""
    out = [] if ast.get_docstring(tree) else [f"{module}: no docstring"]

    def visit(body: list[ast.stmt], where: str) -> None:
        for node in body:
            if isinstance(node, ast.If | ast.Try):
                visit(node.body, where)
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list):
                continue  # the getter says it
            if not ast.get_docstring(node):
                out.append(f"{where}.{node.name}:{node.lineno}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{where}.{node.name}")

    visit(tree.body, module)
    return out


def test_imports_point_one_way_and_the_core_does_no_io_and_what_is_public_is_documented():
    """One test, because reading the files takes longer than judging them."""
    wrong: list[str] = []
    inside = 0
    for path in FILES:
        module, tree = module_of(path), ast.parse(path.read_bytes(), str(path))
        wrong += wrong_imports(tree, module, path.name == "__init__.py") + undocumented(tree, module)
        if rank(module) != DOORS and not module.startswith("vmm_ras.traces"):
            inside += 1
            wrong += io_in(tree, module)
    assert inside > 20
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_published(package):
    assert (ROOT / package / "py.typed").read_bytes() == b""


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_importing_cper_loads_nothing_heavy():
    code = "import sys; before = set(sys.modules); import cper; print(sorted(set(sys.modules) - before))"
    assert run(code) == "['cper']"


def test_a_section_is_loaded_when_its_guid_is_met():
    code = """
import sys
import cper.section, cper.record, acpi.ghes
bodies = {place.partition(":")[0] for place in cper.section.MODULES.values()}
print(sorted(bodies & sys.modules.keys()))
from uuid import UUID
cper.section.read_section(UUID(int=0), b"")
print(sorted(bodies & sys.modules.keys()))
guid = next(iter(cper.section.MODULES))
cls = cper.section.section_class(guid)
print(sorted(bodies & sys.modules.keys()) == [cls.__module__], cls.GUID == guid)
"""
    assert run(code).splitlines() == ["[]", "[]", "True True"]


class TestTheRulesThemselves:
    """Each check finds what it is for."""

    @pytest.mark.parametrize(
        ("module", "code", "wrong"),
        [
            ("cper.wire._cells", "from cper.record import Record", True),
            ("cper.wire._cells", "import cper.common", True),
            ("cper.wire._cells", "from cper import common", True),
            ("cper.wire._cells", "from .. import record", True),
            ("cper.wire._cells", "from cper.wire._errors import WireError", False),
            ("cper.record", "def f():\n    import acpi.ghes", True),
            ("cper.record", "from cper.wire import Struct", False),
            ("acpi.hest", "import vmm_ras", True),
            ("acpi.hest", "if TYPE_CHECKING:\n    from vmm_ras import events", True),
            ("acpi.hest", "from cper.common import Severity", False),
            ("vmm_ras.source", "from vmm_ras.guests.model import ModelGuest", True),
            ("vmm_ras.source", "from vmm_ras import replay", True),
            ("vmm_ras.source", "from vmm_ras.io import kvm", True),
            ("vmm_ras.source", "from vmm_ras.events import HostSignal", False),
            ("vmm_ras.guests.os", "from vmm_ras.traces import items", True),
            ("vmm_ras.guests.os", "from vmm_ras.guests.memory import GuestMemory", False),
            ("vmm_ras.traces.strace", "from vmm_ras.replay import Replay", True),
            ("vmm_ras.replay", "from vmm_ras import cli", True),
            ("vmm_ras.replay", "from vmm_ras.guests.model import ModelGuest", False),
            ("vmm_ras.cli", "from vmm_ras.replay import Replay", False),
        ],
    )
    def test_import_direction(self, module, code, wrong):
        assert bool(wrong_imports(ast.parse(code), module)) == wrong

    @pytest.mark.parametrize(
        "code",
        [
            "import os", "import os.path", "from time import monotonic", "from pathlib import Path", "import random",
            "def f():\n    import socket", "print(1)", "open('x')", "datetime.now()", "date.today()", "uuid.uuid4()",
            "import logging", "from concurrent import futures\nimport threading", "import sys",
        ],
    )  # fmt: skip
    def test_io(self, code):
        assert io_in(ast.parse(code), "m")

    def test_no_io(self):
        assert not io_in(ast.parse("import re, struct\ndatetime.fromtimestamp(5, UTC)\nself.now\nstate.now(3)"), "m")

    def test_docstrings(self):
        code = '"""M."""\nclass A:\n    """A."""\n    def b(self): ...\n    def _c(self): ...\ndef d():\n    """D."""\n'
        assert undocumented(ast.parse(code), "m") == ["m.A.b:4"]
        assert undocumented(ast.parse("x = 1"), "m") == ["m: no docstring"]
