"""``python -m vmm_ras.lab linux-kvm``: a Linux guest on the KVM of an emulated arm64 host that really loses memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vmm_ras.lab.command import lane

DEFAULT = ("6.12", "6.12")
PAIRS = (("6.1", "6.1"), ("6.12", "6.1"), ("6.12", "6.12"), ("7.2", "6.12"), ("7.2", "7.2"))
"""(host, guest) of the whole lane: each kernel as both, and a new host with an older guest."""


def _say(what: str, values: dict[str, Any]) -> None:
    if what == "step":
        typer.echo(f"linux-kvm: {values['at']:6.1f} s: {values['name']}")


def _nothing(what: str, values: dict[str, Any]) -> None:
    pass


def linux_kvm(
    kernel: Annotated[str, typer.Option(metavar="SERIES", help="Of the host: 6.1, 6.12 or 7.2.")] = DEFAULT[0],
    guest_kernel: Annotated[str, typer.Option(metavar="SERIES", help="Of the guest: 6.1, 6.12 or 7.2.")] = DEFAULT[1],
    all_: Annotated[
        bool, typer.Option("--all", help="Every pair of kernels, and every SError that Linux does not survive.")
    ] = False,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write one report per pair here.")] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print every assertion, and the log of a failure.")
    ] = False,
) -> None:
    """A Linux guest under our VMM, on KVM: lost pages, consumed and found, SErrors, a reset; all asserted.

    Example: python -m vmm_ras.lab linux-kvm --kernel 7.2 --guest-kernel 6.1 --verbose
    """
    from vmm_ras.lab import linux_kvm as scenario
    from vmm_ras.lab.host_packages import HostPackages

    start = time.monotonic()
    with lane("linux-kvm", verbose=verbose):
        packages = HostPackages(say=lambda line: typer.echo(f"linux-kvm: {line}"))
        pairs = [scenario.prepare(packages, *pair) for pair in (PAIRS if all_ else ((kernel, guest_kernel),))]
        ready = time.monotonic()
        for pair in pairs:
            done = scenario.run(pair, all_serrors=all_, said=_say if verbose else _nothing)
            if verbose:
                typer.echo(done.text())
            if report is not None:
                done.write(report / f"linux-kvm-{pair.name}.md")
            names = f"Linux {pair.guest.kernel.version} on {pair.host.kernel.version}"
            typer.echo(f"linux-kvm: {names}: {len(done.rows)} assertions held, {done.facts['Wall-clock time']}")
        typer.echo(f"linux-kvm: passed in {time.monotonic() - ready:.1f} s (packages: {ready - start:.1f} s)")
