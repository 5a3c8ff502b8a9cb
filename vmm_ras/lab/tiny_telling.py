"""The tiny guest is told: many errors in a row, many at once, on two vCPUs, by SDEI; every one of them."""

from __future__ import annotations

from vmm_ras.effects import Acked, OwnMemory, Posted
from vmm_ras.events import TellSea
from vmm_ras.io import libc
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.lab.hwpoison import lose_own
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_desk import MMIO, Command
from vmm_ras.lab.tiny_guest import PAGES, TinyGuest
from vmm_ras.sdei_table import EVENT_ENABLE, EVENT_REGISTER, PE_UNMASK, VERSION

PAGE = 4096
MANY, BURST = 64, 16
FIRST_LOST = PAGES + 16 * PAGE


def _acked(guest: TinyGuest) -> list[int]:
    return sorted(gpa for e in guest.seen if isinstance(e, Acked) for gpa, _ in e.pages)


def _pages(count: int, first: int = FIRST_LOST) -> list[int]:
    return [first + index * PAGE for index in range(count)]


def in_a_row(report: Report, kvm: Kvm) -> None:
    """64 errors on 64 pages, each consumed."""
    with TinyGuest(kvm, preset="qemu-7.2") as guest:
        pages = _pages(MANY)
        guest.do(Command.WALK, FIRST_LOST, MANY)
        guest.lose(FIRST_LOST, MANY * PAGE)
        answer = guest.do(Command.WALK, FIRST_LOST, MANY)
        report.equal([t.far for t in answer.taken], pages, f"{MANY} aborts, one at each page")
        report.equal({t.esr for t in answer.taken}, {0x96000010}, "all with the same ESR", "0x96000010")
        report.equal(list(answer.records), pages, f"{MANY} records, each of its page")
        guest.settled(MANY)
        report.equal(_acked(guest), pages, "every one was acknowledged")
        report.equal(guest.ended, [], "no vCPU has ended")


def at_once(report: Report, kvm: Kvm) -> None:
    """16 errors at once on one 64 KiB region, none of them used: most signals are lost, no page is."""
    with TinyGuest(kvm, preset="default") as guest:
        pages = _pages(BURST)
        guest.do(Command.WALK, FIRST_LOST, BURST)
        with guest.guest.lock:  # so that nobody reads a signal before the last page is lost
            guest.lose(FIRST_LOST, BURST * PAGE)
        found: list[int] = []
        while len(found) < BURST:
            guest.wait_for(
                lambda seen: sum(isinstance(e, Posted) for e in seen) > sum(isinstance(e, Acked) for e in seen),
                f"a block with what is left of {BURST} pages (found: {len(found)})",
            )  # fmt: skip
            found += guest.poll()
            guest.settled(len(found))
        report.equal(sorted(found), pages, f"the guest found all {BURST} pages in its records")
        report.equal(_acked(guest), pages, "every one was acknowledged")
        signals, again = guest.guest.service.signals, guest.guest.service.found_again
        report.equal(
            signals + again >= BURST, True, "by signal, and without one", f"{signals} signals, {again} found again"
        )
        report.equal(guest.ended, [], "no vCPU has ended")


def two_vcpus(report: Report, kvm: Kvm) -> None:
    """Two vCPUs consume poison at the same time: on two pages, and on one."""
    with TinyGuest(kvm, vcpus=2, preset="qemu-7.2") as guest:
        pages = _pages(17)
        guest.do(Command.WALK, FIRST_LOST, 17)
        guest.lose(FIRST_LOST, 17 * PAGE)
        for vcpu in (0, 1):
            guest.begin(Command.WALK, pages[8 * vcpu], 8, vcpu=vcpu)
        for vcpu in (0, 1):
            answer, own = guest.finish(vcpu), pages[8 * vcpu : 8 * vcpu + 8]
            report.equal([t.far for t in answer.taken], own, f"vCPU {vcpu}: 8 aborts, one at each of its pages")
            report.equal(list(answer.records), own, f"vCPU {vcpu}: every record is that of its own abort")
        guest.settled(16)
        for vcpu in (0, 1):
            guest.begin(Command.LOAD, pages[16], vcpu=vcpu)
        for vcpu in (0, 1):
            answer = guest.finish(vcpu)
            report.equal([t.far for t in answer.taken], [pages[16]], f"vCPU {vcpu}: an abort at the page of both")
            report.equal(answer.records, (pages[16],), f"vCPU {vcpu}: with a record")
        guest.settled(18)
        report.equal(guest.ended, [], "no vCPU has ended")


def by_sdei(report: Report, kvm: Kvm) -> None:
    """The guest's calls come to the core's dispatcher, and a found page interrupts a vCPU that does not wait for it."""
    with TinyGuest(kvm, vcpus=2, preset="all", found=("sdei", "polled")) as guest:
        version = guest.do(Command.HVC, VERSION).results[0]
        if not guest.sdei:
            report.equal(version, (1 << 64) - 1, "this host forwards no calls: the guest gets NOT_SUPPORTED")
            return
        report.check(version >> 48 == 1, "SDEI_VERSION is answered", f"{version:#x}")
        report.equal(guest.do(Command.SMC, VERSION).results[0], version, "and by SMC too")
        event = guest.source("sdei").vector
        for name, call in (
            ("SDEI_EVENT_REGISTER", (EVENT_REGISTER, event, guest.symbol(3), 0, 0, 0)),
            ("SDEI_EVENT_ENABLE", (EVENT_ENABLE, event)),
        ):
            report.equal(guest.do(Command.HVC, *call).results[0], 0, f"{name} succeeds")
        for vcpu in (0, 1):
            report.equal(guest.do(Command.HVC, PE_UNMASK, vcpu=vcpu).results[0], 0, f"SDEI_PE_UNMASK on vCPU {vcpu}")
        pages = _pages(2)
        guest.do(Command.WALK, FIRST_LOST, 2)
        for vcpu in (0, 1):
            guest.begin(Command.SPIN, PAGES, vcpu=vcpu, skip=0)
        for count, page in enumerate(pages, 1):
            guest.lose(page)
            posted = guest.settled(count)[-1]
            report.equal((posted.delivery, posted.pages), ("sdei", ((page, PAGE),)), "it is told by the event")
        guest.ram.write(PAGES, b"\1")
        answers = [guest.finish(vcpu) for vcpu in (0, 1)]
        report.equal(sorted(r for a in answers for r in a.records if r != event), pages,
                     "the handler found both pages", f"vCPUs {[len(a.records) // 2 for a in answers]}")  # fmt: skip
        report.equal([a.results[-1] for a in answers], [1, 1], "and what it interrupted went on")
        report.equal([a.taken for a in answers], [(), ()], "without any exception")
        report.equal(guest.ended, [], "no vCPU has ended")


def own_memory(report: Report, kvm: Kvm) -> None:
    """Memory of the VMM itself is lost: that is said, and the guest is told nothing."""
    with TinyGuest(kvm) as guest:
        address = lose_own()
        found = guest.wait_for(lambda seen: any(isinstance(e, OwnMemory) for e in seen), "the core hears of it")
        notice = next(e for e in found if isinstance(e, OwnMemory))
        report.equal((notice.hva, notice.code), (address, 5), "poison in the VMM's own memory is known as such",
                     f"{notice.hva:#x}, BUS_MCEERR_AO")  # fmt: skip
        report.equal([e for e in guest.seen if isinstance(e, Posted)], [], "the guest is told nothing")
        report.equal(guest.do(Command.IDS).taken, (), "and runs on")
        libc.munmap(address, PAGE)


def in_flight(report: Report, kvm: Kvm) -> None:
    """A vCPU that waits for its device is asked for: its access is completed first, and the exception is not lost."""
    count = 20
    with TinyGuest(kvm) as guest:
        guest.do(Command.IDS, skip=0)  # the handler is to go back to where it came from, from now on
        for number in range(count):
            guest.tell(TellSea(0, 0x96000010, MMIO + number))
            answer = guest.do(Command.IDS, skip=0)
            report.equal(len(answer.results), 3, f"command {number + 1} is carried out whole")
        report.equal(guest.desks[0].exceptions, count, "an SEA was taken before each of them")


SCENARIOS = (
    ("64 in a row", in_a_row),
    ("16 at once", at_once),
    ("Two vCPUs", two_vcpus),
    ("SDEI", by_sdei),
    ("The VMM's own memory", own_memory),
    ("In the middle of an access", in_flight),
)
