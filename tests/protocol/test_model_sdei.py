"""The SDEI client of the model guest beside what waits for its vCPUs."""

from __future__ import annotations

from acpi.presets import PRESETS
from vmm_ras.guests.model import ModelGuest
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import PROFILES
from vmm_ras.replay import TABLES


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
