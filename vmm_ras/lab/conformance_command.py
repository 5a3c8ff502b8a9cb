"""``python -m vmm_ras.lab conformance``.  Exit codes: 0 all ended alike, 1 not, 2 usage, 3 the host lacks something."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def conformance(
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="SERIES", help="6.1, 6.12 or 7.2; repeatable.  Default: all.")
    ] = None,
    scenarios: Annotated[Path, typer.Option(metavar="FILE|DIR", help="Scenario files.")] = Path("fixtures/scenarios"),
    only: Annotated[str, typer.Option(metavar="REGEX", help="Of their names: those that hold this.")] = "",
    observed: Annotated[Path | None, typer.Option(metavar="DIR", help="Write what each kernel did here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what passed by --observed already.")] = False,
    qemu: Annotated[str, typer.Option(metavar="SERIES", help="7.2, 10.0 or 11.1.  Default: the host's own.")] = "",
    random: Annotated[bool, typer.Option("--random", help="With KASLR and KPTI.")] = False,
    kvm: Annotated[bool, typer.Option("--kvm", help="On our VMM on the KVM of an emulated host.")] = False,
    evidence: Annotated[Path, typer.Option(metavar="DIR", help="Where a failure leaves its logs and blocks.")] = Path(
        "out/conformance"
    ),
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print every scenario.")] = False,
) -> None:
    """Play scenario files on Debian's kernels and on the model, and demand that both end alike."""
    from vmm_ras.errors import RasError
    from vmm_ras.lab import scenario_kvm
    from vmm_ras.lab.conformance import series_of
    from vmm_ras.lab.errors import LabError, Unavailable
    from vmm_ras.lab.guest_packages import SERIES, GuestPackages
    from vmm_ras.lab.newer_qemu import QemuPackages
    from vmm_ras.lab.qemu import end_on_signals

    def say(line: str) -> None:
        typer.echo(f"conformance: {line}")

    end_on_signals()
    if kvm and (qemu or random):
        raise typer.BadParameter("the emulated host's QEMU is the one that is here, and its guest's kernel not random")
    code = 0
    try:
        packages = GuestPackages(say=say)
        for series in kernel or SERIES:
            if kvm:
                nested = scenario_kvm.Nested(packages, series, evidence, say if verbose else lambda line: None)
                if not scenario_kvm.series_of(nested, scenarios, only, observed, verbose, typer.echo, resume=resume):
                    code = 1
                continue
            lab = packages.prepare(series)
            if qemu:
                lab = QemuPackages(say=say).prepare_qemu(qemu).of(lab)
            if not series_of(
                lab, scenarios, only, observed, evidence, verbose, typer.echo, resume=resume, random=random
            ):
                code = 1
    except RasError as error:
        code = 3 if isinstance(error, Unavailable) else 1
        typer.echo(f"conformance: {'not possible here' if code != 1 else 'FAILED'}: {error}", err=True)
        if verbose and isinstance(error, LabError):
            typer.echo(error.detail, err=True)
    except OSError as error:
        code = 3
        typer.echo(f"conformance: not possible here: {error}", err=True)
    except KeyboardInterrupt:
        code = 130
        typer.echo("conformance: interrupted", err=True)
    sys.exit(code)


def attached(
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="SERIES", help="6.1, 6.12 or 7.2; repeatable.  Default: 6.12.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write one report per kernel here.")] = None,
) -> None:
    """Attach to a QEMU with named sockets, KASLR and KPTI on, and tell its guest errors."""
    from vmm_ras.lab import attached as scenario
    from vmm_ras.lab.errors import LabError, Unavailable
    from vmm_ras.lab.guest_packages import GuestPackages
    from vmm_ras.lab.qemu import end_on_signals

    end_on_signals()
    code = 0
    try:
        packages = GuestPackages(say=lambda line: typer.echo(f"attached: {line}"))
        for series in kernel or ["6.12"]:
            lab = packages.prepare(series)
            done = scenario.run(lab)
            if report is not None:
                done.write(report / f"attached-linux-{series}.md")
            typer.echo(f"attached: Linux {lab.kernel.version}: {len(done.rows)} assertions held, {done.seconds:.1f} s")
    except LabError as error:
        code = 3 if isinstance(error, Unavailable) else 1
        typer.echo(f"attached: {'not possible here' if code != 1 else 'FAILED'}: {error}", err=True)
    except KeyboardInterrupt:
        code = 130
        typer.echo("attached: interrupted", err=True)
    sys.exit(code)
