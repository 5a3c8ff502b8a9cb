"""A virtual machine on arm64 KVM: it boots a kernel, runs its vCPUs in threads, tells memory errors, and is reset.

Every boot has KVM objects and a core of its own over the same RAM: what a reset must undo, a pending SError among it,
goes with the old ones.  Memory that the guest has lost is replaced before it boots again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from acpi.description import FirmwareDescription
from acpi.firmware import GUEST_PAGE, build
from acpi.firmware_presets import RAM
from vmm_ras.boot.kernel_image import ImageHeader, Kernel, read_header
from vmm_ras.boot.layout import BOOT_PSTATE, Boot, lay_out
from vmm_ras.deciding import Hook
from vmm_ras.effects import Effect, Escalate
from vmm_ras.errata import Pool
from vmm_ras.errors import GuestError, HostError, InputError
from vmm_ras.events import Event
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm import implementations
from vmm_ras.io.kvm.gic import GicV3
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.thread import VcpuThread
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.io.vmm import platform
from vmm_ras.io.vmm.bus import Bus
from vmm_ras.io.vmm.console import Console
from vmm_ras.io.vmm.pl011 import Pl011
from vmm_ras.kvm import ioctls
from vmm_ras.kvm.exits import EXIT_UNION, MmioExit
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy
from vmm_ras.profiles import PROFILES, GuestProfile

HUGE_PAGE = 2 << 20
"""Bytes."""
_CHUNK = 1 << 20
_ACCESS = MmioExit.reader("phys_addr", "len", "data", "is_write")
_ENDINGS = {
    ioctls.SYSTEM_EVENT_SHUTDOWN: "powered off",
    ioctls.SYSTEM_EVENT_RESET: "reset",
    ioctls.SYSTEM_EVENT_CRASH: "crashed",
}


@dataclass(frozen=True)
class Configuration:
    """What a machine is made of."""

    kernel: Path
    """An uncompressed arm64 ``Image``."""
    initrd: Path | None = None
    command_line: str = ""
    memory: int = 1 << 30
    """Bytes."""
    vcpus: int = 1
    name: str = "guest"
    policy: Policy | None = None
    hook: Hook | None = None
    profile: GuestProfile = PROFILES["linux"]
    pool: Pool | None = None
    """CPUs that the guest is told of; it is shown the chosen one.  Without, it is shown the host's."""
    huge: bool = False
    """RAM of the host's 2 MiB pages."""
    describe: Callable[..., FirmwareDescription] = field(default=platform.describe, repr=False)
    """(bytes of RAM, vCPUs, ``sdei``) to all that the ACPI tables say."""


class Ending(NamedTuple):
    """Why a boot ended."""

    how: str
    """``powered off``, ``reset``, ``crashed``, ``stopped`` (from outside, or by policy) or ``failed``."""
    why: str = ""


Heard = Callable[[Event | Effect], object]


class VirtualMachine:
    """One guest.  Use it in a ``with`` block, or close it; then nothing of it is left, its console neither.

    ``heard`` is told every event as it comes and every effect once it was carried out; under the lock, so it must be
    quick, and must not wait for another thread.  Raises InputError and HostError.
    """

    def __init__(self, configuration: Configuration, console: Console, heard: Heard = lambda item: None) -> None:
        c = self.configuration = configuration
        if not 1 <= c.vcpus <= platform.MAX_VCPUS:
            raise InputError(f"{c.vcpus} vCPUs, not 1 to {platform.MAX_VCPUS}")
        granule = HUGE_PAGE if c.huge else GUEST_PAGE
        if c.memory % granule or c.memory <= 0:
            raise InputError(f"memory: {c.memory} bytes are no multiple of {granule}")
        self.kernel = _kernel(c.kernel)
        self.name, self.vcpus = c.name, c.vcpus
        self.vcpu_names = tuple(f"vcpu{index}" for index in range(c.vcpus))
        """By index, which is what events call them."""
        self.watch: Callable[[Sequence[Effect]], None] | None = None
        """Is told every list of effects once it was carried out; as ``heard``."""
        self.lock = threading.RLock()
        """Around the core: whoever looks at ``notifier`` holds it."""
        self.boots = 0
        """How often the guest was started."""
        self._heard, self.console = heard, console
        self._answers: list[Effect] | None = None
        self.uart = Pl011(console.print, self._set_uart_line, console.drained)
        console.deliver = self.uart.receive
        self.bus = Bus()
        self._ending: Ending | None = None
        self._ended = threading.Condition()
        self._now: Running | None = None
        self._kvm = Kvm()
        try:
            self.ram = GuestRam(RAM, c.memory, huge=c.huge)
        except BaseException:
            self._kvm.close()
            raise
        self.bus.add(platform.UART, self.uart)
        console.start()

    # -- what others plug into ------------------------------------------------------------

    @property
    def running(self) -> Running:
        """This boot.  Raises HostError while there is none."""
        now = self._now
        if now is None:
            raise HostError(f"{self.configuration.name} does not run")
        return now

    @property
    def notifier(self) -> Notifier:
        """The core of this boot; look at it under ``lock``.  Raises HostError while there is none."""
        return self.running.guest.core

    @property
    def guest(self) -> KvmGuest:
        """What carries out the core's effects in this boot.  Raises HostError while there is none."""
        return self.running.guest

    @property
    def midr(self) -> int:
        """MIDR_EL1 of its vCPUs.  Raises HostError while there are none."""
        return self.running.midr

    @property
    def status(self) -> str:
        """QEMU's word for it: ``running``, ``guest-panicked``, ``internal-error`` or ``shutdown``."""
        ending = self._ending
        if ending is None:
            return "shutdown" if self._now is None else "running"
        return {"crashed": "guest-panicked", "failed": "internal-error"}.get(ending.how, "shutdown")

    def submit(self, event: Event) -> Sequence[Effect]:
        """Give the core an event, and carry out what follows; the effects that were carried out at once.

        From any thread.  Raises HostError while the guest does not run, InputError for what is none of this guest's.
        """
        with self.lock:
            outer, self._answers = self._answers, []
            try:
                self.running.guest.receive(event)
                return self._answers
            finally:
                self._answers = outer

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Boot the guest.  SIGBUS is blocked in the calling thread from now on.  Raises HostError, InputError."""
        assert self._now is None
        with self._ended:
            self._ending = None
        self.boots += 1
        self._now = Running(self)
        self._now.guest.start()

    def wait(self, seconds: float | None = None) -> Ending | None:
        """Wait until this boot ends; why, or None where it has not within ``seconds``."""
        with self._ended:
            self._ended.wait_for(lambda: self._ending is not None, seconds)
            return self._ending

    def stop(self, why: str = "") -> None:
        """Let the boot end: ``wait`` returns.  From any thread."""
        self.end(Ending("stopped", why))

    def end(self, ending: Ending) -> None:
        """The boot ends like this; the first word counts."""
        with self._ended:
            if self._ending is None:
                self._ending = ending
            self._ended.notify_all()

    def halt(self) -> list[tuple[int, int]]:
        """Take the vCPUs out for good and drop the boot; RAM stays.  The (gpa, size) of lost memory that was replaced.

        Memory that the host does not replace stays lost, and is told when it is touched.
        """
        now = self._now
        if now is None:
            return []
        now.guest.end()
        try:
            return now.guest.replace_lost()
        except HostError:
            return []
        finally:
            self._now = None
            now.close()
            self.bus.reset()

    def run(self, again: Callable[[Ending], bool] = lambda ending: ending.how == "reset") -> Ending:
        """Boot, and boot again while ``again`` says so; how the last boot ended.  Raises HostError, InputError."""
        while True:
            self.start()
            ending = self.wait()
            assert ending is not None
            self.halt()
            if not again(ending):
                return ending

    def close(self) -> None:
        """End everything and give it back; it may be called twice."""
        self.stop()
        try:
            self.halt()
        finally:
            self.console.close()
            self.ram.close()
            self._kvm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------

    def _set_uart_line(self, level: bool) -> None:
        now = self._now
        if now is not None:
            now.vm.set_line(platform.UART_GSIV, level)

    def came(self, event: Event) -> None:
        """An event comes; ``lock`` is held."""
        self._heard(event)

    def carried_out(self, effects: Sequence[Effect]) -> None:
        """Effects were carried out; ``lock`` is held."""
        if self._answers is not None:
            self._answers += effects
        for effect in effects:
            if isinstance(effect, Escalate) and effect.action in {"stop", "reset"}:
                self.end(Ending("stopped" if effect.action == "stop" else "reset", f"policy: {effect.reason}"))
            self._heard(effect)
        if self.watch is not None:
            self.watch(effects)


class _Guest(KvmGuest):
    """The adapter, whose events are heard of too."""

    machine: VirtualMachine

    def receive(self, event: Event) -> None:
        with self.lock:
            self.machine.came(event)
            super().receive(event)


class Running:
    """One boot: all that a reset throws away."""

    def __init__(self, machine: VirtualMachine) -> None:
        c, ram = machine.configuration, machine.ram
        self.machine = machine
        self.vm = Vm(machine._kvm)
        self.gic: GicV3 | None = None
        try:
            self.vm.add_memory(ram.slot)
            self.sdei = self.vm.forward_calls()
            self.relayed = self.vm.relay_aborts()
            if c.pool is not None:
                implementations.announce(self.vm)
            for index in range(c.vcpus):
                self.vm.add_vcpu(powered=index == 0)
            self.gic = GicV3(self.vm, platform.GICD, platform.GICR, platform.INTERRUPTS)
            self.boot = self._load()
            first = self.vm.vcpus[0]
            if c.pool is not None:
                implementations.show(first, c.pool)
            self.midr = first.get(SYSREGS["MIDR_EL1"])
            for name, value in (("X0", self.boot.device_tree_at), ("PC", self.boot.entry), ("PSTATE", BOOT_PSTATE)):
                first.set(CORE[name], value)
            core = Notifier(
                self.boot.image.sources, MemoryMap([ram.slot]), policy=c.policy, hook=c.hook, guest=c.profile,
                vcpus=c.vcpus, page_shift=self.boot.page_shift,
            )  # fmt: skip
            core.pool = c.pool
            self.guest = _Guest(
                self.vm, ram, core, self._take, raise_line=self._raise_line, heard=machine.carried_out,
                ended=self._vcpu_ended,
            )  # fmt: skip
            self.guest.machine, self.guest.lock = machine, machine.lock
        except BaseException:
            self.close()
            raise

    def _load(self) -> Boot:
        """Everything that the guest finds, into RAM."""
        c, ram = self.machine.configuration, self.machine.ram
        description = c.describe(c.memory, c.vcpus, sdei=self.sdei)
        size = 0 if c.initrd is None else _size(c.initrd)
        boot = lay_out(build(description), self.machine.kernel, size, c.command_line, os.urandom(32))
        _copy(c.kernel, ram, boot.kernel_at, self.machine.kernel.size)
        if c.initrd is not None:
            _copy(c.initrd, ram, boot.initrd_at, size)
        for _, gpa, data in boot.regions:
            ram.write(gpa, data)
        return boot

    def _take(self, thread: VcpuThread, reason: int) -> bool:
        """An exit that is not the core's."""
        vcpu = thread.vcpu
        if reason == ioctls.EXIT_MMIO:
            gpa, size, data, is_write = _ACCESS(vcpu.run_page, EXIT_UNION)
            found = self.machine.bus.access(gpa, size, data if is_write else None)
            if not is_write:
                vcpu.answer_mmio(found)
            return True
        if reason == ioctls.EXIT_SYSTEM_EVENT:
            kind = vcpu.system_event().type
            self.machine.end(Ending(_ENDINGS.get(kind, "failed"), f"vCPU {vcpu.index}: system event {kind}"))
            return False
        raise GuestError(f"vCPU {vcpu.index}: KVM_RUN ended with exit reason {reason}")

    def _vcpu_ended(self, thread: VcpuThread) -> None:
        if not self.guest.ending:
            self.machine.end(Ending("failed", thread.ended))

    def _raise_line(self, kind: str, number: int) -> None:
        gsiv = number if kind == "gsiv" else platform.GPIO_GSIV
        for level in (True, False):
            self.vm.set_line(gsiv, level)

    def close(self) -> None:
        """Give the KVM objects back."""
        if self.gic is not None:
            self.gic.close()
        self.vm.close()


def _kernel(path: Path) -> Kernel:
    try:
        with path.open("rb") as file:
            return read_header(file.read(ImageHeader.SIZE), str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _copy(path: Path, ram: GuestRam, gpa: int, room: int) -> None:
    """A file into RAM.  Raises InputError where it is longer than its place, or cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            while data := file.read(min(_CHUNK, room + 1)):
                room -= len(data)
                if room < 0:
                    raise InputError(f"{path}: longer than it says, or it grew")
                ram.write(gpa, data)
                gpa += len(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
