"""What a guest acts upon in an ARM Processor Error section: cache errors with an address (Linux, ghes.c)."""

from __future__ import annotations

from collections.abc import Iterator

from cper.arm_processor import ArmErrorInformation, ArmErrorType, ArmProcessorHeader

_HEADER, _SIZE = ArmProcessorHeader.SIZE, ArmErrorInformation.SIZE


def cache_errors(body: bytes, ordinal: bool) -> Iterator[int]:
    """Physical fault addresses of the section's cache errors; ``ordinal``: Type is a number, in which 0 is a cache.

    Error informations that the section is too short for are not looked at; where the next begins is what Length says.
    """
    if len(body) < _HEADER:
        return
    at = _HEADER
    for _ in range(ArmProcessorHeader.decode(body[:_HEADER]).error_information_count):
        raw = body[at : at + _SIZE]
        if len(raw) < _SIZE:
            return
        information = ArmErrorInformation.decode(raw)
        address, kind = information.physical_fault_address, information.type
        if address is not None and (kind == 0 if ordinal else kind & ArmErrorType.CACHE):
            yield address
        at += information.length
