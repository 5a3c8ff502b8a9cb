"""A copy of the tree in ``build/fast`` whose hot modules are compiled by mypyc; pure Python stays the product.

The tree itself never gets a compiled file, so that no edited module can stand beside an old one.  The copy is made
anew each time, and compiled when a module, Python or mypy has changed.  Needs a C compiler and Python's headers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAST = ROOT / "build" / "fast"
MODULES = (
    "acpi/entries.py",
    "vmm_ras/answers.py",
    "vmm_ras/consumed.py",
    "vmm_ras/deciding.py",
    "vmm_ras/delivery.py",
    "vmm_ras/effects.py",
    "vmm_ras/events.py",
    "vmm_ras/found.py",
    "vmm_ras/guests/carrying.py",
    "vmm_ras/guests/memory.py",
    "vmm_ras/guests/model.py",
    "vmm_ras/guests/nested.py",
    "vmm_ras/guests/os.py",
    "vmm_ras/guests/pages.py",
    "vmm_ras/guests/printed.py",
    "vmm_ras/guests/vcpu.py",
    "vmm_ras/history.py",
    "vmm_ras/inbox.py",
    "vmm_ras/injection.py",
    "vmm_ras/ledger.py",
    "vmm_ras/memory.py",
    "vmm_ras/notifier.py",
    "vmm_ras/record.py",
    "vmm_ras/replay.py",
    "vmm_ras/rows.py",
    "vmm_ras/sdei.py",
    "vmm_ras/sdei_calls.py",
    "vmm_ras/sdei_handlers.py",
    "vmm_ras/sdei_state.py",
    "vmm_ras/seen.py",
    "vmm_ras/source.py",
    "vmm_ras/traces/jsonl.py",
)
"""What an event of a replay goes through, and what these call; pydantic's models and generated codecs cannot be."""
_REPLACES = "it puts another `perform` or `run` into a model guest, and methods of compiled classes cannot be replaced"
INTERPRETED = {
    "tests/golden/test_snapshots.py::test_the_newest_ones_are_what_is_written_now": _REPLACES,
    "tests/protocol/test_anything.py": _REPLACES,
    "tests/protocol/test_kvm_guest.py": "its guest overrides methods of the model guest and has vCPUs of another class",
    "tests/protocol/test_needs.py::test_poison_under_an_sdei_stack": _REPLACES,
    "tests/protocol/test_needs.py::test_poison_under_the_vectors": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_a_handler_that_could": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_a_held_pe": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_a_pe_that": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_all_masked": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_an_idle": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_it_goes_from_pe_to_pe": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_the_stop_of": _REPLACES,
    "tests/protocol/test_notifier_sdei.py::test_where_no_pe": _REPLACES,
    "tests/protocol/test_sdei_model.py::test_512_pes_cost_no_more_than_two": "a tracer sees no lines",
    "tests/protocol/test_snapshot.py": _REPLACES,
    "tests/protocol/test_state.py": _REPLACES,
    "tests/protocol/test_unreachable.py": _REPLACES,
    "tests/unit/test_fast.py::test_the_tree_holds_no_compiled_module": "this is said of the tree, not of the copy",
}
"""Tests, by the beginning of their names, that only the interpreted modules can pass, and why."""
NEW = "new: Final = tuple.__new__\n"
"""What makes named tuples: a line of ``vmm_ras.events``, in whose place the copy takes ``new.c``."""
LACKING = "no C compiler or no Python.h: install gcc and python3-dev, or what your system calls them"
_SKIPPED = shutil.ignore_patterns(".git", ".venv*", "build", "out", "__pycache__", ".*_cache", ".hypothesis")


def digest() -> str:
    """Of all that the compiled modules are made from."""
    import mypy.version

    said = hashlib.sha256(f"{sys.version} {mypy.version.__version__} {MODULES}".encode())
    for name in ("pyproject.toml", "tests/bench/new.c", "tests/bench/fast.py"):
        said.update((ROOT / name).read_bytes())
    for package in ("cper", "acpi", "vmm_ras"):
        for path in sorted((ROOT / package).rglob("*.py")):
            said.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return said.hexdigest()


def able() -> bool:
    """Whether there is what the copy is compiled with."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    return compiler is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def build() -> None:
    """Make the copy, and compile what is not compiled yet."""
    if not able():
        sys.exit(LACKING)
    made = FAST.with_name("fast-compiled")
    name = digest()
    shutil.rmtree(FAST, ignore_errors=True)
    shutil.copytree(ROOT, FAST, ignore=_SKIPPED, symlinks=True)
    take_new()
    if not (made / name).exists():
        shutil.rmtree(made, ignore_errors=True)
        compiler = [sys.executable, "-m", "tests.bench.fast", "--compile", str(made)]
        subprocess.run(compiler, cwd=FAST, check=True)
        (made / name).touch()
    shutil.copytree(made, FAST, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.c", "*.h", "*.txt", "*.o", name))


def take_new() -> None:
    """Let the copy make its named tuples by ``new.c``."""
    events = FAST / "vmm_ras" / "events.py"
    text = events.read_text()
    assert text.count(NEW) == 1
    events.write_text(text.replace(NEW, "from vmm_ras import _new\n\nnew: Final = _new.new\n"))
    events.with_name("_new.pyi").write_text(
        "from typing import TypeVar\n\nT = TypeVar('T')\n\n"
        "def new(cls: type[T], values: tuple[object, ...]) -> T: ...\n"
    )


def compile_modules(into: Path) -> None:
    """Compile the modules of the tree that is the working directory: one group, so that they call each other in C."""
    from mypyc.build import mypycify
    from setuptools import Distribution, Extension

    work = into.with_name("fast-work")
    extensions = mypycify([*MODULES], opt_level="2", debug_level="0", multi_file=True, target_dir=str(work))
    extensions.append(Extension("vmm_ras._new", ["tests/bench/new.c"]))
    command = Distribution({"name": "vmm-ras-fast", "packages": [], "ext_modules": extensions}).get_command_obj(
        "build_ext"
    )
    command.build_lib, command.build_temp, command.parallel = str(into), str(work), os.cpu_count()
    command.ensure_finalized()
    command.run()


def check() -> int:
    """Run the test suite with the compiled modules."""
    words = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "-q"]
    words += [f"--deselect={test}" if "::" in test else f"--ignore={test}" for test in INTERPRETED]
    return subprocess.run(words, cwd=FAST, check=False).returncode


def main() -> int | str:
    """Build; then test if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="run the test suite with the compiled modules")
    parser.add_argument("--able", action="store_true", help="only say whether there is a compiler")
    parser.add_argument("--compile", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compile is not None:
        compile_modules(options.compile)
        return 0
    if options.able:
        return 0 if able() else f"compiled modules are not measured: {LACKING}"
    build()
    print(f"compiled: PYTHONPATH={FAST.relative_to(ROOT)} .venv/bin/vmm-ras replay ...")
    return check() if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
