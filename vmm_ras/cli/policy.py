"""`vmm-ras policy`: firmware-first policies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cper.words import counted
from vmm_ras.cli.common import OPTIONS, Json, console, print_json, read_text
from vmm_ras.cli.machine import (
    Guest,
    HookFile,
    Map,
    Pages,
    PageSize,
    PolicyFile,
    Preset,
    PresetName,
    Sdei,
    Trace,
    Vcpus,
    machine,
)

app = typer.Typer(help="Firmware-first policies.", **OPTIONS)


@app.command("show")
def show(
    file: Annotated[Path | None, typer.Argument(help="A policy; without one, the default.")] = None, json_: Json = False
) -> None:
    """Show a policy, or the default one, as TOML that can be edited.

    Example: vmm-ras policy show > mine.toml
    """
    from vmm_ras.default_policy import TEXT
    from vmm_ras.policy import load_policy

    text = TEXT if file is None else read_text(file)
    rules = load_policy(text, "default policy" if file is None else str(file))
    if json_:
        print_json(rules.model_dump(mode="json"))
    else:
        sys.stdout.buffer.write(text.encode() + (b"" if text.endswith("\n") else b"\n"))  # TOML is UTF-8


@app.command("check")
def check(file: Annotated[Path, typer.Argument(help="A policy.")], json_: Json = False) -> None:
    """Check a policy for mistakes, and for rules that never decide.

    It must be readable and decide everything; rules that are unreachable or contradict themselves are findings.
    Overlaps are told and are no fault: the order decides.

    Example: vmm-ras policy check mine.toml
    """
    from vmm_ras.deciding import digest
    from vmm_ras.delivery import check_syndrome
    from vmm_ras.errors import InputError
    from vmm_ras.policy import load_policy

    rules = load_policy(read_text(file), str(file))
    for index, rule in enumerate(rules.rule):
        try:
            check_syndrome(rule)
        except InputError as error:
            raise InputError(f"{file}: rule {index + 1} {rule.name!r}: sea: {error}") from None
    findings, overlaps = rules.findings(), rules.overlaps()
    if json_:
        known = {"file": str(file), "digest": digest(rules), "rules": len(rules.rule)}
        print_json(known | {"findings": findings, "overlaps": overlaps})
    else:
        for finding in findings:
            print(f"{file}: {finding}")
        for overlap in overlaps:
            print(f"{file}: note: {overlap}")
        counts = f"{counted(len(rules.rule), 'rule')}, {counted(len(findings), 'finding')}"
        print(f"{file}: {counts}, digest {digest(rules)[:16]}")
    if findings:
        raise typer.Exit(1)


@app.command("explain")
def explain(
    trace: Trace,
    policy_file: PolicyFile = None,
    hook_file: HookFile = None,
    guest: Guest = "linux",
    map_: Map = None,
    preset: Preset = PresetName.default,
    vcpus: Vcpus = 8,
    page_size: Pages = PageSize.k4,
    sdei: Sdei = True,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
    json_: Json = False,
) -> None:
    """Say for each event of a trace which rules were tried.

    Of those that do not decide it is said what did not hold.  The trace is replayed into the model guest, so that
    the rules see what they would see then: exception levels, what the guest has registered, what came before.

    Example: vmm-ras policy explain qemu.strace --policy mine.toml
    """
    from vmm_ras.cli import timeline
    from vmm_ras.cli.replay import each
    from vmm_ras.explain import explain as explained
    from vmm_ras.traces import open_trace

    run = machine(policy_file, hook_file, guest, map_, preset, vcpus, page_size, sdei, trace=trace)
    out = None if json_ else console()

    def say() -> None:
        for notice in run.notices:
            print(notice, file=sys.stderr)
        run.notices.clear()

    with open_trace(trace, strict=strict) as entries:
        for row, decisions in explained(run, each(entries, run.notices, say)):
            say()
            if out is None:
                import orjson

                plain = {"seq": row.seq, "line": row.line, "code": row.code, "gpa": row.gpa, "lsb": row.lsb}
                plain |= {"outcome": row.outcome, "decisions": [d.plain() for d in decisions]}
                sys.stdout.buffer.write(orjson.dumps(plain) + b"\n")
                continue
            out.print(timeline.line(row), soft_wrap=True)
            for decision in decisions:
                for name, reason in decision.tried:
                    text = f"    {decision.code}  {name:24} {reason or 'holds'}"
                    out.print(text, style="dim" if reason else "bold", soft_wrap=True)
                if not decision.tried:
                    out.print(f"    {decision.code}  {decision.rule:24} named by the hook", style="bold")
    say()
