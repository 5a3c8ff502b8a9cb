"""`make fuzz`: coverage-guided fuzzing of everything that takes CPER from outside (atheris, from the extra ``fuzz``).

A case that fails is kept in ``fixtures/fuzz/cper`` and runs in ``make check`` from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOUND = Path(__file__).parents[2] / "fixtures" / "fuzz" / "cper"
PAGE = Path(__file__).parents[2] / "docs" / "fuzz.md"
MEMORY = 256
"""MiB that a run may take."""
BUDGET = 10_000_000
"""Executions that a release is worth."""


def fuzz(corpus: Path, runs: int, seconds: int, artifacts: Path) -> None:
    """Run in this process; does not come back."""
    import atheris

    # the layout kernel runs generated code, which cannot be instrumented; libcper's tables have no branches
    with atheris.instrument_imports(include=["cper", "acpi"], exclude=["cper.wire", "cper.libcper"]):
        from tests.fuzz import cper_target

    for index, seed in enumerate(cper_target.seeds()):
        (corpus / f"seed-{index:05}").write_bytes(seed)
    limit = [f"-max_total_time={seconds}"] if seconds else []
    atheris.Setup(
        [
            sys.argv[0], str(corpus), f"-runs={runs}", *limit, "-max_len=1024", "-timeout=20",
            f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={artifacts}/", "-print_final_stats=1", "-verbosity=0",
        ],
        cper_target.check,
    )  # fmt: skip
    atheris.Fuzz()


def main() -> int:
    """Run it; exit 1 for a case that fails, 0 and a word where atheris is not installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=BUDGET, help="executions")
    parser.add_argument("--seconds", type=int, default=0, help="stop after this time")
    parser.add_argument("--report", action="store_true", help="write docs/fuzz.md")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed (pip install '.[fuzz]'): only the property tests ran", file=sys.stderr)
        return 0
    if options.inside:
        fuzz(Path(options.inside[0]), options.runs, options.seconds, Path(options.inside[1]))
    with tempfile.TemporaryDirectory() as folder:
        corpus, artifacts = Path(folder) / "corpus", Path(folder) / "found"
        corpus.mkdir()
        artifacts.mkdir()
        words = [
            "--runs",
            str(options.runs),
            "--seconds",
            str(options.seconds),
            "--inside",
            str(corpus),
            str(artifacts),
        ]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *words], stderr=subprocess.PIPE, text=True, check=False
        )
        took = time.monotonic() - began
        FOUND.mkdir(parents=True, exist_ok=True)
        for case in artifacts.iterdir():
            data = case.read_bytes()
            (FOUND / f"{case.name.split('-')[0]}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
        lines = [line.split(":") for line in done.stderr.splitlines() if line.startswith("stat::")]
        stats = {line[2]: int(line[3]) for line in lines}
        kept = len(list(corpus.iterdir()))
    executed, memory = stats.get("number_of_executed_units", 0), stats.get("peak_rss_mb", 0)
    print(f"fuzz: {executed:,} executions in {took:,.0f} s, {memory} MiB, corpus {kept}, exit {done.returncode}")
    if done.returncode:
        print("\n".join(done.stderr.splitlines()[-40:]), file=sys.stderr)
    elif options.report:
        cases = len(list(FOUND.glob("*-*")))
        PAGE.write_text(
            TEXT.format(
                executed=executed, took=took, memory=memory, kept=kept, budget=BUDGET, cases=cases, limit=MEMORY
            )
        )
    return 1 if done.returncode else 0


TEXT = """# Fuzzing of what takes CPER from outside

`make fuzz` runs the property tests for long, then, where atheris is installed (`pip install '.[fuzz]'`),
coverage-guided fuzzing of `tests/fuzz/cper_target.py`: any bytes as a record, a status block, a stream of both, text,
JSON of a document, a record in libcper's shape, and a body of every section type. What must hold: nothing but the
declared errors is raised, with an offset inside the input; encoding gives the bytes again, also by way of JSON; what is
damaged is read and loses nothing; no input takes more than a second of processor time, no run more than {limit} MiB.

A release is worth {budget:,} executions; `python -m tests.fuzz --runs N --report` writes this page.

| | |
|---|---|
| Executions of the last run | {executed:,}, {share:.1%} of the budget |
| Time | {took:,.0f} s |
| Peak memory | {memory} MiB |
| Inputs in its corpus | {kept:,} |
| Cases that failed in it | 0 |
| Cases found before, now in `fixtures/fuzz/cper` and run by `make check` | {cases} |
"""


if __name__ == "__main__":
    sys.exit(main())
