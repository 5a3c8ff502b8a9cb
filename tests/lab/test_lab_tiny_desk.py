"""The page by which the tiny guest is driven: what it asks for, and what becomes of what it tells."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import vmm_ras.lab
from acpi.presets import PRESETS
from vmm_ras.lab import tiny_desk
from vmm_ras.lab.tiny_desk import ACK, BLOCK, INSTRUCTION, RECORD, RESULT, SDEI_BLOCK, SKIP, VECTOR, Command, Desk
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import PROFILES

SOURCE = (Path(vmm_ras.lab.__file__).parent / "guest" / "tiny.S").read_text()


@pytest.fixture
def core():
    return Notifier(PRESETS["all"].place(0x4000_0000).sources, MemoryMap(), guest=PROFILES["generic-sei"])


@pytest.fixture
def desk(core, monkeypatch):
    monkeypatch.setattr(tiny_desk, "IDLE", 0)
    return Desk(SimpleNamespace(), core.ways)


def test_the_guest_and_we_speak_of_the_same_registers():
    found = {name: int(value, 0) for name, value in re.findall(r"\.set\s+(\w+), (0x\w+)", SOURCE)}
    for name in ("RESULT", "VECTOR", "SKIP", "BLOCK", "ACK", "RECORD", "SDEI_BLOCK", "SDEI_ACK", "SDEI_DONE"):
        assert getattr(tiny_desk, name) == found[name], name
    assert found["ARG"] == tiny_desk.ARGUMENTS


def test_the_guest_and_we_number_commands_alike():
    table = SOURCE[SOURCE.index("commands:\n") : SOURCE.index("load:\n")]
    names = re.findall(r"(\w+) - commands", table)
    ours = ["loop", *(c.name.lower() for c in Command if c is not Command.NONE)]
    assert names == ours


def test_a_command(desk):
    assert desk.read(0) == Command.NONE
    assert desk.up.is_set()
    desk.give(Command.LOAD, (0x1000, 7), 0)
    assert [desk.read(offset) for offset in (0, 8, 16, 24, SKIP)] == [Command.LOAD, 0x1000, 7, 0, 0]
    assert (desk.begun.is_set(), desk.done.is_set()) == (True, False)
    desk.written(RESULT, 5)
    for offset, value in enumerate((4, 0x96000010, 0x1000, 0x2000, 0x3C5)):
        desk.written(VECTOR + 8 * offset, value)
    desk.written(RECORD, 0x1000)
    assert desk.read(0) == Command.NONE
    assert desk.done.is_set()
    assert desk.answer() == ((5,), ((4, 0x96000010, 0x1000, 0x2000, 0x3C5),), (0x1000,))
    assert desk.exceptions == 1


def test_no_command_is_lost(desk):
    """The vCPU asks while another thread leaves one."""

    def ask():
        while not ended.is_set():
            desk.read(0)

    ended = threading.Event()
    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(100):
        desk.give(Command.LOAD, (number,))
        assert desk.done.wait(20), f"command {number}"
    ended.set()
    asking.join()


def test_what_the_handler_adds_may_depend_on_the_vcpu(core):
    desk = Desk(SimpleNamespace(x30=0x500), core.ways)
    assert desk.read(SKIP) == INSTRUCTION
    desk.give(Command.JUMP, (), lambda vcpu: vcpu.x30 - 0x600)
    desk.read(0)
    assert desk.read(SKIP) == (1 << 64) - 0x100


def test_where_records_are(desk, core):
    at = {way: core.ways[way][0].placed for way in ("sea", "sei", "sdei")}
    desk.written(VECTOR, 4)
    assert (desk.read(BLOCK), desk.read(ACK)) == (at["sea"].block, at["sea"].ack)
    desk.written(VECTOR, 7)  # an SError
    assert (desk.read(BLOCK), desk.read(ACK)) == (at["sei"].block, at["sei"].ack)
    assert desk.read(SDEI_BLOCK) == at["sdei"].block
    alone = Desk(SimpleNamespace(), {"sea": (), "sei": (), "sdei": ()})
    assert (alone.read(BLOCK), alone.read(SDEI_BLOCK)) == (0, 0)
