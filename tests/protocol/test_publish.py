"""Publish order and ack gate: a guest that reads at any moment, and bytes that change on the way (ACPI 18.3.2.8)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acpi.ghes import ErrorStatusHeader, StatusBlock
from tests.machine import GPA, HVA, Machine, of
from vmm_ras.effects import ArmAck, InjectSea, WriteGuest
from vmm_ras.events import Code, HostSignal, Stopped


def published(m: Machine, page: int = 1) -> list:
    """The effects that tell a consumed page, not carried out yet."""
    m.core.receive(HostSignal(Code.AR, HVA + (page << 12), 12, 100), m.now)
    return m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now)


def test_four_steps_gate_body_status_notification() -> None:
    m = Machine()

    arm, body, status, sea = [e for e in published(m) if isinstance(e, ArmAck | WriteGuest | InjectSea)]

    placed = m.core.sources[0].placed
    assert (arm.gpa, arm.mask) == (placed.ack, placed.ack_write)
    assert (body.gpa, body.data[:4]) == (placed.block, bytes(4))
    assert (status.gpa, len(status.data)) == (placed.block, 4)
    assert ErrorStatusHeader.decode(status.data + body.data[4:20]).uncorrectable
    assert isinstance(sea, InjectSea)


@pytest.mark.parametrize("after", range(8))
def test_a_guest_that_reads_between_any_two_effects_never_finds_a_malformed_block(after: int) -> None:
    m = Machine()
    effects = published(m)
    source = m.os.by_type[8][0]

    m.guest.perform(effects[:after], m.now)
    m.os.read_source(source, m.now)
    m.guest.drive(m.core, effects[after:], m.now)
    m.wait(5.0)

    outcomes = [outcome for _, outcome in m.did()]
    assert "malformed" not in outcomes
    assert outcomes.count("offlined") == 1
    assert (GPA >> 12) + 1 in m.os.offlined


def test_only_the_write_bits_of_the_gate_are_cleared() -> None:
    m = Machine()
    ack = m.core.sources[0].placed.ack
    m.guest.memory.write(ack, b"\xff" * 8)

    m.guest.perform(published(m)[:2], m.now)

    assert m.guest.memory.read(ack, 8) == b"\xfe" + b"\xff" * 7


def test_the_guest_keeps_what_it_must_preserve() -> None:
    m = Machine()
    ack = m.core.sources[0].placed.ack
    m.guest.memory.write(ack, b"\xa4" + bytes(7))

    m.ar(1)

    assert m.guest.memory.read(ack, 8) == b"\xa5" + bytes(7)


def one_run(flip: tuple[int, int] | None) -> tuple[list, bytes]:
    """What the guest did, and the bytes that it recorded, when one bit of the posted block changes on the way."""
    m = Machine()
    effects = published(m)
    notify = next(i for i, e in enumerate(effects) if isinstance(e, InjectSea))
    m.guest.perform(effects[:notify], m.now)
    if flip is not None:
        at = m.core.sources[0].placed.block + flip[0]
        m.guest.memory.write(at, bytes([m.guest.memory.read(at, 1)[0] ^ flip[1]]))
    m.guest.drive(m.core, effects[notify:], m.now)
    actions = m.os.drain()
    return [(a.source_id, a.outcome) for a in actions], b"".join(a.raw for a in actions)


PLAIN = one_run(None)


@pytest.mark.parametrize("offset", range(172))
def test_flipping_any_byte_changes_what_the_guest_did_or_recorded(offset: int) -> None:
    assert one_run((offset, 0xFF)) != PLAIN


@given(st.integers(0, 171), st.integers(1, 255))
def test_flipping_any_bits_never_raises(offset: int, mask: int) -> None:
    assert one_run((offset, mask)) != PLAIN


@settings(max_examples=30)
@given(st.binary(min_size=20, max_size=400))
def test_any_bytes_in_the_block_are_read_without_an_exception(data: bytes) -> None:
    m = Machine()
    source = m.os.by_type[8][0]
    m.guest.memory.write(source.block, data)

    held = m.os.read_source(source, m.now)

    filled = any(data[:4])
    try:
        StatusBlock.decode(data)
        assert held == filled
    except ValueError:  # what lies behind ``data`` may yet make it whole
        assert held <= filled
    if filled:
        assert m.os.panicked or m.did()
        assert m.guest.memory.read(source.block, 4) == bytes(4)
        assert m.guest.memory.read(source.ack, 1)[0] & 1
    else:
        assert m.did() == []


def test_posting_waits_for_the_gate_however_often_asked() -> None:
    m = Machine()
    m.os.ack_delay[0] = float("inf")
    m.ar(1)
    before = m.guest.memory.read(m.core.sources[0].placed.block, 400)

    for vcpu in (1, 2, 3):
        assert of(m.ar(vcpu + 1, vcpu), WriteGuest) == []

    assert m.guest.memory.read(m.core.sources[0].placed.block, 400) == before
