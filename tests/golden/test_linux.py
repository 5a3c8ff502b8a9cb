"""Blocks that real arm64 kernels read: our decoding against what went in, and against what they printed and did."""

from __future__ import annotations

import re
from dataclasses import fields
from uuid import UUID

import pytest

from acpi.ghes import StatusBlock
from acpi.hest import NotificationType
from acpi.image import PlacedSource
from cper.memory import PlatformMemory
from cper.record import Record
from cper.wire import WireError
from tests.golden.linux import (
    KERNELS,
    LINUX,
    PROFILES_OF,
    acted,
    acted_on,
    blocks,
    check_block_header,
    check_descriptor,
    check_entry,
    check_memory,
    check_record_header,
    comparable,
    log,
    memory_values,
    parts,
    raw,
    render,
    report,
    told,
    vectors,
    without_foreign,
)
from vmm_ras.guests.memory import GuestMemory
from vmm_ras.guests.os import GuestOs
from vmm_ras.profiles import PROFILES

READ = [n for n in blocks() if not n.startswith("bad-")]
BAD = [n for n in blocks() if n.startswith("bad-")]

REJECTED_BY_US_ONLY = {
    "bad-rawlen-wrap": "raw data offset + length passes 2^32: the kernel's sum wraps; ours is refused as truncated",
}
READ_OTHERWISE = {
    "mem-len73-bit15": "validation bit 15 in 73 bytes: the kernel refuses the section, we read the missing rank as 0",
    "mem-len76-all": "76 bytes: the kernel takes the last four of its 80 from behind the section, we read zeroes",
    "mem-len79": "79 bytes: the kernel takes the last of its 80 from behind the section, we read zero",
}


def test_the_vectors_are_all_there():
    assert len(READ) == 111
    assert len(BAD) == 20
    assert set(READ + BAD) <= set(vectors())
    assert all(len(log(kernel, name)) > 1 for kernel in KERNELS for name in READ + BAD)


def each(names, check, *args):
    """Run a check on every vector; what failed, by name."""
    failed = {}
    for name in names:
        try:
            check(name, *args)
        except AssertionError as error:
            failed[name] = str(error)
    return failed


# -- against what was put in --------------------------------------------------------------


@pytest.mark.parametrize("group", ["mem", "ent", "blk", "fatal"])
def test_decoding_gives_what_was_put_in(group):
    assert each([n for n in READ if n.startswith(group)], gives_what_was_put_in) == {}


def gives_what_was_put_in(name):
    fields = vectors()[name]["fields"]
    block = StatusBlock.decode(raw(name))
    check_block_header(block.header, fields)
    assert block.header.encode()[:4] == fields["block_status"].to_bytes(4, "little")
    assert block.raw_data.hex() == (fields["raw_data"] or "")
    assert len(block.entries) == len(fields["entries"])
    for entry, put in zip(block.entries, fields["entries"], strict=True):
        check_entry(entry.header, put)
        assert len(entry.body) == put["error_data_length"]
        if put["section_kind"] == "MEM" and put["section"].get("(section length)", 0) >= 73:
            check_memory(entry.section(), put["section"])
    assert block.encode() == raw(name)[: block.size]
    assert StatusBlock.of_plain(block.plain()) == block


def test_every_field_of_the_memory_section_is_told_apart_by_some_vector():
    """All different and non-zero, so that no two words could be confused."""
    words = {row.path for row in PlatformMemory.layout if not row.bits}
    seen = set()
    for name in ("mem-all", "mem-all-bankgroup"):
        put = vectors()[name]["fields"]["entries"][0]["section"]
        values = {k: v for k, v in memory_values(put).items() if v is not None}
        assert all(values.values())
        own = [v for k, v in values.items() if k in words]
        assert len(set(own)) == len(own)
        seen |= values.keys()
    assert seen == memory_values(put).keys()


# -- against what the kernels printed -------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernels_printed_what_we_read(kernel):
    assert each(READ, printed_what_we_read, kernel) == {}


def printed_what_we_read(name, kernel):
    printed = comparable(without_foreign(report(log(kernel, name))))
    ours = render_known(StatusBlock.decode(raw(name)))
    if name in READ_OTHERWISE:
        assert ours != printed, f"no longer different: {READ_OTHERWISE[name]}"
        return
    assert ours == printed


def render_known(block):
    """Our report; a severity that has no word stops the kernel before it prints one."""
    lines = render(block.header, parts(block)) if int(block.header.severity) < 4 else render_odd(block)
    return comparable(without_foreign(lines))


def render_odd(block):
    lines = render(block.header.model_copy(update={"severity": 0}), parts(block))
    return [line.replace("event severity: recoverable", "event severity: unknown") for line in lines]


def test_timestamps_are_printed_alike():
    """``str`` of a timestamp is what Linux prints, also where it is no time at all."""
    for name in [n for n in READ if n.startswith("ent-ts")]:
        stamp = StatusBlock.decode(raw(name)).entries[0].header.timestamp
        line = next(line for line in report(log("7.2", name)) if "tstamp" in line)
        assert str(stamp) == line.split("tstamp: ")[1]
        assert stamp.precise == (" precise" in line)


# -- blocks that are wrong --------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernels_refuse_is_refused(kernel):
    assert each(BAD, refused_alike, kernel) == {}


def refused_alike(name, kernel):
    refused = log(kernel, name)[0].startswith("[Firmware Warn]: GHES: ")
    assert refused or report(log(kernel, name))[0].startswith("Hardware error from")
    error = None
    try:
        StatusBlock.decode(raw(name))
    except WireError as found:
        error = found
    assert error is None or (error.path and error.offset is not None)
    if name in REJECTED_BY_US_ONLY:
        assert (error is not None, refused) == (True, False), f"no longer different: {REJECTED_BY_US_ONLY[name]}"
    else:
        assert (error is not None) == refused


# -- records --------------------------------------------------------------------------------


@pytest.mark.parametrize("group", sorted({n.split("-")[0] for n, v in vectors().items() if v.get("record")}))
def test_every_record_round_trips_and_says_what_was_put_in(group):
    names = [n for n, v in vectors().items() if v.get("record") and n.split("-")[0] == group]
    for name in names:
        vector = vectors()[name]
        data = (LINUX / vector["record"]["file"]).read_bytes()
        record = Record.decode(data)
        assert record.encode() == data
        assert Record.of_plain(record.plain()) == record
        assert record.gaps == ()
        assert len(data) == vector["record"]["length"]
        check_record_header(record.header, vector)
        at = 128 + 72 * len(record.sections)
        for (descriptor, body), put in zip(record.sections, vector["fields"]["entries"], strict=True):
            check_descriptor(descriptor, put, at, len(body))
            at += len(body)
            if put["section_kind"] == "MEM" and put.get("section", {}).get("(section length)", 0) >= 73:
                check_memory(PlatformMemory.of_body(body), put["section"])


# -- the model guest --------------------------------------------------------------------------

RAM = (0x4000_0000, 1 << 30)
ENDLESS = "the kernel prints bytes from behind the record without end, and never acknowledges"
MODEL_DIFFERS = {
    **{("risky-arm-ctxsize-wrap", kernel): ENDLESS for kernel in PROFILES_OF},
    ("risky-fwref-rev2-len16", "6.12.43"): ENDLESS,
}
SHOWN_AS_BYTES = re.compile(r"section type: unknown, ([0-9a-f-]{36})")


def model(name, kernel="7.2"):
    """A fresh guest of the kernel's profile reads the block from a polled GHESv2 source: (guest, ack, block status)."""
    register, ack, block = 0x4001_0000, 0x4001_0008, 0x4002_0000
    memory = GuestMemory()
    memory.add_region(*RAM)
    memory.write(register, block.to_bytes(8, "little"))
    memory.write(block, told(name))
    guest = GuestOs(memory, [], PROFILES[PROFILES_OF[kernel]])
    source = PlacedSource(
        5, NotificationType.POLLED, 0, 1000, register, block, 8192, 1, ack, 0xFFFF_FFFF_FFFF_FFFE, 1,
    )  # fmt: skip
    found = guest.read_source(source, 0.0)
    assert found == all(action.outcome != "malformed" for action in guest.actions), "a malformed block claims nothing"
    return guest, memory.read(ack, 8), memory.read(block, 4)


def test_what_the_kernels_did_is_all_there():
    assert len(acted()) == 289
    assert acted().keys() == {name for name in vectors() if not name.startswith("bert-")}
    assert sum("6.12.43" in entry for entry in acted().values()) == 78
    assert set(READ + BAD) == {name for name, entry in acted().items() if "block" not in entry}
    for name, entry in acted().items():
        for kernel, outcome in vectors()[name].get("outcome", {}).items():
            assert all(entry[kernel].get(k) == outcome.get(k) for k in ("acked", "panicked", "hardware_corrupted_kb"))


@pytest.mark.parametrize("kernel", PROFILES_OF)
def test_the_model_guest_does_what_the_kernel_did(kernel):
    assert each(acted(), does_what_the_kernel_did, kernel) == {}


def does_what_the_kernel_did(name, kernel):
    did = acted_on(name, kernel)
    guest, ack, status = model(name, kernel)
    assert bool(guest.panicked) == did["panicked"] == any("Kernel panic" in line for line in did["lines"])
    if (name, kernel) in MODEL_DIFFERS:
        assert not did["acked"], f"no longer different: {MODEL_DIFFERS[name, kernel]}"
        return
    assert did["acked"]
    assert (ack, status) == ((1).to_bytes(8, "little"), bytes(4))
    pages = did.get("hardware_corrupted_kb", 0) // 4
    failures = [line for line in did["lines"] if line.startswith("Memory failure: ")]
    lost = [re.match(r"Memory failure: 0x([0-9a-f]+): recovery action for .*: Recovered", line) for line in failures]
    named = [int(m[1], 16) for m in lost if m]
    assert guest.offlined.count == pages
    assert guest.memory_failures == len(failures)
    assert all(page in guest.offlined for page in named)
    if pages and not named:  # soft offline says nothing in the log: the page is the block's
        assert StatusBlock.decode(told(name)).entries[0].section().physical_address >> 12 in guest.offlined


@pytest.mark.parametrize("kernel", PROFILES_OF)
def test_the_kernel_knows_the_sections_of_its_profile(kernel):
    assert each([n for n in acted() if n not in BAD], knows_these_sections, kernel) == {}


def knows_these_sections(name, kernel):
    did = acted_on(name, kernel)
    if not did["acked"] or did["panicked"] or "log_lines_cut" in did:
        return  # not all of it was printed
    block = StatusBlock.decode(told(name))
    shown = {UUID(m[1]) for m in map(SHOWN_AS_BYTES.match, did["lines"]) if m}
    named = any(line.startswith("section_type: ") for line in did["lines"])
    types, known = {entry.header.section_type for entry in block.entries}, PROFILES[PROFILES_OF[kernel]].sections
    assert (shown, named) == (types - known, bool(types & known))


def test_each_kernel_differs_from_the_others_in_some_vector():
    """The profiles are told apart by what kernels did, not by their names."""
    seen = {k: {n: acted_on(n, k)["lines"] for n in acted()} for k in PROFILES_OF}
    for one in PROFILES_OF:
        for other in PROFILES_OF:
            mine, theirs = PROFILES[PROFILES_OF[one]], PROFILES[PROFILES_OF[other]]
            differ = [f.name for f in fields(mine) if f.compare and f.name not in {"name", "doc"}]
            same = all(getattr(mine, name) == getattr(theirs, name) for name in differ)
            assert same == (one == other)
            assert same == (seen[one] == seen[other])


@pytest.mark.parametrize("kernel", PROFILES_OF)
def test_the_model_guest_remembers_a_block_by_its_content(kernel):
    survived = [n for n in READ if not acted_on(n, kernel)["panicked"]]
    assert each(survived, remembers, kernel) == {}


def remembers(name, kernel):
    """By SEA an identical block is swallowed for 10 s; polled, it is handled again (ghes.c; polled seen on 7.2)."""
    for kind, repeated in ((NotificationType.SEA, "swallowed"), (NotificationType.POLLED, None)):
        guest, _, _ = model(name, kernel)
        first = [a.outcome for a in guest.drain()]
        assert first != ["swallowed"]
        source = PlacedSource(5, kind, 0, 1000, 0x4001_0000, 0x4002_0000, 8192, 1, 0x4001_0008, 0, 1)
        for now, expected in ((9.0, [repeated] if repeated else first), (20.0, first)):
            guest.memory.write(0x4002_0000, raw(name))
            guest.read_source(source, now)
            assert [a.outcome for a in guest.drain()] == expected


def test_only_what_was_printed_is_remembered():
    """Two blocks in five seconds are printed: a repetition of the third is handled (seen: three SEAs in a row)."""
    sea = PlacedSource(5, NotificationType.SEA, 0, 0, 0x4001_0000, 0x4002_0000, 8192, 1, 0x4001_0008, 0, 1)
    guest, _, _ = model("mem-recoverable-ram")
    guest.drain()
    did = []
    others = [n for n in READ if n.startswith("mem-") and n != "mem-recoverable-ram" and uncorrected(n)][:2]
    corrected = [n for n in READ if n.startswith("mem-") and not uncorrected(n)][:3]
    for name in [*others, "mem-recoverable-ram", *others, *corrected, *corrected]:
        guest.memory.write(0x4002_0000, raw(name))
        guest.read_source(sea, 4.0)
        did.append(guest.drain()[0].outcome == "swallowed")
    # printed: the first two of each class; remembered are the four that were printed
    assert did == [False, False, True, True, False, *[False] * 3, True, True, False]


def uncorrected(name):
    return StatusBlock.decode(raw(name)).header.severity == 0
