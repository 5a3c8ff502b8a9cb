"""Where libcper's Python module 0.0.4 says something else than the specification; each is seen in every run."""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()
"""A member that only the other has."""
LARGEST = (1 << 63) - 1


class Defect(NamedTuple):
    """A difference that is understood."""

    section: str
    """The member that holds the section; empty: any."""
    path: str
    """Of the member, inside the section: a regular expression."""
    theirs: bool | None
    """Whether libcper has the member where we have not; None: both have it, with other values."""
    clause: str
    why: str

    def explains(self, section: str, path: str, theirs: Any, mine: Any) -> bool:
        """Whether this is the difference."""
        if self.section not in {"", section} or not re.fullmatch(self.path, path):
            return False
        if self.theirs is None:
            return theirs is not MISSING and mine is not MISSING
        return (theirs is not MISSING) == self.theirs and (mine is MISSING) == self.theirs


def clamped(theirs: Any, mine: Any) -> bool:
    """A number beyond 63 bits, which libcper's module cuts off at the largest signed one."""
    return theirs == LARGEST and isinstance(mine, int) and not isinstance(mine, bool) and mine >= LARGEST


DEFECTS = (
    Defect("ArmProcessor", r"contextInfo.*mrsEncoding\.o0", None, "UEFI 2.10, N.2.4.4, MISC context",
           "O0 is bit 14 alone; libcper takes the reserved bit 15 as its second bit"),
    Defect("ArmProcessor", r"errorInfo.*busError\.accessMode\..*", False, "UEFI 2.10, N.2.4.4, ARM Bus Error Structure",
           "Access Mode is valid by bit 11; libcper looks at bit 8, which is Time Out's"),
    Defect("ArmProcessor", r"errorInfo.*busError\.accessMode\..*", True, "UEFI 2.10, N.2.4.4, ARM Bus Error Structure",
           "the same, the other way"),
    Defect("ArmProcessor", r"psciState", True, "UEFI 2.10, N.2.4.4, Validation Bit 2",
           "PSCI State is printed where Running State is not valid"),
    Defect("CxlProtocol", r"agentType\.name", None, "UEFI 2.10, N.2.13, CXL Agent Type",
           "agent types 2 to 7 are unknown to libcper"),
    Defect("CxlProtocol", r"cxlAgentAddress\..*Number", False, "UEFI 2.10, N.2.13, CXL Agent Address",
           "the address of agent types 2 to 7 is not printed"),
    Defect("CxlProtocol", r"cxlAgentAddress\.value", True, "UEFI 2.10, N.2.13, CXL Agent Address",
           "the address is read by an agent type that is not valid"),
    Defect("CxlProtocol", r"deviceSerial", False, "UEFI 2.10, N.2.13, Device Serial Number",
           "the serial number of other agents than a CXL 1.1 device is not printed"),
    Defect("CxlProtocol", r"deviceID\.vendorID", True, "UEFI 2.10, N.2.13, Validation Bit 2",
           "the vendor is printed where Device ID is not valid"),
    Defect("Firmware", r"recordIDGUID", True, "UEFI 2.10, N.2.10, Revision",
           "the GUID is printed for revision 0, which has none"),
    Defect("GenericDmar", r"architectureType\.name", None, "UEFI 2.10, N.2.11.1, Architecture Type",
           "VT-d is 1 and IOMMU 2; libcper has 0 and 1"),
    Defect("Ia32x64Processor", r"processorErrorInfo.*checkInfo\.errorType\.name", None, "UEFI 2.10, N.2.4.2, MS Check",
           "the names of error types 4 (FRC) and 5 (internal unclassified) are there but not looked at"),
    Defect("Ia32x64Processor", r"processorErrorInfo.*checkInfo\.operation\.name", None,
           "UEFI 2.10, N.2.4.2, TLB Check, Bus Check", "operations 7 and 8 are named as those of a cache check"),
    Defect("Memory", r"bank\.(address|group)", True, "UEFI 2.10, N.2.5, Validation Bits 6, 19, 20",
           "bank address and group are printed where neither is valid"),
    Defect("Memory", r"(card|module)SmbiosHandle", False, "UEFI 2.10, N.2.5, Validation Bits 16, 17",
           "the handles are printed only where the extended row is valid"),
    Defect("Memory", r"extended\.chipIdentification", False, "UEFI 2.10, N.2.5, Validation Bit 21",
           "chip identification is printed only where the extended row is valid"),
    Defect("Memory2", r"bank\.(address|group)", True, "UEFI 2.10, N.2.6, Validation Bits 6, 20, 21",
           "bank address and group are printed where neither is valid"),
    Defect("Memory2", r"physicalAddress", False, "UEFI 2.10, N.2.6, Validation Bit 1",
           "the physical address is printed by bit 0, which is Error Status's"),
    Defect("Memory2", r"physicalAddress", True, "UEFI 2.10, N.2.6, Validation Bit 1", "the same, the other way"),
    Defect("Memory2", r"physicalAddressHex", True, "UEFI 2.10, N.2.6, Validation Bit 1",
           "the address in hexadecimal is printed always"),
    Defect("Pcie", r"aerInfo\.root_error_status\.advanced_error_interrupt_message_number", None,
           "PCI Express 6.0, 7.8.4.10", "the number is bits 31:27; libcper takes other bits"),
    Defect("Pcie", r"deviceID\.classCode", None, "UEFI 2.10, N.2.7, Device ID",
           "the class code's bytes come in the reverse order, base class lowest; Linux prints them as we do"),
)  # fmt: skip
"""What is understood."""

WHOLE = {
    "Firmware": (
        "UEFI 2.10, N.2.10, Revision",
        "revision 0 has 16 bytes; libcper asks for 32, and leaves it as Base64",
    ),
    "CxlProtocol": (
        "UEFI 2.10, N.2.13",
        "a section without DVSEC or without error log is given up, and left as Base64",
    ),
}
"""Sections that libcper gives up though they are right."""

LEFT_OUT = {
    "Pcie": re.compile(r"capabilityStructure\.(?!data$).*"),
}
"""What this project leaves out: registers inside a capability structure, which ``data`` has too."""

__all__ = ["DEFECTS", "LEFT_OUT", "MISSING", "WHOLE", "Defect", "clamped"]
