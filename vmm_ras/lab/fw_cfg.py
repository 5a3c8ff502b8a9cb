"""A file of fw_cfg as the machine holds it now, read through its registers (QEMU ``docs/specs/fw_cfg.rst``)."""

from __future__ import annotations

from vmm_ras.io.qemu.qmp import Qtest
from vmm_ras.lab.errors import Failure

DATA, SELECTOR = 0x0902_0000, 0x0902_0008
"""Registers on QEMU's arm virt machine."""
DIRECTORY = 0x19
_ENTRY, _SELECT, _NAME = 64, 4, 8
"""Bytes of a directory entry; where its selector and its name begin."""


def read_file(qtest: Qtest, name: str, size: int) -> bytes:
    """The first ``size`` bytes of a file.  Raises Failure where there is none of that name."""
    count = int.from_bytes(_read(qtest, DIRECTORY, 4), "big")
    listed = _read(qtest, DIRECTORY, 4 + count * _ENTRY)[4:]
    for at in range(0, len(listed), _ENTRY):
        entry = listed[at : at + _ENTRY]
        if entry[_NAME:].partition(b"\0")[0] == name.encode():
            return _read(qtest, int.from_bytes(entry[_SELECT : _SELECT + 2], "big"), size)
    raise Failure(f"fw_cfg has no file {name!r}")


def _read(qtest: Qtest, selector: int, size: int) -> bytes:
    # the register is big-endian, whatever the machine is
    qtest.write(SELECTOR, int.from_bytes(selector.to_bytes(2, "big"), "little"), 2)
    return bytes(qtest.read(DATA, 1) for _ in range(size))
