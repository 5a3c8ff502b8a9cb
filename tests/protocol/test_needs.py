"""What users of today's VMMs ask for and do not get, a test each; and poison where it hurts most.

Each test says what QEMU (11.1, arm virt) does, as its sources and measurements tell, and shows what happens here.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import typer.main

from acpi.ghes import StatusBlock
from acpi.presets import PRESETS
from tests.machine import GPA, HVA, Machine, of
from vmm_ras.cli import app
from vmm_ras.effects import (
    Acked,
    Escalate,
    Hold,
    InjectSea,
    Posted,
    Release,
    Report,
    Stop,
    TakenBack,
    Undelivered,
)
from vmm_ras.errors import Poisoned
from vmm_ras.events import Code, GuestAbort, HostSignal, Proceed
from vmm_ras.guests import state
from vmm_ras.memory import ACKED, POSTED, STATES, UNREPORTED
from vmm_ras.qmp.events import event_of
from vmm_ras.replay import TABLES, Replay
from vmm_ras.snapshot import read_snapshot
from vmm_ras.traces import open_trace

FOUND = '[[rule]]\nname = "found"\ndeliver = ["sdei", "gsiv", "polled"]\n'
CONSUMED = '[[rule]]\nname = "consumed"\nwhen = { code = "AR" }\ndeliver = ["sea"]\n'


def offlined(m: Machine, page: int) -> bool:
    return (GPA >> 12) + page in m.os.offlined


def test_need_1_what_was_found_reaches_the_guest() -> None:
    """QEMU: the page is listed, the guest is told nothing."""
    m = Machine()

    effects = m.ao(3)

    assert of(effects, Posted)[0].delivery == "sdei"
    assert offlined(m, 3)
    assert m.state(3) == ACKED


def test_need_2_sixteen_errors_at_once_and_a_slow_guest() -> None:
    """QEMU: exit(1) at the second one ("OSPM does not acknowledge previous error")."""
    m = Machine()
    m.os.ack_delay[None] = 0.05

    effects = [e for page in range(16) for e in m.ar(page, vcpu=page % 4)]  # a 64 KiB host page under 4 KiB ones
    effects += m.wait(10)

    assert {m.state(page) for page in range(16)} == {ACKED}
    assert all(offlined(m, page) for page in range(16))
    assert of(effects, Escalate) == []
    assert m.core.aborts == {}


def test_need_3_a_large_page_takes_nobody_down() -> None:
    """QEMU: si_addr_lsb is not looked at; the guest learns of one page and trips over the other 511 one by one."""
    m = Machine()

    effects = m.ar(0x200 + 7, lsb=21) + m.wait(5)

    posted = of(effects, Posted)
    assert posted[0].pages[0] == (GPA + 0x207000, 4096), "the page that was used comes first"
    assert sum(len(p.pages) for p in posted) == 512
    assert all(offlined(m, page) for page in range(0x200, 0x400))
    again = m.ar(0x200 + 7, vcpu=1)
    assert of(again, InjectSea)[0].source_id == 0, "a repetition is told again, not swallowed"


def test_need_3_a_guest_that_loops_on_one_page_is_limited() -> None:
    """The guest loops on one error for ever: to limit the rate was proposed, and is a rule here."""
    looping = '[[rule]]\nname = "looping"\nwhen = { code = "AR", seen_min = 3 }\naction = "stop"\n'
    m = Machine(policy="version = 1\n" + looping + CONSUMED + FOUND)

    effects = [e for _ in range(5) for e in m.ar(9)]

    assert len(of(effects, InjectSea)) == 3
    assert of(effects, Escalate)[0].action == "stop"


def test_need_4_a_guest_with_holes_moves_and_they_stay_holes() -> None:
    """QEMU: "Can't migrate this vm with hardware poisoned memory"; zeros in their place would corrupt in silence."""
    m = Machine()
    m.guest.memory.poison(GPA + 0x3000, 0x2000)
    m.ao(3)
    m.ao(4)
    m.os.ack_delay[None] = float("inf")
    m.ao(0x40)

    holes = [(first - (GPA >> 12), count, STATES[state]) for first, count, state, _ in m.core.poison.runs()]

    assert holes == [(3, 2, "acked"), (0x40, 1, "posted")]

    data = state.save(m.core, m.guest, m.now, sources=m.image.sources)
    core, guest, arrival = state.resume(read_snapshot(data, state.PARTS))

    assert arrival.holes == ((GPA + 0x3000, 0x2000), (GPA + 0x40000, 0x1000))
    assert list(core.poison.runs()) == list(m.core.poison.runs())
    for page in (3, 4, 0x40):
        with pytest.raises(Poisoned):
            guest.memory.read(GPA + (page << 12), 1)


def test_need_5_the_policy_is_the_vmms() -> None:
    """QEMU: none.  Here: the host's own syndrome is relayed, thresholds and the customer's notice are rules."""
    text = (
        'version = 1\n[[rule]]\nname = "worn-out"\nwhen = { lost_min = 2 }\naction = "migrate"\nreport = "also"\n'
        '[[rule]]\nname = "consumed"\nwhen = { code = "AR" }\ndeliver = ["sea"]\nsea = { relay = true }\n'
        'report = "also"\n' + FOUND
    )
    m = Machine(policy=text)
    host = 0x24 << 26 | 1 << 25 | 3 << 11 | 0x10  # data abort, SET 3: restartable

    effects = m.receive(GuestAbort(0, host, 0xFFFF0000, GPA + 0x1000)) + m.ao(2) + m.ao(3)

    assert of(effects, InjectSea)[0].esr >> 11 & 3 == 3
    assert [r.gpa for r in of(effects, Report)] == [GPA + 0x1000, GPA + 0x3000]
    assert [e.action for e in of(effects, Escalate)] == ["migrate"]


@pytest.mark.parametrize("way", ["sdei", "gsiv", "gpio", "polled", "sei"])
@pytest.mark.parametrize("first", ["guest", "host"])
def test_need_6_guest_first_or_host_first_over_every_notification(way: str, first: str) -> None:
    """QEMU: no choice."""
    report = "also" if first == "guest" else "first"
    text = f'version = 1\n{CONSUMED}[[rule]]\nname = "found"\ndeliver = ["{way}"]\nreport = "{report}"\n'
    m = Machine(guest="generic", policy=text)

    told = of(m.ao(5), Posted)
    after = of(m.receive(Proceed("found")), Posted)

    assert [e.delivery for e in told] == ([way] if first == "guest" else [])
    assert [e.delivery for e in after] == ([] if first == "guest" else [way])
    m.wait(2)
    assert m.state(5) == ACKED


@pytest.mark.parametrize("guest", ["linux", "generic"])
@pytest.mark.parametrize("first", ["guest", "host"])
def test_need_6_a_consumed_error_too(guest: str, first: str) -> None:
    """The vCPU is kept out of the guest until the host has spoken, or its time is over."""
    report = "also" if first == "guest" else "first"
    for waits in (False, True):
        m = Machine(guest=guest, policy=f'version = 1\n{CONSUMED}report = "{report}"\nreport_ms = 300\n{FOUND}')

        told = of(m.ar(5, vcpu=2), InjectSea)
        after = of(m.wait(0.31) if waits else m.receive(Proceed("consumed")), InjectSea)

        assert [e.vcpu for e in told] == ([2] if first == "guest" else [])
        assert [e.vcpu for e in after] == ([] if first == "guest" else [2])
        assert m.state(5) == ACKED
        assert offlined(m, 5)


def test_need_7_an_ao_that_was_synchronous() -> None:
    """Hosts were seen to send AO for synchronous errors; QEMU then tells an arm guest nothing, and it goes on."""
    sync = '[[rule]]\nname = "sync"\nwhen = { code = "AO", thread = "vcpu" }\naction = "consumed"\n'
    m = Machine(policy=f"version = 1\n{sync}{CONSUMED}{FOUND}")

    effects = m.receive(HostSignal(Code.AO, HVA + 0x7000, 12, 101))

    assert of(effects, Stop)[0].vcpu == 1
    assert of(effects, InjectSea)[0].esr == 0x92000410
    assert offlined(m, 7)


def test_need_8_no_hardware_is_needed() -> None:
    """Others need a host that can inject.  Here a trace of real signals is enough."""
    run = Replay(PRESETS["default"].place(TABLES))

    with open_trace("fixtures/traces/qemu-like.strace") as entries:
        rows = list(run.run(entries))

    assert rows
    assert {r.outcome for r in rows} <= {"offlined", "known", "own-memory"}


def test_need_9_json_everywhere() -> None:
    """libcper has JSON of records, rasdaemon since 2026.  Here every command prints it."""
    group = typer.main.get_command(app)

    def commands(command: Any, path: str) -> list[tuple[str, Any]]:
        if hasattr(command, "commands"):
            return [found for name, sub in command.commands.items() for found in commands(sub, f"{path} {name}")]
        return [(path, command)]

    without = [
        path for path, command in commands(group, "vmm-ras") if not any("--json" in p.opts for p in command.params)
    ]

    assert without == []


@pytest.mark.parametrize("data", [b"", b"\0" * 19, b"\xff" * 400, b"HEST" + b"\xff" * 60])
def test_need_10_decoders_survive_bad_input(data: bytes) -> None:
    """libcper spins or aborts on some.  The fuzz tests say this of every decoder; here is one of each kind."""
    from acpi.hest import Hest
    from cper.record import Record
    from cper.wire import WireError

    for decode in (StatusBlock.decode, Hest.parse, Record.decode):
        with pytest.raises(WireError) as caught:
            decode(data)
        assert "\n" not in str(caught.value)


def test_need_11_the_orchestrator_gets_the_address() -> None:
    """QEMU: no MEMORY_FAILURE on arm, and none with an address anywhere."""
    m = Machine(policy=f'version = 1\n{CONSUMED}report = "also"\n{FOUND}report = "also"\n')

    reports = of(m.ar(1) + m.ao(0x20, lsb=16), Report)

    assert [(r.code, r.gpa, r.size) for r in reports] == [
        (Code.AR, GPA + 0x1000, 4096),
        (Code.AO, GPA + 0x20000, 65536),
    ]
    assert orjson.dumps(reports[0]._asdict())

    events = [e for e in map(event_of, m.ar(2) + m.ao(0x30)) if e is not None and e[0] == "MEMORY_FAILURE"]
    assert [(data["gpa"], data["size"], data["flags"]["action-required"]) for _, data in events] == [
        (GPA + 0x2000, 4096, True),
        (GPA + 0x30000, 4096, False),
    ]


# -- poison where it hurts -----------------------------------------------------------------------


def test_poison_under_the_vectors() -> None:
    """The SEA is taken, the vector cannot be fetched: the host reports the vectors' page, again and again."""
    m = Machine()
    m.os.run = lambda index, now: None  # type: ignore[method-assign]  # the vCPU stands at its vector for ever

    effects = m.ar(1)
    assert m.guest.vcpus[0].el == 1
    for _ in range(50):
        effects += m.ar(0x100)
        effects += m.wait(0.1)
    effects += m.wait(10)

    assert m.state(1) == POSTED, "the record was not read, and nothing overwrote it"
    assert {e.source_id for e in of(effects, Escalate)} >= {0}
    assert len([e for e in of(effects, InjectSea) if e.source_id is not None]) == 1
    assert m.core.aborts == {}, "it is never held for ever"
    assert m.state(0x100) in {UNREPORTED, POSTED}


def test_poison_under_an_sdei_stack() -> None:
    """The handler is entered and cannot go on; it consumes poison itself, at EL1."""
    m = Machine()
    run = m.os.run
    m.os.run = lambda index, now: None if m.guest.vcpus[index].x[0] == 804 else run(index, now)  # type: ignore[method-assign]

    effects = m.ao(1)
    stuck = of(effects, Posted)[0].vcpu
    assert m.core.sdei.running(stuck) == (804,)
    effects += m.ar(0x100, vcpu=stuck) + m.wait(10)

    assert m.state(1) == POSTED
    assert of(effects, Escalate)[0].source_id == of(effects, Posted)[0].source_id
    assert m.state(0x100) in {UNREPORTED, POSTED}, "it waits, and is not forgotten"
    other = next(v for v in range(4) if v != stuck)
    assert offlined(m, 2) or of(m.ar(2, vcpu=other), InjectSea), "the other vCPUs are told as ever"


@pytest.mark.parametrize("what", ["hest", "ack", "block", "register"])
def test_poison_under_what_the_firmware_gave(what: str) -> None:
    m = Machine()
    placed = m.core.ways["sea"][0].placed
    hest = next(gpa for name, gpa, _ in m.image.regions if name == "hest")
    where = {"hest": hest, "ack": placed.ack, "block": placed.block, "register": placed.register}[what]
    assert where is not None
    m.guest.memory.poison(where, 8)

    effects = m.ar(1) + m.ao(2) + m.wait(10)

    told = [page for page in (1, 2) if m.state(page) == ACKED]
    assert told or of(effects, Escalate) or of(effects, TakenBack) or of(effects, Undelivered)
    assert {m.state(1), m.state(2)} <= {ACKED, POSTED, UNREPORTED}, "neither is lost"
    assert m.core.aborts == {}, "no vCPU is kept"
    if what == "hest":
        assert told == [1, 2], "the guest read it at boot"


@pytest.mark.parametrize("guest", ["linux", "linux-6.1", "linux-6.12", "generic-sei", "no-ras"])
def test_a_kernels_own_error_and_then_a_processs(guest: str) -> None:
    """Linux never looks for a record at EL1: the next SEA must find its own record, not a stale one."""
    m = Machine(guest=guest)
    m.guest.vcpus[0].run_at(1)
    m.ar(1)
    m.guest.vcpus[0].run_at(0)

    effects = m.ar(2)

    (posted,) = (e for e in of(effects, Posted) if e.delivery == "sea")
    (entry,) = StatusBlock.decode(posted.block).entries
    assert entry.section().physical_address == GPA + 0x2000
    assert m.did()[-1] == (0, "offlined")
    assert offlined(m, 2)


def test_two_vcpus_consume_at_once() -> None:
    """Linux walks all SEA sources with every SEA: one SEA is in flight, the other vCPU waits its turn."""
    m = Machine()
    m.os.ack_delay[0] = 0.3
    first = m.ar(1, vcpu=0)

    second = m.ar(2, vcpu=1)
    later = m.wait(3)

    assert len(of(first, InjectSea)) == 1
    assert of(second, InjectSea) == []
    assert of(second, Hold)[0].vcpu == 1
    assert [e.vcpu for e in of(later, InjectSea)] == [1]
    assert 1 in {e.vcpu for e in of(later, Release)}
    assert len(of(later, Acked)) == 2
    assert offlined(m, 1)
    assert offlined(m, 2)


@pytest.mark.parametrize(("guest", "waits"), [("linux", True), ("generic", False)])
def test_a_second_sea_source_is_no_second_way_for_a_guest_that_walks_them_all(guest: str, waits: bool) -> None:
    """Linux may read the other vCPU's record with this one's SEA; a guest whose vCPUs have a source each does not."""
    m = Machine("conformance", guest)
    m.os.ack_delay[None] = 0.3
    assert len(m.core.ways["sea"]) == 2
    first, second = m.ar(1, vcpu=0), m.ar(2, vcpu=1)

    later = m.wait(3)

    assert len(of(first, InjectSea)) == 1
    assert len(of(second, InjectSea)) == (not waits)
    assert len(of(second, Hold)) == waits
    assert [e.vcpu for e in of([*first, *second, *later], InjectSea)] == [0, 1]
    assert {e.pages for e in of(later, Acked)} == {((GPA + 0x1000, 4096),), ((GPA + 0x2000, 4096),)}
    assert m.os.signalled == 2
