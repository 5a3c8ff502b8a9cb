"""Register contexts of the IA32/X64 Processor Error section (UEFI 2.10, N.2.4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import construct as c

from cper.framed import Framed
from cper.wire import U16, U32, U64, OpenEnum, Reserved, Struct, TruncatedError, WireError, Word, blob, u16
from cper.wire._construct import Wire


class RegisterContextType(OpenEnum):
    """What the register array holds (Register Context Type)."""

    UNCLASSIFIED = 0
    MSR = 1
    IA32 = 2
    X64 = 3
    FXSAVE = 4
    DEBUG_IA32 = 5
    DEBUG_X64 = 6
    MEMORY_MAPPED = 7


class ContextHead(Struct, size=16):
    """What precedes a register array."""

    register_context_type: Annotated[RegisterContextType, u16]
    """What the array holds."""
    register_array_size: U16
    """Bytes of the array."""
    msr_address: U32 = 0
    """First of the machine specific registers."""
    mm_register_address: U64 = 0
    """First of the memory mapped registers."""


class MsrValue(Struct, size=8):
    """A machine specific register; the first is that of msr_address."""

    value: U64


class Ia32Registers(Struct, size=92):
    """Registers of a processor in 32-bit mode."""

    eax: U32
    ebx: U32
    ecx: U32
    edx: U32
    esi: U32
    edi: U32
    ebp: U32
    esp: U32
    cs: U16
    ds: U16
    ss: U16
    es: U16
    fs: U16
    gs: U16
    eflags: U32
    eip: U32
    cr0: U32
    cr1: U32
    cr2: U32
    cr3: U32
    cr4: U32
    gdtr: Annotated[bytes, blob(8)]
    idtr: Annotated[bytes, blob(8)]
    ldtr: U16
    tr: U16


class X64Registers(Struct, size=244):
    """Registers of a processor in 64-bit mode.  edk2's structure, without CR8, is kept as bytes."""

    rax: U64
    rbx: U64
    rcx: U64
    rdx: U64
    rsi: U64
    rdi: U64
    rbp: U64
    rsp: U64
    r8: U64
    r9: U64
    r10: U64
    r11: U64
    r12: U64
    r13: U64
    r14: U64
    r15: U64
    cs: U16
    ds: U16
    ss: U16
    es: U16
    fs: U16
    gs: U16
    reserved: ClassVar[Word] = Reserved(4)
    rflags: U64
    rip: U64
    cr0: U64
    cr1: U64
    cr2: U64
    cr3: U64
    cr4: U64
    cr8: U64
    gdtr: Annotated[bytes, blob(16)]
    idtr: Annotated[bytes, blob(16)]
    ldtr: U16
    tr: U16


_REGISTERS: dict[int, type[Struct]] = {
    RegisterContextType.MSR: MsrValue,
    RegisterContextType.IA32: Ia32Registers,
    RegisterContextType.X64: X64Registers,
}
"""What a register array of that type is made of."""


class _RegisterKind:
    """Which registers JSON describes: those whose names it has."""

    @classmethod
    def of_plain(cls, value: Mapping[str, Any], /) -> Struct:
        for kind in _REGISTERS.values():
            if kind.model_fields.keys() - {"residue"} <= value.keys():
                return kind.of_plain(value)
        raise ValueError("registers are those of IA32, of X64, or the value of an MSR")


@dataclass(frozen=True)
class ProcessorContext(Framed):
    """One register context: MSRs and the registers of both modes decoded, other arrays as bytes."""

    KINDS = {"head": ContextHead, "registers": _RegisterKind}

    head: ContextHead
    """What the array holds, and how long it is."""
    registers: tuple[Struct, ...] = ()
    """The array, where its type and its length are known."""
    data: bytes = b""
    """The array, where they are not."""
    padding: bytes = b""
    """Bytes up to the next multiple of 16."""


class Contexts(c.Construct):  # type: ignore[misc]
    """``count`` register contexts, one behind the other, each padded to a multiple of 16 bytes."""

    def __init__(self, structure: str, name: str, count: str) -> None:
        super().__init__()
        self.structure, self.name_, self.count = structure, name, count

    def _parse(self, stream: Any, context: Any, path: str) -> tuple[ProcessorContext, ...]:
        count = getattr(context.head, self.count)  # 63 at most, and each takes 16 bytes
        return tuple(self._one(stream, context, path, f"{self.name_}[{index}]") for index in range(count))

    def _one(self, stream: Any, context: Any, path: str, name: str) -> ProcessorContext:
        at = stream.tell()
        try:
            head: Any = Wire(ContextHead)._parse(stream, context, path)
        except WireError as error:
            raise error.within(self.structure, f"{name}.head") from None
        size, left = head.register_array_size, c.stream_size(stream) - stream.tell()
        if size > left:
            where = f"{name}.head.register_array_size"
            place = at + ContextHead.at("register_array_size").offset
            raise TruncatedError(
                f"{size} bytes needed, {left} given", structure=self.structure, path=where, offset=place
            )
        data = stream.read(size)
        padding = stream.read(-size % 16)
        kind = _REGISTERS.get(head.register_context_type)
        if kind is None or (size % kind.SIZE if kind is MsrValue else size != kind.SIZE):
            return ProcessorContext(head, (), data, padding)
        found = tuple(kind.decode(data, start) for start in range(0, size, kind.SIZE))
        return ProcessorContext(head, found, b"", padding)

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        for entry in obj:
            stream.write(entry.encode())
        return obj
