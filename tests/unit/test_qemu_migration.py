"""QEMU's migration streams: real files of three versions, and every kind of damage."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest

from tests.command_line import cli
from tests.migration_files import VERSIONS, described, migration, slim, with_serror
from vmm_ras.errors import GuestError, InputError
from vmm_ras.qemu_migration import ram
from vmm_ras.qemu_migration.cursor import Cursor
from vmm_ras.qemu_migration.ram import Block, GuestRam, RamReader
from vmm_ras.qemu_migration.state import ras_state
from vmm_ras.qemu_migration.stream import read_migration

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
REAL = Path(__file__).parents[2] / "fixtures" / "qemu" / "hardware_errors-REAL-qemu7.2-kvm-after-sea.bin"
SCTLR_EL1, DISR_EL1 = 0x603000000013C080, 0x603000000013C609
NEOVERSE_N1_SCTLR = 0x30C50838
"""QEMU's ``reset_sctlr`` of its neoverse-n1."""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_machine_without_ras(version: str) -> None:
    file = read_migration(migration(version, "off"))
    state = ras_state(file)

    assert (file.machine, file.page_size, file.ram.block) == (f"virt-{version}", 4096, "mach-virt.ram")
    assert [b.size for b in file.ram.blocks.values()][:3] == [64 << 20] * 3
    assert (state.origin, state.sources, state.ged_events) == ("", (), 0)
    assert any("ras=off" in note for note in state.notes)
    assert [c.serror for c in state.cpus] == [None]


@pytest.mark.parametrize("version", VERSIONS)
def test_registers_are_those_of_the_vcpu(version: str) -> None:
    registers = ras_state(read_migration(migration(version, "off"))).cpus[0].registers

    assert registers[SCTLR_EL1] == NEOVERSE_N1_SCTLR
    assert registers[DISR_EL1] == 0
    assert len(registers) == {"7.2": 260, "10.0": 292, "11.1": 291}[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_firmware_has_not_run(version: str) -> None:
    state = ras_state(read_migration(migration(version, "no-firmware")))

    assert (state.origin, state.sources) == ("", ())
    assert any("no firmware has told QEMU" in note for note in state.notes)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["ready", "unacked"])
def test_error_sources_are_found(version: str, kind: str) -> None:
    state = ras_state(read_migration(migration(version, kind)))

    origin, address = ("hest", 0x4300383F) if version == "11.1" else ("hardware_errors", 0x43001000)
    assert (state.origin, state.address) == (origin, address)
    ways = ["sea", "gpio_signal"] if version == "11.1" else ["sea"]
    assert [s.source.notification.plain for s in state.sources] == ways
    last = state.sources[-1]
    assert [s.state for s in state.sources[:-1]] == ["empty"] * (len(ways) - 1)
    assert not any(s.unacked for s in state.sources[:-1])
    if kind == "ready":
        assert (last.state, last.unacked, state.ged_events) == ("empty", False, 0)
    else:
        assert (last.state, last.unacked) == ("pending", True)
        assert last.block is not None
        assert last.block.encode()[4:] == REAL.read_bytes()[20 : 16 + 20 + 152]
        # QEMU tells of a GPIO source by the event device: its bit travels
        assert state.ged_events == (0x20 if version == "11.1" else 0)


def test_guest_memory_is_what_was_sent_last() -> None:
    file = read_migration(migration("7.2", "unacked"))

    assert file.ram.read(0x43001000, 16) == (0x43001010).to_bytes(8, "little") + bytes(8)
    assert file.ram.read(0x40000000, 4) == b"\xd0\x0d\xfe\xed"  # the device tree
    assert file.ram.read(0x42000000, 4096) == bytes(4096)
    with pytest.raises(GuestError, match="outside"):
        file.ram.read(0x3FFFFFFF, 2)
    with pytest.raises(GuestError, match="outside"):
        file.ram.read(0x44000000, 1)
    with pytest.raises(GuestError, match="at once"):
        file.ram.read(0x40000000, ram.MAX_READ + 1)


def page(offset: int, flags: int, content: bytes, name: str = "") -> bytes:
    named = bytes((len(name),)) + name.encode() if name else b""
    return (offset | flags).to_bytes(8, "big") + named + content


class TestPages:
    """Every way in which QEMU sends a page."""

    def made(self, *pages: bytes) -> GuestRam:
        data = b"".join(pages) + ram.EOS.to_bytes(8, "big")
        reader = RamReader(4096)
        reader.blocks["r"] = Block("r", 16384)
        reader.chunk(Cursor(data))
        return GuestRam(data, reader, [0], 0x1000, "r")

    def test_the_last_content_counts(self) -> None:
        memory = self.made(
            page(0, ram.PAGE, b"a" * 4096, "r"), page(4096, ram.PLAIN_ZERO, b"\0"), page(0, ram.PLAIN, b"b" * 4096)
        )
        assert memory.read(0x1FFF, 2) == b"b\0"
        with pytest.raises(GuestError, match="not in the file"):
            memory.read(0x3000, 1)

    def test_compressed(self) -> None:
        packed = zlib.compress(b"c" * 4096)
        memory = self.made(page(0, ram.COMPRESS, len(packed).to_bytes(4, "big") + packed, "r"))
        assert memory.read(0x1000, 4096) == b"c" * 4096

    def test_compressed_too_much(self) -> None:
        packed = zlib.compress(b"c" * 10)
        memory = self.made(page(0, ram.COMPRESS, len(packed).to_bytes(4, "big") + packed, "r"))
        with pytest.raises(GuestError, match="10 bytes"):
            memory.read(0x1000, 1)

    def test_a_difference_is_not_guessed(self) -> None:
        memory = self.made(page(0, ram.XBZRLE, b"\1\0\3abc", "r"))
        with pytest.raises(GuestError, match="xbzrle"):
            memory.read(0x1000, 1)

    @pytest.mark.parametrize(
        "data", [page(16384, ram.PAGE, b"", "r"), page(0, ram.PAGE, b"", "q"), page(0, 0x80, b""), page(0, 0x22, b"\0")]
    )
    def test_refused(self, data: bytes) -> None:
        reader = RamReader(4096)
        reader.blocks["r"] = Block("r", 16384)
        with pytest.raises(InputError, match="byte"):
            reader.chunk(Cursor(data + bytes(5000)))

    def test_searches_have_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ram, "MAX_WALKS", 1)
        file = read_migration(migration("7.2", "off"))
        file.ram.read(0x40000000, 64 * 4096)
        with pytest.raises(GuestError, match="searches"):
            file.ram.read(0x43000000, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pending_serror(version: str) -> None:
    state = ras_state(read_migration(with_serror(slim(version, "off"), 1, 1, 0x1000C11)))

    assert state.cpus[0].serror == {"pending": 1, "has_esr": 1, "esr": 0x1000C11}
    assert not any("serror" in note for note in state.notes)


class TestDamage:
    """One line, whatever was done to it."""

    def test_slim_files_say_the_same(self) -> None:
        whole, small = (ras_state(read_migration(f("11.1", "unacked"))) for f in (migration, slim))
        assert whole == small
        assert len(slim("11.1", "unacked")) < 100_000

    @pytest.mark.parametrize("version", VERSIONS)
    def test_cut_short_anywhere(self, version: str) -> None:
        data = slim(version, "unacked")
        step, tail = (1, 0) if LONG else (23, 14_000) if version == "11.1" else (41, 0)
        for size in (*range(0, len(data) - tail, step), *range(len(data) - tail, len(data), 1 if LONG else 2)):
            with pytest.raises(InputError, match=r"^byte \d+: "):
                read_migration(data[:size])

    def test_bytes_lost_inside(self) -> None:
        data = slim("11.1", "unacked")
        for at in range(0, len(data) - 20_000, 29):
            try:
                ras_state(read_migration(data[:at] + data[at + 1 :]))
            except InputError as error:
                assert "\n" not in str(error)
            else:
                pytest.fail(f"a byte less at {at} was not seen")

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "magic number: 4 bytes expected"),
            (b"MVEQ" + bytes(100), "'QEVM' expected"),
            (b"QEVM\0\0\0\2" + bytes(100), "stream version 2, expected 3"),
            (b"QEVM\0\0\0\3" + bytes(100), "no description"),
            (b"QEVM\0\0\0\3\0\6\0\0\0\2[]", "no list 'devices'"),
            (b"QEVM\0\0\0\3\0\6\0\0\0\2{]", "no JSON"),
            (b'QEVM\0\0\0\3\0\6\0\0\0\x0e{"devices":[]}', None),
            (b'QEVM\0\0\0\3\x09\0\6\0\0\0\x0e{"devices":[]}', "section type 0x9"),
            (b'QEVM\0\0\0\3\2\0\0\0\1\0\6\0\0\0\x0e{"devices":[]}', "section 1 goes on, but has not begun"),
        ],
    )
    def test_small(self, data: bytes, said: str | None) -> None:
        if said is None:
            assert ras_state(read_migration(data)).cpus == ()
        else:
            with pytest.raises(InputError, match=said.replace("[", r"\[")):
                read_migration(data)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda s: s.update(page_size=4095), "page_size"),
            (lambda s: s.update(page_size="4096"), "page_size"),
            (lambda s: s["devices"].pop(), "another one"),
            (lambda s: s["devices"].reverse(), "another one"),
            (lambda s: s["devices"][0]["fields"].pop(), "footer|subsection"),
            (lambda s: s["devices"][0]["fields"][0].update(size=1 << 60), "bytes expected, the file has"),
            (lambda s: s["devices"][0]["fields"][0].update(size=-1), "a count expected"),
            (lambda s: s["devices"][0]["fields"][0].update(array_len=1 << 62), "bytes expected, the file has|elements"),
            (lambda s: s["devices"][0].update(fields=5), "no list of objects"),
            (lambda s: s["devices"][0]["subsections"][0].update(vmsd_name="x"), "the description says 'x'"),
            (lambda s: nested(s["devices"][0]), "structures in one another"),
            (lambda s: s["devices"][0].update(fields=many(200)), "more than 262144 fields"),
        ],
    )  # fmt: skip
    def test_descriptions_that_do_not_fit(self, change, said: str) -> None:
        with pytest.raises(InputError, match=said):
            read_migration(described(slim("7.2", "off"), change))


def nested(device: dict) -> None:
    inner: dict = {"vmsd_name": "x", "fields": []}
    for _ in range(40):
        inner = {"vmsd_name": "x", "fields": [{"name": "y", "struct": inner}]}
    device["fields"] = [{"name": "z", "struct": inner}]


def many(count: int) -> list:
    empty = {"vmsd_name": "x", "fields": []}
    return [{"name": str(i), "struct": empty, "array_len": 1 << 18} for i in range(count)]


def test_command(tmp_path: Path) -> None:
    file = tmp_path / "guest.mig"
    file.write_bytes(migration("11.1", "unacked"))

    text = cli("qemu-migration", "show", file).stdout.decode()
    assert "source 1, gpio_signal, block 0x43001420: pending, not acknowledged" in text
    assert "events 0x20 wait for the guest" in text
    assert "poison: a stream has no place for it" in text
    said = json.loads(cli("qemu-migration", "show", file, "--json").stdout)
    assert [s["unacked"] for s in said["error_sources"]["sources"]] == [False, True]
    assert said["cpus"][0]["registers"]["0x603000000013c080"] == {"name": "SCTLR_EL1", "value": "0x30c50838"}
    piped = json.loads(cli("qemu-migration", "show", "-", "--json", stdin=file.read_bytes()).stdout)
    assert piped == said


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "guest.mig"
    file.write_bytes(migration("7.2", "off")[:-1])
    assert cli("qemu-migration", "show", file, code=1).stderr.decode().startswith(f"vmm-ras: {file}: byte ")
    file.write_bytes(b"")
    assert b"empty" in cli("qemu-migration", "show", file, code=1).stderr
    assert b"No such file" in cli("qemu-migration", "show", tmp_path / "none", code=1).stderr
