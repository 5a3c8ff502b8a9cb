"""Guest memory agrees with plain bytes, around the borders of chunks, regions and lost pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.errors import GuestError, Poisoned
from vmm_ras.guests import memory as module
from vmm_ras.guests.memory import GuestMemory

REGIONS = [(0x8000, 0x30000), (0x40000, 0x10000)]
"""Half a chunk, two whole ones and half a one; a gap; one whole chunk."""
END = 0x60000
BORDERS = st.sampled_from([0x10000, 0x1F000, 0x20000]) | st.sampled_from([0x8000, 0x30000, 0x38000, 0x40000, 0x50000])
ADDRESSES = st.builds(int.__add__, BORDERS, st.sampled_from([*range(-9, 10), *range(-24, 25, 8), -172, 172, 0x800]))
SIZES = st.integers(1, 20) | st.sampled_from([4, 8, 172, 255, 256, 257, 4096, 0x10000, 0x10001])
WORDS = st.integers(0, (1 << 64) - 1)
KEPT = WORDS | WORDS.map(lambda mask: ~mask)


def pattern(size, first):
    """That many bytes, which tell where they stand."""
    return (bytes(range(first, 252)) * (size // (252 - first) + 1))[:size]


BYTES = st.one_of(
    st.tuples(st.just("read"), ADDRESSES, SIZES),
    st.tuples(st.just("write"), ADDRESSES, st.builds(pattern, SIZES, st.integers(1, 9))),
    st.tuples(st.just("word"), ADDRESSES),
    st.tuples(st.just("update_word"), ADDRESSES, KEPT, WORDS),
)
PAGES = st.one_of(
    st.tuples(st.sampled_from(["poison", "replace"]), ADDRESSES, st.integers(1, 0x1001)),
    st.sampled_from([("take",), ("put",)]),
)


class Plain:
    """The same memory as a string of bytes, and a set of lost pages."""

    def __init__(self) -> None:
        self.data, self.lost = bytearray(END), set()
        self.taken = bytes(END)

    def look(self, gpa, size):
        if not any(low <= gpa and gpa + size <= low + length for low, length in REGIONS):
            raise GuestError
        for page in range(gpa >> 12, gpa + size + 0xFFF >> 12):
            if page in self.lost:
                raise Poisoned(max(gpa, page << 12))

    def read(self, gpa, size):
        self.look(gpa, size)
        return bytes(self.data[gpa : gpa + size])

    def write(self, gpa, data):
        self.look(gpa, len(data))
        self.data[gpa : gpa + len(data)] = data

    def word(self, gpa):
        return int.from_bytes(self.read(gpa, 8), "little")

    def update_word(self, gpa, keep, bits):
        self.write(gpa, (self.word(gpa) & keep | bits).to_bytes(8, "little"))

    def poison(self, gpa, size):
        self.lost |= set(range(gpa >> 12, gpa + size + 0xFFF >> 12))

    def replace(self, gpa, size):
        for page in range(gpa >> 12, gpa + size + 0xFFF >> 12):
            self.lost.discard(page)
            self.data[page << 12 : page + 1 << 12] = bytes(0x1000)

    def take(self):
        data = bytearray(self.data)
        for page in self.lost:
            data[page << 12 : page + 1 << 12] = bytes(0x1000)
        self.taken = bytes(data[:END])

    def put(self):
        self.data = bytearray(self.taken)


def outcome(call, *arguments):
    """What a call gave, or the error."""
    try:
        return call(*arguments)
    except Poisoned as error:
        return Poisoned, error.gpa
    except GuestError:
        return GuestError


@pytest.mark.parametrize("little", [True, False])
@given(rounds=st.lists(st.tuples(st.lists(BYTES, min_size=4), PAGES), max_size=8))
def test_it_holds_what_was_written_and_knows_what_was_lost(little, rounds):
    """``little``: whether words are read as words, as on a little-endian host, or byte by byte."""
    memory, plain = GuestMemory(), Plain()
    for low, size in REGIONS:
        memory.add_region(low, size)
    taken = memory.take()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LITTLE", little and module._LITTLE)
        for low, size in REGIONS:
            for held in (memory, plain):
                held.write(low, pattern(size, 1))
        for kind, *values in (step for most, last in rounds for step in (*most, last)):
            if kind == "take":
                taken = memory.take()
                plain.take()
            elif kind == "put":
                memory.put(taken)
                plain.put()
            else:
                assert outcome(getattr(memory, kind), *values) == outcome(getattr(plain, kind), *values), kind
        for low, size in REGIONS:
            for at in range(low, low + size, 0x1000):
                assert outcome(memory.read, at, 0x1000) == outcome(plain.read, at, 0x1000)


def test_nothing_is_read_at_negative_addresses_or_of_negative_sizes() -> None:
    memory = GuestMemory()
    memory.add_region(0, 0x20000)
    memory.write(0x10000, b"x")

    for at, size in ((-1, 1), (-8, 8), (-4, 8), (0x10000, -1), (0, -1), (1 << 64, 1)):
        with pytest.raises(GuestError, match="outside guest memory"):
            memory.read(at, size)
    with pytest.raises(GuestError, match="outside guest memory"):
        memory.word(-8)
    with pytest.raises(GuestError, match="outside guest memory"):
        memory.update_word(-8, 0, 1)
    assert memory.read(0x10000, 0) == memory.read(0, 0) == b""
    assert memory.read(0xFFFF, 3) == b"\0x\0"
