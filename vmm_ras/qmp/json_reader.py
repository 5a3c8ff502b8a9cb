"""JSON values out of a stream without frames: clients of QMP send objects back to back, with or without newlines."""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

MAX_SIZE = 256 << 10
"""Bytes of one value: a status block of 64 KiB is 88 KiB of base64."""
MAX_DEPTH = 32
RESET = 0xFF
"""A byte that no UTF-8 has: a client sends it to be sure that the reader is between two values."""

_STRUCTURE = re.compile(rb'[{}\[\]"\xff]')
_IN_STRING = re.compile(rb'["\\\n\xff]')
_SPACE = re.compile(rb"[ \t\r\n\xff]*")
_JUNK = re.compile(rb"[^{\[\n\xff]*")


class Malformed(NamedTuple):
    """Bytes that are no JSON value.  After a ``fatal`` one nothing can be read any more."""

    reason: str
    fatal: bool = False


class JsonReader:
    """Cuts a stream into values; where the cuts of the stream lie makes no difference.

    Only objects and arrays are values here.  What lies between them up to the next bracket or newline is one Malformed;
    a raw newline in a string ends a value that went wrong, and so does the byte 0xff anywhere.
    """

    def __init__(self, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> None:
        self.max_size, self.max_depth = max_size, max_depth
        self._data = bytearray()
        self._at = self._depth = 0
        self._in_string = self._in_junk = self._dead = False

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        if not self._dead:
            self._data += data

    def next(self) -> object | Malformed | None:
        """The next value (a dict or a list), what is wrong with the next bytes, or None: feed more."""
        if not self._depth:
            junk = self._between()
            if junk is not None or not self._data:
                return junk
            if self._at == 0 and (whole := self._whole()) is not None:
                return whole
        value = self._value()
        if value is None and len(self._data) > self.max_size:
            return self._die(f"a value of more than {self.max_size} bytes")
        return value

    def _between(self) -> Malformed | None:
        data = self._data
        if self._in_junk:
            self._drop(_JUNK.match(data).end())  # type: ignore[union-attr]
            if not data:
                return None
            self._in_junk = False
        self._drop(_SPACE.match(data).end())  # type: ignore[union-attr]
        if data and data[0] not in b"{[":
            self._in_junk = True
            return Malformed("JSON parse error, expected an object")
        return None

    def _whole(self) -> object | None:
        """What there is, if it is one value and nothing else: most clients wait for their replies."""
        data = self._data
        if len(data) > self.max_size or data.count(b"{") + data.count(b"[") > self.max_depth:
            return None
        try:
            value = orjson.loads(data)
        except ValueError:
            return None
        data.clear()
        return value  # type: ignore[no-any-return]

    def _value(self) -> object | Malformed | None:
        data = self._data
        while True:
            found = (_IN_STRING if self._in_string else _STRUCTURE).search(data, self._at)
            if found is None:
                self._at = len(data)
                return None
            at = found.start()
            if at >= self.max_size:
                return self._die(f"a value of more than {self.max_size} bytes")
            byte = data[at]
            self._at = at + 1
            if byte == RESET:
                self._restart(at + 1)
                return Malformed("JSON parse error, the value was given up")
            if self._in_string:
                if byte == 0x5C:  # a backslash: whatever follows is no end
                    if at + 1 == len(data):
                        self._at = at
                        return None
                    self._at = at + (2 if data[at + 1] not in b"\n\xff" else 1)
                elif byte == 0x0A:
                    self._restart(at + 1)
                    return Malformed("JSON parse error, a newline in a string")
                else:
                    self._in_string = False
            elif byte == 0x22:
                self._in_string = True
            elif byte in b"{[":
                self._depth += 1
                if self._depth > self.max_depth:
                    return self._die(f"a value nested deeper than {self.max_depth}")
            else:
                self._depth -= 1
                if not self._depth:
                    return self._parse(at + 1)

    def _parse(self, end: int) -> object | Malformed:
        text = bytes(self._data[:end])
        self._restart(end)
        try:
            return orjson.loads(text)  # type: ignore[no-any-return]
        except ValueError as error:
            return Malformed(f"JSON parse error, {error}")

    def _restart(self, end: int) -> None:
        self._drop(end)
        self._at = self._depth = 0
        self._in_string = False

    def _drop(self, end: int) -> None:
        del self._data[:end]

    def _die(self, reason: str) -> Malformed:
        self._restart(len(self._data))
        self._dead = True
        return Malformed(reason, fatal=True)
