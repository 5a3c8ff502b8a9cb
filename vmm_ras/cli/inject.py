"""`vmm-ras inject`: errors for a VM of the service."""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cper.words import counted
from vmm_ras.cli.common import Json, console, number, print_json, usage

if TYPE_CHECKING:
    from rich.console import Console

    from vmm_ras.errors import RasError
    from vmm_ras.io.qmp_client import QmpClient

Asked = tuple[str, dict[str, Any], str]
"""Command, its arguments, and what it is in a few words."""
Aet = Literal["uc", "ueu", "ueo", "uer", "ce"]


def inject(
    records: Annotated[
        list[Path] | None, typer.Argument(metavar="RECORD", help="Files with status blocks or CPER records.")
    ] = None,
    socket: Annotated[
        Path, typer.Option("--socket", "-s", metavar="PATH", help="Socket of `vmm-ras serve`, or of `run`.")
    ] = ...,  # type: ignore[assignment]
    vm: Annotated[str | None, typer.Option(metavar="NAME", help="Which VM, where there are several.")] = None,
    hex_: Annotated[list[str] | None, typer.Option("--hex", help="A record in hexadecimal; repeatable.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Give files to the guest as they are, whatever they hold.")
    ] = False,
    source: Annotated[int | None, typer.Option(min=0, help="Error source that the records go through.")] = None,
    cpu: Annotated[int | None, typer.Option(min=0, help="vCPU, for all that has one.")] = None,
    gpa: Annotated[str | None, typer.Option(help="Lost memory: guest physical address.")] = None,
    hva: Annotated[str | None, typer.Option(help="Lost memory: host virtual address.")] = None,
    lsb: Annotated[int | None, typer.Option(min=0, help="Lost memory: log2 of the bytes.  [12]")] = None,
    code: Annotated[
        Literal["AO", "AR"] | None, typer.Option(help="Lost memory: found (AO) or consumed (AR).  [AO]")
    ] = None,
    sea: Annotated[bool, typer.Option("--sea", help="A synchronous external abort without a record.")] = False,
    dfsc: Annotated[str | None, typer.Option(help="SEA: Data Fault Status Code.  [0x10]")] = None,
    ea: Annotated[bool, typer.Option("--ea", help="SEA: set the external abort type bit.")] = False,
    set_: Annotated[
        Literal["uer", "uc", "ueo"] | None, typer.Option("--set", help="SEA: Synchronous Error Type.  [uer]")
    ] = None,
    far: Annotated[str | None, typer.Option(help="SEA: guest virtual address; without it FnV is set.")] = None,
    esr: Annotated[str | None, typer.Option(help="SEA: the whole ESR; its EC follows the exception level.")] = None,
    force: Annotated[bool, typer.Option("--force", help="SEA: parity codes for a guest with FEAT_RAS.")] = False,
    sei: Annotated[bool, typer.Option("--sei", help="A virtual SError without a record.")] = False,
    aet: Annotated[Aet | None, typer.Option(help="SError: Asynchronous Error Type.  [ueo]")] = None,
    vsesr: Annotated[str | None, typer.Option(help="SError: the whole syndrome.")] = None,
    sdei: Annotated[list[str] | None, typer.Option(metavar="EVENT", help="An SDEI event; repeatable.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the guest owes nothing.")] = 0.0,
    json_: Json = False,
) -> None:
    """Tell a VM of errors: lost memory, records, aborts, SErrors, SDEI events, in this order.

    With nothing to tell, shows what is known of the VM.  Exit code 1: the service refused one; those before it are
    done, those behind it are not tried, and --json says which.

    Example: vmm-ras inject -s /run/vmm-ras.sock --gpa 0x40001000 --code AR --cpu 1
    """
    from vmm_ras.errors import RasError
    from vmm_ras.io.qmp_client import QmpClient

    asked: list[Asked] = []
    if gpa is not None or hva is not None:
        place = {"gpa": _number(gpa, "--gpa"), "hva": _number(hva, "--hva")}
        code, lsb = code or "AO", 12 if lsb is None else lsb
        what = f"{code} {gpa or hva}, {_size(lsb)}"
        asked.append(("inject-memory-error", place | {"lsb": lsb, "code": code, "vcpu": cpu}, what))
    elif (lsb, code) != (None, None):
        usage("--lsb, --code: expected --gpa or --hva with them")
    if not records and (raw or (source is not None and not hex_)):
        usage("--raw, --source: expected a record with them")
    for name, block in _blocks(records or [], hex_ or [], raw):
        given = {"cper": b64encode(block).decode(), "source": source, "vcpu": cpu}
        asked.append(("inject-record", given, f"record {name}, {counted(len(block), 'byte')}"))
    if sea:
        parts = {"dfsc": _number(dfsc, "--dfsc"), "ea": 1 if ea else None, "set": set_, "esr": _number(esr, "--esr")}
        address = {"far": _number(far, "--far"), "force": force or None}
        asked.append(("inject-sea", parts | address | {"vcpu": cpu}, f"SEA, vCPU {cpu or 0}"))
    elif ea or force or (dfsc, set_, far, esr) != (None,) * 4:
        usage("--dfsc, --ea, --set, --far, --esr, --force: expected --sea with them")
    if sei:
        given = {"vsesr": _number(vsesr, "--vsesr"), "aet": aet, "vcpu": cpu}
        asked.append(("inject-serror", given, f"SError, vCPU {cpu or 0}"))
    elif (aet, vsesr) != (None, None):
        usage("--aet, --vsesr: expected --sei with them")
    for event in sdei or ():
        where = "" if cpu is None else f", vCPU {cpu}"
        asked.append(
            ("inject-sdei-event", {"event": _number(event, "--sdei"), "vcpu": cpu}, f"SDEI event {event}{where}")
        )
    if cpu is not None and not asked:
        usage("--cpu: expected something to tell it")
    with QmpClient(socket) as client:
        did: list[dict[str, Any]] = []
        out = None if json_ else console()
        try:
            for command, given, what in asked:
                answer = client.ask(command, vm=vm, **given)
                did.append({"what": what, "command": command} | answer)
                if out is not None:
                    out.print(f"{what}: {_words(answer)}")
            status = _settled(client, vm, wait)
        except RasError as error:
            if out is None:
                print_json({"did": did} | _refused(client, vm, [what for _, _, what in asked[len(did) :]], error))
            raise
    if out is None:
        print_json({"did": did, "status": status})
    else:
        _show(out, status)


def _refused(client: QmpClient, vm: str | None, left: list[str], error: RasError) -> dict[str, Any]:
    """What was refused and why, what was not tried, and what is known of the VM, if it still answers."""
    from vmm_ras.errors import RasError

    try:
        status = client.ask("query-ras", vm=vm) if left else None
    except RasError:
        status = None
    return {"refused": left[0] if left else None, "error": str(error), "left": left[1:], "status": status}


def _number(text: str | None, what: str) -> int | None:
    return None if text is None else number(text, what)


def _size(lsb: int) -> str:
    if lsb >= 40:
        return f"2^{lsb} bytes"
    return f"{1 << lsb % 10} {('bytes' if lsb else 'byte', 'KiB', 'MiB', 'GiB')[lsb // 10]}"


def _blocks(files: list[Path], texts: list[str], raw: bool) -> list[tuple[str, bytes]]:
    """Name and bytes of each record.  Raises InputError."""
    from acpi.conversion import block_of
    from acpi.stream import Kind
    from cper.record import Record
    from vmm_ras.cli.common import read_bytes
    from vmm_ras.cli.cper_input import read_items
    from vmm_ras.errors import InputError

    found: list[tuple[str, bytes]] = []
    for file in files:
        if raw:
            found.append((str(file), read_bytes(file)))
            continue
        for item in read_items(file):
            read = item.read() if item.fault is None else None
            if isinstance(read, Record):
                block, lost = block_of(read)
                for what in lost:
                    print(f"{file}: a status block has no place for {what}", file=sys.stderr)
                found.append((str(file), block.encode()))
            elif read is not None:
                found.append((str(file), item.data))
            elif item.kind is not Kind.PADDING:
                raise InputError(f"{file}: at {item.offset}: {item.fault or 'no record'} (--raw gives it all the same)")
    for text in texts:
        try:
            found.append(("of --hex", bytes.fromhex(text.removeprefix("0x"))))
        except ValueError:
            usage(f"--hex {text[:40]!r}: expected pairs of hexadecimal digits")
    return found


def _words(answer: dict[str, Any]) -> str:
    parts = [f"{n} {v:#x}" if n in {"esr", "vsesr", "gpa"} else f"{n} {v}".lower() for n, v in answer.items()]
    return ", ".join(part.removeprefix("outcome ") for part in parts)


def _settled(client: QmpClient, vm: str | None, seconds: float) -> dict[str, Any]:
    """What is known of the VM, once it owes nothing and nothing is pending, or the time is over."""
    until = time.monotonic() + seconds
    while True:
        status: dict[str, Any] = client.ask("query-ras", vm=vm)
        waits = status["owed"] or any(status["pending"].values()) or status["pages"]["unreported"]
        if not waits or time.monotonic() >= until:
            return status
        time.sleep(0.02)


def _show(out: Console, status: dict[str, Any]) -> None:
    """What is known of a VM, for people."""
    from rich.table import Table

    pages, pending, records = status["pages"], status["pending"], status["records"]
    out.print(
        f"{status['vm']}: {status['guest']}, {counted(status['vcpus'], 'vCPU')}; pages unreported "
        f"{pages['unreported']}, posted {pages['posted']}, acknowledged {pages['acked']}; records told "
        f"{records['told']}, waiting {pending['records']}, dropped {records['dropped']}",
    )
    for name, count in status["waiting"].items():
        out.print(f"  {counted(count, 'page waits', 'pages wait')} under rule {name}")
    for what, text in (("held", "vCPUs held"), ("sdei", "SDEI events pending"), ("injections", "injections waiting")):
        if pending[what]:
            out.print(f"  {text}: {pending[what]}")
    model = status.get("model")
    if model is not None:
        done = ", ".join(f"{name} {count}" for name, count in model["outcomes"].items()) or "nothing yet"
        out.print(f"  the model guest: {done}" + (f"; panicked: {model['panicked']}" if model["panicked"] else ""))
    table = Table("source", "delivery", "vector", "state", "owes")
    for source in status["sources"]:
        owes = "a record" if source["record"] else counted(source["pages"], "page") if source["pages"] else ""
        vector = f"{source['vector']:#x}" if source["vector"] else ""
        table.add_row(str(source["id"]), source["delivery"], vector, source["reason"] or source["state"], owes)
    out.print(table)
