"""Where the data entries of a Generic Error Status Block lie (ACPI 6.5, 18.3.2.7.1)."""

from __future__ import annotations

from typing import Final, NamedTuple

from acpi.data_entry import DataEntry201, entry_class
from cper.common import SectionFlags, Severity
from cper.wire import TruncatedError

_SMALLEST: Final = DataEntry201.SIZE
_REVISION: Final = DataEntry201.at("revision").offset
_LENGTH: Final = DataEntry201.at("error_data_length").offset
_FRONT: Final = DataEntry201.at("fru_id").offset
_fields: Final = DataEntry201.reader("error_data_length", "severity", "flags")


class EntryFront(NamedTuple):
    """What a data entry begins with, up to its FRU: the same in most entries that a source posts."""

    form: type[DataEntry201]
    size: int
    """Bytes of the entry, its section not included."""
    section_type: bytes
    error_data_length: int
    severity: Severity
    flags: SectionFlags


_fronts: Final[dict[bytes, EntryFront]] = {}
_MOST: Final = 256


def _front(raw: bytes) -> EntryFront:
    front = _fronts.get(raw)
    if front is None:
        form = entry_class(raw[_REVISION] | raw[_REVISION + 1] << 8)
        front = EntryFront(form, form.SIZE, raw[:16], *_fields(raw.ljust(_SMALLEST, b"\0")))
        if len(_fronts) == _MOST:
            _fronts.clear()
        _fronts[raw] = front
    return front


def entry_places(data: bytes | bytearray | memoryview, data_length: int) -> list[tuple[EntryFront, int, int, int]]:
    """Where the entries of the block at the start of ``data`` lie: (front, entry, section body, end), byte offsets.

    They are checked as by ``StatusBlock.decode``, and nothing else is read.  Raises TruncatedError.
    """
    at, end = 20, 20 + data_length
    if end > len(data):
        raise TruncatedError(
            f"{end} bytes needed, {len(data)} given", structure="StatusBlock", path="header.data_length", offset=12
        )
    raw = data if isinstance(data, bytes) else bytes(data[:end])
    places: list[tuple[EntryFront, int, int, int]] = []
    while at < end:
        start = at
        if start + _SMALLEST > end:
            raise too_short(_SMALLEST, end - start, len(places), start)
        front = _front(raw[start : start + _FRONT])
        _, size, _, length, _, _ = front
        body = start + size
        at = body + length
        if at > end:
            if body > end:
                raise too_short(size, end - start, len(places), start)
            raise too_long(length, end - body, len(places), start)
        places.append((front, start, body, at))
    return places


def too_short(needed: int, given: int, index: int, at: int) -> TruncatedError:
    """The error of entry ``index`` at byte ``at``, which has ``given`` bytes of the ``needed`` ones of its header."""
    return TruncatedError(
        f"{needed} bytes needed, {given} given", structure="StatusBlock", path=f"entries[{index}].header", offset=at
    )


def too_long(length: int, left: int, index: int, start: int) -> TruncatedError:
    """The error of entry ``index`` at byte ``start``, whose section of ``length`` bytes has ``left`` ones."""
    return TruncatedError(
        f"{length} bytes needed, {left} given", structure="StatusBlock",
        path=f"entries[{index}].header.error_data_length", offset=start + _LENGTH,
    )  # fmt: skip
