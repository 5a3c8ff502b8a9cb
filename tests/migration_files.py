"""QEMU's real migration files, and smaller and damaged ones made of them."""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

import orjson

from vmm_ras.qemu_migration.cursor import Cursor
from vmm_ras.qemu_migration.description import find_description
from vmm_ras.qemu_migration.ram import EOS, PLAIN_ZERO, RamReader
from vmm_ras.qemu_migration.stream import read_migration

FOLDER = Path(__file__).parents[1] / "fixtures" / "qemu-migration"
VERSIONS = ("7.2", "10.0", "11.1")


@cache
def migration(version: str, kind: str) -> bytes:
    """A file as QEMU wrote it."""
    return lzma.decompress((FOLDER / f"virt-{version}-{kind}.mig.xz").read_bytes())


@cache
def slim(version: str, kind: str) -> bytes:
    """The same without most of the pages that are zero: all that damage can hit is still there."""
    data = migration(version, kind)
    ram = read_migration(data).ram
    out, kept = bytearray(), 0
    for start in ram.chunks:
        at = start
        reader = RamReader(4096)
        reader.blocks = ram.blocks
        cursor = Cursor(data, at)
        reader.chunk(cursor)
        out += data[kept:at]
        while at < cursor.at - 8:
            word = int.from_bytes(data[at : at + 8], "big")
            if word & 0xFFF != PLAIN_ZERO:
                break
            at += 9
        while at < cursor.at - 8:
            word = int.from_bytes(data[at : at + 8], "big")
            size = 9 if word & 0xFFF == PLAIN_ZERO else None
            if size is None:
                size = _odd(data, at, word)
                out += data[at : at + size]
            at += size
        out += EOS.to_bytes(8, "big")
        kept = cursor.at
    return bytes(out + data[kept:])


def _odd(data: bytes, at: int, word: int) -> int:
    """Bytes of an entry that is no zero page of the block before."""
    flags = word & 0xFFF
    if flags & 4:  # the list of blocks
        end, total = at + 8, word & ~0xFFF
        while total:
            name = data[end]
            total -= int.from_bytes(data[end + 1 + name : end + 9 + name], "big")
            end += 9 + name
        return end - at
    name = 0 if flags & 0x20 else 1 + data[at + 8]
    return 8 + name + (1 if flags & 2 else 4096)


def described(data: bytes, change) -> bytes:
    """The file with another description: ``change`` is given its JSON values."""
    at, said = find_description(data)
    change(said)
    text = orjson.dumps(said)
    return data[:at] + b"\6" + len(text).to_bytes(4, "big") + text


def with_serror(data: bytes, pending: int, has_esr: int, esr: int) -> bytes:
    """The file with the subsection that QEMU under KVM sends for a pending SError (``vmstate_serror``)."""
    cpu = next(d for d in read_migration(data).devices if d.name == "cpu")
    sent = b"\5" + bytes((10,)) + b"cpu/serror" + (1).to_bytes(4, "big")
    sent += bytes((pending, has_esr)) + esr.to_bytes(8, "big")
    fields = [
        {"name": f"env.serror.{name}", "type": f"uint{8 * size}", "size": size}
        for name, size in (("pending", 1), ("has_esr", 1), ("esr", 8))
    ]

    def change(said):
        device = next(d for d in said["devices"] if d["name"] == "cpu")
        device["subsections"].append({"vmsd_name": "cpu/serror", "version": 1, "fields": fields})

    return described(data[: cpu.end] + sent + data[cpu.end :], change)
