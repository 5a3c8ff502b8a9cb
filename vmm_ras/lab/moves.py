"""Guests that move between emulated hosts with different kernels: what was pending on one comes about on the other.

Each host runs once: the guests of the host before come in by its serial line and go on; then guests of its own go out
by it.  What lies between two hosts is the bytes of that line, and nothing else.
"""

from __future__ import annotations

import shlex
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host import Host
from vmm_ras.lab.host_packages import HostLab
from vmm_ras.lab.moves_inner import HOSTS, MORE, PIECE
from vmm_ras.lab.moves_scenarios import SCENARIOS
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny import build
from vmm_ras.lab.tiny_guest import IMAGE
from vmm_ras.lab.tiny_matrix import MARK

SECONDS = 900.0
"""For one host."""
MAX_STREAM = 64 << 20
NO_CALLS = {"6.1"}
"""Kernels that forward no calls of a guest (before 6.4)."""


class Line:
    """Our end of a host's serial line: gives it ``coming`` piece by piece, as it asks, and keeps what goes out."""

    def __init__(self, coming: bytes) -> None:
        self.end, self.theirs = socket.socketpair()
        self.went = bytearray()
        self.failed = ""
        self._coming = memoryview(coming)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while data := self.end.recv(65536):
                if self._coming:
                    self._feed(data)
                    if self.failed:
                        return
                elif len(self.went) + len(data) > MAX_STREAM:
                    self.failed = f"more than {MAX_STREAM >> 20} MiB"
                    return
                else:
                    self.went += data
        except OSError as error:
            self.failed = str(error)

    def _feed(self, asked: bytes) -> None:
        for number in asked:
            if number != MORE[0] or not self._coming:
                self.failed = f"byte {number:#x} where the host asks for more"
                return
            piece, self._coming = self._coming[:PIECE], self._coming[PIECE:]
            self.end.sendall(len(piece).to_bytes(2, "little") + piece)

    def close(self) -> bytes:
        """What went out.  Raises Failure."""
        self.end.shutdown(socket.SHUT_RDWR)  # what was written already can still be read
        self._thread.join()
        self.end.close()
        if self.failed or self._coming:
            raise Failure(f"the line between the hosts: {self.failed or 'not all was taken'}")
        return bytes(self.went)


def run(
    labs: Sequence[HostLab], only: Sequence[str] = (), heard: Callable[[str], object] = lambda line: None
) -> Report:
    """Let the guests of each host go to the next.  Raises Failure, Unavailable."""
    series = [lab.kernel.series for lab in labs]
    report = Report(f"Lab: guests that move: Linux {', '.join(series)}")
    coming, last = b"", len(labs) - 1
    hosts: dict[str, Any] = {}
    for number, lab in enumerate(labs):
        words = ["arrive"] * (number > 0) + ["leave"] * (number < last)
        names = {
            word: [s.name for s in SCENARIOS if (not only or s.name in only)
                   and not (s.calls and NO_CALLS & {series[number], series[number + (-1 if word == "arrive" else 1)]})]
            for word in words
        }  # fmt: skip
        coming = _host(report, lab, coming, names, hosts, heard)
    report.facts["Host"] = "emulated, arm64, two processors each"
    return report


def _host(
    report: Report, lab: HostLab, coming: bytes, names: dict[str, list[str]], hosts: dict[str, Any],
    heard: Callable[[str], object],
) -> bytes:  # fmt: skip
    """One host; what left it.  ``hosts``: how those that ran before describe themselves; its own is added."""
    wrong: list[Failure] = []
    ran: list[str] = []

    def take(line: str) -> None:
        if not line.startswith(MARK):
            return
        said = orjson.loads(line.removeprefix(MARK))
        if "host" in said:
            hosts[lab.kernel.series] = said["host"]
            return
        if "failure" in said:
            wrong.append(Failure(f"Linux {lab.kernel.series}: {said['failure']}", said["detail"]))
            return
        step = f"{lab.kernel.series}: {said['step']}"
        report.rows += [(step, what, shown) for _, what, shown in said["rows"]]
        report.times.append((step, said["seconds"]))
        ran.append(said["step"])
        heard(f"{step}: {len(said['rows'])} assertions held, {said['seconds']:.1f} s")

    line, start = Line(coming), time.monotonic()
    host = Host(lab, stream=line.theirs)
    words = shlex.join(word for step, found in names.items() for word in (step, *found))
    script = f"insmod /mods/hwpoison-inject.ko && exec python3 -m vmm_ras.lab.moves_inner {words}\n"
    others = [described for series, described in hosts.items() if series != lab.kernel.series]
    files = {IMAGE: build(lab), str(HOSTS): orjson.dumps(others)}
    done = host.run(files, script, seconds=SECONDS, heard=take)
    went: bytes | Failure
    try:
        went = line.close()
    except Failure as error:
        went = error
    if wrong:
        raise Failure(f"{wrong[0]}; {host.keep(done)}", wrong[0].detail)
    wanted = [f"{name}: {word}s" for word, found in names.items() for name in found]
    if done.code or ran != wanted:
        raise Failure(f"the host ends with code {done.code} behind {ran[-1:]}; {host.keep(done)}", done.text()[-3000:])
    if isinstance(went, Failure):
        raise went
    report.facts[f"Linux {lab.kernel.series}"] = f"{lab.kernel.version} ({done.release})"
    heard(f"Linux {lab.kernel.series}: {time.monotonic() - start:.1f} s, {len(went):,} bytes went out")
    return went
