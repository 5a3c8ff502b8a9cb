"""What the tiny guest shows on real KVM and real hwpoison; executed on the emulated host, one scenario after the other.

``python3 -m vmm_ras.lab.tiny_matrix`` prints one line of JSON per assertion, behind a mark; ``tiny`` reads them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import orjson

from vmm_ras import arm64
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.kvm.one_reg import CORE
from vmm_ras.lab import tiny_memory, tiny_serror, tiny_telling
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_desk import Command, Taken
from vmm_ras.lab.tiny_guest import PAGES, TinyGuest

MARK = "@"
Scenario = Callable[[Report, Kvm], None]
PAGE = 4096
EL1_SYNC, EL0_SYNC = 4, 8
"""Numbers of the vectors: current EL with SPx, lower EL."""
STATUSES = (0x10, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1C)
"""External abort, on a table walk of each level; parity error, on a table walk."""


def seen(taken: Taken) -> str:
    """An exception for people."""
    return f"vector {taken.vector}, ESR {taken.esr:#x}, FAR {taken.far:#x}, ELR {taken.elr:#x}"


def consumed(report: Report, kvm: Kvm) -> None:
    """madvise(MADV_HWPOISON), BUS_MCEERR_AR in the vCPU's thread, block, SEA, acknowledgement; every kind of access."""
    with TinyGuest(kvm, preset="qemu-7.2") as guest:
        at_load, at_store, at_user = guest.symbol(0), guest.symbol(1), guest.symbol(2)
        cases = (
            ("a load at EL1", Command.LOAD, at_load, EL1_SYNC, 0x96000010),
            ("a store at EL1", Command.STORE, at_store, EL1_SYNC, 0x96000010),
            ("a load at EL0", Command.USER, at_user, EL0_SYNC, 0x92000010),
        )
        for index, (name, command, place, vector, esr) in enumerate(cases):
            page = PAGES + index * PAGE
            guest.do(Command.STORE, page)
            guest.lose(page)
            answer = guest.do(command, page + 0x48)
            expected = Taken(vector, esr, page + 0x48, place, 0x3C0 if vector == EL0_SYNC else 0x3C5)
            report.equal(len(answer.taken), 1, f"{name} of lost memory takes one exception")
            report.equal(answer.taken[0], expected, f"{name}: vector, ESR, FAR, ELR, SPSR", seen(expected))
            report.equal(answer.records, (page,), f"{name}: the guest finds the page in the record", f"{page:#x}")
            posted = guest.settled(index + 1)[-1]
            report.equal((posted.delivery, posted.esr, posted.pages), ("sea", esr, ((page, PAGE),)),
                         f"{name}: the core posted that, and the guest acknowledged")  # fmt: skip
        page = PAGES + 3 * PAGE
        guest.do(Command.STORE, page)
        guest.lose(page)
        back = lambda vcpu: vcpu.get(CORE["X30"]) - page - 0x40  # noqa: E731
        answer = guest.do(Command.JUMP, page + 0x40, skip=back)
        report.equal(answer.taken, (Taken(EL1_SYNC, 0x86000010, page + 0x40, page + 0x40, 0x3C5),),
                     "a fetch of lost memory takes an instruction abort", seen(answer.taken[0]))  # fmt: skip
        report.equal(answer.records, (page,), "a fetch: the guest finds the page in the record")
        report.equal(guest.ended, [], "no vCPU has ended")


def on_a_walk(report: Report, kvm: Kvm) -> None:
    """The page that holds the guest's own translation table is lost."""
    level1, level2, level3 = (PAGES + (64 + index) * PAGE for index in range(3))
    ram, block, target = 0x4000_0000, 2 << 20, PAGES + 0x80000
    normal = 1 << 10 | 3 << 8 | 1 << 2 | 1  # accessed, inner shareable, attributes 1, valid
    entries = {level1: [1 << 10 | 1, level2 | 3], level2: [ram + index * block | normal for index in range(8)]}
    entries[level2][2] = level3 | 3  # all is where it was, but for the third block: there every page is `target`
    entries[level3] = [target | normal | 2] * 512
    with TinyGuest(kvm, preset="qemu-7.2") as guest:
        for table, words in entries.items():
            guest.ram.write(table, b"".join(word.to_bytes(8, "little") for word in words).ljust(PAGE, b"\0"))
        tcr = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32
        answer = guest.do(Command.MMU, level1, tcr, 0xFF00, 0x30D0_0801 | 1 | 1 << 2 | 1 << 12)
        report.check(bool(answer.results), "the guest turns its MMU on")
        va = ram + 2 * block + 0x3010
        report.equal(guest.do(Command.LOAD, va).taken, (), "an access through the table is good")
        guest.lose(level3)
        answer = guest.do(Command.LOAD, va + 5 * PAGE)
        report.equal([(t.esr, t.far) for t in answer.taken], [(0x96000010, va + 5 * PAGE)],
                     "an access through the lost table is an SEA at its address", seen(answer.taken[0]))  # fmt: skip
        report.equal(answer.records, (level3,), "and the record names the table's page", f"{level3:#x}")


def statuses(report: Report, kvm: Kvm) -> None:
    """The policy chooses the Data Fault Status Code."""
    for index, dfsc in enumerate(STATUSES):
        force = dfsc >= 0x18
        sea = f"{{ dfsc = {dfsc}, force = {str(force).lower()} }}"
        with TinyGuest(kvm, preset="qemu-7.2", sea=sea) as guest:
            page = PAGES + index * PAGE
            guest.do(Command.STORE, page)
            guest.lose(page)
            for command, ec, place in ((Command.LOAD, 0x25, 0), (Command.USER, 0x24, 2)):
                taken = guest.do(command, page + 8).taken
                esr = ec << arm64.ESR_EC_SHIFT | arm64.ESR_IL | dfsc
                report.equal([(t.esr, t.far, t.elr) for t in taken], [(esr, page + 8, guest.symbol(place))],
                             f"DFSC {dfsc:#x}, EC {ec:#x}: ESR, FAR, ELR", seen(taken[0]))  # fmt: skip


SCENARIOS: tuple[tuple[str, Scenario], ...] = (
    ("Consumed", consumed),
    ("On a table walk", on_a_walk),
    ("Status codes", statuses),
    *tiny_serror.SCENARIOS,
    *tiny_telling.SCENARIOS,
    *tiny_memory.SCENARIOS,
)


def main(names: list[str]) -> int:
    """Run the scenarios (of these names, or all); 0 where everything held."""
    report = Report("tiny")
    try:
        with Kvm() as kvm:
            for name, scenario in SCENARIOS:
                if names and name not in names:
                    continue
                count = len(report.rows)
                start = time.monotonic()
                report.section = name
                scenario(report, kvm)
                _say({"step": name, "seconds": time.monotonic() - start, "rows": report.rows[count:]})
    except Failure as error:
        _say({"failure": str(error), "detail": error.detail})
        return 1
    return 0


def _say(value: object) -> None:
    os.write(1, MARK.encode() + orjson.dumps(value) + b"\n")


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # threads of a vCPU that failed do not keep it
