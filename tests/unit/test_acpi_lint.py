"""Lint: each objection is raised by the table that deserves it, at its place, and by nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.aest import Aest, AestNode
from acpi.aest_interface import AestInterface, AestInterface4k, AestInterruptV2
from acpi.aest_parts import AestGic, AestMemory, AestProxy
from acpi.bert import Bert
from acpi.ccel import Ccel
from acpi.einj import Einj, EinjAction, EinjEntry
from acpi.einj_device import einj_table
from acpi.error_source import NmiSource, PcieDeviceAer, SourceFlags
from acpi.erst import Erst, ErstAction, ErstEntry
from acpi.erst import ErstInstruction as I
from acpi.erst_device import erst_table
from acpi.finding import Level
from acpi.frame import RawTable, new_header
from acpi.gas import GenericAddress
from acpi.hest import (
    GenericHardwareErrorSource,
    GenericHardwareErrorSourceV2,
    HardwareErrorNotification,
    Hest,
    NotificationType,
    OpaqueSource,
)
from acpi.lint import lint
from acpi.machine_check import CorrectedMachineCheck, MachineCheckBank, MachineCheckException, MachineCheckSource
from acpi.presets import PRESETS
from acpi.ras2 import Ras2, Ras2PccDescriptor
from acpi.rasf import Rasf
from acpi.sdei import Sdei
from acpi.table import TableHeader, seal

N = NotificationType
ERROR, WARNING, NOTE = Level.ERROR, Level.WARNING, Level.NOTE


def notify(kind=N.POLLED, poll=100, **given):
    return HardwareErrorNotification(type=kind, poll_interval_ms=poll, **given)


def v2(source_id=0, notification=None, **given):
    values = {
        "error_status_address": GenericAddress(address=0x1000 + 16 * source_id),
        "read_ack_register": GenericAddress(address=0x1008 + 16 * source_id),
        "error_status_block_length": 4096,
    }
    return GenericHardwareErrorSourceV2(source_id=source_id, notification=notification or notify(), **values | given)


def v1(source_id=0, notification=None, **given):
    values = {
        "error_status_address": GenericAddress(address=0x1000 + 16 * source_id),
        "error_status_block_length": 4096,
    }
    return GenericHardwareErrorSource(source_id=source_id, notification=notification or notify(), **values | given)


def checks(source_id=1, flags=0, banks=(0, 1), kind=MachineCheckException, **given):
    header = kind(source_id=source_id, flags=SourceFlags(flags), **given)
    return MachineCheckSource.of(
        header, [b if isinstance(b, MachineCheckBank) else MachineCheckBank(bank_number=b) for b in banks]
    )


def hest(*sources, revision=2, **given):
    return Hest(tuple(sources), new_header("HEST", revision), **given)


def gas(address=0x1000, **given):
    return GenericAddress(address=address, **given)


def found(*tables, linux=True):
    return [(f.level, f.path, f.offset) for f in lint(*tables, linux=linux)]


GOOD = [
    hest(v2(0, notify(N.SEA)), v2(1, notify(N.SDEI, vector=5)), v2(2), v1(3, notify(N.GSIV, vector=53)), revision=1),
    hest(checks(), NmiSource(source_id=2), PcieDeviceAer(source_id=3), PcieDeviceAer(source_id=4, bus=1)),
    Bert.of(boot_error_region_length=4096, boot_error_region=0x1000),
    Sdei.of(),
    Rasf.of(),
    Ccel.of(cc_type=4, log_area_minimum_length=1, log_area_start_address=2),
    Ras2.of([Ras2PccDescriptor(pcc_subspace_id=1), Ras2PccDescriptor(pcc_subspace_id=2, instance=1)]),
    erst_table(0x9000000),
    einj_table(0x9000000, 0x8000000, einjv2=True),
    Aest(
        (
            AestNode.of(
                AestMemory(srat_proximity_domain=1), AestInterface4k(type=1, address=0x1000, error_record_count=2),
                [AestInterruptV2(type=0, gsiv=40)],
            ),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("table", GOOD, ids=lambda t: type(t).__name__)
def test_nothing_is_said_of_a_good_table(table):
    assert [str(f) for f in lint(table)] == []
    assert lint(table.build(), linux=False) == []


def test_our_presets_are_good_but_for_sei():
    for name, preset in PRESETS.items():
        texts = [str(f) for f in lint(preset.place(0x8000_0000).region("hest")[1])]
        silent = [
            text for text in texts if "Linux takes no SEI: the source stays silent (Linux 7.2 ghes_probe)" in text
        ]
        shared = [text for text in texts if "(Linux 7.2 ghes_notify_sea)" in text]
        assert len(silent) == (name in {"all", "conformance"})
        assert len(shared) == (name == "conformance"), "two sources for SEA"
        assert texts == silent + shared


SOURCE_RULES = [
    (v2(enabled=0), NOTE, "enabled", 7, "the source is disabled"),
    (v2(enabled=2), NOTE, "enabled", 7, "neither 0 nor 1"),
    (v2(flags=1), WARNING, "flags", 6, "0x1 is reserved"),
    (v2(records_to_preallocate=0), WARNING, "records_to_preallocate", 8, "less than 1"),
    (v2(max_sections_per_record=0), WARNING, "max_sections_per_record", 12, "less than 1"),
    (v2(error_status_block_length=19), ERROR, "error_status_block_length", 60, "19 bytes cannot hold"),
    (v2(error_status_block_length=65537), WARNING, "error_status_block_length", 60, "Linux reads 65536"),
    (v2(error_status_address=gas(0)), ERROR, "error_status_address", 20, "the address is 0"),
    (v2(error_status_address=gas(address_space=2)), ERROR, "error_status_address", 20, "pci_config is neither"),
    (v2(error_status_address=gas(address_space=1)), WARNING, "error_status_address", 20, "is not system memory"),
    (v2(error_status_address=gas(access_size=0)), ERROR, "error_status_address", 20, "access size 0"),
    (v2(error_status_address=gas(bit_width=32)), WARNING, "error_status_address", 21, "not 0 to 64"),
    (v2(error_status_address=gas(0x1004)), WARNING, "error_status_address", 24, "not aligned to 8"),
    (v2(error_status_address=gas(bit_width=64, bit_offset=8)), ERROR, "error_status_address", 20, "pass an access"),
    (v2(notification=notify(length=27)), WARNING, "notification.length", 33, "27 bytes, not 28"),
    (
        v2(notification=notify(configuration_write_enable=64)), WARNING, "notification.configuration_write_enable", 34,
        "reserved",
    ),
    (v2(notification=notify(poll=0)), ERROR, "notification.poll_interval_ms", 36, "Linux disables the source"),
    (v2(notification=notify(N.SDEI)), ERROR, "notification.vector", 40, "event 0"),
    (v2(notification=notify(N.GSIV)), WARNING, "notification.vector", 40, "interrupt 0"),
    (v2(notification=notify(N.EXTERNAL_INTERRUPT)), WARNING, "notification.vector", 40, "interrupt 0"),
    (v2(notification=notify(N.SEI)), ERROR, "notification.type", 32, "Linux takes no SEI"),
    (v2(notification=notify(N.SSE)), ERROR, "notification.type", 32, "Linux takes no SSE"),
    (v2(notification=notify(N.LOCAL_INTERRUPT)), ERROR, "notification.type", 32, "local interrupts"),
    (v2(notification=notify(N.CMCI)), ERROR, "notification.type", 32, "CMCI"),
    (v2(notification=notify(N.MCE)), ERROR, "notification.type", 32, "MCE"),
    (v2(notification=notify(N.NMI)), WARNING, "notification.type", 32, "only x86"),
    (v2(notification=notify(13)), ERROR, "notification.type", 32, "type 13 is reserved"),
    (v2(read_ack_write=0), ERROR, "read_ack_write", 84, "never learns"),
    (v2(read_ack_preserve=3, read_ack_write=6), WARNING, "read_ack_preserve", 76, "bits 0x2 are both kept and set"),
    (v2(read_ack_register=gas(address_space=3)), ERROR, "read_ack_register", 64, "embedded_controller is neither"),
    (v2(read_ack_register=gas(0x1000)), ERROR, "read_ack_register", 64, "overwrite the block's address"),
    (v2(related_source_id=9), WARNING, "related_source_id", 4, "there is no source 9"),
    (checks(flags=5), ERROR, "flags", 6, "GHES_ASSIST counts only without FIRMWARE_FIRST"),
    (checks(flags=4), WARNING, "flags", 6, "no generic source is related"),
    (checks(flags=2), WARNING, "flags", 6, "global is reserved"),
    (checks(flags=8), WARNING, "flags", 6, "8 is reserved"),
    (checks(banks=(3, 3)), WARNING, "banks[1].bank_number", 68, "bank 3 is there already"),
    (
        checks(banks=(MachineCheckBank(bank_number=1, status_data_format=3),)), WARNING,
        "banks[0].status_data_format", 42, "unknown",
    ),
    (
        checks(banks=(MachineCheckBank(bank_number=1, clear_status_on_initialization=2),)), WARNING,
        "banks[0].clear_status_on_initialization", 41, "neither 0 nor 1",
    ),
    (
        checks(flags=1, banks=(), kind=CorrectedMachineCheck, notification=notify()), WARNING, "bank_count", 44,
        "FIRMWARE_FIRST without a bank",
    ),
    (
        checks(kind=CorrectedMachineCheck, notification=notify(13)), ERROR, "notification.type", 16, "is reserved",
    ),
    (PcieDeviceAer(source_id=1, flags=4), WARNING, "flags", 6, "ghes_assist is reserved"),
    (PcieDeviceAer(source_id=1, flags=2, bus=1), NOTE, "bus", 16, "the device is ignored"),
    (PcieDeviceAer(source_id=1, flags=2, segment=1), NOTE, "bus", 16, "the device is ignored"),
    (PcieDeviceAer(source_id=1, flags=2, device=1), NOTE, "bus", 16, "the device is ignored"),
    (PcieDeviceAer(source_id=1, flags=2, function=1), NOTE, "bus", 16, "the device is ignored"),
    (NmiSource.decode(bytes.fromhex("0200000001000000") + b"\1\0\0\0" * 3), WARNING, "", 4, "reserved bits are set"),
    (OpaqueSource(bytes.fromhex("0c000400")), ERROR, "type", 0, "Linux drops the whole table"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "level", "path", "offset", "text"), SOURCE_RULES)
def test_rules_of_one_source(source, level, path, offset, text):
    findings = lint(hest(source))
    full = f"sources[0].{path}" if path else "sources[0]"
    match = [f for f in findings if f.path == full and text in f.text]
    assert len(match) == 1, [str(f) for f in findings]
    assert (match[0].level, match[0].table, match[0].offset) == (level, "HEST", 40 + offset)
    assert match[0].clause
    rest = [f for f in findings if f is not match[0]]
    assert all(f.path.startswith("sources[0]") for f in rest)
    assert len(rest) <= 1, [str(f) for f in findings]


@pytest.mark.parametrize(("source", "level", "path", "offset", "text"), SOURCE_RULES)
def test_linux_objections_name_a_function_and_the_others_a_clause(source, level, path, offset, text):
    for finding in lint(hest(source)):
        assert finding.clause.startswith(("Linux 7.2 ", "ACPI 6.5, 18.3.2", "DEN0054"))
    assert all("Linux" not in f.clause + f.text or "Linux" in f.text for f in lint(hest(source), linux=False))
    assert not any(f.clause.startswith("Linux") for f in lint(hest(source), linux=False))


class TestSeveralSources:
    def test_duplicate_ids(self):
        findings = lint(hest(v2(1), v2(1, error_status_address=gas(0x2000))))
        assert [(f.level, f.path, f.offset) for f in findings] == [(ERROR, "sources[1].source_id", 40 + 92 + 2)]
        assert "drops every generic source" in findings[0].text
        assert found(hest(v2(1), v2(1, error_status_address=gas(0x2000), enabled=0)))[1:] == [
            (WARNING, "sources[1].source_id", 134)
        ]
        assert found(hest(checks(1), v2(1))) == [(WARNING, "sources[1].source_id", 138)]
        assert found(hest(v2(1), v2(1, error_status_address=gas(0x2000))), linux=False) == [
            (WARNING, "sources[1].source_id", 134)
        ]

    def test_several_sea_sources(self):
        table = hest(*[v2(i, notify(N.SEA)) for i in range(3)])
        assert found(table) == [
            (WARNING, f"sources[{i}].notification.type", 40 + 92 * i + 32) for i in (1, 2)
        ]  # fmt: skip
        assert found(table, linux=False) == []
        assert found(hest(v2(0, notify(N.SEA)), v2(1, notify(N.SEA), enabled=0))) == [
            (NOTE, "sources[1].enabled", 139)
        ]  # fmt: skip

    def test_two_sources_of_one_register(self):
        table = hest(v2(0), v2(1, error_status_address=gas(0x1000)))
        assert found(table) == [(WARNING, "sources[1].error_status_address", 40 + 92 + 24)]

    def test_a_source_that_assists(self):
        table = hest(checks(1, 4), v2(0, related_source_id=1))
        assert found(table) == [(NOTE, "sources[1].related_source_id", 40 + 96 + 4)]
        assert found(table, linux=False) == []

    def test_counts_and_bytes_behind(self):
        assert found(hest()) == [(NOTE, "error_source_count", 36)]
        assert found(hest(v2(), trailing=b"x")) == [(WARNING, "error_source_count", 36)]
        raw = hest(v2()).build()
        assert found(seal(TableHeader.decode(raw), (2).to_bytes(4, "little") + raw[40:])) == [
            (ERROR, "sources[1].type", 132)
        ]  # fmt: skip
        clauses = [f.clause for f in lint(seal(TableHeader.decode(raw), (2).to_bytes(4, "little") + raw[40:]))]
        assert clauses == ["Linux 7.2 apei_hest_parse"]
        unknown = seal(TableHeader.decode(raw), (2).to_bytes(4, "little") + raw[40:] + b"\4\0\0\0")
        assert found(unknown) == [(ERROR, "sources[1].type", 132)]


class TestHeaders:
    def test_checksum_length_revision_and_words(self):
        raw = bytearray(hest(v2()).build())
        raw[9] ^= 0x5A
        assert found(bytes(raw)) == [(ERROR, "header.checksum", 9)]
        good = hest(v2()).build()[9]
        assert lint(bytes(raw))[0].text == f"{good ^ 0x5A:#04x}, but {good:#04x} is right"
        assert found(hest(v2()).build() + b"x") == [(WARNING, "header.length", 4)]
        assert found(hest(v2(), revision=3)) == [(WARNING, "header.revision", 8)]
        odd = TableHeader(signature="HEST", length=0, revision=2, oem_id="A\x01BCDE", creator_id="\xff\xff\xff\xff")
        assert found(Hest((v2(),), odd)) == [
            (WARNING, "header.oem_id", 10), (WARNING, "header.creator_id", 28)
        ]  # fmt: skip

    @pytest.mark.parametrize("raw", [b"", b"HEST", b"HEST" + bytes(32), b"HEST\xff\xff\xff\x7f" + bytes(32)])
    def test_what_is_no_table(self, raw):
        findings = lint(raw)
        assert [f.level for f in findings] == [ERROR]
        assert findings[0].clause == "ACPI 6.5, 5.2.6"

    def test_what_is_no_table_says_where(self):
        assert found(b"HEST") == [(ERROR, "header.length", 4)]
        assert found(b"") == [(ERROR, "header.signature", 0)]
        assert found(b"HEST\xff\xff\xff\x7f" + bytes(32)) == [(ERROR, "header.length", 4)]

    def test_a_table_that_its_class_cannot_begin_to_read(self):
        findings = lint(seal(new_header("ERST", 1), b"abc"))
        assert [(f.level, f.path, f.offset) for f in findings] == [(ERROR, "head.serialization_header_size", 36)]

    def test_tables_of_others_have_only_a_header(self):
        assert lint(RawTable(new_header("SSDT", 2), b"abc")) == []


class TestTogether:
    def facp(self):
        return seal(new_header("FACP", 6), bytes(240))

    def test_sdei_without_its_table(self):
        table = hest(v2(0, notify(N.SDEI, vector=5)))
        assert found(table) == []
        findings = lint(table, self.facp())
        assert [f.text for f in findings if f.table == "HEST"] == [
            "a source tells by SDEI, but there is no SDEI table: Linux makes no SDEI device"
        ]
        assert [(f.path, f.offset) for f in findings if f.table == "HEST"] == [("sources", 40)]
        assert [f for f in lint(table, self.facp(), Sdei.of()) if f.table == "HEST"] == []

    @pytest.mark.parametrize("kind", [N.GSIV, N.GPIO_SIGNAL, N.SCI])
    def test_no_error_device(self, kind):
        table = hest(v2(0, notify(kind, vector=5)))
        for aml, expected in [(b"nothing", 1), (bytes.fromhex("0c41d00c33"), 0), (b"\x0dPNP0C33\0", 0)]:
            dsdt = seal(new_header("DSDT", 2), aml)
            findings = lint(table, self.facp(), dsdt)
            told = [(f.path, f.offset, f.clause) for f in findings if "PNP0C33" in f.text]
            assert told == [("sources", 40, "Linux 7.2 hed.c")] * expected
        polled = hest(v2(0))
        assert lint(polled, self.facp(), seal(new_header("DSDT", 2), b"nothing")) == []

    def test_two_tables_of_one_signature(self):
        assert found(Sdei.of(), Sdei.of()) == [(WARNING, "header.signature", 0)]


def erst(*entries, **given):
    """A good table with some entries behind its own."""
    return Erst.of([*erst_table(0x9000000).entries, *entries], **given)


def entry(instruction=I.WRITE_REGISTER_VALUE, address=0x9000000, action=16, **given):
    region = given.pop("register_region", gas(address))
    return ErstEntry(action=action, instruction=instruction, register_region=region, **given)


ENTRY_RULES = [
    (entry(action=12), WARNING, "action", 0, "action 0xc is reserved"),
    (entry(19), ERROR, "instruction", 1, "Linux refuses the whole table"),
    (entry(flags=2), WARNING, "flags", 2, "reserved bits"),
    (entry(address=0), ERROR, "register_region", 4, "the address is 0"),
    (entry(register_region=gas(access_size=5)), ERROR, "register_region", 4, "access size 5"),
    (entry(register_region=gas(address_space=8)), ERROR, "register_region", 4, "gpio is neither"),
    (entry(register_region=gas(address_space=1)), WARNING, "register_region", 4, "is not system memory"),
    (entry(mask=0), WARNING, "mask", 24, "no bit counts"),
    (entry(value=0x100, mask=0xFF), WARNING, "value", 16, "bits outside the mask"),
    (
        entry(register_region=gas(bit_width=32, access_size=3), mask=1 << 32), NOTE, "mask", 24,
        "bits outside the register",
    ),
    (entry(I.ADD_VALUE, value=3), WARNING, "value", 16, "the value that it read or wrote last"),
    (entry(I.SKIP_NEXT_INSTRUCTION_IF_TRUE), WARNING, "value", 16, "the value that it read or wrote last"),
    (entry(I.STALL, value=51), WARNING, "value", 16, "Linux waits 50"),
    (entry(I.GOTO, value=9), NOTE, "value", 16, "beyond the action's 3 entries"),
    (entry(I.GOTO, value=0), ERROR, "value", 16, "nothing leaves this loop"),
]  # fmt: skip


class TestInstructions:
    @pytest.mark.parametrize(("extra", "level", "path", "offset", "text"), ENTRY_RULES)
    def test_rules_of_one_entry(self, extra, level, path, offset, text):
        table = erst(extra)
        index = len(table.entries) - 1
        match = [f for f in lint(table) if f.path == f"entries[{index}].{path}" and text in f.text]
        assert len(match) == 1, [str(f) for f in lint(table)]
        assert (match[0].level, match[0].offset) == (level, 48 + 32 * index + offset)
        assert all(f"entries[{index}]" in f.path for f in lint(table))

    def test_instructions_without_a_register_need_none(self):
        assert found(erst(*(entry(i, address=0) for i in (I.NOOP, I.ADD, I.SUBTRACT)))) == []

    @pytest.mark.parametrize(("size", "level"), [(12, NOTE), (48, None), (16, ERROR)])
    def test_header_sizes(self, size, level):
        expected = [] if level is None else [(level, "head.serialization_header_size", 36)]
        assert found(erst(serialization_header_size=size)) == expected
        expected = [] if level is None else [(level, "head.injection_header_size", 36)]
        base = einj_table(0x9000000, 0x8000000)
        assert found(Einj.of(base.entries, injection_header_size=size)) == expected

    def test_counts(self):
        raw = erst_table(0x9000000).build()
        for count, path in [(26, "head.instruction_entry_count"), (28, "head.instruction_entry_count")]:
            changed = raw[:44] + count.to_bytes(4, "little") + raw[48:]
            findings = lint(seal(TableHeader.decode(raw), changed[36:]))
            assert [(f.level, f.path, f.offset) for f in findings if "count" in f.path] == [(ERROR, path, 44)]
            assert {f.clause for f in findings if "count" in f.path} == {"Linux 7.2 erst_check_table"}
            assert all("Linux" not in f.clause for f in lint(seal(TableHeader.decode(raw), changed[36:]), linux=False))
        assert found(seal(TableHeader.decode(raw), raw[36:] + b"x")) == [(WARNING, "trailing", len(raw))]

    def test_a_count_that_is_short_says_for_how_many_there_is_room(self):
        raw = erst_table(0x9000000).build()
        short = seal(TableHeader.decode(raw), raw[36:44] + (25).to_bytes(4, "little") + raw[48:])
        assert [f.text for f in lint(short) if "count" in f.path] == ["25 entries, but there is room for 27"]

    def test_limits_that_are_kept(self):
        """Nothing is said of what is just within."""
        ok = [
            entry(register_region=gas(bit_width=32, access_size=3), mask=0xFFFFFFFF),
            entry(register_region=gas(0x1001, bit_width=24, bit_offset=8, access_size=3), mask=0xFFFFFF),
            entry(register_region=gas(bit_width=8, access_size=1), mask=0xFF),
            entry(register_region=gas(bit_width=32, access_size=1), mask=0xFFFFFFFF),
            entry(register_region=gas(bit_width=64, access_size=2)),
        ]
        for one in ok:
            assert [str(f) for f in lint(erst(one))] == []
        assert [f.level for f in lint(erst(entry(I.STALL, value=50)))] == [WARNING]
        for over, level in [
            (gas(0x1001, bit_width=25, bit_offset=8, access_size=3), ERROR),
            (gas(0x1001, bit_width=32, access_size=1), ERROR),
            (gas(bit_width=64, bit_offset=1, access_size=2), ERROR),
            (gas(bit_width=16, access_size=1), ERROR),
        ]:
            assert [f.level for f in lint(erst(entry(register_region=over)))][:1] == [level]
        own = len(erst_table(0x1000).entries)
        shifted = gas(bit_width=24, bit_offset=8, access_size=3)
        assert found(erst(entry(register_region=shifted, mask=0x1FFFFFF))) == [
            (NOTE, f"entries[{own}].mask", 48 + 32 * own + 24)
        ]

    def test_a_goto_to_the_end_is_no_jump_beyond_it(self):
        extra = [entry(I.GOTO, value=3)]
        texts = [f.text for f in lint(erst(*extra))]
        assert not any("beyond" in text for text in texts)
        assert any("beyond the action's 3 entries" in f.text for f in lint(erst(entry(I.GOTO, value=4))))

    def test_a_loop_that_something_leaves(self):
        texts = [f.text for f in lint(erst(entry(I.SKIP_NEXT_INSTRUCTION_IF_TRUE), entry(I.GOTO, value=0)))]
        assert not any("nothing leaves" in text for text in texts)

    def test_actions_that_are_missing(self):
        entries = erst_table(0x9000000).entries
        for action in (ErstAction.SET_RECORD_OFFSET, ErstAction.GET_ERROR_LOG_ADDRESS_RANGE):
            findings = lint(Erst.of([e for e in entries if e.action != action]))
            assert [f.text for f in findings] == [f"there is no entry for {action.name}: the operation cannot be done"]
        entries = einj_table(0x9000000, 0x8000000).entries
        no_type = {EinjAction.SET_ERROR_TYPE, EinjAction.SET_ERROR_TYPE_WITH_ADDRESS}
        assert [f.text for f in lint(Einj.of([e for e in entries if e.action not in no_type]))] == [
            "no action says what to inject"
        ]

    @pytest.mark.parametrize(
        ("change", "level", "path", "text"),
        [
            ({"action": 0xFF}, WARNING, "action", "belongs into the trigger table"),
            ({"action": 0x10}, NOTE, "action", "withdrawn"),
            ({"action": 0x12}, WARNING, "action", "action 0x12 is reserved"),
            ({"action": 8, "instruction": 3}, WARNING, "instruction", "only behind WRITE_REGISTER"),
            ({"instruction": 5}, ERROR, "instruction", "Linux refuses the whole table"),
        ],
    )
    def test_rules_of_injection(self, change, level, path, text):
        base = einj_table(0x9000000, 0x8000000)
        extra = EinjEntry(**{"action": 2, "instruction": 3, "register_region": gas()} | change)
        findings = lint(Einj.of([*base.entries, extra]))
        place = 48 + 32 * len(base.entries) + (1 if path == "instruction" else 0)
        assert [(f.level, f.path, f.offset) for f in findings] == [
            (level, f"entries[{len(base.entries)}].{path}", place)
        ]  # fmt: skip
        assert text in findings[0].text

    def test_injection_flags(self):
        base = einj_table(0x9000000, 0x8000000)
        assert found(Einj.of(base.entries, injection_flags=1)) == [(WARNING, "head.injection_flags", 40)]


class TestOthers:
    def test_bert(self):
        assert found(Bert.of(boot_error_region_length=19, boot_error_region=0)) == [
            (ERROR, "head.boot_error_region_length", 36), (ERROR, "head.boot_error_region", 40)
        ]  # fmt: skip
        good = Bert.of(boot_error_region_length=20, boot_error_region=8)
        assert found(Bert(good.head, b"x")) == [(WARNING, "trailing", 48)]

    def test_ras2(self):
        one = Ras2PccDescriptor(pcc_subspace_id=1)
        assert found(Ras2.of([one, one, one.model_copy(update={"feature_type": 3})])) == [
            (WARNING, "entries[1].instance", 52), (WARNING, "entries[2].feature_type", 59)
        ]  # fmt: skip
        table = Ras2.of([one])
        assert found(Ras2(table.head, table.entries, b"x")) == [(WARNING, "trailing", 48)]

    def test_reserved_bits_inside_nested_structures(self):
        raw = bytearray(Ras2.of([Ras2PccDescriptor(pcc_subspace_id=1)]).build())
        raw[42] = 1
        assert found(seal(TableHeader.decode(bytes(raw)), bytes(raw[36:]))) == [(WARNING, "entries[0]", 42)]

    def node(self, data=None, revision=2, interrupts=(), **interface):
        kind = AestInterface if revision == 1 else AestInterface4k
        values = {"type": 1, "address": 0x1000, "error_record_count": 1} | interface
        return Aest(
            (AestNode.of(data or AestGic(interface_type=0), kind(**values), interrupts),), new_header("AEST", revision)
        )

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, []),
            ({"revision": 1}, []),
            ({"revision": 1, "data": AestProxy(node_address=1)}, [(ERROR, "header.type", 0)]),
            ({"revision": 1, "type": 2}, [(ERROR, "interface.type", 52)]),
            ({"type": 3}, [(ERROR, "interface.type", 52)]),
            ({"type": 0}, [(NOTE, "interface.address", 60)]),
            ({"address": 0}, [(ERROR, "interface.address", 60)]),
            ({"error_record_count": 65}, [(WARNING, "interface.error_record_count", 72)]),
            ({"error_record_count": 0}, [(WARNING, "interface.error_record_count", 72)]),
            (
                {"interrupts": [AestInterruptV2(type=2)]},
                [(WARNING, "interrupts[0].type", 132), (WARNING, "interrupts[0].gsiv", 136)],
            ),
        ],
    )
    def test_aest(self, given, expected):
        assert found(self.node(**given)) == [(level, f"nodes[0].{path}", 36 + at) for level, path, at in expected]

    def test_aest_nodes_in_another_order(self):
        node = self.node().nodes[0]
        header = node.header.model_copy(update={"length": node.header.length + 4})
        table = Aest((node._replace(header=header, image=header.encode() + node.encode()[44:] + b"gap!"),))
        assert found(Aest.parse(table.build())) == [(NOTE, "nodes[0]", 36)]

    def test_aest_without_an_interface_or_interrupts(self):
        raw = bytearray(self.node().build())
        raw[36 + 8 : 36 + 12] = bytes(4)
        raw[36 + 16] = 2
        assert found(seal(TableHeader.decode(bytes(raw)), bytes(raw[36:])))[:2] == [
            (ERROR, "nodes[0].header.node_interface_offset", 44),
            (ERROR, "nodes[0].header.node_interrupt_offset", 48),
        ]


@given(
    st.sampled_from([t.build() for t in GOOD]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
)
def test_lint_never_fails(raw, changes):
    changed = bytearray(raw)
    for at, value in changes:
        changed[at % len(changed)] = value
    for finding in lint(bytes(changed)):
        assert 0 <= finding.offset <= max(len(changed), 48)
        assert finding.clause
        assert finding.text
        assert str(finding)
