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
    rb" due to hardware memory corruption\s*\Z",
    re.DOTALL,
)
_SENDS = re.compile(rb"(?:Memory failure: |MCE )0x[0-9a-fA-F]+: (?:Sending SIGBUS|Killing )")
_ABOUT = re.compile(rb"Memory failure: |MCE 0x|MCE: Killing ")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")

_UPTIME = re.compile(rb"\[\s*(\d{1,12}\.\d{1,9})(?: <[^>]*>)?\]")
_CTIME = re.compile(rb"\[\w{3} (\w{3}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})\]")
_ISO = re.compile(rb"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?(?=[ \t])")
_UNIX = re.compile(rb"(\d{9,11}\.\d{1,9}) ")
_SYSLOG = re.compile(rb"(\w{3}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d(?:\.\d{1,9})?) ")
_LEVEL = re.compile(rb"\s*(?:<\d{1,3}>|[a-z]+ *:[a-z]+ *: )?")
_IDENT = re.compile(rb"\s*\S+ ([^\s\[\]:]+)(?:\[\d+\])?: ")


def recognises(line: bytes) -> bool:
    """Whether a line can only be a kernel log's."""
    if _SENDS.search(line) or b"[Hardware Error]" in line:
        return True
    text = line[_lead(line) :]
    if _UPTIME.match(text) or _CTIME.match(text):
        return True
    stamp = _ISO.match(text) or _UNIX.match(text) or _SYSLOG.match(text)
    # journalctl and rsyslog: TIME HOST kernel: text; dmesg --time-format=iso has neither host nor identifier.
    return stamp is not None and (b" kernel: " in text or (b"," in stamp[0] and _ISO.match(text) is not None))


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
    """Where the text begins after ``<3>`` (dmesg --raw) or ``kern  :err   : `` (dmesg -x)."""
    level = _LEVEL.match(line)
    return level.end() if level else 0


def _stamp(lead: bytes) -> tuple[float | None, float | None, bool]:
    """Trace clock, wall clock, and whether it is the kernel that speaks, from what stands before the message."""
    text = lead[_lead(lead) :]
    at: float | None = None
    wall: float | None = None
    rest = text
    if match := _ISO.match(text):
        zone = match[4]
        at = _seconds(b"%sT%s%s" % (match[1], match[2], b"+00:00" if zone in (None, b"Z") else zone))
        if at is not None and match[3]:
            at += float(b"0." + match[3])
        wall = at if zone else None
        rest = text[match.end() :]
    elif match := _UNIX.match(text):
        at = wall = float(match[1])
        rest = text[match.end() - 1 :]
    elif match := _SYSLOG.match(text):
        # No year: 2000 stands in, a leap year.  Only differences mean anything.
        at = _date(b"2000", *match.group(1, 2, 3, 4), match[5][:2])
        rest = text[match.end() - 1 :]
    elif match := _CTIME.match(text):
        # dmesg -T prints the local time of a zone that it does not name.
        return _date(match[6], *match.group(1, 2, 3, 4, 5)), None, True
    if match := _UPTIME.search(text):
        return (float(match[1]) if wall is None else at), wall, True
    ident = _IDENT.match(rest) if rest is not text else None
    return at, wall, ident is None or ident[1] == b"kernel"


def _date(year: bytes, month: bytes, day: bytes, *clock: bytes) -> float | None:
    if month not in _MONTHS:
        return None
    date = b"%s-%02d-%02d" % (year, _MONTHS.index(month) + 1, int(day))
    return _seconds(b"%sT%s+00:00" % (date, b":".join(clock)))


def _seconds(text: bytes) -> float | None:
    """Seconds since the epoch of an ISO 8601 time with a zone, None if there is no such time."""
    try:
        return (datetime.fromisoformat(text.decode()) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
