"""`python -m tests.conformance_tables` writes docs/conformance.md, from scenarios and what kernels did with them."""

# ruff: noqa: E501  # prose

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from vmm_ras.lab.kvm_stage import refusal
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
    "sections": "only what is printed depends on it: `make printed` compares that, and `tests/golden` captured logs",
    "ras": "yes: none of these machines has no FEAT_RAS",
}
"""Statement to how much of it can be seen."""


@cache
def scenarios() -> dict[str, Script]:
    """All of them, by family and name."""
    paths = sorted(SCENARIOS.rglob("*.scenario.jsonl"))
    return {f"{p.parent.name}/{p.name.partition('.')[0]}": script.read(p.read_bytes(), p.name) for p in paths}


def observed(folder: Path = OBSERVED) -> dict[str, Any]:
    """What each kernel did, by series."""
    files = sorted(folder.glob("linux-*.json"), key=lambda p: [int(n) for n in p.stem[6:].split(".")])
    return {p.stem.removeprefix("linux-"): json.loads(p.read_text()) for p in files}


def text() -> str:
    """The page."""
    found, kernels, nested = scenarios(), observed(), observed(OBSERVED / "kvm")
    return "\n".join(
        [
            *_head(found, kernels),
            *_families(found, kernels, nested),
            *_kvm(found, nested),
            *_machines(),
            *_statements(found, kernels),
            *_traces(kernels, nested),
            *_races(),
            *_list(found),
            "",
        ]
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
    yield from _failed(kernels)
    yield ""


def _failed(kernels: dict[str, Any]) -> Iterator[str]:
    for series, run in kernels.items():
        for name, row in run["scenarios"].items():
            for line in row["failed"]:
                yield f"\nLinux {series}, `{name}`: {line}"


def _families(found: dict[str, Script], kernels: dict[str, Any], nested: dict[str, Any]) -> Iterator[str]:
    yield "## Families"
    yield ""
    real = sum(not s.head.model_only for s in found.values())
    yield f"Passed of played. {len(found) - real} cannot be played on a real guest; the list below says why."
    for series, run in kernels.items():
        if len(run["scenarios"]) < real:
            yield f"On Linux {series} {real - len(run['scenarios'])} were not played in this run."
    yield ""
    runs = [*kernels.values(), *nested.values()]
    yield f"| Family | Model | {' | '.join([*kernels, *(f'{series} on KVM' for series in nested)])} |"
    yield f"|---|---|{'---|' * len(runs)}"
    for family in dict.fromkeys(name.partition("/")[0] for name in found):
        names = [name for name in found if name.startswith(f"{family}/")]
        cells = []
        for run in runs:
            rows = [run["scenarios"][name] for name in names if name in run["scenarios"]]
            cells.append(f"{sum(not row['failed'] for row in rows)} of {len(rows)}")
        yield f"| {family} | {len(names)} | {' | '.join(cells)} |"
    yield ""


def _kvm(found: dict[str, Script], kernels: dict[str, Any]) -> Iterator[str]:
    yield "## Linux on KVM"
    yield ""
    yield (
        f"{sum(not refusal(s) for s in found.values())} of the scenarios can be played on a KVM whose host really loses memory; "
        "[scenarios.md](scenarios.md#linux-on-kvm) says what of the others cannot be. `python -m vmm_ras.lab conformance --kvm` plays them on "
        "our own VMM, on an emulated arm64 host whose own kernel is Debian's too."
    )
    yield ""
    yield "| Kernel | Package | Host's kernel | Date | Scenarios | Boots | Seconds | Disagreements |"
    yield "|---|---|---|---|---|---|---|---|"
    for series, run in kernels.items():
        about, bad = run["about"], sum(bool(row["failed"]) for row in run["scenarios"].values())
        yield (
            f"| {series} | {about['kernel']} | {about['host']} | {about['date']} | {len(run['scenarios'])} | "
            f"{about['boots']} | {about['seconds']} | {bad or 'none'} |"
        )
    yield from _failed(kernels)
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


MACHINES = {
    "random": "KASLR and KPTI on; SDEI is answered where the kernel runs",
    "qemu-10.0": "Debian's QEMU 10.0, the same injector",
    "qemu-11.1": "Debian's QEMU 11.1, the same injector",
}
"""Folder of observations to what is not as in the others."""


def _machines() -> Iterator[str]:
    yield "## Other machines"
    yield ""
    yield (
        "Some of the scenarios on the same kernels with something else: `python -m vmm_ras.lab conformance --random`, and `--qemu`."
    )
    yield ""
    yield "| Machine | Kernel | QEMU | Date | Scenarios | Disagreements |"
    yield "|---|---|---|---|---|---|"
    for name, what in MACHINES.items():
        for series, run in observed(OBSERVED / name).items():
            about, bad = run["about"], sum(bool(row["failed"]) for row in run["scenarios"].values())
            yield (
                f"| {what} | {series} | {about['qemu']} | {about['date']} | {len(run['scenarios'])} | {bad or 'none'} |"
            )
    yield ""


def _traces(kernels: dict[str, Any], nested: dict[str, Any]) -> Iterator[str]:
    yield "## What Linux traces and prints"
    yield ""
    runs = {**kernels, **{f"{series} on KVM": run for series, run in nested.items()}}
    yield (
        "In a scenario that the guest survives, the events `arm_event`, `non_standard_event` and `memory_failure_event` are compared "
        "with our own reading of each block that the guest acknowledged, and with its log: nothing may be missing, and nothing too "
        f"much. That was done in {', '.join(f'{_traced(run)} on {name}' for name, run in runs.items())}; a guest that panics has nobody "
        "who could read its trace. `mc_event` needs an EDAC driver, `aer_event` the PCI device that a record "
        "names, `extlog_mem_event` an x86: these machines have none, so that one of them would be a difference too. At an Oops Linux "
        "stops tracing; what is missing then is not looked for."
    )
    yield ""
    yield (
        "`make printed` tells each kernel random records of every type (memory, ARM, PCIe, generic, firmware reference, CXL, and two "
        "that some or all kernels only dump) and compares the lines that it prints with our reading, byte for byte where it dumps. "
        f"{_printed()} Left out is what kernels are known to read otherwise than the specification: firmware records of revision 1, CXL "
        "agent types that are not valid, DVSECs and error logs that are too short, ARM errors of reserved types and contexts that are "
        "no multiple of 16 bytes (7.2 refuses these), PCIe versions that are no BCD."
    )
    yield ""


def _traced(run: dict[str, Any]) -> str:
    lives = [row for row in run["scenarios"].values() if row["seen"]["alive"]]
    return f"{sum(row.get('traced', False) for row in lives)} of {len(lives)}"


def _printed() -> str:
    path = OBSERVED / "printed.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    said = [
        f"{sum(one['sections'].values())} sections on {one['kernel']}, {one['differences'] or 'no'} differences"
        for one in found.values()
    ]
    return f"The last run: {'; '.join(said)}." if said else "It was not run yet."


def _races() -> Iterator[str]:
    yield "## What no scenario can hold still"
    yield ""
    yield (
        "Two vCPUs take SEAs at once, and each has a record in an SEA source of its own. Linux walks all SEA sources on every SEA, so "
        "that the first vCPU may read the second's record too: both pages are taken out of use, but the second vCPU's SEA then finds "
        "no record, and its process gets BUS_OBJERR instead of BUS_MCEERR_AR. Seen on 6.1.176 in one of two runs; on 6.12.95 and 7.2.12 "
        "both processes got BUS_MCEERR_AR in the one run that there was. It is a race within the kernel, and a hypervisor that "
        "publishes the second record only after the first was acknowledged does not meet it."
    )
    yield ""
    yield (
        "In `sea/el1-then-*` an Oops ends the process whose page was lost, and its memory is free before the record comes. Linux may "
        "give the lost page away once more in between; whoever has it then is killed. Seen once on 6.1.176 and once on 6.12.95, where "
        "that was the first process, so that the kernel panicked. Since then the process has a sleeping child that keeps the page."
    )
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
