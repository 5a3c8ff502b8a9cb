"""The core's state as one plain value: taken out and put back at any moment, nothing changes; none of it is trusted."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.machine import Machine, of
from tests.prove import actions
from tests.walker import POLICIES, World
from vmm_ras.effects import Effect, Undelivered
from vmm_ras.errors import SnapshotError
from vmm_ras.state import put, take


def lived(preset: str, guest: str, policy: str, hostile: bool, swap: bool) -> tuple[list[Effect], World]:
    """All effects of a VM's life; with ``swap`` its state is taken out and put back before every single event."""
    r = random.Random(f"{preset}{guest}{hostile}")
    world = World(preset, guest, policy)
    core, seen = world.m.core, []

    def swapped(handle: Any) -> Any:
        def run(event: Any, now: float) -> list[Effect]:
            if swap:
                put(core, orjson.loads(orjson.dumps(take(core))))
            effects = handle(event, now)
            seen.extend(effects)
            return effects

        return run

    for kind, handle in core.handlers.items():
        core.handlers[kind] = swapped(handle)
    expire = core.expire

    def expired(now: float) -> list[Effect]:
        if swap:
            put(core, take(core))
        effects = expire(now)
        seen.extend(effects)
        return effects

    core.expire = expired  # type: ignore[method-assign]
    kinds = actions(r, hostile)
    for _, name, draw in r.choices(kinds, [weight for weight, _, _ in kinds], k=24):
        getattr(world, name)(*draw())
        world.check()
    world.finish()
    return seen, world


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("preset", "guest", "hostile"),
    [("all", "generic", False), ("all", "linux", False), ("default", "linux", False), ("all", "generic", True)],
)
def test_taken_out_and_put_back_at_any_moment_nothing_changes(
    preset: str, guest: str, hostile: bool, policy: str
) -> None:
    plain, one = lived(preset, guest, policy, hostile, False)
    swapped, two = lived(preset, guest, policy, hostile, True)

    assert swapped == plain
    assert len(plain) > 20
    assert take(two.m.core) == take(one.m.core)
    assert [v.state() for v in two.m.guest.vcpus] == [v.state() for v in one.m.guest.vcpus]


def busy_world() -> World:
    world = World("all", "linux", "history")
    world.m.os.ack_delay[None] = float("inf")
    for page in range(6):
        world.found(page * 3, 12)
        world.consumed(page * 3 + 1, page % 4, 12)
    world.acknowledge_late(float("inf"), None)
    return world


def test_what_is_taken_shares_nothing() -> None:
    world = busy_world()
    before = take(world.m.core)
    text = orjson.dumps(before)

    world.wait(30)
    world.found(60, 12)

    assert orjson.dumps(before) == text
    assert take(world.m.core) != before


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*path, key))
    return found


STATE = take(busy_world().m.core)
PATHS = paths(STATE)
VALUES = st.sampled_from(
    [None, -1, 0, 1, 63, 2**31, 2**63, 2**64, -(2**63), 1e308, True, "", "x", [], {}, [0], [[0, 0]]]
)


@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES, st.booleans()), min_size=1, max_size=3))
@example([(("aborts", 1, "state"), None, False)])
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_damaged_state_is_refused_in_one_line_or_is_a_state(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    damaged = orjson.loads(orjson.dumps(STATE))
    for path, value, remove in changes:
        inner: Any = damaged
        try:
            for key in path[:-1]:
                inner = inner[key]
            if remove:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            pass
    m = Machine("all", policy=POLICIES["history"])
    before = take(m.core)
    try:
        put(m.core, damaged)
    except SnapshotError as error:
        assert "\n" not in str(error)
        assert take(m.core) == before, "a refused state changes nothing"
    else:
        m.ao(50)
        m.ar(51)
        m.wait(5)


def test_what_no_way_takes_is_not_complained_of_again() -> None:
    text = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sdei"]\n'
    one, two = (Machine("all", policy=text, sdei=False) for _ in range(2))
    assert of(one.ao(1), Undelivered)

    put(two.core, take(one.core))

    assert of(two.ao(2), Undelivered) == []
    assert two.core.next_deadline() == one.core.next_deadline()


def test_another_policys_state_is_refused() -> None:
    m = Machine("all")

    with pytest.raises(SnapshotError, match="policy: another policy's"):
        put(m.core, STATE)


@pytest.mark.parametrize("value", [None, 1, [], "x", {}, {"format": 2}, {"format": 1, "more": {1, 2}}])
def test_what_is_no_state_is_refused(value: object) -> None:
    with pytest.raises(SnapshotError):
        put(Machine("all").core, value)
