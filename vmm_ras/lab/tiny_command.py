"""``python -m vmm_ras.lab tiny``: a guest of some hundred bytes on the KVM of an emulated arm64 host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vmm_ras.lab.command import lane


def tiny(
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="SERIES", help="6.1, 6.12 or 7.2; repeatable.  Default: all.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only the scenario of this name; repeatable.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write one report per kernel here.")] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print every assertion, and the log of a failure.")
    ] = False,
) -> None:
    """Real KVM, real lost memory: accesses, syndromes, SErrors, many errors, lost tables, resets; all asserted.

    Example: python -m vmm_ras.lab tiny --kernel 6.12 --verbose
    """
    from vmm_ras.lab import tiny as scenario
    from vmm_ras.lab.host_packages import HOST_SUITES, HostPackages
    from vmm_ras.lab.tiny_matrix import SCENARIOS

    names = [name for name, _ in SCENARIOS]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}: expected one of {', '.join(names)}")
    start = time.monotonic()
    with lane("tiny", verbose=verbose):
        packages = HostPackages(say=lambda line: typer.echo(f"tiny: {line}"))
        labs = [packages.prepare_host(series) for series in kernel or HOST_SUITES]
        ready = time.monotonic()
        for lab in labs:
            done = scenario.run(lab, only or (), lambda line: typer.echo(f"tiny: {line}") if verbose else None)
            if verbose:
                typer.echo(done.text())
            if report is not None:
                done.write(report / f"tiny-{lab.kernel.series}.md")
            typer.echo(
                f"tiny: Linux {lab.kernel.version}: {len(done.rows)} assertions held, {done.facts['Wall-clock time']}"
            )
        typer.echo(f"tiny: passed in {time.monotonic() - ready:.1f} s (packages: {ready - start:.1f} s)")
