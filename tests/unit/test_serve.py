"""The service with real clients: PyPI's `qemu.qmp`, our own, and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from qemu.qmp import ExecuteError, QMPClient
from qemu.qmp.legacy import QEMUMonitorProtocol

from acpi.ghes import Entry, StatusBlock
from cper.memory import PlatformMemory
from cper.record import Record
from tests.command_line import cli
from tests.service import Service, read_all, service
from vmm_ras.errors import HostError, InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.io import serve as serving
from vmm_ras.io.qmp_client import QmpClient
from vmm_ras.io.serve_model import ModelMachine
from vmm_ras.io.serve_socket import UnixListener
from vmm_ras.io.serve_thread import serving as serving_thread
from vmm_ras.qmp import queries
from vmm_ras.qmp.arguments import VmAdd
from vmm_ras.qmp.commands import COMMANDS, Commands
from vmm_ras.qmp.status import status
from vmm_ras.qmp.vms import MAX_VMS

GPA = 0x4000_0000
BLOCK = StatusBlock.of([Entry.of(PlatformMemory(node=1), fru_text="a record")]).encode()
CPER = b64encode(BLOCK).decode()


@pytest.fixture
def one() -> Iterator[Service]:
    with service("vm0", preset="all", **{"sdei-events": [{"number": 0x100}, {"number": 0x101, "shared": True}]}) as s:
        yield s


# -- the real client


def test_the_qmp_library_connects_unchanged(one: Service) -> None:
    async def talk() -> list[Any]:
        client = QMPClient("test")
        await client.connect(str(one.path))
        assert client.greeting is not None
        said = [
            await client.execute("query-status"),
            await client.execute("inject-ghes-v2-error", {"cper": CPER}),
            await client.execute("inject-memory-error", {"gpa": GPA, "code": "AR"}),
        ]
        with pytest.raises(ExecuteError, match="nothing-such has not been found"):
            await client.execute("nothing-such")
        event = await asyncio.wait_for(client.events.get(), 5)
        await client.disconnect()
        return [*said, event]

    status, injected, decided, event = asyncio.run(talk())

    assert status == {"running": True, "status": "running"}
    assert injected == {}
    assert decided["outcome"] == "tell"
    data = event["data"]
    assert (event["event"], data["recipient"], data["action"]) == ("MEMORY_FAILURE", "guest", "inject")
    assert data["flags"] == {"action-required": True, "recursive": False}
    assert (data["gpa"], data["size"], data["vm"]) == (GPA, 4096, "vm0")
    assert abs(event["timestamp"]["seconds"] - time.time()) < 60
    assert one.machine("vm0").outcomes == {"ignored": 1, "offlined": 1}


def test_its_legacy_form_walks_the_object_tree_as_injection_scripts_do(one: Service) -> None:
    monitor = QEMUMonitorProtocol(str(one.path))
    monitor.connect(negotiate=True)
    try:
        types = []
        while "return" in (answer := monitor.cmd_obj(get(f"/machine/unattached/device[{len(types)}]", "type"))):
            types.append(answer["return"])
        midr = monitor.cmd_obj(get("/machine/unattached/device[0]", "midr"))
        no_property = monitor.cmd_obj(get("/machine/unattached/device[0]", "x"))
        arch = monitor.cmd_obj({"execute": "query-target"})
        listed = monitor.cmd("qom-list", path="/machine/unattached")
        sent = monitor.cmd_obj({"execute": "inject-ghes-v2-error", "arguments": {"cper": CPER}})
    finally:
        monitor.close()

    assert types == ["host-arm-cpu"] * 4
    assert answer["error"]["class"] == "DeviceNotFound"
    assert no_property["error"]["class"] == "GenericError"
    assert midr == {"return": 0x413FD0C1}
    assert arch == {"return": {"arch": "aarch64"}}
    assert {"name": "device[3]", "type": "child<host-arm-cpu>"} in listed
    assert sent == {"return": {}}


def get(path: str, name: str) -> dict[str, Any]:
    return {"execute": "qom-get", "arguments": {"path": path, "property": name}}


# -- commands


def test_every_command_is_named_and_documented(one: Service) -> None:
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    with one.client() as client:
        names = [c["name"] for c in client.ask("query-commands")]

    assert names == ["qmp_capabilities", *COMMANDS]
    assert [n for n in names if f"`{n}`" not in text] == []


def test_a_record_goes_through_the_source_that_is_named(one: Service) -> None:
    with one.client() as client:
        assert client.ask("inject-record", cper=CPER) == {"outcome": "posted", "source": 1, "delivery": "sdei"}
        assert client.ask("inject-record", cper=CPER, source=4)["delivery"] == "gsiv"
        assert client.ask("inject-record", cper=CPER, source=0, vcpu=3)["delivery"] == "sea"
    assert one.machine("vm0").outcomes.total() == 3


def test_records_wait_for_the_guest_and_the_reply_says_so(one: Service) -> None:
    one.machine("vm0").guest.os.ack_delay[None] = 0.05
    with one.client() as client:
        client.ask("inject-record", cper=CPER, source=4)

        assert client.ask("inject-record", cper=CPER, source=4) == {"outcome": "queued", "waiting": 1}
        status = client.ask("query-ras")
        assert (status["owed"], status["pending"]["records"], status["records"]["told"]) == ([4], 1, 1)

        until = time.monotonic() + 60
        while client.ask("query-ras")["owed"] and time.monotonic() < until:
            time.sleep(0.01)
        assert client.ask("query-ras")["records"] == {"told": 2, "dropped": 0}


def test_memory_errors_by_either_address_and_code(one: Service) -> None:
    with one.client() as client:
        first = client.ask("inject-memory-error", gpa=GPA)
        assert first == {"outcome": "tell", "rule": "found", "gpa": GPA, "size": 4096}
        by_hva = client.ask("inject-memory-error", hva=0x7F00_0000_1000, code="AR", vcpu=2)
        assert (by_hva["rule"], by_hva["gpa"]) == ("consumed", GPA + 0x1000)
        assert client.ask("inject-memory-error", gpa=GPA)["outcome"] == "known"
        assert client.ask("inject-memory-error", gpa=GPA + (2 << 20), lsb=17)["size"] == 1 << 17
        assert client.ask("inject-memory-error", hva=0x1000)["outcome"] == "own-memory"
        until = time.monotonic() + 60
        while client.ask("query-ras")["pages"]["acked"] < 34 and time.monotonic() < until:
            time.sleep(0.01)
        assert client.ask("query-ras")["pages"] == {"unreported": 0, "posted": 0, "acked": 34}
        client.ask("memory-replaced", gpa=GPA, size=8192)
        assert client.ask("query-ras")["pages"]["acked"] == 32


def test_aborts_and_serrors_with_a_chosen_syndrome(one: Service) -> None:
    vcpus = one.machine("vm0").guest.vcpus
    with one.client() as client:
        assert client.ask("inject-sea", vcpu=1) == {"esr": 0x92000410}
        assert vcpus[1].esr == 0x92000410
        client.ask("inject-sea", vcpu=2, dfsc=0x14, far=0xFFFF_0000_1234)
        assert (vcpus[2].esr, vcpus[2].far) == (0x92000014, 0xFFFF_0000_1234)
        client.ask("inject-sea", vcpu=3, esr=0x82000410)
        assert vcpus[3].esr == 0x82000410
        with pytest.raises(InputError, match="needs a guest address"):
            client.ask("inject-sea", dfsc=0x14)
        with pytest.raises(InputError, match="parity"):
            client.ask("inject-sea", dfsc=0x18, far=0)
        client.ask("inject-sea", dfsc=0x18, far=0, force=True)
        assert client.ask("inject-serror", vcpu=0) == {"vsesr": 0x811}
        assert vcpus[0].esr == 0xBE000811
        client.ask("inject-serror", vcpu=1, vsesr=0x1000011)
        assert client.ask("query-status") == {"running": False, "status": "guest-panicked"}
        assert client.ask("query-ras")["model"]["panicked"] == "SError"


@pytest.mark.parametrize("event", [0x100, 0x101])
def test_sdei_events_by_number(one: Service, event: int) -> None:
    with one.client() as client:
        assert client.ask("inject-sdei-event", event=event, vcpu=3) == {"pending": False, "enabled": True}
        assert client.ask("query-ras")["model"]["sdei-handled"] == {str(event): 1}
        with pytest.raises(InputError, match="the platform offers 0x0, 0x100, 0x101, 0x324"):
            client.ask("inject-sdei-event", event=0x102)


def test_an_orchestrator_hears_reports_and_says_proceed() -> None:
    policy = 'version = 1\n[[rule]]\nname = "ask"\ndeliver = ["gsiv"]\nreport = "first"\nreport_ms = 60000\n'
    heard: list[Any] = []
    with service("vm0", preset="all", policy=policy) as s, s.client(heard=heard.append) as client:
        client.ask("inject-memory-error", gpa=GPA)
        assert client.ask("query-ras")["waiting"] == {"ask": 1}
        client.ask("proceed", rule="ask")
        until = time.monotonic() + 60
        while client.ask("query-ras")["owed"] and time.monotonic() < until:
            time.sleep(0.01)  # an interrupt's acknowledgement is looked for after a millisecond
        assert client.ask("query-ras")["pages"]["acked"] == 1
        with pytest.raises(InputError, match="no rule"):
            client.ask("proceed", rule="nobody")
    assert [e["event"] for e in heard] == ["MEMORY_FAILURE", "RAS_REPORT"]
    assert heard[1]["data"]["waits"] is True


def test_an_orchestrator_hears_of_an_error_that_nobody_acknowledges() -> None:
    policy = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["gsiv"]\nunacked = { after_ms = 20, tries = 0 }\n'
    heard: list[Any] = []
    with service("vm0", preset="all", policy=policy) as s, s.client(heard=heard.append) as client:
        s.machine("vm0").guest.os.ack_delay[None] = float("inf")
        client.ask("inject-memory-error", gpa=GPA)
        until = time.monotonic() + 60
        while len(heard) < 2 and time.monotonic() < until:
            time.sleep(0.01)
            client.ask("query-status")
    assert (heard[1]["event"], heard[1]["data"]["action"]) == ("RAS_ESCALATION", "report")


@pytest.mark.parametrize(
    ("command", "given", "reason"),
    [
        ("inject-ghes-v2-error", {}, "Parameter 'cper' is missing"),
        ("inject-ghes-v2-error", {"cper": 1}, "Invalid parameter 'cper'"),
        ("inject-ghes-v2-error", {"cper": "%"}, "Base64 data is not valid"),
        ("inject-ghes-v2-error", {"cper": ""}, "at least 20"),
        ("inject-ghes-v2-error", {"cper": "A" * 6000}, "block status 0"),
        ("inject-ghes-v2-error", {"cper": "/" * 8000}, "the source's block holds 4096"),
        ("inject-ghes-v2-error", {"cper": CPER, "x": 1}, "Parameter 'x' is unexpected"),
        ("inject-record", {"cper": CPER, "source": 77}, "source 77: the guest has"),
        ("inject-memory-error", {}, "Parameter 'gpa' or 'hva' is missing"),
        ("inject-memory-error", {"gpa": 1, "hva": 1}, "not both"),
        ("inject-memory-error", {"gpa": 1}, "0x1 is no guest memory"),
        ("inject-memory-error", {"gpa": GPA, "lsb": 31}, "Invalid parameter 'lsb'"),
        ("inject-memory-error", {"gpa": GPA, "lsb": 26}, "at most 25 for this VM"),
        ("vm-add", {"name": "x", "vcpus": 512, "sdei-events": [{"number": n} for n in range(1, 10)]}, "at most 4096"),
        ("vm-add", {"name": "x", "policy": "a=" + "[" * 60000}, "nested too deep"),
        ("inject-memory-error", {"gpa": GPA, "code": "AR", "vcpu": 9}, "there is no vCPU 9"),
        ("inject-memory-error", {"gpa": -1}, "Invalid parameter 'gpa'"),
        ("inject-sea", {"vcpu": 4}, "vCPU 4: the guest has 0 to 3"),
        ("inject-sea", {"esr": 0x92000010, "ea": 1}, "expected it or them"),
        ("inject-sea", {"esr": 0}, "no data or instruction abort"),
        ("inject-serror", {"vsesr": 0, "aet": "uc"}, "expected it or 'aet'"),
        ("inject-serror", {"aet": "worst"}, "Invalid parameter 'aet'"),
        ("inject-sdei-event", {"event": 0}, "expected a vCPU"),
        ("memory-replaced", {"gpa": 0, "size": 0}, "Invalid parameter 'size'"),
        ("qom-get", {"path": "/x"}, "Parameter 'property' is missing"),
        ("qom-list", {"path": "/machine/unattached/device[99]"}, "not found"),
        ("query-ras", {"vm": "nobody"}, "VM 'nobody' not found"),
        ("vm-add", {"name": "vm0"}, "exists already"),
        ("vm-add", {"name": "../x"}, "Invalid parameter 'name'"),
        ("vm-add", {"name": "x", "preset": "none"}, "expected one of default"),
        ("vm-add", {"name": "x", "policy": "version = 7"}, "policy"),
        ("vm-add", {"name": "x", "memory": [{"hva": 0, "gpa": 0, "size": 1 << 31}]}, "overlaps the tables"),
        ("vm-add", {"name": "x", "memory": [{"hva": 0, "gpa": 0}]}, "'memory.0.size' is missing"),
        ("vm-add", {"name": "x", "sdei-events": [{"number": 0x324}]}, "different numbers"),
    ],
)
def test_what_is_wrong_is_one_clear_line(one: Service, command: str, given: dict[str, Any], reason: str) -> None:
    with one.client() as client:
        with pytest.raises(InputError) as caught:
            client.ask(command, **given)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert client.ask("query-vms") == [{"name": "vm0", "vcpus": 4, "guest": "linux-7.2", "status": "running"}]


# -- several VMs and clients


def test_vms_come_and_go_and_are_named() -> None:
    with service() as s, s.client() as client:
        with pytest.raises(InputError, match="there are 0 VMs"):
            client.ask("query-ras")
        client.ask("vm-add", name="a", vcpus=2, guest="generic", page_size="64k")
        client.ask("vm-add", name="b")
        with pytest.raises(InputError, match=r"there are 2 VMs \(a, b\): Parameter 'vm' names one"):
            client.ask("query-ras")
        assert client.ask("inject-memory-error", vm="a", gpa=GPA, lsb=16)["size"] == 65536
        client.ask("vm-del", name="a")
        assert [vm["name"] for vm in client.ask("query-vms")] == ["b"]
        assert client.ask("query-ras")["pages"]["acked"] == 0


def test_there_is_an_end_of_vms() -> None:
    with service() as s, s.client() as client:
        for number in range(MAX_VMS):
            client.ask("vm-add", name=f"vm{number}")
        with pytest.raises(InputError, match=f"there are {MAX_VMS}"):
            client.ask("vm-add", name="more")


def test_two_vms_do_not_disturb_each_other() -> None:
    """One is flooded and never acknowledges; the other is told everything, and each knows its own pages only."""
    with service("a", "b", preset="all") as s:
        s.machine("a").guest.os.ack_delay[None] = float("inf")
        slow: list[float] = []
        failed: list[BaseException] = []

        def flood() -> None:
            try:
                with s.client() as client:
                    for page in range(400):
                        client.ask("inject-memory-error", vm="a", gpa=GPA + (page << 12))
                        with contextlib.suppress(InputError):  # its queue is full
                            client.ask("inject-record", vm="a", cper=CPER)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=flood)
        thread.start()
        heard: list[Any] = []
        with s.client(heard=heard.append) as client:
            for page in range(200):
                start = time.perf_counter()
                client.ask("inject-memory-error", vm="b", gpa=GPA + (page << 12), code="AR", vcpu=page & 3)
                slow.append(time.perf_counter() - start)
            status = client.ask("query-ras", vm="b")
            thread.join(60)
            other = client.ask("query-ras", vm="a")
    assert failed == []
    assert status["pages"] == {"unreported": 0, "posted": 0, "acked": 200}
    assert status["model"]["outcomes"] == {"offlined": 200}
    assert sum(other["pages"].values()) == 400
    assert other["pages"]["acked"] == 0
    assert other["records"]["dropped"] > 0
    assert {e["data"]["vm"] for e in heard} == {"a", "b"}
    assert sorted(slow)[len(slow) // 2] < 0.1


def test_a_client_that_never_reads_keeps_nobody_waiting(one: Service) -> None:
    lazy = one.connection()
    lazy.sendall(b'{"execute":"qmp_capabilities"}')
    lazy.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            lazy.send(b'{"execute":"query-commands"}' * 100)
    with one.client() as client:
        for page in range(300):
            client.ask("inject-memory-error", gpa=GPA + (page << 12))
        assert client.ask("query-ras")["events-dropped"] > 0
    lazy.close()


def test_commands_in_one_piece_are_answered_in_order(one: Service) -> None:
    with one.connection() as raw:
        commands = [{"execute": "query-status", "id": n} for n in range(500)]
        raw.sendall(b'{"execute":"qmp_capabilities"}' + b"".join(orjson.dumps(c) for c in commands))
        raw.shutdown(socket.SHUT_WR)
        answers = read_all(raw)

    assert [a["id"] for a in answers[2:]] == list(range(500))


def test_too_many_clients_are_told_so(one: Service) -> None:
    held = [one.connection() for _ in range(serving.MAX_CLIENTS)]
    for raw in held:
        assert raw.recv(4096).startswith(b'{"QMP"')
    try:
        with pytest.raises(HostError, match="64 clients are connected already"):
            one.client()
    finally:
        for raw in held:
            raw.close()
    until = time.monotonic() + 60
    while one.server._clients and time.monotonic() < until:
        time.sleep(0.01)
    with one.client() as client:
        client.ask("query-status")


def test_who_does_not_negotiate_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PATIENCE_S", 0.2)
    with service("vm0") as s, s.client() as kept, s.connection() as silent:
        assert silent.recv(4096)
        assert silent.recv(4096) == b"", "closed by the service"
        time.sleep(0.3)
        kept.ask("query-status")


def test_a_fault_of_ours_is_told_and_logged_and_the_service_goes_on(one: Service, monkeypatch: Any) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(one.machine("vm0"), "submit", broken)
    with one.client() as client:
        with pytest.raises(InputError, match="internal error: ZeroDivisionError"):
            client.ask("inject-sea")
        assert client.ask("query-status")["running"]
    assert one.logged == ["vmm-ras: inject-sea: ZeroDivisionError: on purpose"]
    one.logged.clear()


def test_a_vm_that_somebody_else_runs_is_served_from_a_thread(tmp_path: Path) -> None:
    with service("vm0") as s:
        theirs = s.machine("vm0")
        other = ModelMachine.of(VmAdd(name="theirs"))
        with serving_thread(tmp_path / "s", other), QmpClient(tmp_path / "s") as client:
            decided = client.ask("inject-memory-error", gpa=GPA)
            with pytest.raises(InputError, match="no VM can be added"):
                client.ask("vm-add", name="x")
            with pytest.raises(InputError, match="no VM can be removed"):
                client.ask("vm-del", name="theirs")
            heard: list[Any] = []
            with QmpClient(tmp_path / "s", heard=heard.append) as listener:
                other.submit(HostSignal(Code.AO, 0x7F00_0000_5000, 12, 1))  # in this thread, not the service's
                until = time.monotonic() + 60
                while not heard and time.monotonic() < until:
                    listener.ask("query-status")
    assert other.watch is None
    assert decided["outcome"] == "tell"
    assert heard[0]["data"]["gpa"] == GPA + 0x5000
    assert theirs.outcomes == {}
    assert list(tmp_path.iterdir()) == []


def test_a_stop_after_the_end_does_nothing() -> None:
    with service("vm0") as s:
        s.server.stop()
    s.server.stop()
    s.server.wake()


# -- the socket


def test_the_socket_is_its_owners_and_goes_with_the_service(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with UnixListener(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(HostError, match="another service listens there"):
            UnixListener(path)
        assert path.exists()
    assert not path.exists()


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()

    with UnixListener(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert listener.socket.accept()[0].close() is None


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")

    with pytest.raises(HostError, match="no socket"):
        UnixListener(path)

    assert path.read_text() == "precious"


def test_a_socket_that_another_service_put_there_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with UnixListener(path):
        path.unlink()
        second = UnixListener(path)
    assert path.exists()
    second.close()


@pytest.mark.parametrize("path", ["nowhere/s", "x" * 120])
def test_a_path_that_cannot_be_is_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(HostError):
        UnixListener(tmp_path / path)


# -- the command line


@contextlib.contextmanager
def serving_process(path: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "vmm_ras.cli", "serve", "--socket", str(path), "--json", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == b"{\n", (first, process.stderr.read() if process.stderr and process.poll() else b"")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_at_a_signal_and_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    path = tmp_path / "s"
    with serving_process(path, "--vm", "a", "--vm", "b") as process, QmpClient(path) as client:
        assert [vm["name"] for vm in client.ask("query-vms")] == ["a", "b"]
        process.send_signal(end)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_serve_after_a_kill_takes_the_socket_over_and_listens_on_loopback_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving_process(path) as process:
        process.kill()
        process.wait(60)
    assert path.exists()
    with serving_process(path, "--tcp", "0") as process:
        assert process.stdout is not None
        ready = orjson.loads(b"{" + b"".join(iter(process.stdout.readline, b"}\n")) + b"}")
        with socket.create_connection(("127.0.0.1", ready["ports"][0]), 10) as raw:
            assert raw.recv(100).startswith(b'{"QMP"')
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--guest", "none"], 1, b"expected one of linux"),
        (["--vm", "a", "--vm", "a"], 1, b"'a' exists already"),
        (["--vm", "a b"], 1, b"Invalid parameter 'name'"),
        (["--sdei-event", "1:often"], 2, b"NUMBER[:shared][:critical]"),
        (["--policy", "nowhere.toml"], 1, b"nowhere.toml"),
    ],
)
def test_serve_says_what_is_wrong(tmp_path: Path, words: list[str], code: int, reason: bytes) -> None:
    done = cli("serve", "--socket", tmp_path / "s", *words, code=code)

    assert reason in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_inject_tells_all_kinds_and_shows_what_became_of_them(one: Service, tmp_path: Path) -> None:
    block, record = tmp_path / "block.bin", tmp_path / "record.cper"
    block.write_bytes(BLOCK)
    record.write_bytes(Record.of([PlatformMemory(node=2)]).encode())

    done = cli(
        "inject", "-s", one.path, block, record, "--hex", BLOCK.hex(), "--gpa", "0x40000000", "--code", "AR",
        "--cpu", "1", "--sea", "--dfsc", "0x14", "--far", "0x1000", "--sei", "--sdei", "0x100", "--wait", "5",
    )  # fmt: skip

    text = done.stdout.decode()
    for line in ("AR 0x40000000, 4 KiB: tell", "SEA, vCPU 1: esr 0x92000014", "SError, vCPU 1: vsesr 0x811"):
        assert line in text
    assert text.count("posted, source 1, delivery sdei") == 3
    assert "pages unreported 0, posted 0, acknowledged 1; records told 3" in text
    assert one.machine("vm0").guest.os.sdei_handled == {0x100: 1}


def test_inject_as_json_and_with_nothing_to_tell(one: Service) -> None:
    done = orjson.loads(cli("inject", "-s", one.path, "--gpa", "1G", "--lsb", "16", "--json").stdout)
    assert done["did"][0]["size"] == 65536
    assert done["status"]["pages"]["acked"] == 16
    assert b"acknowledged 16" in cli("inject", "-s", one.path).stdout


def test_inject_as_json_says_what_was_done_before_a_refusal(one: Service) -> None:
    words = ["--gpa", "1G", "--hex", BLOCK.hex(), "--hex", "00", "--sea", "--sdei", "7"]
    done = cli("inject", "-s", one.path, *words, "--json", code=1)
    said = orjson.loads(done.stdout)
    assert [step["what"] for step in said["did"]] == ["AO 1G, 4 KiB", f"record of --hex, {len(BLOCK)} bytes"]
    assert said["did"][1]["outcome"] == "posted"
    assert said["refused"] == "record of --hex, 1 byte"
    assert said["error"].startswith("inject-record: a record of 1 byte")
    assert said["left"] == ["SEA, vCPU 0", "SDEI event 7"]
    assert said["status"]["records"]["told"] == 1
    assert done.stderr.decode() == f"vmm-ras: {said['error']}\n"
    said = orjson.loads(cli("inject", "-s", one.path, "--vm", "other", "--sea", "--json", code=1).stdout)
    assert (said["did"], said["refused"], said["left"], said["status"]) == ([], "SEA, vCPU 0", [], None)
    said = orjson.loads(cli("inject", "-s", one.path, "--vm", "other", "--json", code=1).stdout)
    assert (said["did"], said["refused"], said["left"]) == ([], None, [])
    assert "VM 'other' not found" in said["error"]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--hex", "zz"], 2, b"pairs of hexadecimal digits"),
        (["--hex", "00"], 1, b"inject-record: a record of 1 byte"),
        (["--gpa", "0"], 1, b"0x0 is no guest memory"),
        (["--gpa", "soon"], 2, b"a number expected"),
        (["--dfsc", "1"], 2, b"expected --sea with them"),
        (["--aet", "uc"], 2, b"expected --sei with them"),
        (["--lsb", "12"], 2, b"expected --gpa or --hva with them"),
        (["--code", "AR"], 2, b"expected --gpa or --hva with them"),
        (["--source", "0", "--sea"], 2, b"expected a record with them"),
        (["--raw"], 2, b"expected a record with them"),
        (["--cpu", "1"], 2, b"expected something to tell it"),
        (["--sdei", "7"], 1, b"the platform offers"),
        (["--vm", "other"], 1, b"VM 'other' not found"),
        ([str(Path(__file__))], 1, b"text that is neither hexadecimal"),
        (["nowhere.bin"], 1, b"nowhere.bin"),
    ],
)
def test_inject_says_what_is_wrong(one: Service, words: list[str], code: int, reason: bytes) -> None:
    done = cli("inject", "-s", one.path, *words, code=code)

    assert reason in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_inject_without_a_service_is_the_hosts_fault(tmp_path: Path) -> None:
    assert b"no service listens there" in cli("inject", "-s", tmp_path / "s", code=3).stderr
    (tmp_path / "dir").mkdir()
    assert cli("inject", "-s", tmp_path / "dir", code=3).stderr.count(b"\n") == 1


def test_raw_bytes_reach_the_guest_as_they_are(one: Service, tmp_path: Path) -> None:
    file = tmp_path / "bad.bin"
    file.write_bytes(b"\1\0\0\0" + b"\xff" * 60)

    cli("inject", "-s", one.path, "--raw", file)

    assert one.machine("vm0").outcomes == {"malformed": 1}


# -- snapshots of VMs that run -------------------------------------------------------------


def test_a_vm_is_saved_while_it_runs_and_goes_on_in_another_service(one: Service) -> None:
    """What is owed when it was saved is acknowledged there."""
    machine = one.machine("vm0")
    machine.guest.os.ack_delay[None] = float("inf")
    with one.client() as client:
        client.ask("inject-memory-error", gpa=GPA + 0x5000)
        client.ask("inject-memory-error", gpa=GPA + 0x9000, code="AR", vcpu=1)
        before = client.ask("query-ras")
        answer = client.ask("query-snapshot")
        assert answer["vm"] == "vm0"
        data = b64decode(answer["snapshot"])
        client.ask("inject-memory-error", gpa=GPA + 0x7000)
        assert client.ask("query-ras")["pages"] != before["pages"], "it goes on"
    again = ModelMachine.restored("there", data)
    assert (again.name, again.vcpus) == ("there", 4)
    with again.lock:
        found = status(again.notifier)
    assert found == {key: before[key] for key in found}
    assert again.save()
    commands = Commands("vmm-ras test", time.time, ModelMachine.of)
    commands.add(again)
    for source in again.notifier.sources.values():
        again.guest.memory.write(source.placed.ack or 0, (1).to_bytes(8, "little"))
    until = time.monotonic() + 60
    while commands.execute("query-ras", {})["owed"] and time.monotonic() < until:
        again.advance()
        time.sleep(0.01)
    assert commands.execute("query-ras", {})["pages"]["acked"] == 2


def test_a_vm_that_cannot_be_saved_says_so(one: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with one.client() as client:
        monkeypatch.setattr(queries, "MAX_SNAPSHOT", 100)
        with pytest.raises(InputError, match="at most 100 go here"):
            client.ask("query-snapshot")
        monkeypatch.setattr(ModelMachine, "save", None)
        with pytest.raises(InputError, match="'vm0' cannot be saved"):
            client.ask("query-snapshot")
        with pytest.raises(InputError, match="not found"):
            client.ask("query-snapshot", vm="x")


def test_the_snapshot_command_saves_a_vm_of_the_service(one: Service, tmp_path: Path) -> None:
    file = tmp_path / "vm.snap"
    with one.client() as client:
        client.ask("inject-memory-error", gpa=GPA + 0x5000)
    done = cli("snapshot", "save", "-s", str(one.path), "-o", str(file), "--json")
    said = orjson.loads(done.stdout)
    assert (said["vm"], said["bytes"]) == ("vm0", file.stat().st_size)
    cli("snapshot", "verify", str(file))
    assert b"VM vm0" in cli("snapshot", "save", "-s", str(one.path), "--vm", "vm0", "-o", str(file)).stdout
    for wrong in (["t.jsonl", "-s", "x"], ["--after", "1", "-s", "x"], ["t.jsonl"], ["--vm", "a", "t", "--after", "1"]):
        cli("snapshot", "save", "-o", str(file), *wrong, code=2)


def test_serve_goes_on_with_a_snapshot(one: Service, tmp_path: Path) -> None:
    file, path = tmp_path / "vm.snap", tmp_path / "s"
    with one.client() as client:
        client.ask("inject-memory-error", gpa=GPA + 0x5000)
        file.write_bytes(b64decode(client.ask("query-snapshot")["snapshot"]))
    command = [sys.executable, "-m", "vmm_ras.cli", "serve", "--json", "--socket", str(path)]
    with subprocess.Popen([*command, "--restore", f"there={file}"], stdout=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + 60
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.02)
            with QmpClient(path, 60.0) as client:
                assert [vm["name"] for vm in client.ask("query-vms")] == ["there"]
                assert sum(client.ask("query-ras")["pages"].values()) == 1
        finally:
            process.terminate()
            process.wait(60)
    file.write_bytes(b"VRASSNAPx")
    for wrong, code in ((f"there={file}", 1), ("there", 2), (f"a/b={file}", 2)):
        cli("serve", "--socket", str(path), "--restore", wrong, code=code)
