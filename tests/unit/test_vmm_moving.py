"""A guest of the small VMM moves, with its interrupt controller and its UART; on the model's KVM."""

from __future__ import annotations

import errno
import io
import os
import threading

import orjson
import pytest

from tests.command_line import cli
from tests.kvm_host import LACKING, REGISTERS
from tests.unit.test_vmm_machine import files, host, make, mmio, play, system_event  # noqa: F401  # fixtures
from vmm_ras.errors import HostError, SnapshotError
from vmm_ras.events import Code, HostSignal
from vmm_ras.io.holes import Holes, Way
from vmm_ras.io.kvm import gic_state
from vmm_ras.io.kvm.gic_state import PART
from vmm_ras.io.vmm import pl011
from vmm_ras.io.vmm.moving import PARTS, UART
from vmm_ras.io.vmm.pl011 import Pl011
from vmm_ras.kvm import ioctls
from vmm_ras.kvm.one_reg import CORE
from vmm_ras.snapshot import read_snapshot, stream
from vmm_ras.snapshot.container import Part, decode, encode

DIST, REDIST, ICC, LEVEL = REGISTERS


@pytest.fixture(autouse=True)
def no_memory_of_this_machine_is_lost(monkeypatch):
    """MADV_HWPOISON is refused, as without CAP_SYS_ADMIN."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Holes, "_lose", refuse)


def sent(machine):
    leaving, out = machine.depart(), bytearray()
    stream.send(out.extend, leaving.snapshot, leaving.memory())
    return bytes(out)


def changed(data, name, change):
    """The stream with a part of its snapshot changed, all checksums right."""
    snapshot, memory = stream.receive(io.BytesIO(data).read)
    parts = []
    for part in decode(snapshot):
        value = change(orjson.loads(part.body)) if part.name == name else None
        if part.name != name or value is not None:
            parts.append(part if part.name != name else Part(name, orjson.dumps(value)))
    out = bytearray()
    stream.send(out.extend, encode(parts), memory)
    return bytes(out)


def controller(model, machine):
    """Registers of a machine's GIC."""
    return model.gic.setdefault(machine.running.gic.fd, {})


def wait_for_exits(model):
    for side in model.vcpus.values():
        while side.exits:
            pass


def test_all_of_it_goes_to_the_other_machine(make, host):  # noqa: F811
    here = make()
    here.start()
    fill = controller(host, here)
    number = 0x1000
    for attr in gic_state._distributor(128):
        fill[DIST, attr] = (number := number + 1).to_bytes(4, "little")
    for cpu in (0, 1):
        for attr in gic_state._REDISTRIBUTOR:
            fill[REDIST, cpu << 32 | attr] = (number := number + 1).to_bytes(4, "little")
        for attr in set(gic_state._CPU_INTERFACE) - LACKING:
            fill[ICC, cpu << 32 | attr] = (number := number + 1).to_bytes(8, "little")
        fill[LEVEL, cpu << 32] = (number := number + 1).to_bytes(4, "little")
    for first in (32, 64, 96):
        fill[LEVEL, first] = (number := number + 1).to_bytes(4, "little")
    here.ram.write(here.ram.gpa + (20 << 20), b"what the guest wrote")
    host.vcpus[here.running.vm.vcpus[1].fd].model.vcpu.x[3] = 0x1234
    play(host, mmio(pl011.IMSC, b"\x50\0\0\0"), mmio(pl011.IBRD, b"\x0d\0\0\0"))
    wait_for_exits(host)
    here.uart.receive(b"abc")
    here.guest.receive(HostSignal(Code.AO, here.ram.hva + (30 << 20), 12, 1))
    data = sent(here)
    assert here.wait(1).why == "it has left"
    whole = here.ram.read(here.ram.gpa, here.ram.size)

    there = make()
    there.arrive(io.BytesIO(data).read)
    assert there.status == "running"
    lost = there.ram.gpa + (30 << 20)
    assert sum(there.notifier.poison.counts[1:]) == 1
    assert there.ram.read(there.ram.gpa, lost - there.ram.gpa) == whole[: 30 << 20]
    assert there.ram.is_lost(lost)
    assert next(iter(there.running.holes.refused)) is Way.HWPOISON
    known = {at: value for at, value in controller(host, there).items() if at[0] in REGISTERS}
    left_out = {(REDIST, cpu << 32 | attr) for cpu in (0, 1) for attr in gic_state._READ_ONLY}
    assert known == {at: value for at, value in fill.items() if at not in left_out}
    assert there.running.vm.vcpus[1].get(CORE["X3"]) == 0x1234
    here.close()  # there is nothing to be replaced any more
    assert (there.uart.read(pl011.IMSC, 4), there.uart.read(pl011.IBRD, 4)) == (0x50, 0x0D)
    assert bytes(there.uart.read(pl011.DR, 4) for _ in range(4)) == b"abc\0"


def test_the_order_in_which_the_controller_is_put_back(make, host):  # noqa: F811
    """What says which kind of controller it is comes first, then banks, lines, and the CPU interfaces last."""
    here = make()
    here.start()
    data = sent(here)
    there = make()
    there.arrive(io.BytesIO(data).read)
    order = [group for group, _ in controller(host, there)]
    first = list(controller(host, there))[:2]
    assert first == [(DIST, gic_state.GICD_IIDR), (DIST, gic_state.GICD_CTLR)]
    assert order[-1] == ICC
    assert order.index(REDIST) < order.index(LEVEL) < order.index(ICC)


def test_it_is_saved_and_goes_on(make, host):  # noqa: F811
    here = make()
    here.start()
    parts = read_snapshot(here.save(), PARTS).parts
    assert orjson.loads(parts[PART])["interrupts"] == 128
    play(host, mmio(pl011.DR, b"x"))
    wait_for_exits(host)
    assert here.status == "running"


@pytest.mark.parametrize(
    ("part", "change", "what"),
    [
        (PART, lambda v: v | {"interrupts": 96}, "missing, or no register"),
        (PART, lambda v: v | {"interrupts": 31}, "interrupts"),
        (PART, lambda v: v | {"interrupts": 1 << 40}, "interrupts"),
        (PART, lambda v: v | {"lines": v["lines"][:-1]}, "lines"),
        (PART, lambda v: v | {"cpus": v["cpus"][:1]}, "128 and 2 here"),
        (PART, lambda v: v | {"cpus": []}, "128 and 2 here"),
        (PART, lambda v: v | {"distributor": v["distributor"] | {"0xffd0": 1}}, "0xffd0"),
        (PART, lambda v: v | {"distributor": {}}, "distributor"),
        (PART, lambda v: v | {"distributor": dict.fromkeys(v["distributor"], 1 << 32)}, "distributor"),
        (PART, lambda v: v | {"cpus": [c | {"interface": {}} for c in v["cpus"]]}, "interface"),
        (PART, lambda v: v | {"cpus": [c | {"redistributor": {"x" * 99: 1}} for c in v["cpus"]]}, "redistributor"),
        (PART, lambda v: [v], "gicv3"),
        (PART, lambda v: None, "'gicv3' is missing"),
        (UART, lambda v: v | {"received": [256]}, "received"),
        (UART, lambda v: v | {"received": [0] * 33}, "received"),
        (UART, lambda v: v | {"registers": {"0x0": 1}}, "registers"),
        (UART, lambda v: v | {"raw": 1 << 11}, "raw"),
        (UART, lambda v: None, "'pl011' is missing"),
        ("kvm", lambda v: None, "'kvm' is missing"),
    ],
)
def test_what_no_machine_could_hold_is_refused(make, host, part, change, what):  # noqa: F811
    here = make()
    here.start()
    data = changed(sent(here), part, change)
    with pytest.raises(SnapshotError, match=what):
        make().arrive(io.BytesIO(data).read)


def test_another_number_of_vcpus(make, host):  # noqa: F811
    here = make()
    here.start()
    data = sent(here)
    with pytest.raises(SnapshotError, match="vCPUs"):
        make(vcpus=1).arrive(io.BytesIO(data).read)


def test_a_uart_remembers_all():
    lines = []
    one, two = (Pl011(lambda data: None, lines.append) for _ in range(2))
    one.write(pl011.IMSC, 4, pl011.INT_RX)
    one.write(pl011.LCR_H, 4, 0x70)
    one.receive(b"typed")
    assert lines == [True]
    two.put(pl011.State.model_validate_json(orjson.dumps(one.take())))
    assert lines == [True, True], "its interrupt is asserted there too"
    assert two.take() == one.take()
    assert [two.read(pl011.DR, 1) for _ in range(5)] == list(b"typed")


def test_the_registers_of_the_interface_are_those_of_the_architecture():
    """S<op0>_<op1>_C<n>_C<m>_<op2> in KVM's attribute: op0 15:14, op1 13:11, CRn 10:7, CRm 6:3, op2 2:0."""
    names = {"SRE": (12, 12, 5), "CTLR": (12, 12, 4), "PMR": (4, 6, 0), "BPR1": (12, 12, 3), "AP1R0": (12, 9, 0)}
    for crn, crm, op2 in names.values():
        assert 3 << 14 | crn << 7 | crm << 3 | op2 in gic_state._CPU_INTERFACE
    assert ioctls.GET_DEVICE_ATTR == ioctls.SET_DEVICE_ATTR + 1


# -- to a file, and from one ------------------------------------------------------------------


def test_it_leaves_as_a_file_and_another_process_takes_it(make, host, tmp_path):  # noqa: F811
    file = tmp_path / "vm.stream"
    here = make()
    here.start()
    here.ram.write(here.ram.gpa + 0x100_0000, b"\x77" * 5000)
    assert here.migrate(str(file)) == file.stat().st_size
    assert here.wait(1) == ("stopped", "it has left")
    there = make()
    ended = []
    with file.open("rb") as incoming:
        runner = threading.Thread(target=lambda: ended.append(there.run(incoming=incoming.read)))
        runner.start()
        while there.status != "running" or not there.guest.started.is_set():
            pass
        assert there.ram.read(there.ram.gpa + 0x100_0000, 5000) == b"\x77" * 5000
        play(host, system_event(ioctls.SYSTEM_EVENT_SHUTDOWN))
        runner.join(20)
    assert [end.how for end in ended] == ["powered off"]


def test_what_cannot_be_written_leaves_the_guest_where_it_is(make, host, tmp_path, monkeypatch):  # noqa: F811
    here = make()
    here.start()
    file = tmp_path / "vm.stream"
    file.write_bytes(b"somebody's")
    with pytest.raises(HostError, match="File exists"):
        here.migrate(file)
    assert file.read_bytes() == b"somebody's"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="No space left"):
        here.migrate(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    play(host, mmio(pl011.DR, b"x"))
    wait_for_exits(host)
    assert here.status == "running"
    assert here.running.guest.frozen is False


def test_the_command_line_looks_at_a_stream(make, host, tmp_path):  # noqa: F811
    file = tmp_path / "vm.stream"
    here = make()
    here.start()
    here.migrate(file)
    shown = cli("snapshot", "show", file).stdout
    assert b"gicv3" in shown
    assert b"pl011" in shown
    cli("snapshot", "verify", file)
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)
    assert b"CRC-32C" in cli("snapshot", "verify", file, code=1).stderr


def test_a_service_lets_it_leave(make, host, tmp_path):  # noqa: F811
    from vmm_ras.io.serve_thread import serving

    here = make()
    here.start()
    file = tmp_path / "vm.stream"
    with serving(tmp_path / "s", here):
        cli("snapshot", "save", "-s", tmp_path / "s", "-o", tmp_path / "vm.snap")
        cli("snapshot", "verify", tmp_path / "vm.snap")
        assert b"which has left" in cli("snapshot", "save", "-s", tmp_path / "s", "--migrate", "-o", file).stdout
    assert here.wait(1).why == "it has left"
    cli("snapshot", "verify", file)


def test_run_opens_what_comes(tmp_path, monkeypatch):
    import platform

    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    kernel = tmp_path / "Image"
    kernel.write_bytes(b"")
    assert cli("run", "--kernel", kernel, "--incoming", tmp_path / "nothing", code=1).stderr
