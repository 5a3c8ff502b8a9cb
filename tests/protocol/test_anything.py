"""Whatever hosts, guests and adapters do, in any order: nothing is lost, nothing overwritten, nobody stays held."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machine import GPA, HVA, Machine
from vmm_ras.effects import ArmAck, InjectSea, InjectSerror, RaiseLine, SetRegisters, WriteGuest
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Code, Done, Failed, GuestAbort, GuestCall, HostSignal, MemoryFault
from vmm_ras.memory import ACKED, UNREPORTED

PAGES = st.integers(0, 70)
VCPUS = st.integers(0, 3)


class AnyOrder(RuleBasedStateMachine):
    """A host that loses pages and a guest that is slow, deaf or half gone."""

    m: Machine

    @initialize(preset=st.sampled_from(["all", "default", "qemu-11.1"]), guest=st.sampled_from(["linux", "generic"]))
    def boot(self, preset: str, guest: str) -> None:
        self.m = Machine(preset, guest)
        self.lost: set[int] = set()
        self.break_next: type | None = None
        perform = self.m.guest.perform

        def watched(effects: list[Any], now: float) -> list[Any]:
            """Every write to a block or gate is checked; one effect may be made to fail."""
            for e in effects:
                if isinstance(e, WriteGuest) and len(e.data) > 4:
                    placed = self.m.core.sources[e.source_id].placed
                    if placed.ack is not None:
                        gate = int.from_bytes(self.m.guest.memory.read(placed.ack, 8), "little")
                        armed = any(
                            isinstance(a, ArmAck) and a.source_id == e.source_id and a.id < e.id for a in effects
                        )
                        assert armed or not gate & placed.ack_write
                    status = self.m.guest.memory.read(placed.block, 4)
                    assert status == bytes(4), "a posted block is never overwritten"
            if self.break_next is not None:
                for index, e in enumerate(effects):
                    if isinstance(e, self.break_next) and getattr(e, "source_id", None) is not None:
                        self.break_next = None
                        rest = [r for r in effects[index + 1 :] if getattr(r, "source_id", None) != e.source_id]
                        return [*perform(effects[:index], now), Failed(e.id, "made to fail"), *perform(rest, now)]
            return perform(effects, now)

        self.m.guest.perform = watched  # type: ignore[method-assign]

    def note(self, page: int, lsb: int) -> None:
        size = 1 << max(lsb - 12, 0)
        first = page & -size
        self.lost |= set(range(first, first + size))

    @rule(page=PAGES, vcpu=VCPUS, lsb=st.sampled_from([0, 12, 12, 12, 14]))
    def consumed(self, page: int, vcpu: int, lsb: int) -> None:
        self.m.ar(page, vcpu, lsb)
        self.note(page, lsb)

    @rule(page=PAGES, lsb=st.sampled_from([12, 12, 16]))
    def found(self, page: int, lsb: int) -> None:
        self.m.ao(page, lsb)
        self.note(page, lsb)

    @rule(page=PAGES)
    def faulted(self, page: int) -> None:
        self.m.receive(MemoryFault(GPA + (page << 12), 4096))
        self.lost.add(page)

    @rule(vcpu=VCPUS, page=st.none() | PAGES, esr=st.integers(0, 2**64 - 1), gva=st.none() | st.integers(0, 2**64 - 1))
    def aborted(self, vcpu: int, page: int | None, esr: int, gva: int | None) -> None:
        held = vcpu in self.m.core.aborts
        self.m.receive(GuestAbort(vcpu, esr, gva, None if page is None else GPA + (page << 12)))
        if page is not None and not held:
            self.lost.add(page)

    @rule(hva=st.integers(0, 2**64 - 1).filter(lambda a: not HVA <= a < HVA + (1 << 30)), lsb=st.integers(0, 63))
    def elsewhere(self, hva: int, lsb: int) -> None:
        self.m.receive(HostSignal(Code.AO, hva, lsb, 0))

    @rule(ms=st.sampled_from([0.0, 0.0, 0.4, 3.0, float("inf")]), source=st.none() | st.integers(0, 5))
    def acknowledge_late(self, ms: float, source: int | None) -> None:
        self.m.os.ack_delay = {source: ms} if ms else {}

    @rule(vcpu=VCPUS, el=st.integers(0, 1))
    def run_at(self, vcpu: int, el: int) -> None:
        if vcpu not in self.m.core.aborts and self.m.guest.vcpus[vcpu].run_at(el):
            self.m.os.run(vcpu, self.m.now)

    @rule(vcpu=VCPUS)
    def mask(self, vcpu: int) -> None:
        self.m.guest.vcpus[vcpu].mask_serror()

    @rule(registered=st.booleans())
    def sdei(self, registered: bool) -> None:
        if not self.m.core.aborts and all(v.el == 0 for v in self.m.guest.vcpus):
            self.m.guest.start_sdei(self.m.core, self.m.now, registered)

    @rule(stopped=st.booleans())
    def polls(self, stopped: bool) -> None:
        self.m.os.polls_stopped = stopped

    @rule(
        vcpu=VCPUS,
        function=st.integers(0xC4000020, 0xC4000033),
        args=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6),
    )
    @precondition(lambda self: False)
    def wild_call(self, vcpu: int, function: int, args: list[int]) -> None:
        """Kept for the SDEI tests: a guest that ruins its own SDEI state may keep what it was told by SDEI."""
        self.m.receive(GuestCall(vcpu, function, tuple(args), self.m.guest.vcpus[vcpu].state()._replace(pstate=5)))

    @rule(kind=st.sampled_from([ArmAck, WriteGuest, InjectSea, InjectSerror, SetRegisters, RaiseLine]))
    def fail_next(self, kind: type) -> None:
        self.break_next = kind

    @rule(effect=st.integers(0, 2**40), source=st.integers(0, 9))
    def nonsense(self, effect: int, source: int) -> None:
        self.m.core.receive(AckRead(0, source, effect), self.m.now)
        self.m.core.receive(Done(effect), self.m.now)

    @rule(seconds=st.sampled_from([0.01, 0.6, 2.5, 30.0]))
    def wait(self, seconds: float) -> None:
        self.m.wait(seconds)

    @invariant()
    def every_lost_page_is_known(self) -> None:
        counts = self.m.core.poison.counts
        base = GPA >> 12
        states = {page: self.m.core.poison.state(base + page) for page in self.lost}
        assert all(states.values()), [p for p, s in states.items() if not s]
        assert sum(counts[1:]) == len(self.lost)
        assert all(n >= 0 for n in [*counts[1:], *self.m.core.poison.waiting])
        assert sum(self.m.core.poison.waiting) == counts[UNREPORTED]

    @invariant()
    def held_vcpus_have_an_end(self) -> None:
        for abort in self.m.core.aborts.values():
            assert abort.state is not None
            assert abort.until < float("inf")

    def teardown(self) -> None:
        """The guest comes to its senses: everything is told in the end, unless a source broke or the guest panicked."""
        if not hasattr(self, "m") or self.m.os.panicked:
            return
        m = self.m
        self.break_next = None
        m.os.ack_delay = {}
        m.os.polls_stopped = False
        broken = [s.placed.source_id for s in m.core.sources.values() if s.state.broken]
        m.wait(10.0)
        for source in m.core.sources.values():  # acknowledgements that never came, and never would
            if source.state.pages and source.placed.ack is not None:
                try:
                    if m.guest.memory.read(source.placed.block, 4) == bytes(4):
                        m.guest.memory.write(source.placed.ack, source.placed.ack_write.to_bytes(8, "little"))
                except GuestError:
                    pass
        for vcpu in range(4):
            if vcpu not in m.core.aborts and m.guest.vcpus[vcpu].run_at(0):
                m.os.run(vcpu, m.now)
        m.wait(200.0)
        assert not m.core.aborts
        if not broken:
            states = {p: m.core.poison.state((GPA >> 12) + p) for p in self.lost}
            assert set(states.values()) <= {ACKED}, (
                states,
                {s.placed.source_id: s.state for s in m.core.sources.values()},
            )
            if m.os.profile.name == "generic":
                assert all((GPA >> 12) + p in m.os.offlined for p in self.lost)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
