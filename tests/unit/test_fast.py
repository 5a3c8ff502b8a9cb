"""What `make fast` compiles stays such that it can be compiled (docs/speed.md); no compiler is needed here."""

from __future__ import annotations

import ast
import re

import pytest

from tests.bench.fast import INTERPRETED, MODULES, NEW, ROOT

TREES = {name: ast.parse((ROOT / name).read_text()) for name in MODULES}
SELF_MADE = {"NamedTuple", "Protocol", "IntEnum"}


def bases(node):
    return {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}


def classes(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


NATIVE = {node.name for tree in TREES.values() for node in classes(tree) if not bases(node) & SELF_MADE}


def test_the_list_is_sorted_and_names_what_is_there():
    assert list(MODULES) == sorted(set(MODULES))
    assert all((ROOT / name.partition("::")[0]).is_file() for name in [*MODULES, *INTERPRETED])


@pytest.mark.parametrize("name", MODULES)
def test_no_compiled_module_takes_a_class_from_pydantic(name):
    imported = {node.module for node in ast.walk(TREES[name]) if isinstance(node, ast.ImportFrom)}
    assert not {module for module in imported if module and module.split(".")[0] == "pydantic"}


def test_no_interpreted_class_inherits_from_a_compiled_one():
    others = [p for p in (ROOT / "vmm_ras").rglob("*.py") if p.relative_to(ROOT).as_posix() not in MODULES]
    assert others
    heirs = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in others
        for node in classes(ast.parse(path.read_text()))
        if bases(node) & NATIVE
    ]
    assert heirs == []


def test_compiled_classes_keep_no_default_behind_init():
    """A field with a default and ``init=False`` is a class attribute, which a compiled class has not."""
    for name in MODULES:
        assert not re.search(r"field\(.*init=False", (ROOT / name).read_text()), name


def test_the_tree_holds_no_compiled_module():
    left = [p for package in ("cper", "acpi", "vmm_ras") for p in (ROOT / package).rglob("*.so")]
    assert left == [] or ROOT.name == "fast"


def test_named_tuples_are_made_by_one_line_that_the_copy_replaces():
    assert (ROOT / "vmm_ras" / "events.py").read_text().count(NEW) == 1 or ROOT.name == "fast"


def test_what_becomes_a_named_tuple_is_a_tuple_made_for_it():
    """The copy's ``new`` makes the tuple itself the instance: nobody else may hold it."""
    for path in (ROOT / "vmm_ras").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "new":
                assert isinstance(node.args[1], ast.Tuple), f"{path.relative_to(ROOT)}:{node.lineno}"
