"""Registers between real kernels: what is predicted of KVM_SET_ONE_REG, tried on each; and the plan, carried out.

Twice each kernel boots as an emulated arm64 host: it describes itself, then it is given the registers of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from vmm_ras.compat import registers
from vmm_ras.compat.accept import refusal
from vmm_ras.compat.host import Description
from vmm_ras.compat.plan import plan
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host import Host, Run
from vmm_ras.lab.report import Report

SECONDS = 300.0
_TRY = "python3 -m vmm_ras.lab.set_registers"


def run(hosts: Mapping[str, Host], say: Callable[[str], object] = lambda line: None) -> Report:
    """All of it, for hosts by the kernel's series, oldest first.  Raises Failure, Unavailable."""
    report = Report(
        "Registers between hosts", {f"Linux {name}": host.lab.kernel.version for name, host in hosts.items()}
    )
    described: dict[str, Description] = {}
    for name, host in hosts.items():
        with report.step(f"Linux {name} describes itself"):
            done = host.run({}, "python3 -m vmm_ras.cli host describe\n", seconds=SECONDS)
            _ended(report, host, done)
            described[name] = Description.parse(done.text().encode())
            report.check(True, "the description is read", f"{len(described[name].registers)} registers")
        say(f"Linux {name}: described, {report.times[-1][1]:.1f} s")
    newest_first = list(reversed(described.values()))
    found = plan(newest_first)
    for name, host in hosts.items():
        place = newest_first.index(described[name])
        planned = {reg: value for reg, value in found.values.items() if place not in found.left_out.get(reg, ())}
        with report.step(f"Linux {name} is given what others have"):
            _tried(report, host, described, name, planned, bool(found.problems))
        say(f"Linux {name}: tried, {report.times[-1][1]:.1f} s")
    return report


def _tried(
    report: Report,
    host: Host,
    described: Mapping[str, Description],
    name: str,
    planned: dict[int, int],
    impossible: bool,
) -> None:
    there = described[name]
    sets = {f"{other}.json": values.registers for other, values in described.items()} | {"plan.json": planned}
    files = {
        file: json.dumps(Description(kernel="set", registers=values).plain()).encode() for file, values in sets.items()
    }  # fmt: skip
    done = host.run(files, f"{_TRY} {' '.join(files)}\n", seconds=SECONDS)
    _ended(report, host, done)
    results = dict(_lines(done.lines, "MOVE "))
    report.equal(sorted(results), sorted(files), "every set was tried")
    for file, values in sets.items():
        wrong, refused = _compare(there, values, results[file])
        report.check(not wrong, f"each call of {file} ends as predicted", f"{len(values)} calls, {refused} refused",
                     "\n".join(wrong))  # fmt: skip
    if not impossible:
        said = {reg: error for reg, error in results["plan.json"].items() if error}
        report.equal(said, {}, "the planned set is taken whole", f"{len(planned)} registers")


def _compare(there: Description, values: Mapping[int, int], said: Mapping[str, str]) -> tuple[list[str], int]:
    """Registers of which the real call ended in another way than predicted; how many were refused."""
    wrong, refused = [], 0
    for reg, value in values.items():
        expected = refusal(there, reg, value)
        found = said[hex(reg)]
        refused += bool(found)
        if found != (expected.errno if expected else ""):
            wrong.append(f"{registers.name(reg)} {value:#x}: {found or 'taken'}, predicted {expected}")
    return wrong, refused


def _lines(lines: Sequence[str], mark: str) -> list[tuple[str, dict[str, str]]]:
    found = [json.loads(line.removeprefix(mark)) for line in lines if line.startswith(mark)]
    return [(entry["file"], entry["result"]) for entry in found]


def _ended(report: Report, host: Host, done: Run) -> None:
    if done.code:
        raise Failure(f"the program on the host ends with {done.code}; {host.keep(done)}", done.text()[-3000:])
    report.check(True, "the program on the host ends well", done.release)
