"""Whatever was done to a migration file: it is read, or there is one error of one line, and memory stays bounded."""

from __future__ import annotations

import tracemalloc
from functools import cache

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.migration_files import VERSIONS, slim, with_serror
from vmm_ras.errors import InputError
from vmm_ras.qemu_migration.description import find_description
from vmm_ras.qemu_migration.state import plain, ras_state
from vmm_ras.qemu_migration.stream import read_migration

EDGES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0x0A, 0x10, 0x22, 0x28, 0x7E, 0x7F, 0x80, 0xFF]


@cache
def seeds() -> list[bytes]:
    """Files as QEMU wrote them, and one with a pending SError."""
    files = [slim(version, kind) for version in VERSIONS for kind in ("off", "unacked")]
    return [*files, with_serror(files[0], 1, 1, 0x11)]


class File(bytes):
    """Bytes that a failing test does not print."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def check(data: bytes) -> None:
    data = bytes(data)
    try:
        file = read_migration(data)
        orjson.dumps(plain(file, ras_state(file)))
    except InputError as error:
        assert str(error).startswith("byte ")
        assert str(error).isprintable()


@st.composite
def damaged(draw) -> bytes:
    """A real file with some of its bytes changed, lost, doubled or moved; its description may say something else."""
    data = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 6))):
        # nearly all bytes are pages: what frames them lies at the begin and the end
        at = draw(st.one_of(st.integers(0, 400), st.integers(0, len(data) - 1), st.integers(-33_000, -1))) % len(data)
        what = draw(st.sampled_from(["byte", "edge", "word", "cut", "double", "splice"]))
        if what == "byte":
            data[at] = draw(st.integers(0, 255))
        elif what == "edge":
            data[at] = draw(st.sampled_from(EDGES))
        elif what == "word":
            data[at : at + 4] = draw(st.sampled_from([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x10000, len(data)])).to_bytes(
                4, "big"
            )
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif what == "double":
            size = draw(st.integers(1, 64))
            data[at:at] = data[at : at + size]
        else:
            data[at:at] = draw(st.binary(max_size=24))
    return File(data)


@st.composite
def misdescribed(draw) -> bytes:
    """A real file whose description is JSON still, but says something else."""
    data = draw(st.sampled_from(seeds()))
    at, said = find_description(data)
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 70), st.sampled_from([1 << 31, 1 << 62]), st.text(max_size=3),
        st.just([]), st.just({}),
    )  # fmt: skip
    for _ in range(draw(st.integers(1, 4))):
        place = said
        for _ in range(draw(st.integers(1, 9))):
            if isinstance(place, dict) and place:
                key = draw(st.sampled_from(sorted(place)))
            elif isinstance(place, list) and place:
                key = draw(st.integers(0, len(place) - 1))
            else:
                break
            if isinstance(place[key], dict | list) and draw(st.integers(0, 3)):
                place = place[key]
                continue
            if draw(st.booleans()):
                place[key] = draw(odd)
            else:
                del place[key]
            break
    text = orjson.dumps(said)
    return File(data[:at] + b"\6" + len(text).to_bytes(4, "big") + text)


@given(damaged())
def test_damaged_bytes(data: bytes) -> None:
    check(data)


@given(misdescribed())
def test_another_description(data: bytes) -> None:
    check(data)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    check(data)
    check(b"QEVM\0\0\0\3" + data)


def test_counts_do_not_take_memory() -> None:
    """Each count in the frame is replaced by the largest."""
    data = seeds()[3]
    tracemalloc.start()
    try:
        for at in (*range(8, 400, 9), *range(len(data) - 32_000, len(data) - 13_000, 499)):
            check(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
