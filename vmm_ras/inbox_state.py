"""What waits in the inbox as JSON-able values, and back: nothing that comes back is trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from acpi.ghes import MAX_BLOCK_SIZE, ErrorStatusHeader
from vmm_ras.errors import SnapshotError
from vmm_ras.events import TellRecord, TellSea, TellSerror
from vmm_ras.inbox import MAX_ORDERS, MAX_RECORDS, Inbox

_U64 = Annotated[int, Field(ge=0, lt=1 << 64)]
_Count = Annotated[int, Field(ge=0)]
_Vcpu = Annotated[int, Field(ge=0)]
_Hex = Annotated[
    str, Field(pattern=r"^([0-9a-f]{2})+$", min_length=2 * ErrorStatusHeader.SIZE, max_length=2 * MAX_BLOCK_SIZE)
]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class RecordState(_Plain):
    """A TellRecord."""

    block: _Hex
    source_id: int | None
    vcpu: _Vcpu

    def record(self) -> TellRecord:
        """The record itself."""
        return TellRecord(bytes.fromhex(self.block), self.source_id, self.vcpu)


class _Order(_Plain):
    """A TellSea has an ``esr``, a TellSerror a ``vsesr``."""

    vcpu: _Vcpu
    esr: _U64 | None = None
    far: _U64 | None = None
    vsesr: Annotated[int, Field(ge=0, lt=1 << 25)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> _Order:
        if (self.esr is None) == (self.vsesr is None):
            raise ValueError("expected esr or vsesr")
        return self

    def order(self) -> TellSea | TellSerror:
        return TellSerror(self.vcpu, self.vsesr or 0) if self.esr is None else TellSea(self.vcpu, self.esr, self.far)


class InboxState(_Plain):
    """All that an inbox remembers."""

    records: list[RecordState] = []
    orders: list[_Order] = []
    injected: Annotated[list[_Count], Field(max_length=64)] = []
    told: _Count = 0
    dropped: _Count = 0

    def inbox(self) -> Inbox:
        """The inbox itself."""
        new = Inbox()
        new.records.extend(r.record() for r in self.records)
        for plain in self.orders:
            new.orders.setdefault(plain.vcpu, []).append(plain.order())
        new.injected.extend(self.injected)
        new.told, new.dropped = self.told, self.dropped
        return new

    def check(self, posted: list[RecordState], sources: Collection[int], vcpus: int) -> None:
        """That the numbers mean something for these sources, with these records posted.  Raises SnapshotError."""
        records = [*self.records, *posted]
        if len(records) > MAX_RECORDS + len(sources):
            raise SnapshotError(f"inbox.records: at most {MAX_RECORDS} wait")
        if any(r.source_id is not None and r.source_id not in sources for r in records):
            raise SnapshotError(f"inbox.records: expected sources {sorted(sources)}")
        if any(v >= vcpus for v in [*(r.vcpu for r in records), *(o.vcpu for o in self.orders)]):
            raise SnapshotError(f"inbox: there are {vcpus} vCPUs")
        if any(n > MAX_ORDERS for n in Counter(o.vcpu for o in self.orders).values()):
            raise SnapshotError(f"inbox.orders: at most {MAX_ORDERS} wait for a vCPU")


def plain_record(record: TellRecord) -> dict[str, Any]:
    """A record as RecordState reads it."""
    return {**record._asdict(), "block": record.block.hex()}


def plain_inbox(inbox: Inbox) -> dict[str, Any]:
    """An inbox as InboxState reads it."""
    return {
        "records": [plain_record(record) for record in inbox.records],
        "orders": [order._asdict() for orders in inbox.orders.values() for order in orders],
        "injected": list(inbox.injected),
        "told": inbox.told,
        "dropped": inbox.dropped,
    }
