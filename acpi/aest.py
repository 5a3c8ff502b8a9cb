"""Arm Error Source Table (Arm DEN0085 1.1: revision 1, 2.0: revision 2): the nodes that record errors.

A node is framed by its own offsets.  Where its parts do not lie in the usual order, or leave gaps, its bytes are kept
beside the parts, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from acpi.aest_interface import (
    AestGroupFormat,
    AestInterface,
    AestInterface4k,
    AestInterface16k,
    AestInterface64k,
    AestInterrupt,
    AestInterruptV2,
)
from acpi.aest_parts import (
    AestGic,
    AestMemory,
    AestNodeHeader,
    AestNodeType,
    AestPcie,
    AestProcessor,
    AestProcessorCache,
    AestProcessorGeneric,
    AestProcessorTlb,
    AestProxy,
    AestResourceType,
    AestSmmu,
    AestVendor,
    AestVendorV2,
)
from acpi.frame import new_header
from acpi.table import TableHeader, open_table, seal
from cper.wire import DecodeError, EncodeError, Struct, TruncatedError, WireError
from cper.words import counted

NodeData = AestProcessor | AestMemory | AestSmmu | AestVendor | AestVendorV2 | AestGic | AestPcie | AestProxy | bytes
Resource = AestProcessorCache | AestProcessorTlb | AestProcessorGeneric
Interface = AestInterface | AestInterface4k | AestInterface16k | AestInterface64k

_DATA: dict[int, type[Struct]] = {
    AestNodeType.PROCESSOR: AestProcessor,
    AestNodeType.MEMORY_CONTROLLER: AestMemory,
    AestNodeType.SMMU: AestSmmu,
    AestNodeType.VENDOR_DEFINED: AestVendor,
    AestNodeType.GIC: AestGic,
    AestNodeType.PCIE_ROOT_COMPLEX: AestPcie,
    AestNodeType.PROXY: AestProxy,
}
_TYPES: dict[type[Struct], int] = {**{v: k for k, v in _DATA.items()}, AestVendorV2: AestNodeType.VENDOR_DEFINED}
_RESOURCES: dict[int, type[Struct]] = {
    AestResourceType.CACHE: AestProcessorCache,
    AestResourceType.TLB: AestProcessorTlb,
    AestResourceType.GENERIC: AestProcessorGeneric,
}
_GROUPS: dict[int, type[Struct]] = {
    AestGroupFormat.FORMAT_4K: AestInterface4k,
    AestGroupFormat.FORMAT_16K: AestInterface16k,
    AestGroupFormat.FORMAT_64K: AestInterface64k,
}


class AestNode(NamedTuple):
    """One error node.  ``image`` holds its bytes where they do not follow from its parts."""

    header: AestNodeHeader
    data: NodeData
    """What it says of its component; bytes where the node's type is not known."""
    resource: Resource | None = None
    """Which resource of a processor; None for other nodes."""
    interface: Interface | None = None
    """How its records are reached."""
    interrupts: tuple[AestInterrupt | AestInterruptV2, ...] = ()
    image: bytes | None = None

    @classmethod
    def of(
        cls, data: NodeData, interface: Interface,
        interrupts: Iterable[AestInterrupt | AestInterruptV2] = (), resource: Resource | None = None, **header: Any,
    ) -> Self:  # fmt: skip
        """A node of these parts, in the usual order; ``header`` sets fields of the header (the type follows)."""
        found = tuple(interrupts)
        if isinstance(data, bytes):
            raise ValueError("bytes are no node-specific data")
        at = AestNodeHeader.SIZE + data.SIZE + (resource.SIZE if resource else 0)
        end = at + interface.SIZE
        places = {
            "type": _TYPES[type(data)],
            "length": end + AestInterrupt.SIZE * len(found),
            "node_data_offset": AestNodeHeader.SIZE,
            "node_interface_offset": at,
            "node_interrupt_offset": end if found else 0,
            "node_interrupt_count": len(found),
        }
        return cls(AestNodeHeader(**(places | header)), data, resource, interface, found)

    @property
    def SIZE(self) -> int:
        """Bytes on the wire."""
        return self.header.length

    @classmethod
    def decode(cls, data: bytes, offset: int = 0, revision: int = 2) -> Self:
        """Read the node at ``offset`` of a table of this revision.

        Raises TruncatedError, DecodeError; their offsets count from the start of ``data``.
        """
        header = AestNodeHeader.decode(data, offset)
        if header.length < header.SIZE:
            raise _bad(f"{counted(header.length, 'byte')} is less than {header.SIZE}", "header.length", offset + 1)
        if offset + header.length > len(data):
            raise TruncatedError(
                f"{header.length} bytes needed, {len(data) - offset} given", structure="AestNode",
                path="header.length", offset=offset + 1,
            )  # fmt: skip
        raw = data[offset : offset + header.length]
        try:
            node = cls(*_parts(header, raw, revision))
        except WireError as error:
            raise type(error)(
                error.reason, structure=error.structure, path=error.path, offset=offset + (error.offset or 0)
            ) from None
        return node if node.image is None and node._join() == raw else node._replace(image=raw)

    def encode(self) -> bytes:
        """The node's bytes.  Raises EncodeError where its length contradicts its parts."""
        if self.image is not None:
            return self.image
        raw = self._join()
        if len(raw) != self.header.length:
            raise EncodeError(
                f"the parts have {len(raw)} bytes, not {self.header.length}", structure="AestNode",
                path="header.length", offset=1,
            )  # fmt: skip
        return raw

    def _join(self) -> bytes:
        data = self.data if isinstance(self.data, bytes) else self.data.encode()
        middle = [part.encode() for part in (self.resource, self.interface) if part is not None]
        return b"".join([self.header.encode(), data, *middle, *(i.encode() for i in self.interrupts)])

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the node."""
        out: dict[str, Any] = {"header": self.header.plain()}
        out["data"] = self.data.hex() if isinstance(self.data, bytes) else self.data.plain()
        if self.resource is not None:
            out["resource"] = self.resource.plain()
        if self.interface is not None:
            out["interface"] = self.interface.plain()
        out["interrupts"] = [interrupt.plain() for interrupt in self.interrupts]
        return out | ({"image": self.image.hex()} if self.image is not None else {})


@dataclass(frozen=True)
class Aest:
    """Arm Error Source Table: header (length and checksum are set when it is built) and nodes in order."""

    nodes: tuple[AestNode, ...]
    header: TableHeader = field(default_factory=lambda: new_header("AEST", 2))
    trailing: bytes = b""
    """Bytes from the first node on that cannot be read; see :meth:`examine`."""

    def build(self) -> bytes:
        """The table's bytes, with length and checksum."""
        return seal(self.header, self.encode()[TableHeader.SIZE :])

    def encode(self) -> bytes:
        """The table's bytes with length and checksum as they are."""
        return b"".join([self.header.encode(), *(node.encode() for node in self.nodes), self.trailing])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError, TruncatedError."""
        table, error = cls.examine(data)
        if error is not None:
            raise error
        return table

    @classmethod
    def examine(cls, data: bytes) -> tuple[Self, WireError | None]:
        """Read the nodes before the first that cannot be read, and say why it cannot; None where all can.

        Raises DecodeError, TruncatedError only where the header cannot be read.
        """
        header, _ = open_table(data, "AEST", structure="Aest")
        data, at, nodes = bytes(data[: header.length]), TableHeader.SIZE, list[AestNode]()
        while at < len(data):
            try:
                node = AestNode.decode(data, at, header.revision)
            except WireError as error:
                return cls(tuple(nodes), header, data[at:]), error.within("Aest", f"nodes[{len(nodes)}]")
            nodes.append(node)
            at += node.SIZE
        return cls(tuple(nodes), header), None

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        out: dict[str, Any] = {"header": self.header.plain(), "nodes": [node.plain() for node in self.nodes]}
        return out | ({"trailing": self.trailing.hex()} if self.trailing else {})


def _parts(header: AestNodeHeader, raw: bytes, revision: int) -> tuple[Any, ...]:
    """The parts of a node whose bytes are ``raw``; offsets of errors count from its start."""
    kind = _DATA.get(header.type) if revision in {1, 2} else None
    if kind is None:
        return header, raw[header.SIZE :], None, None, (), raw
    if kind is AestVendor and revision == 2:
        kind = AestVendorV2
    at = header.node_data_offset
    data: Any = _part(kind, raw, at, "node_data_offset")
    resource: Any = None
    if isinstance(data, AestProcessor) and data.resource_type in _RESOURCES:
        resource = _part(_RESOURCES[data.resource_type], raw, at + data.SIZE, "node_data_offset")
    interface: Any = None
    if header.node_interface_offset:
        interface = _part(_interface(raw, header, revision), raw, header.node_interface_offset, "node_interface_offset")
    count, at = header.node_interrupt_count, header.node_interrupt_offset
    row: Any = AestInterrupt if revision == 1 else AestInterruptV2
    if not at:
        return header, data, resource, interface, (), None if count == 0 else raw
    if at < header.SIZE or at + row.SIZE * count > len(raw):
        raise _bad(
            f"{counted(count, 'interrupt')} at {at:#x}: the node has {len(raw)} bytes", "header.node_interrupt_offset",
            AestNodeHeader.at("node_interrupt_offset").offset,
        )  # fmt: skip
    interrupts = tuple(row.decode(raw, at + row.SIZE * i) for i in range(count))
    return header, data, resource, interface, interrupts


def _part(kind: type[Struct], raw: bytes, at: int, field_name: str) -> Struct:
    if at < AestNodeHeader.SIZE or at + kind.SIZE > len(raw):
        raise _bad(
            f"{kind.__name__} at {at:#x} does not fit the node's {len(raw)} bytes", f"header.{field_name}",
            AestNodeHeader.at(field_name).offset,
        )  # fmt: skip
    return kind.decode(raw, at)


def _interface(raw: bytes, header: AestNodeHeader, revision: int) -> type[Struct]:
    if revision == 1:
        return AestInterface
    at = header.node_interface_offset + AestInterface4k.at("group_format").offset
    number = raw[at] if at < len(raw) else 0
    if number not in _GROUPS:
        raise _bad(f"group format {number} is unknown", "interface.group_format", at)
    return _GROUPS[number]


def _bad(reason: str, path: str, offset: int) -> DecodeError:
    return DecodeError(reason, structure="AestNode", path=path, offset=offset)


__all__ = ["Aest", "AestNode", "Interface", "NodeData", "Resource"]
