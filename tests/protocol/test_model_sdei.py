"""The SDEI client of the model guest beside what waits for its vCPUs."""

from __future__ import annotations

import pytest

from acpi.presets import PRESETS
from vmm_ras.events import TellSdei
from vmm_ras.guests.model import ModelGuest
from vmm_ras.guests.os import SDEI_ENTRY, VBAR
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import PROFILES
from vmm_ras.replay import TABLES
from vmm_ras.sdei_table import EVENT_COMPLETE, EVENT_COMPLETE_AND_RESUME


def test_a_masked_serror_waits_while_the_client_registers():
    image = PRESETS["all"].place(TABLES)
    core = Notifier(image.sources, MemoryMap(), vcpus=2, guest=PROFILES["generic"])
    guest = ModelGuest(image, PROFILES["generic"], vcpus=2)
    vcpu = guest.vcpus[0]
    vcpu.mask_serror()
    vcpu.pend_serror(0x811)
    pc, pstate = vcpu.pc, vcpu.pstate
    guest.start_sdei(core, 0.0)
    assert not core.sdei.masked(0)
    assert (vcpu.pc, vcpu.pstate, vcpu.vsesr) == (pc, pstate, 0x811)
    assert vcpu.unmask_serror()


@pytest.mark.parametrize(
    ("interrupted", "call"),
    [
        (0x3C5, (EVENT_COMPLETE, (0,))),
        (0x085, (EVENT_COMPLETE, (0,))),
        (0x345, (EVENT_COMPLETE_AND_RESUME, (VBAR + 0x280,))),
        (0x000, (EVENT_COMPLETE_AND_RESUME, (VBAR + 0x480,))),
        (0x030, (EVENT_COMPLETE_AND_RESUME, (VBAR + 0x680,))),
    ],
    ids=["masked", "interrupts masked", "interrupts on", "user", "AArch32 user"],
)
def test_how_the_handler_ends_depends_on_what_it_interrupted(interrupted, call):
    """As in Linux (arch/arm64/kernel/sdei.c): like an interrupt, except where the kernel has those masked."""
    guest = ModelGuest(PRESETS["all"].place(TABLES), PROFILES["linux"])
    vcpu = guest.vcpus[0]
    vcpu.pc, vcpu.x[:4] = SDEI_ENTRY, [804, 0, 0x1000, interrupted]

    assert list(guest.os.run(0, 0.0)) == [call]


@pytest.mark.parametrize("pstate", [0x345, 0x030])
def test_what_was_interrupted_goes_on_as_it_was(pstate):
    image = PRESETS["all"].place(TABLES)
    core = Notifier(image.sources, MemoryMap(), guest=PROFILES["linux"])
    guest = ModelGuest(image, PROFILES["linux"])
    guest.start_sdei(core, 0.0)
    vcpu, event = guest.vcpus[0], core.ways["sdei"][0].vector
    vcpu.pc, vcpu.pstate, vcpu.x[:] = 0x1002, pstate, range(31)

    guest.drive(core, core.receive(TellSdei(event), 1.0), 1.0)

    assert (vcpu.pc, vcpu.pstate, vcpu.x) == (0x1002, pstate, list(range(31)))
    assert (vcpu.elr, vcpu.spsr) == (0x1002, pstate)
    assert core.sdei.running(0) == ()
