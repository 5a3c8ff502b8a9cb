"""The command line.  Exit codes: 0 done, 1 bad data, 2 usage, 3 the host lacks something, 4 a ``--fail-on`` holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vmm_ras.cli.common import OPTIONS

COMMANDS = {
    "replay": "Replay a memory-failure trace into a model guest.",
    "compare": "Compare policies and guests over one trace.",
    "policy": "Firmware-first policies: show, check, explain.",
    "scenario": "Play scenario files on the model, or on Linux in QEMU.",
    "trace": "Convert, count and make traces.",
    "hest": "Build and show HESTs.",
    "acpi": "Build, show, check and find ACPI tables about errors.",
    "cper": "Show, decode, encode and compare CPER.",
    "run": "Boot an arm64 Linux on this host's KVM.",
    "serve": "Serve VMs with model guests on a QMP socket.",
    "inject": "Tell a VM of errors, over such a socket.",
    "attach": "Tell the guest of a running QEMU an error.",
    "doctor": "Say what this host can do, and what it lacks.",
    "lab": "Lose a page of a real guest, and watch its way.",
    "snapshot": "All that a guest is owed, in a file.",
    "host": "Describe what this host's KVM offers.",
    "compat": "Which registers stop a move, and what helps.",
    "qemu-migration": "Show the RAS state in QEMU's migration streams.",
}
"""What the list of commands says of each.  It lies in the module of its name, as ``app`` or as a function, and is
loaded when it is used: to make all of them takes ten times as long as to make one."""


HOST = 3
"""Exit code where the host lacks something, or is at fault."""


@cache
def _made(name: str) -> Any:
    word = name.replace("-", "_")
    module = import_module(f"vmm_ras.cli.{word}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(**OPTIONS)
        group.command()(getattr(module, word))
    command = typer.main.get_command(group)
    command.name = name
    return command


class _Lazy(Mapping[str, Any]):
    """The commands by name, each made when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(TyperGroup):
    """The group of all commands, whose list loads none."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Lazy()  # type: ignore[assignment]  # nobody adds to it

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in order."""
        return list(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; that nobody reads all of it (``| head``) is no fault."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise typer.Exit from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in the help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_Commands,
    help="Firmware-first memory errors for virtual machines: replay SIGBUS traces, build and read ACPI and CPER.",
    epilog="Exit codes: 0 done, 1 bad data, 2 usage, 3 the host lacks something, 4 a --fail-on condition holds.",
    **OPTIONS,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"vmm-ras {version('vmm-ras')}")
        raise typer.Exit


@app.callback()
def _commands(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, and stop.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them is a tenth of the start-up
    code: Any = 0
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal cannot show is no fault; odd bytes of names are kept
        unicode = sys.stdout.encoding.lower().startswith("utf")
        sys.stdout.reconfigure(errors="surrogateescape" if unicode else "replace")
    try:
        app()
    except SystemExit as end:
        code = end.code
    except Exception as error:  # _report raises again what is no user's error
        code = _report(error)
    try:
        print(end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try, and complain, once more
        if not isinstance(error, BrokenPipeError) and code != HOST:  # else it was said
            code = _report(error)
    sys.exit(code)


def _report(error: Exception) -> int:
    """One line for an error that input or host can cause; its exit code."""
    from cper.wire import WireError
    from vmm_ras.errors import HostError, RasError, printable

    if isinstance(error, OSError):
        print(f"vmm-ras: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return HOST
    if not isinstance(error, RasError | WireError | ValueError):
        raise error
    note = "".join(f" ({n})" for n in getattr(error, "__notes__", ()))
    print(printable(f"vmm-ras: {error}{note}", 2000), file=sys.stderr)
    return HOST if isinstance(error, HostError) else 1
