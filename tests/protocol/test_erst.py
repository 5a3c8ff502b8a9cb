"""Error records kept through the serialization table: a guest's sequences, every torn write, and a killed process."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.bus import Bus, Window
from acpi.erst import INVALID_ID, ErrorLogAttributes, Erst, ErstAction, ErstEntry, ErstStatus
from acpi.erst import ErstInstruction as I
from acpi.erst_device import ErstDevice, erst_table
from acpi.erst_store import SLOT_OVERHEAD, SUPERBLOCK_SIZE, MemoryMedium, SlotStore
from acpi.gas import AddressSpace, GenericAddress
from acpi.interpreter import LONGEST_MOVE, Dialect, Interpreter
from acpi.ospm import ErstClient
from cper.wire import DecodeError
from tests.protocol.erst_writer import RECORD_SIZE, RECORDS, client, record
from vmm_ras.errors import HostError, InputError
from vmm_ras.io.erst_file import ErstFile

RAM, REGISTERS, EXCHANGE = 0x8000_0000, 0x900_0000, 0x8000_4000
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"


class Guest:
    """A guest, its table, the device, and a store in memory."""

    def __init__(self, records=4, size=4096, dialect=Dialect.LINUX, medium=None):
        self.bus = Bus(RAM, 0x1_0000)
        self.store = SlotStore.format(medium or MemoryMedium(), records, size)
        self.device = ErstDevice(self.store, self.bus.window(EXCHANGE, size), EXCHANGE)
        self.bus.attach(REGISTERS, 16, self.device)
        self.os = ErstClient(erst_table(REGISTERS), self.bus, dialect)


@pytest.mark.parametrize("dialect", Dialect)
class TestSequences:
    def test_what_linux_asks_at_boot(self, dialect):
        guest = Guest(dialect=dialect)
        assert (guest.os.base, guest.os.size, guest.os.attributes) == (EXCHANGE, 4096, ErrorLogAttributes.SLOW)
        assert guest.os.count() == 0
        assert list(guest.os.ids()) == []

    def test_records_are_written_read_listed_and_cleared(self, dialect):
        guest = Guest(dialect=dialect)
        records = {n: record(n, n) for n in (7, 3, 9)}
        for raw in records.values():
            assert guest.os.write(raw) == ErstStatus.SUCCESS
        assert guest.os.count() == 3
        assert list(guest.os.ids()) == [7, 3, 9]
        for number, raw in records.items():
            assert guest.os.read(number) == (ErstStatus.SUCCESS, raw)
        assert guest.os.clear(3) == ErstStatus.SUCCESS
        assert guest.os.read(3)[0] == ErstStatus.RECORD_NOT_FOUND
        assert list(guest.os.ids()) == [7, 9]
        assert guest.os.clear(3) == ErstStatus.RECORD_NOT_FOUND

    def test_a_record_is_replaced_even_when_the_store_is_full(self, dialect):
        guest = Guest(records=2, dialect=dialect)
        for number in (1, 2):
            assert guest.os.write(record(number, 1)) == ErstStatus.SUCCESS
        assert guest.os.write(record(3, 1)) == ErstStatus.NOT_ENOUGH_SPACE
        for version in range(2, 9):
            assert guest.os.write(record(1, version)) == ErstStatus.SUCCESS
        assert guest.os.read(1) == (ErstStatus.SUCCESS, record(1, 8))
        assert guest.os.read(2) == (ErstStatus.SUCCESS, record(2, 1))
        assert guest.os.count() == 2

    def test_an_empty_store_says_so(self, dialect):
        guest = Guest(dialect=dialect)
        assert guest.os.read(1)[0] == ErstStatus.RECORD_STORE_EMPTY
        assert guest.os.clear(1) == ErstStatus.RECORD_NOT_FOUND

    def test_the_unspecified_identifier_reads_the_first_record(self, dialect):
        guest = Guest(dialect=dialect)
        for number in (5, 6):
            guest.os.write(record(number, 1))
        assert guest.os.read(0) == (ErstStatus.SUCCESS, record(5, 1))
        assert guest.os.read(INVALID_ID)[0] == ErstStatus.FAILED
        assert guest.os.clear(INVALID_ID) == guest.os.clear(0) == ErstStatus.FAILED

    def test_a_record_offset_is_kept(self, dialect):
        guest = Guest(dialect=dialect)
        raw = record(5, 1)
        assert guest.os.write(raw, offset=512) == ErstStatus.SUCCESS
        guest.bus.write_memory(EXCHANGE, bytes(4096))
        assert guest.os.read(5, offset=1024) == (ErstStatus.SUCCESS, raw)
        assert guest.bus.read_memory(EXCHANGE + 1024, len(raw)) == raw


def test_the_device_answers_as_qemus_does():
    """The same operations through the same table; QEMU loses its place in the list when a read finds nothing."""
    told = json.loads((Path(__file__).parents[2] / "fixtures" / "acpi" / "erst-qemu7.2.json").read_text())
    guest = Guest(records=4, size=8192)
    assert guest.os.size == told["boot"]["length"]
    listed = 0
    for number, step in enumerate(told["steps"]):
        found = answer(guest.os, *step["operation"])
        if step["operation"] == ["ids"]:
            assert set(step["result"][0]) <= set(found[0])
            listed += found == step["result"]
            continue
        assert found == step["result"], (number, step)
    assert listed == 2  # of four


def answer(os_, what, *given):
    """What an operation of the fixture gives."""
    if what == "write":
        return [int(os_.write(record(*given)))]
    if what == "read":
        status, raw = os_.read(given[0])
        return [int(status), raw == record(*given) if status == 0 and len(given) == 2 else len(raw)]
    if what == "clear":
        return [int(os_.clear(given[0]))]
    if what == "count":
        return [os_.count()]
    if what == "ids":
        return [sorted(os_.ids())]
    if what == "dummy":
        return [int(os_._operate(ErstAction.BEGIN_DUMMY_WRITE_OPERATION, 0))]
    if what == "offset":
        begin = ErstAction.BEGIN_WRITE_OPERATION if given[0] == "w" else ErstAction.BEGIN_READ_OPERATION
        return [int(os_._operate(begin, *given[1:]))]
    raw = bytearray(256)
    raw[20:24], raw[96:104] = given[0].to_bytes(4, "little"), given[1].to_bytes(8, "little")
    os_.space.write_memory(os_.base, bytes(raw))
    return [int(os_._operate(ErstAction.BEGIN_WRITE_OPERATION, 0))]


ACCESS = st.tuples(st.booleans(), st.integers(-2, 20), st.sampled_from([1, 2, 3, 4, 8, 16]), st.integers(0, 1 << 65))
"""Write or read, offset, size, value."""


class TestAGuestThatMisbehaves:
    @pytest.mark.parametrize(
        ("length", "record_id", "status"),
        [(127, 1, 3), (0, 1, 3), (0xFFFFFFFF, 1, 3), (4097, 1, 3), (4096, 1, 0), (128, 0, 3), (128, INVALID_ID, 3)],
    )
    def test_lengths_and_identifiers_that_cannot_be(self, length, record_id, status):
        guest = Guest()
        raw = bytearray(4096)
        raw[20:24], raw[96:104] = length.to_bytes(4, "little"), record_id.to_bytes(8, "little")
        guest.bus.write_memory(EXCHANGE, bytes(raw))
        assert guest.os._operate(ErstAction.BEGIN_WRITE_OPERATION, 0) == status

    def test_length_and_identifier_are_four_and_eight_bytes(self):
        guest = Guest()
        raw = bytearray(b"\xff" * 200)
        raw[20:24], raw[96:104] = (200).to_bytes(4, "little"), (7).to_bytes(8, "little")
        assert guest.os.write(bytes(raw)) == ErstStatus.SUCCESS
        assert guest.os.read(7) == (ErstStatus.SUCCESS, bytes(raw))

    def test_what_just_fits(self):
        guest = Guest()
        raw = bytearray(128)
        raw[20:24], raw[96:104] = (128).to_bytes(4, "little"), bytes.fromhex("0102030405060708")
        assert guest.os.write(bytes(raw), offset=4096 - 128) == ErstStatus.SUCCESS
        assert list(guest.os.ids()) == [0x0807060504030201]
        raw[20:24] = (129).to_bytes(4, "little")
        guest.bus.write_memory(EXCHANGE + 4096 - 128, bytes(raw))
        assert guest.os._operate(ErstAction.BEGIN_WRITE_OPERATION, 4096 - 128) == ErstStatus.FAILED
        large = bytearray(4096)
        large[20:24], large[96:104] = (0x1000).to_bytes(4, "little"), bytes(7) + b"\1"
        assert guest.os.write(bytes(large)) == ErstStatus.SUCCESS
        assert guest.os.read(1 << 56) == (ErstStatus.SUCCESS, bytes(large))
        large[20:24] = (0x0101_0000).to_bytes(4, "little")
        guest.bus.write_memory(EXCHANGE, bytes(large))
        assert guest.os._operate(ErstAction.BEGIN_WRITE_OPERATION, 0) == ErstStatus.FAILED

    @pytest.mark.parametrize("offset", [4096 - 127, 4096, 0xFFFFFFFF])
    def test_offsets_that_leave_no_room(self, offset):
        guest = Guest()
        guest.os.write(record(1, 1))
        assert guest.os._operate(ErstAction.BEGIN_WRITE_OPERATION, offset) == ErstStatus.FAILED
        assert guest.os._operate(ErstAction.BEGIN_READ_OPERATION, offset, 1) == ErstStatus.FAILED

    def test_execute_needs_an_operation_and_its_word(self):
        guest = Guest()
        guest.device.write(8, 4, 0x9C)
        guest.device.write(0, 4, int(ErstAction.EXECUTE_OPERATION))
        assert guest.device.state.status == ErstStatus.FAILED
        guest.device.write(0, 4, int(ErstAction.BEGIN_DUMMY_WRITE_OPERATION))
        guest.device.write(8, 4, 0)
        guest.device.write(0, 4, int(ErstAction.EXECUTE_OPERATION))
        assert guest.device.state.status == ErstStatus.FAILED
        guest.device.write(8, 4, 0x9C)
        guest.device.write(0, 4, int(ErstAction.EXECUTE_OPERATION))
        assert guest.device.state.status == ErstStatus.SUCCESS

    @given(st.lists(ACCESS, max_size=30))
    def test_any_access_to_the_registers(self, accesses):
        guest = Guest(records=2, size=256)
        for write, offset, size, value in accesses:
            if write:
                guest.device.write(offset, size, value)
            else:
                assert 0 <= guest.device.read(offset, size) < 1 << 8 * size

    def test_registers_take_parts(self):
        guest = Guest()
        guest.device.write(8, 8, 0x1122_3344_5566_7788)
        assert [guest.device.read(8 + i, 1) for i in range(8)] == [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
        guest.device.write(12, 4, 0xAABBCCDD)
        guest.device.write(10, 2, 0x0102)
        assert guest.device.read(8, 8) == 0xAABB_CCDD_0102_7788
        assert (guest.device.read(0, 8), guest.device.read(14, 4), guest.device.read(16, 4)) == (0, 0, 0)
        assert (guest.device.read(9, 8), guest.device.read(8, 3), guest.device.read(7, 1)) == (0, 0, 0)
        assert (guest.device.read(15, 1), guest.device.read(14, 2), guest.device.read(12, 4)) == (
            0xAA,
            0xAABB,
            0xAABBCCDD,
        )
        before = guest.device.value
        for offset, size in [(9, 8), (15, 2), (16, 1), (7, 1), (8, 3), (8, 16), (-1, 4)]:
            guest.device.write(offset, size, 0)
        assert guest.device.value == before
        guest.device.write(8, 1, 0x1FF)
        assert guest.device.read(8, 2) == 0x77FF

    def test_timings_and_the_table_by_hand(self):
        guest = Guest()
        assert guest.os._interpreter().run(ErstAction.GET_EXECUTE_OPERATION_TIMINGS) == 100_000 << 32 | 1_000

    def test_a_snapshot_is_the_state(self):
        guest = Guest()
        guest.os.write(record(1, 1))
        guest.os.write(record(2, 1))
        guest.os._interpreter().run(ErstAction.GET_RECORD_IDENTIFIER)
        other = ErstDevice(guest.store, guest.bus.window(EXCHANGE, 4096), EXCHANGE, state=guest.device.state)
        other.act(int(ErstAction.GET_RECORD_IDENTIFIER))
        assert other.value == 2


class Counting:
    """Registers: the first reads 7 so many times, then 8; every other reads 40."""

    def __init__(self, times):
        self.times = times

    def read(self, space, address, size):
        if address != RAM:
            return 40
        self.times -= 1
        return 7 if self.times >= 0 else 8


class TestInterpreter:
    """What instructions do, by Linux's reading and by the specification's."""

    def entry(self, instruction, address=0, value=0, mask=(1 << 64) - 1, flags=0, action=0, bits=64, offset=0):
        size = {8: 1, 16: 2, 32: 3, 64: 4}[bits]
        region = GenericAddress(bit_width=bits - offset, bit_offset=offset, access_size=size, address=RAM + address)
        return ErstEntry(
            action=action, instruction=instruction, register_region=region, value=value, mask=mask, flags=flags
        )

    def run(self, *entries, dialect=Dialect.SPECIFICATION, value=None, memory=(), most=1000):
        bus = Bus(RAM, 0x1000)
        for address, word in memory:
            bus.write_memory(RAM + address, word.to_bytes(8, "little"))
        run = Interpreter(entries, bus, dialect, most)
        run.run(0, value)
        return run, lambda at: int.from_bytes(bus.read_memory(RAM + at, 8), "little")

    def test_reads_and_writes_mask_shift_and_preserve(self):
        e = self.entry
        run, _ = self.run(e(I.READ_REGISTER, 0, mask=0xFF, offset=8, bits=32), memory=[(0, 0x12345678)])
        assert run.value == 0x56
        run, _ = self.run(
            e(I.READ_REGISTER_VALUE, 0, value=0x34, mask=0xFF, offset=16, bits=32), memory=[(0, 0x12345678)]
        )
        assert run.value == 1
        _, at = self.run(
            e(I.WRITE_REGISTER_VALUE, 0, value=0xABC, mask=0xFF, offset=8, bits=32), memory=[(0, 0x12345678)]
        )
        assert at(0) == 0xBC00
        _, at = self.run(
            e(I.WRITE_REGISTER, 0, mask=0xFF, offset=8, bits=32, flags=1), value=0xABC, memory=[(0, 0x12345678)]
        )
        assert at(0) == 0x1234BC78

    def test_variables_and_moving_data(self):
        e = self.entry
        run, at = self.run(
            e(I.LOAD_VAR1, 0), e(I.LOAD_VAR2, 8), e(I.ADD), e(I.STORE_VAR1, 16), e(I.SUBTRACT), e(I.SUBTRACT),
            e(I.SET_SRC_ADDRESS_BASE, 24), e(I.SET_DST_ADDRESS_BASE, 32), e(I.MOVE_DATA, 40), e(I.NOOP),
            e(I.STALL, value=7),
            memory=[(0, 5), (8, 16), (24, RAM), (32, RAM + 256), (40, 4)],
        )  # fmt: skip
        assert at(16) == 21
        assert run.var1 == 5 - 16 & (1 << 64) - 1
        assert at(260) == 16 << 32
        assert run.stalled_us == 7

    def test_linux_takes_the_value_that_came_last_where_the_specification_takes_the_entrys(self):
        e = self.entry
        steps = [e(I.READ_REGISTER, 8), e(I.ADD_VALUE, 0, value=5), e(I.SUBTRACT_VALUE, 16, value=1)]
        memory = [(0, 10), (8, 100), (16, 1000)]
        _, at = self.run(*steps, memory=memory)
        assert (at(0), at(16)) == (15, 999)
        _, at = self.run(*steps, memory=memory, dialect=Dialect.LINUX)
        assert (at(0), at(16)) == (110, 900)
        skip = [
            e(I.READ_REGISTER, 8),
            e(I.SKIP_NEXT_INSTRUCTION_IF_TRUE, 0, value=10),
            e(I.WRITE_REGISTER_VALUE, 0, value=1),
        ]
        assert self.run(*skip, memory=memory)[1](0) == 10
        assert self.run(*skip, memory=memory, dialect=Dialect.LINUX)[1](0) == 1

    def test_goto_jumps_within_the_action(self):
        e = self.entry
        run, at = self.run(
            e(I.GOTO, value=2), e(I.WRITE_REGISTER_VALUE, 0, value=9), e(I.WRITE_REGISTER_VALUE, 8, value=3),
            e(I.GOTO, value=99), e(I.WRITE_REGISTER_VALUE, 16, value=9),
        )  # fmt: skip
        assert (at(0), at(8), at(16), run.value) == (0, 3, 0, 3)

    def test_the_last_step_that_is_allowed(self):
        e = self.entry
        steps = [e(I.NOOP)] * 5
        self.run(*steps, most=5)
        with pytest.raises(DecodeError, match=r"entries\[4\]: action 0x0 does not end within 4 steps"):
            self.run(*steps, most=4)
        run, _ = self.run(e(I.STALL_WHILE_TRUE, 0, value=1), e(I.STALL_WHILE_TRUE, 0, value=2), most=2)
        assert run.stalled_us == 0
        bus = Counting(3)
        run = Interpreter([e(I.LOAD_VAR1, 8), e(I.STALL_WHILE_TRUE, 0, value=7)], bus, Dialect.SPECIFICATION, 5)
        run.run(0)
        assert run.stalled_us == 3 * 40
        run = Interpreter([e(I.LOAD_VAR1, 8), e(I.STALL_WHILE_TRUE, 0, value=7)], Counting(3), run.dialect, 4)
        with pytest.raises(DecodeError, match="does not change within 4 steps"):
            run.run(0)

    def test_a_skip_passes_over_one_instruction(self):
        e = self.entry
        write = [e(I.WRITE_REGISTER_VALUE, 8 * i, value=i) for i in (1, 2)]
        _, at = self.run(e(I.SKIP_NEXT_INSTRUCTION_IF_TRUE, 0, value=0), *write)
        assert (at(8), at(16)) == (0, 2)
        _, at = self.run(e(I.SKIP_NEXT_INSTRUCTION_IF_TRUE, 0, value=1), *write)
        assert (at(8), at(16)) == (1, 2)

    @pytest.mark.parametrize("dialect", Dialect)
    def test_no_list_of_instructions_runs_for_ever(self, dialect):
        e = self.entry
        with pytest.raises(DecodeError, match=r"entries\[0\]: action 0x0 does not end within 1000 steps"):
            self.run(e(I.GOTO, value=0), value=0, dialect=dialect)
        with pytest.raises(DecodeError, match=r"entries\[0\]: the register does not change within 1000 steps"):
            self.run(e(I.STALL_WHILE_TRUE, 0, value=0), value=0, dialect=dialect)
        with pytest.raises(DecodeError, match="is more than"):
            self.run(e(I.LOAD_VAR2, 0), e(I.MOVE_DATA, 8), memory=[(0, LONGEST_MOVE + 1)], dialect=dialect)

    def test_what_cannot_be_run_says_which_entry(self):
        e = self.entry
        with pytest.raises(DecodeError, match=r"entries\[1\]\.instruction: instruction 19 is unknown"):
            self.run(e(I.NOOP), e(19))
        with pytest.raises(DecodeError, match=r"entries\[0\]\.register_region: the address is 0"):
            self.run(e(I.READ_REGISTER, -RAM))
        with pytest.raises(DecodeError, match="there is no entry for action 0x5"):
            Interpreter([], Bus(RAM, 16)).run(5)
        assert Interpreter([], Bus(RAM, 16)).run(5, 3, optional=True) == 3

    def test_what_is_not_there_reads_all_ones(self):
        bus = Bus(RAM, 16)
        assert bus.read(AddressSpace.SYSTEM_MEMORY, RAM + 12, 8) == (1 << 64) - 1
        assert bus.read(AddressSpace.SYSTEM_IO, 0x80, 4) == 0xFFFFFFFF
        bus.write(AddressSpace.SYSTEM_MEMORY, RAM + 16, 8, 1)
        bus.write(AddressSpace.SYSTEM_IO, 0x80, 4, 1)
        assert bytes(bus.memory) == bytes(16)
        with pytest.raises(ValueError, match="are not memory"):
            bus.window(RAM + 8, 9)
        with pytest.raises(OSError, match="do not fit"):
            Window(bytearray(8), 0, 8).write(4, bytes(5))

    @given(st.lists(st.binary(min_size=32, max_size=32), max_size=12), st.integers(0, 255), st.sampled_from(Dialect))
    def test_any_entries_end(self, raw, action, dialect):
        entries = [ErstEntry.decode(e) for e in raw]
        try:
            Interpreter(entries, Bus(RAM, 64), dialect, 100).run(action)
        except DecodeError as error:
            assert str(error).startswith("Instructions.")


# -- the store, through every crash ------------------------------------------------------


class Disk(MemoryMedium):
    """A medium that remembers what was written since the last flush, and can be crashed."""

    def __init__(self, data=b""):
        super().__init__(data)
        self.durable = bytes(data)
        self.pending = []

    def write(self, offset, data):
        super().write(offset, data)
        self.pending.append((offset, data))

    def flush(self):
        self.durable, self.pending = bytes(self.data), []

    def crashes(self, rng, most):
        """Contents that a crash now may leave: any of the pending writes, whole, torn, or lost, in any order."""
        for _ in range(most):
            left = MemoryMedium(self.durable)
            for offset, data in rng.sample(self.pending, len(self.pending)):
                torn = rng.choice(["lost", "whole", "start", "end", "sectors"])
                cut = rng.randrange(len(data) + 1)
                if torn == "whole":
                    left.write(offset, data)
                elif torn == "start":
                    left.write(offset, data[:cut])
                elif torn == "end":
                    left.write(offset + cut, data[cut:])
                elif torn == "sectors":
                    for at in range(0, len(data), 512):
                        if rng.random() < 0.5:
                            left.write(offset + at, data[at : at + 512])
            yield bytes(left.data)


class Probe(Disk):
    """A disk that calls ``before`` whenever something changes on it."""

    def __init__(self, before):
        super().__init__()
        self.before = None
        self.callback = before

    def write(self, offset, data):
        super().write(offset, data)
        self.callback(self)

    def flush(self):
        super().flush()
        self.callback(self)


def check(data, certain, open_):
    """What a crashed medium holds: every acknowledged record, whole; the one being worked on before or after."""
    store = SlotStore.open(MemoryMedium(data))
    found = {record_id: store.read(record_id) for record_id in store.ids()}
    for record_id, raw in certain.items():
        if record_id != open_[0]:
            assert found.get(record_id) == raw, f"record {record_id} is lost or corrupt"
    assert found.keys() <= certain.keys() | {open_[0]}, "a record came back"
    if open_[0] is not None:
        assert found.get(open_[0]) in open_[1:], "the record is neither what it was nor what it shall be"


@pytest.mark.parametrize("seed", range(60 if LONG else 4))
def test_no_torn_write_loses_or_corrupts_an_acknowledged_record(seed):
    rng = random.Random(seed)
    certain, working, ready = {}, [None], [False]

    def look(disk):
        if ready[0]:
            for data in disk.crashes(rng, 4):
                check(data, certain, working)

    disk = Probe(look)
    store = SlotStore.format(disk, 3, 600)
    ready[0] = True
    for step in range(40):
        record_id = 1 + rng.randrange(4)
        if rng.random() < 0.25:
            working[:] = [record_id, certain.get(record_id), None]
            if store.clear(record_id) == ErstStatus.SUCCESS:
                certain.pop(record_id)
        else:
            raw = rng.randbytes(128 + rng.randrange(473))
            working[:] = [record_id, certain.get(record_id), raw]
            status = store.write(record_id, raw)
            assert status == (
                ErstStatus.SUCCESS if record_id in certain or len(certain) < 3 else ErstStatus.NOT_ENOUGH_SPACE
            )
            if status == ErstStatus.SUCCESS:
                certain[record_id] = raw
        working[:] = [None]
        look(disk)
        if step % 10 == 9:
            disk.data[:] = next(disk.crashes(rng, 1))
            store = SlotStore.open(disk)


class Failing(MemoryMedium):
    """A medium whose next operations fail."""

    fails = 0
    does = True

    def _fail(self):
        if self.fails:
            self.fails -= 1
            raise OSError(5, "Input/output error")

    def write(self, offset, data):
        if self.does or not self.fails:
            super().write(offset, data)
        self._fail()

    def flush(self):
        self._fail()


@pytest.mark.parametrize("failures", range(1, 6))
@pytest.mark.parametrize("does", [True, False])
def test_a_write_that_failed_does_not_come_back_after_a_clear(failures, does):
    medium = Failing()
    guest = Guest(records=2, medium=medium)
    assert guest.os.write(record(1, 1)) == ErstStatus.SUCCESS
    medium.fails, medium.does = failures, does
    assert guest.os.write(record(1, 2)) == ErstStatus.HARDWARE_NOT_AVAILABLE
    for _ in range(failures):
        if guest.os.clear(1) == ErstStatus.SUCCESS:
            break
    medium.fails, medium.does = 0, True
    assert guest.os.clear(1) in {ErstStatus.SUCCESS, ErstStatus.RECORD_NOT_FOUND}
    assert SlotStore.open(medium).ids() == []
    for number in (1, 2):
        assert guest.os.write(record(number, 3)) == ErstStatus.SUCCESS
    assert sorted(SlotStore.open(medium).ids()) == [1, 2]


def test_what_a_failed_write_left_is_blanked_before_the_next_one():
    medium = Failing()
    guest = Guest(records=2, medium=medium)
    guest.os.write(record(1, 1))
    medium.fails = 1  # the bytes arrive, the answer does not
    assert guest.os.write(record(1, 2)) == ErstStatus.HARDWARE_NOT_AVAILABLE
    assert guest.os.read(1) == (ErstStatus.SUCCESS, record(1, 1))
    assert guest.os.write(record(2, 1)) == ErstStatus.SUCCESS
    assert SlotStore.open(MemoryMedium(medium.data)).read(1) == record(1, 1)
    for version in range(3, 6):  # and no slot is lost
        assert guest.os.write(record(1, version)) == ErstStatus.SUCCESS


class TestStore:
    def test_of_two_versions_the_later_counts_and_the_other_goes(self):
        medium = MemoryMedium()
        store = SlotStore.format(medium, 2, 256)
        store.write(5, b"a" * 200)
        first = bytes(medium.data)
        store.write(5, b"b" * 201)
        at = SUPERBLOCK_SIZE
        both = MemoryMedium(medium.data)
        both.write(at, first[at : at + store.slot_size])
        again = SlotStore.open(both)
        assert (again.read(5), len(again)) == (b"b" * 201, 1)
        assert again.clear(5) == ErstStatus.SUCCESS
        assert SlotStore.open(both).ids() == []

    def test_what_is_no_store_is_refused(self):
        medium = MemoryMedium()
        SlotStore.format(medium, 2, 256)
        for data in (b"", bytes(4096), medium.data[:20], b"X" + medium.data[1:]):
            with pytest.raises(DecodeError, match="this is no record store"):
                SlotStore.open(MemoryMedium(data))

    @given(st.integers(8, 27), st.integers(1, 255))
    def test_a_superblock_with_any_byte_changed_is_refused(self, at, flip):
        medium = MemoryMedium()
        SlotStore.format(medium, 2, 256)
        medium.data[at] ^= flip
        with pytest.raises(DecodeError):
            SlotStore.open(medium)

    def test_a_record_that_rots_is_not_given_out(self):
        medium = MemoryMedium()
        store = SlotStore.format(medium, 2, 256)
        store.write(5, b"a" * 200)
        medium.data[SUPERBLOCK_SIZE + 100] ^= 1
        assert store.read(5) is None
        assert SlotStore.open(medium).ids() == []

    def test_limits(self):
        for records, size in [(0, 256), (1 << 16, 256), (4, 127), (4, 1 << 25)]:
            with pytest.raises(ValueError, match="no room"):
                SlotStore.format(MemoryMedium(), records, size)
        store = SlotStore.format(MemoryMedium(), 4, 256)
        assert (store.capacity, store.record_size, store.slot_size % 512) == (4, 256, 0)
        assert store.slot_size >= 256 + SLOT_OVERHEAD
        assert store.write(1, bytes(256)) == ErstStatus.SUCCESS
        assert store.write(2, bytes(257)) == ErstStatus.NOT_ENOUGH_SPACE

    def test_a_large_store_stays_quick(self):
        store = SlotStore.format(MemoryMedium(), 3000, 128)
        for number in range(1, 3001):
            store.write(number, bytes(128))
        started, cursor, seen = time.perf_counter(), 0, []
        while (found := store.next_id(cursor))[0] != INVALID_ID:
            seen.append(found[0])
            cursor = found[1]
        assert seen == list(range(1, 3001))
        assert time.perf_counter() - started < 10


# -- a process that is killed ------------------------------------------------------------


def follow(text, certain, raws):
    """Replays the writer's lines; returns what was under way at the end."""
    working = [None]
    for line in text.splitlines():
        words = line.split()
        if words[0] == "?":
            number = int(words[2])
            after = None if words[1] == "c" else record(number, int(words[3]))
            working = [number, certain.get(number), after]
        elif words[0] == "c":
            certain.pop(int(words[1]), None)
            working = [None]
        elif words[0] == "w":
            certain[int(words[1])] = record(int(words[1]), int(words[2]))
            raws[0] += 1
            working = [None]
        else:
            working = [None]
    return working


def kill_again_and_again(directory, writes, seconds, least_kills=0):
    """SIGKILL at random moments until so many writes were acknowledged and so many processes killed: (writes, kills).

    It ends in any case when the time is up, but on a busy machine not before a process has come to write anything.
    """
    path, certain, written, kills = directory / "records", {}, [0], 0
    rng = random.Random(1)
    until = time.monotonic() + seconds
    while (written[0] < writes or kills < least_kills) and (
        time.monotonic() < until or (not written[0] and kills < 50)
    ):
        kills += 1
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.protocol.erst_writer", str(path), str(kills)], stdout=subprocess.PIPE
        )
        first = child.stdout.readline()  # the clock starts when it works, not when Python starts
        time.sleep(rng.random() * 0.2)
        child.send_signal(signal.SIGKILL)
        lines = (first + child.stdout.read()).decode()
        child.wait()
        child.stdout.close()
        working = follow(lines[: lines.rfind("\n") + 1], certain, written)
        check(path.read_bytes(), certain, working)
        with ErstFile.open(path) as file:
            guest = client(file)
            listed = list(guest.ids())
            assert all(guest.read(number)[0] == ErstStatus.SUCCESS for number in listed)
            certain = {number: file.store.read(number) for number in listed}
    return written[0], kills


def test_no_record_is_lost_when_the_process_is_killed(tmp_path):
    """A few seconds of it; tests/fuzz/test_fuzz_acpi.py has 1,000 writes."""
    written, kills = kill_again_and_again(tmp_path, 400, 3)
    assert written
    assert kills


class TestFile:
    def test_one_process_at_a_time(self, tmp_path):
        with ErstFile.open(tmp_path / "r", RECORDS, RECORD_SIZE) as file:
            assert file.store.write(4, bytes(128)) == ErstStatus.SUCCESS
            with pytest.raises(HostError, match="another process has it"):
                ErstFile.open(tmp_path / "r")
        with ErstFile.open(tmp_path / "r") as file:
            assert (file.store.ids(), file.store.record_size) == ([4], RECORD_SIZE)
        assert [p.name for p in tmp_path.iterdir()] == ["r"]

    def test_what_cannot_be_had(self, tmp_path):
        with pytest.raises(HostError, match="No such file or directory"):
            ErstFile.open(tmp_path / "no" / "r")
        (tmp_path / "x").write_bytes(b"something else")
        with pytest.raises(InputError, match="this is no record store"):
            ErstFile.open(tmp_path / "x")
        (tmp_path / "d").mkdir()
        with pytest.raises(HostError, match="Is a directory"):
            ErstFile.open(tmp_path / "d")


def test_the_table_is_in_order():
    table = erst_table(REGISTERS)
    assert isinstance(table, Erst)
    actions = [int(e.action) for e in table.entries]
    assert all(a <= b for a, b in pairwise(actions))
    assert set(actions) == {int(a) for a in ErstAction}
