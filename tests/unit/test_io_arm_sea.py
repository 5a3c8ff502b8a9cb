"""KVM_EXIT_ARM_SEA, which no emulation raises: every combination of what kvm_run can say, through the live adapter."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import pytest

from tests.kvm_host import leaves
from tests.unit.test_io_guest import EL0, EL1, LOST, RAM, SIZE, make, mask  # noqa: F401
from vmm_ras import arm64
from vmm_ras.effects import Acked, Decided, InjectSea, Posted
from vmm_ras.kvm import events
from vmm_ras.kvm.events import ArmSea
from vmm_ras.kvm.hosts import HOSTS

FETCH, DATA = 0x20, 0x24
"""EC of an abort from a lower exception level: what ESR_EL2 of a guest's own abort can hold."""
CODES = (0x10, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F)
"""External abort, on a walk of levels -1 to 3; parity error, on a walk."""
SETS = (0, 2, 3)
ISV, CM, S1PTW, WNR, EA = 1 << 24, 1 << 8, 1 << 7, 1 << 6, 1 << 9
FNV, IL = 1 << 10, 1 << 25
GVA, OUTSIDE = 0xFFFF_8000_0000_1238, RAM + SIZE + 0x1000
RELAY = 'version = 1\n[[rule]]\nname = "relay"\ndeliver = ["sea"]\nsea = { relay = true }\n'


class Said(NamedTuple):
    """One exit."""

    ec: int
    dfsc: int
    fnv: int
    flags: int
    gpa: int
    pstate: int
    more: int
    """Further bits of the ISS."""

    @property
    def esr(self):
        return self.ec << 26 | IL | self.more | self.fnv | self.dfsc


def expected(said, relayed):
    """ESR_EL1, from the architecture's description of the fields (DDI 0487, D24.2.40)."""
    esr = said.ec + (1 if said.pstate == EL1 else 0) << 26 | IL
    if relayed and (said.dfsc == 0x10 or not said.fnv):
        kept = EA | (3 << 11 if said.dfsc == 0x10 else 0) | (CM | WNR if said.ec == DATA else 0)
        return esr | said.more & kept | said.dfsc | said.fnv
    return esr | 0x10 | said.fnv


def every():
    """All exits: code by code with every flag, address, level and kind of access; the other bits in turn."""
    more = [s << 11 | ea | wnr | cm for s, ea, wnr, cm in product(SETS, (0, EA), (0, WNR), (0, CM))]
    more += [ISV | 0x3 << 22, S1PTW, 1 << 36]
    for index, (ec, dfsc, fnv, flags, pstate) in enumerate(
        product((FETCH, DATA), CODES, (0, FNV), range(4), (EL0, EL1))
    ):
        bits = more[index % len(more)]
        yield Said(ec, dfsc, fnv, flags, LOST + 0x238, pstate, bits)
    for ec, bits, fnv in product((FETCH, DATA), more, (0, FNV)):
        yield Said(ec, 0x10, fnv, 1, LOST, EL0, bits)
    for gpa, flags, fnv in product((0, OUTSIDE, (1 << 52) - 1, (1 << 64) - 1), range(4), (0, FNV)):
        yield Said(DATA, 0x10, fnv, flags, gpa, EL0, 0)


@pytest.fixture
def profile():
    """The one host that has the exit."""
    (host,) = (host for host in HOSTS.values() if host.sea_exit)
    return host


@pytest.mark.parametrize("relayed", [False, True])
def test_every_combination(make, relayed):  # noqa: F811
    """The vCPU takes an SEA whose EC, FnV and FAR are right; a record is told where the host knows a page of ours."""
    m = make(policy=RELAY if relayed else None)
    m.guest.start()
    for number, said in enumerate(every()):
        m.seen.clear()
        model = m.model()
        model.far = 0x99

        def enter(vcpu, said=said):
            vcpu.model.vcpu.pc, vcpu.model.vcpu.pstate = 0x1000, said.pstate
            union = ArmSea(flags=said.flags, esr=said.esr, gva=GVA, gpa=said.gpa).encode()
            return leaves(events.EXIT_ARM_SEA, union)(vcpu)

        m.play(0, enter)
        m.until(lambda: m.saw(InjectSea) and not m.guest.vcpus[0].out, f"exit {number}: {said}")
        assert len(m.saw(InjectSea)) == 1, said
        assert (model.esr, model.far) == (expected(said, relayed), 0x99 if said.fnv else GVA), said
        assert (model.elr, model.spsr) == (0x1000, said.pstate), said
        known = said.flags & 1 and RAM <= said.gpa < RAM + SIZE
        told = [e.pages for e in m.saw(Posted) if e.delivery == "sea"]
        assert told == ([((LOST, 4096),)] if known else []), said
        assert [e.gpa for e in m.saw(Decided)] == [LOST if known else -1], said
        if known:
            m.acknowledge()
            m.until(lambda: m.saw(Acked), f"acknowledgement {number}")
    assert m.ended == []
    assert number > 500
    assert arm64.ISS_FNV == FNV
