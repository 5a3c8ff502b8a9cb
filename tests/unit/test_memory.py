"""Memory map and poison map."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.errors import InputError
from vmm_ras.memory import ACKED, HEALTHY, POSTED, UNREPORTED, MemoryMap, MemorySlot, PoisonMap


def test_addresses_are_found_in_their_slot_only() -> None:
    a, b = MemorySlot(0x1000, 0x40000000, 0x2000), MemorySlot(0x9000, 0x80000000, 0x1000)
    memory = MemoryMap([b, a])

    assert [memory.slot_of(h) for h in (0xFFF, 0x1000, 0x2FFF, 0x3000, 0x9000, 0x9FFF, 0xA000)] == [
        None, a, a, None, b, b, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "slots",
    [
        [(0, 0, 0)],
        [(0, 0, -1)],
        [(0, 0, 1 << 65)],
        [(0, 0, 8), (4, 100, 8)],
        [(0, 0, 8), (100, 4, 8)],
        [(-1, 0, 8)],
        [((1 << 64) - 4, 0, 8)],
    ],
)
def test_impossible_slots_are_refused(slots: list) -> None:
    with pytest.raises(InputError, match="memory slot"):
        MemoryMap(MemorySlot(*s) for s in slots)


PAGES = st.integers(0, 3 << 18)
STEPS = st.lists(st.tuples(PAGES, st.integers(1, 3), st.integers(0, 5)), max_size=60)


@given(STEPS)
def test_the_map_agrees_with_a_dictionary(steps: list) -> None:
    poison, model = PoisonMap(), {}
    for page, state, queue in steps:
        old = poison.set(page, state, queue)
        assert old == model.get(page, (HEALTHY, 0))[0]
        model[page] = (state, queue if state == UNREPORTED else 0)

    for page, (state, _) in model.items():
        assert poison.state(page) == state
    for state in (UNREPORTED, POSTED, ACKED):
        assert poison.counts[state] == sum(s == state for s, _ in model.values())
    for queue in range(6):
        mine = sorted(p for p, v in model.items() if v == (UNREPORTED, queue))
        assert poison.waiting[queue] == len(mine)
        assert poison.take(queue, 5) == mine[:5]
        assert poison.take(queue, 1) == mine[:1]
    assert {p: (s, q) for first, n, s, q in poison.runs() for p in range(first, first + n)} == model


@given(STEPS, PAGES, st.integers(1, 1 << 19), st.integers(0, 5))
def test_adding_a_range_touches_healthy_pages_only(steps: list, first: int, count: int, queue: int) -> None:
    poison, before = PoisonMap(), {}
    for page, state, other in steps:
        poison.set(page, state, other)
        before[page] = state

    added = poison.add(first, count, queue)

    inside = sum(first <= p < first + count for p in before)
    assert added == count - inside
    assert all(poison.state(p) == s for p, s in before.items())
    assert poison.counts[UNREPORTED] == added + sum(s == UNREPORTED for s in before.values())
    assert sum(n for _, n, s, _ in poison.runs() if s == UNREPORTED) == poison.counts[UNREPORTED]
    if added:
        assert poison.take(queue, 1)


def test_acknowledging_changes_posted_pages_only() -> None:
    poison = PoisonMap()
    for page, state in ((1, POSTED), (2, UNREPORTED), (3, ACKED)):
        poison.set(page, state, 7)

    poison.acknowledge(tuple((p << 12, 4096) for p in (1, 2, 3)), 12)

    assert [poison.state(p) for p in (1, 2, 3)] == [ACKED, UNREPORTED, ACKED]
    assert poison.counts[1:] == [1, 0, 2]


def test_memory_follows_guest_ram_not_events() -> None:
    import tracemalloc

    poison = PoisonMap()
    tracemalloc.start()
    for n in range(60_000):
        poison.set(n * 7919 & (1 << 18) - 1, n % 3 + 1, n & 31)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < (1 << 18) + 100_000, "a byte per page"


CHUNK = 1 << 12
RANGES = st.tuples(
    st.sampled_from(("add", "mark", "set", "acknowledge", "take", "blocks")),
    st.sampled_from((0, 1, 5, CHUNK - 1, CHUNK, CHUNK + 7, 2 * CHUNK, 3 * CHUNK - 2)),
    st.sampled_from((1, 2, 9, CHUNK - 1, CHUNK, CHUNK + 3, 2 * CHUNK, 3 * CHUNK)),
    st.integers(1, 3),
)


@given(st.lists(RANGES, max_size=12))
def test_whole_chunks_are_as_any_others(steps: list) -> None:
    poison, model = PoisonMap(), bytearray(7 * CHUNK)
    for what, first, count, number in steps:
        span = slice(first, first + count)
        if what == "add":
            added = poison.add(first, count, number)
            assert added == model[span].count(0)
            model[span] = model[span].replace(b"\0", bytes((number << 2 | UNREPORTED,)))
        elif what == "mark":
            state = (HEALTHY, POSTED, ACKED)[number - 1]
            poison.mark(first, count, state)
            model[span] = bytes((state,)) * count
        elif what == "set":
            assert poison.set(first, number, 1) == model[first] & 3
            model[first] = 1 << 2 | UNREPORTED if number == UNREPORTED else number
        elif what == "acknowledge" and poison.state(first):
            poison.acknowledge(((first << 12, 4096),), 12)
            model[first] = ACKED if model[first] == POSTED else model[first]
        elif what == "take":
            value, found = bytes((number << 2 | UNREPORTED,)), []
            at = model.find(value)
            while at >= 0 and len(found) < 3:
                found.append(at)
                at = model.find(value, at + 1)
            assert poison.take(number, 3) == found
            inside = model.find(value, first, first + count)
            assert poison.take(number, 1, first, first + count) == ([inside] if inside >= 0 else [])
        elif what == "blocks":
            for at, size in poison.take_blocks(number, 4):
                assert model[at : at + size] == bytes((number << 2 | UNREPORTED,)) * size
    assert [poison.counts[s] for s in (1, 2, 3)] == [sum(model.count(q << 2 | s) for q in range(4)) for s in (1, 2, 3)]
    assert poison.waiting[1:4] == [model.count(q << 2 | UNREPORTED) for q in (1, 2, 3)]
    again = bytearray(7 * CHUNK)
    for first, count, state, queue in poison.runs():
        again[first : first + count] = bytes((queue << 2 | state,)) * count
    assert again == model
    made = PoisonMap.of_runs(poison.runs())
    assert (list(made.runs()), made.counts, made.waiting) == (list(poison.runs()), poison.counts, poison.waiting)
    assert [made.take(q, 3) for q in range(4)] == [poison.take(q, 3) for q in range(4)]
    for page in (0, 1, CHUNK - 1, CHUNK, CHUNK + 9, 3 * CHUNK, 6 * CHUNK):
        assert poison.state(page) == model[page] & 3


def test_a_large_range_takes_next_to_no_memory() -> None:
    import tracemalloc

    poison = PoisonMap()
    tracemalloc.start()
    poison.add(0, 1 << 26, 1)
    poison.mark(1 << 20, 1 << 25, POSTED)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < 5 << 19, "for 256 GiB of 4 KiB pages"
    assert poison.counts[1:] == [(1 << 26) - (1 << 25), 1 << 25, 0]
    assert len(list(poison.runs())) == 3
