"""``python -m vmm_ras.lab compat``.  Exit codes: 0 as predicted, 1 not, 2 usage, 3 the host lacks something."""

from __future__ import annotations

import sys
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
    from vmm_ras.errors import RasError
    from vmm_ras.lab.compat import run
    from vmm_ras.lab.errors import LabError, Unavailable
    from vmm_ras.lab.host import Host
    from vmm_ras.lab.host_packages import HOST_SUITES, HostPackages
    from vmm_ras.lab.qemu import end_on_signals

    end_on_signals()
    code = 0

    def say(line: str) -> None:
        typer.echo(f"compat: {line}")

    try:
        packages = HostPackages(say=say)
        hosts = {series: Host(packages.prepare_host(series)) for series in kernel or HOST_SUITES}
        done = run(hosts, say)
        if verbose:
            typer.echo(done.text())
        if report is not None:
            done.write(report)
        say(f"{len(done.rows)} assertions held, {done.seconds:.1f} s")
    except RasError as error:
        code = 3 if isinstance(error, Unavailable) else 1
        typer.echo(f"compat: {'not possible here' if code != 1 else 'FAILED'}: {error}", err=True)
        if isinstance(error, LabError) and error.detail:
            typer.echo(error.detail, err=True)
    except OSError as error:
        code = 3
        typer.echo(f"compat: not possible here: {error}", err=True)
    except KeyboardInterrupt:
        code = 130
        typer.echo("compat: interrupted", err=True)
    sys.exit(code)
