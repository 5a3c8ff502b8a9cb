"""rasdaemon's SQLite database (ras-record.c): the table ``memory_failure_event``, a row per page that the host lost.

A row has a page frame of the host and what the kernel did, but not whom it told.  Each row becomes a HostSignal in
which the host physical address stands in for the hva, with code AO, no thread, and a granule of one page of the host.
``page_type`` is not used: rasdaemon 0.8.3 numbers the types otherwise than Linux 6.12 (it calls a huge page ``different
compound page after locking``).

The file is not trusted: it is opened read-only and immutable, only tables are read, and SQLite's work is bounded.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.traces.items import Entry, Tally

MAGIC = b"SQLite format 3\0"
TABLE = "memory_failure_event"
REPORTS = (
    "mc_event", "mce_record", "extlog_event", "non_standard_event", "arm_event", "aer_event", "cxl_poison_event",
    "cxl_general_media_event", "cxl_dram_event",
)  # fmt: skip
"""Tables of what hardware reported: they tell nobody."""
VALUE_MAX = 1 << 16
"""Bytes of the longest value that is read."""
BATCH = 256
STEP = 100_000
STEPS_MAX = 2_000
"""SQLite may make STEP * STEPS_MAX steps of its machine for one question."""

_PFN = re.compile(rb"0x([0-9a-f]{1,16})\Z")
_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\Z")


class Database:
    """The database, opened and checked.  Raises InputError: it is none of rasdaemon's, or damaged."""

    def __init__(self, path: str, name: str) -> None:
        self._name = name
        self._path = path
        self._steps = 0
        self.rows = 0
        try:
            uri = Path(path).absolute().as_uri() + "?mode=ro&immutable=1"
            self._db = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except (sqlite3.Error, ValueError) as error:
            raise InputError(f"{name}: cannot be opened as a database ({error}), expected rasdaemon's") from None
        try:
            self._guard()
            self._tables = self._names()
        except sqlite3.Error as error:
            self.close()
            raise self._damaged(error) from None
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def read(self, tally: Tally, page_shift: int) -> Iterator[Entry]:
        """HostSignal per lost page; an entry's line is the place of its row.  Raises InputError when strict."""
        try:
            self._notes(tally)
            if TABLE not in self._tables:
                return
            for _, stamp, pfn in self._rows():
                self.rows += 1
                yield self._entry(stamp, pfn, tally, page_shift)
        except (sqlite3.Error, OverflowError) as error:
            raise self._damaged(error) from None

    def _rows(self) -> Iterator[tuple[int, object, object]]:
        """The rows in order, up to the first that cannot be read."""
        after, last, batch = "", -(1 << 63) - 1, BATCH
        while True:
            query = f"SELECT rowid, timestamp, pfn FROM {TABLE} {after} ORDER BY rowid LIMIT {batch}"
            self._steps = 0
            try:
                rows = self._db.execute(query).fetchall()
            except sqlite3.Error:
                if batch == 1:
                    raise
                batch = 1  # sqlite3 looks a row ahead, and loses the one before a bad one
                continue
            for row in rows:
                if row[0] <= last:
                    raise sqlite3.DatabaseError("rows out of order")
                last = row[0]
                yield row
            if len(rows) < batch:
                return
            after = f"WHERE rowid > {last}"

    def _guard(self) -> None:
        db = self._db
        db.text_factory = bytes
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_MAX)
        db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, VALUE_MAX)
        db.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 20)
        db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        db.set_progress_handler(self._step, STEP)
        for pragma in (
            "trusted_schema=OFF",
            "cell_size_check=ON",
            "query_only=ON",
            "temp_store=MEMORY",
            "cache_size=-4096",
        ):
            db.execute(f"PRAGMA {pragma}")

    def _step(self) -> int:
        self._steps += 1
        return self._steps > STEPS_MAX

    def _names(self) -> set[str]:
        """Names of the tables that rasdaemon makes; views and virtual tables can run what they like."""
        wanted = (TABLE, *REPORTS)
        marks = ",".join("?" * len(wanted))
        rows = self._db.execute(
            f"SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name IN ({marks})", wanted
        )
        found = {name.decode() for (name,) in rows}
        if not found:
            raise InputError(f"{self._name}: a database without a table of rasdaemon's, expected {TABLE}")
        if TABLE in found:
            columns = {row[1]: row[6] for row in self._db.execute(f"PRAGMA table_xinfo({TABLE})")}
            missing = [c for c in ("timestamp", "pfn") if columns.get(c.encode()) != 0]  # hidden ones are computed
            if missing:
                raise InputError(
                    f"{self._name}: {TABLE} without a stored column {missing[0]}, expected timestamp and pfn"
                )
        return found

    def _notes(self, tally: Tally) -> None:
        if TABLE not in self._tables:
            tally.notes[f"no table {TABLE}: this rasdaemon does not record lost pages"] += 1
        for suffix in "-wal", "-journal":
            if (file := Path(self._path + suffix)).is_file() and file.stat().st_size:
                tally.notes[
                    f"a {suffix} file lies beside the database and is not read: copy it when rasdaemon is stopped"
                ] += 1
        for table in sorted(self._tables - {TABLE}):
            self._steps = 0
            (count,) = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()
            if count:
                tally.info += count
                tally.notes[f"{table}: the hardware's report, which tells nobody; not used"] += count

    def _entry(self, stamp: object, pfn: object, tally: Tally, page_shift: int) -> Entry:
        at = _seconds(stamp)
        frame = _PFN.match(pfn) if isinstance(pfn, bytes) else None
        if frame is None or int(frame[1], 16) << page_shift >> 64:
            kind = ascii(pfn[:40].decode("ascii", "replace")) if isinstance(pfn, bytes) else type(pfn).__name__
            return self.rows, at, tally.reject(self.rows, f"pfn {kind}, expected a page frame as 0x and hex digits")
        if at is None:
            tally.notes["rows whose timestamp makes no sense"] += 1
        address = int(frame[1], 16) << page_shift
        return self.rows, at, HostSignal(Code.AO, address, page_shift, 0, at)

    def _damaged(self, error: Exception) -> InputError:
        what = "work without end" if "interrupted" in str(error) else str(error)
        text = "".join(c if " " <= c <= "~" else "?" for c in what[:100])
        return InputError(f"{self._name}: the database is damaged after row {self.rows} ({text}), expected rasdaemon's")


def _seconds(stamp: object) -> float | None:
    if not isinstance(stamp, bytes) or not _TIME.match(stamp):
        return None
    try:
        when = datetime.fromisoformat(stamp.replace(b" +", b"+").replace(b" -", b"-").decode())
        return (when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
