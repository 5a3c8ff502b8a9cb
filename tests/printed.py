"""`python -m tests.printed`: random records of each type, told to real kernels; what they print is what we read.

The bodies are those of the comparison with libcper (``tests.oracle.generate``); the kernels' words are those of
``tests.golden``.  A section of a type that a kernel does not know is dumped, and the dump must be the body.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from acpi.ghes import DataEntry300, Entry, StatusBlock
from cper.common import Severity
from cper.wire import WireError
from tests.golden import linux, linux_arm, linux_sections
from tests.golden import test_linux_cxl_protocol as cxl_protocol
from tests.golden import test_linux_firmware_error as firmware
from tests.golden import test_linux_pcie as pcie
from tests.golden import test_linux_processor_generic as processor_generic
from tests.oracle import generate
from vmm_ras.events import TellRecord
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab.conformance import Boot
from vmm_ras.lab.guest_packages import SERIES, GuestPackages
from vmm_ras.lab.kernel_log import plain
from vmm_ras.lab.script_stage import QemuStage
from vmm_ras.profiles import PROFILES
from vmm_ras.scenario.bound import source_named
from vmm_ras.traces.script import Head, Script

TYPES = {
    "memory": UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1"), "arm": UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"),
    "pcie": UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35"), "generic": UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db"),
    "firmware": UUID("81212a96-09ed-4996-9471-8d729c8e69ed"), "cxl": UUID("80b9efb4-52b5-4de3-a777-68784b771048"),
    "cxl-dram": UUID("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"), "memory-2": UUID("61ec04fc-48e6-d813-25c9-8daa44750b12"),
}  # fmt: skip
SOURCE, LENGTH = "polled:1", 8192
"""The source with the largest block."""
REPORT = Path(__file__).parents[1] / "fixtures" / "conformance" / "printed.json"
EMPTY = Script("printed", Head("records, one after the other", preset="conformance"), ())
PAUSE = 3.0
"""Seconds between blocks: Linux prints two corrected ones in five seconds."""


def usual(name: str, body: bytes) -> bool:
    """Whether no kernel is known to read it otherwise than the text (``tests.golden`` says how)."""
    if name == "firmware":
        return body[1] != 1  # they miss the GUID of revision 1
    if name == "pcie":
        return body[11] < 0x80  # a port type is a signed number to them, and a version no BCD
    if name == "arm":
        count = int.from_bytes(body[4:6], "little")
        known = all(body[44 + 32 * n] in {2, 4, 8, 16} for n in range(count))  # of other types they read some more
        context = 40 + 32 * count
        size = 8 + int.from_bytes(body[context + 4 : context + 8], "little")
        return known and (body[6] == 0 or size % 16 == 0)  # 7.2 wants contexts in units of 16 bytes
    if name != "cxl":
        return True
    valid, agent = body[0], body[8]
    dvsec, log = (int.from_bytes(body[at : at + 2], "little") for at in (108, 110))
    known = bool(valid & 1) or agent == 0  # 7.2 looks at an agent type that is not valid
    return known and (dvsec >= 10 or not valid & 32) and (log == 88 or not valid & 64)


def made(name: str) -> bytes:
    """A random body; of PCIe with a version that there is."""
    body = generate.body(TYPES[name])
    return body[:12] + bytes([random.randrange(10), random.randrange(10)]) + body[14:] if name == "pcie" else body


def blocks(each: int) -> Iterator[tuple[list[str], StatusBlock]]:
    """Blocks full of random sections, and the names of their types."""
    wanted = [name for name in TYPES for _ in range(each)]
    random.shuffle(wanted)
    names, entries, size = list[str](), list[Entry](), 20
    for name in wanted:
        body = next(body for body in iter(partial(made, name), None) if usual(name, body))
        severity = random.choice([Severity.CORRECTED, Severity.INFORMATIONAL])
        text = "".join(random.choices("DIMM_ A1", k=random.randint(0, 19)))
        header = DataEntry300(
            section_type=TYPES[name],
            severity=severity,
            error_data_length=len(body),
            revision=0x300,
            fru_text=text or None,
        )
        if size + DataEntry300.SIZE + len(body) > LENGTH:
            yield names, StatusBlock.of(entries, severity=Severity.CORRECTED)
            names, entries, size = [], [], 20
        names.append(name)
        entries.append(Entry(header, body))
        size += DataEntry300.SIZE + len(body)
    yield names, StatusBlock.of(entries, severity=Severity.CORRECTED)


def told(stage: QemuStage, block: bytes) -> tuple[str, ...]:
    """What the kernel prints of a block, without times."""
    source = source_named(stage.sources, SOURCE)
    stage.linux.run("dmesg -c > /dev/null")
    stage.adapter.receive(TellRecord(block, source.source_id))
    stage.settle(20)
    deadline, text = Deadline(20, "the kernel prints it"), ""
    while "Hardware error from APEI" not in text:
        deadline.check()
        text += stage.linux.run("dmesg -c")
    return tuple(plain(line) for line in (text + stage.linux.run("sleep 0.2; dmesg -c")).splitlines())


def ours(name: str, entry: Entry, kernel: str) -> list[str | bytes] | None:
    """What the kernel must print of a section that it knows; None: the report as a whole is compared."""
    section: Any = entry.section()
    if name == "arm":
        return list(linux_arm.render(section))
    if name == "pcie":
        return list(pcie.render(entry.header, section, kernel))
    if name == "generic":
        return list(processor_generic.render(section))
    if name == "firmware":
        return list(firmware.render(section))
    if name == "cxl":
        return list(cxl_protocol.render(section))
    return None


ACTED = re.compile(r"AER: .*no pci_dev|\[Firmware Warn\]: CXL CPER |CXL CPER |.*cxl")
"""Lines about what the kernel does with a section: the machine has no device."""
READERS = {"generic": processor_generic.joined, "arm": linux_sections.items, "cxl": linux_sections.items}
"""How the printed lines of a type are made comparable."""


def differences(
    names: list[str], block: StatusBlock, lines: tuple[str, ...], kernel: str, tally: Counter[str]
) -> list[str]:
    """Where a kernel printed something else than we read."""
    source = next(line for line in lines if "Hardware error from APEI" in line).rpartition(" ")[2]
    whole = linux.comparable(
        linux.without_foreign(linux.report(tuple(line for line in lines if not ACTED.match(line))))
    )
    rendered = linux.comparable(linux.without_foreign(linux.render(block.header, linux.parts(block))))
    rendered = [line.replace("Error Source: 5", f"Error Source: {source}") for line in rendered]
    out = [f"the report: {a!r}, not {b!r}" for a, b in zip(whole, rendered, strict=False) if a != b]
    if len(whole) != len(rendered):
        out.append(f"the report: {len(whole)} lines, not {len(rendered)}: {set(whole) ^ set(rendered)}")
    sections = linux_sections.sections(lines)
    if len(sections) != len(names):
        return [*out, f"{len(sections)} sections, not {len(names)}"]
    for name, entry, printed in zip(names, block.entries, sections, strict=True):
        dumped = any("section type: unknown" in line for line in printed)
        if dumped == (TYPES[name] in PROFILES[f"linux-{kernel}"].sections):
            out.append(f"{name}: {'dumped' if dumped else 'known'}, which the profile's `sections` denies")
        if dumped:
            tally[f"{name}, dumped"] += 1
            dump = b"".join(item for item in linux_sections.items(printed) if isinstance(item, bytes))
            if dump != entry.body or entry.section().encode() != entry.body:
                out.append(f"{name}: the dump is not the body")
            continue
        tally[name] += 1
        try:
            wanted = ours(name, entry, kernel)
        except WireError as error:
            out.append(f"{name}: {error}; the kernel printed {printed}")
            continue
        theirs = READERS.get(name, list)([line for line in printed if not line.startswith("fru_text:")])
        if wanted is not None and wanted != theirs:
            pairs = [(a, b) for a, b in zip([*theirs, ""], [*wanted, ""], strict=False) if a != b]
            out.append(f"{name}: printed {pairs[0][0]!r}, read {pairs[0][1]!r}; body {entry.body.hex()}")
    return out


def run(series: str, each: int, seed: int) -> dict[str, Any]:
    """One kernel: how many sections of each type it printed, and how many differences there were."""
    random.seed(seed)
    boot, tally, bad = Boot(GuestPackages().prepare(series)), Counter[str](), 0
    try:
        stage = boot.up()
        stage.open(EMPTY)
        for names, block in blocks(each):
            for text in differences(names, block, told(stage, block.encode()), series, tally):
                print(f"Linux {series}: {text}", flush=True)
                bad += 1
            time.sleep(PAUSE)
    except Failure as error:
        print(f"Linux {series}: {error}\n{error.detail}", flush=True)
        bad += 1
    finally:
        boot.down()
    counts = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()))
    print(f"Linux {series}: {tally.total()} sections ({counts}): {bad or 'no'} differences", flush=True)
    return {"kernel": boot.lab.kernel.version, "sections": dict(sorted(tally.items())), "differences": bad}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.printed", description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", action="append", choices=SERIES)
    parser.add_argument("--each", type=int, default=40, help="sections of each type")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="write what was compared, for docs/conformance.md")
    args = parser.parse_args()
    found = {series: run(series, args.each, args.seed) for series in args.kernel or SERIES}
    if args.report:
        known = json.loads(REPORT.read_text()) if REPORT.exists() else {}
        REPORT.write_text(json.dumps(known | found, indent=1, sort_keys=True) + "\n")
    return 1 if any(one["differences"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
