"""IA32/X64 Processor sections, which no arm64 kernel decodes: against what went in and what was dumped; the framing."""

from __future__ import annotations

from uuid import UUID

import pytest

from cper.ia32x64 import (
    BusErrorInformation,
    CacheErrorInformation,
    Ia32X64Processor,
    MsErrorInformation,
    OtherErrorInformation,
    TlbErrorInformation,
)
from cper.ia32x64_check import BusCheck, CacheCheck, MsCheck
from cper.ia32x64_context import ContextHead, Ia32Registers, MsrValue, ProcessorContext, X64Registers
from cper.section import body_of_plain, plain_body
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import dumped, entries, printed

[(ENTRY, PUT)] = entries("ia32x64", "ia-all")
KINDS = {"cache": CacheErrorInformation, "tlb": TlbErrorInformation, "bus": BusErrorInformation}
KINDS["ms"] = MsErrorInformation


def test_the_head_holds_what_was_put_in():
    head = ENTRY.section().head
    assert (head.error_information_count, head.context_count) == (len(PUT["error_info"]), len(PUT["contexts"]))
    assert head.local_apic_id == PUT["apic_id"]
    assert head.cpuid.encode().hex() == PUT["cpuid"]
    words = [int.from_bytes(bytes.fromhex(PUT["cpuid"])[at : at + 8], "little") for at in (0, 8, 16, 24)]
    assert [head.cpuid.eax, head.cpuid.ebx, head.cpuid.ecx, head.cpuid.edx] == words
    assert len(set(words)) == 4


def test_each_error_information_holds_what_was_put_in():
    found = ENTRY.section().error_information
    assert len(found) == 4
    for info, put in zip(found, PUT["error_info"], strict=True):
        assert type(info) is KINDS[put["check"]]
        assert info.structure_type == UUID(put["structure_type"])
        numbers = (info.target_id, info.requestor_id, info.responder_id, info.instruction_pointer)
        assert numbers == tuple(put[k] for k in ("target_id", "requestor_id", "responder_id", "ip"))
        assert int.from_bytes(info.check_information.encode(), "little") == put["check_info"]
    cache, _, _, ms = (info.check_information for info in found)
    assert cache.plain() == {"transaction_type": "generic", "operation": "generic_read", "level": 3}
    assert (ms.error_type.plain, ms.context_corrupt, ms.overflow) == ("microcode_rom_parity", False, False)


def test_the_context_holds_what_was_put_in():
    [context], [put] = ENTRY.section().contexts, PUT["contexts"]
    head = context.head
    assert (head.register_context_type, head.register_array_size, head.msr_address) == (
        put["type"],
        put["size"],
        put["msr"],
    )
    assert [r.value for r in context.registers] == [0xC0DE0000 + n for n in range(4)]
    assert b"".join(r.encode() for r in context.registers).hex() == put["registers"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernels_dumped_is_what_we_write(kernel):
    section = ENTRY.section()
    assert dumped(printed("ia32x64", "ia-all", kernel)[0]) == section.encode()
    assert Ia32X64Processor.of_plain(section.plain()).encode() == section.encode()


@pytest.mark.parametrize(
    ("check", "word"),
    [  # by hand from the tables: valid bits below, value bits above
        (CacheCheck(transaction_type=1), 0x0001 | 1 << 16),
        (CacheCheck(operation="snoop"), 0x0002 | 8 << 18),
        (CacheCheck(level=5), 0x0004 | 5 << 22),
        (CacheCheck(context_corrupt=True), 0x0008 | 1 << 25),
        (CacheCheck(uncorrected=True), 0x0010 | 1 << 26),
        (CacheCheck(precise_ip=True), 0x0020 | 1 << 27),
        (CacheCheck(restartable_ip=True), 0x0040 | 1 << 28),
        (CacheCheck(overflow=True), 0x0080 | 1 << 29),
        (BusCheck(participation_type="generic"), 0x0100 | 3 << 30),
        (BusCheck(time_out=True), 0x0200 | 1 << 32),
        (BusCheck(address_space="other"), 0x0400 | 3 << 33),
        (MsCheck(error_type=5), 0x0001 | 5 << 16),
        (MsCheck(overflow=True), 0x0020 | 1 << 23),
    ],
)
def test_a_check_is_the_word_of_the_table(check, word):
    assert int.from_bytes(check.encode(), "little") == word


def info(kind=CacheErrorInformation, **fields):
    return kind(target_id=0x1000, **fields)


def context(kind, size, array, **fields):
    head = ContextHead(register_context_type=kind, register_array_size=size, **fields)
    return ProcessorContext(head, *array, padding=bytes(-size % 16))


X64 = X64Registers.decode(bytes(range(244)))
IA32 = Ia32Registers.decode(bytes(range(92)))


class TestTheFraming:
    """Variable counts and lengths."""

    def test_contexts_of_every_form_are_read_where_they_lie(self):
        other = info(OtherErrorInformation, structure_type=UUID(int=7), check_information=5)
        section = Ia32X64Processor.of(
            [info(), other],
            [
                context("ia32", 92, [(IA32,)]),
                context("x64", 244, [(X64,)]),
                context("msr", 16, [(MsrValue(value=1), MsrValue(value=2))], msr_address=0x400),
                context("msr", 12, [(), bytes(range(12))]),
                context("x64", 236, [(), bytes(236)]),
                context("fxsave", 512, [(), bytes(512)]),
                context(99, 0, [()]),
            ],
            local_apic_id=3,
        )
        body = section.encode()
        assert Ia32X64Processor.of_body(body) == section
        assert Ia32X64Processor.of_plain(section.plain()) == section
        assert (section.head.error_information_count, section.head.context_count) == (2, 7)
        starts = [at for path, at, _ in section.parts() if path.endswith("].head")]
        sizes = [16 + n + -n % 16 for n in (92, 244, 16, 12, 236, 512)]
        assert starts == [64 + 2 * 64 + sum(sizes[:n]) for n in range(7)]

    def test_what_lies_behind_is_kept(self):
        body = Ia32X64Processor.of([info()]).encode() + b"behind"
        found = Ia32X64Processor.of_body(body)
        assert found.trailing == b"behind"
        assert found.encode() == body

    def test_a_last_context_needs_no_padding(self):
        body = Ia32X64Processor.of(contexts=[context("ia32", 92, [(IA32,)])]).encode()[:-4]
        found = Ia32X64Processor.of_body(body)
        assert (found.contexts[0].padding, found.contexts[0].registers) == (b"", (IA32,))
        assert found.encode() == body

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (bytes(63), "head.cpuid at 0x10: 64 bytes needed, 63 given"),
            (
                b"\xfc" + bytes(63 + 64),
                "head.error_information_count at 0x0: 63 error_information need 4032 bytes, 64 given",
            ),
            (
                b"\0\1" + bytes(62 + 15),
                "contexts[0].head.mm_register_address at 0x48: 16 bytes needed, 15 given",
            ),
            (
                b"\0\2" + bytes(62 + 16) + b"\3\0\xf4\0" + bytes(12 + 243),
                "contexts[1].head.register_array_size at 0x52: 244 bytes needed, 243 given",
            ),
        ],
    )
    def test_what_is_missing_is_one_error_with_its_place(self, body, text):
        with pytest.raises(TruncatedError) as caught:
            Ia32X64Processor.of_body(body)
        assert str(caught.value) == f"Ia32X64Processor.{text}"
        plain = plain_body(Ia32X64Processor.GUID, body)
        assert plain == {"body": body.hex(), "error": f"Ia32X64Processor.{text}"}
        assert body_of_plain(Ia32X64Processor.GUID, plain) == body

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"error_information": []}, "1 error_information need"),
            ({"contexts": [{"head": {}, "no_such": 1}]}, "ProcessorContext has no 'no_such'"),
            ({"error_information": [{"structure_type": "no guid"}]}, "structure_type"),
            (
                {"contexts": [{"head": {"register_context_type": 3, "register_array_size": 8}, "registers": [{}]}]},
                "X64Registers",
            ),
        ],
    )
    def test_json_that_contradicts_itself_is_refused(self, change, text):
        with pytest.raises(ValueError, match=text):
            Ia32X64Processor.of_plain(Ia32X64Processor.of([info()]).plain() | change)
