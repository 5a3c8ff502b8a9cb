"""`vmm-ras snapshot`: what a guest is owed, in a file; a replay goes on from it in another process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cper.words import counted
from vmm_ras.cli.common import OPTIONS, Json, console, print_json, read_bytes, usage, write_bytes
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
    Style,
    Trace,
    Vcpus,
    hook,
    machine,
)

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier
    from vmm_ras.snapshot import Arrival, Snapshot

app = typer.Typer(help="All that a guest is owed, in a file: save, look at, compare, go on from.", **OPTIONS)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot; - is stdin.")]
MIGRATE_SECONDS = 3600.0
MOST_SHOWN = 200
"""Differences, and things owed, that are shown to people."""


@app.command("save")
def save(
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the snapshot goes.")],
    trace: Annotated[
        Path | None, typer.Argument(metavar="[TRACE]", help="A trace of any known format; - is stdin.")
    ] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Events of the trace that are replayed before.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", "-s", metavar="PATH", help="Save a VM of `vmm-ras serve`, or of `run`.")
    ] = None,
    vm: Annotated[str | None, typer.Option(metavar="NAME", help="Which VM, where there are several.")] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="With its memory, for `run --incoming`; the VM ends there.")
    ] = False,
    policy_file: PolicyFile = None,
    hook_file: HookFile = None,
    guest: Guest = "linux",
    map_: Map = None,
    json_: Json = False,
    preset: Preset = PresetName.default,
    style: Annotated[Style, typer.Option(help="What the records say.")] = Style.native,
    vcpus: Vcpus = 8,
    page_size: Pages = PageSize.k4,
    sdei: Sdei = True,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
) -> None:
    """Save a machine as it stands, whatever is pending.

    The machine is a model behind the first events of a trace, or a VM that runs.  A VM that runs goes on; its memory
    is not saved.

    Example: vmm-ras snapshot save qemu.strace --after 3 -o vm.snap
    """
    if socket is not None:
        if trace is not None or after is not None:
            usage("--socket: expected without TRACE and --after")
        _save_running(socket, vm, out, migrate, json_)
        return
    if trace is None or after is None or vm is not None or migrate:
        usage("expected TRACE and --after, or --socket")
    run = machine(policy_file, hook_file, guest, map_, preset, vcpus, page_size, sdei, style, str(trace))
    from vmm_ras import replay_state
    from vmm_ras.snapshot import pending
    from vmm_ras.traces import open_trace

    with open_trace(trace, strict=strict) as entries:
        saved = replay_state.save(run, entries, after)
    write_bytes(out, saved.data)
    owed = pending(run.notifier, run.guest.vcpus)
    if saved.events < after:
        print(f"note: the trace has {counted(saved.events, 'event')}", file=sys.stderr)
    if json_:
        done = {"file": str(out), "bytes": len(saved.data), "events": saved.events, "rows": len(saved.rows)}
        print_json({**done, "time": run.now, "pending": owed})
    else:
        print(f"{out}: {len(saved.data):,} bytes, after {counted(saved.events, 'event')}, at {run.now:.6f} s")
        _print_owed(owed)


def _save_running(socket: Path, vm: str | None, out: Path, migrate: bool, json_: bool) -> None:
    from base64 import b64decode

    from vmm_ras.io.qmp_client import QmpClient
    from vmm_ras.snapshot import pending

    with QmpClient(socket, MIGRATE_SECONDS if migrate else 60.0) as client:
        if migrate:
            answer = client.ask("migrate", vm=vm, uri=f"file:{out.absolute()}")
            if json_:
                print_json({"file": str(out), **answer})
            else:
                print(f"{out}: {answer['bytes']:,} bytes, VM {answer['vm']}, which has left")
            return
        answer = client.ask("query-snapshot", vm=vm)
    data = b64decode(answer["snapshot"])
    snapshot, core, arrival = _read(data, socket)
    write_bytes(out, data)
    owed = pending(core, arrival.vcpus, arrival.effects)
    if json_:
        done = {"file": str(out), "bytes": len(data), "vm": answer["vm"], "time": snapshot.now}
        print_json({**done, "pending": owed})
    else:
        print(f"{out}: {len(data):,} bytes, VM {answer['vm']}, at {snapshot.now:.6f} s")
        _print_owed(owed)


@app.command("show")
def show(file: File, json_: Json = False) -> None:
    """Show what a snapshot holds, and what its guest is still owed.

    Example: vmm-ras snapshot show vm.snap
    """
    from vmm_ras.snapshot import pending

    data = read_bytes(file)
    snapshot, core, arrival = _read(data, file)
    owed = pending(core, arrival.vcpus, arrival.effects)
    plain = _plain(snapshot, core, arrival)
    if json_:
        print_json({"file": str(file), "bytes": len(data), **plain, "pending": owed})
        return
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("part", "bytes", "CRC-32C", ""):
        table.add_column(name, justify="right" if name == "bytes" else "left")
    for part in plain["parts"]:
        optional = "" if part["mandatory"] else "optional"
        table.add_row(part["name"], f"{part['bytes']:,}", f"{part['crc32c']:08x}", optional)
    out.print(table)
    print()
    slots = ", ".join(f"{gpa:#x}-{gpa + size - 1:#x}" for gpa, size in plain["memory"])
    counts = f"{counted(core.vcpus, 'vCPU')}, {counted(len(core.sources), 'source')}"
    print(f"{counts}, guest {core.guest.name}, memory {slots or 'none'}")
    print(f"policy {plain['policy'][:16]}..., {counted(len(core.rules), 'rule')}; clock {snapshot.now:.6f} s")
    lost = sum(size for _, size in arrival.holes)
    print(f"{counted(len(arrival.holes), 'hole')}, {lost:,} bytes, to be made again at the destination")
    _print_owed(owed)


@app.command("verify")
def verify(file: File, json_: Json = False) -> None:
    """Check every byte of a snapshot.

    And that a machine can be made of it.  Exit code 1 if not.

    Example: vmm-ras snapshot verify vm.snap
    """
    data = read_bytes(file)
    snapshot, _, _ = _read(data, file)
    if json_:
        print_json({"file": str(file), "bytes": len(data), "parts": len(snapshot.raw), "fine": True})
    else:
        print(f"{file}: fine: {counted(len(snapshot.raw), 'part')}, {len(data):,} bytes")


@app.command("diff")
def diff(
    one: File,
    two: Annotated[Path, typer.Argument(metavar="OTHER", help="Another snapshot.")],
    json_: Json = False,
    fail_on: Annotated[str, typer.Option(metavar="LIST", help="Exit 4 if they differ: differ.")] = "",
) -> None:
    """Show in what two snapshots differ, value by value.

    Example: vmm-ras snapshot diff before.snap after.snap
    """
    if fail_on not in {"", "differ"}:
        usage(f"--fail-on {fail_on!r}: expected differ")
    from vmm_ras.snapshot.difference import differences

    found = differences(*(_read(read_bytes(file), file)[0] for file in (one, two)))
    if json_:
        print_json([{"path": path, "one": a, "two": b} for path, a, b in found])
    else:
        for path, a, b in found[:MOST_SHOWN]:
            print(f"{path}: {_word(a)} -> {_word(b)}")
        if len(found) > MOST_SHOWN:
            print(f"... and {len(found) - MOST_SHOWN:,} more (--json)")
        if not found:
            print("no difference")
    if found and fail_on:
        raise typer.Exit(4)


@app.command("restore")
def restore(
    file: File,
    trace: Trace,
    hook_file: HookFile = None,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the summary only.")] = False,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
) -> None:
    """Go on with a replay where a snapshot of it was saved.

    The rest of TRACE goes into a machine made of the file alone.  The rows are those that come after the saved ones;
    the summary is that of the whole trace.

    Example: vmm-ras snapshot restore vm.snap qemu.strace
    """
    from vmm_ras import replay_state
    from vmm_ras.cli.replay import rows_as_json, rows_as_text
    from vmm_ras.errors import SnapshotError
    from vmm_ras.traces import open_trace

    try:
        run, position = replay_state.resume(read_bytes(file), hook(hook_file))
    except SnapshotError as error:
        raise SnapshotError(f"{file}: {error}") from None
    with open_trace(trace, strict=strict) as entries:
        rest = replay_state.rest(entries, position)
        if json_:
            rows_as_json(run, rest)
        else:
            rows_as_text(run, rest, quiet)
        for note in entries.notes:
            print(f"note: {note}", file=sys.stderr)


def _read(data: bytes, file: Path) -> tuple[Snapshot, Notifier, Arrival]:
    """A snapshot, wholly checked; its policy's hook, which is code, is not asked for."""
    import io
    from collections import deque

    from vmm_ras import replay_state
    from vmm_ras.deciding import Hook
    from vmm_ras.errors import SnapshotError
    from vmm_ras.guests import state
    from vmm_ras.io.kvm.moving import PART, Arriving
    from vmm_ras.io.vmm import moving
    from vmm_ras.snapshot import read_snapshot, rebuild, stream

    try:
        if data.startswith(stream.MAGIC):
            data, memory = stream.receive(io.BytesIO(data).read)
            deque(memory, 0)  # every frame is looked at
        snapshot = read_snapshot(data, (*replay_state.PARTS, *moving.PARTS))
        digest = snapshot.parts["policy"].hook
        stand_in = None if digest is None else Hook(lambda lost, view: None, digest)
        if "replay" in snapshot.parts:
            replay_state.resume(snapshot, stand_in)
        elif "model" in snapshot.parts:
            state.resume(snapshot, stand_in)
        if PART in snapshot.parts:
            Arriving(snapshot)
        return snapshot, *rebuild(snapshot, stand_in)
    except SnapshotError as error:
        raise SnapshotError(f"{file}: {error}") from None


def _plain(snapshot: Snapshot, core: Notifier, arrival: Arrival) -> dict[str, Any]:
    from vmm_ras.snapshot.container import VERSION, crc32c

    parts = [
        {"name": part.name, "bytes": len(part.body), "crc32c": crc32c(part.body), "mandatory": part.mandatory}
        for part in snapshot.raw.values()
    ]
    return {
        "version": VERSION,
        "parts": parts,
        "vcpus": core.vcpus,
        "memory": [[slot.gpa, slot.size] for slot in core.memory.slots],
        "sources": [s.placed.source_id for s in core.sources.values()],
        "guest": core.guest.name,
        "policy": snapshot.parts["policy"].digest,
        "hook": snapshot.parts["policy"].hook,
        "time": snapshot.now,
        "holes": [list(hole) for hole in arrival.holes],
        "lines": arrival.lines,
    }


def _print_owed(owed: dict[str, Any]) -> None:
    """What is owed, a line each."""
    lines = [
        f"vCPU {entry['vcpu']}: {' '.join(_shown(key, value) for key, value in thing.items() if value is not None)}"
        for entry in owed["vcpus"]
        for thing in entry["owed"]
    ]
    for source in owed["sources"]:
        at = "" if source["overdue_at"] is None else f", overdue at {source['overdue_at']:.6f} s"
        entries = len(source["pages"])
        what = counted(entries, "entry", "entries") if entries else "a record"
        lines.append(f"source {source['source_id']} ({source['way']}): {what} not acknowledged{at}")
    lines += [f"SDEI: event {number:#x} waits for a PE" for number in owed["sdei"]]
    lines += [
        f"rule {rule}: {counted(count, 'page', form=',')} not told yet"
        for rule, count in owed["pages"]["by_rule"].items()
    ]
    if owed["pages"]["on_touch"]:
        lines.append(f"{counted(owed['pages']['on_touch'], 'page', form=',')} to be told when touched")
    if owed["records"]:
        lines.append(f"{counted(owed['records'], 'record waits', 'records wait')} for a source")
    lines += [f"effect {name}: not carried out yet" for name in owed["effects"]]
    for line in lines[:MOST_SHOWN]:
        print(line)
    if len(lines) > MOST_SHOWN:
        print(f"... and {len(lines) - MOST_SHOWN:,} more (--json)")
    if owed["idle"]:
        print("nothing is owed")


def _shown(key: str, value: Any) -> str:
    if key == "owed":
        return str(value)
    return f"{key} {value:#x}" if key in {"gpa", "syndrome", "event"} else f"{key} {value}"


def _word(value: Any) -> str:
    text = f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and value > 9 else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
