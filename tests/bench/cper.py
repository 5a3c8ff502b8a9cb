"""CPER in bulk: records to JSON text beside libcper's Python module, JSON to records, and records to columns."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from cper.arm_context import AArch64Registers, ArmContext, ArmContextHead
from cper.arm_error import ArmCacheError
from cper.arm_processor import ArmCacheErrorInformation, ArmProcessor
from cper.memory import PlatformMemory
from cper.pcie import Pcie, PcieDeviceId
from cper.pcie_registers import PcieAer, PcieCapability
from cper.record import Record

COUNT = 2_000
"""Records of one measurement; the least of ``ROUNDS``, libcper's module and ours in turns."""
ROUNDS = 7
WANTED = {"memory": 5.0, "ARM processor": 12.0, "PCIe": 10.0}
"""Times libcper's rate that decoding to JSON text shall have."""
ENCODED = 40_000
"""Memory records a second that JSON shall become bytes at."""
COLUMNS = 5_000_000
"""Memory records a second that shall become columns."""

MEMORY = PlatformMemory(
    error_status=0x400, physical_address=0x12345000, physical_address_mask=0xFFFF_FFFF_FFFF_F000, node=1, card=1,
    module=2, device=3, row=4, column=5, bit_position=6, requestor_id=7, responder_id=8, target_id=9, error_type=3,
    rank=1, bank_group=3, bank_address=7, card_handle=9, module_handle=10, row_high=1, chip_id=2,
)  # fmt: skip


def arm() -> ArmProcessor:
    """An ARM processor section: two cache errors and the general purpose registers."""
    what = ArmCacheError(transaction_type=1, operation=3, level=2, context_corrupt=False, corrected=True,
                         precise_pc=True, restartable_pc=True)  # fmt: skip
    error = ArmCacheErrorInformation(
        multiple_error=0, flags=1, error_information=what, virtual_fault_address=0xFFFF_8000_0000_1000,
        physical_fault_address=0x8_0000_1000,
    )  # fmt: skip
    registers = AArch64Registers(**{name: 3 * n for n, name in enumerate(AArch64Registers.model_fields) if n})
    context = ArmContext(ArmContextHead(register_context_type=4, register_array_size=256), (registers,), b"", bytes(8))
    return ArmProcessor.of([error, error], [context], affinity_level=1, mpidr=0x8000_0000, midr=0x410F_D0C1)


def pcie() -> Pcie:
    """A PCI Express section with all registers."""
    device = PcieDeviceId(vendor_id=0x8086, device_id=0x1234, class_code=0x060400, bus=3)
    errors = PcieAer(
        uncorrectable_error_status=0x4000, uncorrectable_error_severity=0x46_2030, correctable_error_status=1
    )
    return Pcie(port_type=4, device_id=device, serial_number=5, capability=PcieCapability(), aer=errors)


_THEIRS = """
import sys, time, cper
data = bytes.fromhex(sys.stdin.readline())
def turn():
    start = time.process_time()
    for _ in range(COUNT): cper.parse(data)
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


def decoding(interpreter: Path | None, data: bytes) -> tuple[float, float | None]:
    """Records a second: ours, and libcper's; the least of several rounds, in turns."""
    records = [data] * COUNT

    def ours() -> None:
        for record in records:
            orjson.dumps(Record.plain_of(record))

    mine, theirs = [], []
    if interpreter is None:
        mine = [seconds(ours) for _ in range(ROUNDS)]
        return COUNT / min(mine), None
    code = _THEIRS.replace("COUNT", str(COUNT))
    with subprocess.Popen(
        [interpreter, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as p:
        assert p.stdin is not None
        assert p.stdout is not None
        p.stdin.write(data.hex() + "\n")
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
    table = Table("record", "bytes", "to JSON text", "libcper's module", "times", "at least")
    for name, section in (("memory", MEMORY), ("ARM processor", arm()), ("PCIe", pcie())):
        data = Record.of([section], record_id=7).encode()
        assert Record.decode(data).plain() == Record.plain_of(data)
        mine, theirs = decoding(interpreter, data)
        times = "" if theirs is None else f"{mine / theirs:.1f}"
        good = good and (theirs is None or mine / theirs >= WANTED[name])
        table.add_row(
            name, str(len(data)), f"{mine:,.0f}/s", "" if theirs is None else f"{theirs:,.0f}/s", times,
            f"{WANTED[name]:.0f}",
        )  # fmt: skip
    console.print(f"CPER, processor time, least of {ROUNDS} rounds of {COUNT:,}")
    console.print(table)
    data = Record.of([MEMORY], record_id=7).encode()
    text = orjson.dumps(Record.plain_of(data))
    assert Record.raw_of_plain(orjson.loads(text)) == data

    def encode() -> None:
        for _ in range(COUNT):
            Record.raw_of_plain(orjson.loads(text))

    rate = COUNT / min(seconds(encode) for _ in range(ROUNDS))
    console.print(f"JSON text to memory records: {rate:,.0f}/s (at least {ENCODED:,})")
    return columnar(console, data) and good and rate >= ENCODED


def columnar(console: Console, data: bytes) -> bool:
    """The same records into columns."""
    try:
        import numpy
    except ImportError:
        print("numpy is not installed: no columns", file=sys.stderr)
        return True
    from cper.columns import columns

    many = data * 200_000
    found = columns(many, PlatformMemory)
    assert int(found["physical_address"].values.sum()) == 0x12345000 * 200_000
    assert isinstance(found["node"].values, numpy.ndarray)
    rate = 200_000 / min(seconds(lambda: columns(many, PlatformMemory)) for _ in range(ROUNDS))
    console.print(f"memory records to {len(found)} columns: {rate:,.0f}/s (at least {COLUMNS:,})")
    return rate >= COLUMNS
