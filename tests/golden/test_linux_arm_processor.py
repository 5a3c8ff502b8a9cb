"""ARM Processor sections that real arm64 kernels read: what went in, what each of them printed, and who is wrong."""

from __future__ import annotations

import pytest

from cper.arm_context import ArmRegisterContextType, ArmSystemRegister
from cper.arm_processor import (
    ArmBusErrorInformation,
    ArmCacheErrorInformation,
    ArmErrorInformation,
    ArmProcessor,
    ArmTlbErrorInformation,
)
from cper.arm_processor_types import ArmProcessor211, ArmProcessorNumber, retyped
from cper.section import MODULES, body_of_plain, plain_body, read_section
from cper.wire import WireError
from tests.golden.linux_arm import render
from tests.golden.linux_sections import entries, family, items, printed

FAMILY = "arm_processor"
REFUSED = {
    "arm-len39": "head.running_state at 0x20: 40 bytes needed, 39 given",
    "arm-seclen-39": "head.section_length at 0x8: 39 bytes, but the head alone has 40",
    "arm-seclen-short": "contexts[0].head.register_array_size at 0x4c: 8 bytes needed, 0 given",
    "arm-ctx-toobig": "contexts[0].head.register_array_size at 0x4c: 4096 bytes needed, 8 given",
    "arm-infonum-toobig": "head.error_information_count at 0x4: 5 error_information need 160 bytes, 32 given",
}
"""Vectors whose head contradicts the body.  The kernels print what they have before they notice."""
READ = sorted(family(FAMILY).keys() - REFUSED.keys())
NUMBER = sorted(name for name in READ if "6.12.43" in family(FAMILY)[name]["log"])
"""What a kernel was told to which Type is a number."""


@pytest.mark.parametrize("vector", READ)
def test_what_went_in_is_what_we_read(vector):
    for entry, put in entries(FAMILY, vector):
        section = entry.section()
        assert section.encode() == entry.body
        assert plain_body(ArmProcessor.GUID, entry.body) == {"section": section.plain()}
        assert body_of_plain(ArmProcessor.GUID, {"section": section.plain()}) == entry.body
        head, valid = section.head, put["validation_bits"]
        counts = (head.error_information_count, head.context_information_count, head.section_length)
        assert counts == (put["err_info_num"], put["context_info_num"], put["section_length"])
        assert head.midr == put["midr_el1"]
        assert head.mpidr == (put["mpidr_el1"] if valid & 1 else None)
        assert head.affinity_level == (put["error_affinity_level"] if valid & 2 else None)
        state = (put["running_state"].to_bytes(4, "little") + put["psci_state"].to_bytes(4, "little"), valid & 4)
        assert (head.running_state and head.running_state.encode()) == (state[0] if state[1] else None)
        assert head.vendor_information_valid == bool(valid & 8)
        for information, given in zip(section.error_information, put["error_info"], strict=True):
            check_information(information, given)
        for context, given in zip(section.contexts, put["contexts"], strict=True):
            check_context(context, given)
        assert section.vendor_information.hex() == put.get("vendor_info", "")
        assert section.trailing.hex() == put.get("(bytes after section_length)", "")


def check_information(information, put):
    valid = put["validation_bits"]
    assert (information.version, information.length, int(information.type)) == (
        put["version"], put["length"], put["type"],
    )  # fmt: skip
    names = ["multiple_error", "flags", "error_information", "virtual_fault_address", "physical_fault_address"]
    for bit, name in enumerate(names):
        found = getattr(information, name)
        if found is not None and not isinstance(found, int):
            found = int.from_bytes(found.encode(), "little")
        assert found == (put[name] if valid & 1 << bit else None), name


def check_context(context, put):
    head = context.head
    assert (head.version, head.register_context_type, head.register_array_size) == (
        put["version"], put["type"], put["register_array_size"],
    )  # fmt: skip
    if "(array)" in put or not context.registers:
        return  # of a length that the type does not have: bytes
    if head.register_context_type == ArmRegisterContextType.MISC_SYSTEM_REGISTERS:
        found = [{"encoding": encoding(r), "value": r.value} for r in context.registers]
    else:
        [registers] = context.registers
        found = [value for name, value in registers if name != "residue"]
    assert found == put["registers"]
    assert not any(context.padding)


def encoding(register):
    """A register's MRS encoding, as UEFI 2.10, N.2.4.4, numbers its bits."""
    r = register
    return r.op2 | r.crm << 3 | r.crn << 7 | r.op1 << 11 | r.o0 << 14


def comparable(found):
    """A kernel's report without what it makes of no kind and of several, which stays a number here."""
    out, skip = [], False
    for item in found:
        if isinstance(item, str) and item.startswith("error_type: 0x"):
            skip = (int(item[14:16], 16) & 0x1E).bit_count() != 1
        if skip and isinstance(item, str) and item.startswith(DETAILS):
            continue
        out.append(item)
    return out


DETAILS = (
    "transaction type", "cache error, ", "TLB error, ", "bus error, ", "cache level", "TLB level", "affinity level at",
    "processor context", "the error has", "PC is", "Program execution", "participation type", "request timed",
    "address space", "memory access", "access mode",
)  # fmt: skip


@pytest.mark.parametrize("vector", [name for name in READ if not name.endswith("packed")])
def test_our_reading_is_what_7_2_printed(vector):
    for (entry, _), lines in zip(entries(FAMILY, vector), printed(FAMILY, vector, "7.2"), strict=True):
        section = entry.section()
        assert list(render(section)) == comparable(items(report(lines)))


def report(lines):
    """What a kernel printed of the section, without what it did about it."""
    stop = next((n for n, line in enumerate(lines) if line.startswith(("Memory failure", "Unhandled"))), len(lines))
    return lines[:stop]


@pytest.mark.parametrize("vector", NUMBER)
def test_our_reading_of_type_as_a_number_is_what_6_12_43_printed(vector):
    for (entry, put), lines in zip(entries(FAMILY, vector), printed(FAMILY, vector, "6.12.43"), strict=True):
        section = ArmProcessorNumber.of_body(entry.body)
        assert section.encode() == entry.body
        assert ArmProcessorNumber.of_plain(section.plain()) == section
        assert ArmProcessorNumber.plain_of_body(entry.body) == section.plain()
        found = items(report(lines))
        if vector == "arm-full-ordinal":  # this kernel takes the padding for a context: see below
            found = found[: found.index("Context info structure 0:")]
            assert list(render(section, number=True))[: len(found)] == found
        else:
            assert list(render(section, number=True)) == found
        for information, given in zip(section.error_information, put["error_info"], strict=True):
            check_information(information, given)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("name", ["arm-ctx-all", "arm-ctx8-ctx4"])
def test_contexts_are_found_with_padding_and_without(kernel, name):
    """UEFI pads each to 16 bytes (N.2.4.4): 7.2 reads only that.  6.1 and 6.12 are wrong: they read them packed."""
    without = f"{name}-packed"
    padded = name if name == "arm-ctx-all" else f"{name}-padded"
    [(one, _)], [(other, _)] = entries(FAMILY, without), entries(FAMILY, padded)
    one, other = one.section(), other.section()
    assert [c.registers for c in one.contexts] == [c.registers for c in other.contexts]
    assert (one.contexts[0].padding, other.contexts[0].padding) == (b"", bytes(8 if name == "arm-ctx-all" else 14))
    for section, vector, right, wrong in [(one, without, kernel, "7.2"), (other, padded, "7.2", kernel)]:
        ours = list(render(section))
        assert items(printed(FAMILY, vector, right)[0])[: len(ours)] == ours  # behind it the last context's padding
        assert items(printed(FAMILY, vector, wrong)[0])[: len(ours)] != ours


@pytest.mark.parametrize("vector", REFUSED)
def test_what_the_head_contradicts_is_one_error(vector):
    [(entry, _)] = entries(FAMILY, vector)
    with pytest.raises(WireError) as caught:
        read_section(ArmProcessor.GUID, entry.body)
    assert str(caught.value) == f"ArmProcessor.{REFUSED[vector]}"
    plain = plain_body(ArmProcessor.GUID, entry.body)
    assert plain == {"body": entry.body.hex(), "error": f"ArmProcessor.{REFUSED[vector]}"}
    log = " ".join(family(FAMILY)[vector]["log"]["7.2"])
    assert "section length is too small" in log or "context info structure overflow" in log or "too small" in log


ERRORS = [
    ArmCacheErrorInformation(error_information={"operation": "snooped", "level": 1}, flags=["first", "overflow"]),
    ArmTlbErrorInformation(error_information={"operation": "external_management"}, multiple_error=3),
    ArmBusErrorInformation(error_information={"address_space": "device_memory", "time_out": True}),
    ArmErrorInformation(type=["micro_architecture"], error_information=7),
]


class TestTheMeaningOfType:
    """Three encodings, and nothing in the bytes to tell them apart (spec: UEFI 2.10 and 2.11, N.2.4.4, Type)."""

    @pytest.mark.parametrize(
        ("cls", "values"),
        [(ArmProcessor, [2, 4, 8, 16]), (ArmProcessor211, [1, 2, 4, 8]), (ArmProcessorNumber, [0, 1, 2, 3])],
    )
    def test_one_section_in_every_encoding(self, cls, values):
        given = ArmProcessor.of(ERRORS, vendor_information=b"vendor", midr=0x410FD0C1)
        found = retyped(given, cls)
        assert (
            [int(e.type) for e in found.error_information] == values == [e.encode()[4] for e in found.error_information]
        )
        details = [e.error_information for e in given.error_information]
        assert [e.error_information for e in found.error_information] == details
        assert cls.of_body(found.encode()) == found
        assert retyped(found, ArmProcessor) == given

    def test_the_same_bytes_read_three_ways(self):
        body = ArmProcessor.of(ERRORS).encode()
        assert [type(e).__name__[3:6] for e in ArmProcessor.of_body(body).error_information] == [
            "Cac",
            "Tlb",
            "Bus",
            "Err",
        ]
        found = ArmProcessor211.of_body(body).error_information
        assert [type(e).__name__[3:6] for e in found] == ["Tlb", "Bus", "Err", "Err"]
        found = ArmProcessorNumber.of_body(body).error_information
        assert [type(e).__name__[3:6] for e in found] == ["Bus", "Err", "Err", "Err"]

    def test_a_registry_may_name_another(self, monkeypatch):
        monkeypatch.setitem(MODULES, ArmProcessor.GUID, "cper.arm_processor_types:ArmProcessor211")
        monkeypatch.setattr("cper.section._classes", {})
        body = ArmProcessor.of(ERRORS).encode()
        assert isinstance(read_section(ArmProcessor.GUID, body), ArmProcessor211)
        assert plain_body(ArmProcessor.GUID, body)["section"]["error_information"][0]["type"] == ["tlb"]

    def test_what_has_no_number_is_refused(self):
        both = ArmProcessor.of([ArmErrorInformation(type=["cache", "tlb"])])
        with pytest.raises(ValueError, match="2 kinds"):
            retyped(both, ArmProcessorNumber)
        assert int(retyped(both, ArmProcessor211).error_information[0].type) == 3
        with pytest.raises(ValueError, match="32"):
            retyped(ArmProcessor.of([ArmErrorInformation(type=[32])]), ArmProcessor211)


def test_it_is_made_with_the_right_counts_and_length():
    made = ArmProcessor.of(ERRORS, vendor_information=b"abc", mpidr=1)
    assert made.head.section_length == 40 + 4 * 32 + 3
    assert (made.head.error_information_count, made.head.vendor_information_valid) == (4, True)
    assert ArmProcessor.of_body(made.encode() + b"x").trailing == b"x"


def test_a_system_register_is_named_by_its_encoding():
    """TPIDR_EL1 is S3_0_C13_C0_4: op0 3, which is o0 1."""
    register = ArmSystemRegister(o0=1, op1=0, crn=13, crm=0, op2=4, value=5)
    assert int.from_bytes(register.encode()[:2], "little") == 0xC684 & 0x7FFF
    assert register.encode()[2:] == (5).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"error_information": []}, "counts and lengths|need"),
        (
            {"contexts": [{"head": {"register_context_type": 77, "register_array_size": 4}, "registers": [{}]}]},
            "type 77",
        ),
        ({"error_information": [{"type": "no_such"}]}, "no_such"),
    ],
)
def test_json_that_contradicts_itself_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        ArmProcessor.of_plain(ArmProcessor.of(ERRORS).plain() | change)
