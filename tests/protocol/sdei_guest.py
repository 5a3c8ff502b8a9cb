"""An SDEI dispatcher and its client by names, as the tests of the dispatcher use them."""

from vmm_ras import sdei_table as t
from vmm_ras.events import VcpuState
from vmm_ras.sdei import EventDescription, SdeiDispatcher

SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL = 804, 805, 900, 901
SLOT, SLOT_2, PRIVATE_SLOT = 1000, 1001, 1002
EVENTS = [
    EventDescription(SHARED, True),
    EventDescription(CRITICAL, True, True),
    EventDescription(PRIVATE),
    EventDescription(PRIVATE_CRITICAL, False, True),
    EventDescription(SLOT, True, slot=True),
    EventDescription(SLOT_2, True, slot=True),
    EventDescription(PRIVATE_SLOT, slot=True),
]
NUMBERS = [0, *(event.number for event in EVENTS)]
MPIDRS = [0x8000_0000, 0x8000_0001, 0x8000_0100, 0x81_8000_0000]  # RES1 and affinities up to Aff3
AFFINITY = [0x0, 0x1, 0x100, 0x81_0000_0000]
SPI, SPI_2, PPI, KEPT = 40, 4096, 23, 41
"""Interrupts: KEPT is not the client's."""
ENTRY, RESUME = 0xFFFF_8000_0001_0000, 0xFFFF_8000_0801_0280
EL0, EL1H = 0x0, 0x5
N, PAN = 1 << 31, 1 << 22
HANDLER = PAN | 0x3C0 | EL1H  # PSTATE in a handler: SCTLR_EL1 is 0, so PAN is set


def at(pc=0x400000, pstate=EL1H, x=tuple(range(100, 118)), **others):
    """What a stopped vCPU holds."""
    return VcpuState(pc, pstate, x, **others)


class Guest:
    """A dispatcher, and calls by name."""

    def __init__(self, pes=4, **options):
        self.sdei = SdeiDispatcher(EVENTS, MPIDRS[:pes], kept=[KEPT], **options)

    def __call__(self, function, *args, vcpu=0, state=None, active=()):
        return self.sdei.call(vcpu, getattr(t, function), args, state or at(), active)

    def x0(self, function, *args, vcpu=0, active=()):
        result = self(function, *args, vcpu=vcpu, active=active)
        assert result.registers is None
        return result.x0

    def ready(self, event, *, vcpu=0, flags=0, mpidr=0, argument=7):
        assert self.x0("EVENT_REGISTER", event, ENTRY, argument, flags, mpidr, vcpu=vcpu) == 0
        assert self.x0("EVENT_ENABLE", event, vcpu=vcpu) == 0

    def unmask(self, *vcpus):
        for vcpu in vcpus:
            assert self.x0("PE_UNMASK", vcpu=vcpu) == 0

    def status(self, event, vcpu=0):
        return self.x0("EVENT_STATUS", event, vcpu=vcpu)

    def run(self, event, vcpu=0, state=None):
        assert self.sdei.signal(event, vcpu) == vcpu
        dispatch = self.sdei.dispatch(vcpu, state or at())
        assert dispatch is not None
        assert dispatch.event == event
        return dispatch
