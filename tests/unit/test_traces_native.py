"""Writing the native trace, counting, and making one from a seed."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault
from vmm_ras.traces import (
    AckDelay,
    BadLine,
    Header,
    MaskSerror,
    MemorySlot,
    PollStop,
    RunAt,
    SdeiRegistered,
    Unlocated,
    VcpuThread,
    open_trace,
)
from vmm_ras.traces.generate import GPA, HVA, SCENARIOS, TID, Scenario, change, generate
from vmm_ras.traces.stats import KEYS_MAX, Stats
from vmm_ras.traces.write import HELD_MAX, Writer

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
CAPTURES = [p for p in sorted(FIXTURES.glob("*.*")) if p.suffix not in {".md", ".c", ".S", ".sh"}]
AR, AO = Code.AR, Code.AO


def written(entries, **options):
    writer = Writer(**options)
    return b"".join(writer.lines(entries)), writer


def native(data: bytes):
    with open_trace("-", stdin=BytesIO(data), strict=True) as trace:
        entries = list(trace)
    assert trace.format == "jsonl"
    assert isinstance(entries[0][2], Header)
    return entries


def signal(at=None, hva=0x1000, lsb=12, code=AO, tid=1, wall=False):
    return 1, at, HostSignal(code, hva, lsb, tid, at if wall else None)


class TestWriting:
    @pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
    def test_captures_keep_everything(self, path):
        with open_trace(path) as trace:
            entries = list(trace)
        data, writer = written(entries, addresses=trace.addresses)
        again = native(data)
        assert again[0][2].addresses == trace.addresses
        assert writer.untimed == 0
        untimed = MemorySlot | VcpuThread
        assert [(at, item) for _, at, item in again[1:]] == [
            (None if isinstance(item, untimed) else at, item) for _, at, item in entries if not isinstance(item, Header)
        ]
        # And its own native form is itself, byte for byte.
        assert written(again)[0] == data

    def test_every_item_has_a_line(self):
        items = [
            MemorySlot(1 << 63, 0, 4096), VcpuThread(3, 7), HostSignal(AR, (1 << 64) - 4096, 63, (1 << 32) - 1),
            GuestAbort(1, 0x92000410), GuestAbort(1, 0x92000410, 5, 6), MemoryFault(0, (1 << 64) - 1),
            Unlocated(None, 0, ""), Unlocated(AR, 9, "~ \"quoted\" \\"), AckDelay(None, None), AckDelay(2.5, 3),
            MaskSerror(2, True), SdeiRegistered(False), RunAt(1, 0), PollStop(True),
        ]  # fmt: skip
        data, writer = written((n, None, item) for n, item in enumerate(items))
        assert [item for _, _, item in native(data)[1:]] == items
        assert sum(writer.written.values()) == len(items)

    def test_wall_times_are_kept_as_such(self):
        data, _ = written([(1, 5.5, MemorySlot(0, 0, 4096)), signal(1795230946.25, wall=True)])
        assert native(data)[0][2] == Header(1, True)
        assert native(data)[2][1:] == signal(1795230946.25, wall=True)[1:]

    def test_the_first_time_tells_the_clock(self):
        entries = [signal(), (1, None, BadLine("x")), signal(1795230946.0, wall=True), signal(), signal(3.0)]
        data, writer = written(entries)
        got = native(data)
        assert got[0][2].wall
        assert [at for _, at, _ in got[1:]] == [None, 1795230946.0, None, None]
        assert (writer.untimed, writer.bad) == (1, 1)

    def test_what_waits_for_a_time_is_bounded(self):
        lines = Writer().lines(signal() for _ in iter(int, 1))
        assert b'"relative"' in next(lines)
        assert sum(1 for _ in zip(range(HELD_MAX + 5), lines, strict=False)) == HELD_MAX + 5

    def test_a_time_before_1970(self):
        data, writer = written([signal(-1.0), signal(2.0)])
        assert [at for _, at, _ in native(data)[1:]] == [None, 2.0]
        assert writer.untimed == 1

    def test_nothing_is_a_trace_too(self):
        assert native(written([])[0]) == [(1, None, Header(1, False))]
        assert [item for _, _, item in native(written([(1, None, VcpuThread(0, 1))])[0])[1:]] == [VcpuThread(0, 1)]

    def test_the_quick_path_reads_what_is_written(self, monkeypatch):
        data, _ = written([signal(1.0), signal(2.0)])
        monkeypatch.setattr("vmm_ras.traces.jsonl._one", None)
        assert len(list(open_trace("-", stdin=BytesIO(data.split(b"\n", 1)[1])))) == 2


def counted(entries, *args, **options):
    stats = Stats(*args, **options)
    entries = list(entries)
    assert list(stats.take(entries)) == entries
    return stats.plain()


class TestCounting:
    def test_a_capture(self):
        with open_trace(FIXTURES / "qemu-like.strace") as trace:
            entries = list(trace)
        plain = counted(entries)
        signals = [item for _, _, item in entries]
        assert plain["codes"] == dict(Counter(s.code.name for s in signals)) == {"AO": 7, "AR": 11}
        assert plain["granules"] == {str(k): v for k, v in sorted(Counter(s.lsb for s in signals).items())}
        assert plain["threads"] == {str(k): v for k, v in Counter(s.tid for s in signals).items()}
        lost = {p for s in signals for p in range(s.hva >> s.lsb << s.lsb >> 12, ((s.hva >> s.lsb) + 1 << s.lsb) >> 12)}
        assert plain["pages"] == {"unit": 4096, "host": len(lost), "guest": 0, "exact": True}
        times = [at for _, at, _ in entries]
        assert plain["time"]["span"] == max(times) - min(times)
        assert plain["unmapped"] is None

    @pytest.mark.parametrize("lsb", [12, 13, 16, 21, 25, 30, 31])
    def test_pages_of_any_granule(self, lsb):
        within = (5 << lsb) + (1 << lsb) - 4096
        one = signal(hva=within, lsb=lsb)
        plain = counted([one, one, signal(hva=within, lsb=12), signal(hva=5 << lsb, lsb=12), signal(hva=9 << lsb)])
        assert plain["pages"]["host"] == (1 << lsb - 12) + 1
        assert plain["repeated"] == 3

    def test_pages_agree_with_a_set(self):
        trace = list(generate(change(SCENARIOS["mixed"][1], events=3000, memory=1 << 22), 5))
        want = {item.hva >> 12 for _, _, item in trace if isinstance(item, HostSignal)}
        assert counted(trace)["pages"]["host"] == len(want) < 1025

    def test_faults_that_cross_windows(self):
        plain = counted([(1, None, MemoryFault((1 << 30) - 4096, 8192)), (2, None, MemoryFault(1 << 30, 1))])
        assert plain["pages"]["guest"] == 2
        assert plain["repeated"] == 1
        assert plain["granules"] == {"0": 1, "13": 1}
        assert plain["codes"] == {}

    def test_what_is_too_much_is_said(self):
        plain = counted(signal(hva=n << 30) for n in range(2100))
        assert plain["pages"] == {"unit": 4096, "host": 2048, "guest": 0, "exact": False}
        assert not counted([signal(lsb=63)])["pages"]["exact"]
        plain = counted(signal(tid=n) for n in range(KEYS_MAX + 7))
        assert plain["threads"]["others"] == 7

    def test_memory_stays_bounded(self):
        # One bit per page of the windows: 32 KiB for a GiB.
        tracemalloc.start()
        try:
            counts = Stats()
            for n in range(4000):
                counts.add(signal(at=n * 1e-3, hva=n * 0x9E3779B1 % (1 << 34) & -4096, tid=n % 9))
            assert tracemalloc.get_traced_memory()[1] < 800_000
        finally:
            tracemalloc.stop()

    def test_unmapped(self):
        slots = [MemorySlot(0x10000, 0, 0x10000)]
        entries = [signal(hva=0xF000), signal(hva=0x10000), signal(hva=0x1F000), signal(hva=0x20000)]
        assert counted(entries, slots)["unmapped"] == 2
        assert counted([(1, None, slots[0]), *entries])["unmapped"] == 2
        assert counted([(1, None, slots[0]), (1, None, MemorySlot(0x18000, 0, 0x10000)), *entries])["unmapped"] == 2
        assert counted([(1, None, MemorySlot(0x20000, 0, 0x1000)), (1, None, slots[0]), *entries])["unmapped"] == 1

    def test_storms(self):
        times = [0, 0.5, 1.4, 2.4, 5, 9, 9, 9, 20]
        plain = counted((signal(float(at)) for at in times), gap=1.0, least=3)["storms"]
        assert plain == {
            "gap": 1.0, "least": 3, "count": 2, "events": 7, "longest": {"events": 4, "first": 0.0, "seconds": 2.4},
        }  # fmt: skip
        assert counted((signal(float(at)) for at in (5, 1, 0.5)), least=2)["storms"]["count"] == 0

    def test_rate(self):
        time = counted(signal(float(at)) for at in (10, 10.2, 10.9, 11, 14))["time"]
        assert time == {"first": 10.0, "last": 14.0, "span": 4.0, "per_second": 1.25, "peak_in_a_second": 3}
        none = {"first": None, "last": None, "span": None, "per_second": None, "peak_in_a_second": None}
        assert counted([signal()])["time"] == none

    def test_the_rest(self):
        plain = counted(
            [
                (1, None, Header(1, True, "hpa")), (2, None, BadLine("x")), (3, 1.0, Unlocated(None, 0, "")),
                (3, 1.0, Unlocated(AR, 0, "")), (4, None, VcpuThread(0, 1)), (5, 2.0, AckDelay(None, None)),
                (6, 3.0, GuestAbort(0, 1, None, 0x5000)),
            ]
        )  # fmt: skip
        assert plain["addresses"] == "hpa"
        assert (plain["bad_lines"], plain["events"]) == (1, 3)
        assert plain["unlocated"] == {"unknown": 1, "AR": 1}
        assert plain["trace"] == {"vcpu": 1, "ack-delay": 1}
        assert plain["kinds"] == {"unlocated": 2, "abort": 1}
        assert plain["codes"] == {"AR": 1}
        assert plain["pages"]["guest"] == 1


class TestGenerating:
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_a_seed_is_a_trace(self, name):
        scenario = change(SCENARIOS[name][1], events=200)
        data, _ = written(generate(scenario, 7))
        assert written(generate(scenario, 7))[0] == data
        assert written(generate(scenario, 8))[0] != data
        entries = native(data)
        assert [item for _, _, item in entries] == [item for _, _, item in generate(scenario, 7)]
        assert [number for number, _, _ in entries] == list(range(1, len(entries) + 1))
        times = [at for _, at, _ in entries if at is not None]
        assert times == sorted(times)
        assert sum(isinstance(item, HostSignal | Unlocated) for _, _, item in entries) == 200

    def test_its_bytes_are_those_of_every_machine(self):
        whole = b"".join(written(generate(change(values, events=100), 1))[0] for _, values in SCENARIOS.values())
        digest = "2af367c5356c3ce7212346448f2b1eecbe20b48ce1f75160f7d0ea53b9cd22c3"
        assert hashlib.sha256(whole).hexdigest() == digest, "a seed is another trace now: say so in CHANGELOG.md"

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_addresses_are_in_guest_memory(self, name):
        scenario = change(SCENARIOS[name][1], events=500)
        for _, _, item in generate(scenario, 3):
            if isinstance(item, HostSignal):
                assert item.lsb in scenario.granules
                assert HVA <= item.hva < HVA + scenario.memory
                assert not item.hva & (1 << scenario.host_page) - 1
                assert TID <= item.tid <= TID + scenario.vcpus
                assert (item.tid == TID) == (item.code is AO)

    def test_scenarios_are_what_they_say(self):
        plain = {
            name: counted(generate(change(values, events=2000, memory=64 << 30), 1))
            for name, (_, values) in SCENARIOS.items()
        }
        assert 0.27 < plain["mixed"]["codes"]["AR"] / 2000 < 0.33
        assert 25 < plain["storm"]["storms"]["count"] <= 2000 // 64 + 1  # some follow at once
        assert plain["storm"]["storms"]["longest"]["events"] in {64, 128, 192}
        assert plain["host-64k"]["granules"] == {"16": 2000}
        assert plain["hugetlb-2m"]["granules"] == {"21": 2000}
        assert plain["hugetlb-1g"]["granules"] == {"30": 2000}
        assert 500 < sum(plain["lost"]["unlocated"].values()) < 700
        assert 40 < plain["late-ack"]["trace"]["ack-delay"] < 160
        assert {"mask-serror", "el", "sdei", "poll-stop", "ack-delay"} < set(plain["restless"]["trace"])
        assert plain["host-64k"]["repeated"] > 1000  # several vCPUs hit one loss

    def test_late_acks_end(self):
        acks = [
            item.ms
            for _, _, item in generate(change(SCENARIOS["late-ack"][1], events=5000), 1)
            if isinstance(item, AckDelay)
        ]
        assert acks[1::2] == [0.0] * len(acks[1::2])
        assert None in acks[::2]
        assert all(ms is None or 1 <= ms <= 500 for ms in acks[::2])

    def test_a_million_is_a_stream(self):
        tracemalloc.start()
        try:
            stream = generate(change(SCENARIOS["mixed"][1], events=1 << 40), 1)
            assert sum(1 for _ in zip(range(6000), stream, strict=False)) == 6000
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "values",
        [
            {"ar": 1.5}, {"events": -1}, {"vcpus": 0}, {"vcpus": 513}, {"granules": ()}, {"granules": (11,)},
            {"host_page": 16}, {"memory": 4096, "granules": (13,)}, {"memory": 5000}, {"storm": 0}, {"lost": -0.1},
        ],
    )  # fmt: skip
    def test_what_cannot_be(self, values):
        with pytest.raises(InputError, match=r"expected|no multiple"):
            Scenario(**values)

    def test_the_map_is_the_first_slot(self):
        entries = list(generate(Scenario(events=0, vcpus=2), 0))
        assert entries == [
            (1, None, Header(1, False)), (2, None, MemorySlot(HVA, GPA, 4 << 30)),
            (3, None, VcpuThread(0, TID + 1)), (4, None, VcpuThread(1, TID + 2)),
        ]  # fmt: skip
