"""CPER in bulk: records to JSON text beside libcper's Python module, JSON to records, and records to columns."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import orjson
from rich.console import Console
from rich.table import Table

from cper.arm_context import AArch64El1Registers, AArch64Registers, ArmContext, ArmContextHead
from cper.arm_error import ArmBusError, ArmCacheError
from cper.arm_processor import ArmBusErrorInformation, ArmCacheErrorInformation, ArmErrorInformation, ArmProcessor
from cper.common import Severity
from cper.error_status import ErrorStatus, ErrorStatusType
from cper.memory import PlatformMemory
from cper.pcie import Pcie, PcieDeviceId
from cper.pcie_registers import PcieAer, PcieCapability
from cper.record import NOTIFICATION_TYPES, Record, SectionDescriptor
from cper.record_text import json_of
from cper.wire import Struct

COUNT = 200
"""Different records of one measurement: few enough to be done before another process gets the processor."""
ROUNDS = 50
"""The least of so many is taken, libcper's module and ours in turns."""
ENCODED = 40_000
"""Memory records a second that JSON shall become bytes at."""
COLUMNS = 5_000_000
"""Memory records a second that shall become columns."""

Varied: TypeAlias = Callable[[random.Random], "PlatformMemory | ArmProcessor | Pcie"]
"""A section whose values are the dice's."""


def memory(dice: random.Random) -> PlatformMemory:
    """A memory section with all fields."""
    return PlatformMemory(
        error_status=ErrorStatus(type=ErrorStatusType.MEMORY), physical_address=dice.randrange(1 << 44) & ~63,
        physical_address_mask=0xFFFF_FFFF_FFFF_F000, node=dice.randrange(4), card=dice.randrange(4),
        module=dice.randrange(4), device=dice.randrange(18), row=dice.randrange(1 << 16),
        column=dice.randrange(1 << 11), bit_position=dice.randrange(64), requestor_id=dice.randrange(1 << 16),
        responder_id=8, target_id=9, error_type=dice.randrange(2, 15), rank=dice.randrange(4),
        bank_group=dice.randrange(4), bank_address=dice.randrange(4), card_handle=9, module_handle=dice.randrange(32),
        row_high=dice.randrange(4), chip_id=dice.randrange(8),
    )  # fmt: skip


def arm_error(dice: random.Random) -> dict[str, Any]:
    """What cache and bus errors have in common."""
    return {
        "transaction_type": dice.randrange(3), "level": dice.randrange(1, 4), "context_corrupt": dice.random() < 0.1,
        "corrected": dice.random() < 0.5, "precise_pc": True, "restartable_pc": dice.random() < 0.5,
    }  # fmt: skip


def addresses(dice: random.Random) -> dict[str, int]:
    """What error informations have in common."""
    return {
        "multiple_error": 0, "flags": 1, "physical_fault_address": dice.randrange(1 << 44) & ~63,
        "virtual_fault_address": 0xFFFF_8000_0000_0000 | dice.randrange(1 << 32),
    }  # fmt: skip


def cache_error(dice: random.Random) -> ArmCacheErrorInformation:
    """An error of a cache."""
    what = ArmCacheError(operation=dice.randrange(11), **arm_error(dice))
    return ArmCacheErrorInformation(error_information=what, **addresses(dice))


def bus_error(dice: random.Random) -> ArmBusErrorInformation:
    """An error of a bus."""
    what = ArmBusError(
        operation=dice.randrange(2), participation_type=dice.randrange(4), time_out=dice.random() < 0.5,
        address_space=dice.choice((0, 1, 3)), memory_attributes=dice.randrange(1 << 9), access_mode=dice.randrange(2),
        **arm_error(dice),
    )  # fmt: skip
    return ArmBusErrorInformation(error_information=what, **addresses(dice))


def context(dice: random.Random, number: int, registers: type[Struct]) -> ArmContext:
    """A context of numbers of different lengths."""
    values = {
        name: dice.randrange(1 << dice.choice((6, 16, 32, 48))) for name in registers.model_fields if name != "residue"
    }
    head = ArmContextHead(register_context_type=number, register_array_size=registers.SIZE)
    return ArmContext(head, (registers(**values),), b"", bytes(-(head.SIZE + registers.SIZE) % 16))


def arm_of(
    dice: random.Random, errors: Iterable[ArmErrorInformation], contexts: Iterable[ArmContext] = ()
) -> ArmProcessor:
    """An ARM processor section of these."""
    mpidr = 0x8000_0000 | dice.randrange(256) << 8
    return ArmProcessor.of(errors, contexts, affinity_level=1, mpidr=mpidr, midr=0x410F_D0C1)


def arm_cache(dice: random.Random) -> ArmProcessor:
    """One cache error, no registers."""
    return arm_of(dice, [cache_error(dice)])


def arm(dice: random.Random) -> ArmProcessor:
    """Two cache errors and the general purpose registers."""
    return arm_of(dice, [cache_error(dice), cache_error(dice)], [context(dice, 4, AArch64Registers)])


def arm_bus(dice: random.Random) -> ArmProcessor:
    """A bus error, the registers of EL1 and the general purpose ones.

    In this order: libcper does not know of padding between contexts, and gives up the section behind it.
    """
    contexts = [context(dice, 5, AArch64El1Registers), context(dice, 4, AArch64Registers)]
    return arm_of(dice, [bus_error(dice)], contexts)


def pcie(dice: random.Random) -> Pcie:
    """A PCI Express section with all registers."""
    device = PcieDeviceId(vendor_id=0x8086, device_id=0x1234, class_code=0x060400, bus=dice.randrange(256))
    errors = PcieAer(
        uncorrectable_error_status=1 << dice.choice((12, 14, 18, 20)), uncorrectable_error_severity=0x46_2030,
        correctable_error_status=1, header_log=tuple(dice.randrange(1 << 32) for _ in range(4)),
    )  # fmt: skip
    return Pcie(
        port_type=4, device_id=device, serial_number=dice.randrange(1 << 64), capability=PcieCapability(), aer=errors
    )


def records_of(section: Varied) -> list[bytes]:
    """``COUNT`` records, each with another; of several severities and notifications."""
    dice = random.Random(1)
    return [_record(section(dice), dice, number) for number in range(COUNT)]


def _record(section: PlatformMemory | ArmProcessor | Pcie, dice: random.Random, number: int) -> bytes:
    severity = dice.choice((Severity.CORRECTED, Severity.RECOVERABLE, Severity.FATAL))
    descriptor = SectionDescriptor.blank(section.GUID).model_copy(update={"severity": severity})
    told = NOTIFICATION_TYPES[dice.choice(("cmc", "sea"))]
    return Record.of([(section, descriptor)], record_id=number, notification_type=told).encode()


KINDS: tuple[tuple[str, Varied, float], ...] = (
    ("memory", memory, 5), ("ARM: a cache error", arm_cache, 12), ("ARM: two cache errors, GPRs", arm, 12),
    ("ARM: a bus error, EL1, GPRs", arm_bus, 12), ("PCIe", pcie, 10),
)  # fmt: skip
"""Records, and times libcper's rate that decoding them to JSON text shall have."""

_THEIRS = """
import sys, time, cper
records = [bytes.fromhex(line) for line in sys.stdin.readline().split()]
def turn():
    start = time.process_time()
    for data in records: cper.parse(data)
    return time.process_time() - start
for line in sys.stdin:
    print(turn(), flush=True)
"""


def libcper() -> Path | None:
    """An interpreter that has libcper's module, where `make oracle` made one."""
    found = Path(__file__).parents[2] / "out" / "oracle" / "venv" / "bin" / "python"
    return found if found.exists() else None


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one round."""
    start = time.process_time()
    call()
    return time.process_time() - start


def decoding(interpreter: Path | None, records: list[bytes]) -> tuple[float, float | None]:
    """Records a second: ours, and libcper's; the least of several rounds, in turns."""

    def ours() -> None:
        for record in records:
            json_of(record)

    mine, theirs = [], []
    if interpreter is None:
        mine = [seconds(ours) for _ in range(ROUNDS)]
        return COUNT / min(mine), None
    with subprocess.Popen(
        [interpreter, "-I", "-c", _THEIRS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as p:
        assert p.stdin is not None
        assert p.stdout is not None
        p.stdin.write(" ".join(record.hex() for record in records) + "\n")
        for _ in range(ROUNDS):
            mine.append(seconds(ours))
            p.stdin.write("\n")
            p.stdin.flush()
            theirs.append(float(p.stdout.readline()))
        p.stdin.close()
    return COUNT / min(mine), COUNT / min(theirs)


def cper(console: Console) -> bool:
    """Print all; whether every figure is what it shall be."""
    interpreter = libcper()
    if interpreter is None:
        print(
            "libcper's module is not here: `make oracle` installs it; only our own rates are printed", file=sys.stderr
        )
    good = True
    table = Table(
        "record", "bytes", "to JSON text", "libcper's module", "times", "at least", "from JSON text", "at least"
    )
    for name, section, wanted in KINDS:
        records = records_of(section)
        for data in records:
            assert orjson.dumps(Record.decode(data).plain()) == orjson.dumps(Record.plain_of(data)) == json_of(data)
        mine, theirs = decoding(interpreter, records)
        times = "" if theirs is None else f"{mine / theirs:.1f}"
        good = good and (theirs is None or mine / theirs >= wanted)
        table.add_row(
            name, str(len(records[0])), f"{mine:,.0f}/s", "" if theirs is None else f"{theirs:,.0f}/s", times,
            f"{wanted:.0f}", f"{encoding(records):,.0f}/s", f"{ENCODED:,}" if section is memory else "",
        )  # fmt: skip
    console.print(f"CPER, processor time, least of {ROUNDS} rounds of {COUNT:,} different records")
    console.print(table)
    rate = encoding(records_of(memory))
    return columnar(console) and good and rate >= ENCODED


def encoding(records: list[bytes]) -> float:
    """Records a second that come from JSON text."""
    texts = [orjson.dumps(Record.plain_of(record)) for record in records]
    assert [Record.raw_of_plain(orjson.loads(text)) for text in texts] == records

    def encode() -> None:
        for text in texts:
            Record.raw_of_plain(orjson.loads(text))

    return COUNT / min(seconds(encode) for _ in range(ROUNDS))


def columnar(console: Console) -> bool:
    """Memory records into columns: all with one validation word, as from one firmware, and with many."""
    try:
        import numpy
    except ImportError:
        print("numpy is not installed: no columns", file=sys.stderr)
        return True
    from cper.columns import columns

    dice, times = random.Random(2), 200_000 // COUNT
    alike, mixed = records_of(memory), [_less(record, dice) for record in records_of(memory)]
    rates = []
    for what, records in (("one validation word", alike), ("many", mixed)):
        many = b"".join(records) * times
        found = columns(many, PlatformMemory)
        want = [PlatformMemory.of_body(record[200:]).physical_address or 0 for record in records]
        assert found["physical_address"].values.tolist() == want * times
        assert isinstance(found["node"].values, numpy.ndarray)
        rates.append(COUNT * times / min(seconds(partial(columns, many, PlatformMemory)) for _ in range(30)))
        console.print(f"memory records to {len(found)} columns, {what}: {rates[-1]:,.0f}/s (at least {COLUMNS:,})")
    return rates[0] >= COLUMNS


def _less(record: bytes, dice: random.Random) -> bytes:
    """The same with some of its fields not valid; their bytes become residue."""
    flags = int.from_bytes(record[200:208], "little") & dice.randrange(1 << 22)
    return record[:200] + flags.to_bytes(8, "little") + record[208:]
