"""The kernel of the guest uses lost memory: Linux looks for no record then, so none may be left to be found later."""

import pytest

from vmm_ras.effects import InjectSea


@pytest.mark.machine(guest="linux")
def test_no_stale_record_is_left(machine, guest):
    machine.consumes(page=3, vcpu=0, el=1)

    assert [(sea.source_id, sea.esr) for sea in machine.effects(InjectSea)] == [(None, 0x96000410)]
    assert guest.did("oops")
    assert machine.told(page=3).by("sdei"), "the page is told as a found one"

    machine.consumes(page=7, vcpu=1)

    assert machine.told(page=7).by("sea")
    assert machine.told(page=7).outcome == "offlined", "this SEA finds its own record, not the other page's"


@pytest.mark.machine(guest="generic")
def test_a_guest_that_looks_gets_a_record(machine):
    machine.consumes(page=3, vcpu=0, el=1)

    assert machine.told(page=3).by("sea")
    assert machine.told(page=3).esr == 0x96000410
