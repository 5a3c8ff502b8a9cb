"""Generic Timer Description Table (ACPI 6.5, 5.2.25)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from acpi.frame import FixedTable, TableHead, new_header
from acpi.table import TableHeader, open_table
from cper.plain import hex_in, members, object_in
from cper.wire import U32, U64, Bits, DecodeError, Reserved, WireError, Word

NO_COUNTER = (1 << 64) - 1
"""The machine has no memory-mapped counter."""


class GtdtHeader(TableHead, size=96):
    """The fixed part up to revision 2.  A timer flag word: bit 0 edge, bit 1 active low, bit 2 always on."""

    cnt_control_base: U64 = NO_COUNTER
    """Address of the counter's control frame."""
    reserved: ClassVar[Word] = Reserved(4)
    secure_el1_gsiv: U32 = 0
    secure_el1_flags: U32 = 0
    non_secure_el1_gsiv: U32 = 0
    non_secure_el1_word: ClassVar[Word] = Word("I")
    non_secure_el1_edge: Annotated[bool, Bits("non_secure_el1_word", 0, 1)] = False
    non_secure_el1_active_low: Annotated[bool, Bits("non_secure_el1_word", 1, 2)] = False
    non_secure_el1_always_on: Annotated[bool, Bits("non_secure_el1_word", 2, 3)] = True
    virtual_el1_gsiv: U32 = 0
    virtual_el1_flags: U32 = 0
    el2_gsiv: U32 = 0
    el2_flags: U32 = 0
    cnt_read_base: U64 = NO_COUNTER
    """Address of the counter's read frame."""
    platform_timer_count: U32 = 0
    platform_timer_offset: U32 = 0
    """Bytes from the start of the table to the first platform timer; 0 where there is none."""


class GtdtHeader3(GtdtHeader, size=104):
    """The fixed part from revision 3 on (ACPI 6.3): with the EL2 virtual timer."""

    virtual_el2_gsiv: U32 = 0
    virtual_el2_flags: U32 = 0


class Gtdt(FixedTable[GtdtHeader]):
    """Generic Timer Description Table; ``trailing`` holds its platform timer structures."""

    SIGNATURE = "GTDT"
    REVISION = 3
    HEAD = GtdtHeader

    @classmethod
    def of(cls, header: TableHeader | None = None, **fields: Any) -> Self:
        """The table with these fields, in the form of the header's revision.  Raises pydantic.ValidationError."""
        header = header or new_header(cls.SIGNATURE, cls.REVISION)
        return cls(_form(header)(header=header, **fields))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError (signature, length), TruncatedError."""
        header, _ = open_table(data, cls.SIGNATURE, structure=cls.__name__)
        form = _form(header)
        try:
            head = form.decode(data[: header.length])
        except WireError as error:
            raise error.within(cls.__name__, "head") from None
        return cls(head, data[form.SIZE : header.length])

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        form = _form(TableHeader.of_plain(object_in(plain, "header")))
        head = form.of_plain(members(plain, without=("trailing",)))
        return cls(head, hex_in(plain, "trailing"))

    @property
    def timers(self) -> tuple[bytes, ...]:
        """The platform timer structures, each as its bytes.  Raises TruncatedError, DecodeError."""
        data, at = self.head.encode() + self.trailing, self.head.platform_timer_offset
        found = []
        for index in range(self.head.platform_timer_count):
            length = int.from_bytes(data[at + 1 : at + 3], "little")
            if length < 4 or at + length > len(data):
                raise DecodeError(
                    f"{length} bytes of {len(data) - at} are no platform timer", structure="Gtdt",
                    path=f"timers[{index}].length", offset=at + 1,
                )  # fmt: skip
            found.append(data[at : at + length])
            at += length
        return tuple(found)


def _form(header: TableHeader) -> type[GtdtHeader]:
    return GtdtHeader3 if header.revision >= 3 else GtdtHeader


__all__ = ["NO_COUNTER", "Gtdt", "GtdtHeader", "GtdtHeader3"]
