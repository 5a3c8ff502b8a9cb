"""`vmm-ras host`: what a host's KVM offers to guests that move."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cper.words import counted
from vmm_ras.cli.common import OPTIONS, Json, print_json, write_bytes

app = typer.Typer(help="Hosts: what their KVM offers to a guest that moves.", **OPTIONS)


@app.callback()
def main() -> None:
    """Hosts: what their KVM offers to a guest that moves."""


@app.command("describe")
def describe(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.  [default: stdout]")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="vCPU feature: pmu-v3, sve, ptrauth; repeatable, `none` for none.  [default: all]"),
    ] = None,
    json_: Json = False,
) -> None:
    """Write what this host's KVM offers as JSON (arm64, /dev/kvm).

    That is its register list, ID registers, writable masks, capabilities and CPU.

    Example: vmm-ras host describe -o node7.json
    """
    import platform

    import orjson

    from vmm_ras.cli.common import usage
    from vmm_ras.errors import HostError

    if platform.machine() not in {"aarch64", "arm64"}:
        raise HostError(f"host describe needs an arm64 host with KVM; this one is {platform.machine()}")
    from vmm_ras.io.host import FEATURES
    from vmm_ras.io.host import describe as ask
    from vmm_ras.io.kvm.system import Kvm

    chosen = None if feature is None else frozenset(feature) - {"none"}
    unknown = sorted((chosen or frozenset()) - FEATURES.keys())
    if unknown:
        usage(f"--feature {unknown[0]!r}: expected one of {', '.join(FEATURES)}, none")
    with Kvm() as kvm:
        found = ask(kvm, chosen).plain()
    if output is None:
        print_json(found)
        return
    write_bytes(output, orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    if json_:
        print_json({"file": str(output), "kernel": found["kernel"], "registers": len(found["registers"])})
    else:
        print(f"{output}: Linux {found['kernel']}, {counted(len(found['registers']), 'register')}")
