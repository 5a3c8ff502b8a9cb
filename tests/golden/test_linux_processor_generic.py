"""Processor Generic sections that real arm64 kernels read: our decoding against what went in, and what they printed."""

from __future__ import annotations

import pytest

from cper.processor_generic import ProcessorGeneric, ProcessorIsa, ProcessorOperation, ProcessorType
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import entries, printed, vectors
from tests.laws import mutants

VECTORS = [v for v in vectors("processor_generic") if v != "procgen-short"]
FIELDS = [row.path for row in sorted(ProcessorGeneric.layout, key=lambda r: r.valid or 0) if row.valid is not None]
"""In order of their validation bits; so they stand in the vectors, too."""
TYPES = {ProcessorType.IA32_X64: "IA32/X64", ProcessorType.IA64: "IA64", ProcessorType.ARM: "ARM"}
ISAS = {
    ProcessorIsa.IA32: "IA32",
    ProcessorIsa.IA64: "IA64",
    ProcessorIsa.X64: "X64",
    ProcessorIsa.ARM_A32_T32: "ARM A32/T32",
    ProcessorIsa.ARM_A64: "ARM A64",
}
OPERATIONS = {
    ProcessorOperation.UNKNOWN: "unknown or generic",
    ProcessorOperation.DATA_READ: "data read",
    ProcessorOperation.DATA_WRITE: "data write",
    ProcessorOperation.INSTRUCTION_EXECUTION: "instruction execution",
}
ERRORS = {"cache": "cache error", "tlb": "TLB error", "bus": "bus error"}
ERRORS["micro_architecture"] = "micro-architectural error"
FLAGS = {"restartable": "restartable", "precise_ip": "precise IP", "overflow": "overflow", "corrected": "corrected"}


def decoded(vector, decode=ProcessorGeneric.decode):
    """(section, what was put in) of each entry."""
    return [(decode(entry.body), put) for entry, put in entries("processor_generic", vector)]


def holds_what_was_put_in(section, put):
    for bit, name in enumerate(FIELDS):
        value = bytes.fromhex(put[name]).decode("latin-1") if name == "cpu_brand_string" else put[name]
        assert getattr(section, name) == (value if put["validation_bits"] >> bit & 1 else None), name


def words(names, flags):
    """The kernel's words for bits, in one line."""
    found = [names[name] for name in flags if isinstance(name, str)]
    return [", ".join(found)] if found else []


def render(p):
    """The lines that Linux would print of this section; it never prints the brand string."""
    out = ["section_type: general processor error"]
    for name, table in (("processor_type", TYPES), ("processor_isa", ISAS)):
        if (value := getattr(p, name)) is not None:
            out.append(f"{name}: {int(value)}, {table.get(value, 'unknown')}")
    if p.error_type is not None:
        out += [f"error_type: {p.error_type:#04x}", *words(ERRORS, p.error_type)]
    if p.operation is not None:
        out.append(f"operation: {int(p.operation)}, {OPERATIONS.get(p.operation, 'unknown')}")
    if p.flags is not None:
        out += [f"flags: {p.flags:#04x}", *words(FLAGS, p.flags)]
    if p.level is not None:
        out.append(f"level: {p.level}")
    numbers = {"version_info": p.cpu_version_info, "processor_id": p.processor_id, "target_address": p.target_address}
    numbers |= {"requestor_id": p.requestor_id, "responder_id": p.responder_id, "IP": p.instruction_ip}
    return out + [f"{name}: {value:#018x}" for name, value in numbers.items() if value is not None]


def test_the_vectors_are_all_there():
    assert sum(len(decoded(v)) for v in VECTORS) == 29
    assert len(FIELDS) == 13


@pytest.mark.parametrize("vector", VECTORS)
def test_decoding_gives_what_was_put_in(vector):
    for section, put in decoded(vector):
        holds_what_was_put_in(section, put)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("vector", VECTORS)
def test_the_kernels_printed_what_we_read(vector, kernel):
    assert [render(section) for section, _ in decoded(vector)] == [
        joined(lines) for lines in printed("processor_generic", vector, kernel)
    ]


def joined(lines):
    """Lines with the words of bits, which the kernel breaks at a column of its own, in one."""
    out = []
    for line in lines:
        if out and ":" not in line and ":" not in out[-1]:
            out[-1] += f", {line}"
        else:
            out.append(line)
    return out


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_short_section_is_refused_by_all(kernel):
    [(entry, _)] = entries("processor_generic", "procgen-short")
    assert printed("processor_generic", "procgen-short", kernel)[0][-1].endswith("error section length is too small")
    with pytest.raises(TruncatedError) as caught:
        entry.section()
    assert caught.value.offset == 191


def test_no_two_fields_of_the_section_can_be_exchanged():
    """Every mutant of the layout disagrees with what went in."""
    survivors = []
    for mutant in mutants.all_of(ProcessorGeneric):
        if mutant.layout is None:
            continue
        try:
            for vector in ("procgen-bits", "procgen-all", "procgen-types"):
                for section, put in decoded(vector, mutant.codec(ProcessorGeneric)["decode"]):
                    holds_what_was_put_in(section, put)
        except (AssertionError, AttributeError, ValueError, TypeError):
            continue
        survivors.append((mutant.kind, mutant.first, mutant.second))
    assert survivors == []
