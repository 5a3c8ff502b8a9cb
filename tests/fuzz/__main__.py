"""`make fuzz`: coverage-guided fuzzing of everything that takes CPER from outside (atheris, from the extra ``fuzz``).

Each target runs in processes of its own, which go on with the corpus of the last run of it.  A case that fails is kept
in ``fixtures/fuzz/cper`` and runs in ``make check`` from then on.
"""

from __future__ import annotations

import argparse
import builtins
import hashlib
import importlib.util
import json
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tests.fuzz.report import BUDGET, FOUND, MEMORY, ROOT, SILENCE, WORK, write

PART = 100_000
"""Executions of one process."""
WEIGHTS = {
    "record": 3, "block": 4, "stream": 2, "text": 4, "json_document": 2, "changed_document": 2,
}  # fmt: skip
"""Shares of the executions; a section type has one."""
GENERATED = re.compile(r"<.+ of (cper|acpi)\.")
"""What the layout kernel calls the code that it writes; it is instrumented as it is compiled."""
LENGTH = 512
"""Bytes of an input that mutation makes, at most; a seed may be longer."""


def instrumented() -> ModuleType:
    """The targets, with everything that they try instrumented: its branches, not its comparisons."""
    from atheris.import_hook import HookManager
    from atheris.instrument_bytecode import patch_code

    def compiled(source: Any, filename: Any, *more: Any, **named: Any) -> Any:
        code = make(source, filename, *more, **named)
        return patch_code(code, trace_dataflow=False) if GENERATED.match(str(filename)) else code

    make, builtins.compile = builtins.compile, compiled
    wire = {f"cper.wire.{path.stem}" for path in (ROOT / "cper" / "wire").glob("*.py")}
    with HookManager({"cper", "acpi"}, {"cper.wire", *wire}, True, trace_dataflow=False):
        from tests.fuzz import cper_target

    for seed in cper_target.seeds():  # what is made when it is first used is made once, not in each process
        cper_target.check(seed, all_laws=True)
    return cper_target


class Part(NamedTuple):
    """Executions of a target in a process of its own; ``folder`` holds what libFuzzer says, and what fails."""

    target: str
    runs: int
    folder: Path
    began: datetime

    @property
    def corpus(self) -> Path:
        """Shared by all parts of the target, now and later."""
        return WORK / "corpus" / self.target


def begin(targets: ModuleType, part: Part) -> int:
    """Its process."""
    for folder in (part.corpus, part.folder):
        folder.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if not process:
        with (part.folder / "stderr").open("wb") as out:
            os.dup2(out.fileno(), 2)
        fuzz(targets, part)
    return process


def fuzz(targets: ModuleType, part: Part) -> None:
    """Run in this process; does not come back."""
    import atheris

    first, check = targets.first(targets.NAMES.index(part.target)), targets.check
    for index, seed in enumerate(seed for seed in targets.seeds() if seed[:1] == first):
        (part.corpus / f"seed-{index:05}").write_bytes(seed[1:])
    # a branch that was taken is put into a set, and told when it is new: a tenth of what it costs to tell every one
    taken, known = set[int](), set[int]()
    tell: Callable[[int], None] | None = None

    def one(data: bytes) -> None:
        nonlocal tell
        if tell is None:  # not before: ``Fuzz`` sets it
            tell, atheris._trace_branch = atheris._trace_branch, taken.add
        taken.clear()
        check(first + data)
        if not taken <= known:
            for branch in taken - known:
                tell(branch)
            known.update(taken)

    atheris.Setup(
        [
            sys.argv[0], str(part.corpus), f"-runs={part.runs}", f"-max_len={LENGTH}", f"-timeout={SILENCE}",
            f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={part.folder}/", "-print_final_stats=1", "-verbosity=0",
        ],
        one,
    )  # fmt: skip
    atheris.Fuzz()


def ended(targets: ModuleType, part: Part, status: int, used: resource.struct_rusage) -> dict[str, Any]:
    """What became of it."""
    said = part.folder / "stderr"
    told = said.read_text(errors="replace").splitlines()
    said.unlink()
    stats = {line.split(":")[2]: int(line.split(":")[3]) for line in told if line.startswith("stat::")}
    if status:
        print("\n".join(told[-40:]), file=sys.stderr)
    cases = [_keep(targets, part.target, path) for path in part.folder.iterdir()]
    part.folder.rmdir()
    return {
        "began": part.began.isoformat(timespec="seconds"),
        "target": part.target,
        "executions": stats.get("number_of_executed_units", 0),
        "seconds": round((datetime.now(UTC) - part.began).total_seconds(), 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "memory": used.ru_maxrss >> 10,
        "corpus": len(list(part.corpus.iterdir())),
        "cases": cases,
        "exit": os.waitstatus_to_exitcode(status),
    }


def _keep(targets: ModuleType, target: str, case: Path) -> str:
    """Put a failing input where ``make check`` runs it; its name says the target and wants to be made to say what."""
    data = targets.lasting(targets.first(targets.NAMES.index(target)) + case.read_bytes())
    name = f"{target}-{case.name.split('-')[0]}-{hashlib.sha256(data).hexdigest()[:12]}"
    FOUND.mkdir(parents=True, exist_ok=True)
    (FOUND / name).write_bytes(data)
    case.unlink()
    return name


def shares(chosen: list[str], runs: int) -> Iterator[tuple[str, int]]:
    """How many executions each target has, in processes of ``PART`` at most."""
    whole = sum(WEIGHTS.get(name, 1) for name in chosen)
    for name in chosen:
        left = -(-runs * WEIGHTS.get(name, 1) // whole)
        while left > 0:
            yield name, min(left, PART)
            left -= PART


def fuzz_all(targets: ModuleType, chosen: list[str], runs: int, jobs: int) -> Iterator[dict[str, Any]]:
    """What became of each part, as they end; ``jobs`` of them at a time."""
    waiting, running = list(shares(chosen, runs))[::-1], dict[int, Part]()
    for number in count():
        if waiting and len(running) < jobs:
            part = Part(*waiting.pop(), WORK / f"part-{os.getpid()}-{number}", datetime.now(UTC))
            running[begin(targets, part)] = part
        elif running:
            process, status, used = os.wait4(-1, 0)
            yield ended(targets, running.pop(process), status, used)
        else:
            break


def main() -> int:
    """Run it; exit 1 for a case that fails, 0 and a word where atheris is not installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=BUDGET, help="executions, of all targets together")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--target", action="append", help="only these targets")
    parser.add_argument("--report", action="store_true", help="write docs/fuzz.md, of all that out/fuzz tells")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed (pip install '.[fuzz]'): only the property tests ran", file=sys.stderr)
        return 0
    targets, failed = instrumented(), False
    if unknown := set(options.target or ()) - set(targets.NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}: one of {', '.join(targets.NAMES)} expected")
    for done in fuzz_all(targets, options.target or targets.NAMES, options.runs, options.jobs):
        with (WORK / "runs.jsonl").open("a") as out:
            out.write(json.dumps(done) + "\n")
        print(
            f"{done['began']} {done['target']}: {done['executions']:,} executions, {done['processor_seconds']} s of "
            f"the processor in {done['seconds']} s, {done['memory']} MiB, corpus {done['corpus']:,}",
            *done["cases"], flush=True,
        )  # fmt: skip
        failed = failed or done["exit"] != 0
    if options.report:
        write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
