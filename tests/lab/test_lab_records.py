"""QEMU's serialization device and its fw_cfg, as the lab reaches them through qtest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmm_ras.io.qemu.qmp import Qtest
from vmm_ras.lab import fw_cfg, records
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.records import RecordStore

STORE = (Path(__file__).parents[2] / "fixtures" / "lab" / "erst-store.bin").read_bytes()


class Registers:
    """The other end of qtest: registers by address, and what was asked."""

    def __init__(self, values=()):
        self.values, self.asked, self.answers = dict(values), [], []

    def send(self, data, seconds=10):
        command, _, rest = data.decode().strip().partition(" ")
        address, *value = (int(word, 16) for word in rest.split()) if command.startswith(("read", "write")) else (0,)
        self.asked.append(data.decode().strip())
        if command.startswith("read"):
            found = self.values.get(address, 0)
            self.answers += ["IRQ raise 33", f"OK {found.pop(0) if isinstance(found, list) else found:#018x}"]
        elif command.startswith("write"):
            self.values[address] = value[0]
            self.answers.append("OK")
        else:
            self.answers.append("FAIL Unknown command")

    def line(self, seconds=10):
        return self.answers.pop(0).encode()


@pytest.fixture
def store():
    found = RecordStore()
    yield found
    found.close()


class TestStore:
    def test_it_is_empty_at_first(self, store):
        assert os.fstat(store.fd).st_size == records.STORE_SIZE
        assert store.records() == []

    def test_what_a_real_kernel_wrote_through_a_real_device(self, store):
        os.pwrite(store.fd, STORE, 0)
        (record,) = store.records()
        assert record.header.record_id == 0x6B01_0EB4_0000_0001
        assert str(record.header.creator_id) == "75a574e3-5052-4b29-8a8e-be2c6490b89d"
        assert [str(s.descriptor.section_type) for s in record.sections] == ["4f118707-04dd-4055-b5dd-956d34ddfac6"]
        assert record.encode() == STORE[8192:]

    def test_a_cleared_record_lies_in_its_slot_but_is_not_listed(self, store):
        os.pwrite(store.fd, STORE, 0)
        os.pwrite(store.fd, bytes(8), 24 + 8)
        assert store.records() == []

    def test_the_last_slot(self, store):
        os.pwrite(store.fd, STORE[32:40], 24 + 8 * 7)
        os.pwrite(store.fd, STORE[8192:], 7 * 8192)
        assert len(store.records()) == 1


class TestTurningOn:
    CONFIGURATION = 0x40_1001_0000

    def registers(self, device=0x0012_1B36, bar=0x1000_2000):
        return Registers({self.CONFIGURATION: device, self.CONFIGURATION + 0x10: bar})

    def test_memory_is_decoded(self):
        machine = self.registers()
        records.turn_on(Qtest(machine))
        assert machine.values[self.CONFIGURATION + 4] == 2
        assert machine.asked[-1] == f"writel {self.CONFIGURATION + 4:#x} 0x2"

    def test_the_table_is_not_sent_somewhere_else(self):
        with pytest.raises(Failure, match=r"registers at 0x10000000, not at 0x10002000"):
            records.turn_on(Qtest(self.registers(bar=0x1000_0000)))
        with pytest.raises(Failure, match="PCI device 2 is 0xffffffff, not QEMU's serialization device"):
            records.turn_on(Qtest(self.registers(device=0xFFFF_FFFF)))


class TestFiles:
    def machine(self):
        names = {"etc/a": 0x21, "etc/vmcoreinfo": 0x1234}
        directory = len(names).to_bytes(4, "big")
        for name, selector in names.items():
            directory += bytes(4) + selector.to_bytes(2, "big") + bytes(2) + name.encode().ljust(56, b"\0")
        files = {0x19: directory, 0x1234: bytes(range(16))}

        class FwCfg(Registers):
            def send(self, data, seconds=10):
                super().send(data, seconds)
                if data.startswith(b"writew"):
                    selector = int.from_bytes(self.values[fw_cfg.SELECTOR].to_bytes(2, "little"), "big")
                    self.values[fw_cfg.DATA] = list(files[selector])

        return FwCfg()

    def test_a_file_by_its_name(self):
        machine = self.machine()
        assert fw_cfg.read_file(Qtest(machine), "etc/vmcoreinfo", 16) == bytes(range(16))
        assert "writew 0x9020008 0x3412" in machine.asked
        assert "readb 0x9020000" in machine.asked

    def test_a_file_that_is_not_there(self):
        with pytest.raises(Failure, match="no file 'etc/vmcore'"):
            fw_cfg.read_file(Qtest(self.machine()), "etc/vmcore", 16)


def test_what_qtest_refuses():
    with pytest.raises(Failure, match=r"qtest: line 3 of /gic: FAIL Unknown command"):
        Qtest(Registers()).set_line("/gic", 3, True)
