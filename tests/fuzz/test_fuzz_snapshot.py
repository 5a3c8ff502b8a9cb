"""Whatever the bytes are, a snapshot is refused in one line or is one; the long run is ``tests.fuzz.snapshots``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.snapshots import PARTS, SAMPLE, Target, fuzz, one_line, packed
from vmm_ras.errors import SnapshotError, path_text
from vmm_ras.snapshot.container import MAGIC, Part, encode

check = Target().check


def test_mutants_do_no_harm() -> None:
    done = fuzz(5, 400).results

    assert done.total() == 400
    assert done["JSON values: taken"] > 5
    assert done["JSON values: refused"] > 15
    assert done["JSON text: refused"] > 20
    assert done["bytes: refused"] > 150
    assert done["directory: refused"] > 20


def test_a_mutant_with_right_checksums_is_what_the_container_makes() -> None:
    assert packed(PARTS.values()) == encode(PARTS.values()) == SAMPLE


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(data: bytes, magic: bool) -> None:
    assert check(MAGIC + data if magic else data) == "refused"


@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_any_byte_flipped(at: int, mask: int) -> None:
    assert check(SAMPLE[:at] + bytes((SAMPLE[at] ^ mask,)) + SAMPLE[at + 1 :]) == "refused"


@given(st.integers(0, len(SAMPLE) - 1))
def test_any_truncation(length: int) -> None:
    assert check(SAMPLE[:length]) == "refused"


def test_a_key_of_controls_is_told_in_print() -> None:
    parts = PARTS | {"records": Part("records", PARTS["records"].body.replace(b"dropped", b"dro\\u001bpped"))}

    assert check(packed(parts.values())) == "refused"
    assert one_line(SnapshotError(path_text(["a\x1b[31m" * 99, 0]))) == "refused"
