"""The stream of a moving guest, taken as hostile: whatever is not the whole of what was sent is refused in one line."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm_ras.errors import SnapshotError
from vmm_ras.snapshot import stream
from vmm_ras.snapshot.container import Part, crc32c, encode
from vmm_ras.snapshot.stream import HEADER, MAX_RAM, START, Lost, Memory

U64 = st.integers(0, (1 << 64) - 1)
ITEMS = st.lists(
    st.one_of(st.builds(Memory, U64, st.binary(max_size=200)), st.builds(Lost, U64, U64)), max_size=8
)  # fmt: skip
SENT = [Memory(0x4000_0000, b"code"), Lost(0x4000_5000, 4096), Memory(0x4010_0000, bytes(range(256)))]


def sent(snapshot=b"snap", items=SENT):
    out = bytearray()
    size = stream.send(out.extend, snapshot, items)
    assert size == len(out)
    return bytes(out)


def taken(data, most=7):
    """What is read, by calls that give at most ``most`` bytes."""
    file = io.BytesIO(data)
    snapshot, memory = stream.receive(lambda size: file.read(min(size, most)))
    return snapshot, list(memory), file.read()


@given(st.binary(max_size=300), ITEMS, st.binary(max_size=20))
def test_what_is_sent_is_received_and_nothing_behind_it_is_read(snapshot, items, behind):
    assert taken(sent(snapshot, items) + behind) == (snapshot, items, behind)


def test_every_byte_counts():
    data = sent(encode([Part("clock", b"{}")]))
    for at in range(len(data)):
        for value in (data[at] ^ 1, data[at] ^ 0x80, 0, 255):
            if value != data[at]:
                with pytest.raises(SnapshotError, match=r"^stream: [^\n]+$"):
                    taken(data[:at] + bytes([value]) + data[at + 1 :])


def test_every_truncation_is_refused():
    data = sent()
    for size in range(len(data)):
        with pytest.raises(SnapshotError, match=r"^stream: ends in [^\n]+$"):
            taken(data[:size])


def frames(data):
    """The start, and each frame."""
    out, at = [data[: START.sizeof()]], START.sizeof()
    while at < len(data):
        length = HEADER.parse(data[at:]).body.value.length
        out.append(data[at : at + 24 + length])
        at += 24 + length
    return out


@given(st.permutations(range(5)), st.sampled_from(["swap", "drop", "twice"]), st.integers(0, 4))
@settings(deadline=None)
def test_frames_that_are_swapped_missing_or_twice_are_refused(order, how, which):
    start, *parts = frames(sent())
    if how == "swap":
        changed = [parts[n] for n in order]
    elif how == "drop":
        changed = parts[:which] + parts[which + 1 :]
    else:
        changed = parts[: which + 1] + parts[which:]
    whole = b"".join([start, *changed])
    if changed == parts or (how == "twice" and which == 4):  # the end twice: nothing is read behind the first
        assert taken(whole)[1] == SENT
    else:
        with pytest.raises(SnapshotError, match=r"^stream: "):
            taken(whole)


def test_an_end_of_another_stream_is_refused():
    mine, other = frames(sent()), frames(sent(b"other"))
    with pytest.raises(SnapshotError, match="missing, or swapped"):
        taken(b"".join([*mine[:-1], other[-1]]))


def test_a_length_takes_no_memory():
    """A header may claim 256 MiB: nothing of that is there before it came."""
    value = {"kind": stream.SNAPSHOT, "length": stream.MAX_SNAPSHOT, "gpa": 0, "crc32c": 0}
    data = START.build({"version": 1}) + HEADER.build({"body": {"value": value}}) + bytes(1000)
    tracemalloc.start()
    with pytest.raises(SnapshotError, match="ends in frame 0"):
        taken(data, 1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


@pytest.mark.parametrize(
    ("kind", "length", "what"),
    [
        (stream.SNAPSHOT, stream.MAX_SNAPSHOT + 1, "at most 268435456"),
        (stream.RAM, MAX_RAM + 1, "at most 1048576"),
        (stream.END, 5, "at most 4"),
        (stream.LOST, 9, "at most 8"),
        (77, 1, "at most 0"),
    ],
)
def test_a_frame_has_its_size(kind, length, what):
    value = {"kind": kind, "length": length, "gpa": 0, "crc32c": 0}
    data = START.build({"version": 1}) + HEADER.build({"body": {"value": value}})
    with pytest.raises(SnapshotError, match=what):
        taken(data)


def test_what_no_reader_takes_is_not_sent():
    with pytest.raises(SnapshotError, match="at most"):
        sent(items=[Memory(0, bytes(MAX_RAM + 1))])


def test_another_version_is_refused():
    with pytest.raises(SnapshotError, match="version 2, expected 1"):
        taken(START.build({"version": 2}) + sent()[START.sizeof() :])
    with pytest.raises(SnapshotError, match="begins with"):
        taken(b"QEVM" + bytes(50))


def test_the_crc_is_over_all_crcs_before():
    data = frames(sent())
    crcs = b"".join(crc32c(frame[24:]).to_bytes(4, "little") for frame in data[1:-1])
    assert data[-1][24:] == crc32c(crcs).to_bytes(4, "little")
