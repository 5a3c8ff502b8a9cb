"""``python -m vmm_ras.lab compat``.  Exit codes: 0 as predicted, 1 not, 2 usage, 3 the host lacks something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compat(
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="SERIES", help="6.1, 6.12 or 7.2; repeatable.  Default: all.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report here.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print every assertion.")] = False,
) -> None:
    """Describe Debian's kernels as hosts, try each one's registers on all, and compare with what `compat` predicts."""
    from vmm_ras.lab.command import lane
    from vmm_ras.lab.compat import run
    from vmm_ras.lab.host import Host
    from vmm_ras.lab.host_packages import HOST_SUITES, HostPackages

    def say(line: str) -> None:
        typer.echo(f"compat: {line}")

    with lane("compat", verbose=True):
        packages = HostPackages(say=say)
        done = run({series: Host(packages.prepare_host(series)) for series in kernel or HOST_SUITES}, say)
        if verbose:
            typer.echo(done.text())
        if report is not None:
            done.write(report)
        say(f"{len(done.rows)} assertions held, {done.seconds:.1f} s")
