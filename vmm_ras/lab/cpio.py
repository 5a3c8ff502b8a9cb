"""The "newc" cpio archive that Linux unpacks as its first root file system (Linux ``initramfs/buffer-format``)."""

from __future__ import annotations

import stat
from typing import NamedTuple

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Node(NamedTuple):
    """A file, a directory or a device."""

    path: str
    """Without a leading slash."""
    mode: int
    """Type and permissions, as ``st_mode``."""
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    """(major, minor) of a device."""


def directory(path: str) -> Node:
    """A directory that everybody may read."""
    return Node(path, stat.S_IFDIR | 0o755)


def program(path: str, data: bytes) -> Node:
    """A file that everybody may run."""
    return Node(path, stat.S_IFREG | 0o755, data)


def plain_file(path: str, data: bytes) -> Node:
    """A file that everybody may read."""
    return Node(path, stat.S_IFREG | 0o644, data)


def link(path: str, to: str) -> Node:
    """A symbolic link."""
    return Node(path, stat.S_IFLNK | 0o777, to.encode())


def console(path: str = "dev/console") -> Node:
    """The device that the kernel opens for its first process."""
    return Node(path, stat.S_IFCHR | 0o600, device=(5, 1))


def archive(nodes: list[Node]) -> bytes:
    """The archive; a directory must come before what it holds."""
    parts = [_entry(number, node) for number, node in enumerate(nodes, 1)]
    parts.append(_entry(0, Node(_TRAILER, 0)))
    return b"".join(parts)


def _entry(number: int, node: Node) -> bytes:
    name = node.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1 if node.mode else 0
    fields = (number, node.mode, 0, 0, links, 0, len(node.data), 0, 0, *node.device, len(name), 0)
    head = _MAGIC + b"".join(b"%08X" % value for value in fields) + name
    return head + bytes(-len(head) % 4) + node.data + bytes(-len(node.data) % 4)
