"""``python -m vmm_ras.lab``.  Exit codes: 0 passed, 1 an assertion failed, 2 usage, 3 the host lacks something."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from vmm_ras.lab.compat_command import compat
from vmm_ras.lab.conformance_command import attached, conformance
from vmm_ras.lab.errata_command import errata
from vmm_ras.lab.linux_kvm_command import linux_kvm
from vmm_ras.lab.moves_command import moves
from vmm_ras.lab.qemu_migration_command import qemu_migration
from vmm_ras.lab.tiny_command import tiny

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Real Linux guests under QEMU's emulation.  Exit codes: 0 passed, 1 failed, 3 the host lacks something.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback()
def main() -> None:
    """Real Linux guests under QEMU's emulation."""


@app.command()
def smoke(
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="SERIES", help="6.1 or 6.12; repeatable.  Default: both.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write one report per kernel here.")] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print every assertion, and the log of a failure.")
    ] = False,
) -> None:
    """Boot Debian's kernels with our tables; tell them errors; compare with the model guest; crash; boot again."""
    from vmm_ras.lab import smoke as scenario
    from vmm_ras.lab.errors import LabError, Unavailable
    from vmm_ras.lab.packages import SUITES, Packages
    from vmm_ras.lab.qemu import end_on_signals

    end_on_signals()
    start, code = time.monotonic(), 0
    try:
        packages = Packages(say=lambda line: typer.echo(f"smoke: {line}"))
        labs = [packages.prepare(series) for series in kernel or SUITES]
        ready = time.monotonic()
        for lab in labs:
            done = scenario.run(lab)
            if verbose:
                typer.echo(done.text())
            if report is not None:
                done.write(report / f"smoke-linux-{lab.kernel.series}.md")
            typer.echo(f"smoke: Linux {lab.kernel.version}: {len(done.rows)} assertions held, {done.seconds:.1f} s")
        typer.echo(f"smoke: passed in {time.monotonic() - ready:.1f} s (packages: {ready - start:.1f} s)")
    except LabError as error:
        code = 3 if isinstance(error, Unavailable) else 1
        typer.echo(f"smoke: {'not possible here' if code != 1 else 'FAILED'}: {error}", err=True)
        if verbose and error.detail:
            typer.echo(error.detail, err=True)
    except OSError as error:
        code = 3
        typer.echo(f"smoke: not possible here: {error}", err=True)
    except KeyboardInterrupt:
        code = 130
        typer.echo("smoke: interrupted", err=True)
    sys.exit(code)


app.command()(conformance)
app.command()(attached)
app.command()(compat)
app.command()(errata)
app.command()(linux_kvm)
app.command()(moves)
app.command()(qemu_migration)
app.command()(tiny)

if __name__ == "__main__":
    app()
