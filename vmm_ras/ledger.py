"""What becomes of each event of a trace: a row per event, filled in as the core and the guest act.

A row is finished when its page is acknowledged, or nothing more can become of it.  Rows come out in trace order; at
most ``WINDOW`` wait for their end, so that memory is bounded by the guest's RAM and not by the number of events.  A row
that leaves the window unfinished says ``waiting``; the summary, made from the poison map, still counts its pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import crcmod.predefined

from vmm_ras.effects import (
    Acked,
    Decided,
    Escalate,
    HookFailed,
    InjectSea,
    OwnMemory,
    Posted,
    Report,
    TakenBack,
    Undelivered,
)
from vmm_ras.events import Code
from vmm_ras.guests.model import ModelGuest
from vmm_ras.rows import PANIC, Row
from vmm_ras.summary import Summary

WINDOW = 65536
"""Rows that may wait for their end."""
MAX_ESCALATIONS = 100
"""Escalations whose text the summary keeps."""
_SETTLED: Final = frozenset({"known", "ignored", "on-touch"})
_ASKED: Final = frozenset({"stop", "reset", "migrate"})
_AO: Final = Code.AO

crc32c: Final = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


class Posting:
    """What a source told last."""

    def __init__(self, block: bytes, rows: list[Row]) -> None:
        self.block = block
        self.rows = rows
        """Rows that it is about, until it is acknowledged or taken back."""


class Ledger:
    """The rows of one replay; it listens to what ``guest`` carries out and asks what its operating system did."""

    def __init__(self, guest: ModelGuest, page_shift: int, summary: Summary | None = None) -> None:
        self.guest, self.page_shift = guest, page_shift
        self.summary = Summary() if summary is None else summary
        self.notices: list[str] = []
        """What people should be told about the trace itself; take and clear."""
        self.blocks: Callable[[int, bytes], object] | None = None
        """Called with (source id, block bytes) for each block that is published, where it is set."""
        self.handling: Row | None = None
        """The row whose event is being handled."""
        self.rows: deque[Row] = deque()
        """Rows that were not taken out yet, in trace order."""
        self._open: dict[int, list[Row]] = {}
        """Guest page to its rows that are not finished."""
        self._postings: dict[int, Posting] = {}
        """By source."""
        self._kinds = self.summary.kinds
        self._bare: InjectSea | None = None
        self._hook_reasons: set[str] = set()
        guest.listen({
            Posted: self._posted,
            Acked: self._acked,
            Decided: self._decided,
            InjectSea: self._injected,
            OwnMemory: self._own_memory,
            TakenBack: self._taken_back,
            Undelivered: self._undelivered,
            Escalate: self._escalated,
            Report: self._reported,
            HookFailed: self._hook_failed,
        })  # fmt: skip

    def begin(self, row: Row) -> None:
        """An event comes: ``handling`` is its row until the caller says that it was handled."""
        self.rows.append(row)
        if row.gpa is not None:
            page = row.gpa >> self.page_shift
            if page in self._open:
                self._open[page].append(row)
            else:
                self._open[page] = [row]
        self.handling = row

    @property
    def ready(self) -> bool:
        """Whether the oldest row can be taken out: it is finished, or the window has no room for it."""
        return bool(self.rows) and (self.rows[0].closed or len(self.rows) > WINDOW)

    def emit(self) -> Row:
        """Take the oldest row out, finished or not."""
        row = self.rows.popleft()
        if not row.closed:
            self._close(row)
        kinds, kind = self._kinds, (row.code, row.delivery, row.outcome)
        kinds[kind] = kinds.get(kind, 0) + 1
        return row

    # -- notices of the core ---------------------------------------------------------------

    def _posted(self, e: Posted, now: float) -> None:
        _, source_id, delivery, vcpu, esr, pages, block, rule = e
        self.summary.blocks += 1
        if self.blocks is not None:
            self.blocks(source_id, block)
        crc, shift, rows = crc32c(block), self.page_shift, self._open
        found: list[Row] = []
        for gpa, _ in pages:
            of_page = rows.get(gpa >> shift)
            if of_page is None:
                continue
            for r in of_page:
                r.delivery = delivery
                r.source_id = source_id
                r.block = block
                r.crc32c = crc
                r.pages = len(pages)
                r.posted_at = now
                if r.rule is None:
                    r.rule = rule
                if esr is not None:
                    r.esr = esr
                if r.vcpu is None:
                    r.vcpu = vcpu
                found.append(r)
        posting = self._postings.get(source_id)
        if posting is None:
            self._postings[source_id] = Posting(block, found)
        else:
            posting.block = block
            posting.rows = found

    def _acked(self, e: Acked, now: float) -> None:
        if self.guest.os.actions:  # what the guest did before: it is about the block that is acknowledged now
            self.outcomes()
        _, source_id, _ = e
        posting = self._postings.get(source_id)
        if posting is None:
            return
        for r in posting.rows:
            r.acked = True
            r.acked_at = now
            if not r.closed:  # else another source told it, or it left the window
                self._close(r)
        posting.rows = []

    def _decided(self, e: Decided, now: float) -> None:
        row = self.handling
        if row is not None:
            _, code, _, _, row.rule, what = e
            if what in _SETTLED:
                row.outcome = what
                self._close(row)
            elif what in _ASKED and code is _AO:  # the guest is told when it touches the page
                row.outcome = "on-touch"
                self._close(row)

    def _injected(self, e: InjectSea, now: float) -> None:
        if e.source_id is None:
            if self.guest.os.actions:
                self.outcomes()
            self._bare = e
            self._told_bare(e, None)

    def _own_memory(self, e: OwnMemory, now: float) -> None:
        if self.handling is not None:
            self.handling.outcome = "own-memory"
            self._close(self.handling)

    def _taken_back(self, e: TakenBack, now: float) -> None:
        if self.guest.os.actions:
            self.outcomes()
        self.summary.taken_back += 1
        posting = self._postings.get(e.source_id)
        if posting is None:
            return
        for r in posting.rows:
            r.delivery = r.source_id = r.block = r.crc32c = r.posted_at = None
            r.outcome = "waiting"
        posting.rows = []

    def _undelivered(self, e: Undelivered, now: float) -> None:
        self.summary.undelivered[f"{e.rule}: {e.reason}" if e.rule else "no guest memory there"] += 1
        if self.handling is not None and not e.rule:
            self.handling.outcome = "no-guest-memory"
            self._close(self.handling)

    def _escalated(self, e: Escalate, now: float) -> None:
        self.summary.escalated += 1
        if self.summary.escalated <= MAX_ESCALATIONS:
            self.summary.escalations.append(f"{e.action}: {e.reason}")

    def _reported(self, e: Report, now: float) -> None:
        self.summary.reports += 1

    def _hook_failed(self, e: HookFailed, now: float) -> None:
        if e.reason not in self._hook_reasons and len(self._hook_reasons) < MAX_ESCALATIONS:
            self._hook_reasons.add(e.reason)
            self.notices.append(f"{e.reason}; the rules decide")

    def outcomes(self) -> None:
        """What the guest made of what it was told."""
        for source_id, did, raw in self.guest.os.drain():
            if source_id is None:
                self._told_bare(self._bare, did)
                continue
            posting = self._postings.get(source_id)
            if posting is None:
                continue
            outcome = did if not raw or raw == posting.block else "garbled"
            for r in posting.rows:
                if r.outcome not in PANIC:
                    r.outcome = outcome

    def _told_bare(self, sea: InjectSea | None, outcome: str | None) -> None:
        """An SEA went without a record: it is about the latest AR of its vCPU."""
        for r in reversed(self.rows):
            if r.code == "AR" and not r.closed and (sea is None or r.vcpu == sea.vcpu):
                if outcome in PANIC or (outcome and r.outcome == "waiting"):
                    r.outcome = outcome
                r.esr = sea.esr if sea else r.esr
                return

    def _close(self, row: Row) -> None:
        row.closed = True
        if row.gpa is not None:
            page = row.gpa >> self.page_shift
            rows = self._open.pop(page, None)
            if rows is not None and len(rows) > 1:
                rows.remove(row)
                self._open[page] = rows
