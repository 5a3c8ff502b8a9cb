"""`python -m tests.scenario_suite` writes fixtures/scenarios: a file per scenario; a test keeps it so."""

# ruff: noqa: E501  # a table

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "fixtures" / "scenarios"
MEMORY, ARM = "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "e19e3d16-bc11-11e4-9caa-c2051d5d46b0"
OTHERS = {
    "processor-generic": "9876ccad-47b4-4bdb-b65e-16f193c4f3db", "pcie": "d995e954-bbc1-430f-ad91-b44dcb3c6f35",
    "firmware": "81212a96-09ed-4996-9471-8d729c8e69ed", "cxl-dram": "601dcbb3-9c06-4eab-b8af-4e9bfb5c9624",
    "unknown": "11111111-2222-3333-4444-555555555555",
}  # fmt: skip
SEVERITY = {"recoverable": 0, "fatal": 1, "corrected": 2, "informational": 3}
FOUND = ("sdei", "polled", "gsiv", "gpio")
OWNER_SIGNAL = {"reader": "BUS_MCEERR_AR", "early": "BUS_MCEERR_AO", "idle": "none", "unhandled": "killed"}
"""What an owner gets whose page is found to be lost."""
Line = dict[str, Any]


# -- lines -----------------------------------------------------------------------------------------


def head(about: str, *proves: str, **more: Any) -> Line:
    return {"event": "scenario", "version": 1, "about": about, **({"proves": list(proves)} if proves else {}),
            "preset": "conformance", **more}  # fmt: skip


def page(name: str, owner: str, **more: Any) -> Line:
    return {"event": "page", "name": name, "owner": owner, **more}


def found(name: str, **more: Any) -> Line:
    return {"event": "signal", "code": "AO", "page": name, **more}


def consumed(name: str, **more: Any) -> Line:
    return {"event": "signal", "code": "AR", "page": name, **more}


def memory(name: str, severity: str = "recoverable", **header: Any) -> Line:
    return {
        "header": {"section_type": MEMORY, "severity": severity, "error_data_length": 80, **header},
        "section": {"physical_address": f"page {name}"},
    }


def body(kind: str, data: bytes, severity: str = "recoverable", **header: Any) -> Line:
    return {
        "header": {"section_type": kind, "severity": severity, "error_data_length": len(data), **header},
        "body": data.hex(),
    }


def arm(name: str, kind: int, *, address: bool = True) -> Line:
    """An ARM processor section with one error information; ``kind``: its Type."""
    info: Line = {"length": 32, "type": kind}
    if address:
        info["physical_fault_address"] = f"page {name}"
    section = {
        "head": {"error_information_count": 1, "section_length": 72, "midr": 0x410F_D0C1},
        "error_information": [info], "contexts": [],
    }  # fmt: skip
    return {"header": {"section_type": ARM, "severity": "recoverable", "error_data_length": 72}, "section": section}


def block(*entries: Line, severity: str = "recoverable") -> Line:
    sizes = [
        (72 if e["header"].get("revision", 768) >= 768 else 64) + e["header"]["error_data_length"] for e in entries
    ]
    corrected = severity in {"corrected", "informational"}
    bits = {"correctable": True} if corrected else {"uncorrectable": True}
    return {
        "header": {**bits, "entry_count": len(entries), "data_length": sum(sizes), "severity": severity},
        "entries": list(entries),
    }


def record(source: str, what: Line | str, **more: Any) -> Line:
    return {"event": "record", "source": source, "block": what, **more}


def expect(**what: Any) -> Line:
    return {"event": "expect", **what}


def wait(seconds: float) -> Line:
    return {"event": "wait", "seconds": seconds}


def guest(action: str, **what: Any) -> Line:
    return {"event": "guest", "action": action, **what}


def bare(name: str, esr: str = "0x92000410", **more: Any) -> Line:
    return {"event": "sea", "page": name, "esr": esr, **more}


PATIENT = "version = 1\n" + "".join(
    f'[[rule]]\nname = "{name}"\n{when}deliver = ["{way}"]\nhold_ms = 60000\nunacked = {{ after_ms = 60000 }}\n'
    for name, when, way in (("consumed", 'when = { code = "AR" }\n', "sea"), ("found", "", "polled"))
)
"""Rules that wait a minute for an acknowledgement."""
SETTLE: Line = {"event": "settle"}
RESET: Line = {"event": "reset"}
ALIVE, DEAD = expect(alive=True), expect(alive=False)


def taken(source: str) -> Line:
    return expect(source=source, acked=True, cleared=True)


# -- families --------------------------------------------------------------------------------------


def channel() -> Iterator[tuple[str, list[Line]]]:
    """A page is found to be lost: by each way, for each owner."""
    for way in FOUND:
        for owner, signal in {**OWNER_SIGNAL, "nobody": None}.items():
            about = f"a found page of {'nobody' if owner == 'nobody' else f'one that is {owner}'} is told by {way}"
            seen = {"offlined": True, "told": way} | ({"signal": signal} if signal else {})
            yield f"{way}-{owner}", [
                head(about, "notifications", deliver=[way]), page("a", owner), found("a"), SETTLE, taken(way),
                expect(page="a", **seen),
            ]  # fmt: skip


def sea() -> Iterator[tuple[str, list[Line]]]:
    """Synchronous external aborts, with a record and without."""
    for vcpu in (0, 1):
        for owner, signal in (("reader", "BUS_MCEERR_AR"), ("unhandled", "killed")):
            yield f"el0-{owner}-vcpu{vcpu}", [
                head(f"a process uses its lost page on vCPU {vcpu}, {owner}", "notifications"),
                page("a", owner, vcpu=vcpu), consumed("a"), SETTLE, taken("sea"),
                expect(page="a", offlined=True, signal=signal, told="sea"),
            ]  # fmt: skip
    for way in ("sdei", "polled", "gsiv"):
        yield f"el1-then-{way}", [
            head(f"the kernel uses a lost page for a process: an Oops, and no record; the page is told by {way}",
                 "claims_sea_at_el1", deliver=[way]),
            page("a", "reader", vcpu=1), consumed("a", el=1), SETTLE, taken("sea"), taken(way),
            expect(page="a", offlined=True, signal="killed", told=way), ALIVE,
        ]  # fmt: skip
    yield "el1-record-unread", [
        head("a record whose SEA is taken from the kernel is not read", "claims_sea_at_el1"),
        page("a", "reader", vcpu=1), page("b", "nobody"),
        record("sea", block(memory("b")), page="a", el=1), {"event": "settle", "seconds": 0.2},
        bare("a", el=1), wait(0.5), expect(source="sea", acked=False, cleared=False), expect(page="b", offlined=False),
        expect(page="a", signal="killed"), ALIVE,
    ]  # fmt: skip
    yield "el1-record-found-later", [
        head("a record that the kernel's SEA left is found by the next process's SEA", "claims_sea_at_el1",
             "walks_all_sea_sources"),
        page("a", "reader", vcpu=1), page("b", "nobody"), page("c", "reader"),
        record("sea", block(memory("b")), page="a", el=1), {"event": "settle", "seconds": 0.2},
        expect(source="sea", acked=False), bare("c"), SETTLE, taken("sea"), expect(page="b", offlined=True),
    ]  # fmt: skip
    for owner, signal in (("reader", "BUS_OBJERR"), ("unhandled", "killed")):
        yield f"bare-{owner}", [
            head(f"an SEA without a record for a process, {owner}", "notifications"), page("a", owner, vcpu=1), bare("a"),
            SETTLE, expect(page="a", signal=signal, offlined=False), ALIVE,
        ]  # fmt: skip
    yield "bare-fsc-0x14", [
        head("an SEA on a table walk without a record: the process is killed"), page("a", "reader"), bare("a", "0x92000014"), SETTLE,
        expect(page="a", signal="killed", offlined=False),
    ]  # fmt: skip
    for source, vcpu in (("sea:1", 0), ("sea", 1)):
        yield f"source-{source.replace(':', '-')}-vcpu{vcpu}", [
            head(f"the record lies in source {source}, and vCPU {vcpu} takes the SEA: every SEA reads them all", "walks_all_sea_sources"),
            page("a", "reader", vcpu=vcpu), record(source, block(memory("a")), page="a"), SETTLE, taken(source),
            expect(page="a", offlined=True, signal="BUS_MCEERR_AR"),
        ]  # fmt: skip
    yield "other-page-nobody", [
        head("an SEA's record names a page of nobody: it is taken out, and the process goes on", "sea_unrecovered"),
        page("a", "reader", vcpu=1), page("b", "nobody"), record("sea", block(memory("b")), page="a"), SETTLE,
        taken("sea"), expect(page="b", offlined=True), expect(page="a", offlined=False, signal="none"),
    ]  # fmt: skip
    yield "other-page-early", [
        head("an SEA's record names the page of another process, which asked for early signals"),
        page("a", "reader", vcpu=1), page("b", "early"), record("sea", block(memory("b")), page="a"), SETTLE,
        taken("sea"), expect(page="b", offlined=True, signal="BUS_MCEERR_AO"), expect(page="a", signal="none"),
    ]  # fmt: skip
    yield "relayed", [
        head("KVM_EXIT_ARM_SEA with an address: told as a SIGBUS is"), page("a", "reader", vcpu=1),
        {"event": "abort", "page": "a", "esr": "0x92000010"}, SETTLE, taken("sea"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AR", told="sea"),
    ]  # fmt: skip
    yield "relayed-unlocated", [
        head("KVM_EXIT_ARM_SEA without an address: an SEA without a record"), page("a", "reader", vcpu=1),
        {"event": "abort", "page": "a", "esr": "0x92000010", "located": False}, SETTLE,
        expect(page="a", offlined=False, signal="BUS_OBJERR", told="nothing"),
    ]  # fmt: skip
    yield "three-in-a-row", [
        head("three SEAs in a row: all are handled, whatever is printed", "printed_blocks"),
        page("a", "reader"), page("b", "reader"), page("c", "reader"),
        consumed("a"), SETTLE, consumed("b"), SETTLE, consumed("c"), SETTLE, taken("sea"),
        *(expect(page=name, offlined=True, signal="BUS_MCEERR_AR", told="sea") for name in "abc"),
    ]  # fmt: skip


def severity() -> Iterator[tuple[str, list[Line]]]:
    """Severities of block and entry."""
    for way in ("gsiv", "sdei", "polled", "gpio"):
        for whole, part in (("recoverable", "corrected"), ("corrected", "corrected"), ("corrected", "recoverable"),
                            ("informational", "informational"), ("corrected", "fatal"), ("recoverable", "fatal")):  # fmt: skip
            if way in {"polled", "gpio"} and (whole, part) not in {
                ("corrected", "corrected"),
                ("recoverable", "fatal"),
            }:
                continue
            yield f"{way}-{whole}-{part}", [
                head(f"a {whole} block with a {part} entry by {way}: acknowledged, and nothing is done"),
                page("a", "early"), record(way, block(memory("a", part), severity=whole)), SETTLE, taken(way),
                expect(page="a", offlined=False, signal="none"), ALIVE,
            ]  # fmt: skip
        if way in {"gsiv", "sdei"}:
            yield f"{way}-fatal", [
                head(f"a fatal block by {way}: acknowledged, and the guest panics"), page("a", "early"),
                record(way, block(memory("a", "fatal"), severity="fatal")), SETTLE, DEAD, taken(way),
            ]  # fmt: skip
    for part in ("corrected", "informational"):
        yield f"sea-{part}", [
            head(f"an SEA whose record is {part}: no memory failure, so the process gets a SIGBUS", "sea_unrecovered"),
            page("a", "reader", vcpu=1), record("sea", block(memory("a", part), severity=part), page="a"), SETTLE,
            taken("sea"), expect(page="a", offlined=False, signal="SI_KERNEL"), ALIVE,
        ]  # fmt: skip
    yield "sea-fatal", [
        head("an SEA whose record is fatal: the guest panics"), page("a", "reader", vcpu=1),
        record("sea", block(memory("a", "fatal"), severity="fatal"), page="a"), SETTLE, DEAD,
    ]  # fmt: skip
    yield "gsiv-reserved-9", [
        head("a block of severity 9, which is reserved: the guest panics"), page("a", "early"),
        record("gsiv", block(memory("a")), patch={"0x10": "09000000"}), SETTLE, DEAD, taken("gsiv"),
    ]  # fmt: skip
    yield "gsiv-fatal-block-corrected-entry", [
        head("only the block's severity decides about a panic"), page("a", "early"),
        record("gsiv", block(memory("a", "corrected"), severity="fatal")), SETTLE, DEAD, taken("gsiv"),
    ]  # fmt: skip


def threshold() -> Iterator[tuple[str, list[Line]]]:
    """Corrected errors whose threshold was exceeded: the page is taken out softly."""
    flags = {"flags": ["error_threshold_exceeded"]}
    for way in ("gsiv", "polled", "sdei"):
        for owner in ("idle", "nobody"):
            yield f"{way}-{owner}", [
                head(f"a corrected error over its threshold on a page of {owner}, by {way}: soft offline, no signal"),
                page("a", owner), record(way, block(memory("a", "corrected", **flags), severity="corrected")), SETTLE,
                taken(way), expect(page="a", offlined=True, signal="none"),
            ]  # fmt: skip
    yield "gsiv-outside", [
        head("a corrected error over its threshold outside RAM: nothing is said of it"), page("a", "outside"),
        record("gsiv", block(memory("a", "corrected", **flags), severity="corrected")), SETTLE, taken("gsiv"),
        expect(page="a", offlined=False, reported=False),
    ]  # fmt: skip


def outside() -> Iterator[tuple[str, list[Line]]]:
    """Addresses that are not RAM."""
    for way in ("gsiv", "sdei", "polled"):
        yield f"{way}", [
            head(f"a recoverable error outside RAM, by {way}", "memory_failure_outside_ram"), page("a", "outside"),
            record(way, block(memory("a"))), SETTLE, taken(way),
            expect(guests=["linux-7.2"], page="a", reported=True, offlined=False),
            expect(guests=["linux-6.1", "linux-6.12"], page="a", reported=False, offlined=False),
        ]  # fmt: skip
    yield "sea", [
        head("an SEA whose record names an address outside RAM", "memory_failure_outside_ram", "sea_unrecovered"),
        page("a", "reader", vcpu=1), page("b", "outside"), record("sea", block(memory("b")), page="a"), SETTLE,
        taken("sea"), expect(page="a", offlined=False),
    ]  # fmt: skip
    yield "beside-ram", [
        head("a block with an address outside RAM and one in it"), page("a", "outside"), page("b", "early"),
        record("gsiv", block(memory("a"), memory("b"))), SETTLE, taken("gsiv"),
        expect(page="b", offlined=True, signal="BUS_MCEERR_AO"),
    ]  # fmt: skip


def sections() -> Iterator[tuple[str, list[Line]]]:
    """What is in the block besides memory."""
    for kind, lost in ((0x02, True), (0x00, False), (0x04, False), (0x08, False), (0x10, False)):
        yield f"arm-{kind:#04x}", [
            head(f"an ARM processor error of type {kind:#x} with a physical address", "arm_error_types"),
            page("a", "early"), record("gsiv", block(arm("a", kind))), SETTLE, taken("gsiv"),
            expect(page="a", offlined=lost, signal="BUS_MCEERR_AO" if lost else "none"),
        ]  # fmt: skip
    yield "arm-0x02-no-address", [
        head("an ARM cache error that names no address"), page("a", "early"),
        record("gsiv", block(arm("a", 2, address=False))), SETTLE, taken("gsiv"), expect(page="a", offlined=False),
    ]  # fmt: skip
    yield "arm-0x02-sea", [
        head("an ARM cache error told by an SEA", "arm_error_types"), page("a", "reader", vcpu=1),
        record("sea", block(arm("a", 2)), page="a"), SETTLE, taken("sea"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AR"),
    ]  # fmt: skip
    yield "arm-0x00-sea", [
        head("an ARM error of no known type told by an SEA", "arm_error_types", "sea_unrecovered"),
        page("a", "reader", vcpu=1), record("sea", block(arm("a", 0)), page="a"), SETTLE, taken("sea"),
        expect(page="a", offlined=False, signal="SI_KERNEL"),
    ]  # fmt: skip
    for name, kind in OTHERS.items():
        if name == "pcie":
            continue
        yield f"{name}", [
            head(f"a recoverable {name} section: acknowledged, and no page is touched"), page("a", "early"),
            record("gsiv", block(body(kind, bytes(192)))), SETTLE, taken("gsiv"), expect(page="a", offlined=False), ALIVE,
        ]  # fmt: skip
    yield "unknown-sea", [
        head("a section that nobody knows, told by an SEA", "sea_unrecovered"), page("a", "reader", vcpu=1),
        record("sea", block(body(OTHERS["unknown"], bytes(range(48)))), page="a"), SETTLE, taken("sea"),
        expect(page="a", offlined=False, signal="SI_KERNEL"), ALIVE,
    ]  # fmt: skip
    yield "memory-revision-201", [
        head("an entry of revision 2.1, 8 bytes shorter"), page("a", "early"),
        record("gsiv", block(memory("a", revision=0x201))), SETTLE, taken("gsiv"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AO"),
    ]  # fmt: skip


def malformed() -> Iterator[tuple[str, list[Line]]]:
    """Blocks that are wrong: acknowledged, and nothing is done."""
    wrong = {
        "data-length-0xffffffff": {"0xc": "ffffffff"}, "data-length-minus-1": {"0xc": "97000000"},
        "data-length-plus-1": {"0xc": "99000000"}, "data-length-63": {"0xc": "3f000000"},
        "section-length-past": {"0x2c": "51000000"}, "section-length-wraps": {"0x2c": "f8ffffff"},
        "raw-offset-inside": {"0x4": "1400000010000000"}, "raw-offset-far": {"0x4": "0000100010000000"},
    }  # fmt: skip
    for name, patch in wrong.items():
        yield f"gsiv-{name}", [
            head(f"a block with {name.replace('-', ' ')}, by an interrupt"), page("a", "early"),
            record("gsiv", block(memory("a")), patch=patch), SETTLE, taken("gsiv"),
            expect(page="a", offlined=False, signal="none"), ALIVE,
        ]  # fmt: skip
    for way in ("sdei", "polled"):
        yield f"{way}-data-length", [
            head(f"a block whose entries do not fill it, by {way}"), page("a", "early"),
            record(way, block(memory("a")), patch={"0xc": "97000000"}), SETTLE, taken(way),
            expect(page="a", offlined=False, signal="none"), ALIVE,
        ]  # fmt: skip
    yield "sea-data-length", [
        head("an SEA whose record cannot be read"), page("a", "reader", vcpu=1),
        record("sea", block(memory("a")), patch={"0xc": "97000000"}, page="a"), SETTLE, taken("sea"),
        expect(page="a", offlined=False, signal="BUS_OBJERR"), ALIVE,
    ]  # fmt: skip
    yield "gsiv-empty", [
        head("a block without entries"), page("a", "early"),
        record("gsiv", "01000000" + "00" * 16), SETTLE, taken("gsiv"), ALIVE,
    ]  # fmt: skip
    yield "gsiv-status-odd", [
        head("reserved bits in the block status: read all the same"), page("a", "early"),
        record("gsiv", block(memory("a")), patch={"0x0": "0000ff80"}), SETTLE, taken("gsiv"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AO"),
    ]  # fmt: skip
    yield "gsiv-section-severity", [
        head("an entry of reserved severity 9 in a corrected block"), page("a", "early"),
        record("gsiv", block(memory("a", "corrected"), severity="corrected"), patch={"0x24": "09000000"}), SETTLE,
        taken("gsiv"), expect(page="a", offlined=False), ALIVE,
    ]  # fmt: skip
    yield "gsiv-no-address", [
        head("a memory error that names no address"), page("a", "early"),
        record("gsiv", block({"header": memory("a")["header"], "section": {"error_type": 3}})), SETTLE, taken("gsiv"),
        expect(page="a", offlined=False), ALIVE,
    ]  # fmt: skip
    yield "gsiv-short-section", [
        head("a memory section of 72 bytes is too short"), page("a", "early"),
        record("gsiv", block(body(MEMORY, bytes([2] + 7 * [0] + 64 * [0])))), SETTLE, taken("gsiv"), ALIVE,
    ]  # fmt: skip


def several() -> Iterator[tuple[str, list[Line]]]:
    """More than one entry in a block."""
    for way in FOUND:
        yield f"two-{way}", [
            head(f"two pages in one block by {way}"), page("a", "early"), page("b", "nobody"),
            record(way, block(memory("a"), memory("b"))), SETTLE, taken(way),
            expect(page="a", offlined=True, signal="BUS_MCEERR_AO"), expect(page="b", offlined=True),
        ]  # fmt: skip
    yield "two-sea", [
        head("an SEA whose record names the process's page and one of nobody"), page("a", "reader", vcpu=1),
        page("b", "nobody"), record("sea", block(memory("b"), memory("a")), page="a"), SETTLE, taken("sea"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AR"), expect(page="b", offlined=True),
    ]  # fmt: skip
    names = [f"p{i}" for i in range(12)]
    yield "twelve-gsiv", [
        head("twelve pages in one block"), *(page(n, "nobody") for n in names),
        record("gsiv", block(*(memory(n) for n in names))), SETTLE, taken("gsiv"),
        *(expect(page=n, offlined=True) for n in names),
    ]  # fmt: skip
    yield "mixed-severities", [
        head("a corrected entry and a recoverable one in a recoverable block"), page("a", "early"), page("b", "early"),
        record("gsiv", block(memory("a", "corrected"), memory("b"))), SETTLE, taken("gsiv"),
        expect(page="a", offlined=False, signal="none"), expect(page="b", offlined=True, signal="BUS_MCEERR_AO"),
    ]  # fmt: skip
    yield "same-page-twice", [
        head("one page twice in one block"), page("a", "early"), record("gsiv", block(memory("a"), memory("a"))),
        SETTLE, taken("gsiv"), expect(page="a", offlined=True, signal="BUS_MCEERR_AO"),
    ]  # fmt: skip


def granule() -> Iterator[tuple[str, list[Line]]]:
    """More than a page is lost at once."""
    for way in FOUND:
        for lsb in (13, 16):
            count = 1 << lsb - 12
            yield f"{way}-{1 << lsb - 10}k", [
                head(f"{count} pages of nobody are lost at once, told by {way}", deliver=[way]),
                page("a", "nobody", pages=count), found("a", lsb=lsb), SETTLE, taken(way),
                expect(page="a", offlined=True, told=way),
            ]  # fmt: skip
    yield "fault-16-pages", [
        head("a range of guest memory is lost, by guest physical address", deliver=["gsiv"]),
        page("a", "nobody", pages=16), {"event": "fault", "page": "a", "size": 65536}, SETTLE, taken("gsiv"),
        expect(page="a", offlined=True, told="gsiv"),
    ]  # fmt: skip
    yield "fault-early", [
        head("a page is lost by guest physical address, and its owner asked to be told", deliver=["polled"]),
        page("a", "early"), {"event": "fault", "page": "a"}, SETTLE, taken("polled"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AO", told="polled"),
    ]  # fmt: skip


def repeated() -> Iterator[tuple[str, list[Line]]]:
    """The same again.  Linux prints two blocks in five seconds, and remembers what it printed: so first it is quiet."""
    same = block(body(OTHERS["unknown"], bytes(range(40))))
    two, three = block(body(OTHERS["unknown"], bytes(41))), block(body(OTHERS["unknown"], bytes(42)))
    yield "identical-sea", [
        head("an SEA's record that is identical to the one before is taken for it: no signal", "cache_swallows",
             "cache_seconds", "cache_slots"),
        page("a", "reader"), page("b", "reader"), wait(11), record("sea", same, page="a"), SETTLE,
        expect(page="a", signal="SI_KERNEL"), record("sea", same, page="b"), SETTLE, taken("sea"),
        expect(page="b", signal="none"),
    ]  # fmt: skip
    yield "identical-sea-later", [
        head("after ten seconds an identical record is handled anew", "cache_seconds"),
        page("a", "reader"), page("b", "reader"), wait(11), record("sea", same, page="a"), SETTLE,
        expect(page="a", signal="SI_KERNEL"), wait(11), record("sea", same, page="b"), SETTLE, taken("sea"),
        expect(page="b", signal="SI_KERNEL"),
    ]  # fmt: skip
    yield "third-not-remembered", [
        head("the third block within five seconds is not printed, so its repetition is handled", "printed_blocks"),
        *(page(n, "reader") for n in "abcd"), wait(11), record("sea", same, page="a"), SETTLE,
        record("sea", two, page="b"), SETTLE, record("sea", three, page="c"), SETTLE,
        record("sea", three, page="d"), SETTLE, taken("sea"), expect(page="d", signal="SI_KERNEL"),
    ]  # fmt: skip
    yield "third-later-remembered", [
        head("five seconds later the third block is printed, and its repetition is not handled", "printed_seconds"),
        *(page(n, "reader") for n in "abcd"), wait(11), record("sea", same, page="a"), SETTLE,
        record("sea", two, page="b"), SETTLE, wait(6), record("sea", three, page="c"), SETTLE,
        record("sea", three, page="d"), SETTLE, taken("sea"), expect(page="d", signal="none"),
    ]  # fmt: skip
    yield "two-remembered", [
        head("two blocks are remembered at once", "cache_slots", "printed_blocks"),
        *(page(n, "reader") for n in "abcd"), wait(11), record("sea", same, page="a"), SETTLE,
        record("sea", two, page="b"), SETTLE, record("sea", same, page="c"), SETTLE,
        record("sea", two, page="d"), SETTLE, taken("sea"), expect(page="c", signal="none"),
        expect(page="d", signal="none"),
    ]  # fmt: skip
    for way in FOUND:
        yield f"identical-{way}", [
            head(f"the same record twice by {way}: both are acknowledged, the page is lost once", "cache_swallows"),
            page("a", "early"), record(way, block(memory("a"))), SETTLE, record(way, block(memory("a"))), SETTLE,
            taken(way), expect(page="a", offlined=True, signal="BUS_MCEERR_AO"), ALIVE,
        ]  # fmt: skip
    yield "same-page-two-ways", [
        head("one page told by two ways"), page("a", "early"), record("gsiv", block(memory("a"))), SETTLE,
        record("polled", block(memory("a"))), SETTLE, taken("gsiv"), taken("polled"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AO"), ALIVE,
    ]  # fmt: skip
    yield "found-then-consumed", [
        head("a page is told as found; the process that uses it then is signalled by its own kernel", deliver=["gsiv"]),
        page("a", "reader", vcpu=1), found("a"), SETTLE, taken("gsiv"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AR", told="gsiv"),
    ]  # fmt: skip


def burst() -> Iterator[tuple[str, list[Line]]]:
    """Many at once."""
    names = [f"p{i}" for i in range(8)]
    for way in FOUND:
        yield f"eight-{way}", [
            head(f"eight pages are lost at once, told by {way}", deliver=[way]), *(page(n, "nobody") for n in names),
            *(found(n) for n in names), {"event": "settle", "seconds": 10}, taken(way),
            *(expect(page=n, offlined=True, told=way) for n in names),
        ]  # fmt: skip
    yield "records-behind-each-other", [
        head("records for one source wait for each other, in order"), page("a", "early"), page("b", "early"),
        page("c", "early"), *(record("polled", block(memory(n))) for n in "abc"), {"event": "settle", "seconds": 10},
        taken("polled"), *(expect(page=n, offlined=True, signal="BUS_MCEERR_AO") for n in "abc"),
    ]  # fmt: skip
    yield "every-way-at-once", [
        head("a record by every way at once", "notifications"), *(page(n, "early") for n in "abcd"),
        *(record(way, block(memory(n))) for way, n in zip(FOUND, "abcd", strict=True)), {"event": "settle", "seconds": 10},
        *(taken(way) for way in FOUND), *(expect(page=n, offlined=True, signal="BUS_MCEERR_AO") for n in "abcd"),
    ]  # fmt: skip
    yield "second-polled-source", [
        head("a record in a block of 8 KiB, of a second polled source"), page("a", "early"),
        record("polled:1", block(memory("a"))), SETTLE, taken("polled:1"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AO"),
    ]  # fmt: skip


def unread() -> Iterator[tuple[str, list[Line]]]:
    """Records that the guest does not take, or takes late."""
    yield "polling-stops", [
        head("the guest polls no more: the record stays; then it polls again", deliver=["polled"]), page("a", "early"),
        guest("poll-stop", stopped=True), found("a"), {"event": "settle", "seconds": 2.5},
        expect(source="polled", acked=False, cleared=False), expect(page="a", offlined=False, signal="none"),
        guest("poll-stop", stopped=False), SETTLE, taken("polled"),
        expect(page="a", offlined=True, signal="BUS_MCEERR_AO", told="polled"),
    ]  # fmt: skip
    yield "sei-is-refused", [
        head("Linux binds no SEI source: found memory is told by the next way", "notifications", deliver=["sei", "polled"]),
        page("a", "early"), found("a"), SETTLE, expect(guests=["linux-6.1", "linux-6.12", "linux-7.2"], source="sei",
                                                       bound=False), taken("polled"),
        expect(page="a", offlined=True, told="polled"),
    ]  # fmt: skip
    late = "a real guest acknowledges when it does"
    yield "never-acknowledged", [
        head("a guest reads and never acknowledges: nothing is overwritten", deliver=["gsiv"], model_only=late),
        page("a", "early"), page("b", "early"), guest("ack-delay", ms=None), found("a"), found("b"),
        {"event": "settle", "seconds": 2}, expect(source="gsiv", acked=False), expect(page="a", offlined=True),
        expect(page="b", offlined=False),
    ]  # fmt: skip
    yield "acknowledged-late", [
        head("a guest acknowledges two seconds late: the second page waits", deliver=["gsiv"], model_only=late),
        page("a", "early"), page("b", "early"), guest("ack-delay", ms=2000), found("a"), found("b"), wait(1),
        expect(page="b", offlined=False), {"event": "settle", "seconds": 8}, expect(page="b", offlined=True),
        taken("gsiv"),
    ]  # fmt: skip
    masks = "nothing keeps an SError pending in QEMU's emulation from outside"
    yield "serror-masked", [
        head("PSTATE.A masks an SError: it is taken when the guest unmasks", "serror_survived", model_only=masks),
        page("a", "reader"), guest("mask-serror", vcpu=0, masked=True), {"event": "serror", "page": "a", "vsesr": "0x11"},
        guest("mask-serror", vcpu=0, masked=False), SETTLE, DEAD,
    ]  # fmt: skip


def sdei() -> Iterator[tuple[str, list[Line]]]:
    """The life cycle of the SDEI event: Linux' driver of the source is unbound, and bound again."""
    yield "unregistered-waits", [
        head("the event is unregistered: what is found waits for it", deliver=["sdei"]), page("a", "early"),
        guest("sdei", registered=False), found("a"), {"event": "settle", "seconds": 1},
        expect(page="a", offlined=False, signal="none", told="nothing"), guest("sdei", registered=True), SETTLE,
        taken("sdei"), expect(page="a", offlined=True, signal="BUS_MCEERR_AO", told="sdei"),
    ]  # fmt: skip
    for way in ("polled", "gsiv", "gpio"):
        yield f"unregistered-{way}", [
            head(f"the event is unregistered: what is found is told by {way}", deliver=["sdei", way]), page("a", "early"),
            guest("sdei", registered=False), found("a"), SETTLE, taken(way),
            expect(page="a", offlined=True, told=way, signal="BUS_MCEERR_AO"),
        ]  # fmt: skip
    yield "registered-again", [
        head("the event is unregistered and registered again: it is used again", deliver=["sdei", "polled"]),
        page("a", "early"), guest("sdei", registered=False), guest("sdei", registered=True), found("a"), SETTLE,
        taken("sdei"), expect(page="a", offlined=True, told="sdei", signal="BUS_MCEERR_AO"),
    ]  # fmt: skip
    yield "before-and-after", [
        head("one page before, one while it is unregistered, one after", deliver=["sdei", "gsiv"]),
        *(page(n, "early") for n in "abc"), found("a"), SETTLE, guest("sdei", registered=False), found("b"), SETTLE,
        guest("sdei", registered=True), found("c"), SETTLE, expect(page="a", told="sdei", offlined=True),
        expect(page="b", told="gsiv", offlined=True), expect(page="c", told="sdei", offlined=True),
    ]  # fmt: skip
    yield "event-without-record", [
        head("the event is signalled and no record is there: nothing happens"), page("a", "early"),
        {"event": "sdei", "number": 804}, SETTLE, expect(source="sdei", cleared=True),
        expect(page="a", offlined=False, signal="none"), ALIVE,
    ]  # fmt: skip


def reset() -> Iterator[tuple[str, list[Line]]]:
    """The machine begins anew in the middle of something."""
    stop, quiet = guest("poll-stop", stopped=True), {"event": "settle", "seconds": 0.5}
    again = page("z", "early"), found("z"), SETTLE
    for name, kept in (("replaced", False), ("kept", True)):
        host = "the host keeps it" if kept else "the host replaces it"
        yield f"unread-{name}", [
            head(f"a reset while a record is unread; the page stays lost: {host}" if kept else
                 f"a reset while a record is unread; {host}: the guest that boots is told nothing", deliver=["polled"]),
            page("a", "nobody"), stop, found("a"), quiet, expect(source="polled", acked=False, cleared=False),
            RESET | {"replaced": not kept}, SETTLE, taken("polled"), expect(source="polled", bound=True),
            expect(page="a", offlined=kept, told="polled" if kept else "nothing"), ALIVE,
        ]  # fmt: skip
        yield f"offlined-{name}", [
            head(f"a reset after a page was taken out of use; {host}", deliver=["gsiv"]), page("a", "nobody"), found("a"),
            SETTLE, expect(page="a", offlined=True), RESET | {"replaced": not kept}, SETTLE, taken("gsiv"),
            expect(page="a", offlined=kept, reported=kept, told="gsiv" if kept else "nothing"), ALIVE,
        ]  # fmt: skip
    yield "unread-sea", [
        head("a reset while an SEA's record is unread: the next SEA finds its own record only"),
        page("a", "reader", vcpu=1), page("b", "nobody"), record("sea", block(memory("b")), page="a", el=1), quiet,
        expect(source="sea", acked=False), RESET, taken("sea"), page("c", "reader", vcpu=1), consumed("c"), SETTLE, taken("sea"),
        expect(page="b", offlined=False), expect(page="c", offlined=True, signal="BUS_MCEERR_AR", told="sea"),
    ]  # fmt: skip
    yield "held", [
        head("a reset while a vCPU is held, because its SEA's source is busy: it boots", policy=PATIENT),
        page("a", "reader"), page("b", "nobody"), page("c", "reader", vcpu=1),
        record("sea", block(memory("b")), page="a", el=1), quiet, consumed("c"), RESET,
        taken("sea"), page("z", "reader", vcpu=1), consumed("z"), SETTLE, taken("sea"),
        expect(page="z", offlined=True, signal="BUS_MCEERR_AR", told="sea"), expect(page="c", signal="none"),
    ]  # fmt: skip
    yield "sdei-registered", [
        head("a reset while SDEI is registered: the guest that boots registers anew", deliver=["sdei", "polled"]),
        page("a", "early"), found("a"), SETTLE, expect(page="a", told="sdei"), RESET, *again, taken("sdei"),
        expect(page="z", offlined=True, signal="BUS_MCEERR_AO", told="sdei"),
    ]  # fmt: skip
    yield "sdei-unregistered", [
        head("a reset while SDEI is unregistered: the guest that boots registers it", deliver=["sdei", "polled"]),
        guest("sdei", registered=False), RESET, *again, taken("sdei"),
        expect(page="z", offlined=True, signal="BUS_MCEERR_AO", told="sdei"),
    ]  # fmt: skip
    yield "sdei-waiting", [
        head("a page waits for the event to be registered, and is not replaced: the guest that boots is told", deliver=["sdei"]),
        page("a", "nobody"), guest("sdei", registered=False), found("a"), quiet, expect(page="a", told="nothing"),
        RESET | {"replaced": False}, SETTLE, taken("sdei"), expect(page="a", offlined=True, told="sdei"),
    ]  # fmt: skip
    yield "panicked", [
        head("a fatal block, a panic, a reset: the guest that boots is told of new errors", deliver=["gsiv"]),
        page("a", "early"), record("gsiv", block(memory("a", "fatal"), severity="fatal")), SETTLE, DEAD, RESET, *again,
        taken("gsiv"), expect(page="z", offlined=True, signal="BUS_MCEERR_AO", told="gsiv"), ALIVE,
    ]  # fmt: skip
    yield "identical-record", [
        head("a reset between two identical records: the guest that boots remembers none"),
        page("a", "nobody"), record("gsiv", block(memory("a"))), SETTLE, expect(page="a", offlined=True), RESET,
        expect(page="a", offlined=False), record("gsiv", block(memory("a"))), SETTLE, taken("gsiv"),
        expect(page="a", offlined=True),
    ]  # fmt: skip


def serror() -> Iterator[tuple[str, list[Line]]]:
    """SErrors without a record: what the syndrome says decides."""
    for vsesr, what in ((0x811, "restartable"), (0x1811, "corrected")):
        for el in (0, 1):
            yield f"{what}-el{el}", [
                head(f"a {what} SError at EL{el} is survived", "serror_survived", "ras"), page("a", "reader", vcpu=1),
                {"event": "serror", "page": "a", "vsesr": f"{vsesr:#x}", "el": el}, SETTLE, ALIVE,
                expect(page="a", signal="none", offlined=False),
            ]  # fmt: skip
    for vsesr, what in ((0x011, "uncontainable"), (0x411, "unrecoverable"), (0xC11, "recoverable"), (0, "uncategorised"),
                        (0x1000000, "implementation-defined")):  # fmt: skip
        yield f"{what}", [
            head(f"an SError that is {what} (ISS {vsesr:#x}) is not survived", "serror_survived", "ras"),
            page("a", "reader", vcpu=1), {"event": "serror", "page": "a", "vsesr": f"{vsesr:#x}"}, SETTLE, DEAD,
        ]  # fmt: skip


FAMILIES = {f.__name__: f for f in (channel, sea, severity, threshold, outside, sections, malformed, several, granule,
                                    repeated, burst, unread, sdei, reset, serror)}  # fmt: skip


def files() -> dict[str, str]:
    """Name of each file to what it holds."""
    out = {}
    for family, made in FAMILIES.items():
        for name, lines in made():
            text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
            out[f"{family}/{name}.scenario.jsonl"] = text
    return out


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, text in files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
