"""`vmm-ras run`: a Linux guest on this host's KVM, which is told memory errors as firmware tells them."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from vmm_ras.cli.common import number, read_bytes, usage
from vmm_ras.cli.machine import Guest, HookFile, PolicyFile, SdeiEvents, hook, policy, sdei_events

if TYPE_CHECKING:
    from vmm_ras.compat.host import Description
    from vmm_ras.effects import Effect
    from vmm_ras.events import Event
    from vmm_ras.io.vmm.machine import Ending, VirtualMachine

ARM64 = {"aarch64", "arm64"}


def run(
    kernel: Annotated[Path, typer.Option(metavar="FILE", help="Uncompressed arm64 Image.")],
    initrd: Annotated[Path | None, typer.Option(metavar="FILE", help="First root file system.")] = None,
    append: Annotated[str, typer.Option(metavar="TEXT", help="Kernel command line.")] = "",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="RAM; takes K, M, G.")] = "1G",
    vcpus: Annotated[int, typer.Option(min=1, max=123, help="vCPUs.")] = 1,
    policy_file: PolicyFile = None,
    hook_file: HookFile = None,
    guest: Guest = "linux",
    huge: Annotated[bool, typer.Option("--huge", help="RAM of the host's 2 MiB pages.")] = False,
    sdei_event: SdeiEvents = None,
    reboot: Annotated[bool, typer.Option(help="Boot again when the guest asks for it.")] = True,
    incoming: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Let a guest go on that left as this stream, instead of a boot.")
    ] = None,
    moves_to: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A host (`host describe`) to which the guest is to be able to move; repeatable."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What the VM is called.")] = "guest",
    socket: Annotated[
        Path | None,
        typer.Option("--socket", metavar="PATH", help="QMP socket, for `vmm-ras inject`; see docs/serve.md."),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing of errors on stderr.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON lines: errors, console lines, the end.")] = False,
) -> None:
    """Boot an arm64 Linux on this host's KVM, without UEFI, and tell it the memory errors that the host has.

    The console is this terminal; Ctrl-A x ends the guest.  Exit codes: 0 it powered off, or was ended; 1 it failed.

    Example: vmm-ras run --kernel vmlinuz --initrd initrd.img --append "console=ttyAMA0" --memory 2G --vcpus 4
    """
    import os
    import platform

    from vmm_ras.errors import HostError
    from vmm_ras.profiles import PROFILES

    if platform.machine() not in ARM64:
        raise HostError(f"run needs an arm64 host with KVM; this one is {platform.machine()}")
    if guest not in PROFILES:
        usage(f"--guest {guest!r}: expected one of {', '.join(PROFILES)}")
    from vmm_ras.io.vmm.console import Console, raw_terminal, writer
    from vmm_ras.io.vmm.machine import Configuration, VirtualMachine
    from vmm_ras.sdei_state import EventDescription

    configuration = Configuration(
        kernel, initrd, append, number(memory, "--memory"), vcpus, name, policy(policy_file), hook(hook_file),
        PROFILES[guest], huge=huge, hosts=tuple(_host(file) for file in moves_to or ()),
        sdei_events=tuple(EventDescription(*event) for event in sdei_events(sdei_event)),
    )  # fmt: skip
    journal = _Journal(json_, quiet)
    sys.setswitchinterval(0.0005)  # a vCPU that leaves the guest does not wait for a thread that only computes
    terminal = not json_ and os.isatty(0)
    journal.line_end = "\r\n" if terminal else "\n"
    with ExitStack() as stack:
        console = Console(
            journal.printed if json_ else writer(1), 0, escape=terminal, quit=lambda: machine.stop("by the user")
        )
        machine = stack.enter_context(VirtualMachine(configuration, console, journal.heard))
        journal.machine = machine
        if socket is not None:
            from vmm_ras.io.serve_thread import serving

            stack.enter_context(serving(socket, machine))
        end_on_signals(machine)
        if terminal:
            stack.enter_context(raw_terminal(0))  # last: whatever happens from now on puts it back
        stream = None if incoming is None else stack.enter_context(_opened(incoming)).read
        ending = machine.run(lambda ending: reboot and ending.how == "reset", stream)
    journal.ended(ending)
    if ending.how in {"failed", "crashed"}:
        raise typer.Exit(1)


def _host(file: Path) -> Description:
    from vmm_ras.compat.host import Description
    from vmm_ras.errors import InputError

    try:
        return Description.parse(read_bytes(file))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _opened(file: Path) -> BinaryIO:
    from vmm_ras.errors import InputError

    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def end_on_signals(machine: VirtualMachine) -> None:
    """SIGTERM, SIGHUP, SIGINT and SIGQUIT end the guest, and everything is given back."""
    import signal

    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(name, lambda number, frame: machine.stop(f"by signal {number}"))


class _Journal:
    """Tells what happens: a line for people on stderr, or JSON on stdout."""

    def __init__(self, json: bool, quiet: bool) -> None:
        self._json, self._quiet = json, quiet
        self._start = time.monotonic()
        self._rest = b""
        self.line_end = "\n"
        self.machine: VirtualMachine | None = None

    def heard(self, item: Event | Effect) -> None:
        """Something happened to the guest."""
        from vmm_ras.io.vmm import journal

        if self._json:
            found = journal.plain(item)
            if found is not None:
                self._row(found)
        elif not self._quiet and self.machine is not None:
            threads = {t.native_id: t.name for t in self.machine.guest.vcpus if t.native_id is not None}
            text = journal.line(item, self.machine.vcpu_names, threads)
            if text is not None:
                sys.stderr.write(f"[vmm-ras {self._now():9.3f}] {text}{self.line_end}")
                sys.stderr.flush()

    def printed(self, data: bytes) -> None:
        """The guest printed; whole lines are told."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            self._row({"kind": "console", "line": raw.decode(errors="replace").rstrip("\r")})

    def ended(self, ending: Ending) -> None:
        """The guest is gone."""
        if self._json:
            if self._rest:
                self.printed(b"\n")
            self._row({"kind": "ended", "how": ending.how, "why": ending.why})
        elif not self._quiet or ending.how == "failed":
            was = "was " if ending.how in {"reset", "stopped"} else ""
            why = f" ({ending.why})" if ending.why else ""
            sys.stderr.write(f"vmm-ras: the guest {was}{ending.how}{why}\n")

    def _row(self, row: dict[str, Any]) -> None:
        import orjson

        sys.stdout.buffer.write(orjson.dumps({"at": round(self._now(), 6)} | row) + b"\n")
        sys.stdout.buffer.flush()

    def _now(self) -> float:
        return time.monotonic() - self._start
