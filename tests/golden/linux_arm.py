"""What arm64 Linux 7.2 logs about an ARM processor section, written from decoded fields.

The formats are those of ``drivers/firmware/efi/cper-arm.c``; only values come from us.  Lines are without indentation,
and a hex dump is one item: its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from cper.arm_error import ArmBusError, ArmCacheError, ArmError, ArmTlbError
from cper.arm_processor import ArmErrorInformation, ArmProcessor

TRANSACTION = {"instruction": "Instruction", "data_access": "Data Access", "generic": "Generic"}
SNOOPED = "Snooped (processor raised a cache error caused by another processor or device snooping its cache)"
OPERATION = {
    "generic": "Generic error (type cannot be determined)",
    "generic_read": "Generic read (type of instruction or data request cannot be determined)",
    "generic_write": "Generic write (type of instruction of data request cannot be determined)",
    "data_read": "Data read",
    "data_write": "Data write",
    "instruction_fetch": "Instruction fetch",
    "prefetch": "Prefetch",
    "eviction": "Eviction",
    "snooping": "Snooping (processor initiated a cache snoop that resulted in an error)",
    "snooped": SNOOPED,
    "management": "Management",
    "local_management": "Local management operation (processor initiated a TLB management operation that "
    "resulted in an error)",
    "external_management": "External management operation (processor raised a TLB error caused by another processor "
    "or device broadcasting TLB operations)",
}
PARTICIPATION = {
    "originated": "Local processor originated request",
    "responded": "Local processor responded to request",
    "observed": "Local processor observed",
    "generic": "Generic",
}
SPACE = {0: "External Memory Access", 1: "Internal Memory Access", 2: "Unknown", 3: "Device Memory Access"}
CONTEXT = [
    "AArch32 general purpose registers", "AArch32 EL1 context registers", "AArch32 EL2 context registers",
    "AArch32 secure context registers", "AArch64 general purpose registers", "AArch64 EL1 context registers",
    "AArch64 EL2 context registers", "AArch64 EL3 context registers", "Misc. system register structure",
]  # fmt: skip
KIND = {ArmCacheError: ("cache error", "cache level"), ArmTlbError: ("TLB error", "TLB level")}
KIND[ArmBusError] = ("bus error", "affinity level at which the bus error occurred")
NUMBERS = ["cache error", "TLB error", "bus error", "micro-architectural error"]


def render(section: ArmProcessor, number: bool = False) -> Iterator[str | bytes]:
    """The report; ``number``: of a kernel to which Type is a number."""
    head = section.head
    yield "section_type: ARM processor error"
    yield f"MIDR: 0x{head.midr:016x}"
    if head.mpidr is not None:
        yield f"Multiprocessor Affinity Register (MPIDR): 0x{head.mpidr:016x}"
    if head.affinity_level is not None:
        yield f"error affinity level: {head.affinity_level}"
    if head.running_state is not None:
        word = int.from_bytes(head.running_state.encode()[:4], "little")  # the kernel prints reserved bits too
        assert head.running_state.running == word & 1
        yield f"running state: 0x{word:x}"
        state = head.running_state.psci_state
        yield f"Power State Coordination Interface state: {state - (state >> 31 << 32)}"
    for index, information in enumerate(section.error_information):
        yield f"Error info structure {index}:"
        yield from _information(information, number)
    for index, context in enumerate(section.contexts):
        yield f"Context info structure {index}:"
        if context.head.register_context_type > 8:
            yield f"Invalid context type: {int(context.head.register_context_type)} (max: 8)"
            return
        yield f"register context type: {CONTEXT[context.head.register_context_type]}"
        yield b"".join(register.encode() for register in context.registers) + context.data
    if section.vendor_information:
        yield f"Vendor specific error info has {len(section.vendor_information)} bytes:"
        yield section.vendor_information


def _information(information: ArmErrorInformation, number: bool) -> Iterator[str]:
    word = int.from_bytes(information.encode()[5:7], "little")  # printed whether valid or not, and one more
    assert information.multiple_error in {None, word}
    yield f"num errors: {word + 1}"
    flags = information.flags
    if flags is not None:
        words = {
            flags.FIRST: "first error captured", flags.LAST: "last error captured",
            flags.PROPAGATED: "propagated error captured",
            flags.OVERFLOW: "overflow occurred, error info is incomplete",
        }  # fmt: skip
        yield from (text for mask, text in words.items() if flags & mask)
    kind = int(information.type)
    if number:
        yield f"error_type: {kind}, {NUMBERS[kind] if kind < 4 else 'unknown'}"
    else:
        names = [NUMBERS[bit - 1] for bit in range(1, 5) if kind & 1 << bit]
        yield f"error_type: 0x{kind:02x}: {'|'.join(names)}{' with reserved bit(s)' if kind & ~0x1E else ''}".strip()
    found = information.error_information
    if found is not None:
        word = found if isinstance(found, int) else int.from_bytes(found.encode(), "little")
        yield f"error_info: 0x{word:016x}"
        if isinstance(found, ArmError):
            yield from _error(found, number)
    if information.virtual_fault_address is not None:
        yield f"virtual fault address: 0x{information.virtual_fault_address:016x}"
    if information.physical_fault_address is not None:
        yield f"physical fault address: 0x{information.physical_fault_address:016x}"


def _error(e: ArmError, number: bool) -> Iterator[str]:
    name, level = KIND[type(e)]
    if e.transaction_type is not None and e.transaction_type.known:
        yield f"transaction type: {TRANSACTION[str(e.transaction_type.plain)]}"
    if e.operation is not None and e.operation.known:
        yield f"{'' if number else name + ', '}operation type: {OPERATION[str(e.operation.plain)]}"
    if e.level is not None:
        yield f"{level}: {e.level}"
    if e.context_corrupt is not None:
        yield f"processor context {'' if e.context_corrupt else 'not '}corrupted"
    if e.corrected is not None:
        yield f"the error has {'' if e.corrected else 'not '}been corrected"
    if e.precise_pc is not None:
        yield f"PC is {'' if e.precise_pc else 'im'}precise"
    if e.restartable_pc:
        yield "Program execution can be restarted reliably at the PC associated with the error."
    if not isinstance(e, ArmBusError):
        return
    if e.participation_type is not None:
        yield f"participation type: {PARTICIPATION[str(e.participation_type.plain)]}"
    if e.time_out:
        yield "request timed out"
    if e.address_space is not None:
        yield f"address space: {SPACE[int(e.address_space)]}"
    if e.memory_attributes is not None:
        yield f"memory access attributes:0x{e.memory_attributes:x}"
    if e.access_mode is not None:
        yield f"access mode: {e.access_mode.plain}"
