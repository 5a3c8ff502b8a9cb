"""The debugger's protocol, without a debugger: packets, QEMU's own descriptions, and a stub that answers by rote."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from vmm_ras import arm64
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import GuestError
from vmm_ras.io.qemu import inject
from vmm_ras.io.qemu.calls import base_of, sites, trampoline
from vmm_ras.io.qemu.gdb import MAX_PACKET, Debugger, PacketReader, frame, register_numbers, stopped_thread
from vmm_ras.io.qemu.wait import Channel
from vmm_ras.lab.errors import Failure

LAB = Path(__file__).parents[2] / "fixtures" / "lab"
KERNEL_PC = 0xFFFF_8000_0802_0000
VBAR, USER_PC, TEXT = 0xFFFF_8000_0801_0000, 0x50_0000_0648, 0x5C3F_0648


MSR = {
    0xD518_5200: ("ESR_EL1", "x0"), 0xD518_6001: ("FAR_EL1", "x1"),
    0xD518_4020: ("ELR_EL1", "x0"), 0xD518_4001: ("SPSR_EL1", "x1"),
}  # fmt: skip


class TestPackets:
    def test_a_frame(self):
        assert frame(b"OK") == b"$OK#9a"  # the manual's example
        assert frame(b"") == b"$#00"

    def test_packets_come_in_pieces(self):
        reader, data = PacketReader(), b"+$OK#9a+$#00$T05#b9"
        whole = [payload for i in range(len(data)) for payload in reader.feed(data[i : i + 1])]
        assert whole == [b"OK", b"", b"T05"]
        assert list(PacketReader().feed(data)) == whole

    def test_a_damaged_packet(self):
        with pytest.raises(Failure, match="checksum"):
            list(PacketReader().feed(b"$OK#9b"))

    def test_an_answer_without_an_end(self):
        with pytest.raises(Failure, match="no end"):
            list(PacketReader().feed(b"$" + bytes(MAX_PACKET + 1)))

    def test_who_stopped(self):
        assert stopped_thread(b"T05thread:p01.02;") == ("p1.2", 1)
        assert stopped_thread(b"T02thread:0a;") == ("a", 9)
        assert stopped_thread(b"OK") is None
        assert stopped_thread(b"W00") is None

    def test_qemus_registers(self):
        core = register_numbers((LAB / "qemu-7.2-aarch64-core.xml").read_text(), 0)
        assert (core["x0"], core["x30"], core["sp"], core["pc"], core["cpsr"]) == (0, 30, 31, 32, 33)
        fpu = register_numbers((LAB / "qemu-7.2-aarch64-fpu.xml").read_text(), 34)
        assert (fpu["v0"], fpu["fpsr"], fpu["fpcr"]) == (34, 66, 67)
        system = register_numbers((LAB / "qemu-7.2-system-registers.xml").read_text(), 68)
        assert min(system.values()) == 68
        assert {"VBAR", "ESR_EL1", "FAR_EL1", "ELR_EL1"} <= set(system) | {"VBAR", "ELR_EL1"}


class Stub:
    """A vCPU at EL0 that knows just enough to take an undefined instruction and to run two MSRs."""

    def __init__(self, end, *, lands=VBAR + 0x400, lazy=0):
        self.end, self.lands, self.lazy, self.physical = end, lands, lazy, False
        core = register_numbers((LAB / "qemu-7.2-aarch64-core.xml").read_text(), 0)
        self.names = {number: name for name, number in core.items()}
        self.names |= {100: "VBAR", 101: "ESR_EL1", 102: "FAR_EL1", 103: "ELR_EL1", 104: "SPSR_EL1", 105: "SCTLR"}
        self.registers = dict.fromkeys(self.names.values(), 0) | {"pc": USER_PC, "VBAR": VBAR, "x0": 7, "x1": 8}
        self.memory = {TEXT: 0xB940_0000, VBAR + 0x600: 0x1111, VBAR + 0x604: 0x2222}
        self.files = {
            name: (LAB / f"qemu-7.2-{name}").read_text() for name in ("target.xml", "aarch64-core.xml")
        }  # fmt: skip
        self.files["aarch64-fpu.xml"] = "<feature/>"
        self.files["system-registers.xml"] = "".join(
            f'<reg name="{name}" bitsize="64" regnum="{number}"/>' for number, name in self.names.items() if number > 99
        )
        self.asked = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        reader = PacketReader()
        with suppress(OSError):
            while data := self.end.recv(4096):
                if data == b"\x03":
                    self.end.sendall(frame(b"T02thread:p01.01;"))
                    continue
                for payload in reader.feed(data):
                    self.asked.append(payload.decode())
                    self.end.sendall(frame(self.answer(payload.decode()).encode()))

    def answer(self, p):
        if p.startswith("qXfer:features:read:"):
            name, span = p.removeprefix("qXfer:features:read:").split(":")
            start, size = (int(v, 16) for v in span.split(","))
            text = self.files[name]
            return ("m" if start + size < len(text) else "l") + text[start : start + size]
        if p == "?" or p.startswith("vCont;s"):
            if p != "?":
                self.step()
            return "T05thread:p01.01;"
        if p.startswith("p"):
            return self.registers[self.names[int(p[1:], 16)]].to_bytes(8, "little").hex()
        if p.startswith("P"):
            number, value = p[1:].split("=")
            self.registers[self.names[int(number, 16)]] = int.from_bytes(bytes.fromhex(value), "little")
            return "OK"
        if p.startswith("Qqemu.PhyMemMode:"):
            self.physical = p.endswith("1")
            return "OK"
        if p[0] in "mM":
            return self.access(p)
        return {"QStartNoAckMode": "OK"}.get(p, "E22" if p == "bad" else "OK")

    def access(self, p):
        place, _, data = p[1:].partition(":")
        at, size = (int(v, 16) for v in place.split(","))
        assert (at < 1 << 40) is self.physical or at == USER_PC
        words = [at + 4 * i for i in range(size // 4)]
        if p[0] == "m":
            return b"".join(self.memory[w].to_bytes(4, "little") for w in words).hex()
        for word, value in zip(words, struct.unpack(f"<{len(words)}I", bytes.fromhex(data)), strict=True):
            self.memory[word] = value
        return "OK"

    def step(self):
        r = self.registers
        if self.lazy:
            self.lazy -= 1
            return
        if r["pc"] == USER_PC:
            assert self.memory[TEXT] == 0
            r["pc"], r["cpsr"], r["ESR_EL1"] = self.lands, 0x3C5, 0x0200_0000
            return
        name, source = MSR[self.memory[r["pc"]]]
        r[name] = r[source]
        r["pc"] += 4


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    with suppress(OSError):
        theirs.shutdown(socket.SHUT_RDWR)
    theirs.close()


@pytest.fixture
def stub(ends):
    return Stub(ends[1])


@pytest.fixture
def debugger(ends, stub):
    return Debugger(Channel(ends[0], "debugger"))


class TestDebugger:
    def test_registers_and_memory(self, debugger, stub):
        assert debugger.read("pc") == USER_PC
        assert debugger.read("VBAR_EL1") == VBAR
        debugger.write("x3", 2**64 - 1)
        assert stub.registers["x3"] == 2**64 - 1
        assert debugger.read_memory(VBAR + 0x600, 8) == struct.pack("<II", 0x1111, 0x2222)
        with pytest.raises(Failure, match="no register NOTHING"):
            debugger.read("NOTHING")

    def test_a_guest_that_runs_is_stopped_first_and_that_is_said(self, ends):
        stub = Stub(ends[1])
        ends[1].sendall(frame(b"T02thread:01;"))  # as QEMU does when somebody connects
        debugger = Debugger(Channel(ends[0], "debugger"))
        assert debugger.read("pc") == USER_PC
        assert debugger.interrupt() == 0
        debugger.detach()
        assert stub.asked[-1] == "D;1"

    def test_a_serror(self, debugger, stub):
        inject.take_serror(debugger, TEXT, 0x811)
        assert stub.registers["ESR_EL1"] == 0xBE00_0811
        assert stub.registers["pc"] == VBAR + arm64.VECTOR_LOWER_AARCH64 + 0x180
        stub.registers["cpsr"] |= arm64.PSTATE_A
        with pytest.raises(GuestError, match=r"PSTATE\.A is set"):
            inject.take_serror(debugger, TEXT, 0x811)

    def test_a_refusal(self, debugger):
        with pytest.raises(Failure, match="'bad' is refused with E22"):
            debugger.ask("bad")

    def test_silence(self):
        ours, theirs = socket.socketpair()
        with pytest.raises(Failure, match="no answer"):
            Debugger.ask(_bare(Channel(ours, "debugger")), "?", seconds=0.05)
        ours.close()
        theirs.close()

    def test_the_other_end_is_gone(self, debugger, ends):
        ends[1].shutdown(socket.SHUT_RDWR)
        with pytest.raises(Failure, match="gone"):
            debugger.ask("?")

    def test_a_stop_that_may_come(self, debugger, ends):
        assert debugger.poll(0.01) is None
        ends[1].sendall(frame(b"T05thread:p01.02;") + frame(b"T05thread:p01.01;"))
        assert [debugger.poll(5), debugger.poll(0)] == [1, 0]
        assert debugger.thread == "p1.1"
        assert debugger.poll(0) is None

    def test_interrupt_and_breakpoints(self, debugger, stub):
        assert debugger.interrupt() == 0
        debugger.add_breakpoint(0x5000)
        debugger.remove_breakpoint(0x5000)
        debugger.select(1)
        assert stub.asked[-3:] == ["Z1,5000,4", "z1,5000,4", "Hgp1.2"]


def _bare(channel):
    """A debugger that has not said hello."""
    found = object.__new__(Debugger)
    found._channel, found._reader, found._packets = channel, PacketReader(), []
    return found


class TestSea:
    @pytest.mark.parametrize("far", [None, 0x1234_5000])
    def test_the_vcpu_stands_at_the_vector_with_the_syndrome(self, debugger, stub, far):
        esr = arm64.sea_esr(0, far)
        inject.take_sea(debugger, TEXT, esr, far)
        r = stub.registers
        assert (r["pc"], r["ESR_EL1"], r["FAR_EL1"]) == (VBAR + 0x400, esr, far or 0)
        assert (r["x0"], r["x1"]) == (7, 8)
        assert stub.memory == {TEXT: 0xB940_0000, VBAR + 0x600: 0x1111, VBAR + 0x604: 0x2222}
        assert not stub.physical

    def test_a_vcpu_that_goes_elsewhere(self, ends):
        stub = Stub(ends[1], lands=VBAR + 0x200)
        with pytest.raises(GuestError, match="not at"):
            inject.take_sea(Debugger(Channel(ends[0], "debugger")), TEXT, 0x9200_0410, None)
        assert stub.memory[TEXT] == 0xB940_0000
        assert not stub.physical

    def test_steps_that_were_not_taken_are_repeated(self, ends):
        stub = Stub(ends[1], lazy=3)
        inject.take_sea(Debugger(Channel(ends[0], "debugger")), TEXT, 0x9200_0410, None)
        assert stub.registers["ESR_EL1"] == 0x9200_0410

    def test_a_vcpu_that_never_moves(self, ends):
        stub = Stub(ends[1], lazy=1 << 30)
        with pytest.raises(Failure, match="stays at"):
            inject.take_sea(Debugger(Channel(ends[0], "debugger")), TEXT, 0x9200_0410, None)
        assert stub.memory[TEXT] == 0xB940_0000
        assert not stub.physical

    def test_what_the_core_is_told_of_a_stopped_vcpu(self, debugger, stub):
        stub.registers |= {"cpsr": 0x8000_0000, "SCTLR": 0x30D0_0800}
        state = inject.state(debugger)
        assert state.sctlr == 0x30D0_0800
        assert (state.pc, state.el, state.pstate, state.vbar, state.x[:2]) == (USER_PC, 0, 0x8000_0000, VBAR, (7, 8))
        assert len(state.x) == 18


class TestSdei:
    def test_a_handler_starts(self, debugger, stub):
        stub.registers["cpsr"] = 0x8000_0005
        inject.set_registers(debugger, SetRegisters(1, 1, 0, (804, 5, 6), KERNEL_PC, 0x3C5))
        r = stub.registers
        assert [r[name] for name in ("x0", "x1", "x2", "pc", "cpsr")] == [804, 5, 6, KERNEL_PC, 0x3C5]
        assert (r["ELR_EL1"], r["SPSR_EL1"]) == (0, 0)

    def test_a_handler_ends_as_if_an_exception_were_taken(self, debugger, stub):
        stub.registers["cpsr"] = 0x3C5
        x = tuple(range(100, 118))
        inject.set_registers(debugger, SetRegisters(1, None, 0, x, VBAR + 0x280, 0x3C5, 0x1234, 0x8000_0005))
        r = stub.registers
        assert (r["ELR_EL1"], r["SPSR_EL1"], r["pc"], r["cpsr"]) == (0x1234, 0x8000_0005, VBAR + 0x280, 0x3C5)
        assert tuple(r[f"x{i}"] for i in range(18)) == x
        assert (stub.memory[VBAR + 0x600], stub.memory[VBAR + 0x604]) == (0x1111, 0x2222)

    def test_another_exception_level(self, debugger, stub):
        with pytest.raises(GuestError, match="at EL0, and cannot be put at EL1"):
            inject.set_registers(debugger, SetRegisters(1, 1, 0, (804,), KERNEL_PC, 0x3C5))
        assert stub.registers["pc"] == USER_PC


def test_where_a_kernel_calls():
    call = struct.pack("<4I", 0xD503_245F, 0xD400_0002, 0xF940_03E4, 0xA900_0480)
    leave = struct.pack("<5I", 0x5400_0061, 0xD400_0003, 0x1400_0000, 0xD400_0002, 0x1400_0000)
    image = bytes(64) + leave + bytes(8) + leave + call + bytes(4)
    base = 0xFFFF_8000_0800_0000
    assert sites(image, base) == (base + 64 + 28 + 20 + 4, base + 64 + 12, base + 64 + 28 + 12)
    assert sites(image.ljust(1 << 20, b"\0") + leave, base) == sites(image, base)
    for missing in (call, leave):
        with pytest.raises(Failure, match="no HVC where SDEI calls are made"):
            sites(image.replace(missing, bytes(len(missing))), base)


class TestRandomAddresses:
    BASE = 0xFFFF_A17B_3C21_0000
    CALL = struct.pack("<4I", 0xD503_245F, 0xD400_0002, 0xF940_03E4, 0xA900_0480)
    LEAVE = struct.pack("<5I", 0x5400_0061, 0xD400_0003, 0x1400_0000, 0xD400_0002, 0x1400_0000)
    IMAGE = bytes(0x1_2340) + CALL + LEAVE.rjust(0x5_0000, b"\0")

    def read(self, address: int, size: int) -> bytes:
        """Kernels map nothing of their image's first 64 KiB."""
        at = address - self.BASE
        if not 0x1_0000 <= at <= at + size <= len(self.IMAGE):
            raise Failure("refused with E14")
        return self.IMAGE[at : at + size]

    @pytest.mark.parametrize("at", [0x1_0000, 0x1_2350, 0x3_0004, len(IMAGE) - 4])
    def test_a_kernel_is_found_wherever_it_runs(self, at):
        assert base_of(self.IMAGE, self.BASE + at, self.read) == self.BASE

    @pytest.mark.parametrize("pc", [0x5C00_1000, 0, BASE - 4, BASE + len(IMAGE) + 0x10_0000, 0xFFFF_FFFF_FFFF_0000])
    def test_a_processor_that_is_elsewhere(self, pc):
        assert base_of(self.IMAGE, pc, self.read) is None

    def test_another_kernel(self):
        assert base_of(self.IMAGE.replace(self.CALL, bytes(16)), self.BASE + 0x3_0000, self.read) is None
        assert base_of(self.IMAGE, self.BASE + 0x3_0000, lambda address, size: bytes(size)) is None

    def test_the_way_out_of_other_page_tables(self):
        entry, behind = 0xFFFF_FBFF_FE20_0400, self.LEAVE.rjust(0x80, b"\x1f")
        assert trampoline(entry, lambda at, size: behind.ljust(size, b"\0")) == (entry + 0x80 - 20 + 12,)
        assert trampoline(entry, lambda at, size: bytes(size)) == ()
