"""`make bench`: how long the codec takes beside construct, large tables, and a replay beside its floor loop.

The replay goes through the same function as the command line's (`vmm_ras.replay.Replay.run`, rows to JSON Lines), over
distinct pages, and its result is checked: every page acked, every row's block CRC, the same pages as the floor's.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from acpi.ghes import STATUS_BLOCK, DataEntry300, Entry, ErrorStatusHeader, StatusBlock
from acpi.hest import GenericHardwareErrorSourceV2
from acpi.presets import PRESETS
from cper.error_status import ErrorStatus, ErrorStatusType
from cper.memory import PlatformMemory
from cper.record import Record, RecordHeader, SectionDescriptor
from cper.record_frame import RECORD
from cper.wire import Struct
from cper.wire._construct import twin
from tests.bench import floor
from tests.bench.acpi import acpi
from tests.bench.cper import cper
from tests.bench.serve import serve
from tests.bench.snapshot import snapshot
from vmm_ras.default_policy import TEXT
from vmm_ras.events import Code, HostSignal
from vmm_ras.guests.model import ModelGuest
from vmm_ras.ledger import crc32c
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy, load_policy
from vmm_ras.replay import TABLES, Replay
from vmm_ras.traces import open_trace

HVA, GPA = 0x7F00_0000_0000, 0x4000_0000
CHUNK = 5_000
"""Events of a turn: short, so that what else the machine does falls on product and floor alike."""


def microseconds(call: Callable[[], object], repeat: int = 7) -> float:
    """Least time of one call, in microseconds."""
    timer = timeit.Timer(call)
    number = max(20, int(0.02 / max(timer.timeit(20) / 20, 1e-8)))
    return min(timer.repeat(repeat, number)) / number * 1e6


def structures(console: Console) -> bool:
    """Codec beside construct's interpreted twin; whether each is at least three times quicker, both ways."""
    table = Table(
        "structure", "bytes", "decode", "construct", "times", "encode", "construct", "times", "pack", "to JSON"
    )
    full = PlatformMemory(
        error_status=ErrorStatus(type=ErrorStatusType.MEMORY), physical_address=0x12345000,
        physical_address_mask=0xFFFF_FFFF_FFFF_F000, node=1, card=1, module=2,
        device=3, row=4, column=5, bit_position=6, requestor_id=7, responder_id=8, target_id=9, error_type=3, rank=1,
        bank_group=3, bank_address=7, card_handle=9, module_handle=10, row_high=1, chip_id=2,
    )  # fmt: skip
    entry = Entry.of(full, fru_text="DIMM A1")
    record = Record.of([full])
    source = next(s for s in PRESETS["qemu-11.1"].place(TABLES).hest.sources)
    samples: list[Struct] = [
        full, entry.header, StatusBlock.of([entry]).header, source, record.header, record.sections[0].descriptor,
    ]  # fmt: skip
    good = True
    for sample in samples:
        cls = type(sample)
        data, other = sample.encode(), twin(cls)
        words = {k: v for k, v in other.parse(data).items() if k != "_io"}
        assert cls.decode(data) == sample
        assert other.build(words) == data
        values = {name: getattr(sample, name) for name in cls.model_fields if name != "residue"}
        assert cls.pack(**values) == data
        d, cd = microseconds(lambda c=cls, b=data: c.decode(b)), microseconds(lambda o=other, b=data: o.parse(b))
        e, ce = microseconds(sample.encode), microseconds(lambda o=other, w=words: o.build(w))
        p = microseconds(lambda c=cls, v=values: c.pack(**v))
        j = microseconds(lambda c=cls, b=data: orjson.dumps(c.plain_of(b)))
        good = good and cd / d >= 3 and ce / e >= 3
        table.add_row(
            cls.__name__, str(cls.SIZE), f"{d:.2f}", f"{cd:.2f}", f"{cd / d:.1f}", f"{e:.2f}", f"{ce:.2f}",
            f"{ce / e:.1f}", f"{p:.2f}", f"{j:.2f}",
        )  # fmt: skip
    block = StatusBlock.of([entry]).encode()
    d, cd = microseconds(lambda: StatusBlock.decode(block)), microseconds(lambda: STATUS_BLOCK.parse(block))
    table.add_row("StatusBlock (frame)", str(len(block)), f"{d:.2f}", f"{cd:.2f}", f"{cd / d:.1f}", "", "", "", "", "")
    raw = record.encode()
    d, cd = microseconds(lambda: Record.decode(raw)), microseconds(lambda: RECORD.parse(raw))
    table.add_row("Record (frame)", str(len(raw)), f"{d:.2f}", f"{cd:.2f}", f"{cd / d:.1f}", "", "", "", "", "")
    console.print("Codec, microseconds per call (least of 7 runs); construct is interpreted, raw words")
    console.print(table)
    assert {ErrorStatusHeader, DataEntry300, GenericHardwareErrorSourceV2, RecordHeader, SectionDescriptor} <= {
        type(s) for s in samples
    }
    return good


def signal_of(index: int, span: int) -> tuple[str, int, int, int]:
    """Code, address, lsb and thread of an event of the bench, on one of ``span`` pages, a power of two."""
    page = index * 0x9E3779B1 & span - 1  # odd: a permutation of the page numbers
    return "AR" if index & 1 else "AO", HVA + (page << 12), 12, 100 + (index >> 1 & 3)


def write_trace(path: Path, events: int) -> None:
    """A JSONL trace of ``events`` signals on distinct pages in scattered order, every other one an AR."""
    span = 1 << (events - 1).bit_length()
    with path.open("wb") as out:
        out.write(b'{"event":"trace","version":1,"clock":"relative"}\n')
        out.write(b'{"event":"memory","hva":%d,"gpa":%d,"size":%d}\n' % (HVA, GPA, span << 12))
        for vcpu in range(4):
            out.write(b'{"event":"vcpu","vcpu":%d,"tid":%d}\n' % (vcpu, 100 + vcpu))
        for index in range(events):
            code, hva, lsb, tid = signal_of(index, span)
            line = {"event": "signal", "code": code, "hva": hva, "lsb": lsb, "tid": tid, "time": index * 1e-3}
            out.write(orjson.dumps(line) + b"\n")


Turn = tuple[int, float, float]
"""Events, and the processor seconds that they took the product and the floor."""


def replay(
    path: Path, events: int, console: Console, name: str = "replay", *, policy: Policy | None = None, vcpus: int = 8
) -> float:
    """How many times the floor's time `replay` takes; both in turns, chunk by chunk."""
    run = Replay(PRESETS["default"].place(TABLES), policy=policy, vcpus=vcpus)
    span = 1 << (events - 1).bit_length()
    sink = open(os.devnull, "wb")  # noqa: SIM115
    rows = pages = blocks = 0
    turns: list[Turn] = []
    clock = time.process_time
    with open_trace(str(path)) as entries, path.open("rb") as lines:
        stream = run.run(entries)
        while rows < events:
            start, before = clock(), rows
            for row in islice(stream, CHUNK):
                sink.write(row.json())
                rows += 1
                blocks ^= row.crc32c or 0
            assert rows > before, f"{rows} rows, not {events}"
            took = clock() - start
            part = list(islice(lines, CHUNK))
            start = clock()
            pages += floor.run(part, HVA, GPA, span << 12, sink.write)[1]
            turns.append((rows - before, took, clock() - start))
            print(f"\r{rows:,} of {events:,} events", end="", file=sys.stderr, flush=True)
        assert next(stream, None) is None
        pages += floor.run(lines, HVA, GPA, span << 12, sink.write)[1]  # it began with the lines that are no events
    print("\r" + " " * 50 + "\r", end="", file=sys.stderr)
    assert pages == events, f"the floor acked {pages} pages, not {events}"
    assert run.summary.pages == {"unreported": 0, "posted": 0, "acked": events}, run.summary.pages
    assert run.summary.outcomes == {"offlined": events}, run.summary.outcomes
    assert blocks != 0
    assert crc32c(b"123456789") == 0xE3069283
    return tell(console, name, turns, policy)


def acked(
    events: int, console: Console, name: str = "event to ack", *, policy: Policy | None = None, vcpus: int = 8
) -> float:
    """As :func:`replay`, but from the signal to the acknowledgement that the core has seen: no trace, no rows."""
    image, span = PRESETS["default"].place(TABLES), 1 << (events - 1).bit_length()
    core = Notifier(image.sources, MemoryMap([MemorySlot(HVA, GPA, span << 12)]), policy=policy, vcpus=vcpus)
    guest = ModelGuest(image, core.guest, vcpus=vcpus)
    guest.memory.add_region(GPA, span << 12)
    guest.start_sdei(core, 0.0)
    core.threads.update({100 + vcpu: vcpu for vcpu in range(4)})
    receive, drive, clock = core.receive, guest.drive, time.process_time
    outcomes: Counter[str] = Counter()
    turns: list[Turn] = []
    pages = 0
    for first in range(0, events, CHUNK):
        told = [(index * 1e-3, *signal_of(index, span)) for index in range(first, min(first + CHUNK, events))]
        signals = [(now, HostSignal(Code[code], hva, lsb, tid, None)) for now, code, hva, lsb, tid in told]
        start = clock()
        for now, signal in signals:
            drive(core, receive(signal, now), now)
        took = clock() - start
        outcomes.update(action.outcome for action in guest.os.drain())
        plain = [floor.Signal(code, hva, lsb, tid, now) for now, code, hva, lsb, tid in told]
        start = clock()
        pages += floor.run(plain, HVA, GPA, span << 12, None)[1]
        turns.append((len(told), took, clock() - start))
        print(f"\r{first + len(told):,} of {events:,} events", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 50 + "\r", end="", file=sys.stderr)
    assert core.poison.counts == [0, 0, 0, events], core.poison.counts
    assert outcomes == {"offlined": events} == {"offlined": guest.os.offlined.count}, outcomes
    assert pages == events, f"the floor acked {pages} pages, not {events}"
    return tell(console, name, turns, policy)


def compiled() -> bool:
    """Whether these are the compiled modules."""
    return not (sys.modules[Replay.__module__].__file__ or "").endswith(".py")


def limit_of(policy: Policy | None) -> float:
    """How many times the floor's time an event may take: with compiled modules less, and with a long policy more."""
    return (2.5 if policy is None else 3.5) if compiled() else 4.5


def tell(console: Console, name: str, turns: list[Turn], policy: Policy | None) -> float:
    """Say what was measured; how many times the floor's time an event takes.

    A machine has other tenants, and goes at several speeds: so the quicker half of the turns is told beside them all.
    """
    events, mine, theirs = (sum(column) for column in zip(*turns, strict=True))
    half = sorted(turns, key=lambda turn: turn[1] / turn[0])[: len(turns) + 1 >> 1]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    quick = sum(turn[0] for turn in half) / sum(turn[1] for turn in half)
    console.print(
        f"{name} ({'compiled' if compiled() else 'interpreted'}): {events:,} events, {events / mine:,.0f}/s "
        f"({quick:,.0f} in the quicker half), {mine / events * 1e6:.1f} us; floor {theirs / events * 1e6:.1f} us; "
        f"{mine / theirs:.2f} times (at most {limit_of(policy)}); {rss >> 10} MiB"
    )
    return mine / theirs


def fifty_rules() -> Policy:
    """The default policy behind 47 rules that ask for places, sizes, vCPU states and histories, and never hold."""
    asked = (
        "gpa_from = {at:#x}, gpa_to = {end:#x}",
        'code = "AO", lsb_min = 30',
        'code = "AR", masked = true, lost_min = 99999999',
        'code = "AR", vcpu = [500, 501]',
        'closed = ["sdei", "polled"]',
        "seen_min = {at}",
    )
    text = "version = 1\n"
    for n in range(47):
        when = asked[n % len(asked)].format(at=0x10_0000_0000_0000 + (n << 30), end=0x10_0000_0000_0000 + (n + 1 << 30))
        text += f'[[rule]]\nname = "r{n}"\nwhen = {{ {when} }}\naction = "ignore"\n'
    return load_policy(text + TEXT[TEXT.index("[[rule]]") :])


def command_line(path: Path, events: int, console: Console) -> None:
    """The same through the command line as a user runs it, and how quickly the command line starts."""
    exe = [sys.executable, "-m", "vmm_ras.cli"]
    start = time.perf_counter()
    done = subprocess.run([*exe, "replay", str(path), "--json"], capture_output=True, check=True)
    took = time.perf_counter() - start
    assert done.stdout.count(b"\n") == events
    console.print(f"vmm-ras replay --json, {events:,} events, as a process: {took:.2f} s")
    block = path.with_suffix(".bin")
    block.write_bytes(StatusBlock.of([Entry.of(PlatformMemory(physical_address=0x1000))]).encode())
    for words, limit in ((["--help"], 0.25), (["cper", "show", str(block)], 0.5)):
        best = min(_wall([*exe, *words]) for _ in range(5))
        console.print(f"vmm-ras {words[0]} {words[1] if len(words) > 1 else ''}: {best:.3f} s (at most {limit})")


def _wall(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    """Run it all; exit 1 if a structure is not three times quicker than construct, or a limit or ratio is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--only", choices=("structures", "cper", "acpi", "snapshot", "replay", "policy", "cli", "serve")
    )
    parser.add_argument(
        "--qemu", metavar="COMMAND", help="qemu-system-aarch64 of 10.2 or newer, to measure beside `serve`"
    )
    parser.add_argument("--firmware", metavar="FILE", help="its UEFI (QEMU_EFI.fd)")
    options = parser.parse_args()
    console = Console(width=140)
    good = True
    if options.only in {None, "structures"}:
        good = structures(console)
    if options.only in {None, "cper"}:
        good = cper(console) and good
    if options.only in {None, "acpi"}:
        good = acpi(console) and good
    if options.only in {None, "snapshot"}:
        good = snapshot(console) and good
    if options.only in {None, "serve"}:
        good = serve(console, qemu=options.qemu, firmware=options.firmware) and good
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.jsonl"
        few, fifty = min(options.events, 100_000), fifty_rules()
        ratios: list[tuple[float, Policy | None]] = []
        if options.only in {None, "replay"}:
            write_trace(path, options.events)
            ratios.append((replay(path, options.events, console), None))
            ratios.append((acked(options.events, console), None))
        if options.only in {None, "policy"}:
            write_trace(path, few)
            ratios.append((replay(path, few, console, "replay, 50 rules", policy=fifty), fifty))
            ratios.append((acked(few, console, "event to ack, 50 rules", policy=fifty), fifty))
            eight = acked(few, console, "event to ack, 8 vCPUs")
            many = acked(few, console, "event to ack, 512 vCPUs", vcpus=512)
            console.print(f"512 vCPUs take {many / eight:.2f} times the time of 8, both beside the floor")
            good = good and many / eight < 1.5
        good = good and all(ratio <= limit_of(policy) for ratio, policy in ratios)
        if options.only in {None, "cli"}:
            write_trace(path, 20_000)
            command_line(path, 20_000, console)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
