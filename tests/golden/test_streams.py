"""Guests that left a real KVM, as the bytes that went over the line: later versions read them for ever."""

from __future__ import annotations

import io

import pytest

from tests.snapshot_fixtures import FOLDER
from vmm_ras.io.kvm.moving import PART, Arriving
from vmm_ras.snapshot import pending, read_snapshot, rebuild, stream
from vmm_ras.snapshot.stream import Lost, Memory

FIRST, SECOND, PAGE = 0x4011_0000, 0x4011_1000, 4096
RAM, SIZE, TABLES = 0x4000_0000, 16 << 20, 0x4080_0000
FILES = sorted((FOLDER / "kvm").glob("*.streams"))


def guests(data):
    """(snapshot, arriving, core, arrival, memory) of each guest in a file."""
    file = io.BytesIO(data)
    while file.tell() < len(data):
        raw, memory = stream.receive(file.read)
        came = list(memory)
        snapshot = read_snapshot(raw, {PART, "desks"})
        yield snapshot, Arriving(snapshot), *rebuild(snapshot), came


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_guest_is_read_and_owed_what_it_was_owed(file):
    serrors, block, sdei, held = guests(file.read_bytes())

    def owed(guest):
        return pending(guest[2], guest[3].vcpus)

    assert [kind["owed"] for kind in owed(serrors)["vcpus"][0]["owed"]] == ["serror"]
    assert serrors[3].vcpus[0]["serror"] == 0xC11
    assert [iss for _, iss in serrors[1]._machine.vcpus[0].serrors] == [0xC11, 0x11, 0x1000011]
    assert [s["pages"] for s in owed(block)["sources"]] == [[[FIRST, PAGE]]]
    assert block[3].holes == ((FIRST, 2 * PAGE),)
    assert owed(block)["pages"]["unreported"] == 1
    assert "sdei completion" in [kind["owed"] for kind in owed(sdei)["vcpus"][0]["owed"]]
    assert held[3].held == (1,)
    assert held[3].holes == ((FIRST, 2 * PAGE),)
    assert [vcpu["vcpu"] for vcpu in owed(held)["vcpus"]] == [1]
    for snapshot, arriving, core, arrival, came in (serrors, block, sdei, held):
        assert len(arriving.sent) == core.vcpus == len(arrival.vcpus)
        assert all(len(registers) > 200 for registers in arriving.sent)
        assert snapshot.raw["desks"].mandatory
        assert not any(isinstance(item, Lost) for item in came)
        for item in came:
            assert isinstance(item, Memory)
            assert RAM <= item.gpa < item.gpa + len(item.data) <= RAM + SIZE
            assert not any(item.gpa < gpa + size and gpa < item.gpa + len(item.data) for gpa, size in arrival.holes)
        assert came[0].gpa == RAM, "the guest's code"
        assert any(TABLES <= item.gpa < TABLES + (1 << 20) for item in came), "and its tables"


def test_there_are_some():
    assert FILES
