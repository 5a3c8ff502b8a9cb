"""What QEMU and libvirt say of a memory failure: QMP, QEMU's messages, virsh; captures of one guest agree."""

from __future__ import annotations

import gzip
import json
from io import BytesIO
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal, MemoryFault
from vmm_ras.traces import BadLine, MemorySlot, Unlocated, open_trace
from vmm_ras.traces.qemu_log import SLOTS_MAX
from vmm_ras.traces.qmp import MAYBE, WITHOUT_CODE, WITHOUT_PLACE

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
AR, AO = Code.AR, Code.AO


def captured(name: str):
    with open_trace(FIXTURES / name, strict=True) as trace:
        entries = list(trace)
    assert trace.bad == 0
    return entries, trace


def read(text: str, **options):
    trace = open_trace("-", stdin=BytesIO(text.encode()), **options)
    return list(trace), trace


def signals(entries):
    return [(item.code, item.hva) for _, _, item in entries if isinstance(item, HostSignal)]


class TestQmp:
    @staticmethod
    def event(required: object = False, action: object = "inject", recipient: object = "guest", **extra: object) -> str:
        flags = {"action-required": required, "recursive": False}
        data = {"recipient": recipient, "action": action, "flags": flags, **extra}
        stamp = {"seconds": 1267061043, "microseconds": 959568}
        return json.dumps({"event": "MEMORY_FAILURE", "data": data, "timestamp": stamp}) + "\n"

    def test_what_qemu_7_2_sent(self):
        entries, trace = captured("qemu-7.2.qmp")
        assert trace.format == "qmp"
        # AO, AR, AR, AO, AO, AR by its own messages.
        assert [item.code for _, _, item in entries] == [None, AR, AR, None, None, AR]
        assert {item.what for _, _, item in entries} == {"recipient guest, action inject"}
        assert f"{WITHOUT_PLACE} (6)" in trace.notes
        assert f"{MAYBE} (3)" in trace.notes

    def test_qemu_10_does_not_tell_ar_of_an_amd_guest(self):
        entries, _ = captured("qemu-10.0.qmp")
        told, _ = captured("qemu-10.0.stderr")
        assert [code for code, _ in signals(told)] == [AO, AR, AR, AO, AO, AR]
        assert [item.code for _, _, item in entries] == [None] * 6

    @pytest.mark.parametrize("version", ["7.2", "10.0"])
    def test_its_times_are_those_of_the_messages(self, version):
        events, _ = captured(f"qemu-{version}.qmp")
        messages, _ = captured(f"qemu-{version}.stderr")
        of_signals = [at for _, at, item in messages if isinstance(item, HostSignal)]
        for (_, at, item), other in zip(events, of_signals, strict=True):
            assert item.time == at
            assert at == pytest.approx(other, abs=0.02)

    def test_an_address_as_an_extra(self):
        at = 1267061043.959568
        entries, trace = read(self.event(gpa="0x51000000") + self.event(True, gpa=4096, size=65536))
        assert entries == [(1, at, MemoryFault(0x51000000, 4096, at)), (2, at, MemoryFault(0x1000, 0x10000, at))]
        assert f"{WITHOUT_CODE} (1)" in trace.notes

    def test_codes(self):
        entries, _ = read(self.event(True) + self.event(action="ignore", recipient="hypervisor") + self.event())
        assert [item.code for _, _, item in entries] == [AR, AO, None]
        assert entries[1][2].what == "recipient hypervisor, action ignore"

    def test_the_rest_of_a_monitor_is_ignored(self):
        text = '{"QMP": {"version": {}, "capabilities": []}}\r\n{"return": {}}\r\n\r\n'
        text += '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true}}\n'
        entries, trace = read(text + '{"error": {"class": "GenericError", "desc": "MEMORY_FAILURE"}, "id": 7}\n')
        assert (entries, trace.bad, trace.format) == ([], 0, "qmp")

    @pytest.mark.parametrize("stamp", [None, {}, {"seconds": -1, "microseconds": -1}, {"seconds": 1e9}, [], "now"])
    def test_a_time_that_qemu_could_not_tell(self, stamp):
        event = json.loads(self.event()) | {"timestamp": stamp}
        entries, _ = read('{"QMP": {}}\n' + json.dumps(event))
        assert [(at, item.time) for _, at, item in entries] == [(None, None)]

    @pytest.mark.parametrize(
        "line",
        [
            "[1, 2]", "{", "x",
            '{"event": "MEMORY_FAILURE"}',
            '{"event": "MEMORY_FAILURE", "data": {"recipient": "guest", "action": "inject"}}',
            event(1), event(action="explode"), event(action=[]), event(recipient={}), event(gpa="4096"), event(gpa=-1),
            event(gpa=1.5), event(gpa=True), event(gpa=0, size=0), event(gpa="0xffffffffffffffff", size=2),
        ],
    )  # fmt: skip
    def test_a_bad_line_is_told_with_its_number(self, line):
        entries, trace = read('{"QMP": {}}\n' + line.strip() + "\n" + self.event(True))
        assert [(number, type(item)) for number, _, item in entries] == [(2, BadLine), (3, Unlocated)]
        assert "expected" in entries[0][2].reason
        with pytest.raises(InputError, match=r"^<stdin>:2: "):
            read('{"QMP": {}}\n' + line.strip(), strict=True)
        assert trace.bad == 1

    def test_a_native_line_is_none_of_qmps(self):
        _, trace = read('{"event":"fault","gpa":0,"size":1}')
        assert trace.format == "jsonl"


class TestMessages:
    TOLD = "Guest MCE Memory Error at QEMU addr 0x7f0000005000 and GUEST addr 0x45000 of type BUS_MCEERR_AR injected"

    @pytest.mark.parametrize(
        ("name", "first"),
        [("qemu-7.2", 1795230666.335041), ("qemu-10.0", 1795230989.329684), ("qemu-kvm", None)],
    )
    def test_each_page_has_its_slot_before_its_first_signal(self, name, first):
        entries, trace = captured(f"{name}.stderr")
        assert trace.format == "qemu-log"
        slots = [(item.gpa, item.size) for _, _, item in entries if isinstance(item, MemorySlot)]
        assert slots == [(0x50000, 4096), (0x61000, 4096), (0x72000, 4096)]
        assert [type(item) for _, _, item in entries[:4]] == [MemorySlot, HostSignal, HostSignal, HostSignal]
        assert [code for code, _ in signals(entries)] == [AO, AR, AR, AO, AO, AR]
        assert entries[0][1] == first
        assert all(item.time == at for _, at, item in entries if isinstance(item, HostSignal))

    def test_strace_saw_the_same_addresses(self):
        mine = [hva for code, hva in signals(captured("qemu-10.0.stderr")[0]) if code is AR]
        assert mine == [hva for _, hva in signals(captured("qemu-10.0.strace")[0])]

    def test_libvirts_log_of_a_domain(self):
        entries, trace = captured("libvirt-11.3.stderr")
        assert trace.format == "qemu-log"
        assert [code for code, _ in signals(entries)] == [AO, AR, AO, AO, AR]

    @staticmethod
    def told(hva: int, gpa: int, large: str = "") -> str:
        on = f" on lost large page {large}" if large else ""
        return (
            f"Guest MCE Memory Error at QEMU addr {hva:#x} and GUEST addr {gpa:#x}{on} of type BUS_MCEERR_AR injected\n"
        )

    def test_a_large_page(self):
        text = self.told(0x7F0000005000, 0x205000, "200000@5000000") + self.told(0x7F0000006000, 0x206000)
        entries, trace = read(text)
        assert [item for _, _, item in entries] == [
            MemorySlot(0x7F0000000000, 0x200000, 0x200000),
            HostSignal(AR, 0x7F0000005000, 21, 0),
            HostSignal(AR, 0x7F0000006000, 12, 0),
        ]
        assert any(note.startswith("large pages") for note in trace.notes)

    def test_pages_that_overlap_are_faults(self):
        large = self.told(0x7F0000006000, 0x206000, "200000@0")
        entries, trace = read(self.told(0x7F0000005000, 0x205000) + large)
        assert entries[2][2] == MemoryFault(0x200000, 0x200000)
        assert any("overlap" in note for note in trace.notes)

    def test_slots_are_bounded(self):
        entries, _ = read("".join(self.told(0x7F0000000000 + (n << 12), n << 12) for n in range(SLOTS_MAX + 2)))
        assert sum(isinstance(item, MemorySlot) for _, _, item in entries) == SLOTS_MAX
        assert entries[-1][2] == MemoryFault(SLOTS_MAX + 1 << 12, 4096)

    def test_arms_words(self):
        entries, _ = read(self.TOLD.replace("MCE ", ""))
        assert signals(entries) == [(AR, 0x7F0000005000)]

    @pytest.mark.parametrize(
        ("text", "code", "what"),
        [
            (
                "Hardware memory error at addr 0x7f3c7622f000 of type BUS_MCEERR_AO for memory used by QEMU itself "
                "instead of guest system!",
                AO,
                "in memory of QEMU itself at host address 0x7f3c7622f000",
            ),
            (
                "Hardware memory error at addr 0x7f3c7622f000 for memory used by QEMU itself instead of guest system!",
                None,
                "in memory of QEMU itself at host address 0x7f3c7622f000",
            ),
            ("Hardware memory error!", None, "in memory of QEMU itself"),
        ],
    )
    def test_qemus_own_memory(self, text, code, what):
        entries, trace = read(f"2026-11-21T03:16:29Z qemu-system-aarch64: {text}\n")
        assert entries == [(1, 1795230989.0, Unlocated(code, 0, what, 1795230989.0))]
        assert len(trace.notes) == 2

    @pytest.mark.parametrize(
        "line",
        [
            TOLD.replace("AR injected", "AX injected"),
            TOLD[:-9],
            TOLD.replace("0x45000", "45000"),
            TOLD.replace(" of type", " on lost large page 3000@0 of type"),
            TOLD.replace(" of type", " on lost large page 200000@0 of type").replace("0x45000", "0x1000"),
            TOLD.replace("0x45000", "0x46000"),
        ],
    )
    def test_a_bad_line_is_told_with_its_number(self, line):
        entries, trace = read(self.TOLD + "\n" + line + "\n")
        assert [type(item) for _, _, item in entries] == [MemorySlot, HostSignal, BadLine]
        assert (entries[2][0], trace.bad) == (2, 1)
        with pytest.raises(InputError, match=r"^<stdin>:2: .*expected"):
            read(self.TOLD + "\n" + line, strict=True)

    def test_a_time_that_is_none(self):
        entries, _ = read("2026-13-21T03:16:29Z qemu-kvm: " + self.TOLD)
        assert [at for _, at, _ in entries] == [None, None]


class TestVirsh:
    EVENT = (
        "2026-11-21 03:30:09.267+0000: event 'memory-failure' for domain 'vm':\n"
        "recipient: guest\naction: inject\nflags:\n\taction required: 1\n\trecursive: 0\n"
    )

    def test_the_ways_to_print_it_agree(self):
        stamped, trace = captured("libvirt-11.3.virsh")
        assert trace.format == "libvirt"
        plain, _ = captured("libvirt-11.3-plain.virsh")
        monitor, _ = captured("libvirt-11.3-monitor.virsh")
        whats = [item.what for _, _, item in stamped]
        assert whats == ["domain vm: recipient guest, action inject"] * 5
        assert whats == [item.what for _, _, item in plain] == [item.what for _, _, item in monitor]
        assert [at for _, at, _ in plain] == [None] * 5
        assert stamped[0][:2] == (3, 1795231809.267)
        for (_, one, item), (_, two, _) in zip(stamped, monitor, strict=True):
            assert item.time == one == pytest.approx(two, abs=0.3)

    def test_libvirt_passes_on_what_qemu_says(self):
        times = [at for _, at, item in captured("libvirt-11.3.stderr")[0] if isinstance(item, HostSignal)]
        for at, (_, other, _) in zip(times, captured("libvirt-11.3.virsh")[0], strict=True):
            assert at == pytest.approx(other, abs=2)  # an emulated host that emulates a guest

    def test_action_required(self):
        entries, _ = read(self.EVENT)
        assert entries == [
            (1, 1795231809.267, Unlocated(AR, 0, "domain vm: recipient guest, action inject", 1795231809.267))
        ]

    def test_a_name_that_is_hostile(self):
        entries, _ = read(self.EVENT.replace("'vm'", "'\x1b[2J\xe9" + "x" * 100 + "'"))
        assert entries[0][2].what == "domain ?[2J??" + "x" * 54 + ": recipient guest, action inject"

    def test_older_words_have_no_quotes(self):
        entries, _ = read(self.EVENT.replace("'vm'", "vm"))
        assert entries[0][2].what.startswith("domain vm: ")

    @pytest.mark.parametrize("stamp", ["2026-11-21 03:30:09.267+0000: ", ""])
    def test_qemus_event_with_an_address(self, stamp):
        data = (
            '{"flags":{"recursive":false,"action-required":false},"recipient":"guest","action":"inject","gpa":"0x1000"}'
        )
        at = 1795231809.267 if stamp else None
        entries, _ = read(f"{stamp}event MEMORY_FAILURE for domain 'vm': {data}\n")
        assert entries == [(1, at, MemoryFault(0x1000, 4096, at))]
        entries, _ = read(f"event MEMORY_FAILURE at 1795230666.332391 for domain vm: {data}\n")
        assert entries == [(1, 1795230666.332391, MemoryFault(0x1000, 4096, 1795230666.332391))]

    @pytest.mark.parametrize("gone", [1, 2, 4])
    @pytest.mark.parametrize("after", ["event 'lifecycle' for domain 'vm': Started Booted\n", EVENT, "x\n", ""])
    def test_an_event_whose_lines_are_missing_is_bad(self, gone, after):
        lines = self.EVENT.splitlines(keepends=True)
        del lines[gone]
        entries, trace = read("events\n" + "".join(lines) + after)
        assert [number for number, _, _ in entries] == [2] + [7] * (after == self.EVENT)
        assert isinstance(entries[0][2], BadLine)
        assert trace.bad == 1
        with pytest.raises(InputError, match=r"^<stdin>:2: memory-failure without its lines"):
            read("events\n" + "".join(lines) + after, strict=True)

    def test_an_event_without_recursive_is_enough(self):
        entries, _ = read(self.EVENT.replace("\trecursive: 0\n", ""))
        assert [item.code for _, _, item in entries] == [AR]

    @pytest.mark.parametrize("data", ["<null>", "{", '{"recipient":"guest"}', ""])
    def test_qemus_event_that_makes_no_sense(self, data):
        entries, trace = read(f"event MEMORY_FAILURE for domain 'vm': {data}\n")
        assert [type(item) for _, _, item in entries] == [BadLine]
        assert trace.bad == 1

    def test_a_stream_that_breaks_off_gives_what_is_there(self):
        data = gzip.compress(self.EVENT.removesuffix("\trecursive: 0\n").encode())
        trace = open_trace("-", stdin=BytesIO(data[:-1]))
        assert next(trace)[2].code is AR
        with pytest.raises(InputError, match="gzip data ends after line 5"):
            next(trace)

    def test_an_endless_line_ends_an_event(self):
        head = self.EVENT.splitlines(keepends=True)[0]
        entries, _ = read(head + "x" * (1 << 20) + "y\n" + self.EVENT)
        assert [(number, type(item)) for number, _, item in entries] == [(1, BadLine), (2, BadLine), (3, Unlocated)]
