"""One lost page's way, for people who see it for the first time: moments of ``linux_kvm.demo`` as a timeline."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

WHERE = {"host": "host kernel", "vmm": "VMM", "guest": "guest kernel", "process": "guest process"}
"""Who does it."""


class Moment(NamedTuple):
    """One row of the timeline."""

    ms: float | None
    """Milliseconds since the page was lost; None: before that."""
    who: str
    what: str
    detail: str


Row = tuple[str, str, str]
"""Who, what, and the detail."""


class Timeline:
    """Moments as they come in, to rows."""

    def __init__(self) -> None:
        self.rows: list[Moment] = []
        self._start: float | None = None
        self._va = 0
        """Address of the page in its process."""
        self._signals: set[tuple[int, int]] = set()
        """Code and address of those that came: an AO may come again."""
        self._ignored: set[int] = set()

    def heard(self, what: str, values: dict[str, Any]) -> None:
        """One moment more; what nobody needs to see is left out."""
        at = float(values.get("at", 0.0))
        if what == "madvise":
            self._start = at
        ms = None if self._start is None else 1000 * (at - self._start)
        tell = getattr(self, f"_on_{what.lower()}", None)
        row = None if tell is None else tell(values)
        if row is None:
            return
        if what == "Posted" and self.rows and self.rows[-1].what.startswith("vcpu"):
            # told with the vCPU's abort, but done before it: a guest that is notified finds the record whole
            self.rows.insert(-1, Moment(self.rows[-1].ms, *row))
        else:
            self.rows.append(Moment(ms, *row))

    # -- one method per kind of moment -----------------------------------------------------

    def _on_booted(self, v: dict[str, Any]) -> Row:
        return "guest", "Linux has booted with our ACPI tables: it knows where to look for errors", v["kernel"]

    def _on_victim(self, v: dict[str, Any]) -> Row:
        self._va = v["va"]
        place = f"its address {v['va']:#x}, the guest's {v['pa']:#x}"
        return "process", f"process {v['pid']} owns a page of memory, and reads it again and again", place

    def _on_madvise(self, v: dict[str, Any]) -> Row:
        text = "the page is lost: madvise(MADV_HWPOISON) does to it what bad memory does"
        return "host", text, f"guest address {v['gpa']:#x} is the VMM's {v['hva']:#x}"

    def _on_hostsignal(self, v: dict[str, Any]) -> Row | None:
        signal = v["code"], v["hva"]
        if signal in self._signals:
            return None
        self._signals.add(signal)
        detail = f"si_addr {v['hva']:#x}, si_addr_lsb {v['lsb']}, thread {v['tid']}"
        if v["code"] == 4:
            text = "a vCPU reads the page; KVM leaves the guest, SIGBUS BUS_MCEERR_AR goes to the vCPU's thread"
        else:
            text = "SIGBUS BUS_MCEERR_AO tells the VMM that memory is lost, which nobody has used yet"
        return "host", text, detail

    def _on_decided(self, v: dict[str, Any]) -> Row | None:
        if v["what"] == "ignored":
            if v["code"] in self._ignored:
                return None
            self._ignored.add(v["code"])
            return "vmm", "nothing is told yet, so that we see what happens when the page is used", f"rule {v['rule']}"
        return "vmm", "policy: the guest is told, with a record", f"rule {v['rule']}, guest page {v['gpa']:#x}"

    def _on_stop(self, v: dict[str, Any]) -> Row:
        return "vmm", f"virtual CPU {v['vcpu']} stays out of the guest until it can be told", f"thread vcpu{v['vcpu']}"

    def _on_posted(self, v: dict[str, Any]) -> Row:
        pages = ", ".join(f"{gpa:#x}" for gpa, _ in v["pages"])
        text = "a CPER record that names the page is written where the guest's HEST says, its status last"
        return "vmm", text, f"error source {v['source_id']}, physical address {pages}"

    def _on_injectsea(self, v: dict[str, Any]) -> Row:
        far = "" if v.get("far") is None else f", FAR_EL1 {v['far']:#x}: the process' own address"
        text = f"vcpu{v['vcpu']} takes a synchronous external abort (SEA) at the very instruction that read the page"
        return "vmm", text, f"ESR_EL1 {v['esr'] & 0xFFFF_FFFF:#x}{far}"

    def _on_acked(self, v: dict[str, Any]) -> Row:
        text = "Linux has read the record, cleared its status, and acknowledged it: the next one may come"
        return "guest", text, f"Read Ack register of source {v['source_id']}"

    def _on_process(self, v: dict[str, Any]) -> Row:
        found = re.search(r"code=(\d) addr=(0x[0-9a-f]+) lsb=(\d+)", v["line"])
        code, address = (found.group(1), found.group(2)) if found else ("?", "?")
        name = {"4": "BUS_MCEERR_AR", "5": "BUS_MCEERR_AO", "3": "BUS_OBJERR"}.get(code, f"code {code}")
        own = found is not None and int(address, 16) == self._va
        text = f"the process gets SIGBUS {name}, with {'its own' if own else 'an'} address: only it is hit"
        return "process", text, f"si_addr {address}"

    def _on_kernel(self, v: dict[str, Any]) -> Row:
        return "guest", "Linux never uses the page again", v["line"]
