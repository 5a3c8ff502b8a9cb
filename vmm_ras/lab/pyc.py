"""Compiled Python modules for another machine: it need not compile, which takes long under emulation (PEP 552)."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from vmm_ras.lab import cpio

_UNCHECKED = (1).to_bytes(4, "little")
"""Flags of a pyc that holds a hash, which nobody compares: the source's time does not count."""
_TARGET = (3, 11)
_TAG = "cpython-311"


def compiled(path: str, source: Path) -> Iterator[cpio.Node]:
    """The compiled form of the module at ``path`` there, ``source`` here; nothing where our Python is another."""
    if sys.version_info[:2] != _TARGET:
        return
    folder, _, name = path.rpartition("/")
    about = source.stat()
    code = _code(path, source, int(about.st_mtime), about.st_size)
    yield cpio.plain_file(f"{folder}/__pycache__/{name.removesuffix('.py')}.{_TAG}.pyc", code)


@cache
def _code(path: str, source: Path, time: int, size: int) -> bytes:
    """From our own cache if that is of this source, else compiled now."""
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED
    own = Path(importlib.util.cache_from_source(str(source), optimization=""))
    stamp = bytes(4) + (time & 0xFFFFFFFF).to_bytes(4, "little")
    stamp += (size & 0xFFFFFFFF).to_bytes(4, "little")
    try:
        data = own.read_bytes()
    except OSError:
        data = b""
    if data[:16] == importlib.util.MAGIC_NUMBER + stamp:
        return head + bytes(8) + data[16:]
    code = compile(source.read_bytes(), f"/{path}", "exec", dont_inherit=True, optimize=0)
    return head + bytes(8) + marshal.dumps(code)
