"""strace output: lines ``--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, ...} ---`` (siginfo: sigaction(2)).

A line starts with what the options ask for: ``[pid N] `` (-f) or ``N `` (-f -o FILE); then a time (-t, -tt, -ttt), an
increment (-r), or both; then ``[ syscall]`` (-n) and ``[instruction pointer]`` (-i).  Only a line that goes on with
``--- SIGBUS`` is a delivery: a system call that shows the same siginfo (rt_tgsigqueueinfo, rt_sigtimedwait, waitid)
sent it, took it or looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vmm_ras.events import Code, HostSignal
from vmm_ras.traces.items import BadLine, Entry, Tally, shown
from vmm_ras.traces.lines import LONGEST

PAGE_SHIFT = 12
"""log2 of the bytes lost where strace shows no si_addr_lsb (a strace that does not decode it)."""
PID_MAX = 1 << 22
"""PID_MAX_LIMIT of Linux: a first number beyond it is a time."""
EPOCH_FROM = 1e8
"""-r and -ttt print the same form; no trace has a pause of three years, and none is from before 1973."""
DAY = 86400

_LEAD = re.compile(
    rb"\s*"
    rb"(?:\[pid\s+(\d{1,10})(?:<[^>]*>)?\]\s+|(\d{1,10})(?:<[^>]*>)?\s+)?"  # 1 [pid N], 2 N
    rb"(?:(?:(\d\d):(\d\d):(\d\d(?:\.\d{1,9})?)|(\d{1,12}(?:\.\d{1,9})?))\s+(?:\(\+\s*[\d.]+\)\s+)?)?"  # 3-5 of day, 6
    rb"(?:\[pid\s+(\d{1,10})(?:<[^>]*>)?\]\s+)?"  # 7 [pid N] after the time
    rb"(?:\[[ 0-9a-f?]+\]\s+)*"
    rb"(--- |\+\+\+ |<\.\.\. |\?\?\?|[a-z_]\w*\()"  # 8 what strace goes on with; nothing else is a line of strace's
)
_SIGINFO = re.compile(rb"--- SIGBUS \{((?:[^{}]|\{[^{}]*\})*)\} ---\s*\Z")
_CODE = re.compile(rb"\bsi_code=(-?\w+)")
_ADDRESS = re.compile(rb"\bsi_addr=(NULL|0x[0-9a-fA-F]{1,16}|\d{1,20})(?![^,])")
_LSB = re.compile(rb"\bsi_addr_lsb=(0x[0-9a-fA-F]{1,4}|\d{1,5})(?![^,])")
_CODES = {b"BUS_MCEERR_AR": Code.AR, b"BUS_MCEERR_AO": Code.AO, b"4": Code.AR, b"5": Code.AO}
_STARTS = re.compile(
    rb"\w+\(.*(?:\)\s+= (?:-?\d|0x|\?)|<unfinished \.\.\.>$)|<\.\.\. \w+ resumed>|--- SIG|--- stopped by|\+\+\+ "
)


def recognises(line: bytes) -> bool:
    """Whether a line can only be strace's."""
    if line.startswith(b"strace: "):
        return True
    lead = _LEAD.match(line)
    return lead is not None and _STARTS.match(line, lead.start(8)) is not None


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally) -> Iterator[Entry]:
    """HostSignal per delivery of a memory failure; every other line of strace, and of the traced process, is ignored.

    The trace clock is that of the lines: seconds since the epoch (-ttt), since the first midnight (-t, -tt; it runs on
    over midnight), or since strace started (-r: the sum over all lines).  ``HostSignal.time`` is known with -ttt only,
    ``tid`` is 0 where the line shows none.  Raises InputError when strict.
    """
    clock = _Clock()
    for first, lines in batches:
        for number, line in enumerate(lines, first):
            if line is None:
                yield number, None, tally.reject(number, f"a line of more than {LONGEST} bytes, expected strace output")
                continue
            lead = _LEAD.match(line)
            if lead is None:
                continue
            pid, bare, hour, minute, second, count, late_pid, _ = lead.groups()
            if bare is not None and int(bare) > PID_MAX and count is None:
                bare, count = None, bare
            at = wall = None
            if hour is not None:
                at = clock.time_of_day(int(hour) * 3600 + int(minute) * 60 + float(second))
            elif count is not None:
                at, wall = clock.count(float(count))
            begin = lead.start(8)
            if line.startswith(b"--- SIGBUS", begin):
                item = _delivery(line[begin:], int(pid or bare or late_pid or 0), wall)
                if item is None:
                    tally.other += 1
                else:
                    yield number, at, item if isinstance(item, HostSignal) else tally.reject(number, item.reason)
            elif line.startswith(b"+++ killed by SIGBUS", begin):
                tally.info += 1


def _delivery(text: bytes, tid: int, time: float | None) -> HostSignal | BadLine | None:
    """The signal, what is wrong with the line, or None for a SIGBUS that is no memory failure."""
    siginfo = _SIGINFO.match(text)
    if siginfo is None:
        return BadLine(f"{shown(text)} is a SIGBUS without a whole siginfo, expected --- SIGBUS {{...}} ---")
    body = siginfo[1]
    named = _CODE.search(body)
    if named is None:
        return BadLine("SIGBUS without si_code, expected BUS_MCEERR_AR, BUS_MCEERR_AO or another code")
    code = _CODES.get(named[1])
    if code is None:
        try:
            code = _CODES.get(b"%d" % int(named[1], 0))
        except ValueError:  # a name: BUS_ADRERR, SI_USER
            code = None
        if code is None:
            return None
    address = _ADDRESS.search(body)
    hva = 0 if address is None or address[1] == b"NULL" else _integer(address[1])
    if address is None or hva >> 64:
        return BadLine(f"{code.name} without a usable si_addr, expected NULL or an address of at most 64 bits")
    lsb = PAGE_SHIFT
    if b"si_addr_lsb=" in body:
        granule = _LSB.search(body)
        lsb = 64 if granule is None else _integer(granule[1])
        if lsb > 63:
            return BadLine(f"si_addr_lsb of {shown(body[body.index(b'si_addr_lsb=') + 12 :], 20)}, expected 0 to 63")
    return HostSignal(code, hva, lsb, tid, time)


def _integer(digits: bytes) -> int:
    return int(digits, 16) if digits.startswith(b"0x") else int(digits)


class _Clock:
    """The trace clock: what the lines' times say, in seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self._day = 0

    def time_of_day(self, seconds: float) -> float:
        now = self._day + seconds
        # A clock that was set back is not a new day.
        if now < self._last - DAY / 2:
            self._day += DAY
            now += DAY
        self._last = now
        return now

    def count(self, seconds: float) -> tuple[float, float | None]:
        """Trace clock and wall clock of a time since the epoch (-ttt), or since the line before (-r)."""
        if seconds >= EPOCH_FROM:
            return seconds, seconds
        self._last += seconds
        return self._last, None
