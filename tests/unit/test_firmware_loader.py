"""The linker/loader script against hostile input: what firmware refuses, we refuse, and say which command and field."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.linking import MAX_SUMMED, Placed, execute
from acpi.loader import (
    COMMAND_SIZE,
    MAX_COMMANDS,
    AddChecksum,
    AddPointer,
    Allocate,
    LoaderScript,
    OtherCommand,
    ScriptBuilder,
    WritePointer,
)
from acpi.table import checksum
from cper.wire import DecodeError, EncodeError, WireError

FILES = {"a": bytes(64), "b": bytes(range(1, 33)), "back": bytes(8), "big": bytes(1 << 20)}
A, B = Allocate(file="a", alignment=16), Allocate(file="b", alignment=1)


def run(*commands, **options):
    return execute(LoaderScript(commands), FILES, **options)


class TestScript:
    def test_whatever_is_a_whole_number_of_commands_loses_nothing(self):
        raw = bytes(range(256)) * 3
        script = LoaderScript.parse(raw)
        assert len(script.commands) == 6
        assert script.build() == raw

    @pytest.mark.parametrize("size", [1, 127, 129, 3 * COMMAND_SIZE - 1])
    def test_part_of_a_command_is_refused(self, size):
        with pytest.raises(DecodeError) as caught:
            LoaderScript.parse(bytes(size))
        assert caught.value.offset == size // COMMAND_SIZE * COMMAND_SIZE
        assert caught.value.path == f"commands[{size // COMMAND_SIZE}]"

    def test_too_many_commands_are_refused_before_they_are_read(self):
        start = time.monotonic()
        with pytest.raises(DecodeError, match="more than"):
            LoaderScript.parse(bytes((MAX_COMMANDS + 1) * COMMAND_SIZE))
        assert time.monotonic() - start < 10

    def test_commands_that_no_firmware_knows_are_skipped(self):
        placed = run(A, OtherCommand(command=0), OtherCommand(command=77, payload=b"\xff" * 124), B)
        assert list(placed.files) == ["a", "b"]


class TestExecution:
    def test_files_get_pages_of_their_own_in_the_order_of_the_script(self):
        placed = run(B, Allocate(file="big"), A, base=0x4000_0001)
        assert {n: gpa for n, (gpa, _) in placed.files.items()} == {
            "b": 0x4000_1000, "big": 0x4000_2000, "a": 0x4010_2000,
        }  # fmt: skip

    def test_a_file_goes_where_it_is_wanted(self):
        placed = run(A, B, at={"b": 0x1234_5008})
        assert placed.files["b"][0] == 0x1234_5008
        assert placed.files["a"][0] == 0x4000_0000

    def test_a_pointer_is_its_old_value_and_the_address(self):
        files = {"a": (5).to_bytes(4, "little") + bytes(60), "b": bytes(32)}
        script = LoaderScript((A, B, AddPointer(pointer_file="a", pointee_file="b", pointer_offset=0, pointer_size=4)))
        placed = execute(script, files)
        assert placed.files["a"][1][:4] == (0x4000_1005).to_bytes(4, "little")
        assert placed.files["a"][1][4:] == bytes(60)

    def test_a_checksum_makes_its_range_zero(self):
        files = {"b": bytes([1, 2, 0, 250])}
        placed = execute(LoaderScript((B, AddChecksum(file="b", result_offset=2, start=0, length=3))), files)
        assert placed.files["b"][1] == bytes([1, 2, 253, 250])
        assert not checksum(placed.files["b"][1][:3])

    def test_an_address_is_written_back(self):
        placed = run(A, WritePointer(pointer_file="back", pointee_file="a", pointee_offset=7))
        assert placed.written == {"back": (0x4000_0007).to_bytes(8, "little")}

    def test_reading_ends_with_the_page(self):
        placed = run(A)
        assert placed.read(0x4000_0000, 4096) == bytes(4096)
        for gpa, size in ((0x3FFF_FFFF, 1), (0x4000_0000, 4097), (0x4000_1000, 1)):
            with pytest.raises(DecodeError):
                placed.read(gpa, size)

    @pytest.mark.parametrize(
        ("command", "field", "reason"),
        [
            (Allocate(file="a"), "file", "allocated already"),
            (Allocate(file="nothing"), "file", "no file 'nothing'"),
            (Allocate(file="x" * 56), "file", "no NUL"),
            (Allocate(file="b", alignment=0), "alignment", "no power of two"),
            (Allocate(file="b", alignment=24), "alignment", "no power of two"),
            (Allocate(file="b", alignment=8192), "alignment", "no power of two"),
            (AddPointer(pointer_file="b", pointee_file="a", pointer_offset=0), "pointer_file", "'b' is not allocated"),
            (AddPointer(pointer_file="a", pointee_file="b", pointer_offset=0), "pointee_file", "'b' is not allocated"),
            (
                AddPointer(pointer_file="a", pointee_file="a", pointer_offset=57),
                "pointer_offset",
                "outside the file",
            ),
            (
                AddPointer(pointer_file="a", pointee_file="a", pointer_offset=0, pointer_size=3),
                "pointer_size",
                "none of 1, 2, 4, 8",
            ),
            (
                AddPointer(pointer_file="a", pointee_file="a", pointer_offset=0, pointer_size=2),
                "pointer_size",
                "does not fit 2 bytes",
            ),
            (AddChecksum(file="a", result_offset=64, start=0, length=1), "result_offset", "outside the file"),
            (AddChecksum(file="a", result_offset=0, start=60, length=5), "start", "outside the file"),
            (
                AddChecksum(file="a", result_offset=0, start=0xFFFFFFFF, length=0xFFFFFFFF),
                "start",
                "outside the file",
            ),
            (WritePointer(pointer_file="none", pointee_file="a"), "pointer_file", "no file 'none'"),
            (WritePointer(pointer_file="back", pointee_file="a", pointer_offset=1), "pointer_offset", "outside"),
            (WritePointer(pointer_file="back", pointee_file="a", pointee_offset=64), "pointee_offset", "outside"),
            (WritePointer(pointer_file="back", pointee_file="a", pointer_size=5), "pointer_size", "none of"),
        ],
    )
    def test_what_firmware_refuses(self, command, field, reason):
        with pytest.raises(DecodeError, match=reason) as caught:
            run(A, command)
        assert caught.value.path == f"commands[1].{field}"
        assert caught.value.offset == COMMAND_SIZE + type(command).at(field).offset

    def test_a_pointer_whose_old_value_is_outside_its_pointee(self):
        files = {"a": b"\xff" * 64, "b": bytes(32)}
        script = LoaderScript((A, B, AddPointer(pointer_file="a", pointee_file="b", pointer_offset=0)))
        with pytest.raises(DecodeError, match="outside the pointee"):
            execute(script, files)

    def test_a_checksum_byte_that_is_not_zero(self):
        """edk2 sums it, SeaBIOS replaces it: neither is what anybody meant."""
        with pytest.raises(DecodeError, match="holds 0x1, not 0"):
            run(B, AddChecksum(file="b", result_offset=0, start=0, length=32))

    def test_a_file_that_is_wanted_where_it_cannot_be(self):
        with pytest.raises(DecodeError, match="not aligned to 16"):
            run(A, at={"a": 0x4000_0008})

    def test_work_is_bounded(self):
        sums = [AddChecksum(file="big", result_offset=0, start=1, length=(1 << 20) - 1)] * (MAX_COMMANDS - 1)
        start = time.monotonic()
        with pytest.raises(DecodeError, match=f"more than {MAX_SUMMED}"):
            run(Allocate(file="big"), *sums)
        assert time.monotonic() - start < 30

    def test_memory_is_bounded(self):
        files = {f"f{i}": bytes(1 << 20) for i in range(300)}
        with pytest.raises(DecodeError, match="more than"):
            execute(LoaderScript(tuple(Allocate(file=name) for name in files)), files)

    def test_a_name_ends_at_its_first_nul(self):
        raw = A.encode()
        raw = raw[:5] + b"\0junk" + raw[10:]
        placed = execute(LoaderScript.parse(raw), FILES)
        assert list(placed.files) == ["a"]

    @given(st.binary(max_size=12 * COMMAND_SIZE))
    def test_any_bytes_are_run_or_refused(self, data):
        try:
            placed = execute(LoaderScript.parse(data), FILES)
        except WireError as error:
            assert error.offset is not None
            assert 0 <= error.offset <= len(data)
        else:
            assert isinstance(placed, Placed)

    @given(st.lists(st.tuples(st.integers(0, 5), st.binary(min_size=124, max_size=124)), max_size=8))
    def test_any_commands_are_run_or_refused(self, commands):
        data = b"".join(
            kind.to_bytes(4, "little") + (b"a".ljust(56, b"\0") + body[56:] if body[0] & 1 else body)
            for kind, body in commands
        )
        try:
            execute(LoaderScript.parse(A.encode() + data), FILES)
        except WireError as error:
            assert error.path.startswith("commands[")


class TestBuilder:
    def test_allocations_come_first(self):
        builder = ScriptBuilder()
        builder.allocate("a", 64, 16)
        builder.add_pointer("a", 0, "a")
        builder.allocate("b", 32, 8)
        builder.add_checksum("b", 0, 0, 32)
        builder.write_pointer("back", "b", 4)
        kinds = [type(c).__name__ for c in LoaderScript.parse(builder.build()).commands]
        assert kinds == ["Allocate", "Allocate", "AddPointer", "AddChecksum", "WritePointer"]
        execute(LoaderScript.parse(builder.build()), {"a": bytes(64), "b": bytes(32), "back": bytes(8)})

    @pytest.mark.parametrize(
        "use",
        [
            lambda b: b.allocate("a", 64, 16),
            lambda b: b.allocate("b", 64, 3),
            lambda b: b.allocate("b", 64, 0),
            lambda b: b.allocate("b", 64, 8192),
            lambda b: b.allocate("", 64, 8),
            lambda b: b.allocate("x" * 56, 64, 8),
            lambda b: b.add_pointer("b", 0, "a"),
            lambda b: b.add_pointer("a", 0, "b"),
            lambda b: b.add_pointer("a", 57, "a"),
            lambda b: b.add_checksum("a", 64, 0, 1),
            lambda b: b.add_checksum("a", 0, 1, 64),
            lambda b: b.write_pointer("back", "b"),
            lambda b: b.write_pointer("back", "a", 64),
        ],
    )
    def test_what_no_firmware_would_run_is_not_built(self, use):
        builder = ScriptBuilder()
        builder.allocate("a", 64, 16)
        with pytest.raises(EncodeError):
            use(builder)
