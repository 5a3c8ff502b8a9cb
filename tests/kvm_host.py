"""A host of the model behind KVM's ioctls: the vCPUs are those of ``vmm_ras.guests.kvm``, files and signals are real.

KVM_RUN plays what a test wrote down: exits, or real signals that the thread sends itself, as KVM does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable

from vmm_ras import arm64
from vmm_ras.errors import HostError
from vmm_ras.guests.kvm import KvmVcpu
from vmm_ras.guests.vcpu import Vcpu as ModelVcpu
from vmm_ras.kvm import events, exits, ioctls
from vmm_ras.kvm.hosts import HostProfile
from vmm_ras.kvm.one_reg import SYSREGS
from vmm_ras.kvm.structs import CreateDevice, DeviceAttr, EnableCap, IrqLevel, SmcccFilter, UserspaceMemoryRegion

RUN_SIZE = 4096
KVM_FD = 1 << 20
RT_TGSIGQUEUEINFO = {"x86_64": 297, "aarch64": 240}[platform.machine()]
REGISTERS = (ioctls.DEV_ARM_VGIC_GRP_DIST_REGS, ioctls.DEV_ARM_VGIC_GRP_REDIST_REGS,
             ioctls.DEV_ARM_VGIC_GRP_CPU_SYSREGS, ioctls.DEV_ARM_VGIC_GRP_LEVEL_INFO)  # fmt: skip
LACKING = {3 << 14 | 12 << 7 | crm << 3 | op2 for crm, op2 in ((8, 5), (8, 6), (8, 7), (9, 1), (9, 2), (9, 3))}
"""ICC_AP0R1 to 3 and ICC_AP1R1 to 3."""
_libc = ctypes.CDLL(None, use_errno=True)
Exit = Callable[["HostVcpu"], int]


def send_self(code: int, address: int, lsb: int = 12) -> None:
    """A SIGBUS of the host's memory failure handling, to the calling thread (rt_tgsigqueueinfo(2))."""
    info = ctypes.create_string_buffer(struct.pack("<iii4xQh", signal.SIGBUS, 0, code, address, lsb), 128)
    if _libc.syscall(RT_TGSIGQUEUEINFO, os.getpid(), threading.get_native_id(), int(signal.SIGBUS), info):
        raise OSError(ctypes.get_errno(), "rt_tgsigqueueinfo")


class Exits(deque[Exit]):
    """Those that a vCPU is going to make; it need not look for them, it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.come = threading.Event()

    def extend(self, more: Iterable[Exit]) -> None:
        super().extend(more)
        self.come.set()


class HostVcpu:
    """One vCPU: the model's, its kvm_run, and the exits that it is going to make."""

    def __init__(self, host: HostProfile) -> None:
        self.model = KvmVcpu(ModelVcpu(arm64.NEOVERSE_N1, vbar=0x4000_8000), host)
        self.fd = os.memfd_create("vcpu")
        os.ftruncate(self.fd, RUN_SIZE)
        self.exits = Exits()
        self.index = 0
        self.deaf = False
        """The abort that it is asked for is never made."""
        self.mask = b""

    def write(self, offset: int, data: bytes) -> None:
        """Into kvm_run."""
        os.pwrite(self.fd, data, offset)

    def run(self) -> int:
        """KVM_RUN."""
        if os.pread(self.fd, 1, exits.IMMEDIATE_EXIT) != b"\0":
            if self.model._abort:
                self.model.vcpu.take_sea(self.model.vcpu.esr, None)
                self.model._abort = False
            raise OSError(errno.EINTR, "immediate_exit")
        while not self.exits:
            if signal.sigpending():
                raise OSError(errno.EINTR, "a signal")
            if self.exits.come.wait(0.001):  # or a signal is pending
                self.exits.come.clear()
        self.write(exits.EXIT_REASON, ioctls.EXIT_UNKNOWN.to_bytes(4, "little"))
        return self.exits.popleft()(self)


def leaves(reason: int, union: bytes = b"", code: int = 0) -> Exit:
    """An exit with this reason and union; ``code``: KVM_RUN fails with it."""

    def play(vcpu: HostVcpu) -> int:
        vcpu.write(exits.EXIT_UNION, union)
        vcpu.write(exits.EXIT_REASON, reason.to_bytes(4, "little"))
        if code:
            raise OSError(code, os.strerror(code))
        return 0

    return play


def consumes(hva: int, far: int, *, pc: int = 0x1000, pstate: int = 0, lsb: int = 12) -> Exit:
    """The guest touches lost memory: BUS_MCEERR_AR, and KVM_RUN is interrupted."""

    def play(vcpu: HostVcpu) -> int:
        vcpu.model.vcpu.pc, vcpu.model.vcpu.pstate, vcpu.model.hfar = pc, pstate, far
        send_self(4, hva, lsb)
        raise OSError(errno.EINTR, "a signal")

    return play


class Host:
    """What stands for ``fcntl`` in ``vmm_ras.io.kvm``."""

    def __init__(self, profile: HostProfile) -> None:
        self.profile = profile
        self.version = ioctls.API_VERSION
        self.vcpus: dict[int, HostVcpu] = {}
        self.slots: list[UserspaceMemoryRegion] = []
        self.lines: list[tuple[int, int]] = []
        self.filters: list[SmcccFilter] = []
        self.attributes: list[tuple[int, int, bytes]] = []
        self.controllers: set[int] = set()
        self.gic: dict[int, dict[tuple[int, int], bytes]] = {}
        """Device to its registers: (group, attribute) to bytes; those that were never written are 0."""
        self.files: list[int] = []

    def file(self) -> int:
        """A new one."""
        self.files.append(os.open("/dev/null", os.O_RDWR))
        return self.files[-1]

    def ioctl(self, fd: int, request: int, argument: object = 0, mutate: bool = True) -> int:
        """As fcntl.ioctl."""
        try:
            if fd in self.vcpus:
                return self._of_vcpu(self.vcpus[fd], request, argument)
            if request in (ioctls.GET_DEVICE_ATTR, ioctls.SET_DEVICE_ATTR) and isinstance(argument, bytearray):
                wanted = DeviceAttr.decode(bytes(argument))
                if wanted.group in REGISTERS and fd in self.controllers:
                    return self._gic(fd, request, wanted)
            return self._of_machine(request, argument)
        except HostError as error:
            code: int = getattr(error, "errno", errno.EINVAL)
            raise OSError(code, os.strerror(code)) from None

    def _gic(self, fd: int, request: int, wanted: DeviceAttr) -> int:
        """A register of an interrupt controller."""
        size = 8 if wanted.group == ioctls.DEV_ARM_VGIC_GRP_CPU_SYSREGS else 4
        registers, at = self.gic.setdefault(fd, {}), (wanted.group, wanted.attr)
        if wanted.group == ioctls.DEV_ARM_VGIC_GRP_CPU_SYSREGS and wanted.attr & 0xFFFF in LACKING:
            raise OSError(errno.EINVAL, "a priority has 5 bits")
        if request == ioctls.SET_DEVICE_ATTR:
            registers[at] = ctypes.string_at(wanted.addr, size)
        else:
            ctypes.memmove(wanted.addr, registers.get(at, bytes(size)), size)
        return 0

    def _of_machine(self, request: int, argument: object) -> int:
        if request == ioctls.GET_API_VERSION:
            return self.version
        if request == ioctls.GET_VCPU_MMAP_SIZE:
            return RUN_SIZE
        if request == ioctls.CHECK_EXTENSION:
            return int(self.has(int(argument)))  # type: ignore[call-overload]
        if request == ioctls.CREATE_VM:
            return self.file()
        if request == ioctls.CREATE_VCPU:
            vcpu = HostVcpu(self.profile)
            vcpu.index = int(argument)  # type: ignore[call-overload]
            self.vcpus[vcpu.fd] = vcpu
            return vcpu.fd
        assert isinstance(argument, bytearray)
        data = bytes(argument)
        if request == ioctls.SET_USER_MEMORY_REGION:
            self.slots.append(UserspaceMemoryRegion.decode(data))
        elif request == ioctls.IRQ_LINE:
            line = IrqLevel.decode(data)
            self.lines.append((line.irq, line.level))
        elif request == ioctls.ENABLE_CAP:
            if not self.has(EnableCap.decode(data).cap):
                raise OSError(errno.EINVAL, "no such capability")
        elif request == ioctls.CREATE_DEVICE:
            argument[:] = CreateDevice.decode(data).model_copy(update={"fd": self.file()}).encode()
            self.controllers.add(self.files[-1])
        elif request == ioctls.SET_DEVICE_ATTR:
            self._attribute(DeviceAttr.decode(data))
        elif request != ioctls.ARM_PREFERRED_TARGET:
            raise OSError(errno.ENOTTY, f"{request:#x}")
        return 0

    def _attribute(self, wanted: DeviceAttr) -> None:
        size = 24 if (wanted.group, wanted.attr) == (0, 0) else 4 if wanted.group == 3 else 8
        value = ctypes.string_at(wanted.addr, size) if wanted.addr else b""
        if size == 24:
            if not self.profile.smccc_filter:
                raise OSError(errno.EINVAL, "no filter")
            self.filters.append(SmcccFilter.decode(value))
        else:
            self.attributes.append((wanted.group, wanted.attr, value))

    def has(self, capability: int) -> bool:
        """KVM_CHECK_EXTENSION."""
        differing = {
            events.CAP_ARM_SEA_TO_USER: self.profile.sea_exit,
            events.CAP_ARM_WRITABLE_IMP_ID_REGS: self.profile.implementation_ids_writable,
        }
        return differing.get(capability, True)

    def _of_vcpu(self, vcpu: HostVcpu, request: int, argument: object) -> int:
        if request == ioctls.RUN:
            return vcpu.run()
        if request in (ioctls.GET_ONE_REG, ioctls.SET_ONE_REG):
            assert isinstance(argument, bytes | bytearray)
            reg, address = struct.unpack("<QQ", argument)
            if request == ioctls.GET_ONE_REG and reg == SYSREGS["MPIDR_EL1"]:
                mpidr = 1 << 31 | vcpu.index >> 4 << 8 | vcpu.index & 15
                ctypes.memmove(address, mpidr.to_bytes(8, "little"), 8)
            elif request == ioctls.GET_ONE_REG:
                ctypes.memmove(address, vcpu.model.get_one_reg(reg).to_bytes(8, "little"), 8)
            else:
                vcpu.model.set_one_reg(reg, int.from_bytes(ctypes.string_at(address, 8), "little"))
            return 0
        assert isinstance(argument, bytearray)
        if request == ioctls.ARM_VCPU_INIT:
            vcpu.model.init()
        elif request == ioctls.SET_SIGNAL_MASK:
            vcpu.mask = bytes(argument)
        elif request == events.GET_VCPU_EVENTS:
            argument[:] = vcpu.model.get_events()
        elif request == events.SET_VCPU_EVENTS:
            if not vcpu.deaf:
                vcpu.model.set_events(bytes(argument))
        elif request == ioctls.GET_REG_LIST:
            room = struct.unpack_from("<Q", argument)[0]
            regs = sorted(vcpu.model.reg_list)
            assert room >= len(regs)
            struct.pack_into(f"<{len(regs) + 1}Q", argument, 0, len(regs), *regs)
        elif request in (ioctls.GET_MP_STATE, ioctls.SET_MP_STATE):
            return 0
        else:
            raise OSError(errno.ENOTTY, f"{request:#x}")
        return 0

    def close(self) -> None:
        """Close what was made for the machine."""
        for fd in self.files:
            try:
                os.close(fd)
            except OSError:
                continue
