"""Reading what real kernels said in a lab run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vmm_ras.lab import kernel_log
from vmm_ras.lab.kernel_log import (
    BOUND,
    ERST,
    WITH_SDEI,
    WITHOUT_SDEI,
    MemoryFailure,
    Victim,
    complaints,
    memory_failures,
    plain,
    tables,
    victim,
)

LAB = Path(__file__).parents[2] / "fixtures" / "lab"
LOGS = {series: (LAB / f"dmesg-{series}.txt").read_text() for series in ("6.1", "6.12")}


@pytest.mark.parametrize("series", LOGS)
def test_a_good_boot(series):
    assert all(re.search(pattern, LOGS[series]) for pattern in (*BOUND, *ERST, *WITH_SDEI))
    assert complaints(LOGS[series]) == []
    found = memory_failures(LOGS[series])
    assert len(found) == 5
    assert {(f.kind, f.outcome) for f in found} == {("dirty LRU page", "Recovered")}
    told = [line for line in LOGS[series].splitlines() if "}[Hardware Error]:   physical_address:" in line]
    pages = [int(line.rpartition("0x")[2], 16) >> 12 for line in told]
    assert pages == [f.pfn for f in found][: len(pages)]
    assert len(pages) == 2  # the others are rate-limited, and still acted on


@pytest.mark.parametrize("series", LOGS)
def test_a_boot_where_nobody_answers_sdei_calls(series):
    log = (LAB / f"dmesg-{series}-second.txt").read_text()
    assert all(re.search(pattern, log) for pattern in (*BOUND, *ERST, *WITHOUT_SDEI))
    assert complaints(log, WITHOUT_SDEI) == []
    assert len(complaints(log)) == 3  # version, mask, and the driver
    assert len(memory_failures(log)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.GED], AE_NOT_FOUND (20220331/dswload2-162)",
        "ACPI Error: AE_NOT_FOUND, During name lookup/catalog (20220331/psobject-220)",
        "ACPI Warning: Incorrect checksum in table [HEST] - 0x12, should be 0x34 (20220331/utcksum-58)",
        "ACPI: SPCR: Unexpected SPCR Access Width.  Defaulting to byte size, invalid",
        "[Firmware Bug]: the BIOS has corrupted hw-PMU resources",
        "[Firmware Warn]: GHES: Poll interval is 0 for generic hardware error source: 2, disabled.",
        "GHES: Failed to enable APEI firmware first mode.",
        "GHES: Unknown notification type: 9 for generic hardware error source: 1",
        "HEST: Table not found, corrupt",
        "BERT: Invalid boot error record.",
        "BERT: Can't request iomem region <0000000000000000-000000000000000f>.",
        "GICv3: Couldn't map GICD: unable",
        "GHES: probe of GHES.3 failed with error -5",
        "sdei sdei.0: probe with driver sdei failed with error -95",
        "ERST: Can not request [mem 0xffffffffffffffff-0xfffffffffffffffd] for ERST.",
        "psci: Conflicting PSCI version detected: not supported",
    ],
)
def test_what_a_complaint_looks_like(line):
    assert complaints(f"[    0.5] ok\n[    1.007468] {line}\n[    2.0] fine\n") == [line]


def test_times_are_cut_off():
    assert plain("[   15.226199] {1}[Hardware Error]: x") == "{1}[Hardware Error]: x"
    assert plain("no time") == "no time"


def test_a_page_that_could_not_be_taken_away():
    log = "[1.0] Memory failure: 0x5c3e9: recovery action for reserved kernel page: Ignored"
    assert memory_failures(log) == [MemoryFailure(0x5C3E9, "reserved kernel page", "Ignored", log[6:])]


def test_a_victim_tells_of_itself():
    line = "VICTIM sea pid=153 va=0xffff8c1da000 pa=0x5c3fc000 pc=0x5000000648 text=0x5c3f0648\n"
    assert victim("noise\n" + line) == Victim("sea", 153, 0xFFFF_8C1D_A000, 0x5C3F_C000, 0x50_0000_0648, 0x5C3F_0648)
    with pytest.raises(ValueError, match="no victim"):
        victim("nothing")


def test_tables_in_base64():
    text = "TABLE APIC\nQVBJ\nQw==\nTABLE data/BERT\nAAAA\n"
    assert tables(text) == {"APIC": "QVBJQw==", "data/BERT": "AAAA"}
    assert kernel_log.tables("") == {}
