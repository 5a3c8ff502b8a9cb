"""Declare a binary structure once; derive codec, layout, JSON, JSON Schema, documents and errors.

A wire structure is a frozen pydantic model.  Its annotations, read top to bottom, *are* the byte layout:

    class GenericAddress(Struct, size=12):
        address_space: Annotated[AddressSpace, u8]
        bit_width: U8
        ...

* a **cell** (``u8`` … ``u64``, ``guid``, ``bcd``, ``text(n)``, ``blob(n)``, ``array(fmt, n)``) says how many bytes;
* ``Valid(n)`` says: the field is None exactly when validation bit *n* is clear;
* ``Bits(word, lo, hi)`` says: the field is a slice of a word declared above, be it the validation word;
* a ``ClassVar`` cell (``Word``, ``Reserved``, ``ValidationBits``) takes room but is no field.

Bytes under a clear validation bit, and reserved bytes, are kept as *residue*: ``decode(b).encode() == b`` for every
``b`` of the right length.
"""

from cper.wire._cells import (
    U8,
    U16,
    U24,
    U32,
    U64,
    Bcd,
    Bits,
    Cell,
    Guid,
    Reserved,
    Valid,
    ValidationBits,
    Word,
    array,
    bcd,
    blob,
    guid,
    text,
    u8,
    u16,
    u24,
    u32,
    u64,
)
from cper.wire._documented import Documented
from cper.wire._errors import DecodeError, EncodeError, LayoutError, TruncatedError, WireError, explain
from cper.wire._layout import FieldLayout
from cper.wire._names import OpenEnum, OpenFlags
from cper.wire._struct import Struct

__all__ = [
    "U8",
    "U16",
    "U24",
    "U32",
    "U64",
    "Bcd",
    "Bits",
    "Cell",
    "DecodeError",
    "Documented",
    "EncodeError",
    "FieldLayout",
    "Guid",
    "LayoutError",
    "OpenEnum",
    "OpenFlags",
    "Reserved",
    "Struct",
    "TruncatedError",
    "Valid",
    "ValidationBits",
    "WireError",
    "Word",
    "array",
    "bcd",
    "blob",
    "explain",
    "guid",
    "text",
    "u8",
    "u16",
    "u24",
    "u32",
    "u64",
]
