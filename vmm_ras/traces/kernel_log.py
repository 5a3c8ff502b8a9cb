"""Kernel log (mm/memory-failure.c): ``Memory failure: PFN: Sending SIGBUS to COMM:TID due to ...``.

The host's log names a page frame of the **host** and a thread.  It has no host virtual address, no si_code and no
si_addr_lsb.  So a notification read from it is a HostSignal in which the **host physical address stands in for the
hva**, whose code is AO (AR and AO cannot be told apart in a kernel log) and whose lsb is the host's page shift (a huge
page shows as one page).  What maps it to the guest is a map of HPA:GPA:SIZE, or windows of 1 GiB in order of
appearance, as for hvas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from vmm_ras.events import Code, HostSignal
from vmm_ras.traces.items import Entry, Tally, shown
from vmm_ras.traces.lines import LONGEST

_SENT = re.compile(
    rb"(?:Memory failure: |MCE )(0x[0-9a-f]{1,16}): (?:Sending SIGBUS to|Killing) (.+):(\d{1,10})"
    rb"(?: early)? due to hardware memory corruption\s*\Z",
    re.DOTALL,
)
_SENDS = re.compile(rb"(?:Memory failure: |MCE )0x[^\s:]*: (?:Sending SIGBUS|Killing )")
# x86 also says "MCE: Killing COMM:TID due to ... fault at HVA" of a thread that touched poison: it names no page frame.
_ABOUT = re.compile(rb"Memory failure: |MCE 0x|MCE: Killing |Memory error may not recovered: ")

_LEVEL = re.compile(rb"\s*(?:<\d{1,3}>|[a-z]+ *:[a-z]+ *: )?")  # dmesg --raw, dmesg -x
_UPTIME = re.compile(rb"\[\s*(\d{1,12}\.\d{1,9})(?: <[^>]*>)?\]")
_CTIME = re.compile(rb"\[\w{3} (\w{3}) {1,2}(\d{1,2}) (\d\d:\d\d:\d\d) (\d{4})\]")  # dmesg -T
_ISO = re.compile(rb"(?:\w{3} )?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)(Z|[+-]\d\d:?\d\d| UTC)?(?=[ \t])")
_UNIX = re.compile(rb"(\d{9,11}\.\d{1,9})(?= )")
_SYSLOG = re.compile(rb"(\w{3}) {1,2}(\d{1,2}) (\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?= )")
_IDENT = re.compile(rb"\s*\S+ ([^\s\[\]:]+)(?:\[\d+\])?: ")  # HOST kernel: of syslog and journalctl
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def recognises(line: bytes) -> bool:
    """Whether a line can only be a kernel log's."""
    if _SENDS.search(line) or b"[Hardware Error]" in line:
        return True
    text = line[_lead(line) :]
    if _UPTIME.match(text) or _CTIME.match(text):
        return True
    iso = _ISO.match(text)
    # A time begins many a log; a comma before the fraction is dmesg's own (--time-format=iso), which names no kernel.
    if iso is not None and b"," in iso[2]:
        return True
    return b" kernel: " in text and bool(iso or _UNIX.match(text) or _SYSLOG.match(text))


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally, page_shift: int = 12) -> Iterator[Entry]:
    """HostSignal per SIGBUS that the kernel says it sends; ``page_shift`` is log2 of the host's page size.

    The trace clock is seconds since boot (``[ 8123.456700]``) or since the epoch; ``HostSignal.time`` is known where
    the log shows a date, a time and a zone (journalctl -o short-iso and short-unix, dmesg --time-format=iso).
    Other lines are ignored; what the kernel did with a page is counted as ``info``.  Raises InputError when strict.
    """
    for first, lines in batches:
        for number, line in enumerate(lines, first):
            if line is None:
                yield number, None, tally.reject(number, f"a line of more than {LONGEST} bytes, expected a kernel log")
                continue
            about = _ABOUT.search(line)
            if about is None:
                continue
            at, time, kernel = _stamp(line[: about.start()])
            if not kernel:
                continue
            text = line[about.start() :]
            if not _SENDS.match(text):
                tally.info += 1
                continue
            sent = _SENT.match(text)
            if sent is None:
                reason = f"{shown(text)} sends no SIGBUS as a kernel says it, expected ... COMM:TID due to ..."
                yield number, at, tally.reject(number, reason)
                continue
            address = int(sent[1], 16) << page_shift
            if address >> 64:
                reason = f"page frame {sent[1].decode()} is beyond 64 bits of address, expected less"
                yield number, at, tally.reject(number, reason)
                continue
            yield number, at, HostSignal(Code.AO, address, page_shift, int(sent[3]), time)


def _lead(line: bytes) -> int:
    level = _LEVEL.match(line)
    return level.end() if level else 0


def _stamp(lead: bytes) -> tuple[float | None, float | None, bool]:
    """Trace clock, wall clock, and whether it is the kernel that speaks, from what stands before the message."""
    text = lead[_lead(lead) :]
    uptime = _UPTIME.search(text)
    if match := _CTIME.match(text):
        # The local time of a zone that is not named.
        return _seconds(_day(match[4], match[1], match[2]), match[3]), None, True
    at: float | None = None
    wall: float | None = None
    if match := _ISO.match(text):
        at = _seconds(match[1], match[2], match[3] or b"Z")
        wall = at if match[3] else None
    elif match := _UNIX.match(text):
        at = wall = float(match[1])
    elif match := _SYSLOG.match(text):
        # No year: 2000 stands in, a leap year.  Only differences mean anything.
        at = _seconds(_day(b"2000", match[1], match[2]), match[3])
    speaker = _IDENT.match(text, match.end()) if match else None
    if wall is None and uptime:
        at = float(uptime[1])
    return at, wall, speaker is None or speaker[1] == b"kernel"


def _day(year: bytes, month: bytes, day: bytes) -> bytes:
    return b"%s-%02d-%02d" % (year, _MONTHS.index(month) + 1 if month in _MONTHS else 0, int(day))


def _seconds(day: bytes, clock: bytes, zone: bytes = b"Z") -> float | None:
    """Seconds since the epoch, None if there is no such time (the 31st of June, 25 o'clock)."""
    try:
        when = datetime.fromisoformat((b"%sT%s%s" % (day, clock, b"Z" if zone == b" UTC" else zone)).decode())
        return (when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
