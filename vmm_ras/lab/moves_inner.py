"""Executed on the emulated host: guests arrive from its serial line and leave by it.

``python3 -m vmm_ras.lab.moves_inner [arrive NAME...] [leave NAME...]`` prints one line of JSON per scenario, as
``tiny_matrix`` does.  The line has no flow control: what arrives comes in pieces, each of which is asked for.
"""

from __future__ import annotations

import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from vmm_ras.compat import registers as names
from vmm_ras.compat.accept import refusal
from vmm_ras.compat.host import Description
from vmm_ras.errors import RasError
from vmm_ras.io.host import describe
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.kvm.one_reg import CORE
from vmm_ras.lab.moves_guest import MovingGuest
from vmm_ras.lab.moves_scenarios import SCENARIOS, Scenario
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_matrix import MARK
from vmm_ras.snapshot import stream

LINE = "/dev/ttyS0"
HOSTS = Path("hosts.json")
"""Descriptions of the hosts to which guests are to be able to go."""
PIECE = 4096
"""Bytes that are sent to the host before it asks for more."""
MORE = b"+"


class Wire:
    """The serial line, as a stream of bytes."""

    def __init__(self, path: str = LINE) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._fd)
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes; one piece is asked for at a time."""
        if not self._buffer:
            os.write(self._fd, MORE)
            length = int.from_bytes(self._exactly(2), "little")
            self._buffer = self._exactly(length)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(os.read(self._fd, size))
            size -= len(parts[-1])
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        """All of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Wait until all has gone."""
        termios.tcdrain(self._fd)
        os.close(self._fd)


Hosts = Sequence[Description]


def arrive(report: Report, kvm: Kvm, wire: Wire, hosts: Hosts, scenario: Scenario) -> None:
    """A guest comes, and goes on."""
    data, memory = stream.receive(wire.read)
    came = list(memory)
    size = sum(len(item.data) for item in came if isinstance(item, stream.Memory))
    with MovingGuest(kvm, vcpus=scenario.vcpus, preset=scenario.preset, found=scenario.found, arriving=True) as guest:
        arriving = guest.enter(data, came, scenario.ways)
        report.check(True, "snapshot and memory came", f"{len(data)} and {size} bytes")
        here = hosts[0]
        for vcpu, (sent, refused) in enumerate(zip(arriving.sent, arriving.refused, strict=True)):
            expected = {reg for reg, value in sent.items() if refusal(here, reg, value) is not None}
            report.equal(set(refused), expected, f"vCPU {vcpu}: the registers that are refused are those predicted",
                         f"{len(refused)} of {len(sent)}")  # fmt: skip
            report.check(not set(refused) & set(CORE.values()), f"vCPU {vcpu}: no core register is among them")
        report.equal(arriving.left, [], "all that is pending can be taken")
        scenario.after(report, guest, arriving)
        report.equal(guest.ended, [], "no vCPU has ended")


def leave(report: Report, kvm: Kvm, wire: Wire, hosts: Hosts, scenario: Scenario) -> None:
    """A guest is made, and goes."""
    with MovingGuest(kvm, vcpus=scenario.vcpus, preset=scenario.preset, found=scenario.found, hosts=hosts) as guest:
        if len(hosts) > 1:
            shown = ", ".join(f"{names.name(s.register)}: {s.why}" for s in guest.settings)
            report.check(True, "it is made so that it can go to the other host", shown or "nothing had to be changed")
        leaving = scenario.before(report, guest)
        size = stream.send(wire.write, leaving.snapshot, leaving.memory())
        lost = sum(size for _, size in leaving.left_out)
        report.check(True, "it is frozen, and sent", f"{size} bytes; {lost} bytes of lost memory are not among them")


STEPS: dict[str, Callable[[Report, Kvm, Wire, Hosts, Scenario], None]] = {"arrive": arrive, "leave": leave}


def main(words: list[str]) -> int:
    """Everything; 0 where all held."""
    steps: list[tuple[str, Scenario]] = []
    for word in words:
        if word in STEPS:
            doing = word
        else:
            steps.append((doing, next(s for s in SCENARIOS if s.name == word)))
    report, wire = Report("moves"), Wire()
    try:
        with Kvm() as kvm:
            here = describe(kvm, frozenset())
            _say({"host": here.plain()})
            others = orjson.loads(HOSTS.read_bytes()) if HOSTS.exists() else []
            hosts = [here, *(Description.parse(orjson.dumps(other)) for other in others)]
            for doing, scenario in steps:
                count, start = len(report.rows), time.monotonic()
                report.section = f"{scenario.name}: {doing}s"
                STEPS[doing](report, kvm, wire, hosts, scenario)
                _say({"step": report.section, "seconds": time.monotonic() - start, "rows": report.rows[count:]})
    except (Failure, RasError, OSError) as error:
        _say({"failure": f"{report.section}: {error}", "detail": getattr(error, "detail", "")})
        return 1
    wire.close()
    return 0


def _say(value: object) -> None:
    os.write(1, MARK.encode() + orjson.dumps(value) + b"\n")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # threads of a vCPU that failed do not keep it
