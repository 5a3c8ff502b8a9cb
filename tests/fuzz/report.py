"""Writes docs/fuzz.md of what the runs in ``out/fuzz`` told: ``--report`` of both fuzzers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "fixtures" / "fuzz" / "cper"
WORK = ROOT / "out" / "fuzz"
"""A corpus for each target; ``runs.jsonl`` and ``snapshots.jsonl``: a line for every part of a run."""
PAGE = ROOT / "docs" / "fuzz.md"
BUDGET = 10_000_000
"""Executions that a release is worth."""
SNAPSHOTS = 1_000_000
"""Executions over snapshots that a release is worth."""
SECONDS = 1.0
"""Of processor time that one input may take."""
SHARE = 64
"""One input of so many, by its CRC, is held to the laws about JSON and conversion too; they cost ten times the rest."""
MEMORY = 256
"""MiB that a process may take."""
SILENCE = 20
"""Seconds after which libFuzzer ends an input that does not come back by itself."""
Lines = list[dict[str, Any]]


def write() -> None:
    """The page."""
    runs, snapshots = _lines(WORK / "runs.jsonl"), _lines(WORK / "snapshots.jsonl")
    parts = [_HEAD.format(budget=BUDGET, share=SHARE, seconds=SECONDS, memory=MEMORY, silence=SILENCE)]
    parts += [_targets(runs)] if runs else ["No run is recorded.\n"]
    parts += [_FOUND, *(f"* `{path.name}`\n" for path in sorted(FOUND.glob("*-*")))]
    parts += [_SNAPSHOTS, _snapshots(snapshots) if snapshots else "No run is recorded.\n"]
    PAGE.write_text("".join(parts))


def _lines(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _total(lines: Lines, budget: int) -> str:
    """The rows that both tables begin with."""
    executions, processor = (sum(line[key] for line in lines) for key in ("executions", "processor_seconds"))
    rows = {
        "Executions": f"{executions:,} of {budget:,}",
        "From, to (UTC)": f"{min(n['began'] for n in lines)[:16]}, {max(n['began'] for n in lines)[:16]}",
        "Time of the processor": f"{processor:,.0f} s: {executions / max(processor, 1):,.0f} executions a second",
        "Peak memory of a process": f"{max(line['memory'] for line in lines)} MiB",
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def _targets(lines: Lines) -> str:
    out = _total(lines, BUDGET)
    from tests.fuzz.cper_target import NAMES  # late: atheris must see it imported

    out += f"| Processes | {len(lines)}, of which {sum(n['exit'] != 0 for n in lines)} ended with a case that fails |\n"
    out += "\n| Target | Executions | each second of the processor | Peak memory, MiB | Inputs in its corpus |\n"
    out += "|---|---|---|---|---|\n"
    for name in NAMES:
        own = [line for line in lines if line["target"] == name]
        if own:
            executions, processor = (sum(line[key] for line in own) for key in ("executions", "processor_seconds"))
            out += f"| {name} | {executions:,} | {executions / max(processor, 1):,.0f} "
            out += f"| {max(line['memory'] for line in own)} | {max(line['corpus'] for line in own):,} |\n"
    return out


def _snapshots(lines: Lines) -> str:
    results: Counter[str] = Counter()
    for line in lines:
        results.update(line["results"])
    out = _total(lines, SNAPSHOTS)
    out += f"| Slowest | {max(line['slowest'] for line in lines):.2f} s of the processor |\n"
    out += "\n| Mutants | Executions |\n|---|---|\n"
    return out + "".join(f"| {name} | {number:,} |\n" for name, number in sorted(results.items()))


_HEAD = """# Fuzzing of what takes CPER and snapshots from outside

`make fuzz` runs the property tests for long, a million damaged snapshots, and coverage-guided fuzzing (atheris, which
it installs from the extra `fuzz`) of `tests/fuzz/cper_target.py`. A release is worth {budget:,} executions of that.
`python -m tests.fuzz --runs N --report` and `python -m tests.fuzz.snapshots --executions N --report` write this page;
runs add up in `out/fuzz`.

## CPER

**One execution** is one input given to one target: a record, a status block, a stream of both, text in any form, the
JSON of a document, that of libcper's shape, changes of a good document of either kind (values replaced, taken out,
repeated), a record to libcper's shape, or the body of one section type. Each target has a corpus and processes of its
own, and begins with the records, blocks and bodies of the golden vectors.

What must hold of every input: only the declared errors are raised, with an offset inside the input; what was read
encodes to the same bytes; what is damaged is read as far as it goes and encodes to the same bytes; a stream loses no
byte. Of one input in {share}, chosen by its CRC, and of every found case, further: JSON out and in gives the bytes
again, for whole and damaged readings; the reading without objects is that with objects; a stream is read alike in
pieces of 64 bytes; record and block convert.

**What guides it**: the branches of `cper` and `acpi`, and those of the codecs that the layout kernel generates. A
branch is told to libFuzzer when a process takes it for the first time; how often is not counted, comparisons are not
traced.

**How the bounds are measured**: each execution takes its own processor time, and fails above {seconds:g} s; what does
not come back at all is ended by libFuzzer after {silence} s. libFuzzer reads the resident memory each second and ends a
process above {memory} MiB (about 90 of which are Python and the modules); the peak below is what the kernel says at the
end. Inputs made by mutation have up to 512 bytes, seeds more; what larger inputs cost is held down by
`tests/fuzz/test_fuzz_sections.py` and `tests/fuzz/test_fuzz_wire.py`, at 64 KiB.

"""
_FOUND = """
### Found

Inputs that failed once, all mended; `make check` holds them to every law (`fixtures/fuzz/cper`):

"""
_SNAPSHOTS = """
## Snapshots

**One execution** is one mutant of a snapshot of a guest that is owed something of each kind, restored into a core that
is there, or, every other one, resumed as a core with its model guest. It is refused with one line, and nothing has
changed then; or it is taken, and core and guest go on for some events. In four of ten mutants all checksums are right,
so that what is behind them is reached: values of the JSON changed, its text changed, the directory changed, parts left
out or swapped. Of the others none may be taken. The bounds are those above, measured alike; nothing guides it.

Found: an error that told a key of the JSON with its control characters as they came; mended.

"""
