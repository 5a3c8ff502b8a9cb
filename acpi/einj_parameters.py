"""What OSPM says about the error that it wants injected (ACPI 6.5, 18.6.1, SET_ERROR_TYPE_WITH_ADDRESS).

The structure lies in a buffer that the injection table's SET_ERROR_TYPE_WITH_ADDRESS entry points to.  Linux fills the
buffer and executes, without ever running that action.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import construct as c

from acpi.einj import Einjv2ErrorType, ErrorType
from acpi.frame import Counted
from cper.wire import (
    U8,
    U16,
    U32,
    U64,
    Bits,
    DecodeError,
    OpenFlags,
    Reserved,
    Struct,
    TruncatedError,
    WireError,
    Word,
    blob,
    u32,
)
from cper.wire._construct import Wire


class TargetFlags(OpenFlags):
    """Which of the structure's fields count."""

    PROCESSOR = 1 << 0
    MEMORY = 1 << 1
    PCIE_SBDF = 1 << 2
    EINJV2 = 1 << 3


class SetErrorTypeWithAddress(Struct, size=36):
    """SET_ERROR_TYPE_WITH_ADDRESS data structure (18.6.1, Table 18.30)."""

    error_type: Annotated[ErrorType, u32] = ErrorType(0)
    """What to inject: one bit.  With EINJV2 the bits are those of ``Einjv2ErrorType``."""
    vendor_extension_offset: U32 = 0
    """Bytes from the start of this structure to the vendor's extension; 0: there is none."""
    flags: Annotated[TargetFlags, u32] = TargetFlags(0)
    """Which of the fields below count."""
    processor_id: U32 = 0
    """The processor's ACPI id, APIC id or MPIDR, as the architecture has it."""
    memory_address: U64 = 0
    """Guest physical address."""
    memory_address_mask: U64 = 0
    """Memory Address Range: the bits of the address that count."""
    pcie_sbdf: ClassVar[Word] = Word("I")
    pcie_function: Annotated[int, Bits("pcie_sbdf", 8, 11)] = 0
    """Function number."""
    pcie_device: Annotated[int, Bits("pcie_sbdf", 11, 16)] = 0
    """Device number."""
    pcie_bus: Annotated[int, Bits("pcie_sbdf", 16, 24)] = 0
    """Bus number."""
    pcie_segment: Annotated[int, Bits("pcie_sbdf", 24, 32)] = 0
    """Segment group."""


class VendorErrorTypeExtension(Struct, size=16):
    """Vendor Error Type Extension (18.6.1, Table 18.31); the vendor's own data follow it."""

    length: U32
    """Bytes, the vendor's own data included."""
    pcie_sbdf: U32 = 0
    """Segment (31:24), bus (23:16), device (15:11), function (10:8) of the device whose vendor this is."""
    vendor_id: U16 = 0
    """PCI vendor id."""
    device_id: U16 = 0
    """PCI device id."""
    revision_id: U8 = 0
    """PCI revision id."""
    reserved: ClassVar[Word] = Reserved(3)


class Einjv2Extension(Struct, size=8):
    """EINJ version 2 extension (ACPI 6.5A, 18.6.1): begins at offset 36; components follow it."""

    length: U32
    """Bytes of this structure and of the room for components behind it."""
    revision: U16 = 1
    """Linux reads revision 1."""
    component_array_count: U16 = 0
    """Components that count."""


class Einjv2Component(Struct, size=32):
    """One component of an EINJ version 2 injection: which one, and what shall befall it."""

    component_id: Annotated[bytes, blob(16)] = bytes(16)
    """Processor, device, PCI Express function or vendor's component."""
    component_syndrome: Annotated[bytes, blob(16)] = bytes(16)
    """What shall be reported of it."""


EINJV2_AT = SetErrorTypeWithAddress.SIZE
"""Where the EINJ version 2 extension begins."""

_COMPONENTS = c.Struct(
    "head" / Wire(Einjv2Extension),
    "components" / Counted(Einjv2Component, "InjectionParameters.einjv2", Einjv2Extension, "component_array_count"),
)


class InjectionParameters(NamedTuple):
    """The whole buffer: the structure, and the extensions that it announces."""

    target: SetErrorTypeWithAddress
    components: tuple[Einjv2Component, ...] | None = None
    """Components of an EINJ version 2 injection; None without EINJV2."""
    vendor: VendorErrorTypeExtension | None = None
    """The vendor's extension; None where the offset is 0."""
    vendor_data: bytes = b""
    """The vendor's own data."""

    @property
    def einjv2_error_type(self) -> Einjv2ErrorType:
        """The error type of a version 2 injection."""
        return Einjv2ErrorType(int(self.target.error_type))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the buffer.  Raises TruncatedError, DecodeError where an extension reaches past it."""
        try:
            target = SetErrorTypeWithAddress.decode(data)
        except WireError as error:
            raise error.within("InjectionParameters", "target") from None
        components = _components(data) if target.flags & TargetFlags.EINJV2 else None
        vendor, own = None, b""
        if target.vendor_extension_offset:
            vendor, own = _vendor(data, target.vendor_extension_offset)
        return cls(target, components, vendor, own)

    @classmethod
    def blank(cls, size: int, components: int = 0, vendor: bytes = b"") -> bytes:
        """A buffer of ``size`` bytes as OSPM finds it at boot.

        ``components``: room for so many, announced in the extension's length; ``vendor``: a vendor's extension with its
        data, put behind that room.  Raises ValueError where the buffer is too small.
        """
        extension = Einjv2Extension(length=Einjv2Extension.SIZE + Einjv2Component.SIZE * components)
        # Linux 6.17 and newer copy four bytes more than the extension's length says: its C structure is padded.
        end = EINJV2_AT + extension.length + 4 if components else EINJV2_AT
        target = SetErrorTypeWithAddress(vendor_extension_offset=end if vendor else 0)
        raw = target.encode() + (extension.encode() if components else b"")
        raw = raw.ljust(end, b"\0") + vendor
        if len(raw) > size:
            raise ValueError(f"{len(raw)} bytes needed, the buffer has {size}")
        return raw.ljust(size, b"\0")

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the parameters."""
        out: dict[str, Any] = {"target": self.target.plain()}
        if self.components is not None:
            out["target"]["error_type"] = self.einjv2_error_type.plain
            out["components"] = [component.plain() for component in self.components]
        if self.vendor is not None:
            out |= {"vendor": self.vendor.plain(), "vendor_data": self.vendor_data.hex()}
        return out


def encode_components(components: Iterable[Einjv2Component], room: int | None = None) -> bytes:
    """An EINJ version 2 extension with these components, with room for ``room`` (default: as many as there are)."""
    found = tuple(components)
    length = Einjv2Extension.SIZE + Einjv2Component.SIZE * max(len(found), room or 0)
    head = Einjv2Extension(length=length, component_array_count=len(found))
    raw: bytes = _COMPONENTS.build({"head": head, "components": found})
    return raw.ljust(length, b"\0")


def _components(data: bytes) -> tuple[Einjv2Component, ...]:
    name = "InjectionParameters"
    try:
        head = Einjv2Extension.decode(data, EINJV2_AT)
    except WireError as error:
        raise error.within(name, "einjv2") from None
    if not Einjv2Extension.SIZE <= head.length <= len(data) - EINJV2_AT:
        raise DecodeError(
            f"{head.length} bytes is not between {Einjv2Extension.SIZE} and {len(data) - EINJV2_AT}",
            structure=name, path="einjv2.length", offset=EINJV2_AT,
        )  # fmt: skip
    if Einjv2Extension.SIZE + Einjv2Component.SIZE * head.component_array_count > head.length:
        raise DecodeError(
            f"{head.component_array_count} components do not fit {head.length} bytes", structure=name,
            path="einjv2.component_array_count", offset=EINJV2_AT + Einjv2Extension.at("component_array_count").offset,
        )  # fmt: skip
    return tuple(_COMPONENTS.parse(data[EINJV2_AT : EINJV2_AT + head.length]).components)


def _vendor(data: bytes, at: int) -> tuple[VendorErrorTypeExtension, bytes]:
    try:
        vendor = VendorErrorTypeExtension.decode(data, at)
    except WireError as error:
        raise error.within("InjectionParameters", "vendor") from None
    if vendor.length < vendor.SIZE:
        raise DecodeError(
            f"{vendor.length} bytes is less than {vendor.SIZE}", structure="InjectionParameters", path="vendor.length",
            offset=at,
        )  # fmt: skip
    if at + vendor.length > len(data):
        raise TruncatedError(
            f"{vendor.length} bytes needed, {len(data) - at} given", structure="InjectionParameters",
            path="vendor.length", offset=at,
        )  # fmt: skip
    return vendor, data[at + vendor.SIZE : at + vendor.length]


__all__ = [
    "EINJV2_AT", "Einjv2Component", "Einjv2Extension", "InjectionParameters", "SetErrorTypeWithAddress", "TargetFlags",
    "VendorErrorTypeExtension", "encode_components",
]  # fmt: skip
