"""What was recorded in the field, replayed: a host with pages of 64 KiB, a guest with pages of 4 KiB."""

import pytest


@pytest.mark.machine(guest="linux")
def test_the_incident_loses_nothing(trace):
    incident = trace("incident.jsonl")

    assert incident.loses_nothing()
    assert incident.summary.offlined == 4 * 16 + 512


@pytest.mark.machine(guest="linux")
@pytest.mark.parametrize("size", ["64K", "2M"])
def test_a_large_host_page_is_told_page_by_page(machine, size):
    machine.loses(page=0, size=size)
    machine.settles()

    last = {"64K": 15, "2M": 511}[size]
    assert machine.told(page=0).pages == 16, "as many as Linux can take at once"
    assert machine.page(last).is_offlined()
    assert machine.told(page=last).says(physical_address_mask=0xFFFF_FFFF_FFFF_F000)
