"""The small VMM's machine over the model's KVM: it is put together, runs, ends, is reset, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from pathlib import Path

import pytest

from acpi.firmware_presets import MIB, RAM
from acpi.image import find_tables
from tests.kvm_host import Host, consumes, leaves
from vmm_ras.boot.layout import BOOT_PSTATE
from vmm_ras.effects import Acked, InjectSea, Posted, Queued
from vmm_ras.errors import HostError, InputError
from vmm_ras.events import HostSignal, MemoryFault, TellSdei
from vmm_ras.io.kvm import ioctl, vcpu
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.vmm import machine as vmm
from vmm_ras.io.vmm import platform
from vmm_ras.io.vmm.console import Console
from vmm_ras.io.vmm.machine import Configuration, Ending, VirtualMachine
from vmm_ras.kvm import ioctls
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.policy import load_policy

HEADER = json.loads((Path(__file__).parents[2] / "fixtures/boot/image-headers.json").read_text())[0]["header"]
MIDR = 0x413F_D0C1
SECONDS = 20


def mmio(offset, data=None, size=4):
    """The guest reads or writes a register of the UART."""
    union = struct.pack("<Q8sIB", platform.UART.gpa + offset, data or b"", size, data is not None)
    return leaves(ioctls.EXIT_MMIO, union)


def system_event(kind):
    return leaves(ioctls.EXIT_SYSTEM_EVENT, struct.pack("<II", kind, 0))


class MidrHost(Host):
    """The model's vCPUs have no MIDR."""

    def _of_vcpu(self, cpu, request, argument):
        if request == ioctls.GET_ONE_REG:
            reg, address = struct.unpack("<QQ", argument)
            if reg == SYSREGS["MIDR_EL1"]:
                import ctypes

                ctypes.memmove(address, MIDR.to_bytes(8, "little"), 8)
                return 0
        return super()._of_vcpu(cpu, request, argument)


@pytest.fixture
def host(request, monkeypatch):
    found = MidrHost(HOSTS[getattr(request, "param", "linux-6.12")])
    monkeypatch.setattr(ioctl, "fcntl", found)
    monkeypatch.setattr(vcpu, "fcntl", found)
    monkeypatch.setattr(vmm, "Kvm", lambda: Kvm("/dev/null"))
    return found


@pytest.fixture
def files(tmp_path):
    kernel, initrd = tmp_path / "Image", tmp_path / "initrd"
    kernel.write_bytes(bytes.fromhex(HEADER) + b"kernel" * 100_000)
    initrd.write_bytes(b"initrd" * 1000)
    return kernel, initrd


@pytest.fixture
def make(host, files):
    """Machines, which leave neither thread nor file behind."""
    made = []
    before = threading.active_count(), sorted(os.listdir("/proc/self/fd"))

    def new(**changes):
        screen, heard = bytearray(), []
        options = {"initrd": files[1], "command_line": "quiet", "memory": 64 * MIB, "vcpus": 2} | changes
        found = VirtualMachine(Configuration(files[0], **options), Console(screen.extend), heard.append)
        made.append(found)
        found.screen, found.seen = screen, heard
        return found

    yield new
    for found in made:
        found.close()
        found.close()
    for fd in host.files:  # those that the host made are the test's own, where nobody owned them
        try:
            os.close(fd)
        except OSError:
            continue
    assert threading.active_count() == before[0]
    assert sorted(os.listdir("/proc/self/fd")) == before[1]


def play(host, *plays, index=0):
    """What a vCPU of the newest boot does."""
    cpus = list(host.vcpus.values())
    cpus[index - 2].exits.extend(plays)


def until(holds):
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestStart:
    def test_what_the_guest_finds(self, make, host, files):
        machine = make()
        machine.start()
        boot = machine.running.boot
        first, second = list(host.vcpus.values())
        found = {name: first.model.get_one_reg(CORE[name]) for name in ("X0", "X1", "PC", "PSTATE")}
        assert found == {"X0": boot.device_tree_at, "X1": 0, "PC": boot.kernel_at, "PSTATE": BOOT_PSTATE}
        assert second.model.get_one_reg(CORE["PC"]) == 0
        kernel, initrd = (file.read_bytes() for file in files)
        assert machine.ram.read(boot.kernel_at, len(kernel)) == kernel
        assert machine.ram.read(boot.initrd_at, len(initrd)) == initrd
        assert b"quiet\0" in machine.ram.read(boot.device_tree_at, 4096)
        tables = find_tables(machine.ram.read, boot.image.rsdp)
        assert {"APIC", "DSDT", "FACP", "GTDT", "HEST", "SDEI", "SPCR"} - {"DSDT"} == tables.keys()
        (slot,) = host.slots
        assert (slot.guest_phys_addr, slot.memory_size, slot.userspace_addr) == (RAM, 64 * MIB, machine.ram.hva)
        assert (machine.vcpu_names, machine.vcpus, machine.midr) == (("vcpu0", "vcpu1"), 2, MIDR)

    @pytest.mark.parametrize("host", ["linux-6.1"], indirect=True)
    def test_a_host_that_keeps_sdei_calls_to_itself(self, make):
        machine = make()
        machine.start()
        tables = find_tables(machine.ram.read, machine.running.boot.image.rsdp)
        assert "SDEI" not in tables
        assert machine.notifier.ways["sdei"] == []
        assert machine.notifier.ways["sea"]

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"vcpus": 0}, "0 vCPUs, not 1 to 123"),
            ({"vcpus": 124}, "124 vCPUs"),
            ({"memory": 0}, "memory: 0 bytes"),
            ({"memory": MIB + 4096}, "no multiple of 65536"),
        ],
    )
    def test_what_cannot_be(self, make, changes, text):
        with pytest.raises(InputError, match=text):
            make(**changes)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"memory": 32 * MIB}, "memory: 32 MiB hold no kernel"),
            ({"initrd": Path("/nowhere")}, "/nowhere: No such file"),
            ({"command_line": "x" * 3000}, "command line"),
        ],
    )
    def test_what_cannot_start(self, make, changes, text):
        machine = make(**changes)
        with pytest.raises(InputError, match=text):
            machine.start()
        with pytest.raises(HostError, match="guest does not run"):
            machine.submit(MemoryFault(RAM, 4096))

    def test_a_kernel_that_is_longer_than_it_says(self, make, files):
        machine = make()
        with files[0].open("ab") as file:
            file.truncate(machine.kernel.size + 1)
        with pytest.raises(InputError, match="longer than it says"):
            machine.start()

    def test_no_kvm(self, make, monkeypatch):
        def refuse():
            raise HostError("/dev/kvm: No such file or directory")

        monkeypatch.setattr(vmm, "Kvm", refuse)
        with pytest.raises(HostError, match="/dev/kvm"):
            make()


class TestRun:
    def test_the_console(self, make, host):
        machine = make()
        machine.start()
        play(host, *(mmio(0, bytes((byte,))) for byte in b"Hello\n"), mmio(0x18), mmio(0x38, b"\x10"))
        until(lambda: bytes(machine.screen) == b"Hello\n")
        machine.console.type(b"x")
        until(lambda: host.lines)
        assert host.lines == [(1 << 24 | platform.UART_GSIV, 1)]
        play(host, mmio(0), index=1)
        until(lambda: len(host.lines) == 2)
        assert host.lines[1] == (1 << 24 | platform.UART_GSIV, 0)
        page = os.pread(list(host.vcpus)[1], 8, 40)
        assert page[:4] == b"x\0\0\0"

    @pytest.mark.parametrize(
        ("kind", "ending", "status"),
        [
            (ioctls.SYSTEM_EVENT_SHUTDOWN, "powered off", "shutdown"),
            (ioctls.SYSTEM_EVENT_CRASH, "crashed", "guest-panicked"),
            (99, "failed", "internal-error"),
        ],
    )
    def test_the_guest_ends(self, make, host, kind, ending, status):
        machine = make()
        assert machine.status == "shutdown"
        machine.start()
        assert machine.status == "running"
        assert machine.wait(0.01) is None
        play(host, system_event(kind))
        assert machine.wait(SECONDS) == Ending(ending, f"vCPU 0: system event {kind}")
        assert machine.status == status

    def test_an_exit_that_nobody_knows(self, make, host):
        machine = make()
        machine.start()
        play(host, leaves(ioctls.EXIT_INTERNAL_ERROR), index=1)
        ending = machine.wait(SECONDS)
        assert ending.how == "failed"
        assert "exit reason 17" in ending.why

    def test_an_end_from_outside(self, make):
        machine = make()
        timer = threading.Timer(0.2, machine.stop, ["enough"])
        timer.start()
        assert machine.run() == Ending("stopped", "enough")
        timer.join()
        with pytest.raises(HostError):
            _ = machine.notifier

    def test_events_from_outside(self, make):
        machine = make()
        watched = []
        machine.watch = watched.append
        machine.start()
        answers = machine.submit(MemoryFault(RAM + 16 * MIB, 4096))
        assert any(isinstance(e, Posted) and e.delivery == "gsiv" for e in answers)
        assert [e for effects in watched for e in effects] == list(answers)
        assert machine.seen[0] == MemoryFault(RAM + 16 * MIB, 4096)
        assert machine.seen[1:] == list(answers)
        with pytest.raises(InputError):
            machine.submit(TellSdei(99))
        assert not any(isinstance(e, Queued) for e in machine.submit(MemoryFault(RAM + 16 * MIB, 4096)))

    def test_lines_of_the_error_device(self, make, host):
        policy = load_policy(
            'version = 1\n[[rule]]\nname = "gpio"\nwhen = { code = "AO" }\ndeliver = ["gpio"]\n'
            '[[rule]]\nname = "rest"\ndeliver = ["sea"]\n'
        )
        machine = make(policy=policy)
        machine.start()
        machine.submit(MemoryFault(RAM + 16 * MIB, 4096))
        assert host.lines == [(1 << 24 | platform.GPIO_GSIV, level) for level in (1, 0)]


class TestReset:
    def lose(self, machine, host, page):
        """The first vCPU consumes a page, and is told."""
        play(host, consumes(machine.ram.hva + page - RAM, 0xFFFF_0000_1000))
        until(lambda: any(isinstance(e, InjectSea) for e in machine.seen))
        signal = next(e for e in machine.seen if isinstance(e, HostSignal))
        assert signal.tid == machine.guest.vcpus[0].native_id

    def test_lost_memory_is_replaced_and_the_guest_boots_again(self, make, host):
        machine, page = make(), RAM + 40 * MIB
        machine.start()
        core = machine.notifier
        machine.ram.write(page, b"lost")
        machine.ram.write(page - 4096, b"kept")
        self.lose(machine, host, page)
        assert any(isinstance(e, Posted) and e.pages == ((page, 4096),) for e in machine.seen)
        assert not any(isinstance(e, Acked) for e in machine.seen), "nobody read it"
        play(host, system_event(ioctls.SYSTEM_EVENT_RESET))
        assert machine.wait(SECONDS).how == "reset"
        assert machine.halt() == [(page, 4096)]
        assert machine.halt() == []
        assert machine.ram.read(page, 4096) == bytes(4096)
        assert machine.ram.read(page - 4096, 4) == b"kept"
        machine.start()
        assert machine.boots == 2
        assert machine.notifier is not core
        assert machine.notifier.poison.counts == [0, 0, 0, 0]
        block = machine.notifier.ways["sea"][0].placed.block
        assert machine.ram.read(block, 4) == bytes(4), "no record of the boot before"

    def test_until_it_powers_off(self, make, host):
        machine = make()

        def guest():
            for boot, kind in enumerate((2, 2, 1), 1):
                until(lambda boot=boot: machine.boots == boot and machine.status == "running")
                play(host, system_event(kind))

        thread = threading.Thread(target=guest)
        thread.start()
        assert machine.run().how == "powered off"
        thread.join(SECONDS)
        assert machine.boots == 3

    def test_policy_asks_for_it(self, make, host):
        policy = load_policy(
            'version = 1\n[[rule]]\nname = "used"\nwhen = { code = "AR" }\naction = "reset"\n'
            '[[rule]]\nname = "rest"\ndeliver = ["polled"]\n'
        )
        machine = make(policy=policy)
        machine.start()
        play(host, consumes(machine.ram.hva + 40 * MIB, 0x1000))
        ending = machine.wait(SECONDS)
        assert ending.how == "reset"
        assert ending.why.startswith("policy: ")

    def test_memory_that_the_host_does_not_replace(self, make, host, monkeypatch):
        machine = make()
        machine.start()
        self.lose(machine, host, RAM + 40 * MIB)

        def refuse(gpa, size):
            raise HostError("no memory")

        monkeypatch.setattr(machine.ram, "replace", refuse)
        assert machine.halt() == []
        machine.start()
        assert machine.status == "running"
