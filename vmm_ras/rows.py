"""What became of the events of a trace: a row for each."""

from __future__ import annotations

from binascii import hexlify
from dataclasses import dataclass
from typing import Any, Final

import orjson

_dumps: Final = orjson.dumps
_hexlify: Final = hexlify
_NEWLINE: Final = orjson.OPT_APPEND_NEWLINE
_OWN: Final = {
    "seq": b"%d", "line": b"%d", "time": b"%b", "hva": b"%d", "gpa": b"%d", "block": b'"%b"', "crc32c": b"%d",
    "posted_at": b"%b", "acked_at": b"%b",
}  # fmt: skip
"""Members of a line that are another row's only by chance, and how they are filled in."""
_lines: Final[dict[tuple[Any, ...], bytes]] = {}
"""Lines of rows that were told, to be filled in, by all other members."""
_MOST_LINES = 4096
LOST = frozenset({"swallowed", "malformed", "garbled", "unreadable", "objerr"})
"""Outcomes in which the guest was told and did nothing about the page."""
PANIC: Final = frozenset({"panic", "oops", "serror-panic"})
OUTCOMES = {
    "offlined": "guest offlined the page",
    "soft-offlined": "guest soft-offlined the page",
    "known": "guest knows it already",
    "ignored": "told nothing, or guest did nothing",
    "swallowed": "guest took it for a repetition and did nothing",
    "malformed": "guest could not read the block",
    "garbled": "guest read other bytes than were posted",
    "unreadable": "the block's memory is poisoned",
    "objerr": "no record found: process got BUS_OBJERR",
    "oops": "abort in the kernel: Oops",
    "panic": "guest panicked",
    "serror-panic": "guest panicked on the SError",
    "own-memory": "the VMM's own memory: not for the guest",
    "no-guest-memory": "no guest memory there",
    "on-touch": "told when it is touched",
    "waiting": "not told yet",
}
"""What became of an event, in words."""


def size_of(lsb: int) -> str:
    """2^lsb bytes in words."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if lsb >= shift:
            return f"{1 << lsb - shift} {unit}"
    return f"{1 << lsb} B"


@dataclass(init=False)
class Row:
    """What became of one event of the trace."""

    seq: int
    line: int
    at: float
    code: str
    """``AR`` or ``AO``."""
    hva: int | None
    gpa: int | None
    """Guest physical address of the page, None where it is no guest memory."""
    lsb: int
    vcpu: int | None
    rule: str | None
    delivery: str | None
    source_id: int | None
    esr: int | None
    pages: int
    """Entries in the block."""
    block: bytes | None
    crc32c: int | None
    """CRC-32C of the block."""
    outcome: str
    acked: bool
    posted_at: float | None
    """When the block was published; ``acked_at``: when its acknowledgement was seen."""
    acked_at: float | None
    closed: bool

    def __init__(
        self, seq: int, line: int, at: float, code: str, hva: int | None, gpa: int | None, lsb: int,
        vcpu: int | None = None,
    ) -> None:  # fmt: skip
        self.seq, self.line, self.at, self.code, self.hva, self.gpa, self.lsb, self.vcpu = (
            seq, line, at, code, hva, gpa, lsb, vcpu,
        )  # fmt: skip
        self.rule = self.delivery = self.source_id = self.esr = self.block = self.crc32c = None
        self.posted_at = self.acked_at = None
        self.pages = 0
        self.outcome = "waiting"
        self.acked = self.closed = False

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the row."""
        block = self.block
        return {
            "seq": self.seq, "line": self.line, "time": self.at, "code": self.code, "hva": self.hva, "gpa": self.gpa,
            "lsb": self.lsb, "vcpu": self.vcpu, "rule": self.rule, "delivery": self.delivery,
            "source_id": self.source_id, "esr": self.esr, "entries": self.pages,
            "block": None if block is None else block.hex(), "crc32c": self.crc32c, "outcome": self.outcome,
            "acked": self.acked, "posted_at": self.posted_at, "acked_at": self.acked_at,
        }  # fmt: skip

    def json(self) -> bytes:
        """The row as a line of JSON Lines: ``plain``, for rows that were told at four fifths of the price."""
        hva, gpa, block, crc = self.hva, self.gpa, self.block, self.crc32c
        if hva is None or gpa is None or block is None or crc is None:
            return _dumps(self.plain(), None, _NEWLINE)
        kind = (
            self.code, self.lsb, self.vcpu, self.rule, self.delivery, self.source_id, self.esr, self.pages,
            self.outcome, self.acked,
        )  # fmt: skip
        line = _lines.get(kind)
        if line is None:
            line = self._line()
            if len(_lines) >= _MOST_LINES:
                _lines.clear()
            _lines[kind] = line
        at, posted_at, acked_at = _dumps(self.at), _dumps(self.posted_at), _dumps(self.acked_at)
        return line % (self.seq, self.line, at, hva, gpa, _hexlify(block), crc, posted_at, acked_at)

    def _line(self) -> bytes:
        members = [
            _dumps(key) + b":" + (_OWN[key] if key in _OWN else _dumps(value).replace(b"%", b"%%"))
            for key, value in self.plain().items()
        ]
        return b"{" + b",".join(members) + b"}\n"
