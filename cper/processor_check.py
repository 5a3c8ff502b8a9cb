"""What IA32/X64 checks and ARM error informations name alike (UEFI 2.10, N.2.4.2 and N.2.4.4)."""

from __future__ import annotations

from cper.wire import OpenEnum


class TransactionType(OpenEnum):
    """What was transferred (Transaction Type)."""

    INSTRUCTION = 0
    DATA_ACCESS = 1
    GENERIC = 2


class BusOperation(OpenEnum):
    """What caused the error (Operation of a bus error, and of an IA32/X64 TLB check)."""

    GENERIC = 0
    GENERIC_READ = 1
    GENERIC_WRITE = 2
    DATA_READ = 3
    DATA_WRITE = 4
    INSTRUCTION_FETCH = 5
    PREFETCH = 6


class ParticipationType(OpenEnum):
    """The processor's part in the bus error (Participation Type)."""

    ORIGINATED = 0
    RESPONDED = 1
    OBSERVED = 2
    GENERIC = 3
