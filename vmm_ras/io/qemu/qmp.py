"""QEMU's monitor (QMP) and its qtest protocol: one line each way."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Channel

MAX_LOG = 1000
"""Lines of the monitor that are kept."""


class Monitor:
    """QMP.  Raises Failure where a command is refused."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.log: deque[str] = deque(maxlen=MAX_LOG)
        """What was asked and answered, the newest lines."""
        greeting = json.loads(channel.line(20))
        version = greeting["QMP"]["version"]
        numbers = version["qemu"]
        self.version = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
        """Of QEMU."""
        self.package = str(version["package"])
        """Of the distribution."""
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """What a command returns; events that come in between are dropped."""
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        self._channel.send(json.dumps(request).encode() + b"\n")
        self.log.append(f"> {json.dumps(request)}")
        while True:
            line = self._channel.line()
            self.log.append(f"< {line.decode(errors='replace')}")
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"monitor: {command}: {answer['error'].get('desc', 'refused')}")
            if "return" in answer:
                return answer["return"]


class Qtest:
    """qtest: it drives interrupt lines of devices, and registers as the guest would.  Raises Failure."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def set_line(self, device: str, line: int, level: bool) -> None:
        """An input line of a device, by its path in QEMU's object tree."""
        self._ask(f"set_irq_in {device} unnamed-gpio-in {line} {level:d}", f"line {line} of {device}")

    def read(self, address: int, size: int = 4) -> int:
        """A register of 1, 2, 4 or 8 bytes."""
        return int(self._ask(f"read{_WIDTHS[size]} {address:#x}", f"register {address:#x}").split()[-1], 16)

    def write(self, address: int, value: int, size: int = 4) -> None:
        """Write a register of 1, 2, 4 or 8 bytes."""
        self._ask(f"write{_WIDTHS[size]} {address:#x} {value:#x}", f"register {address:#x}")

    def _ask(self, command: str, what: str) -> str:
        self._channel.send(f"{command}\n".encode())
        while True:
            answer = self._channel.line().decode(errors="replace")
            if not answer.startswith("IRQ"):
                break
        if not answer.startswith("OK"):
            raise Failure(f"qtest: {what}: {answer}")
        return answer


_WIDTHS = {1: "b", 2: "w", 4: "l", 8: "q"}
