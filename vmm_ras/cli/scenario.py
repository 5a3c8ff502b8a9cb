"""`vmm-ras scenario`: play scenario files on the model, or on a real Linux."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cper.words import counted
from vmm_ras.cli.common import OPTIONS, Json, console, print_json, read_bytes, usage

if TYPE_CHECKING:
    from vmm_ras.scenario.play import Result
    from vmm_ras.traces.script import Script

SUFFIX = ".scenario.jsonl"
"""Of the files that a folder is searched for."""

app = typer.Typer(help="Scenario files: what happens to a guest, and what must become of it.", **OPTIONS)


@app.callback()
def group() -> None:
    """Scenario files: what happens to a guest, and what must become of it."""


class Where(str, Enum):
    """Where a scenario can be played."""

    model = "model"
    qemu = "qemu"
    kvm = "kvm"


@app.command("run")
def run(
    files: Annotated[list[Path], typer.Argument(metavar="FILE|DIR...", help=f"Scenarios; a DIR: all its *{SUFFIX}.")],
    on: Annotated[Where, typer.Option(help="model; qemu: Linux in an unmodified QEMU; kvm: on our VMM.")] = Where.model,
    guest: Annotated[str, typer.Option(metavar="PROFILE", help="Guest of the model.")] = "linux",
    kernel: Annotated[str, typer.Option(metavar="SERIES", help="Linux for qemu and kvm: 6.1, 6.12 or 7.2.")] = "6.12",
    evidence: Annotated[
        Path, typer.Option(metavar="DIR", help="qemu, kvm: where a failure leaves logs and blocks.")
    ] = Path("out/scenarios"),
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print what failed only.")] = False,
) -> None:
    """Play scenarios, and say what was expected and is not so.

    Of each that fails the timeline is printed.  On qemu and kvm the model plays each too, as the kernel's profile,
    and both must end alike.  kvm is that of an emulated arm64 host, whose memory is really lost; what cannot be
    played there is left out, and it is said why. Exit codes: 0 all passed, 1 a file cannot be read, 2 usage, 3 the
    host lacks something, 4 an expectation fails.

    Example: vmm-ras scenario run fixtures/scenarios/sea --guest linux-6.1
    """
    from vmm_ras.profiles import PROFILES

    if guest not in PROFILES:
        usage(f"--guest {guest!r}: expected one of {', '.join(PROFILES)}")
    scenarios = [load(path) for path in found(files)]
    if not scenarios:
        usage(f"no *{SUFFIX} in {', '.join(map(str, files))}")
    failed, shown = 0, []
    played = _model(scenarios, guest) if on is Where.model else _real(scenarios, on, kernel, evidence)
    for result in played:
        failed += bool(result.failed)
        shown.append(result.plain())
        if not json_:
            _say(result, quiet)
    if json_:
        print_json({"on": on.value, "scenarios": shown, "failed": failed})
    else:
        print(f"{len(shown) - failed} of {counted(len(shown), 'scenario')} passed")
    if failed:
        raise typer.Exit(4)


def _model(scenarios: list[Script], guest: str) -> Iterator[Result]:
    from vmm_ras.scenario.model_stage import ModelStage
    from vmm_ras.scenario.play import play

    return (play(scenario, ModelStage(guest)) for scenario in scenarios)


def _real(scenarios: list[Script], on: Where, kernel: str, evidence: Path) -> Iterator[Result]:
    from vmm_ras.lab import conformance, scenario_kvm
    from vmm_ras.lab.guest_packages import SERIES, GuestPackages

    if kernel not in SERIES:
        usage(f"--kernel {kernel!r}: expected one of {', '.join(SERIES)}")

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    packages, real = GuestPackages(say=say), []
    for scenario in scenarios:
        refused = scenario_kvm.refusal(scenario) if on is Where.kvm else scenario.head.model_only
        if refused:
            print(f"{scenario.name}: not on {on.value}: {refused}", file=sys.stderr)
        else:
            real.append(scenario)
    if not real:
        return
    rows = (
        scenario_kvm.Nested(packages, kernel, evidence, say).play(real)
        if on is Where.kvm
        else conformance.run(packages.prepare(kernel), real, evidence)
    )
    for row in rows:
        if row.evidence is not None:
            print(f"{row.result.scenario.name}: see {row.evidence}", file=sys.stderr)
        yield row.result


def _say(result: Result, quiet: bool) -> None:
    from rich.text import Text

    out = console()
    if result.failed or not quiet:
        word, style = ("failed", "bold red") if result.failed else ("passed", "green")
        line = Text(f"{word}  ", style=style).append(f"{result.scenario.name}: {result.scenario.head.about}", "")
        out.print(line, soft_wrap=True)
    if result.failed:
        for text in result.failed:
            out.print(Text(f"        {text}", style="red"), soft_wrap=True)
        out.print(Text(result.timeline, style="dim"), soft_wrap=True)


def is_scenario(file: str) -> bool:
    """Whether a file begins as a scenario does, rather than as a trace."""
    from vmm_ras.traces import script

    if file == "-" or not Path(file).is_file():
        return False  # a pipe gives its first line once, to who reads the trace
    try:
        with Path(file).open("rb") as stream:
            return script.recognises(stream.readline(1 << 16))
    except OSError:
        return False  # who reads it says so


def load(path: Path) -> Script:
    """Read a scenario.  Raises InputError."""
    from vmm_ras.traces import script

    return script.read(read_bytes(path), str(path))


def found(files: list[Path]) -> Iterator[Path]:
    """The files, and those in folders, in order."""
    for file in files:
        if file.is_dir():
            yield from sorted(file.rglob(f"*{SUFFIX}"))
        else:
            yield file
