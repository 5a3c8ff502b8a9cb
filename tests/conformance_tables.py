"""`python -m tests.conformance_tables` writes docs/conformance.md, from scenarios and what kernels did with them."""

# ruff: noqa: E501  # prose

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from vmm_ras.profiles import GuestProfile
from vmm_ras.traces import script
from vmm_ras.traces.script import Script

ROOT = Path(__file__).parents[1]
PAGE, SCENARIOS, OBSERVED = (
    ROOT / "docs" / "conformance.md",
    ROOT / "fixtures" / "scenarios",
    ROOT / "fixtures" / "conformance",
)
STATEMENTS = tuple(f.name for f in fields(GuestProfile) if f.name not in {"name", "doc", "evidence"})


LIMITS = {
    "notifications": "SCI is bound by none of these machines",
    "cache_slots": "that there are at least two; four is what the source says",
    "cache_seconds": "more than a moment, and less than eleven",
    "cache_swallows": "SEA: what a repetition by SDEI does leaves no trace",
    "printed_seconds": "more than a moment, and less than six",
    "sections": "only what is printed depends on it: `tests/golden` reads it from captured logs",
    "ras": "yes: none of these machines has no FEAT_RAS",
}
"""Statement to how much of it can be seen."""


def scenarios() -> dict[str, Script]:
    """All of them, by family and name."""
    paths = sorted(SCENARIOS.rglob("*.scenario.jsonl"))
    return {f"{p.parent.name}/{p.name.partition('.')[0]}": script.read(p.read_bytes(), p.name) for p in paths}


def observed() -> dict[str, Any]:
    """What each kernel did, by series."""
    files = sorted(OBSERVED.glob("linux-*.json"), key=lambda p: [int(n) for n in p.stem[6:].split(".")])
    return {p.stem.removeprefix("linux-"): json.loads(p.read_text()) for p in files}


def text() -> str:
    """The page."""
    found, kernels = scenarios(), observed()
    return "\n".join(
        [*_head(found, kernels), *_families(found, kernels), *_statements(found, kernels), *_list(found), ""]
    )


def _head(found: dict[str, Script], kernels: dict[str, Any]) -> Iterator[str]:
    yield "# Conformance"
    yield ""
    yield (
        f"{len(found)} scenarios ([scenarios.md](scenarios.md)) are played on the model guest by `make check`, and by "
        "`make conformance` on unmodified Debian kernels in an unmodified QEMU too. Both must end alike: bound, acknowledged and "
        "cleared sources; pages taken out of use and reported; the code of each owner's SIGBUS; the way that the core chose; whether "
        "the guest lives. This page is made by `python -m tests.conformance_tables` from `fixtures/scenarios` and "
        "`fixtures/conformance`, which holds what each kernel did. Seconds are those of the scenarios, without the boots."
    )
    yield ""
    yield "| Kernel | Package | QEMU | Date | Scenarios | Boots | Seconds | Disagreements |"
    yield "|---|---|---|---|---|---|---|---|"
    for series, run in kernels.items():
        about, bad = run["about"], [name for name, row in run["scenarios"].items() if row["failed"]]
        yield (
            f"| {series} | {about['kernel']} | {about['qemu']} | {about['date']} | {len(run['scenarios'])} | "
            f"{about['boots']} | {about['seconds']} | {len(bad) or 'none'} |"
        )
    for series, run in kernels.items():
        for name, row in run["scenarios"].items():
            for line in row["failed"]:
                yield f"\nLinux {series}, `{name}`: {line}"
    yield ""


def _families(found: dict[str, Script], kernels: dict[str, Any]) -> Iterator[str]:
    yield "## Families"
    yield ""
    yield "Passed of played; the others cannot be played on a real guest, and the list below says why.\n"
    yield f"| Family | Model | {' | '.join(kernels)} |"
    yield f"|---|---|{'---|' * len(kernels)}"
    for family in dict.fromkeys(name.partition("/")[0] for name in found):
        names = [name for name in found if name.startswith(f"{family}/")]
        cells = []
        for run in kernels.values():
            rows = [run["scenarios"][name] for name in names if name in run["scenarios"]]
            cells.append(f"{sum(not row['failed'] for row in rows)} of {len(rows)}")
        yield f"| {family} | {len(names)} | {' | '.join(cells)} |"
    yield ""


def _statements(found: dict[str, Script], kernels: dict[str, Any]) -> Iterator[str]:
    yield "## Statements of the guest profiles"
    yield ""
    yield (
        "A statement of `vmm_ras/profiles.py` is proven on a kernel by scenarios that name it and passed there. "
        "`tests/unit/test_conformance.py` makes each of them wrong in one way, and demands that some of its scenarios fail."
    )
    yield ""
    yield "| Statement | Proven on | As far as it can be seen | Scenarios |"
    yield "|---|---|---|---|"
    for statement in STATEMENTS:
        names = [name for name, s in found.items() if statement in s.head.proves]
        passed = {
            series: [n for n in names if n in run["scenarios"] and not run["scenarios"][n]["failed"]]
            for series, run in kernels.items()
        }
        proven = ", ".join(series for series, those in passed.items() if those)
        shown = ", ".join(f"`{n}`" for n in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        yield f"| `{statement}` | {proven or '**unproven**'} | {LIMITS.get(statement, '')} | {shown or 'none'} |"
    yield ""


def _list(found: dict[str, Script]) -> Iterator[str]:
    yield "## Scenarios"
    yield ""
    yield "| Scenario | What it shows | |"
    yield "|---|---|---|"
    for name, s in found.items():
        yield f"| `{name}` | {s.head.about} | {f'model only: {s.head.model_only}' if s.head.model_only else ''} |"


if __name__ == "__main__":
    PAGE.write_text(text())
