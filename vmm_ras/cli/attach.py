"""`vmm-ras attach`: tell the guest of a QEMU that somebody else started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm_ras.cli.common import Json, console, number, print_json, read_bytes, usage
from vmm_ras.cli.machine import Guest, PolicyFile

if TYPE_CHECKING:
    from acpi.image import PlacedSource
    from vmm_ras.events import Event
    from vmm_ras.io.qemu.adapter import QemuGuest
    from vmm_ras.io.qemu.attach import Attached

HOST, FIRST_THREAD = 0x7F00_0000_0000, 1000
Socket = Annotated[str, typer.Option(metavar="SOCKET", help="Its path, or HOST:PORT.")]


def attach(
    qmp: Annotated[str, typer.Option(metavar="SOCKET", help="Monitor (-qmp): a path, or HOST:PORT.")],
    gdb: Annotated[str, typer.Option(metavar="SOCKET", help="Debugger stub (-gdb), likewise.")],
    ram: Annotated[Path, typer.Option(metavar="FILE", help="What guest RAM is backed by (share=on).")],
    qtest: Annotated[
        str | None, typer.Option(metavar="SOCKET", help="qtest; without it nothing is told by GSIV or GPIO.")
    ] = None,
    base: Annotated[str, typer.Option(metavar="GPA", help="Where RAM begins.")] = "0x40000000",
    gpio_gsiv: Annotated[int, typer.Option(help="Interrupt of the event device that tells GPIO sources.")] = 0,
    lose: Annotated[str | None, typer.Option(metavar="GPA", help="Memory that is found to be lost.")] = None,
    consume: Annotated[
        str | None, typer.Option(metavar="GPA", help="Memory that the program on --vcpu uses: an SEA.")
    ] = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="A status block, told as it is.")] = None,
    source: Annotated[int | None, typer.Option(help="Source that --record goes through.")] = None,
    vcpu: Annotated[int, typer.Option(min=0, help="vCPU of --consume, and of a --record by SEA.")] = 0,
    guest: Guest = "linux",
    policy_file: PolicyFile = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long the guest may take to acknowledge.")] = 10,
    json_: Json = False,
) -> None:
    """Find the error sources of a guest under QEMU's emulation, and tell it an error; without one, list them.

    Not as a hypervisor does it: blocks go into the file behind RAM, an SEA is made by the debugger while the vCPU runs
    a program, GSIV and GPIO are pulsed by qtest, nothing is lost for real; no SDEI, no SError (docs/attach.md).
    Exit codes: 0 told and acknowledged, 1 it cannot be told, 2 usage, 3 QEMU does not answer or the guest does not
    acknowledge in time.

    Example: vmm-ras attach --qmp q.sock --gdb g.sock --qtest t.sock --ram /dev/shm/vm --lose 0x50001000
    """
    from vmm_ras.io.qemu.attach import Attached
    from vmm_ras.profiles import PROFILES

    if guest not in PROFILES:
        usage(f"--guest {guest!r}: expected one of {', '.join(PROFILES)}")
    if sum(what is not None for what in (lose, consume, record)) > 1:
        usage("--lose, --consume, --record: one of them")
    if source is not None and record is None:
        usage("--source says where a --record goes")
    with Attached(qmp, gdb, ram, qtest=qtest, base=number(base, "--base")) as machine:
        found = machine.sources()
        open_ = tuple(s for s in found if qtest is not None or s.notification.name not in {"GSIV", "GPIO_SIGNAL"})
        adapter = _adapter(machine, open_, guest, policy_file, gpio_gsiv)
        vcpus = adapter.notifier.vcpus
        if vcpu >= vcpus:
            usage(f"--vcpu {vcpu}: the guest has {vcpus}")
        event = _event(machine, lose, consume, record, source, vcpu)
        told = [] if event is None else _tell(machine, adapter, event, consume is not None, vcpu, seconds)
        listed = [_source(machine, s, s in open_) for s in found]
    if json_:
        print_json({"vcpus": vcpus, "sources": listed, "told": told})
    else:
        _show(listed, told)


def _adapter(
    machine: Attached, sources: tuple[PlacedSource, ...], guest: str, policy_file: str | None, gpio_gsiv: int
) -> QemuGuest:
    from vmm_ras.cli.machine import policy
    from vmm_ras.io.qemu.adapter import QemuGuest
    from vmm_ras.memory import MemoryMap, MemorySlot
    from vmm_ras.notifier import Notifier
    from vmm_ras.profiles import PROFILES

    vcpus = len(machine.monitor.ask("query-cpus-fast"))
    core = Notifier(
        sources, MemoryMap([MemorySlot(HOST, machine.ram.gpa, machine.ram.size)]), policy=policy(policy_file),
        guest=PROFILES[guest], vcpus=vcpus, threads={FIRST_THREAD + v: v for v in range(vcpus)},
    )  # fmt: skip
    return QemuGuest(machine, core, gpio_gsiv)


def _event(
    machine: Attached, lose: str | None, consume: str | None, record: Path | None, source: int | None, vcpu: int
) -> Event | None:
    from vmm_ras.errors import InputError
    from vmm_ras.events import Code, HostSignal, TellRecord

    if record is not None:
        return TellRecord(read_bytes(record), source, vcpu)
    text = lose if consume is None else consume
    if text is None:
        return None
    gpa, slot = number(text, "address"), machine.ram
    if not slot.gpa <= gpa < slot.gpa + slot.size:
        raise InputError(f"{gpa:#x}: RAM is {slot.gpa:#x} to {slot.gpa + slot.size - 1:#x}")
    code, tid = (Code.AO, 1) if consume is None else (Code.AR, FIRST_THREAD + vcpu)
    return HostSignal(code, HOST + gpa - slot.gpa, 12, tid, float(int(time.time())))


def _tell(
    machine: Attached, adapter: QemuGuest, event: Event, stop: bool, vcpu: int, seconds: float
) -> list[dict[str, Any]]:
    from vmm_ras.effects import Acked, Posted
    from vmm_ras.events import TellRecord

    if isinstance(event, TellRecord) and event.source_id is not None:
        placed = adapter.notifier.sources.get(event.source_id)
        stop = placed is not None and placed.way == "sea"
    if stop:
        adapter.trap_user(vcpu, machine.physical)
    adapter.receive(event)
    if stop:
        adapter.let_go()
    adapter.settle(1, seconds)
    acked = {e.source_id for e in adapter.seen if isinstance(e, Acked)}
    return [
        {"source_id": e.source_id, "delivery": e.delivery, "vcpu": e.vcpu, "esr": e.esr, "rule": e.rule,
         "block": e.block.hex(), "acked": e.source_id in acked}
        for e in adapter.seen
        if isinstance(e, Posted)
    ]  # fmt: skip


def _source(machine: Attached, source: PlacedSource, usable: bool) -> dict[str, Any]:
    status = int.from_bytes(machine.ram.read(source.block, 4), "little")
    ack = None if source.ack is None else int.from_bytes(machine.ram.read(source.ack, 8), "little")
    return {
        "source_id": source.source_id, "notification": source.notification.plain, "block": source.block,
        "block_length": source.block_length, "block_status": status, "read_ack": ack, "usable": usable,
    }  # fmt: skip


def _show(sources: list[dict[str, Any]], told: list[dict[str, Any]]) -> None:
    from rich.table import Table

    out = console()
    table = Table("source", "notification", "block", "status", "read ack", "", box=None, header_style="bold")
    for s in sources:
        ack = "none" if s["read_ack"] is None else f"{s['read_ack']:#x}"
        where = f"{s['block']:#x}, {s['block_length']} B"
        note = "" if s["usable"] else "needs --qtest"
        table.add_row(str(s["source_id"]), s["notification"], where, f"{s['block_status']:#x}", ack, note)
    out.print(table)
    for t in told:
        on = "" if t["vcpu"] is None else f", vCPU {t['vcpu']}"
        esr = "" if t["esr"] is None else f", ESR {t['esr']:#x}"
        out.print(f"told by {t['delivery']}: source {t['source_id']}{on}{esr}, rule {t['rule']}, acknowledged")
