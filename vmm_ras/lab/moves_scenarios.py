"""What is pending when the tiny guest leaves one host, and what becomes of it on another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vmm_ras import arm64
from vmm_ras.effects import Acked, Decided, Effect, Posted
from vmm_ras.errors import Poisoned
from vmm_ras.events import TellSerror
from vmm_ras.io.holes import Way
from vmm_ras.io.kvm.moving import Arriving, Leaving
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.kvm.one_reg import CORE
from vmm_ras.lab.moves_guest import MovingGuest
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_desk import RECORD, SPSR, Command
from vmm_ras.lab.tiny_guest import PAGES, SECONDS
from vmm_ras.lab.tiny_serror import AET_ORDER, SERROR
from vmm_ras.memory import UNREPORTED
from vmm_ras.sdei_table import EVENT_ENABLE, EVENT_REGISTER, PE_UNMASK
from vmm_ras.snapshot import pending

PAGE = 4096
FIRST = PAGES + 16 * PAGE
SECOND, GOOD = FIRST + PAGE, FIRST + 2 * PAGE
DATA_ABORT, FETCH_ABORT = 0x96000010, 0x86000010
POISON_SINCE = 6, 6
"""Linux that has UFFDIO_POISON."""
Before = Callable[[Report, MovingGuest], Leaving]
After = Callable[[Report, MovingGuest, Arriving], None]


def _of_vcpu(guest: MovingGuest, arriving: Arriving, vcpu: int = 0) -> list[str]:
    """What is owed to a vCPU, in words."""
    assert arriving.arrival is not None
    found = pending(guest.core, arriving.arrival.vcpus)["vcpus"]
    return [thing["owed"] for entry in found if entry["vcpu"] == vcpu for thing in entry["owed"]]


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {SECONDS:.0f} s")
        time.sleep(0.01)


def _posted(gpa: int) -> Callable[[list[Effect]], bool]:
    return lambda seen: any(isinstance(e, Posted) and (gpa, PAGE) in e.pages for e in seen)


def _touched(report: Report, guest: MovingGuest, gpa: int, told: str = "a record of it") -> None:
    """Lost memory is touched: that is told, and nothing is read."""
    answer = guest.do(Command.LOAD, gpa + 8)
    report.equal([(t.esr, t.far) for t in answer.taken], [(DATA_ABORT, gpa + 8)], f"{gpa:#x} is touched: an SEA")
    report.equal(answer.records, (gpa,), f"with {told}", f"{gpa:#x}")


# -- masked SErrors ------------------------------------------------------------------------


def serror_before(report: Report, guest: MovingGuest) -> Leaving:
    """One is pending and masked, two wait behind it."""
    guest.do(Command.MASK)
    for iss in AET_ORDER:
        guest.tell(TellSerror(0, iss))
    leaving = guest.leave()
    report.equal(guest.vm.vcpus[0].events().serror, AET_ORDER[0], "an SError is pending and masked")
    return leaving


def serror_after(report: Report, guest: MovingGuest, arriving: Arriving) -> None:
    """All three are taken, in their order."""
    report.check("serror" in _of_vcpu(guest, arriving), "the snapshot says that it is owed")
    report.equal(guest.vm.vcpus[0].events().serror, AET_ORDER[0], "it is pending here", f"{AET_ORDER[0]:#x}")
    arriving.start(guest.guest)
    report.equal(guest.do(Command.IDS).results[2], arm64.ISR_A, "the guest sees it: ISR_EL1.A")
    taken = list(guest.do(Command.UNMASK, skip=0).taken)
    for _ in range(100):
        if len(taken) >= len(AET_ORDER):
            break
        taken += guest.do(Command.IDS, skip=0).taken
    expected = [arm64.EC_SERROR << arm64.ESR_EC_SHIFT | arm64.ESR_IL | iss for iss in AET_ORDER]
    report.equal([t.esr for t in taken], expected, "unmasked, it is taken, and those that waited behind it",
                 ", ".join(f"{t.esr:#x}" for t in taken))  # fmt: skip
    report.equal({t.vector % 4 for t in taken}, {SERROR % 4}, "by the SError vector")


# -- a block that is not acknowledged ---------------------------------------------------------


def block_before(report: Report, guest: MovingGuest) -> Leaving:
    """One page stands in the polled source's block, another one waits for its turn."""
    for page in (FIRST, SECOND, GOOD):
        guest.do(Command.STORE, page)
    guest.lose(FIRST)
    guest.wait_for(_posted(FIRST), "the first page is posted")
    guest.lose(SECOND)
    guest.wait_for(lambda seen: any(isinstance(e, Decided) and e.gpa == SECOND for e in seen), "the second is known")
    report.equal(guest.core.poison.counts[UNREPORTED], 1, "one page is posted, another one waits")
    return guest.leave()


def block_after(report: Report, guest: MovingGuest, arriving: Arriving) -> None:
    """The guest acknowledges here, and is told the other one."""
    owed = pending(guest.core)
    report.equal([s["pages"] for s in owed["sources"]], [[[FIRST, PAGE]]], "the snapshot says what is not acknowledged")
    arriving.start(guest.guest)
    report.equal(guest.poll(), (FIRST,), "the guest finds the block in its memory, and acknowledges", f"{FIRST:#x}")
    guest.settled(1)
    guest.wait_for(_posted(SECOND), "the page that waited is posted")
    report.equal(guest.poll(), (SECOND,), "then it is told the page that waited", f"{SECOND:#x}")
    guest.settled(2)
    report.check(not pending(guest.core)["sources"], "nothing is owed any more")
    report.equal(guest.do(Command.LOAD, GOOD).results, (GOOD,), "memory beside the lost pages came whole")
    _touched(report, guest, FIRST)
    _touched(report, guest, SECOND)


# -- a handler that runs ---------------------------------------------------------------------


def sdei_before(report: Report, guest: MovingGuest) -> Leaving:
    """The handler reads its record, and has neither acknowledged it nor completed the event."""
    event = guest.source("sdei").vector
    calls = ((EVENT_REGISTER, event, guest.symbol(3), 0, 0, 0), (EVENT_ENABLE, event), (PE_UNMASK,))
    report.equal([guest.do(Command.HVC, *call).results[0] for call in calls], [0, 0, 0], "the event is registered")
    for page in (FIRST, SECOND):
        guest.do(Command.STORE, page)
    guest.moving[0].stop_at = RECORD
    guest.begin(Command.SPIN, PAGES, skip=0)
    guest.lose(FIRST)
    guest.reached()
    leaving = guest.leave()
    report.equal(len(guest.core.sdei.state.contexts[0]), 1, "the handler runs")
    return leaving


def sdei_after(report: Report, guest: MovingGuest, arriving: Arriving) -> None:
    """It acknowledges and completes, what it had interrupted goes on, and the event comes again."""
    report.check("sdei completion" in _of_vcpu(guest, arriving), "the snapshot says that its completion is owed")
    arriving.start(guest.guest)
    contexts = guest.core.sdei.state.contexts
    _until(lambda: not contexts[0], "the handler completes")
    guest.settled(1)
    report.equal([e.pages for e in guest.seen if isinstance(e, Acked)], [((FIRST, PAGE),)],
                 "the handler completes; its record counts as acknowledged")  # fmt: skip
    guest.ram.write(PAGES, b"\1")
    answer = guest.finish()
    report.equal(answer.results[-1:], (1,), "what it had interrupted goes on")
    event = guest.source("sdei").vector
    report.equal([gpa for gpa in answer.records if gpa != event], [FIRST], "its record was read on the host before")
    report.equal(answer.taken, (), "without any exception")
    guest.ram.write(PAGES, bytes(8))
    guest.begin(Command.SPIN, PAGES, skip=0)
    guest.lose(SECOND)
    posted = guest.settled(2)[-1]
    report.equal((posted.delivery, posted.pages), ("sdei", ((SECOND, PAGE),)), "a page lost here is told by the event")
    guest.ram.write(PAGES, b"\1")
    report.equal(guest.finish().records[:1], (SECOND,), "to the handler that was registered there", f"{SECOND:#x}")


# -- a poisoned page ----------------------------------------------------------------------


def poison_before(report: Report, guest: MovingGuest) -> Leaving:
    """The guest was told of it, and may use it again."""
    for page in (FIRST, SECOND):
        guest.do(Command.STORE, page)
    guest.lose(FIRST)
    _touched(report, guest, FIRST)
    guest.settled(1)
    return guest.leave()


def _expected(wanted: Way) -> Way:
    release = tuple(int(number) for number in os.uname().release.split(".")[:2])
    return Way.UNMAPPED if wanted is Way.USERFAULTFD and release < POISON_SINCE else wanted


def poison_after(wanted: Way, report: Report, guest: MovingGuest, arriving: Arriving) -> None:
    """It is a hole here too, until it is replaced."""
    way = arriving.ways[FIRST, PAGE]
    report.equal(list(arriving.ways), [(FIRST, PAGE)], "one hole is made again", way.value)
    report.equal(
        way, _expected(wanted), f"it is made by {wanted.value}, or without mapping where the host cannot", way.value
    )
    for call in (lambda: guest.ram.read(FIRST, 8), lambda: guest.ram.write(FIRST + PAGE - 8, bytes(16))):
        try:
            call()
            raised = 0
        except Poisoned as error:
            raised = error.gpa & -PAGE
        report.equal(raised, FIRST, "a call of the VMM is refused there")
    arriving.start(guest.guest)
    _touched(report, guest, FIRST)
    answer = guest.do(Command.STORE, FIRST)
    report.equal([(t.esr & ~(1 << 6), t.far) for t in answer.taken], [(DATA_ABORT, FIRST)], "and for a store")
    back = lambda vcpu: vcpu.get(CORE["X30"]) - FIRST - 0x40  # noqa: E731
    answer = guest.do(Command.JUMP, FIRST + 0x40, skip=back)
    report.equal([t.esr for t in answer.taken], [FETCH_ABORT], "a fetch is an instruction abort")
    report.equal(answer.records, () if way is Way.UNMAPPED else (FIRST,),
                 "which KVM makes itself, without a record" if way is Way.UNMAPPED else "with a record")  # fmt: skip
    report.equal(guest.do(Command.LOAD, SECOND).results, (SECOND,), "its neighbour is good")
    report.equal(guest.guest.replace_lost(), [(FIRST, PAGE)], "a reset replaces it, and nothing else")
    report.equal(guest.core.poison.counts[1:], [0, 0, 0], "the core knows no lost page any more")
    report.equal(guest.do(Command.LOAD, FIRST).results, (0,), "then it reads as zeroes")
    report.equal(guest.do(Command.STORE, FIRST).taken, (), "and is written")
    report.equal(guest.do(Command.LOAD, FIRST).results, (FIRST,), "and keeps that", f"{FIRST:#x}")
    guest.lose(FIRST)
    _touched(report, guest, FIRST, "a record of it: lost anew, it is told anew")


# -- a vCPU that is held --------------------------------------------------------------------


def held_before(report: Report, guest: MovingGuest) -> Leaving:
    """One vCPU has taken its SEA and not read the record; another one has consumed poison, and waits for its turn."""
    for page in (FIRST, SECOND):
        guest.do(Command.STORE, page)
        guest.lose(page)
    guest.moving[0].stop_at = SPSR
    guest.begin(Command.LOAD, FIRST + 8, vcpu=0)
    guest.reached()
    guest.begin(Command.LOAD, SECOND + 16, vcpu=1)

    def held() -> bool:
        with guest.guest.lock:
            abort = guest.core.aborts.get(1)
            return abort is not None and abort.state is not None

    _until(held, "vCPU 1 is held")
    return guest.leave()


def held_after(report: Report, guest: MovingGuest, arriving: Arriving) -> None:
    """The first reads its record here, and then the other one takes its SEA."""
    assert arriving.arrival is not None
    report.equal(arriving.arrival.held, (1,), "vCPU 1 is held here too")
    report.check("consumed error" in _of_vcpu(guest, arriving, 1), "the snapshot says what it is owed")
    arriving.start(guest.guest)
    answer = guest.finish(0)
    report.equal(answer.records, (FIRST,), "vCPU 0 goes on in its handler, and finds the record", f"{FIRST:#x}")
    answer = guest.finish(1)
    report.equal([(t.esr, t.far) for t in answer.taken], [(DATA_ABORT, SECOND + 16)],
                 "vCPU 1 takes the SEA that it was owed, with its address", f"FAR {SECOND + 16:#x}")  # fmt: skip
    report.equal(answer.records, (SECOND,), "and finds its record", f"{SECOND:#x}")
    guest.settled(2)


# -- what the VMM has not heard -----------------------------------------------------------------


def unheard_before(report: Report, guest: MovingGuest) -> Leaving:
    """A page is lost, and its signal has not been read when the guest is frozen."""
    guest.do(Command.STORE, FIRST)
    with guest.guest.lock:
        guest.lose(FIRST)
        guest.guest.frozen = True
    leaving = guest.leave()
    report.equal(leaving.left_out, (), "the core knows of no lost page")
    return leaving


def unheard_after(report: Report, guest: MovingGuest, arriving: Arriving) -> None:
    """It was found when its contents were to be sent."""
    report.equal(arriving.untold, [(FIRST, PAGE)], "the stream says that it is lost", f"{FIRST:#x}")
    arriving.start(guest.guest)
    guest.wait_for(_posted(FIRST), "it is posted")
    report.equal(guest.poll(), (FIRST,), "the guest is told of it here", f"{FIRST:#x}")
    _touched(report, guest, FIRST)


class Scenario(NamedTuple):
    """One guest that moves."""

    name: str
    before: Before
    after: After
    vcpus: int = 1
    preset: str = "all"
    found: tuple[str, ...] = ("polled",)
    ways: tuple[Way, ...] = tuple(Way)
    """How holes may be made where it arrives."""
    calls: bool = False
    """Whether the host must forward the guest's calls."""


SCENARIOS = (
    Scenario("Masked SErrors", serror_before, serror_after),
    Scenario("Block not acknowledged", block_before, block_after),
    Scenario("SDEI handler", sdei_before, sdei_after, found=("sdei", "polled"), calls=True),
    *(
        Scenario(
            f"Poisoned page, {way.value}",
            poison_before,
            partial(poison_after, way),
            preset="qemu-7.2",
            ways=(way, Way.UNMAPPED),
        )
        for way in Way
    ),
    Scenario("Held vCPU", held_before, held_after, vcpus=2, preset="qemu-7.2"),
    Scenario("Page nobody has heard of", unheard_before, unheard_after),
)
