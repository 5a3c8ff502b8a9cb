"""Whatever hosts, guests and adapters do, in any order: nothing is lost, nothing overwritten, nobody stays held."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.prove import walk
from tests.walker import BREAKABLE, POLICIES, SDEI_CALLS, World
from vmm_ras.effects import Stop

PAGES = st.integers(0, 70)
VCPUS = st.integers(0, 3)
U64 = st.integers(0, 2**64 - 1)


class AnyOrder(RuleBasedStateMachine):
    """The actions of the world, in an order that hypothesis chooses, and shrinks."""

    world: World

    @initialize(
        preset=st.sampled_from(["all", "default", "qemu-11.1", "conformance"]),
        guest=st.sampled_from(["linux", "generic"]),
        policy=st.sampled_from(list(POLICIES)),
    )
    def boot(self, preset: str, guest: str, policy: str) -> None:
        self.world = World(preset, guest, policy)

    @rule(page=PAGES, vcpu=VCPUS, lsb=st.sampled_from([0, 12, 12, 12, 14]))
    def consumed(self, page: int, vcpu: int, lsb: int) -> None:
        self.world.consumed(page, vcpu, lsb)

    @rule(page=PAGES, lsb=st.sampled_from([12, 12, 16]), thread=st.sampled_from([1, 1, 101]))
    def found(self, page: int, lsb: int, thread: int) -> None:
        self.world.found(page, lsb, thread)

    @rule(page=PAGES)
    def faulted(self, page: int) -> None:
        self.world.faulted(page)

    @rule(vcpu=VCPUS, page=st.none() | PAGES, esr=U64, gva=st.none() | U64)
    def aborted(self, vcpu: int, page: int | None, esr: int, gva: int | None) -> None:
        self.world.aborted(vcpu, page, esr, gva)

    @rule(hva=U64, lsb=st.integers(0, 63))
    def elsewhere(self, hva: int, lsb: int) -> None:
        self.world.elsewhere(hva, lsb)

    @rule(page=PAGES, count=st.integers(1, 20))
    def replaced(self, page: int, count: int) -> None:
        self.world.replaced(page, count)

    @rule(name=st.sampled_from(["consumed", "found", "nobody"]))
    def proceed(self, name: str) -> None:
        self.world.proceed(name)

    @rule(number=st.integers(0, 255), source=st.none() | st.integers(0, 5), vcpu=VCPUS)
    def told_record(self, number: int, source: int | None, vcpu: int) -> None:
        self.world.told_record(number, source, vcpu)

    @rule(vcpu=VCPUS, serror=st.booleans())
    def told_abort(self, vcpu: int, serror: bool) -> None:
        self.world.told_abort(vcpu, serror)

    @rule(vcpu=st.none() | VCPUS)
    def told_event(self, vcpu: int | None) -> None:
        self.world.told_event(vcpu)

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.4, 3.0, float("inf")]), source=st.none() | st.integers(0, 5))
    def acknowledge_late(self, seconds: float, source: int | None) -> None:
        self.world.acknowledge_late(seconds, source)

    @rule(vcpu=VCPUS, el=st.integers(0, 1))
    def run_at(self, vcpu: int, el: int) -> None:
        self.world.run_at(vcpu, el)

    @rule(vcpu=VCPUS)
    def mask(self, vcpu: int) -> None:
        self.world.mask(vcpu)

    @rule(registered=st.booleans())
    def sdei(self, registered: bool) -> None:
        self.world.sdei(registered)

    @rule(vcpu=VCPUS, function=st.sampled_from(SDEI_CALLS))
    def sdei_call(self, vcpu: int, function: int) -> None:
        self.world.sdei_call(vcpu, function)

    @rule(stopped=st.booleans())
    def polls(self, stopped: bool) -> None:
        self.world.polls(stopped)

    @rule(kinds=st.lists(st.sampled_from((*BREAKABLE, Stop)), min_size=1, max_size=3))
    def fail_next(self, kinds: list[type]) -> None:
        self.world.fail_next(*kinds)

    @rule(vcpu=VCPUS)
    def cannot_stop(self, vcpu: int) -> None:
        self.world.cannot_stop(vcpu)

    @rule(vcpu=VCPUS)
    def stops_late(self, vcpu: int) -> None:
        self.world.stops_late(vcpu)

    @rule(vcpu=VCPUS)
    def stops_again(self, vcpu: int) -> None:
        self.world.stops_again(vcpu)

    @rule(effect=st.integers(0, 2**40), source=st.integers(0, 9))
    def nonsense(self, effect: int, source: int) -> None:
        self.world.nonsense(effect, source)

    @rule(seconds=st.sampled_from([0.01, 0.6, 2.5, 30.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @invariant()
    def everything_holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """What was lost is told in the end."""
        if hasattr(self, "world"):
            self.world.finish()


class Hostile(AnyOrder):
    """The same with a guest that calls anything and writes over everything that the firmware gave it."""

    @rule(
        vcpu=VCPUS,
        function=st.integers(0xC4000020, 0xC4000033) | U64,
        args=st.lists(U64 | st.integers(0, 900), max_size=17).map(tuple),
        el=st.sampled_from([0, 1, 1, 1]),
    )
    def wild_call(self, vcpu: int, function: int, args: tuple[int, ...], el: int) -> None:
        self.world.wild_call(vcpu, function, args, el)

    @rule(offset=st.integers(0, 1 << 20), data=st.binary(min_size=1, max_size=200))
    def scribble(self, offset: int, data: bytes) -> None:
        self.world.scribble(offset, data)


SETTINGS = settings(stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = SETTINGS
TestHostile = Hostile.TestCase
TestHostile.settings = SETTINGS


def test_a_short_walk() -> None:
    """The long one is `make prove` (docs/prove.md)."""
    done = walk(seed=7, steps=6_000)

    assert sum(count for name, count in done.items() if ", " not in name) == 6_000
