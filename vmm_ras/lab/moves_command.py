"""``python -m vmm_ras.lab moves``: guests that move between emulated hosts with different kernels, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vmm_ras.lab.command import lane


def moves(
    source: Annotated[str, typer.Option("--from", metavar="SERIES", help="6.1, 6.12 or 7.2.")] = "6.12",
    destination: Annotated[str, typer.Option("--to", metavar="SERIES", help="6.1, 6.12 or 7.2.")] = "7.2",
    back: Annotated[bool, typer.Option(help="Others move back to a host with the first kernel.")] = True,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only the scenario of this name; repeatable.")
    ] = None,
    linux: Annotated[
        bool, typer.Option("--linux", help="A Linux guest (6.12) goes, with its interrupt controller; not back.")
    ] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report here.")] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print every assertion, and the log of a failure.")
    ] = False,
) -> None:
    """Masked SErrors, un-acked blocks, running handlers, lost pages and held vCPUs go from one KVM to another's.

    Example: python -m vmm_ras.lab moves --from 6.12 --to 7.2 --verbose
    """
    from vmm_ras.lab import moves as scenario
    from vmm_ras.lab.host_packages import HostPackages
    from vmm_ras.lab.moves_scenarios import SCENARIOS

    names = [s.name for s in SCENARIOS]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}: expected one of {', '.join(names)}")
    start = time.monotonic()
    with lane("moves", verbose=verbose):
        packages = HostPackages(say=lambda line: typer.echo(f"moves: {line}"))
        chain = [source, destination, *([source] if back else [])]
        labs = {series: packages.prepare_host(series) for series in set(chain)}

        def heard(line: str) -> None:
            if verbose:
                typer.echo(f"moves: {line}")

        if linux:
            from vmm_ras.lab import moves_linux
            from vmm_ras.lab.linux_kvm import prepare

            pair = prepare(packages, source, "6.12")
            done = moves_linux.run([labs[source], labs[destination]], pair.guest, pair.root, heard)
        else:
            done = scenario.run([labs[series] for series in chain], only or (), heard)
        done.facts["Wall-clock time"] = f"{time.monotonic() - start:.1f} s"
        if verbose:
            typer.echo(done.text())
        if report is not None:
            done.write(report)
        typer.echo(f"moves: {len(done.rows)} assertions held, {done.facts['Wall-clock time']}")
