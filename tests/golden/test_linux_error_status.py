"""Error Status words that real kernels named: our decoding against their words, for every type."""

from __future__ import annotations

import re

import pytest

from acpi.ghes import StatusBlock
from cper.error_status import ErrorStatusType
from tests.golden.linux import KERNELS, log, raw

WORDS = {
    "Error detected internal to the component": ErrorStatusType.INTERNAL,
    "Storage error in DRAM memory": ErrorStatusType.MEMORY,
    "Storage error in TLB": ErrorStatusType.TLB,
    "Storage error in cache": ErrorStatusType.CACHE,
    "Error in one or more functional units": ErrorStatusType.FUNCTION,
    "Component failed self test": ErrorStatusType.SELF_TEST,
    "Overflow or undervalue of internal queue": ErrorStatusType.FLOW,
    "Error detected in the bus": ErrorStatusType.BUS,
    "Virtual address not found on IO-TLB or IO-PDIR": ErrorStatusType.MAP,
    "Improper access error": ErrorStatusType.IMPROPER,
    "Access to a memory address which is not mapped to any component": ErrorStatusType.UNIMPLEMENTED,
    "Loss of Lockstep": ErrorStatusType.LOSS_OF_LOCKSTEP,
    "Response not associated with a request": ErrorStatusType.RESPONSE,
    "Bus parity error - must also set the A, C, or D Bits": ErrorStatusType.PARITY,
    "Detection of a protocol error": ErrorStatusType.PROTOCOL,
    "Detection of a PATH_ERROR": ErrorStatusType.PATH_ERROR,
    "Bus operation timeout": ErrorStatusType.TIMEOUT,
    "A read was issued to data that has been poisoned": ErrorStatusType.POISONED,
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_type_is_what_the_kernel_calls_it(kernel):
    text = "\n".join(log(kernel, "mem-status"))
    printed = re.findall(r"error_status: (.*) \(0x([0-9a-f]{16})\)", text)
    sections = [entry.section() for entry in StatusBlock.decode(raw("mem-status")).entries]
    seen = set()
    for section, (words, number) in zip(sections, printed, strict=True):
        status = section.error_status
        assert status.encode() == int(number, 16).to_bytes(8, "little")
        assert status.type.known == (words != "Reserved")
        if status.type.known:
            assert status.type == WORDS[words]
            seen.add(status.type)
    assert seen == set(ErrorStatusType)
