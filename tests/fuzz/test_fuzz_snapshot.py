"""Whatever the bytes are, a snapshot is refused in one line or is one; the long run is ``tests.fuzz.snapshots``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.snapshots import SAMPLE, Target, fuzz
from vmm_ras.snapshot.container import MAGIC

check = Target().check


def test_mutants_do_no_harm() -> None:
    done = fuzz(5, 400)

    assert sum(done.values()) == 400
    assert done["JSON values: taken"] > 5
    assert done["JSON values: refused"] > 25
    assert done["bytes: refused"] > 200


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(data: bytes, magic: bool) -> None:
    assert check(MAGIC + data if magic else data) == "refused"


@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_any_byte_flipped(at: int, mask: int) -> None:
    assert check(SAMPLE[:at] + bytes((SAMPLE[at] ^ mask,)) + SAMPLE[at + 1 :]) == "refused"


@given(st.integers(0, len(SAMPLE) - 1))
def test_any_truncation(length: int) -> None:
    assert check(SAMPLE[:length]) == "refused"
