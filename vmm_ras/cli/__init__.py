"""The command line.  Exit codes: 0 done, 1 bad data, 2 usage, 3 the host lacks something, 4 a ``--fail-on`` holds."""

from __future__ import annotations

import os
import sys

import typer

from vmm_ras.cli import acpi, compat, cper, hest, host, lab, policy, qemu_migration, scenario, snapshot, trace
from vmm_ras.cli.attach import attach
from vmm_ras.cli.common import OPTIONS
from vmm_ras.cli.compare import compare
from vmm_ras.cli.doctor import doctor
from vmm_ras.cli.inject import inject
from vmm_ras.cli.replay import replay
from vmm_ras.cli.run import run
from vmm_ras.cli.serve import serve

app = typer.Typer(
    help="Firmware-first memory errors for virtual machines: replay SIGBUS traces, build and read ACPI and CPER.",
    epilog="Exit codes: 0 done, 1 bad data, 2 usage, 3 the host lacks something, 4 a --fail-on condition holds.",
    **OPTIONS,
)
app.command()(attach)
app.command()(replay)
app.command()(run)
app.command()(compare)
app.command()(serve)
app.command()(inject)
app.command()(doctor)
app.add_typer(acpi.app, name="acpi")
app.add_typer(compat.app, name="compat")
app.add_typer(cper.app, name="cper")
app.add_typer(hest.app, name="hest")
app.add_typer(host.app, name="host")
app.add_typer(lab.app, name="lab")
app.add_typer(policy.app, name="policy")
app.add_typer(qemu_migration.app, name="qemu-migration")
app.add_typer(scenario.app, name="scenario")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(trace.app, name="trace")


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them is a tenth of the start-up
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # _report raises again what is no user's error
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """One line for an error that input or host can cause; its exit code."""
    from cper.wire import WireError
    from vmm_ras.errors import HostError, RasError

    if isinstance(error, OSError):
        print(f"vmm-ras: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 3
    if not isinstance(error, RasError | WireError | ValueError):
        raise error
    note = "".join(f" ({n})" for n in getattr(error, "__notes__", ()))
    print(f"vmm-ras: {error}{note}".replace("\n", " "), file=sys.stderr)
    return 3 if isinstance(error, HostError) else 1
