"""A vCPU of KVM: running it, its exits, registers, events (KVM API 4.7, 4.10, 4.21, 4.31, 4.68, 5)."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable

from vmm_ras.events import VcpuState
from vmm_ras.io.kvm.ioctl import KvmError, Value, call, fetch, put
from vmm_ras.io.libc import signal_mask
from vmm_ras.kvm import events, exits, ioctls
from vmm_ras.kvm.events import ArmSea, MemoryFaultExit, VcpuEvents
from vmm_ras.kvm.exits import HypercallExit, MmioExit, SystemEventExit
from vmm_ras.kvm.one_reg import CORE, SYSREGS, size_of
from vmm_ras.kvm.structs import VcpuInit

_ONE_REG = struct.Struct("<QQ")
_REASON = struct.Struct("<I")
_VALUE_SIZE = 256
"""Bytes of the largest register (SVE)."""
_MAX_REGISTERS = 8192
EHWPOISON = 133
_INSTRUCTION = 4
"""Bytes."""
_SAVED = tuple(CORE[f"X{n}"] for n in range(18))
_ALL_SIGNALS = frozenset(range(1, 65))


class Vcpu:
    """A vCPU that was initialized.  Every method raises KvmError, and belongs into one thread."""

    def __init__(
        self, fd: int, run_size: int, index: int, target: int, *, powered: bool = True, features: int = 0
    ) -> None:
        """``features``: bits of optional ones, beside PSCI."""
        self.fd, self.index = fd, index
        features |= 1 << ioctls.ARM_VCPU_PSCI_0_2 | (not powered) << ioctls.ARM_VCPU_POWER_OFF
        self._init = VcpuInit(target=target, features=(features, *(0,) * 6))
        self._value = Value(_VALUE_SIZE)
        self.run_page = mmap.mmap(fd, run_size)
        """struct kvm_run."""
        self._unsettled = False
        self.lost = False
        """Whether the memory that EXIT_MEMORY_FAULT is about is lost, and not merely absent."""
        self.init()

    def init(self) -> None:
        """KVM_ARM_VCPU_INIT: registers as after a reset.  A pending SError may survive it."""
        put(self.fd, ioctls.ARM_VCPU_INIT, self._init)

    def finalize(self, feature: int) -> None:
        """KVM_ARM_VCPU_FINALIZE: this feature is as it will be."""
        call(self.fd, ioctls.ARM_VCPU_FINALIZE, feature.to_bytes(4, "little"))

    # -- running -----------------------------------------------------------------------

    def run(self) -> int:
        """KVM_RUN until the next exit; its reason, EXIT_INTR where a signal or ``immediate_exit`` ended it."""
        try:
            fcntl.ioctl(self.fd, ioctls.RUN, 0)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN):
                self._unsettled = False
                return ioctls.EXIT_INTR
            reason = self.reason
            if reason == events.EXIT_MEMORY_FAULT and error.errno in (errno.EFAULT, EHWPOISON):
                self.lost = error.errno == EHWPOISON
                return reason
            raise KvmError(ioctls.RUN, error.errno or errno.EIO) from None
        reason = self.reason
        self._unsettled = reason in (ioctls.EXIT_MMIO, ioctls.EXIT_ARM_NISV)
        return reason

    @property
    def reason(self) -> int:
        """exit_reason of struct kvm_run."""
        return int(_REASON.unpack_from(self.run_page, exits.EXIT_REASON)[0])

    def settle(self) -> None:
        """Let KVM complete an access that user space has answered, and enter an exception that it has accepted.

        Registers are the guest's own only after that.  The guest is not entered.
        """
        self.run_page[exits.IMMEDIATE_EXIT] = 1
        try:
            self.run()
        finally:
            self.run_page[exits.IMMEDIATE_EXIT] = 0

    def settle_access(self) -> None:
        """As ``settle``, if there is an access that was not completed."""
        if self._unsettled:
            self.settle()

    def undo(self, reason: int) -> None:
        """What the vCPU came out for happens again when it enters: nobody has answered it.  Settles it."""
        if reason in (ioctls.EXIT_MMIO, ioctls.EXIT_ARM_NISV):
            _REASON.pack_into(self.run_page, exits.EXIT_REASON, ioctls.EXIT_UNKNOWN)  # else KVM completes the access
            self._unsettled = False
        elif reason == ioctls.EXIT_HYPERCALL:
            self.set(CORE["PC"], self.get(CORE["PC"]) - _INSTRUCTION)

    def admit_signals(self, signals: Iterable[int]) -> None:
        """KVM_SET_SIGNAL_MASK: while the guest runs, these signals end KVM_RUN; all others are blocked."""
        mask = signal_mask(_ALL_SIGNALS - frozenset(signals))
        call(self.fd, ioctls.SET_SIGNAL_MASK, len(mask).to_bytes(4, "little") + mask)

    # -- what an exit tells -----------------------------------------------------------------

    def mmio(self) -> MmioExit:
        """After EXIT_MMIO."""
        return MmioExit.decode(self._exit(MmioExit.SIZE))

    def answer_mmio(self, data: bytes) -> None:
        """What the guest reads, at most 8 bytes."""
        self.run_page[exits.MMIO_DATA : exits.MMIO_DATA + len(data)] = data

    def hypercall(self) -> HypercallExit:
        """After EXIT_HYPERCALL; the arguments are in registers."""
        return HypercallExit.decode(self._exit(HypercallExit.SIZE))

    def system_event(self) -> SystemEventExit:
        """After EXIT_SYSTEM_EVENT."""
        return SystemEventExit.decode(self._exit(SystemEventExit.SIZE))

    def arm_sea(self) -> ArmSea:
        """After EXIT_ARM_SEA."""
        return ArmSea.decode(self._exit(ArmSea.SIZE))

    def memory_fault(self) -> MemoryFaultExit:
        """After EXIT_MEMORY_FAULT."""
        return MemoryFaultExit.decode(self._exit(MemoryFaultExit.SIZE))

    def fault_ipa(self) -> int:
        """After EXIT_ARM_NISV (struct kvm_run, ``arm_nisv``): where the access went that has no syndrome."""
        return int.from_bytes(self.run_page[exits.EXIT_UNION + 8 : exits.EXIT_UNION + 16], "little")

    def _exit(self, size: int) -> bytes:
        return bytes(self.run_page[exits.EXIT_UNION : exits.EXIT_UNION + size])

    # -- registers ---------------------------------------------------------------------

    def get(self, reg: int) -> int:
        """KVM_GET_ONE_REG."""
        call(self.fd, ioctls.GET_ONE_REG, _ONE_REG.pack(reg, self._value.address))
        return int.from_bytes(self._value.data[: size_of(reg)], "little")

    def set(self, reg: int, value: int) -> None:
        """KVM_SET_ONE_REG."""
        self._value.fill(value.to_bytes(size_of(reg), "little"))
        call(self.fd, ioctls.SET_ONE_REG, _ONE_REG.pack(reg, self._value.address))

    def registers(self) -> list[int]:
        """KVM_GET_REG_LIST: the ids of all registers."""
        found = fetch(self.fd, ioctls.GET_REG_LIST, 8 + 8 * _MAX_REGISTERS, _MAX_REGISTERS.to_bytes(8, "little"))
        return list(struct.unpack_from(f"<{int.from_bytes(found[:8], 'little')}Q", found, 8))

    def state(self) -> VcpuState:
        """What the core decides by; of a vCPU that is settled."""
        return VcpuState(
            pc=self.get(CORE["PC"]), pstate=self.get(CORE["PSTATE"]), x=tuple(self.get(reg) for reg in _SAVED),
            serror=self.events().serror, vbar=self.get(SYSREGS["VBAR_EL1"]), sctlr=self.get(SYSREGS["SCTLR_EL1"]),
        )  # fmt: skip

    def events(self) -> VcpuEvents:
        """KVM_GET_VCPU_EVENTS."""
        return VcpuEvents.decode(fetch(self.fd, events.GET_VCPU_EVENTS, VcpuEvents.SIZE))

    def set_events(self, wanted: VcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS."""
        put(self.fd, events.SET_VCPU_EVENTS, wanted)

    @property
    def mp_state(self) -> int:
        """KVM_GET_MP_STATE."""
        return int.from_bytes(fetch(self.fd, ioctls.GET_MP_STATE, 4), "little")

    @mp_state.setter
    def mp_state(self, value: int) -> None:
        call(self.fd, ioctls.SET_MP_STATE, value.to_bytes(4, "little"))

    def close(self) -> None:
        """Close the vCPU; it may be called twice."""
        if self.fd >= 0:
            self.run_page.close()
            os.close(self.fd)
            self.fd = -1
