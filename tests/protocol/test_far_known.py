"""A vCPU at the access that failed, whose FAR the host fills: its ESR says so, and a policy may choose the status."""

from __future__ import annotations

from acpi.presets import PRESETS
from vmm_ras.effects import InjectSea, Stop
from vmm_ras.events import Code, HostSignal, Stopped, VcpuState
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy

RAM, HVA = 0x4000_0000, 1 << 40
POLICY = 'version = 1\n[[rule]]\nname = "all"\nwhen = { code = "AR" }\ndeliver = ["sea"]\nsea = { dfsc = 0x15 }\n'
POLICY += '[[rule]]\nname = "found"\nwhen = { code = "AO" }\ndeliver = ["polled"]\n'


def injected(policy: str | None, known: bool, el: int = 0) -> InjectSea:
    core = Notifier(
        PRESETS["default"].place(RAM).sources, MemoryMap([MemorySlot(HVA, RAM, 1 << 30)]), threads={7: 0},
        policy=None if policy is None else load_policy(policy, "test"),
    )  # fmt: skip
    effects = core.receive(HostSignal(Code.AR, HVA + 0x123000, 12, 7), 0.0)
    assert isinstance(effects[0], Stop)
    effects = core.receive(Stopped(0, VcpuState(0x1000, 0x3C5 if el else 0, far_known=known)), 0.0)
    return next(e for e in effects if isinstance(e, InjectSea))


def test_far_is_said_to_be_valid():
    assert (injected(None, False).esr, injected(None, True).esr) == (0x92000410, 0x92000010)
    assert injected(None, True).far is None


def test_without_a_record_too():
    """The default policy tells a Linux kernel's own access without one."""
    assert [injected(None, known, 1).esr for known in (False, True)] == [0x96000410, 0x96000010]


def test_a_status_on_a_table_walk_needs_far():
    """FnV is RES0 there (DDI 0487, ISS encoding for an exception from a Data Abort)."""
    assert (injected(POLICY, False).esr, injected(POLICY, True).esr) == (0x92000410, 0x92000015)
