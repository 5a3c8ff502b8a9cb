"""`make oracle`: random records of every type, read by libcper's Python module and by us, compared member by member."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from cper.libcper.record import TYPES, of_record, to_record
from cper.record import Record
from tests.oracle import generate
from tests.oracle.compare import Tally, mine
from tests.oracle.defects import DEFECTS, WHOLE
from tests.oracle.environment import VERSION, parsed, python
from vmm_ras.lab.errors import Unavailable

VECTORS = Path(__file__).parents[2] / "fixtures" / "libcper" / "vectors.jsonl"
PAGE = Path(__file__).parents[2] / "docs" / "libcper.md"
CHUNK = 500


def run(count: int, seed: int) -> Tally:
    """Compare ``count`` records of each type, each read as it is, and as we write it from libcper's JSON."""
    interpreter = python()
    random.seed(seed)
    tally = Tally()
    for guid in TYPES:
        left = count
        while left > 0:
            records = [generate.record(guid) for _ in range(min(left, CHUNK))]
            left -= CHUNK
            again = [to_record(of_record(Record.decode(data))).encode() for data in records]
            for data, theirs in zip(records, parsed(interpreter, records), strict=True):
                tally.compare(guid, data, theirs, mine(data))
            for data, theirs in zip(again, parsed(interpreter, again), strict=True):
                tally.compare(guid, data, theirs, mine(data))
        print(f"\r{TYPES[guid].name:45}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 45 + "\r", end="", file=sys.stderr)
    return tally


HEAD = """# libcper

`cper show`, `cper decode` and `cper encode` take `--format libcper`: JSON in the shape that OpenBMC's libcper writes
and reads (its `specification/json`), so that a program that uses the one can use the other. What it says is what this
project reads.

* The lengths of record and sections are made anew when such JSON is encoded; bodies lie back to back.
* What the shape has no member for is not in it: bytes under clear validation bits, reserved fields, gaps, a vendor's
  data behind a firmware reference. Our own JSON (the default) loses nothing.
* Registers inside a PCI Express capability structure are in its `data` only; those of AER are decoded.
* Type of an ARM error information is read as UEFI 2.11 numbers it (bits 0 to 3), as libcper's source does.
* A status block is converted into a record first; what a record cannot hold is told on standard error.

## Both readings compared

`make oracle` installs libcper's Python module (`cper` {version} on PyPI) in an environment of its own, makes random
records of every type, and compares both readings member by member; then it encodes what we wrote in libcper's shape,
and compares again. The last run: {records:,} records, {members:,} members, seed {seed}; {clamped:,} numbers beyond 63
bits, which the module cuts off at 2^63 - 1; {left_out:,} registers of capability structures, which we leave out;
differences that nothing explains: {unexplained}.
"""
TAIL = """
## Where libcper says something else

As its module {version} does; the member is that of its JSON. A run fails where a difference is not in this list, and
where one of the list is not seen any more. The module reads Type of an ARM error information as a number, as UEFI did
before 2.9A; libcper's later source reads bits 0 to 3. The comparison uses the former.
"""


def page(tally: Tally, seed: int) -> str:
    """The report."""
    facts = {
        "version": VERSION, "seed": seed, "records": sum(tally.records.values()), "clamped": tally.clamped,
        "members": sum(tally.members.values()), "unexplained": len(tally.unexplained),
        "left_out": sum(tally.left_out.values()),
    }  # fmt: skip
    rows = [f"| {key} | {n:,} | {tally.members[key]:,} |" for key, n in tally.records.items()]
    found = [f"| {d.section} | `{_plain(d.path)}` | {d.clause} | {d.why} | {tally.defects[d]:,} |" for d in DEFECTS] + [
        f"| {key} | all | {WHOLE[key][0]} | {WHOLE[key][1]} | {n:,} |" for key, n in tally.whole.items()
    ]
    parts = [
        HEAD.format(**facts), "| Section | Records | Members |", "|---|---|---|", *rows, TAIL.format(**facts),
        "| Section | Member | Clause | What differs | Seen |", "|---|---|---|---|---|", *found,
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _plain(pattern: str) -> str:
    return pattern.replace("\\.", ".").replace(".*", "…").replace("|", " or ")


def vectors(each: int) -> None:
    """Write ``each`` records of every type, with what the module reads of them, for the tests that do without it."""
    interpreter = python()
    random.seed(0)
    VECTORS.parent.mkdir(exist_ok=True)
    records = [generate.record(guid) for guid in TYPES for _ in range(each)]
    with VECTORS.open("w") as out:
        for data, theirs in zip(records, parsed(interpreter, records), strict=True):
            out.write(json.dumps({"record": data.hex(), "libcper": theirs}) + "\n")


def main() -> int:
    """Run it; exit 1 for a difference that is not understood, 3 where libcper cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="records of each type")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vectors", type=int, metavar="N", help="write N records of each type for the tests instead")
    parser.add_argument("--report", action="store_true", help="write docs/libcper.md")
    options = parser.parse_args()
    try:
        if options.vectors:
            vectors(options.vectors)
            return 0
        tally = run(options.count, options.seed)
    except Unavailable as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 3
    text = page(tally, options.seed)
    if options.report:
        PAGE.write_text(text)
    print(f"{sum(tally.records.values()):,} records, {sum(tally.members.values()):,} members compared")
    for defect in DEFECTS:
        print(f"{tally.defects[defect]:8}  {defect.section}.{_plain(defect.path)}: {defect.why} ({defect.clause})")
    for (key, path), (theirs, ours, data) in tally.unexplained.items():
        print(f"UNEXPLAINED {key} {path}: libcper {theirs!r}, we {ours!r}: {data}")
    stale = [d for d in DEFECTS if not tally.defects[d]] if options.count >= 1000 else []
    for defect in stale:
        print(f"NOT SEEN {defect.section}.{_plain(defect.path)}: {defect.why}")
    return 1 if tally.unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
