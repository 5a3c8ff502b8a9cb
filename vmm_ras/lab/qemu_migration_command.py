"""``python -m vmm_ras.lab qemu-migration``.  Exit codes: 0 read as made, 1 not, 2 usage, 3 the host lacks something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def qemu_migration(
    qemu: Annotated[
        list[str] | None, typer.Option(metavar="SERIES", help="7.2, 10.0 or 11.1; repeatable.  Default: all.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the files here.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write one report per QEMU here.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print every assertion.")] = False,
) -> None:
    """Let QEMU migrate into files, with and without ras=on, with an un-acked error; read them."""
    from vmm_ras.lab.command import lane
    from vmm_ras.lab.newer_qemu import OWN, SUITES, QemuPackages
    from vmm_ras.lab.qemu_migration import run

    with lane("qemu-migration", verbose=True):
        packages = QemuPackages(say=lambda line: typer.echo(f"qemu-migration: {line}"))
        for series in qemu or (OWN, *SUITES):

            def kept(kind: str, data: bytes, series: str = series) -> None:
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"virt-{series}-{kind}.mig").write_bytes(data)

            done = run(packages.prepare_qemu(series), series, kept)
            if verbose:
                typer.echo(done.text())
            if report is not None:
                done.write(report / f"qemu-migration-{series}.md")
            typer.echo(f"qemu-migration: {done.facts['QEMU']}: {len(done.rows)} assertions held, {done.seconds:.1f} s")
