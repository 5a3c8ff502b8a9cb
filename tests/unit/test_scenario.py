"""Sentences, and what is asked afterwards; the fixtures are those of the plugin."""

from __future__ import annotations

import doctest
import io

import pytest

import vmm_ras.scenario
from acpi.presets import PRESETS
from vmm_ras.effects import Acked, Hold, InjectSea, Posted, RaiseLine
from vmm_ras.errors import InputError
from vmm_ras.guests.os import Action
from vmm_ras.record import memory_block
from vmm_ras.replay import TABLES, Replay
from vmm_ras.scenario import Block, Machine, ModelRunner, Moment, differences
from vmm_ras.traces import Trace
from vmm_ras.traces.write import Writer

FIRST = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "sdei"]\nreport = "first"\nreport_ms = 5000\n'


def model(**options) -> Machine:
    return Machine(ModelRunner(**options))


def test_the_docstring_is_true() -> None:
    assert doctest.testmod(vmm_ras.scenario).failed == 0


def test_what_is_lost_and_found(machine) -> None:
    effects = machine.loses(page=5, size="16K")

    assert [e.delivery for e in effects if isinstance(e, Posted)] == ["sdei"]
    assert [bool(machine.told(page=n)) for n in range(3, 9)] == [False, True, True, True, True, False]
    assert machine.told(gpa=0x4000_7123).pages == 4
    assert machine.told(page=7).section.physical_address == 0x4000_7000
    assert machine.told(page=7).entry.header.fru_text == "vmm memory #00000001"
    assert repr(machine.page(7)) == "page 7 (gpa 0x40007000): acked, offlined"
    assert repr(machine.page(8)) == "page 8 (gpa 0x40008000): healthy"


def test_how_it_was_told(machine) -> None:
    machine.consumes(page=3, vcpu=2)
    told = machine.told(page=3)

    assert (told.delivery, told.source_id, told.vcpu, told.esr, told.rule) == ("sea", 0, 2, 0x92000410, "consumed")
    assert (told.outcome, told.acked_after) == ("offlined", 0.0)
    assert told.by("sdei", "sea")
    assert told.is_acked()
    assert told.within(0)
    assert told.block.decode_block().header.entry_count == 1


def test_each_telling_of_a_page(machine) -> None:
    machine.consumes(page=3)
    machine.passes(1)
    machine.consumes(page=3)
    machine.consumes(page=4)

    assert [t.happened_at for t in machine.tellings(page=3)] == [0.001, 1.001]
    assert [t.section.physical_address for t in machine.tellings(page=3)] == [0x4000_3000] * 2
    assert machine.tellings(page=5) == []


def test_why_it_was_not_told(machine, guest) -> None:
    assert repr(machine.told(page=1)) == "page 1 (gpa 0x40001000) was not told: nothing happened to it"
    guest.acks(after=1.0)
    machine.consumes(page=1, vcpu=0)
    effects = machine.consumes(page=2, vcpu=1)

    assert [e.vcpu for e in effects if isinstance(e, Hold)] == [1]
    assert repr(machine.told(page=2)) == "page 2 (gpa 0x40002000) was not told: it is unreported"
    assert repr(machine.told(page=2).by("sea")) == repr(machine.told(page=2))
    assert repr(machine.told(page=1)).endswith("guest offlined the page; not acked")
    assert not machine.told(page=1).within(9)
    with pytest.raises(InputError, match=r"page 2 .* was not told: it is unreported"):
        machine.told(page=2).block
    machine.settles()
    assert repr(machine.told(page=2)).endswith(
        "rule consumed, ESR 0x92000410; guest offlined the page; acked after 2.046 s"
    )


def test_no_way_open_and_nothing_to_tell() -> None:
    closed = model(preset="qemu-7.2")
    closed.loses(page=1)
    assert repr(closed.told(page=1)).startswith(
        "page 1 (gpa 0x40001000) was not told: it is unreported; sdei: no source"
    )
    ignoring = model(policy='version = 1\n[[rule]]\nname = "no"\naction = "ignore"\n')
    ignoring.loses(page=1)
    assert repr(ignoring.told(page=1)).endswith("was not told: the policy does not tell it")


def test_a_block_that_is_taken_back_told_nothing() -> None:
    machine = model(preset="all")
    machine.faults(gpa=machine.source("sdei").block)
    machine.loses(page=1)
    machine.settles()

    back, told = machine.tellings(page=1)
    assert not back
    assert "its block for sdei was taken back, guest memory at " in repr(back)
    assert told.by("gsiv")
    assert told.is_acked()
    assert [e.kind for e in machine.effects(RaiseLine)] == ["gsiv"]


def test_a_relayed_abort_and_one_without_an_address(machine) -> None:
    machine.consumes(page=3, vcpu=1, esr=0x92000410, gva=0xFFFF_0000)
    assert machine.told(page=3).esr == 0x92000010
    assert machine.effects(InjectSea)[-1].far == 0xFFFF_0000
    machine.consumes(vcpu=1, esr=0x92000410)
    assert machine.guest.did("objerr")
    assert "vCPU 1 consumes memory unknown, ESR 0x92000410" in machine.timeline()


def test_a_signal_in_the_thread_of_a_vcpu() -> None:
    policy = (
        'version = 1\n[[rule]]\nname = "late"\nwhen = { code = "AO", thread = "vcpu" }\naction = "consumed"\n'
        '[[rule]]\nname = "all"\ndeliver = ["sea", "sdei"]\n'
    )
    machine = model(policy=policy)
    machine.loses(page=3, thread_of=1)
    machine.loses(page=4)

    assert machine.told(page=3).by("sea")
    assert machine.told(page=4).by("sdei")
    assert "is lost, told to the thread of vCPU 1" in machine.timeline()


def test_the_orchestrator_first() -> None:
    machine = model(policy=FIRST)
    machine.loses(page=3)
    assert not machine.told(page=3)
    assert machine.escalates("report")
    assert not machine.escalates("stop")

    machine.proceeds("all")

    assert machine.told(page=3).is_acked()
    assert not model().escalates()
    assert repr(model().escalates()) == "the orchestrator was asked for nothing"


def test_guests_that_die() -> None:
    machine = model(policy='version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "sdei"]\nseverity = "fatal"\n')
    assert machine.guest.survives()
    machine.consumes(page=1)

    assert machine.guest.panics()
    assert repr(machine.guest.survives()) == "the guest is panicked (GHES: fatal hardware error)"
    assert machine.guest.did("panic")
    assert machine.guest.signalled == 0
    assert not machine.page(1).is_offlined()
    assert repr(machine.page(1).is_offlined()) == "page 1 (gpa 0x40001000) is not offlined, it is acked"


def test_the_record_says_so_or_why_not(machine) -> None:
    machine.consumes(page=3)
    told = machine.told(page=3)

    assert told.says(severity="recoverable", node=None, revision=0x300, entry_count=1)
    wrong = told.says(severity="fatal", node=1, physical_address=0x40003000)
    assert not wrong
    assert (
        repr(wrong)
        == "the record about page 3 (gpa 0x40003000): severity is 'recoverable', not 'fatal'; node is None, not 1"
    )
    with pytest.raises(InputError, match="a record has no field 'colour'"):
        told.says(colour=1)
    assert not machine.told(page=9).says(node=None)


@pytest.mark.machine(guest="generic", preset="all")
@pytest.mark.parametrize("policy", ['version = 1\n[[rule]]\nname = "all"\ndeliver = ["sei"]\n'])
def test_serror_masked_through_a_change_of_level(machine, guest, policy) -> None:
    guest.masks_serror(0)
    machine.loses(page=1)
    assert machine.page(1).is_posted()
    guest.runs(0, el=1)
    assert machine.page(1).is_acked(), "it runs there with exceptions unmasked"


@pytest.mark.machine(sdei=False)
def test_sdei_comes_and_goes(machine, guest) -> None:
    machine.loses(page=1)
    guest.registers_sdei()
    machine.loses(page=2)
    guest.unregisters_sdei()
    machine.loses(page=3)
    guest.stops_polling()
    machine.passes(5)
    assert machine.page(1).is_posted()
    guest.polls()
    machine.settles()

    assert [machine.told(page=n).delivery for n in (1, 2, 3)] == ["polled", "sdei", "polled"]


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        (lambda m: m.loses(), "which memory? give page or gpa, one of them"),
        (lambda m: m.loses(page=1, gpa=5), "which memory? give page or gpa, one of them"),
        (lambda m: m.loses(page=1 << 18), "page 262144: RAM has 262144 pages, gpa 0x40000000 to 0x7fffffff"),
        (lambda m: m.loses(page=-1), "page -1: RAM has "),
        (lambda m: m.loses(gpa=0x1000), "gpa 0x1000: RAM has "),
        (lambda m: m.loses(page=1, size=12345), "size 12345: expected a power of two"),
        (lambda m: m.loses(page=1, size="big"), "size 'big': expected bytes, as a number or like '64K'"),
        (lambda m: m.loses(page=1, thread_of=4), "vCPU 4: the machine has 4"),
        (lambda m: m.consumes(page=1, vcpu=9), "vCPU 9: the machine has 4"),
        (lambda m: m.consumes(page=1, gva=1), "gva: a SIGBUS knows no guest virtual address; give esr too"),
        (lambda m: m.consumes(page=1, el=3), "el 3: expected 0 or 1"),
        (lambda m: m.passes(-1), "seconds -1: expected 0 or more"),
        (lambda m: m.holds(7), "vCPU 7: the machine has 4"),
        (lambda m: m.source("sei"), "the machine has no source for 'sei'"),
        (lambda m: m.guest.never_acks(9), "source 9: the machine has 0, 1, 2"),
        (lambda m: m.guest.did("well"), "outcome 'well': expected one of offlined, "),
    ],
)
def test_what_cannot_be_said(machine, sentence, line: str) -> None:
    with pytest.raises(InputError) as error:
        sentence(machine)

    assert str(error.value).startswith(line)
    assert machine.journal == []


def test_a_held_vcpu_runs_nothing(machine, guest) -> None:
    guest.never_acks()
    machine.consumes(page=1, vcpu=0)
    machine.consumes(page=2, vcpu=1)

    assert repr(machine.holds(1)) == "vCPU 1 is held"
    assert repr(machine.holds(0)) == "vCPU 0 is not held"
    with pytest.raises(InputError, match="vCPU 1 is held: it consumes nothing"):
        machine.consumes(page=3, vcpu=1)
    with pytest.raises(InputError, match="vCPU 1 is held: it runs nothing"):
        guest.masks_serror(vcpu=1)


def test_a_scenario_is_a_trace(machine, guest) -> None:
    guest.acks("sea", after=0.25)
    machine.consumes(page=1, vcpu=0)
    machine.passes(0.1)
    machine.consumes(page=2, vcpu=1, el=1)
    machine.loses(page=512, size="2M")
    machine.faults(page=7)
    machine.settles()

    text = b"".join(line + b"\n" for line in Writer().lines(machine.entries()))
    replay = Replay(PRESETS["default"].place(TABLES))
    rows = list(replay.run(Trace(io.BytesIO(text), "scenario")))
    assert [r.delivery for r in rows] == ["sea", "sdei", "sdei", "sdei"]
    assert [r.gpa for r in rows] == [0x4000_1000, 0x4000_2000, 0x4020_0000, 0x4000_7000]
    assert replay.summary.offlined == 3 + 512
    assert replay.notifier.poison.counts == machine.runner.replay.notifier.poison.counts


def test_the_same_sentences_give_the_same_journal() -> None:
    def play() -> str:
        machine = model(preset="all")
        machine.guest.acks(after=0.3)
        for n in range(30):
            machine.loses(page=n)
            machine.consumes(page=100 + n, vcpu=2)
            machine.passes(5)
        return repr(machine.journal) + machine.timeline()

    assert play() == play()


def test_differences_of_blocks_and_structures() -> None:
    machine = model()
    machine.loses(page=0, size="64K")
    machine.consumes(page=99)
    many, one = machine.told(page=0).block, machine.told(page=99).block

    assert differences(one, one) == []
    found = differences(many, one)
    assert found[0] == "header.multiple_uncorrectable: True != False"
    assert found[20].startswith("... and ")
    assert found[21] == "first different byte: 0x0, 2452 and 172 bytes"
    assert repr(one) == "<status block, 172 bytes, 1 entry>"
    assert repr(Block(b"\xff" * 4)) == "Block(ffffffff)"
    assert differences(Block(b"ab"), b"abc") == [
        "first different byte: 0x2, 2 and 3 bytes",
        "  left  61 62",
        "  right 61 62 63",
    ]


class Elsewhere:
    """A runner that is no model: it keeps what it is told, and what happened is written by hand."""

    def __init__(self) -> None:
        model = ModelRunner()
        self.place, self.sources = model.place, model.sources
        self.now, self.journal, self.held, self.signalled, self.panicked = 5.0, [], {2}, 3, ""

    def play(self, item: object) -> None:
        self.journal.append(Moment(self.now, item))

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def settle(self) -> None:
        self.now += 30

    def state(self, gpa: int) -> str:
        return "acked"

    def offlined(self, gpa: int) -> bool:
        return gpa == 0x4000_3000


def test_another_runner_plays_the_same_sentences() -> None:
    runner = Elsewhere()
    machine = Machine(runner)
    assert machine.consumes(page=3, vcpu=1) == []
    machine.passes(0.25)
    block = memory_block([(0x4000_3000, 4096)])
    posted = Posted(7, 0, "sea", 1, 0x92000410, ((0x4000_3000, 4096),), block, "consumed")
    runner.journal += [
        Moment(5.25, posted), Moment(5.5, Action(0, "offlined", block)), Moment(6.0, Acked(8, 0, posted.pages)),
    ]  # fmt: skip

    told = machine.told(page=3)
    assert repr(told) == (
        "page 3 (gpa 0x40003000) was told by sea: source 0, vCPU 1, rule consumed, ESR 0x92000410; "
        "guest offlined the page; acked after 1 s"
    )
    assert told.says(physical_address=0x4000_3000)
    assert machine.page(3).is_offlined()
    assert not machine.page(4).is_offlined()
    assert machine.holds(2)
    assert machine.guest.signalled == 3
    assert machine.effects() == [posted, Acked(8, 0, posted.pages)]
    assert machine.timeline().splitlines()[-1] == "    6.000000  core    source 0 is acknowledged"


def test_a_guest_that_reads_other_bytes_is_noticed() -> None:
    runner = Elsewhere()
    machine = Machine(runner)
    machine.loses(page=3)
    block = memory_block([(0x4000_3000, 4096)])
    runner.journal += [
        Moment(5.0, Posted(7, 1, "sdei", 0, None, ((0x4000_3000, 4096),), block, "found")),
        Moment(5.0, Action(1, "offlined", block[:-1] + b"?")),
    ]

    assert machine.told(page=3).outcome == "garbled"
    assert machine.told(page=3).acked_after is None


def test_words_that_mean_nothing_are_refused_and_not_simply_false() -> None:
    machine = Machine(ModelRunner())
    machine.loses(page=1)

    for ask, words in (
        (lambda: machine.told(page=1).by("sae"), "way 'sae': expected one of sea, sei, sdei"),
        (lambda: machine.told(page=2).by("sdei", "gsvi"), "way 'gsvi': "),
        (lambda: machine.escalates("halt"), "action 'halt': expected one of report, stop, reset, migrate"),
        (lambda: machine.proceeds(rule="fuond"), "rule 'fuond': expected one of consumed-in-kernel, consumed, found"),
    ):
        with pytest.raises(InputError) as error:
            ask()
        assert str(error.value).startswith(words)
