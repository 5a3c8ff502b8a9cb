"""Lost memory of the tiny guest where it hurts: under its tables, its blocks, its acknowledgements; and good again."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

from acpi.image import find_tables
from vmm_ras.effects import Acked, Posted
from vmm_ras.errors import Poisoned
from vmm_ras.io import libc
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.sigbus import lost_pages
from vmm_ras.lab.hwpoison import frame_number
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_desk import Command
from vmm_ras.lab.tiny_guest import PAGES, RAM, SIZE, TinyGuest

PAGE = 4096
LOST = PAGES + 8 * PAGE
CORRUPT = Path("/sys/kernel/debug/hwpoison/corrupt-pfn")


def after_reset(report: Report, kvm: Kvm) -> None:
    """Lost pages are good again after a reset, because they were replaced."""
    with TinyGuest(kvm, preset="qemu-7.2") as guest:
        for page in (LOST, LOST + PAGE):
            guest.do(Command.STORE, page)
        guest.lose(LOST)
        report.equal(len(guest.do(Command.LOAD, LOST).taken), 1, "the page is lost")
        report.equal(len(guest.do(Command.LOAD, LOST).taken), 1, "and stays lost")
        report.check(guest.ram.is_lost(LOST), "for the VMM too")
        replaced = guest.guest.replace_lost()
        report.equal(replaced, [(LOST, PAGE)], "it is replaced, and no other", f"{LOST:#x}")
        report.equal(guest.do(Command.LOAD, LOST).results, (0,), "the guest reads it, as zeroes")
        report.equal(guest.do(Command.STORE, LOST).taken, (), "and writes it")
        report.equal(guest.do(Command.LOAD, LOST).results, (LOST,), "and reads what it wrote", f"{LOST:#x}")
        report.equal(guest.do(Command.LOAD, LOST + PAGE).results, (LOST + PAGE,), "its neighbour kept its bytes")
        report.equal(guest.core.poison.counts[1:], [0, 0, 0], "the core knows no lost page any more")
        guest.lose(LOST)
        report.equal(guest.do(Command.LOAD, LOST + 8).records, (LOST,), "lost anew, it is told anew")


def unmapped(report: Report, kvm: Kvm) -> None:
    """Pages that only KVM uses: the VMM itself never touched them through its mapping."""
    with TinyGuest(kvm, preset="default") as guest:
        guest.ram.write(LOST, b"loaded!!")
        report.equal(frame_number(guest.ram, LOST), None, "what the VMM loads it does not map")
        report.equal(
            guest.do(Command.LOAD, LOST).results, (int.from_bytes(b"loaded!!", "little"),), "the guest reads it"
        )
        frame = frame_number(guest.ram, LOST)
        report.check(frame is not None, "stage 2 and the page tables have it now", f"frame {frame:#x}" if frame else "")
        CORRUPT.write_text(str(frame))
        guest.wait_for(lambda seen: any(isinstance(e, Posted) for e in seen), "the core hears of it")
        report.equal(guest.poll(), (LOST,), "hwpoison of its frame reaches the guest", f"{LOST:#x}")
        answer = guest.do(Command.LOAD, LOST + 8)
        report.equal([(t.esr, t.far) for t in answer.taken], [(0x96000010, LOST + 8)], "and its access is an SEA")
        report.equal(answer.records, (LOST,), "with a record")


def blind_spots(report: Report, kvm: Kvm) -> None:
    """Poison under HEST, block and Read Ack Register: calls give errors, ways give way, and the VMM lives."""
    with TinyGuest(kvm, preset="all", found=("polled", "sei")) as guest:
        hest = guest.image.region("hest")[0]
        guest.lose(hest)
        report.equal(_outcome(lambda: find_tables(guest.ram.read, guest.image.rsdp)), f"poisoned {hest & -PAGE:#x}",
                     "reading tables from a lost page raises Poisoned")  # fmt: skip
    with TinyGuest(kvm, preset="all", found=("polled", "sei")) as guest:
        polled = guest.source("polled")
        guest.do(Command.UNMASK, skip=0)  # so that SErrors are taken at once, and their records read
        guest.do(Command.STORE, LOST, skip=0)
        guest.lose(polled.block & -PAGE)
        report.check(guest.ram.is_lost(polled.block), "the page of a status block is lost", f"{polled.block:#x}")
        report.equal(
            _outcome(lambda: guest.ram.write(polled.block, b"x")), f"poisoned {polled.block:#x}", "writing raises"
        )
        guest.lose(LOST)
        by_sei = lambda e: isinstance(e, Posted) and (e.pages, e.delivery) == (((LOST, PAGE),), "sei")  # noqa: E731
        guest.wait_for(lambda seen: any(map(by_sei, seen)), "the next way is taken")
        report.check(guest.core.sources[polled.source_id].state.broken != "", "the source counts as broken",
                     guest.core.sources[polled.source_id].state.broken)  # fmt: skip
        report.equal(guest.do(Command.IDS, skip=0).results[2], 0, "the guest runs on, and no SError waits")
        report.equal(guest.ended, [], "no vCPU has ended")
    with TinyGuest(kvm, preset="all", found=("polled", "sei")) as guest:
        ack = guest.source("polled").ack or 0
        guest.do(Command.STORE, LOST)
        guest.lose(ack & -PAGE)
        report.equal(
            _outcome(lambda: guest.ram.read(ack, 8)), f"poisoned {ack:#x}", "reading a lost ack register raises"
        )
        guest.lose(LOST)
        guest.do(Command.IDS)
        time.sleep(0.5)
        report.equal([e for e in guest.seen if isinstance(e, Acked)], [], "nothing is taken for acknowledged")
        report.check(bool(guest.do(Command.IDS).results), "guest and VMM live")
        report.equal(guest.ended, [], "no vCPU has ended")


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except Poisoned as error:
        return f"poisoned {error.gpa:#x}"
    return "done"


def calls(report: Report, kvm: Kvm) -> None:
    """By which call memory is reached: what each does on a lost page, and what it takes."""
    library, page = ctypes.CDLL(None, use_errno=True), bytes(PAGE)
    with TinyGuest(kvm, preset="default") as guest:
        ram = guest.ram
        ram.write(LOST, b"\x5a" * 2 * PAGE)
        guest.do(Command.WALK, LOST, 2)
        source, sink = os.pipe()

        def said(call: Callable[[], int]) -> str:
            try:
                return str(call())
            except OSError as error:
                return str(error.strerror).rpartition(": ")[2]

        def address(gpa: int) -> int:
            return ram.hva + gpa - ram.gpa

        def by_pipe(gpa: int) -> int:
            done = int(library.write(sink, ctypes.c_void_p(address(gpa)), ctypes.c_size_t(PAGE)))
            if done < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return len(os.read(source, done))

        ways: dict[str, Callable[[int], str]] = {
            "pread": lambda gpa: said(lambda: len(os.pread(ram.fd, PAGE, gpa - ram.gpa))),
            "pwrite": lambda gpa: said(lambda: os.pwrite(ram.fd, page, gpa - ram.gpa)),
            "process_vm_readv": lambda gpa: said(lambda: len(libc.read_mapped(address(gpa), PAGE))),
            "process_vm_writev": lambda gpa: said(lambda: libc.write_mapped(address(gpa), page)),
            "write to a pipe": lambda gpa: said(lambda: by_pipe(gpa)),
        }
        for name, way in ways.items():
            report.equal(way(LOST + PAGE), "4096", f"{name}: a good page")
            times = []
            for _ in range(200):
                start = time.perf_counter()
                way(LOST + PAGE)
                times.append(time.perf_counter() - start)
            took = 1e6 * min(times)
            report.check(took > 0, f"{name}: least time for a page, under emulation", f"{took:.0f} us")
        guest.lose(LOST)
        for name, way in ways.items():
            found = way(LOST)
            report.check(
                found in ("Input/output error", "Bad address"), f"{name}: a lost page is an error, and no signal", found
            )
        os.close(source)
        os.close(sink)
        report.equal(guest.do(Command.IDS).taken, (), "the guest runs on")


def huge(report: Report, kvm: Kvm) -> None:
    """RAM of the host's 2 MiB pages: all of one is lost, and replaced whole."""
    Path("/proc/sys/vm/nr_hugepages").write_text("12")
    granule = 2 << 20
    with TinyGuest(kvm, preset="qemu-7.2", ram=GuestRam(RAM, SIZE, huge=True)) as guest:
        place = RAM + 2 * granule + 0x7000
        guest.do(Command.STORE, place)
        guest.do(Command.STORE, place + 0x2000)
        guest.lose(place)
        answer = guest.do(Command.LOAD, place + 0x2000)
        report.equal(
            [t.far for t in answer.taken], [place + 0x2000], "an access to another 4 KiB of the page is an SEA"
        )
        report.equal(answer.records, (place + 0x2000,), "with a record of what was accessed", f"{place + 0x2000:#x}")
        report.equal(list(lost_pages(guest.ram)), [RAM + 2 * granule], "the whole page is known as lost")
        report.equal(guest.guest.replace_lost(), [(RAM + 2 * granule, granule)], "and is replaced whole")
        report.equal(guest.do(Command.LOAD, place).results, (0,), "the guest reads it")
    Path("/proc/sys/vm/nr_hugepages").write_text("0")


SCENARIOS = (
    ("After a reset", after_reset),
    ("Pages that only KVM uses", unmapped),
    ("Tables, blocks, acknowledgements", blind_spots),
    ("Calls that reach guest RAM", calls),
    ("Huge pages", huge),
)
