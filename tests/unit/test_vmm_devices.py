"""The small VMM's devices: the UART as Linux' drivers use it, who types into it, and the bus."""

from __future__ import annotations

import os
import pty
import termios
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.machine import Range
from vmm_ras.io.vmm import pl011
from vmm_ras.io.vmm.bus import Bus
from vmm_ras.io.vmm.console import Console, raw_terminal, writer
from vmm_ras.io.vmm.pl011 import Pl011

# what Linux names the bits (include/linux/amba/serial.h)
RXFE, TXFF, BUSY, TXFE = 1 << 4, 1 << 5, 1 << 3, 1 << 7
RXIS, TXIS, RTIS = 1 << 4, 1 << 5, 1 << 6


class Line:
    """A UART with both ends in our hands."""

    def __init__(self):
        self.out, self.levels = bytearray(), []
        self.uart = Pl011(self.out.extend, self.levels.append)

    def read(self, offset):
        return self.uart.read(offset, 4)

    def write(self, offset, value):
        self.uart.write(offset, 4, value)


@pytest.fixture
def line():
    return Line()


def test_polled_output(line):
    for byte in b"earlycon":
        assert not line.read(0x18) & (TXFF | BUSY)
        line.write(0x00, byte)
    assert line.out == b"earlycon"
    assert line.levels == []


def test_interrupts_for_output(line):
    """Linux sends the first byte by polling, and the next when it is interrupted."""
    line.write(0x00, 0x41)
    line.write(0x38, TXIS)
    assert line.levels == [True]
    assert line.read(0x40) == TXIS
    line.write(0x38, 0)
    assert line.levels == [True, False]
    assert (line.read(0x3C), line.read(0x40)) == (TXIS, 0)
    line.write(0x44, TXIS)
    assert line.read(0x3C) == 0


def test_input(line):
    line.write(0x38, RXIS | RTIS)
    assert line.read(0x18) & RXFE
    assert line.uart.receive(b"ls\n") == 3
    assert line.levels == [True]
    line.write(0x44, RXIS | RTIS)
    assert line.levels[-1], "what was not read still interrupts"
    got = bytearray()
    while not line.read(0x18) & RXFE:
        got.append(line.read(0x00))
    assert got == b"ls\n"
    assert line.levels[-1] is False
    assert line.read(0x00) == 0, "reading an empty FIFO is harmless"


def test_a_full_fifo_takes_no_more(line):
    assert line.uart.receive(bytes(100)) == pl011.FIFO
    assert line.read(0x18) & pl011.FR_RXFF
    line.read(0x00)
    assert line.uart.receive(b"xy") == 1


def test_it_is_a_pl011_of_arm(line):
    found = [line.read(0xFE0 + 4 * n) for n in range(8)]
    part = found[0] | (found[1] & 15) << 8
    designer = found[1] >> 4 | (found[2] & 15) << 4
    assert (part, designer, found[2] >> 4) == (0x011, 0x41, 3)
    assert bytes(found[4:]) == bytes.fromhex("0df005b1")


def test_registers_that_only_remember(line):
    for offset, value in ((0x24, 0x1_2345), (0x28, 0x7F), (0x2C, 0x170), (0x30, 0x1_0301), (0x34, 0xFF)):
        line.write(offset, value)
    assert [line.read(offset) for offset in (0x24, 0x28, 0x2C, 0x30, 0x34)] == [0x2345, 0x3F, 0x70, 0x301, 0x3F]
    line.uart.receive(b"x")
    line.write(0x38, RXIS)
    line.uart.reset()
    assert [line.read(offset) for offset in (0x24, 0x30, 0x34, 0x38, 0x3C)] == [0, 0x300, 0x12, 0, 0]
    assert line.levels == [True, False]


@given(st.lists(st.tuples(st.integers(0, 0xFFF), st.one_of(st.none(), st.integers(0, (1 << 64) - 1))), max_size=60))
def test_no_access_is_an_error_and_the_line_is_that_of_the_registers(accesses):
    line = Line()
    for offset, value in accesses:
        if value is None:
            assert 0 <= line.read(offset) < 1 << 32
        else:
            line.write(offset, value)
        assert (line.levels[-1] if line.levels else False) == bool(line.read(0x3C) & line.read(0x38))
    assert all(a != b for a, b in zip(line.levels, line.levels[1:], strict=False))


def test_two_vcpus_and_somebody_who_types(line):
    typed = bytes(range(256)) * 6
    got = bytearray()

    def type_all():
        left = typed
        while left:
            left = left[line.uart.receive(left) :]

    def write_all(byte):
        for _ in range(600):
            line.write(0x00, byte)

    threads = [threading.Thread(target=type_all)]
    threads += [threading.Thread(target=write_all, args=(byte,)) for byte in (1, 2)]
    for thread in threads:
        thread.start()
    while len(got) < len(typed):
        if not line.read(0x18) & RXFE:
            got.append(line.read(0x00))
    for thread in threads:
        thread.join(10)
    assert got == typed
    assert sorted(line.out) == [1] * 600 + [2] * 600


class Typist:
    """A console between a UART and two pipes."""

    def __init__(self, **options):
        self.source, self.keys = os.pipe()
        self.screen = bytearray()
        self.console = Console(self.screen.extend, self.source, **options)
        self.uart = Pl011(self.console.print, lambda level: None, self.console.drained)
        self.console.deliver = self.uart.receive
        self.console.start()

    def read(self, count):
        got, end = bytearray(), time.monotonic() + 10
        while len(got) < count and time.monotonic() < end:
            if self.uart.read(0x18, 4) & RXFE:
                time.sleep(0.001)
            else:
                got.append(self.uart.read(0, 4))
        return bytes(got)


@pytest.fixture
def typist():
    made = []

    def make(**options):
        made.append(Typist(**options))
        return made[-1]

    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield make
    for one in made:
        one.console.close()
        one.console.close()
        os.close(one.source)
        os.close(one.keys)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


class TestConsole:
    def test_more_than_fits_is_typed(self, typist):
        t, typed = typist(), bytes(range(1, 256)) * 40
        thread = threading.Thread(target=os.write, args=(t.keys, typed))
        thread.start()
        assert t.read(len(typed)) == typed
        thread.join(10)

    def test_what_the_guest_prints_is_all_shown_in_order(self, typist):
        t = typist()
        for n in range(3000):
            t.uart.write(0, 4, n & 0xFF)
        t.console.close()
        assert t.screen == bytes(n & 0xFF for n in range(3000))

    def test_what_a_program_types(self, typist):
        t = typist()
        t.console.type(b"echo hello\n")
        assert t.read(11) == b"echo hello\n"

    def test_the_escape_key(self, typist):
        heard = threading.Event()
        t = typist(escape=True, quit=heard.set)
        os.write(t.keys, b"a\x01\x01b\x01zc")
        assert t.read(4) == b"a\x01bc"
        assert not heard.is_set()
        os.write(t.keys, b"\x01")
        os.write(t.keys, b"x")
        assert heard.wait(10)

    def test_nobody_types_any_more(self, typist):
        t = typist()
        os.write(t.keys, b"last")
        null = os.open("/dev/null", os.O_RDONLY)
        assert t.read(4) == b"last"
        os.dup2(null, t.source)
        os.close(null)
        t.console.type(b"!")
        assert t.read(1) == b"!"

    def test_a_terminal_is_put_back(self):
        ours, theirs = pty.openpty()
        before = termios.tcgetattr(theirs)

        def interrupted():
            with raw_terminal(theirs):
                assert not termios.tcgetattr(theirs)[3] & (termios.ECHO | termios.ICANON)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert termios.tcgetattr(theirs) == before
        os.close(ours)
        os.close(theirs)
        source, sink = os.pipe()
        os.close(source)
        writer(sink)(b"nobody reads this")
        os.close(sink)


class Ram:
    def __init__(self):
        self.words, self.resets = {}, 0

    def read(self, offset, size):
        return self.words.get(offset, -1)

    def write(self, offset, size, value):
        self.words[offset] = (size, value)

    def reset(self):
        self.resets += 1


class TestBus:
    def test_an_access_reaches_its_device(self):
        bus, one, two = Bus(), Ram(), Ram()
        bus.add(Range(0x1000, 0x1000), one)
        bus.add(Range(0x2000, 8), two)
        assert bus.access(0x1FFC, 4, b"\x78\x56\x34\x12\xff\xff") == b""
        assert one.words == {0xFFC: (4, 0x12345678)}
        assert bus.access(0x2000, 8, None) == b"\xff" * 8
        assert bus.access(0x2000, 1, None) == b"\xff"
        bus.reset()
        assert (one.resets, two.resets) == (1, 1)

    def test_what_no_device_has(self):
        heard = []
        bus = Bus(lambda gpa, is_write: heard.append((gpa, is_write)))
        bus.add(Range(0x1000, 8), Ram())
        for gpa, data in ((0x0FFF, None), (0x1004, None), (0x1004, b"12345678"), (0x1008, None), (0x5000, b"1")):
            assert not any(bus.access(gpa, 8 if gpa != 0x5000 else 1, data))
        assert heard == [(0x0FFF, False), (0x1004, False), (0x5000, True)]
        for page in range(1000):
            bus.access(0x10_0000 + 4096 * page, 4, None)
        assert len(heard) == 64, "a guest cannot fill a log"
