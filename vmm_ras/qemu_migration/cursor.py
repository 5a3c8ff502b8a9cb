"""Reading a stream of big-endian integers and counted strings (QEMU ``migration/qemu-file.c``), within bounds."""

from __future__ import annotations

from typing import Protocol, overload

from cper.words import counted
from vmm_ras.errors import InputError


class Buffer(Protocol):
    """A whole file: ``bytes``, or a mapping of it."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def rfind(self, sub: bytes, start: int, stop: int, /) -> int:
        """As ``bytes.rfind``."""
        ...


class Cursor:
    """A place in the file.  Raises InputError, which names the byte, where the file ends too early."""

    def __init__(self, data: Buffer, at: int = 0) -> None:
        self.data, self.at, self.size = data, at, len(data)

    def skip(self, count: int, what: str) -> int:
        """Pass over ``count`` bytes; where they began."""
        at = self.at
        if count > self.size - at:
            raise self.wrong(f"{what}: {counted(count, 'byte')} expected, the file has {self.size - at} more")
        self.at = at + count
        return at

    def take(self, count: int, what: str) -> bytes:
        """``count`` bytes."""
        at = self.skip(count, what)
        return self.data[at : at + count]

    def number(self, size: int, what: str) -> int:
        """An integer of ``size`` bytes."""
        return int.from_bytes(self.take(size, what), "big")

    def string(self, what: str) -> str:
        """A string behind a byte that counts it."""
        return self.text(self.number(1, what), what)

    def text(self, count: int, what: str) -> str:
        """``count`` bytes of text; what is no UTF-8, or cannot be printed, is kept as escapes."""
        return printable(self.take(count, what).decode(errors="backslashreplace"))

    def wrong(self, text: str) -> InputError:
        """The error that says where."""
        return InputError(f"byte {self.at}: {printable(text)}")


def printable(text: str) -> str:
    """The text on one line, and nothing in it that a terminal would obey."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
