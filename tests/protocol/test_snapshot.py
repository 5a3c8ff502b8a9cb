"""A guest moves at any moment, and arrives with all that it was owed; a damaged or hostile snapshot changes nothing."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import Any

import orjson
import pytest

from acpi.presets import PRESETS
from tests import moving
from tests.machine import GPA, HVA, Machine, of
from tests.walker import POLICIES, World
from vmm_ras.deciding import Hook
from vmm_ras.effects import (
    ArmAck,
    Effect,
    Hold,
    InjectSea,
    InjectSerror,
    PollAck,
    Posted,
    RaiseLine,
    Release,
    SetRegisters,
    Stop,
    WriteGuest,
)
from vmm_ras.errata import DISCOVER_IMPL_CPUS, DISCOVER_IMPL_VER, Cpu, Pool
from vmm_ras.errors import Poisoned, SnapshotError
from vmm_ras.events import AckRead, Code, Done, GuestAbort, HostSignal, Replaced, Stopped, VcpuState
from vmm_ras.guests import state as guest_state
from vmm_ras.guests.memory import GuestMemory
from vmm_ras.memory import ACKED, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.snapshot import holes, pending, read_snapshot, rebuild, restore, snapshot_of
from vmm_ras.snapshot.container import MANDATORY, Part, decode, encode
from vmm_ras.snapshot.difference import ABSENT, differences
from vmm_ras.state import take


def small(preset: str = "qemu-11.1", **options: Any) -> Notifier:
    """A core of two vCPUs and 16 MiB."""
    placed = PRESETS[preset].place(0x3FF0_0000).sources
    options = {"threads": {100: 0, 101: 1}, "guest": PROFILES["generic"]} | options
    return Notifier(placed, MemoryMap([MemorySlot(HVA, GPA, 1 << 24)]), vcpus=2, **options)


def busy(core: Notifier) -> list[Effect]:
    """Much is pending: a held vCPU, one that is asked for, posted blocks, pages that wait.  The effects so far."""
    out = core.receive(HostSignal(Code.AR, HVA, 12, 100), 1.0)
    out += core.receive(Stopped(0, VcpuState(0x1000, 0)), 1.0)
    out += core.receive(HostSignal(Code.AO, HVA + 0x20000, 16, 7), 1.5)
    out += core.receive(HostSignal(Code.AR, HVA + 0x5000, 12, 101), 2.0)
    out += core.receive(Stopped(1, VcpuState(0x2000, 4, serror=0x11)), 2.0)
    out += core.receive(HostSignal(Code.AR, HVA + 0x6000, 14, 100), 2.5)
    core.receive(Done(core.last_id), 2.5)
    return out


def full() -> Notifier:
    core = small()
    busy(core)
    return core


def parts_of(data: bytes) -> dict[str, Part]:
    return {part.name: part for part in decode(data)}


def with_part(data: bytes, name: str, value: Any) -> bytes:
    """The snapshot with another value in a part, and all checksums right."""
    parts = parts_of(data)
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    parts[name] = Part(name, body, parts[name].mandatory if name in parts else True)
    return encode(parts.values())


def refused(core: Notifier, data: bytes) -> str:
    """The line with which a core refuses it; the core is as it was."""
    before = take(core)
    with pytest.raises(SnapshotError) as error:
        restore(core, read_snapshot(data))
    assert take(core) == before
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


# -- any moment ----------------------------------------------------------------------


def test_walked_vms_go_on_as_if_they_had_not_been_moved() -> None:
    done: Counter[str] = Counter()
    for vm in range(30):  # of 10,000 that make prove moves
        moving.live(7, vm, done)

    assert done["VMs moved at a random point"] == 30
    assert done["effects that were compared"] > 1500
    assert sum(key.startswith("moved, unacknowledged") for key in done) >= 4


def lists_of_effects(preset: str, policy: str) -> list[list[Effect]]:
    """What the core asks for, list by list, in a life with every way of telling."""
    world, found = World(preset, "generic", policy), []
    perform = world.m.guest.perform

    def watched(effects: list[Any], now: float) -> list[Any]:
        found.append(list(effects))
        return perform(effects, now)

    world.m.guest.perform = watched  # type: ignore[method-assign]
    for page in range(8):
        world.consumed(page * 2, page % 4, 12)
        world.found(page * 3 + 20, 12)
    world.wait(5)
    return found


@pytest.mark.parametrize("policy", ["default", "serror", "mask"])
def test_effects_that_were_not_carried_out_travel_too(policy: str) -> None:
    """Cut lists in two at any place: the rest is carried out after the move, with the same end."""
    cuts = [(n, k) for n, effects in enumerate(lists_of_effects("all", policy)) for k in range(len(effects))]
    ends = set()
    for cut in random.Random(policy).sample(cuts, 24):
        ends.add(end_of(policy, cut))

    assert len(cuts) > 40
    assert ends == {end_of(policy, None)}


def end_of(policy: str, cut: tuple[int, int] | None) -> str:
    world = World("all", "generic", policy)
    count = -1

    def cutting(m: Machine) -> None:
        perform = m.guest.perform

        def perform_a_part(effects: list[Any], now: float) -> list[Any]:
            nonlocal count
            count += 1
            if cut is None or count != cut[0]:
                return perform(effects, now)
            at = cut[1]
            answers = perform(effects[:at], now)
            rest = effects[at:]
            data = guest_state.save(m.core, m.guest, now, sources=m.image.sources, effects=rest)
            core, guest, arrival = guest_state.resume(read_snapshot(data, guest_state.PARTS))
            assert list(arrival.effects) == rest
            # from here on the VM lives there: the object that drives it is given what is there
            m.core.handlers.update(core.handlers)
            m.core.__dict__, m.guest.__dict__ = core.__dict__, guest.__dict__
            return [*answers, *m.guest.perform(list(arrival.effects), now)]

        m.guest.perform = perform_a_part  # type: ignore[method-assign]

    cutting(world.m)
    for page in range(8):
        world.consumed(page * 2, page % 4, 12)
        world.found(page * 3 + 20, 12)
    world.wait(5)
    return orjson.dumps(take(world.m.core)).decode()


def test_the_clock_of_the_destination_is_its_own() -> None:
    one, two = full(), small()

    restore(two, read_snapshot(snapshot_of(one, now=2.5)), now=1002.5)

    assert one.next_deadline() is not None
    assert two.next_deadline() == pytest.approx(one.next_deadline() + 1000)
    at = one.next_deadline() or 0
    assert two.expire(at + 1000) == one.expire(at)


def test_host_addresses_and_threads_are_the_destinations() -> None:
    one = full()
    two = Notifier(
        PRESETS["qemu-11.1"].place(0x3FF0_0000).sources, MemoryMap([MemorySlot(0x5000_0000, GPA, 1 << 24)]), vcpus=2,
        guest=PROFILES["generic"],
    )  # fmt: skip

    arrival = restore(two, read_snapshot(snapshot_of(one, now=2.5)), threads={7: 1})

    assert two.threads == {7: 1}
    assert two.memory.slots[0].hva == 0x5000_0000
    assert arrival.holes == holes(one) != ()
    assert arrival.held == (1,), "vCPU 0 consumed something too, and is only to be stopped"


# -- what is owed --------------------------------------------------------------------


def test_pending_tells_by_vcpu_and_source() -> None:
    core = full()

    owed = pending(core, [{"serror": 0x11, "disr": 0x8000_0011}, {"vsesr": None, "latent": 0x12}])

    by_vcpu = {entry["vcpu"]: [thing["owed"] for thing in entry["owed"]] for entry in owed["vcpus"]}
    assert by_vcpu == {
        0: ["serror", "deferred serror", "consumed error", "stop"],
        1: ["latent error", "consumed error"],
    }
    held = owed["vcpus"][1]["owed"][1]
    assert (held["gpa"], held["state"], held["until"]) == (GPA + 0x5000, "held", 4.0)
    assert {s["source_id"]: s["way"] for s in owed["sources"]} == {
        s.placed.source_id: s.way for s in core.busy.values()
    }
    assert owed["pages"]["unreported"] == core.poison.counts[1] > 0
    assert owed["pages"]["held"] == 1
    assert not owed["idle"]
    assert orjson.dumps(owed)


def test_nothing_is_owed_by_a_new_core() -> None:
    assert pending(small())["idle"]
    assert not pending(small(), [{"vsesr": 0}])["idle"], "an SError without a syndrome is one"


def test_what_is_told_on_touch_is_not_owed_until_then() -> None:
    core = small(policy=load_policy(str(POLICIES["touch"])))
    core.receive(HostSignal(Code.AO, HVA, 16, 7), 1.0)

    owed = pending(core)

    assert owed["idle"]
    assert owed["pages"]["on_touch"] == 16


# -- holes ---------------------------------------------------------------------------


def test_contents_never_travel_and_a_later_touch_is_an_error_and_told() -> None:
    m = Machine("all", "generic")
    secret = b"what was in the page"
    for page in (3, 4, 9):
        m.guest.memory.write(GPA + (page << 12), secret)
        m.guest.memory.poison(GPA + (page << 12), 4096)
        m.ao(page)
    m.wait(5)
    assert [m.state(page) for page in (3, 4, 9)] == [ACKED] * 3
    assert len(m.did()) == 3
    data = guest_state.save(m.core, m.guest, m.now, sources=m.image.sources)
    assert secret not in data

    core, guest, arrival = guest_state.resume(read_snapshot(data, guest_state.PARTS))

    assert arrival.holes == ((GPA + 0x3000, 0x2000), (GPA + 0x9000, 0x1000))
    for page in (3, 4, 9):
        with pytest.raises(Poisoned) as touch:
            guest.memory.read(GPA + (page << 12) + 8, 8)
        effects = core.receive(GuestAbort(0, 0x92000010, 0x1000, touch.value.gpa), m.now)
        seen: list[Effect] = []
        guest.drive(core, effects, m.now, seen.extend)
        (posted,) = of(seen, Posted)
        assert posted.pages == ((GPA + (page << 12), 4096),)
        assert posted.delivery == "sea"
    assert [a.outcome for a in guest.os.drain()] == ["offlined"] * 3
    with pytest.raises(Poisoned):
        guest.memory.write(GPA + 0x3000, b"x")
    assert guest.memory.read(GPA + 0x5000, 4) == bytes(4)


def test_a_reset_at_either_end_clears_what_was_replaced_and_no_more() -> None:
    one = full()
    one.receive(Replaced(GPA, 0x22000), 3.0)  # the source's host gave two pages of the large one back
    two = small()
    arrival = restore(two, read_snapshot(snapshot_of(one, now=3.0)))
    assert arrival.holes == ((GPA + 0x22000, 0xE000),)

    two.receive(Replaced(GPA + 0x22000, 0x4000), 4.0)

    assert holes(two) == ((GPA + 0x26000, 0xA000),)
    assert sum(two.poison.counts[1:]) == 10


def test_what_a_vcpu_consumed_is_a_hole_before_it_was_stopped() -> None:
    core = small()
    core.receive(HostSignal(Code.AR, HVA + 0x8000, 14, 100), 1.0)

    assert sum(core.poison.counts[1:]) == 0
    assert holes(core) == ((GPA + 0x8000, 0x4000),)


def test_the_memory_of_a_guest_with_holes() -> None:
    memory = GuestMemory()
    memory.add_region(0x1000, 0x40000)
    memory.write(0x1000, bytes(range(1, 256)) * 32)
    memory.poison(0x2000, 1)
    other = GuestMemory()
    other.add_region(0x1000, 0x40000)

    other.put(memory.take())
    other.poison(0x2000, 1)

    assert other.read(0x1000, 0x1000) == memory.read(0x1000, 0x1000)
    other.replace(0x2000, 1)
    assert other.read(0x2000, 0x1000) == bytes(0x1000)
    for bad in (b"x", memory.take()[:-1], memory.take() * 2, (1 << 40).to_bytes(8, "little") + bytes(1 << 16)):
        with pytest.raises(SnapshotError):
            other.put(bad)


# -- the container -------------------------------------------------------------------

DATA = snapshot_of(full(), [{"vsesr": 0x11}, {"vsesr": None}], now=2.5, id_registers=[{0x6030: 5}], lines={"ged": 1})


FRAMING = len(DATA) - sum(len(part.body) for part in decode(DATA))
PLACES = [*range(FRAMING), *range(FRAMING, len(DATA), 5)]
"""Every byte of the directory, and some of the bodies, each of which has one CRC."""


def test_a_byte_flipped_anywhere_is_refused_in_one_line() -> None:
    r = random.Random(1)
    assert restore(small(), read_snapshot(DATA))
    for at in PLACES:
        damaged = bytearray(DATA)
        damaged[at] ^= r.randint(1, 255)
        with pytest.raises(SnapshotError) as error:
            read_snapshot(bytes(damaged))
        assert str(error.value).isprintable()


def test_what_a_refusal_quotes_is_printable() -> None:
    """Found by fuzzing: a model's own message quotes what it was given."""
    assert str(SnapshotError("found `\x90\n` at 26")) == "found `\\x90 ` at 26"


def test_truncation_anywhere_is_refused_and_so_is_anything_behind() -> None:
    for length in PLACES:
        with pytest.raises(SnapshotError, match="snapshot: "):
            read_snapshot(DATA[:length])
    with pytest.raises(SnapshotError, match="1 byte too many"):
        read_snapshot(DATA + b"\0")


def test_parts_may_stand_in_any_order_but_not_in_each_others_place() -> None:
    parts = list(decode(DATA))
    core = small()
    restore(core, read_snapshot(encode(reversed(parts))))
    assert take(core) == take(full())
    for one, two in pairwise(parts):
        swapped = [Part(one.name, two.body) if p is one else Part(two.name, one.body) if p is two else p for p in parts]
        refused(small(), encode(swapped))
        if one.body != two.body:  # and the bytes alone, with the checksums of the others
            start = DATA.index(one.body)
            assert DATA[start:].startswith(one.body + two.body)
            with pytest.raises(SnapshotError):
                read_snapshot(DATA.replace(one.body + two.body, two.body + one.body))


def test_an_unknown_part_is_skipped_or_refused_by_its_name() -> None:
    parts = list(decode(DATA))
    core = small()

    restore(core, read_snapshot(encode([*parts, Part("tomorrow", b"\xff\x00", mandatory=False)])))

    assert take(core) == take(full())
    assert "'tomorrow' is mandatory" in refused(small(), encode([*parts, Part("tomorrow", b"")]))


@pytest.mark.parametrize("name", ["machine", "policy", "guest", "clock", "core", "sources", "held", "poison", "sdei"])
def test_a_part_that_every_snapshot_has_is_missed_by_its_name(name: str) -> None:
    assert name in refused(small(), encode(part for part in decode(DATA) if part.name != name))


@pytest.mark.parametrize("name", ["records", "lines", "vcpus", "id-registers"])
def test_other_parts_may_be_missing(name: str) -> None:
    assert restore(small(), read_snapshot(encode(part for part in decode(DATA) if part.name != name)))


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([Part("a", b""), Part("a", b"")], "each with a name of its own"),
        ([Part("a" * 17, b"")], "expected up to 16"),
        ([Part("Ä", b"")], "expected up to 16"),
        ([Part("", b"")], "expected up to 16"),
        ([Part(f"p{n}", b"") for n in range(257)], "at most 256"),
    ],
)
def test_what_no_container_can_hold(parts: list[Part], what: str) -> None:
    with pytest.raises(SnapshotError, match=what):
        encode(parts)


def test_hostile_directories() -> None:
    from vmm_ras.snapshot.container import DIRECTORY

    def made(*entries: tuple[bytes, int, int], count: int | None = None, version: int = 1) -> bytes:
        plain = [{"name": n.ljust(16, b"\0"), "flags": f, "length": size, "crc32c": 0} for n, f, size in entries]
        start = {"version": version, "parts": len(entries)}
        data = DIRECTORY.build({"body": {"value": {"start": start, "entries": plain}}})
        return data if count is None else data[:10] + count.to_bytes(2, "little") + data[12:]

    for data, what in (
        (made((b"a", 0, 0), (b"a", 0, 0)), "'a' is there twice"),
        (made((b"a", 2, 0)), "flags 0x2"),
        (made((b"A", 0, 0)), "no name"),
        (made((b"a\0b", 0, 0)), "no name"),
        (made((b"a", 0, 2**32 - 1)), "4294967295 bytes missing"),
        (made((b"a", 0, 0), count=255), "too few for 255 parts"),
        (made((b"a", 0, 0), count=65535), "65535 parts"),
        (made(version=2), "version 2"),
        (b"VRASSNAP", "too few"),
        (b"", "begins with nothing"),
        (b"PK", "begins with"),
    ):
        with pytest.raises(SnapshotError, match=what):
            decode(data)


def test_an_empty_container_is_one_without_parts() -> None:
    assert decode(encode([])) == []
    assert decode(encode([Part("a", b"1", False)])) == [Part("a", b"1", False)]
    assert encode([Part("a", b"1")])[12 + 16] == MANDATORY


# -- hostile parts, with right checksums ---------------------------------------------

HOSTILE: list[tuple[str, Any]] = [
    ("sources", lambda v: v["busy"].clear()),  # posted, and not busy
    ("sources", lambda v: v["busy"].append(99)),
    ("sources", lambda v: v["sources"].pop()),
    ("sources", lambda v: v["sources"][0].update(queue=99)),
    ("sources", lambda v: v["sources"][0].update(pages=[[0, 4096]])),
    ("sources", lambda v: v.update(policy="x")),
    ("poison", lambda v: v["poison"].reverse()),
    ("poison", lambda v: v["poison"].append(v["poison"][-1])),
    ("poison", lambda v: v["poison"].append([1 << 40, 1, 1, 0])),
    ("poison", lambda v: v["poison"].append([(GPA >> 12) + 4000, 1 << 30, 1, 0])),
    ("poison", lambda v: v["poison"].append([(GPA >> 12) + 4000, 1, 0, 0])),
    ("poison", lambda v: v["poison"].append([(GPA >> 12) + 4000, 1, 1, 61])),
    ("held", lambda v: v["aborts"][1].update(vcpu=7)),
    ("held", lambda v: v["aborts"].append(v["aborts"][0])),
    ("held", lambda v: v["aborts"][1].update(pages=1 << 60)),
    ("held", lambda v: v["wanted"].append([0, [99]])),
    ("core", lambda v: v.update(last_id=-1)),
    ("core", lambda v: v.update(threads=[[1, 2]])),
    ("core", lambda v: v.update(poison=[])),
    ("core", lambda v: v.update(extra=1)),
    ("core", lambda v: v.pop("records")),
    ("core", lambda v: v.update(format=2)),
    ("clock", lambda v: v.update(now="x")),
    ("clock", lambda v: v.update(now=None)),
    ("machine", lambda v: v.update(vcpus=513)),
    ("machine", lambda v: v.update(vcpus=3)),
    ("machine", lambda v: v.update(page_shift=13)),
    ("machine", lambda v: v.update(page_shift=16)),
    ("machine", lambda v: v["memory"][0].__setitem__(2, 1 << 30)),
    ("machine", lambda v: v["memory"].append([0, GPA, 4096])),
    ("machine", lambda v: v["sources"][0].update(block=1)),
    ("machine", lambda v: v["sources"][0].update(ack_write=3)),
    ("machine", lambda v: v["sources"].clear()),
    ("policy", lambda v: v["text"]["rule"].reverse()),
    ("policy", lambda v: v["text"].update(rule=[])),
    ("policy", lambda v: v.update(hook="0" * 64)),
    ("guest", lambda v: v.update(name="linux")),
    ("guest", lambda v: v.update(name="../x")),
    ("guest", lambda v: v.update(notifications=["sea"])),
    ("guest", lambda v: v.update(notifications=["nobody"])),
    ("guest", lambda v: v.update(ras=[])),
    ("guest", lambda v: v.update(serror_survived=["all"])),
    ("guest", lambda v: v.update(cache_slots=-1)),
    ("sdei", lambda v: v["sdei"]["unmasked"].append(5)),
    ("sdei", lambda v: v["sdei"].update(events=[])),
    ("sdei", lambda v: v.update(sdei=3)),
    ("vcpus", lambda v: v["vcpus"].pop()),
    ("vcpus", lambda v: v["vcpus"][0].update(vsesr=-1)),
    ("vcpus", lambda v: v["vcpus"][0].update(vsesr=1.5)),
    ("lines", lambda v: v.update(gsiv=[4])),
    ("lines", lambda v: v.update(ged=-1)),
    ("id-registers", lambda v: v["vcpus"].extend([[], []])),
    ("records", lambda v: v["inbox"]["records"].append({"block": "00", "source_id": None, "vcpu": 0})),
    ("records", lambda v: v["inbox"]["orders"].append({"vcpu": 9, "esr": 0x92000010})),
]


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_what_no_core_could_remember_is_refused(index: int) -> None:
    name, change = HOSTILE[index]
    value = orjson.loads(parts_of(DATA)[name].body)
    change(value)

    refused(small(), with_part(DATA, name, value))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 5000]
)
@pytest.mark.parametrize("name", sorted(parts_of(DATA)))
def test_a_part_that_holds_something_else_is_refused(name: str, body: bytes) -> None:
    if name in {"lines", "records"} and body == b"{}":
        return  # every member of them has a default
    refused(small(), with_part(DATA, name, body))


E = [
    ArmAck(1, 1, 0, 1),
    WriteGuest(1, 1, GPA, b"x"),
    WriteGuest(1, 99, GPA, b"x"),
    PollAck(1, 1, GPA, 8),
    InjectSea(1, None, 9, 0x92000010, None),
    InjectSea(1, None, 0, 0x5A000000, None),
    InjectSea(1, None, 0, 0x92000010, -1),
    InjectSerror(1, None, 0, 1 << 25),
    SetRegisters(1, None, 0, (), 0, 0xD),
    SetRegisters(1, None, 0, (0,) * 19, 0, 5),
    RaiseLine(1, 1, "gsiv", 5),
    Stop(1 << 40, 0),
    Stop(0, 0),
    Release(1, -1),
]


@pytest.mark.parametrize("effect", E, ids=lambda e: type(e).__name__)
def test_an_effect_that_no_core_asks_for_is_refused(effect: Effect) -> None:
    data = snapshot_of(full(), now=2.5, effects=[effect])

    assert "part 'effects': 0" in refused(small(), data)


@pytest.mark.parametrize(
    "value",
    [None, {}, [1], [{}], [{"effect": "Notifier"}], [{"effect": "Stop"}], [{"effect": "Stop", "id": "1", "vcpu": 0}]],
)
def test_what_is_no_effect_is_refused(value: Any) -> None:
    data = with_part(DATA, "effects", value)

    assert "part 'effects'" in refused(small(), data)


def test_effects_are_read_as_they_were_written() -> None:
    core = small()
    effects = busy(core)
    kinds = {type(e) for e in effects}
    assert {Stop, Hold, ArmAck, WriteGuest, PollAck, InjectSea, Posted, Release} <= kinds

    arrival = restore(small(), read_snapshot(snapshot_of(core, now=2.5, effects=effects)))

    assert list(arrival.effects) == effects


def test_a_count_never_takes_more_memory_than_the_file() -> None:
    """Every number of every part, made huge: what is refused, or taken, costs no more than a few times the file."""
    paths = [(name, path) for name in parts_of(DATA) for path in numbers(orjson.loads(parts_of(DATA)[name].body))]
    assert len(paths) > 120
    restore(small(), read_snapshot(DATA))
    r = random.Random(2)
    try:
        for name, path in r.sample(paths, 60):
            value = inner = orjson.loads(parts_of(DATA)[name].body)
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = r.choice([1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
            data, core = with_part(DATA, name, value), small()
            tracemalloc.start()
            with contextlib.suppress(SnapshotError):
                restore(core, read_snapshot(data))
            with contextlib.suppress(SnapshotError):
                rebuild(read_snapshot(data))
            assert tracemalloc.get_traced_memory()[1] < 1 << 20, (name, path)
            tracemalloc.stop()
    finally:
        tracemalloc.stop()


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if type(value) in (int, float):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in numbers(inner, (*path, key))]


# -- other versions ------------------------------------------------------------------


def test_a_profile_that_a_later_version_knows_better_stays_what_it_was() -> None:
    value = orjson.loads(parts_of(DATA)["guest"].body)
    value.update(walks_all_sea_sources=True, tomorrow=[1])
    core = small()

    restore(core, read_snapshot(with_part(DATA, "guest", value)))

    assert core.guest.walks_all_sea_sources
    assert not PROFILES["generic"].walks_all_sea_sources


def test_what_an_older_version_did_not_say_of_the_guest_is_as_it_is_known() -> None:
    value = orjson.loads(parts_of(DATA)["guest"].body)
    keep = {"name", "notifications", "claims_sea_at_el1", "walks_all_sea_sources", "ras"}
    core = small()

    restore(core, read_snapshot(with_part(DATA, "guest", {k: v for k, v in value.items() if k in keep})))

    assert core.guest == PROFILES["generic"]


def test_a_policy_keeps_its_rules_whatever_its_text_becomes() -> None:
    value = orjson.loads(parts_of(DATA)["policy"].body)
    value["digest"] = "0" * 64
    core = small()

    restore(core, read_snapshot(with_part(DATA, "policy", value)))

    assert take(core) == take(full())


def test_a_hook_does_not_travel_and_is_asked_for() -> None:
    hook = Hook(lambda lost, view: None, "ab" * 32)
    core = small(hook=hook)
    busy(core)
    data = snapshot_of(core, now=2.5)

    assert "abab" in refused(small(), data)
    assert "without a hook" in refused(small(hook=hook), DATA)
    other, _ = rebuild(read_snapshot(data), hook)
    assert take(other) == take(core)


def test_differences_are_told_value_by_value() -> None:
    one, two = full(), full()
    two.receive(AckRead(two.last_id, 0, 1), 3.0)
    two.receive(Done(two.last_id), 3.0)

    found = differences(*(read_snapshot(snapshot_of(core, now=2.5)) for core in (one, two)))

    assert found
    assert all(a != b for _, a, b in found)
    again = read_snapshot(snapshot_of(one, now=2.5))
    assert differences(again, again) == []
    absent = {path: b for path, a, b in differences(again, read_snapshot(DATA)) if a == ABSENT}
    assert absent["vcpus"] == {"vcpus": [{"vsesr": 0x11}, {"vsesr": None}]}
    assert sorted(absent) == ["id-registers", "lines", "vcpus"]


# -- the CPUs that the guest was told of ---------------------------------------------------

POOL = Pool.of([Cpu(0x413FD0C1), Cpu(0x410FD034, 1, 2), Cpu(0x411FD0B1)], Cpu(0x410FD034, 1, 2))
ASKS = ((DISCOVER_IMPL_VER, (0,)), *((DISCOVER_IMPL_CPUS, (index,)) for index in range(4)))


def test_the_pool_travels_and_the_answers_stay_the_same() -> None:
    core = full()
    core.pool = POOL
    snapshot = read_snapshot(snapshot_of(core, now=2.5))
    other = small()
    restore(other, snapshot)
    made, _ = rebuild(snapshot)

    for there in (other, made):
        assert there.pool == POOL
        assert [there.pool.answer(*ask) for ask in ASKS] == [POOL.answer(*ask) for ask in ASKS]
    assert not parts_of(snapshot_of(core, now=2.5))["pool"].mandatory, "older readers pass it over"


def test_a_core_keeps_its_pool_where_the_snapshot_has_none_and_takes_no_other_one() -> None:
    core = small()
    core.pool = POOL
    restore(core, read_snapshot(snapshot_of(full(), now=2.5)))
    assert core.pool == POOL
    there = full()
    there.pool = Pool.of([Cpu(0x413FD0C1)])
    assert "told of other CPUs" in refused(core, snapshot_of(there, now=2.5))
    assert core.pool == POOL


@pytest.mark.parametrize("value", [[], {"cpus": [], "chosen": 0}, {"cpus": [[0, 0, 0]], "chosen": 0}, {"chosen": 9}])
def test_a_pool_that_is_none_is_refused(value: Any) -> None:
    assert "part 'pool'" in refused(small(), with_part(snapshot_of(full(), now=2.5), "pool", value))
