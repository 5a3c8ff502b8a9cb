"""``python -m vmm_ras.lab errata``.  Exit codes: 0 as predicted, 1 not, 2 usage, 3 the host lacks something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def errata(
    guest: Annotated[str, typer.Option(metavar="SERIES", help="The guest's kernel, from 6.15 on.")] = "7.2",
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report here.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print every assertion.")] = False,
) -> None:
    """Tell a Linux guest on KVM of three CPU models; see which errata it works around, and what it is shown."""
    from vmm_ras.lab.command import lane
    from vmm_ras.lab.errata import run
    from vmm_ras.lab.host_packages import HostPackages
    from vmm_ras.lab.linux_kvm import prepare

    with lane("errata", verbose=True):
        done = run(prepare(HostPackages(say=lambda line: typer.echo(f"errata: {line}")), "7.2", guest))
        if verbose:
            typer.echo(done.text())
        if report is not None:
            done.write(report)
        typer.echo(f"errata: {len(done.rows)} assertions held, {done.seconds:.1f} s")
