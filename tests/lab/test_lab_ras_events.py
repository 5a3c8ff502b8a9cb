"""What kernels traced (Debian's 6.1.176 and 7.2.12 under QEMU) is taken apart, and compared with our own reading."""

# ruff: noqa: E501  # lines of traces

from uuid import UUID

import pytest

from acpi.ghes import Entry, StatusBlock
from cper.arm_processor import ArmCacheErrorInformation, ArmProcessor, ArmRunningState
from cper.common import Severity
from cper.memory import PlatformMemory
from cper.processor_generic import ProcessorGeneric
from vmm_ras.lab import ras_events
from vmm_ras.lab.ras_events import differences, expected, traced
from vmm_ras.profiles import PROFILES, SECTION_TYPES

OLD, NEW = PROFILES["linux-6.1"], PROFILES["linux-7.2"]
UNKNOWN = UUID("11111111-2222-3333-4444-555555555555")
ARM_61 = (
    "     kworker/0:1-16      [000] d....     6.326020: arm_event: affinity level: 255; MPIDR: 0000000000000000; "
    "MIDR: 00000000410fd0c1; running state: -1; PSCI state: -1"
)
ARM_72 = (
    "     kworker/0:1-11      [000] d..1.    14.741177: arm_event: cpu: 0; error: 2; affinity level: 255; "
    "MPIDR: 0000000000000000; MIDR: 00000000410fd0c1; running state: -1; PSCI state: -1; ARM Processor Err Info data len: "
    "32; ARM Processor Err Info raw data: 00 20 10 00 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 d0 "
    "55 59 00 00 00 00; ARM Processor Err Context Info data len: 0; ARM Processor Err Context Info raw data: ; "
    "Vendor Specific Err Info data len: 0; Vendor Specific Err Info raw data: "
)
OTHER_61 = (
    "          victim-228     [000] dNh..    26.777556: non_standard_event: severity: 2; sec type:"
    "11111111-2222-3333-4444-555555555555; FRU: 00000000-0000-0000-0000-000000000000 ; data len:40; raw data:"
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f20 21 22 23 24 25 26 27"
)
FAILURE = "     kworker/0:1-11      [000] .l...    36.186923: memory_failure_event: pfn 0x7fff123f5: recovery action for non struct page pfn: Ignored"  # fmt: skip
LOG = "[   36.188554] Memory failure: 0x7fff123f5: recovery action for non struct page pfn: Ignored\n"


def block(*entries):
    return StatusBlock.of(entries).encode()


ARM = ArmProcessor.of(
    [ArmCacheErrorInformation(error_information=None, physical_fault_address=0x5955_D000)], midr=0x410FD0C1
)
ERROR = block(Entry.of(ARM))
OTHER = block(Entry(Entry.of(PlatformMemory()).header.model_copy(update={"section_type": UNKNOWN, "error_data_length": 40}),
                    bytes(range(40))))  # fmt: skip


def test_what_kernels_traced_is_what_we_read():
    assert differences(traced(ARM_72), expected([ERROR], "", NEW)) == []
    assert differences(traced(ARM_61), expected([ERROR], "", OLD)) == []
    assert differences(traced(OTHER_61), expected([OTHER], "", OLD)) == []
    assert differences(traced(FAILURE), expected([], LOG, NEW)) == []
    everything = "\n".join([ARM_72, OTHER_61, FAILURE, "# comment"])
    assert differences(traced(everything), expected([ERROR, OTHER, OTHER], LOG, NEW)) == []


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (ARM_72, "410fd0c1", "410fd0c2"), (ARM_72, "error: 2", "error: 1"), (ARM_72, "00 20 10", "00 20 11"),
        (ARM_72, "level: 255", "level: 1"), (ARM_72, "PSCI state: -1", "PSCI state: 0"), (OTHER_61, "26 27", "26 28"),
        (OTHER_61, "severity: 2", "severity: 3"), (OTHER_61, "1111-2222", "2222-1111"), (OTHER_61, ":40", ":41"),
        (OTHER_61, "000 ;", "000 DIMM;"), (FAILURE, "0x7", "0x8"), (FAILURE, "Ignored", "Recovered"),
    ],
)  # fmt: skip
def test_one_field_otherwise_is_two_differences(line, old, new):
    assert old in line
    wanted = expected(
        [ERROR if line is ARM_72 else OTHER] if line is not FAILURE else [], LOG if line is FAILURE else "", NEW
    )
    found = differences(traced(line.replace(old, new)), wanted)
    assert [text.partition(":")[0] for text in found] == ["traced, not expected", "not traced"]


def test_what_is_missing_and_what_is_too_much():
    assert [text[:10] for text in differences([], expected([ERROR], LOG, NEW))] == ["not traced"] * 2
    assert differences([], expected([ERROR], LOG, NEW), stopped=True) == []
    assert ras_events.stopped("[ 1.0] Internal error: synchronous external abort: 96000410 [#1] SMP")
    assert not ras_events.stopped(LOG)
    edac = (
        "x: mc_event: 1 Corrected error: on DIMM (mc:0 location:0:0:0 address:0x00000000 grain:0 syndrome:0x00000000)"
    )
    assert differences(traced(edac), []) == [
        "traced, not expected: event mc_event, text " + edac.partition("mc_event: ")[2]
    ]


def test_what_linux_acts_on_is_traced_otherwise_or_not():
    dram = Entry(
        Entry.of(PlatformMemory()).header.model_copy(update={"section_type": SECTION_TYPES["cxl_dram"]}), bytes(80)
    )
    blocks = [block(Entry.of(PlatformMemory(physical_address=0x1000)), dram), b"\1" * 30]
    assert expected(blocks, "", NEW) == []
    [event] = expected(blocks, "", OLD)
    assert event["type"] == "b3cb1d60-069c-ab4e-b8af-4e9bfb5c9624"  # as 6.1 prints it


def test_what_the_log_calls_otherwise():
    log = "[ 1.0] Memory failure: 0x4a809: recovery action for already poisoned page: Failed\n"
    line = "  x: memory_failure_event: pfn 0x4a809: recovery action for already poisoned: Failed"
    assert differences(traced(line), expected([], log, NEW)) == []


def test_of_every_severity():
    for severity, number in ((Severity.INFORMATIONAL, "0"), (Severity.CORRECTED, "1"), (Severity.RECOVERABLE, "2")):
        entry = Entry.of(ProcessorGeneric(level=1), severity=severity, fru_text="CPU 1")
        [event] = expected([block(entry)], "", NEW)
        assert (event["severity"], event["text"]) == (number, "CPU 1")


def test_an_arm_section_with_all_it_can_have():
    full = ArmProcessor.of(
        [ArmCacheErrorInformation(error_information=None)] * 2, vendor_information=b"abc", mpidr=0x8000_0001,
        affinity_level=2, running_state=ArmRunningState(running=True, psci_state=0xFFFF_FFFE),
    )  # fmt: skip
    [event] = expected([block(Entry.of(full))], "", NEW)
    assert (event["mpidr"], event["affinity"], event["running"], event["psci"]) == ("0000000080000001", "2", "1", "-2")
    assert (len(event["errors"]), event["contexts"], event["vendor"]) == (128, "", b"abc".hex())
