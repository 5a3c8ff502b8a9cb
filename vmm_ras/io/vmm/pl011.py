"""Arm PrimeCell UART (PL011, Arm DDI 0183): a serial console whose line takes every byte at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from vmm_ras.snapshot.made_of import Plain

SIZE = 0x1000
DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR = 0x00, 0x04, 0x18, 0x20, 0x24, 0x28, 0x2C, 0x30
IFLS, IMSC, RIS, MIS, ICR, DMACR, ID = 0x34, 0x38, 0x3C, 0x40, 0x44, 0x48, 0xFE0
FR_TXFE, FR_RXFF, FR_RXFE, FR_CTS = 1 << 7, 1 << 6, 1 << 4, 1 << 0
INT_RX, INT_TX, INT_RT, INT_OE = 1 << 4, 1 << 5, 1 << 6, 1 << 10
ALL_INTERRUPTS = 0x7FF
FIFO = 32
"""Bytes of the receive FIFO, as of revision r1p5."""
_ID = bytes((0x11, 0x10, 0x34, 0x00, 0x0D, 0xF0, 0x05, 0xB1))
_PLAIN = {ILPR: 0xFF, IBRD: 0xFFFF, FBRD: 0x3F, LCR_H: 0xFF, CR: 0xFFFF, IFLS: 0x3F, DMACR: 0x7}
"""Registers that only remember, and how many of their bits exist."""
_RESET = {CR: 0x300, IFLS: 0x12}

_Offset = Literal["0x20", "0x24", "0x28", "0x2c", "0x30", "0x34", "0x48"]


class State(Plain):
    """What a UART remembers: part ``pl011`` of a snapshot."""

    received: Annotated[list[Annotated[int, Field(ge=0, le=0xFF)]], Field(max_length=FIFO)]
    registers: dict[_Offset, Annotated[int, Field(ge=0, le=0xFFFF)]]
    """Those that only remember, by offset."""
    raw: Annotated[int, Field(ge=0, le=ALL_INTERRUPTS)]
    mask: Annotated[int, Field(ge=0, le=ALL_INTERRUPTS)]


class Pl011:
    """One UART.  ``transmit`` is given bytes, ``set_line`` the level of its interrupt whenever that changes.

    ``drained`` hears that everything received was read.  Any thread may call: vCPUs read and write registers, somebody
    types.
    """

    def __init__(
        self, transmit: Callable[[bytes], object], set_line: Callable[[bool], object],
        drained: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self._transmit, self._set_line, self._drained = transmit, set_line, drained
        self._lock = threading.Lock()
        self._received: deque[int] = deque()
        self._line = False
        self._plain = dict(_RESET)
        self._raw = self._mask = 0

    def reset(self) -> None:
        """As after power-on; what was typed and not read is lost."""
        with self._lock:
            self._received.clear()
            self._plain = dict(_RESET)
            self._raw = self._mask = 0
            self._update()

    def take(self) -> dict[str, Any]:
        """All that it remembers."""
        with self._lock:
            plain = {f"{offset:#x}": value for offset, value in self._plain.items()}
            return {"received": list(self._received), "registers": plain, "raw": self._raw, "mask": self._mask}

    def put(self, value: State) -> None:
        """Remember what ``take`` gave; the interrupt's line goes with it."""
        with self._lock:
            self._received = deque(value.received)
            self._plain = {int(offset, 16): number for offset, number in value.registers.items()}
            self._raw, self._mask = value.raw, value.mask
            self._update()

    def receive(self, data: bytes) -> int:
        """Bytes from the line; how many of them found room."""
        with self._lock:
            taken = min(len(data), FIFO - len(self._received))
            self._received.extend(data[:taken])
            if self._received:
                self._raw |= INT_RX | INT_RT
            self._update()
        return taken

    def read(self, offset: int, size: int) -> int:
        """A register; what does not exist reads as 0."""
        del size
        with self._lock:
            if offset == DR:
                return self._take()
            if offset == FR:
                empty, full = not self._received, len(self._received) == FIFO
                return FR_TXFE | FR_CTS | FR_RXFE * empty | FR_RXFF * full
            if offset == IMSC:
                return self._mask
            if offset == RIS:
                return self._raw
            if offset == MIS:
                return self._raw & self._mask
            if offset >= ID:
                return _ID[offset - ID >> 2] if offset < ID + 4 * len(_ID) else 0
            return self._plain.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """A register; what does not exist ignores it."""
        del size
        with self._lock:
            if offset == DR:
                self._transmit(bytes((value & 0xFF,)))
                self._raw |= INT_TX  # it is out already: there is room again
            elif offset == IMSC:
                self._mask = value & ALL_INTERRUPTS
            elif offset == ICR:
                self._raw &= ~value
                if self._received:
                    self._raw |= INT_RX
            elif offset in _PLAIN:
                self._plain[offset] = value & _PLAIN[offset]
            self._update()

    def _take(self) -> int:
        if not self._received:
            return 0
        value = self._received.popleft()
        if not self._received:
            self._raw &= ~(INT_RX | INT_RT)
        self._update()
        if not self._received:
            self._drained()
        return value

    def _update(self) -> None:
        line = bool(self._raw & self._mask)
        if line != self._line:
            self._line = line
            self._set_line(line)
