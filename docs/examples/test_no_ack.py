"""A guest reads a record and does not acknowledge it: nothing is overwritten, nobody waits for ever."""


def test_a_second_vcpu_waits_its_turn(machine, guest):
    guest.acks("sea", after=0.5)
    machine.consumes(page=1, vcpu=0)
    machine.consumes(page=2, vcpu=1)

    assert machine.holds(vcpu=1)
    assert not machine.told(page=2)

    machine.passes(seconds=2)

    assert not machine.holds(vcpu=1)
    assert machine.told(page=2).by("sea")
    assert machine.told(page=2).is_acked()


def test_it_does_not_wait_for_ever(machine, guest):
    guest.never_acks("sea")
    machine.consumes(page=1, vcpu=0)
    machine.consumes(page=2, vcpu=1)

    machine.passes(seconds=10)

    assert not machine.holds(vcpu=1)
    assert machine.escalates("report")
    assert machine.page(1).is_posted()
    assert machine.told(page=2).by("sdei"), "by another way"


def test_pages_gather_while_a_block_is_read(machine, guest):
    guest.acks("sdei", after=0.2)
    for page in range(12):
        machine.loses(page=page)

    machine.settles()

    assert all(machine.told(page=page).is_acked() for page in range(12))
    assert machine.told(page=0).pages == 1
    assert machine.told(page=11).pages == 11, "one block for all that came meanwhile"
