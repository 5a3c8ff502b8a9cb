"""Software Delegated Exception Interface Table (Arm DEN0054, 5.2): its presence says that the interface is there.

How the calls are made (SMC or HVC) follows from the FADT's ARM boot flags.
"""

from __future__ import annotations

from acpi.frame import FixedTable, TableHead


class SdeiHeader(TableHead, size=36):
    """The whole table: a header and nothing else."""


class Sdei(FixedTable[SdeiHeader]):
    """Software Delegated Exception Interface Table; Linux makes its SDEI device where it finds one."""

    SIGNATURE = "SDEI"
    REVISION = 1
    HEAD = SdeiHeader


__all__ = ["Sdei", "SdeiHeader"]
