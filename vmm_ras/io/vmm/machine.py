"""A virtual machine on arm64 KVM: it boots a kernel, runs its vCPUs in threads, tells memory errors, and is reset.

Every boot has KVM objects and a core of its own over the same RAM: what a reset must undo, a pending SError among it,
goes with the old ones.  Memory that the guest has lost is replaced before it boots again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from acpi.firmware import GUEST_PAGE
from acpi.firmware_presets import RAM
from vmm_ras.boot.kernel_image import ImageHeader, Kernel, read_header
from vmm_ras.effects import Effect, Escalate
from vmm_ras.errors import HostError, InputError
from vmm_ras.events import Event
from vmm_ras.io.closing import Closing
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.moving import Leaving
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.vmm import moving, platform
from vmm_ras.io.vmm.bus import Bus
from vmm_ras.io.vmm.configuration import HUGE_PAGE, Configuration, Ending
from vmm_ras.io.vmm.console import Console
from vmm_ras.io.vmm.moving import Coming
from vmm_ras.io.vmm.pl011 import Pl011
from vmm_ras.io.vmm.running import Running
from vmm_ras.notifier import Notifier
from vmm_ras.snapshot.stream import Read

Heard = Callable[[Event | Effect], object]


class VirtualMachine(Closing):
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

    def save(self) -> bytes:
        """The snapshot of the running guest, without its memory; it goes on.  Raises HostError."""
        return moving.save(self.running)

    def depart(self) -> Leaving:
        """Freeze the running guest for good, to be sent to another machine; this one is then to be closed.

        Raises HostError.
        """
        leaving = moving.depart(self.running)
        self.stop("it has left")
        return leaving

    def migrate(self, path: str | Path) -> int:
        """Write the running guest, memory and all, to a new file, and end it here; how many bytes that is.

        Raises HostError; then there is no file, and the guest goes on.
        """
        size = moving.migrate(self.running, Path(path))
        self.stop("it has left")
        return size

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

    def arrive(self, read: Read) -> Coming:
        """Instead of a boot, let a guest go on that comes as a stream (``vmm_ras.snapshot.stream``) into empty RAM.

        Raises SnapshotError, GuestError and HostError; then this machine is to be closed.
        """
        assert self._now is None
        assert not self.boots
        coming = Coming(read)
        self.boots += 1
        self._now = Running(self, load=False)
        coming.enter(self._now)
        return coming

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
            return [] if now.guest.frozen else now.guest.replace_lost()
        except HostError:
            return []
        finally:
            self._now = None
            now.close()
            self.bus.reset()

    def run(
        self, again: Callable[[Ending], bool] = lambda ending: ending.how == "reset", incoming: Read | None = None
    ) -> Ending:
        """Boot, and boot again while ``again`` says so; how the last boot ended.

        ``incoming``: a guest that comes instead of the first boot.  Raises HostError, InputError; and as ``arrive``.
        """
        while True:
            if incoming is not None:
                self.arrive(incoming)
                incoming = None
            else:
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


def _kernel(path: Path) -> Kernel:
    try:
        with path.open("rb") as file:
            return read_header(file.read(ImageHeader.SIZE), str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


__all__ = ["Configuration", "Ending", "VirtualMachine"]
