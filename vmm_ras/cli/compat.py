"""`vmm-ras compat`: whether a guest of one host can go on at another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmm_ras.cli.common import OPTIONS, Json, console, print_json, print_table, read_bytes, usage

if TYPE_CHECKING:
    from vmm_ras.compat.check import Check
    from vmm_ras.compat.host import Description
    from vmm_ras.compat.plan import Plan

app = typer.Typer(help="Moves between hosts that differ: which registers stop them, and what helps.", **OPTIONS)
Pool = Annotated[bool, typer.Option("--pool", help="The guest was told of all these CPUs at its boot (see `errata`).")]
FAIL_ON = ("impossible", "left-out")


@app.command("check")
def check(
    source: Annotated[Path, typer.Argument(help="Description of the host that the guest is on; or a QEMU stream.")],
    destination: Annotated[Path, typer.Argument(help="Description of the host that it shall go to.")],
    pool: Pool = False,
    every: Annotated[bool, typer.Option("--all", help="Show registers that are the same, too.")] = False,
    fail_on: Annotated[
        str | None, typer.Option(metavar="VERDICT", help="Exit with 4 for: impossible, left-out (or worse).")
    ] = None,
    json_: Json = False,
) -> None:
    """Judge every register that the source sends.

    It is the same, accepted as zero, settable, to be left out, or impossible.

    Example: vmm-ras compat check node-6.12.json node-7.2.json
    """
    from vmm_ras.compat.check import Verdict
    from vmm_ras.compat.check import check as judge

    if fail_on is not None and fail_on not in FAIL_ON:
        usage(f"--fail-on {fail_on!r}: expected one of {', '.join(FAIL_ON)}")
    there = _description(destination)
    found = judge(_sent(source), there, pool=pool)
    if json_:
        print_json(
            {"possible": found.possible, "counts": found.counts(), "registers": [row.plain() for row in found.rows],
             "only_destination": [f"{reg:#018x}" for reg in found.only_there]}
        )  # fmt: skip
    else:
        _render(found, every)
    bad = {Verdict.IMPOSSIBLE} | ({Verdict.LEAVE_OUT} if fail_on == "left-out" else set())
    if fail_on is not None and any(row.verdict in bad for row in found.rows):
        raise typer.Exit(4)


@app.command("plan")
def plan(
    hosts: Annotated[list[Path], typer.Argument(help="Descriptions; the guest begins at the first.")],
    pool: Pool = False,
    json_: Json = False,
) -> None:
    """Find the register set that all these hosts take.

    That is what the first must give the guest, and what must not be sent.  Exit code 1 where there is none.

    Example: vmm-ras compat plan node-7.2.json node-6.12.json node-6.1.json
    """
    from vmm_ras.compat.plan import plan as find

    given = [_description(file) for file in hosts]
    found = find(given, pool=pool)
    if json_:
        print_json(
            {"possible": not found.problems, "set": [setting.plain() for setting in found.settings],
             "left_out": {f"{reg:#018x}": [str(hosts[i]) for i in places] for reg, places in found.left_out.items()},
             "values": {f"{reg:#018x}": f"{value:#x}" for reg, value in found.values.items()},
             "problems": list(found.problems)}
        )  # fmt: skip
    else:
        _render_plan(found, hosts)
    if found.problems:
        raise typer.Exit(1)


@app.command("pool")
def pool(
    hosts: Annotated[list[Path], typer.Argument(help="Descriptions of all hosts that the guest may run on.")],
    json_: Json = False,
) -> None:
    """Make the list of CPUs that a guest is told of at its boot.

    It decides which CPU the guest is shown, and which errata it works around.  Exit code 1 where a host cannot show
    the CPU that was chosen.

    Example: vmm-ras compat pool node-a.json node-b.json
    """
    from vmm_ras.compat import registers
    from vmm_ras.compat.accept import refusal
    from vmm_ras.errata import Cpu, Pool
    from vmm_ras.errata_data import CONDITIONS

    given = {str(file): _description(file) for file in hosts}
    found = Pool.of([Cpu(*(host.registers.get(reg, 0) for reg in registers.IMPLEMENTATION)) for host in given.values()])
    chosen = dict(zip(registers.IMPLEMENTATION, found.chosen, strict=True))
    problems = [
        f"{file}: {registers.name(reg)} {value:#x}: {refused.why}"
        for file, host in given.items()
        for reg, value in chosen.items()
        if (refused := refusal(host, reg, value)) is not None
    ]
    errata = {name: [cpu.name for cpu in because] for name, because in found.errata().items()}
    if json_:
        print_json(
            {
                "pool": found.plain(),
                "names": [cpu.name for cpu in found.cpus],
                "errata": errata,
                "conditions": {name: text for name, text in CONDITIONS.items() if name in errata},
                "hazards": found.hazards(),
                "seen": [seen._asdict() for seen in found.seen()],
                "problems": problems,
            }
        )
    else:
        for cpu in found.cpus:
            mark = "  (the guest is shown this one)" if cpu == found.chosen else ""
            print(f"{cpu.name}: MIDR_EL1 {cpu.midr:#x}, REVIDR_EL1 {cpu.revidr:#x}, AIDR_EL1 {cpu.aidr:#x}{mark}")
        for name, because in errata.items():
            print(
                f"works around {name}{f', if {CONDITIONS[name]}' if name in CONDITIONS else ''}: {', '.join(because)}"
            )
        for hazard in found.hazards():
            print(f"mind {hazard}")
        for seen in found.seen():
            print(f"programs see in {seen.where}: {seen.what}")
        for problem in problems:
            print(f"impossible: {problem}")
    if problems:
        raise typer.Exit(1)


def _description(file: Path) -> Description:
    from vmm_ras.compat.host import Description
    from vmm_ras.errors import InputError

    try:
        return Description.parse(read_bytes(file))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(file)) else f"{file}: {error}") from None


def _sent(file: Path) -> dict[int, int]:
    """What a host, or the first vCPU in a QEMU stream, has."""
    from vmm_ras.qemu_migration.stream import MAGIC

    try:
        with file.open("rb") as stream:
            is_stream = stream.read(4) == MAGIC
    except OSError:
        is_stream = False
    if not is_stream:
        return _description(file).registers
    from vmm_ras.cli.qemu_migration import registers_of

    return registers_of(file)


def _render(found: Check, every: bool) -> None:
    from rich.table import Table

    from vmm_ras.compat import registers
    from vmm_ras.compat.check import Verdict

    quiet = set() if every else {Verdict.SAME, Verdict.ZERO}
    colour = {Verdict.IMPOSSIBLE: "red", Verdict.LEAVE_OUT: "yellow", Verdict.SETTABLE: "green"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("Register", "Source", "Destination", "Verdict", "Why"):
        table.add_column(head, no_wrap=head == "Register")
    for row in found.rows:
        if row.verdict not in quiet:
            there = "-" if row.destination is None else f"{row.destination:#x}"
            table.add_row(
                registers.name(row.register), f"{row.source:#x}", there, row.verdict.value, row.why,
                style=colour.get(row.verdict, ""),
            )  # fmt: skip
    out = console()
    if table.row_count:
        print_table(table)
        out.print()
    counts = ", ".join(f"{count} {name}" for name, count in found.counts().items() if count)
    out.print(f"{'possible' if found.possible else 'impossible'}: {counts}")


def _render_plan(found: Plan, hosts: list[Path]) -> None:
    from vmm_ras.compat import registers

    for setting in found.settings:
        print(f"set {registers.name(setting.register)} to {setting.value:#x} ({setting.why})")
    for reg, places in found.left_out.items():
        print(f"leave out {registers.name(reg)} for {', '.join(str(hosts[i]) for i in places)}")
    for problem in found.problems:
        print(f"impossible: {problem}")
    if not found.problems:
        print(f"possible: {len(found.settings)} to be set, {len(found.left_out)} to be left out somewhere")
