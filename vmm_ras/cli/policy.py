"""`vmm-ras policy`: firmware-first policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmm_ras.cli.common import OPTIONS, Json, print_json, read_text

app = typer.Typer(help="Firmware-first policies.", **OPTIONS)


@app.command("show")
def show(
    file: Annotated[Path | None, typer.Argument(help="A policy; without one, the default.")] = None, json_: Json = False
) -> None:
    """Show a policy; without a file the default one, as TOML that can be edited.

    Example: vmm-ras policy show > mine.toml
    """
    from vmm_ras.default_policy import TEXT
    from vmm_ras.policy import load_policy

    text = TEXT if file is None else read_text(file)
    rules = load_policy(text, "default policy" if file is None else str(file))
    if json_:
        print_json(rules.model_dump(mode="json"))
    else:
        print(text, end="" if text.endswith("\n") else "\n")


@app.command("check")
def check(file: Annotated[Path, typer.Argument(help="A policy.")], json_: Json = False) -> None:
    """Check a policy: that it can be read, decides everything, and that every rule can be reached.

    Example: vmm-ras policy check mine.toml
    """
    from vmm_ras.delivery import check_syndrome
    from vmm_ras.errors import InputError
    from vmm_ras.policy import load_policy

    rules = load_policy(read_text(file), str(file))
    for index, rule in enumerate(rules.rule):
        try:
            check_syndrome(rule)
        except InputError as error:
            raise InputError(f"{file}: rule {index + 1} {rule.name!r}: sea: {error}") from None
    findings = rules.findings()
    if json_:
        print_json({"file": str(file), "rules": len(rules.rule), "findings": findings})
    else:
        for finding in findings:
            print(f"{file}: {finding}")
        print(f"{file}: {len(rules.rule)} rules, {len(findings)} findings")
    if findings:
        raise typer.Exit(1)
