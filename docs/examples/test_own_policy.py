"""A policy of one's own, under test: found errors by SError, and polled where the guest takes none."""

import pytest

POLICY = """
version = 1

[[rule]]
name = "consumed"
when = { code = "AR" }
deliver = ["sea", "polled"]

[[rule]]
name = "found"
deliver = ["sei", "polled"]
"""


@pytest.fixture
def policy():
    return POLICY


@pytest.mark.machine(preset="all", guest="generic")
def test_a_masked_serror_is_late_but_not_lost(machine, guest):
    guest.masks_serror(vcpu=0)
    machine.loses(page=3)

    assert machine.told(page=3).by("sei")
    assert machine.told(page=3).rule == "found"
    assert not machine.told(page=3).is_acked()

    guest.unmasks_serror(vcpu=0)

    assert machine.told(page=3).is_acked()
    assert machine.page(3).is_offlined()


@pytest.mark.machine(preset="all", guest="linux")
def test_linux_takes_no_sei(machine):
    machine.loses(page=3)
    machine.passes(seconds=1)

    assert machine.told(page=3).by("polled")
    assert machine.told(page=3).is_acked()


@pytest.mark.machine(guest="linux", sdei=False)
def test_a_guest_that_stops_polling_is_reported(machine, guest):
    guest.stops_polling()
    machine.loses(page=3)
    machine.passes(seconds=10)

    assert machine.page(3).is_posted()
    assert machine.escalates("report")

    guest.polls()
    machine.passes(seconds=120)

    assert machine.page(3).is_offlined()
