"""What a policy can ask for, and what then happens: storms, batches, busy sources, large pages, host first, hooks."""

from __future__ import annotations

from typing import Any

import pytest

from acpi.ghes import StatusBlock
from cper.memory import PlatformMemory
from tests.machine import GPA, HVA, Machine, of
from vmm_ras import history
from vmm_ras.deciding import Hook, Lost, View
from vmm_ras.delivery import Ruling
from vmm_ras.effects import (
    Acked,
    Decided,
    Escalate,
    Hold,
    HookFailed,
    InjectSea,
    Posted,
    Release,
    Report,
    Stop,
)
from vmm_ras.events import Code, Failed, GuestAbort, HostSignal, MemoryFault, Proceed, Replaced, Stopped
from vmm_ras.guests import state
from vmm_ras.guests.model import MAX_ESCALATED
from vmm_ras.memory import ACKED, HEALTHY, POSTED, UNREPORTED
from vmm_ras.snapshot import read_snapshot
from vmm_ras.source import ErrorSource

BOTH = '[[rule]]\nname = "consumed"\nwhen = { code = "AR" }\ndeliver = ["sea"]\n'
FOUND = '[[rule]]\nname = "found"\ndeliver = ["polled"]\n'


def policy(*rules: str) -> str:
    return "version = 1\n" + "\n".join(rules)


def rule(name: str, when: str, rest: str) -> str:
    return f'[[rule]]\nname = "{name}"\nwhen = {{ {when} }}\n{rest}\n'


def decided(effects: list) -> list[str]:
    return [e.rule for e in of(effects, Decided)]


def sections(block: bytes) -> list[PlatformMemory]:
    return [e.section() for e in StatusBlock.decode(block).entries]


# -- history -----------------------------------------------------------------------------------


def test_a_page_that_comes_again_is_decided_by_another_rule() -> None:
    again = rule("again", 'code = "AR", seen_min = 2', 'action = "migrate"')
    m = Machine(policy=policy(again, BOTH, FOUND))

    assert [decided(m.ar(7))[0] for _ in range(2)] == ["consumed", "consumed"]
    effects = m.ar(7)

    assert decided(effects)[0] == "again"
    assert [e.action for e in of(effects, Escalate)] == ["migrate"]
    assert decided(m.ar(8, vcpu=1))[0] == "consumed", "another page begins anew"


def test_a_storm_is_a_rate() -> None:
    storm = rule("storm", 'code = "AO", rate = { events = 3, seconds = 10 }', 'action = "stop"')
    m = Machine(policy=policy(storm, BOTH, FOUND))

    rules = []
    for page in range(4):
        rules += decided(m.ao(page))
        m.wait(4)
    m.wait(60)
    rules += decided(m.ao(9))

    assert rules == ["found", "found", "storm", "storm", "found"]


def test_what_the_guest_lost_in_all_is_a_threshold() -> None:
    m = Machine(policy=policy(rule("enough", "lost_min = 2", 'action = "migrate"'), BOTH, FOUND))

    assert decided(m.ao(1) + m.ao(2) + m.ao(3)) == ["found", "found", "enough"]


@pytest.mark.parametrize("action", ["stop", "reset", "migrate"])
def test_what_the_orchestrator_is_asked_about_is_not_forgotten(action: str) -> None:
    """It may move the guest: its holes go with it.  And the guest may use them before."""
    text = policy(BOTH, rule("ask", 'code = "AO"', f'action = "{action}"'))
    m = Machine(policy=text)

    effects = m.ao(1) + m.ao(0x10, lsb=16)

    assert [e.action for e in of(effects, Escalate)] == [action] * 2
    assert of(effects + m.wait(5), Posted) == []
    assert [run[:3] for run in m.core.poison.runs()] == [(0x40001, 1, UNREPORTED), (0x40010, 16, UNREPORTED)]
    m.ar(0x13)
    assert (m.state(0x13), m.state(0x14)) == (ACKED, UNREPORTED)


def test_what_was_asked_for_a_thousand_times_is_not_kept_a_thousand_times() -> None:
    m = Machine(policy=policy(BOTH, rule("ask", 'code = "AO"', 'action = "migrate"')))
    asked = [e for page in range(1000) for e in of(m.ao(page % 7), Escalate)]

    assert list(m.guest.escalated) == asked[-MAX_ESCALATED:]
    data = state.save(m.core, m.guest, m.now, sources=m.image.sources)
    assert state.resume(read_snapshot(data, state.PARTS))[1].escalated == m.guest.escalated


def test_what_lies_beside_a_consumed_page_is_not_forgotten_either() -> None:
    kernel = rule("kernel", 'code = "AR", el = 1', 'action = "bare"')
    m = Machine(policy=policy(kernel, BOTH, rule("ask", 'code = "AO"', 'action = "migrate"')))
    m.ar(0x11, lsb=16)
    m.guest.vcpus[0].run_at(1)
    m.ar(0x30)

    assert [m.state(page) for page in (0x10, 0x11, 0x1F, 0x30)] == [UNREPORTED, ACKED, UNREPORTED, UNREPORTED]


def test_a_block_that_is_taken_back_does_not_forget_its_page() -> None:
    """Only an SEA could tell it, and fails: its access is repeated, but the guest may be moved before."""
    m = Machine(policy=policy(BOTH, rule("ask", 'code = "AO"', 'action = "migrate"')))
    m.core.receive(HostSignal(Code.AR, HVA + 0x5000, 12, 100), m.now)
    (sea,) = of(m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now), InjectSea)

    m.drive(m.core.receive(Failed(sea.id, "refused"), m.now))

    assert m.state(5) == UNREPORTED


# -- vCPU and guest ------------------------------------------------------------------------------


def test_the_state_of_the_vcpu_decides() -> None:
    masked = rule("masked", 'code = "AR", masked = true', 'deliver = ["polled"]')
    third = rule("third", 'code = "AR", vcpu = [2, 3]', 'deliver = ["sea"]\nseverity = "fatal"')
    m = Machine(policy=policy(masked, third, BOTH, FOUND))
    m.guest.vcpus[1].mask_serror()

    assert [decided(m.ar(page, vcpu))[0] for page, vcpu in ((1, 0), (2, 1), (3, 2))] == ["consumed", "masked", "third"]


def test_what_the_guest_has_registered_decides() -> None:
    text = policy(
        BOTH,
        rule("by-event", 'code = "AO", open = ["sdei"]', 'deliver = ["sdei"]'),
        rule("else", 'code = "AO", closed = ["sdei"]', 'deliver = ["gsiv"]'),
        FOUND,
    )

    assert decided(Machine(policy=text).ao(1)) == ["by-event"]
    assert decided(Machine(policy=text, sdei=False).ao(1)) == ["else"]


def test_an_ao_that_a_vcpus_thread_got_may_be_taken_for_consumed() -> None:
    synchronous = rule("synchronous", 'code = "AO", thread = "vcpu"', 'action = "consumed"')
    m = Machine(policy=policy(synchronous, BOTH, FOUND))

    effects = m.receive(HostSignal(Code.AO, HVA + 0x5000, 12, 102))

    assert of(effects, Stop)[0].vcpu == 2
    assert of(effects, InjectSea)[0].vcpu == 2
    assert decided(effects) == ["consumed"]
    assert m.did() == [(0, "offlined")]
    assert decided(m.ao(6)) == ["found"], "another thread's is an AO"


def test_a_vcpu_that_is_out_already_cannot_consume_again() -> None:
    synchronous = rule("synchronous", 'code = "AO", thread = "vcpu"', 'action = "consumed"')
    m = Machine(policy=policy(synchronous, BOTH, FOUND))
    m.core.receive(HostSignal(Code.AO, HVA + 0x5000, 12, 102), 0.0)

    effects = m.core.receive(HostSignal(Code.AO, HVA + 0x6000, 12, 102), 0.0)

    assert decided(effects) == ["found"]


# -- sources that are not acknowledged ----------------------------------------------------------


def test_found_pages_gather_into_one_block() -> None:
    m = Machine(policy=policy(BOTH, FOUND + "batch_ms = 500\n"))

    early = m.ao(1) + m.ao(2) + m.wait(0.4) + m.ao(9)
    late = m.wait(0.2)

    assert of(early, Posted) == []
    assert [len(e.pages) for e in of(late, Posted)] == [3]


def test_a_batch_that_fills_a_block_does_not_wait() -> None:
    m = Machine(policy=policy(BOTH, FOUND + "batch_ms = 60000\n"))
    room = m.core.rules[-1].entries

    effects = [e for page in range(room) for e in m.ao(page)]

    assert [len(e.pages) for e in of(effects, Posted)] == [room]


def test_the_next_way_is_taken_while_a_source_is_busy() -> None:
    found = '[[rule]]\nname = "found"\ndeliver = ["sdei", "gsiv"]\n'
    stays, goes = Machine(policy=policy(BOTH, found)), Machine(policy=policy(BOTH, found + 'busy = "next"\n'))
    for m in (stays, goes):
        m.os.ack_delay[None] = float("inf")
        m.ao(1)

    assert of(stays.ao(2), Posted) == []
    assert [e.delivery for e in of(goes.ao(2), Posted)] == ["gsiv"]


def test_a_consumed_error_takes_the_next_way_while_the_sea_source_is_busy() -> None:
    consumed = '[[rule]]\nname = "consumed"\nwhen = { code = "AR" }\ndeliver = ["sea", "gsiv"]\nbusy = "next"\n'
    m = Machine(policy=policy(consumed, FOUND))
    m.os.ack_delay[None] = float("inf")
    m.ar(1)

    effects = m.ar(2, vcpu=1)

    assert of(effects, Hold) == []
    assert [e.delivery for e in of(effects, Posted)] == ["gsiv"]
    assert of(effects, Release)


def test_what_one_source_does_not_get_acknowledged_is_told_through_the_next() -> None:
    found = (
        '[[rule]]\nname = "found"\ndeliver = ["sdei", "gsiv"]\nunacked = { after_ms = 100, tries = 0, then = "next" }\n'
    )
    m = Machine(policy=policy(BOTH, found))
    event = m.core.ways["sdei"][0].placed.source_id
    m.os.ack_delay[event] = float("inf")

    first = m.ao(1)
    second = m.wait(0.2)

    assert [e.delivery for e in of(first + second, Posted)] == ["sdei", "gsiv"]
    assert of(second, Acked)[0].pages == of(first, Posted)[0].pages
    assert m.state(1) == ACKED
    assert of(second, Escalate) == [], "nobody needs to be asked"


def test_without_another_source_the_orchestrator_is_asked() -> None:
    found = '[[rule]]\nname = "found"\ndeliver = ["polled"]\nunacked = { after_ms = 100, tries = 0, then = "next" }\n'
    m = Machine(policy=policy(BOTH, found))
    m.os.polls_stopped = True
    m.ao(1)

    assert [e.action for e in of(m.wait(0.2), Escalate)] == ["report"]
    assert m.state(1) == POSTED


# -- large pages ---------------------------------------------------------------------------------


def test_a_large_page_is_an_entry_for_each_guest_page() -> None:
    m = Machine(policy=policy(BOTH, FOUND))

    posted = of(m.ao(16, lsb=16), Posted)

    assert [gpa for gpa, _ in posted[0].pages] == [GPA + 0x10000 + n * 4096 for n in range(len(posted[0].pages))]


def test_or_one_entry_whose_mask_spans_it() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'large = "mask"\n'))

    effects = m.ao(16, lsb=16) + m.wait(1)

    (posted,) = of(effects, Posted)
    (section,) = sections(posted.block)
    assert (section.physical_address, section.physical_address_mask) == (GPA + 0x10000, (1 << 64) - 0x10000)
    assert {m.state(page) for page in range(16, 32)} == {ACKED}
    assert (m.state(15), m.state(32)) == (HEALTHY, HEALTHY)


def test_a_masked_entry_of_a_consumed_page_names_the_page_that_was_used() -> None:
    m = Machine(policy=policy(BOTH + 'large = "mask"\n', FOUND))

    effects = m.ar(21, lsb=16)

    (posted,) = of(effects, Posted)
    (section,) = sections(posted.block)
    assert (section.physical_address, section.physical_address_mask) == (GPA + 0x15000, (1 << 64) - 0x10000)
    assert {m.state(page) for page in range(16, 32)} == {ACKED}
    assert (GPA >> 12) + 21 in m.os.offlined


def test_a_clipped_range_is_spanned_by_aligned_masks() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'large = "mask"\n'))
    m.ao(17)  # known already: it splits the range
    m.wait(1)

    (posted,) = of(m.ao(16, lsb=15) + m.wait(1), Posted)

    assert [(gpa - GPA >> 12, size >> 12) for gpa, size in posted.pages] == [(16, 1), (18, 2), (20, 4)]


def test_or_each_page_is_told_when_it_is_touched() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'large = "touch"\n'))

    effects = m.ao(16, lsb=16) + m.wait(5)

    assert of(effects, Posted) == []
    assert [e.what for e in of(effects, Decided)] == ["on-touch"]
    assert {m.state(page) for page in range(16, 32)} == {UNREPORTED}, "nothing is forgotten"
    touched = m.ar(20)
    assert [e.delivery for e in of(touched, Posted)] == ["sea"]
    assert (m.state(20), m.state(21)) == (ACKED, UNREPORTED)


def test_the_rest_of_a_consumed_large_page_may_wait_to_be_touched() -> None:
    m = Machine(policy=policy(BOTH + 'large = "touch"\n', FOUND))

    (posted,) = of(m.ar(16, lsb=16) + m.wait(5), Posted)

    assert len(posted.pages) == 1
    assert {m.state(page) for page in range(17, 32)} == {UNREPORTED}


# -- who hears first -----------------------------------------------------------------------------


def test_guest_first_and_the_orchestrator_hears_too() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'report = "also"\n'))

    effects = m.ao(3)

    (report,) = of(effects, Report)
    assert (report.gpa, report.size, report.rule, report.until) == (GPA + 0x3000, 4096, "found", None)
    assert of(effects, Posted)


def test_host_first_waits_for_the_orchestrators_word() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'report = "first"\nreport_ms = 2000\n'))

    before = m.ao(3) + m.wait(1)
    after = m.receive(Proceed("found"))

    assert of(before, Report)[0].until == pytest.approx(3.0)
    assert of(before, Posted) == []
    assert of(after, Posted)


def test_host_first_does_not_wait_for_ever() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'report = "first"\nreport_ms = 2000\n'))
    m.ao(3)

    assert of(m.wait(2.1), Posted)


@pytest.mark.parametrize("answers", [True, False])
def test_a_vcpu_that_consumed_is_held_until_the_host_has_spoken(answers: bool) -> None:
    m = Machine(policy=policy(BOTH + 'report = "first"\nreport_ms = 500\n', FOUND))

    first = m.ar(3)
    then = m.receive(Proceed("consumed")) if answers else m.wait(0.6)

    assert [e.until for e in of(first, Hold)] == [1.5]
    assert of(first, InjectSea) == []
    assert of(then, InjectSea)[0].source_id == 0
    assert m.state(3) == ACKED


def test_memory_that_was_replaced_need_not_be_told() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'report = "first"\n'))
    m.ao(3)
    m.ao(4)

    m.receive(Replaced(GPA + 0x3000, 4096))
    (posted,) = of(m.wait(2), Posted)

    assert m.state(3) == HEALTHY
    assert posted.pages == ((GPA + 0x4000, 4096),)


# -- a hook --------------------------------------------------------------------------------------


def hooked(decide: Any) -> Machine:
    quiet = rule("quiet", 'code = "AO", gpa_to = 1', 'action = "ignore"')
    return Machine(policy=policy(quiet, BOTH, FOUND), hook=Hook(decide, "0" * 64))


def test_a_hook_names_the_rule() -> None:
    seen: list[tuple[Lost, View]] = []

    def decide(lost: Lost, view: View) -> str | None:
        seen.append((lost, view))
        return "quiet" if lost.code == Code.AO and lost.gpa == GPA + 0x2000 else None

    m = hooked(decide)

    assert decided(m.ao(1) + m.ao(2)) == ["found", "quiet"]
    assert seen[0][0] == Lost(Code.AO, GPA + 0x1000, 12, "other")
    assert seen[1][1].lost == 1
    assert "sdei" in seen[1][1].open


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("nobody", "the hook named 'nobody', which is no rule"),
        (7, "the hook named 7, which is no rule"),
        ([], "the hook named [], which is no rule"),
        ("x" * 1_000_000, "the hook named 'xxxxxxxxxxxx...xxxxxxxxxxxxx', which is no rule"),
        (ZeroDivisionError("oh\nno"), "the hook raised ZeroDivisionError: oh"),
    ],
)
def test_a_hook_that_fails_is_told_and_the_rules_decide(answer: object, reason: str) -> None:
    def decide(lost: Lost, view: View) -> str | None:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    effects = hooked(decide).ao(1)

    assert [e.reason for e in of(effects, HookFailed)] == [reason]
    assert decided(effects) == ["found"]


def test_an_answer_that_cannot_be_shown_is_none() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise ValueError

    effects = hooked(lambda lost, view: Silent()).ao(1)

    assert of(effects, HookFailed)[0].reason.startswith("the hook named <Silent instance at ")
    assert decided(effects) == ["found"]


# -- found by walking at random (make prove) -----------------------------------------------------


def test_a_held_vcpu_goes_on_when_its_page_was_replaced() -> None:
    m = Machine(policy=policy(BOTH + 'report = "first"\nreport_ms = 500\n', FOUND))
    m.ar(3)

    effects = m.receive(Replaced(GPA + 0x3000, 4096))

    assert [type(e) for e in effects] == [Release]
    assert of(m.wait(5), InjectSea) == []
    assert m.state(3) == HEALTHY


def test_of_a_large_page_that_was_replaced_in_part_only_the_accessed_page_is_told() -> None:
    m = Machine(policy=policy(BOTH + 'report = "first"\nreport_ms = 500\n', FOUND))
    m.ar(17, lsb=14)

    m.receive(Replaced(GPA + 0x12000, 0x2000))
    m.wait(5)

    assert [m.state(page) for page in range(16, 20)] == [ACKED, ACKED, HEALTHY, HEALTHY]


def test_a_refusal_that_is_over_is_no_deadline() -> None:
    m = Machine(policy=policy(BOTH, '[[rule]]\nname = "found"\ndeliver = ["polled", "gsiv"]\n'))
    m.os.polls_stopped = True
    m.ao(1)
    m.ao(2)
    m.core.stuck.add(1)
    m.core.ways["gsiv"][0].state.refused[1] = 0.5  # behind a busy source: nobody asks it

    m.core.expire(1.0)

    deadline = m.core.next_deadline()
    assert deadline is None or deadline > 1.0


def test_taking_back_a_spanning_entry_leaves_alone_what_another_source_holds() -> None:
    m = Machine(policy=policy(BOTH, '[[rule]]\nname = "found"\ndeliver = ["sdei"]\nlarge = "mask"\n'))
    m.os.ack_delay[None] = float("inf")
    m.ao(16, lsb=16)
    m.ar(16, vcpu=1)
    event = m.core.ways["sdei"][0]

    m.core.receive(Failed(event.state.last, "no"), m.now)

    assert m.state(16) == POSTED, "the SEA's record stands"
    assert {m.state(page) for page in range(17, 32)} == {UNREPORTED}


def test_pages_that_the_next_source_has_no_room_for_are_the_orchestrators() -> None:
    found = (
        '[[rule]]\nname = "found"\ndeliver = ["sdei", "gsiv"]\nunacked = { after_ms = 100, tries = 0, then = "next" }\n'
    )
    m = Machine(policy=policy(BOTH, found))
    event, line = m.core.ways["sdei"][0], m.core.ways["gsiv"][0]
    m.os.ack_delay[event.placed.source_id] = float("inf")
    line.capacity = 2
    m.ao(16, lsb=14)

    effects = m.wait(0.2)

    assert [len(e.pages) for e in of(effects, Posted)] == [2]
    assert [e.source_id for e in of(effects, Escalate)] == [event.placed.source_id]


# -- what else a rule promises -------------------------------------------------------------------


def test_host_first_waits_even_if_a_block_would_be_full() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'report = "first"\nreport_ms = 5000\n'))
    room = m.core.ways["polled"][0].capacity

    effects = [e for page in range(room + 1) for e in m.ao(page)]

    assert of(effects, Posted) == []


def test_a_guest_that_looks_at_its_own_source_only_is_told_there() -> None:
    m = Machine(guest="generic", policy=policy(BOTH, FOUND))
    first = m.core.ways["sea"][0]
    other = ErrorSource(first.placed._replace(source_id=77, block=first.placed.block + 0x10_0000), "sea")
    m.core.ways["sea"].append(other)
    m.core.sources[77] = other
    m.core.rulings = [Ruling(rule, m.core.ways, m.core.style) for rule in m.core.rules]
    stop = of(m.core.receive(HostSignal(Code.AR, HVA, 12, 101), 1.0), Stop)[0]

    effects = m.core.receive(Stopped(stop.vcpu, m.guest.vcpus[1].state()), 1.0)

    assert of(effects, Posted)[0].source_id == 77


def test_a_free_source_does_not_speak_for_the_orchestrator() -> None:
    asking = rule("asking", 'code = "AR", vcpu = [1]', 'deliver = ["sea"]\nreport = "first"\nreport_ms = 5000')
    m = Machine(policy=policy(asking, BOTH, FOUND))
    m.ar(1, vcpu=1)

    effects = m.ar(2, vcpu=0) + m.wait(1)

    assert of(effects, Acked), "the SEA source was used, and is free again"
    assert [e.vcpu for e in of(effects, InjectSea)] == [0]


@pytest.mark.parametrize("kind", ["abort", "fault"])
def test_every_way_in_which_a_page_is_reported_counts(kind: str) -> None:
    again = rule("again", "seen_min = 1", 'action = "stop"')
    m = Machine(policy=policy(again, BOTH, FOUND))
    event = GuestAbort(2, 0x92000010, None, GPA + 0x1000) if kind == "abort" else MemoryFault(GPA + 0x1000, 4096)

    first, second = decided(m.receive(event)), decided(m.receive(event))

    assert first[0] != "again"
    assert second[0] == "again"


def test_history_forgets_what_was_reported_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_PAGES", 2)
    known = history.History(2)

    for page in (1, 2, 1, 3):
        known.note(page, 0.0)

    assert list(known.pages.items()) == [(1, 2), (3, 1)]
    assert (known.seen(1), known.seen(2), known.seen(3)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bare", "the hook named 'bare', which tells consumed errors only"),
        ("sync", "the hook named 'sync', which is for what a vCPU's thread found"),
    ],
)
def test_a_hook_cannot_name_a_rule_that_makes_no_sense(name: str, reason: str) -> None:
    rules = (
        rule("bare", 'code = "AR", vcpu = [3]', 'action = "bare"'),
        rule("sync", 'code = "AO", thread = "vcpu", lost_min = 99', 'action = "consumed"'),
    )
    m = Machine(policy=policy(*rules, BOTH, FOUND), hook=Hook(lambda lost, view: name, "0" * 64))

    effects = m.ao(1)

    assert [e.reason for e in of(effects, HookFailed)] == [reason]
    assert decided(effects) == ["found"]


def test_replaced_pages_wait_no_longer() -> None:
    m = Machine(policy=policy(BOTH, FOUND + 'report = "first"\n'))
    m.ao(16, lsb=16)

    m.receive(Replaced(GPA + 0x10000, 0x10000))

    assert sum(m.core.poison.waiting) == 0
    assert of(m.wait(5), Posted) == []
