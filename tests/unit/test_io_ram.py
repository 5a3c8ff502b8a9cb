"""Guest RAM by calls, and signals from files, without any lost page: what the kernel does with one, the lab shows."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kvm_host import send_self
from vmm_ras.errors import GuestError, HostError, Poisoned
from vmm_ras.events import Code, HostSignal
from vmm_ras.io import libc, sigbus
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.kvm.siginfo import SignalfdSiginfo

RAM, SIZE = 0x4000_0000, 1 << 18


@pytest.fixture
def ram():
    with GuestRam(RAM, SIZE) as found:
        yield found


@given(st.integers(0, SIZE - 300), st.binary(max_size=300))
def test_what_is_written_is_read(offset, data):
    with GuestRam(RAM, SIZE) as ram:
        ram.write(RAM + offset, data)
        assert ram.read(RAM + offset, len(data)) == data


def test_outside(ram):
    for gpa, size in ((RAM - 1, 1), (RAM + SIZE, 1), (RAM + SIZE - 1, 2), (0, 8)):
        for call in (ram.read, lambda g, s: ram.write(g, bytes(s)), ram.replace):
            with pytest.raises(GuestError, match="outside the guest's RAM"):
                call(gpa, size)


def test_a_word(ram):
    ram.write(RAM, (0xFF).to_bytes(8, "little"))
    ram.update_word(RAM, ~0x11, 0x100)
    assert ram.read(RAM, 8) == (0x1EE).to_bytes(8, "little")


def test_a_lost_page_is_an_error(ram, monkeypatch):
    """EIO is what pread and pwrite of a memory file give there, behind what is good (docs/lab.md has it measured)."""
    lost = 0x5000

    def part(offset, size):
        if offset <= lost < offset + size:
            if offset == lost:
                raise OSError(errno.EIO, "Input/output error")
            size = lost - offset
        return size

    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, part(offset, size), offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: part(at, len(data))], at))
    for call in (lambda: ram.read(RAM + 0x4FF0, 64), lambda: ram.write(RAM + 0x4FF0, bytes(64))):
        with pytest.raises(Poisoned) as caught:
            call()
        assert caught.value.gpa == RAM + lost
    assert ram.is_lost(RAM + lost)
    assert not ram.is_lost(RAM + lost - 1)
    with pytest.raises(HostError, match="guest memory at 0x40005000 stays lost"):
        ram.replace(RAM + lost, 1)


def test_another_error_is_no_lost_page(ram, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(GuestError, match="0x40000010: Cannot allocate memory") as caught:
        ram.read(RAM + 0x10, 1)
    assert not isinstance(caught.value, Poisoned)


def test_replacing(ram):
    """Whole pages, zeroed, at the same address; their neighbours keep their bytes."""
    ram.write(RAM, b"\x5a" * SIZE)
    assert ram.replace(RAM + 0x5008, 0x1000) == (RAM + 0x5000, 0x2000)
    assert ram.read(RAM, SIZE) == b"\x5a" * 0x5000 + bytes(0x2000) + b"\x5a" * (SIZE - 0x7000)
    ram.write(RAM + 0x5000, b"new")
    with open("/proc/self/mem", "rb", buffering=0) as memory:  # the mapping shows the new page too
        assert os.pread(memory.fileno(), 3, ram.hva + 0x5000) == b"new"


def test_nothing_is_lost(ram):
    ram.write(RAM, bytes(SIZE))
    assert list(sigbus.lost_pages(ram)) == []


def test_memory_that_the_host_has_not(monkeypatch):
    monkeypatch.setattr(libc, "mmap", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOMEM, "no")))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="of guest RAM"):
        GuestRam(RAM, SIZE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mapping_by_calls(ram):
    """What RAM of huge pages is reached by: hugetlbfs has no write(2)."""
    assert libc.write_mapped(ram.hva + 0x10, b"hello") == 5
    assert libc.read_mapped(ram.hva + 0xF, 7) == b"\0hello\0"
    assert ram.read(RAM + 0x10, 5) == b"hello"
    ram.huge = True
    ram.write(RAM + 0x20, b"x" * 5000)
    assert ram.read(RAM + 0x20, 5000) == b"x" * 5000
    ram.huge = False
    assert ram.read(RAM + 0x20, 5000) == b"x" * 5000
    for call in (lambda: libc.read_mapped(8, 8), lambda: libc.write_mapped(8, b"x")):
        with pytest.raises(OSError, match="Bad address") as caught:
            call()
        assert caught.value.errno == errno.EFAULT


class TestSignals:
    @pytest.fixture
    def file(self):
        old = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        sigbus.block_signals()
        found = sigbus.SignalFile()
        yield found
        found.read()
        found.close()
        found.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def test_what_a_signal_says(self, file):
        assert file.read() == []
        send_self(4, 0xFFFF_8000_1234_5678, 21)
        infos = file.read()
        assert [sigbus.host_signal(info, 9, 2.5) for info in infos] == [
            HostSignal(Code.AR, 0xFFFF_8000_1234_5678, 21, 9, 2.5)
        ]

    def test_a_second_one_is_lost_while_one_is_pending(self, file):
        send_self(5, 0x1000)
        send_self(5, 0x2000)
        assert [info.addr for info in file.read()] == [0x1000]

    def test_others_say_nothing_of_memory(self, file):
        for number in (sigbus.KICK, signal.SIGBUS):  # to this thread, which has them blocked: others may not
            signal.pthread_kill(threading.get_ident(), number)
        infos = file.read()
        assert sorted(info.signo for info in infos) == sorted([signal.SIGBUS, sigbus.KICK])
        assert [sigbus.host_signal(info, 1, None) for info in infos] == [None, None]

    @pytest.mark.parametrize(("lsb", "expected"), [(0, 12), (12, 12), (16, 16), (30, 30)])
    def test_no_less_than_a_page_is_lost(self, lsb, expected):
        found = sigbus.host_signal(SignalfdSiginfo(signo=7, code=5, addr=0x1008, addr_lsb=lsb), 1, None)
        assert found == HostSignal(Code.AO, 0x1008, expected, 1, None)
