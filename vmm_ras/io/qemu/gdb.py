"""GDB's remote serial protocol, as much of it as QEMU's stub needs (GDB manual, appendix E)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Channel, Deadline

_STOP = re.compile(rb"T[0-9a-f]{2}thread:(?:p([0-9a-f]+)\.)?([0-9a-f]+);")
_INCLUDE = re.compile(r'<xi:include href="([^"]+)"')
_REGISTER = re.compile(r"<reg ([^>]*?)/?>")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
MAX_PACKET = 1 << 20
"""Bytes; a longer answer is none."""
HARDWARE_BREAKPOINT = 1
MAX_STEPS = 50
"""Tries of one step."""


def frame(payload: bytes) -> bytes:
    """A packet."""
    return b"$" + payload + b"#%02x" % (sum(payload) & 0xFF)


class PacketReader:
    """Takes the bytes that arrive apart: acknowledgements are dropped, damaged packets raise Failure."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads of the packets that are whole now."""
        self._buffer += data
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start)
            if start < 0 or end < 0 or end + 3 > len(self._buffer):
                if len(self._buffer) > MAX_PACKET:
                    raise Failure("debugger: an answer has no end")
                return
            payload, given = self._buffer[start + 1 : end], self._buffer[end + 1 : end + 3]
            self._buffer = self._buffer[end + 3 :]
            if given != b"%02x" % (sum(payload) & 0xFF):
                raise Failure(f"debugger: the checksum of an answer is {given!r}")
            yield payload


def stopped_thread(payload: bytes) -> tuple[str, int] | None:
    """Of a stop reply: the thread as the stub names it, and its vCPU (from 0)."""
    found = _STOP.match(payload)
    if found is None:
        return None
    process, thread = found.group(1), int(found.group(2), 16)
    name = f"{thread:x}" if process is None else f"p{int(process, 16):x}.{thread:x}"
    return name, thread - 1


def register_numbers(description: str, first: int) -> dict[str, int]:
    """Register to number, of one file of a target description whose registers begin at ``first``."""
    found, number = {}, first
    for match in _REGISTER.finditer(description):
        attributes = dict(_ATTRIBUTE.findall(match.group(1)))
        number = int(attributes.get("regnum", number))
        found[attributes["name"]] = number
        number += 1
    return found


class Debugger:
    """A connection to QEMU's stub.  Every call raises Failure where the stub refuses or stays silent."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._reader, self._packets = channel, PacketReader(), list[bytes]()
        self.thread = "p1.1"
        """The thread that registers are read from and single steps go to: the one that stopped last."""
        if stopped_thread(self.ask("qSupported:multiprocess+;hwbreak+")) is not None:
            self._next(10, "qSupported")  # a guest that runs is stopped for us, and that is said first
        self.ask("?")
        self._quiet = self.ask("QStartNoAckMode") == b"OK"
        self.registers = self._describe()

    # -- packets -----------------------------------------------------------------------

    def ask(self, command: str, seconds: float = 10) -> bytes:
        """The answer to a command; an error answer raises Failure."""
        self._channel.send(frame(command.encode()))
        answer = self._next(seconds, command)
        if re.fullmatch(rb"E[0-9a-f]{2}", answer):
            raise Failure(f"debugger: {command.partition(',')[0]!r} is refused with {answer.decode()}")
        return answer

    def _next(self, seconds: float, what: str) -> bytes:
        deadline = Deadline(seconds, f"debugger: no answer to {what[:40]!r}")
        while not self._packets:
            deadline.check()
            self._packets += self._reader.feed(self._channel.receive(deadline.left))
        return self._packets.pop(0)

    def _describe(self) -> dict[str, int]:
        """Registers by name, from every file of the target description."""
        found: dict[str, int] = {}
        for name in _INCLUDE.findall(self._feature("target.xml")):
            own = register_numbers(self._feature(name), max(found.values(), default=-1) + 1)
            found |= {k: v for k, v in own.items() if k not in found}
        return found

    def _feature(self, name: str) -> str:
        text = b""
        while True:
            answer = self.ask(f"qXfer:features:read:{name}:{len(text):x},800")
            text += answer[1:]
            if answer[:1] != b"m" or len(text) > MAX_PACKET:
                return text.decode()

    # -- running -----------------------------------------------------------------------

    def resume(self, vcpu: int | None = None) -> None:
        """Let all vCPUs run, or only this one."""
        self._channel.send(frame(b"vCont;c" if vcpu is None else b"vCont;c:p1.%x" % (vcpu + 1)))

    def interrupt(self) -> int:
        """Stop all vCPUs; the one that the stub names."""
        self._channel.send(b"\x03")
        return self.wait(10, "a stop")

    def detach(self) -> None:
        """Stop all vCPUs, forget every breakpoint, and let the guest go on without us."""
        self.interrupt()
        self.ask("D;1")

    def wait(self, seconds: float, what: str) -> int:
        """The vCPU that stopped."""
        found = stopped_thread(self._next(seconds, what))
        if found is None:
            raise Failure(f"debugger: {what}: the stub answers no stop")
        self.thread, vcpu = found
        return vcpu

    def poll(self, seconds: float) -> int | None:
        """The vCPU that stopped, if one does within that time."""
        if not self._packets:
            self._packets += self._reader.feed(self._channel.receive(seconds))
        return self.wait(0, "a stop") if self._packets else None

    def select(self, vcpu: int) -> None:
        """Read and write the registers of this vCPU."""
        self.thread = f"p1.{vcpu + 1:x}"
        self.ask(f"Hg{self.thread}")

    def step(self) -> None:
        """One instruction that moves the pc, on the selected vCPU; the others stand still, and interrupts wait.

        On a busy host QEMU 7.2 now and then reports a step that it did not take: then it is asked again.
        """
        thread, before = self.thread, self.read("pc")
        for _ in range(MAX_STEPS):
            self._channel.send(frame(f"vCont;s:{thread}".encode()))
            self.wait(10, "a single step")
            if self.thread != thread:
                raise Failure(f"debugger: {self.thread} stopped instead of {thread}")
            if self.read("pc") != before:
                return
        raise Failure(f"debugger: {thread} stays at {before:#x}")

    def add_breakpoint(self, address: int) -> None:
        """Stop before the instruction at a virtual address."""
        self.ask(f"Z{HARDWARE_BREAKPOINT},{address:x},4")

    def remove_breakpoint(self, address: int) -> None:
        """Take it back."""
        self.ask(f"z{HARDWARE_BREAKPOINT},{address:x},4")

    # -- state -------------------------------------------------------------------------

    def read(self, register: str) -> int:
        """A register of the selected vCPU."""
        return int.from_bytes(bytes.fromhex(self.ask(f"p{self._number(register):x}").decode()), "little")

    def write(self, register: str, value: int) -> None:
        """Set a general register or the pc; QEMU ignores writes to system registers."""
        size = 4 if register == "cpsr" else 8
        self.ask(f"P{self._number(register):x}={value.to_bytes(size, 'little').hex()}")

    def _number(self, register: str) -> int:
        for name in (register, register.removesuffix("_EL1")):
            if name in self.registers:
                return self.registers[name]
        raise Failure(f"debugger: the stub describes no register {register}")

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address of the selected vCPU."""
        return bytes.fromhex(self.ask(f"m{address:x},{size:x}").decode())

    def write_memory(self, address: int, data: bytes) -> None:
        """Write at a virtual address; unlike a write into shared RAM, translated code notices."""
        self.ask(f"M{address:x},{len(data):x}:{data.hex()}")

    def physical(self, on: bool) -> None:
        """Whether memory is addressed physically from now on."""
        if self.ask(f"Qqemu.PhyMemMode:{on:d}") != b"OK":
            raise Failure("debugger: the stub knows no physical addresses")
