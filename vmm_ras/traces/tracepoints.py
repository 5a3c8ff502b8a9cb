"""Tracepoints as text: ftrace, `trace-cmd report`, `perf script` (include/trace/events/signal.h, memory-failure.h).

``signal_generate`` names code and thread, but no address.  ``memory_failure_event`` names a page frame of the host, but
nobody who was told.  One call of memory_failure() emits both in its own task, the signals first; so a signal belongs to
the next memory_failure_event of its task, if that comes within JOIN_WITHIN seconds and the task did not go back to user
space meanwhile (signal_deliver).  What is joined is a HostSignal in which the host physical address stands in for the
hva; any other signal (KVM's BUS_MCEERR_AR above all) is Unlocated.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

from vmm_ras.events import Code, HostSignal
from vmm_ras.traces.items import Entry, Tally, TraceItem, Unlocated, shown
from vmm_ras.traces.lines import LONGEST, UntilDamage

SIGBUS = 7
JOIN_WITHIN = 1.0
WAITING_MAX = 1024
"""Signals that wait to be joined at most."""
LEAD_MAX = 200
PAYLOAD_MAX = 400

NO_PAGE = "signals without a page: signal_generate has no address, and no memory_failure_event is theirs"
NOT_SENT = "signals that the kernel did not send as it should have"
LOST = "events lost by the tracer: what they told is missing here"

_TIME = rb"(\d{1,15}(?:\.\d{1,9})?)"
_EVENT = re.compile(
    rb"(?<![\w-])(?:\w{1,32}:)?(signal_generate|signal_deliver|memory_failure_event|mce_record|mc_event|aer_event"
    rb"|extlog_mem_event|non_standard_event|arm_event):(?= )"
)
_GENERATE = re.compile(
    rb" +sig=(-?\d{1,9}) errno=-?\d+ code=(-?\d{1,9}) comm=(.{0,64}?) pid=(\d{1,10})"
    rb" (?:grp|group)=\d+ (?:res|result)=(\d)(?=\s|\Z)",
    re.DOTALL,
)
_SIG = re.compile(rb" +sig=(-?\d{1,9}) ")
_FAILURE = re.compile(
    rb" +pfn[ =](0x[0-9a-f]{1,16}|0)(?:: recovery action for ([^:]{1,60}): (\w+)| type=\d+ result=\d)"
)

# TASK-PID (TGID) [CPU] flags TIME:, the latency format's TASK-PID CPUflags TIMEus:, and perf's TASK PID/TID [CPU] TIME:
_FTRACE = re.compile(
    rb"\s*.*-(\d{1,10})\s+(?:\(\s*[-\d]+\)\s+)?\[\d+\]\S*\s+(?:\S{4,6}\s+)?" + _TIME + rb":\s+", re.DOTALL
)
_LATENCY = re.compile(rb"\s*.*-(\d{1,10})\s+\d+[^\s\d]\S{3,5}\s+(?:(\d{1,15})us.?|" + _TIME + rb"):\s+", re.DOTALL)
_PERF = re.compile(
    rb"\s*(?:(?:.*\s)?(?:\d{1,10}/)?(\d{1,10})\s+)?(?:\[\d+\]\s+)?(?:\S{4,6}\s+)?(?:" + _TIME + rb":\s+)?", re.DOTALL
)
_LOST = re.compile(rb"\[LOST (\d{1,18}) EVENTS\]|\[EVENTS DROPPED\]|PERF_RECORD_LOST")
_ENTRIES = re.compile(rb"# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})")

_IS_FTRACE = re.compile(
    rb"# tracer: |\s*\S.{0,40}-\d{1,10}\s+(?:(?:\(\s*[-\d]+\)\s+)?\[\d{3,}\]\S*\s+(?:\S{4,6}\s+)?\d+(?:\.\d+)?"
    rb"|\d+[^\s\d]\S{3,5}\s+(?:\d+us.?|\d+\.\d+)): +\w+:"
)
_IS_PERF = re.compile(rb"[^{]{0,80}(?<![\w-])(?:signal|ras|mce|memory_failure|sched|syscalls|kvm|irq):\w+:(?: |\s*\Z)")

_RESULTS = {1: "ignored", 2: "already pending", 3: "queue full", 4: "siginfo lost"}
"""Of enum TRACE_SIGNAL_*: what was not sent as it should have been."""
_CODES = {4: Code.AR, 5: Code.AO}


def recognises_ftrace(line: bytes) -> bool:
    """Whether a line can only be ftrace's or trace-cmd's."""
    return _IS_FTRACE.match(line) is not None


def recognises_perf(line: bytes) -> bool:
    """Whether a line can only be perf script's: it names the group of an event."""
    return _IS_PERF.match(line) is not None


class _Signal:
    """A line that waits for its turn: an item, or a signal whose page is not known yet."""

    __slots__ = ("at", "code", "item", "line", "result", "task", "tid")

    def __init__(self, line: int, at: float | None, item: TraceItem | None) -> None:
        self.line, self.at, self.item = line, at, item
        self.code, self.tid, self.result, self.task = Code.AO, 0, 0, -1


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally, page_shift: int = 12) -> Iterator[Entry]:
    """HostSignal or Unlocated per SIGBUS of memory failure that was generated, in the order and at the time of that.

    ``page_shift`` is log2 of the host's page size.  The trace clock is the lines'; none of them is known to be a wall
    clock.  Raises InputError when strict.
    """
    reader = _Reader(tally, page_shift)
    whole = UntilDamage(batches)
    for first, lines in whole:
        for number, line in enumerate(lines, first):
            reader.line(number, line)
            if reader.ready:
                yield from reader.ready
                reader.ready.clear()
    yield from reader.end()
    whole.end()


class _Reader:
    def __init__(self, tally: Tally, page_shift: int) -> None:
        self.tally = tally
        self.shift = page_shift
        self.queue: deque[_Signal] = deque()
        self.waiting: dict[int, list[_Signal]] = {}
        """Signals by the task that generated them."""
        self.ready: list[Entry] = []

    def line(self, number: int, line: bytes | None) -> None:
        if line is None:
            self._item(
                number, None, self.tally.reject(number, f"a line of more than {LONGEST} bytes, expected an event")
            )
            return
        found = _EVENT.search(line, 0, LEAD_MAX)
        if found is None:
            self._other(line)
            return
        name, payload = found[1], line[found.end() : found.end() + PAYLOAD_MAX]
        task, at, stamped = self._lead(line[: found.start()])
        if not stamped:
            reason = f"{shown(line[: found.start()])} before {name.decode()}, expected task, CPU and time"
            self._item(number, None, self.tally.reject(number, reason))
            return
        if at is not None:
            self._expire(at)
        match name:
            case b"signal_generate":
                self._generated(number, at, task, payload)
            case b"signal_deliver":
                self._delivered(task, payload)
            case b"memory_failure_event":
                self._failure(number, at, task, payload)
            case _:
                self.tally.info += 1
                self.tally.notes[f"{name.decode()}: the hardware's report, which tells nobody; not used"] += 1
        self._settle()

    def _lead(self, lead: bytes) -> tuple[int | None, float | None, bool]:
        """Task, trace clock, and whether the text before an event makes sense."""
        if match := _FTRACE.fullmatch(lead):
            task, time = match[1], match[2]
        elif match := _LATENCY.fullmatch(lead):
            if match[2] is not None:
                return int(match[1]), int(match[2]) / 1e6, True
            task, time = match[1], match[3]
        elif match := _PERF.fullmatch(lead):
            task, time = match[1], match[2]
        else:
            return None, None, False
        if time is not None and b"." not in time:
            self.tally.notes["times without a fraction, of a clock that does not count seconds; not used"] += 1
            time = None
        return None if task is None else int(task), None if time is None else float(time), True

    def _other(self, line: bytes) -> None:
        if lost := _LOST.search(line, 0, LEAD_MAX):
            self.tally.notes[LOST] += int(lost[1] or 1)
            for task in list(self.waiting):
                self._give_up(task)
            self._settle()
        elif line.startswith(b"#") and (entries := _ENTRIES.match(line)):
            gone = int(entries[2]) - int(entries[1])
            if gone > 0:
                self.tally.notes[LOST] += gone

    def _generated(self, number: int, at: float | None, task: int | None, payload: bytes) -> None:
        match = _GENERATE.match(payload)
        if match is None:
            reason = f"signal_generate:{shown(payload)}, expected sig= errno= code= comm= pid= grp= res="
            self._item(number, at, self.tally.reject(number, reason))
            return
        if int(match[1]) != SIGBUS:
            return
        code = _CODES.get(int(match[2]))
        if code is None:
            self.tally.other += 1
            return
        if int(match[4]) >> 32:
            reason = f"pid={match[4].decode()} in signal_generate, expected at most 32 bits"
            self._item(number, at, self.tally.reject(number, reason))
            return
        signal = _Signal(number, at, None)
        signal.code, signal.tid, signal.result = code, int(match[4]), int(match[5])
        if task is None:
            self._unlocated(signal, "the line names no task that generated it")
        else:
            signal.task = task
            self.waiting.setdefault(task, []).append(signal)
        self._push(signal)

    def _delivered(self, task: int | None, payload: bytes) -> None:
        """The task is back in user space: no call of memory_failure() is under way in it."""
        sig = _SIG.match(payload)
        if sig is not None and int(sig[1]) == SIGBUS and task is not None:
            self._give_up(task)

    def _failure(self, number: int, at: float | None, task: int | None, payload: bytes) -> None:
        match = _FAILURE.match(payload)
        if match is None or int(match[1], 16) << self.shift >> 64:
            reason = f"memory_failure_event:{shown(payload)}, expected pfn PFN: recovery action for ...: ..."
            self._item(number, at, self.tally.reject(number, reason))
            return
        self.tally.info += 1
        signals = self.waiting.pop(task, []) if task is not None else []
        if not signals:
            self.tally.notes["memory_failure_event without a signal: nobody was told, or signals were not traced"] += 1
        elif match[2] == b"huge page":
            self.tally.notes["huge pages of the host: their size is not told, one page is taken"] += 1
        pfn = int(match[1], 16)
        own = [s for s in signals if s.tid == task]
        for s in signals:
            if s.tid == task and s is not own[-1]:
                self._unlocated(s, "no memory_failure_event of its task")  # the later one is memory_failure()'s
            elif s.result:
                self._unlocated(s, f"not sent ({_result(s.result)}): page frame {pfn:#x} of the host")
            else:
                s.item = HostSignal(s.code, pfn << self.shift, self.shift, s.tid, None)

    def _item(self, number: int, at: float | None, item: TraceItem) -> None:
        self._push(_Signal(number, at, item))

    def _push(self, signal: _Signal) -> None:
        self.queue.append(signal)
        if len(self.queue) > WAITING_MAX:
            for task in list(self.waiting):
                self._give_up(task)
        self._settle()

    def _unlocated(self, signal: _Signal, why: str) -> None:
        self.tally.notes[NOT_SENT if signal.result else NO_PAGE] += 1
        signal.item = Unlocated(signal.code, signal.tid, why)

    def _give_up(self, task: int, until: float | None = None) -> None:
        """No page is known of the signals that the task generated (up to that time)."""
        kept = []
        for s in self.waiting.pop(task, ()):
            if until is not None and s.at is not None and s.at > until:
                kept.append(s)
            else:
                why = f"not sent ({_result(s.result)})" if s.result else "no memory_failure_event of its task"
                self._unlocated(s, why)
        if kept:
            self.waiting[task] = kept

    def _expire(self, now: float) -> None:
        while self.queue:
            head = self.queue[0]  # the oldest; it waits, or it would not be here
            if head.at is None or 0 <= now - head.at <= JOIN_WITHIN:
                return
            self._give_up(head.task, head.at)
            self._settle()

    def _settle(self) -> None:
        """Hand out what is known, up to the first signal that waits."""
        queue = self.queue
        while queue and (item := queue[0].item) is not None:
            head = queue.popleft()
            self.ready.append((head.line, head.at, item))

    def end(self) -> list[Entry]:
        """All that is left."""
        for task in list(self.waiting):
            self._give_up(task)
        self._settle()
        return self.ready


def _result(result: int) -> str:
    return _RESULTS.get(result, f"result {result}")
