"""Damaged and hostile snapshots by the million: ``python -m tests.fuzz.snapshots --executions 1000000`` (`make fuzz`).

A mutant is made of its seed and its number alone, so a run is continued by ``--first`` and a case is made again.
Every one is refused with one line, and nothing has changed then, or it is a snapshot, and core and guest go on with it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from acpi.presets import PRESETS
from tests.fuzz.report import MEMORY, SECONDS, SNAPSHOTS, WORK, write
from tests.machine import GPA, HVA
from vmm_ras.effects import Stop
from vmm_ras.errors import SnapshotError
from vmm_ras.events import Code, Done, HostSignal, Stopped, TellRecord, TellSerror, VcpuState
from vmm_ras.guests import state
from vmm_ras.guests.model import ModelGuest
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import default_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.snapshot import read_snapshot, restore
from vmm_ras.snapshot.container import ENTRY, MAGIC, MANDATORY, START, VERSION, Part, crc32c, decode
from vmm_ras.state import take

POLICY = default_policy()
IMAGE = PRESETS["qemu-11.1"].place(0x3FF0_0000)
NUMBERS = (0, 1, -1, 2, 3, 63, 64, 255, 1 << 12, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
VALUES: tuple[Any, ...] = (*NUMBERS, None, True, False, "", "sea", "0" * 64, [], {}, [0], [[0, 1]], 0.5, -1e300, 1e308)


def core() -> Notifier:
    """Two vCPUs and 16 MiB; nothing has happened."""
    return Notifier(
        IMAGE.sources, MemoryMap([MemorySlot(HVA, GPA, 1 << 24)]), vcpus=2, threads={100: 0, 101: 1},
        guest=PROFILES["linux"], policy=POLICY,
    )  # fmt: skip


def sample() -> bytes:
    """A snapshot of a guest that is owed something of each kind."""
    vm = core()
    guest = ModelGuest(IMAGE, PROFILES["linux"], vcpus=2)
    guest.memory.add_region(GPA, 1 << 24)
    guest.start_sdei(vm, 0.0)
    guest.os.ack_delay = {None: float("inf"), 0: 3.0}
    for event in (
        HostSignal(Code.AR, HVA, 12, 100), HostSignal(Code.AR, HVA + 0x3000, 12, 101),
        HostSignal(Code.AO, HVA + 0x20000, 16, 1), TellRecord(b"\1" + bytes(63)), TellSerror(0, 0x811),
    ):  # fmt: skip
        guest.drive(vm, vm.receive(event, 1.0), 1.0)
    effects = vm.receive(HostSignal(Code.AR, HVA + 0x9000, 12, 100), 1.5)
    return state.save(vm, guest, 1.5, sources=IMAGE.sources, effects=effects, lines={"ged": 2})


SAMPLE = sample()
PARTS = {part.name: part for part in decode(SAMPLE)}
BODIES = {name: part.body for name, part in PARTS.items() if name != "model-memory"}
LIGHT = PARTS | {"model-memory": Part("model-memory", b"")}
"""The same guest with its 64 KiB of memory zeroed: most mutants are of this one, which is a tenth as long."""
SUMS = {id(part.body): crc32c(part.body) for part in (*PARTS.values(), *LIGHT.values())}
DIRECTORY_SIZE = START.sizeof() + len(PARTS) * ENTRY.sizeof() + 4
WAYS = ("restore", "resume")
"""A snapshot is put into a core that is there, or a core and a model guest are made of it."""
PART = 10_000
"""Executions between two lines of the log."""


def packed(parts: Iterable[Part]) -> bytes:
    """What ``container.encode`` gives at a tenth of the cost."""
    given = list(parts)
    out = bytearray(MAGIC + VERSION.to_bytes(2, "little") + len(given).to_bytes(2, "little"))
    for name, body, mandatory in given:
        known = SUMS.get(id(body))
        out += name.encode().ljust(16, b"\0")
        for number in (MANDATORY * mandatory, len(body), crc32c(body) if known is None else known):
            out += number.to_bytes(4, "little")
    return bytes(out + crc32c(bytes(out)).to_bytes(4, "little") + b"".join(part.body for part in given))


SAMPLES = [(LIGHT, packed(LIGHT.values()))] * 9 + [(PARTS, SAMPLE)]


def flipped(r: random.Random, data: bytes) -> bytes:
    """A few bytes changed, cut out, put in or moved."""
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 1, 2, 4))):
        at = r.randrange(len(out) + 1)
        match r.randrange(5):
            case 0 | 1 if at < len(out):
                out[at] ^= 1 << r.randrange(8)
            case 2:
                del out[at : at + r.choice((1, 2, 8, 100, len(out)))]
            case 3:
                out[at:at] = r.randbytes(r.choice((1, 2, 8)))
            case _:
                other = r.randrange(len(out) + 1)
                out[at : at + 8] = out[other : other + 8]
    return bytes(out)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, inner in items for p in ((*path, key), *places(inner, (*path, key)))]


PLACES = {name: places(orjson.loads(body)) for name, body in BODIES.items()}


def damaged(r: random.Random, name: str) -> bytes:
    """A part with some values changed, removed or repeated, its JSON right."""
    value = orjson.loads(BODIES[name])
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        if not PLACES[name]:
            break
        path = r.choice(PLACES[name])
        inner = value
        try:
            for key in path[:-1]:
                inner = inner[key]
            match r.randrange(6):
                case 0:
                    del inner[path[-1]]
                case 1 if isinstance(inner, list):
                    inner.append(inner[path[-1]])
                case 2 if isinstance(inner[path[-1]], int):
                    inner[path[-1]] = max(-(1 << 63), min((1 << 64) - 1, inner[path[-1]] + r.choice((-1, 1, 7, 4096))))
                case _:
                    inner[path[-1]] = r.choice(VALUES)
        except (KeyError, IndexError, TypeError):
            pass
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def directory(r: random.Random, data: bytes) -> bytes:
    """A snapshot with something changed in its directory, whose checksum is right."""
    out = flipped(r, data[: DIRECTORY_SIZE - 4])
    return out + crc32c(out).to_bytes(4, "little") + data[DIRECTORY_SIZE:]


def mutant(r: random.Random) -> tuple[str, bytes]:
    """(how, bytes).  Of four in ten the checksums are right."""
    kind = r.random()
    whole, before = r.choice(SAMPLES)
    if kind < 0.7:
        how, data = ("bytes", flipped(r, before)) if kind < 0.6 else ("directory", directory(r, before))
        return (how if data != before else "nothing changed"), data
    parts = dict(whole)
    if kind < 0.73:
        return "parts", packed(r.sample(list(parts.values()), r.randrange(len(parts) + 1)))
    if kind < 0.75:
        one, two = r.sample(list(parts), 2)
        parts[one], parts[two] = Part(one, whole[two].body), Part(two, whole[one].body)
        return "swapped parts", packed(parts.values())
    name = r.choice(list(BODIES))
    how, body = ("JSON text", flipped(r, BODIES[name])) if kind < 0.88 else ("JSON values", damaged(r, name))
    parts[name] = parts[name]._replace(body=body)
    return how, packed(parts.values())


class Target:
    """Where snapshots are restored: one core until it has taken one."""

    def __init__(self) -> None:
        self.core = core()
        self.before = orjson.dumps(take(self.core))

    def check(self, data: bytes, ways: Container[str] = WAYS) -> str:
        """Refused, or taken and gone on with.  Raises AssertionError, or whatever the product must not raise."""
        try:
            snapshot = read_snapshot(data, state.PARTS)
        except SnapshotError as error:
            return one_line(error)
        taken = []
        if "restore" in ways:
            try:
                restore(self.core, snapshot)
                taken.append(self.core)
            except SnapshotError as error:
                one_line(error)
                assert orjson.dumps(take(self.core)) == self.before, "a refused snapshot changes nothing"
        if "resume" in ways:
            try:
                taken.append(state.resume(snapshot)[0])
            except SnapshotError as error:
                one_line(error)
        for found in taken:
            goes_on(found)
        if self.core in taken:
            self.core = core()
        return "taken" if taken else "refused"


def one_line(error: SnapshotError) -> str:
    """The text of an error must be one for people."""
    text = str(error)
    assert text.isprintable(), text
    assert 0 < len(text) < 400, text
    return "refused"


def goes_on(vm: Notifier) -> None:
    """Some events and deadlines; nothing raises."""
    now = (vm.next_deadline() or 0.0) + 1.0
    if abs(now) > 1e12:
        return
    for event in (HostSignal(Code.AO, HVA + 0x80000, 12, 1), HostSignal(Code.AR, HVA + 0x90000, 12, 100)):
        for effect in vm.receive(event, now):
            if isinstance(effect, Stop):
                vm.receive(Stopped(effect.vcpu, VcpuState(0x1000, 0)), now)
        vm.receive(Done(vm.last_id), now)
        vm.expire(now)


class Tally(NamedTuple):
    """So many mutants: how many of each kind were refused and taken, and the processor seconds of the slowest."""

    results: Counter[str]
    slowest: float


def fuzz(seed: int, executions: int, first: int = 0) -> Tally:
    """Mutants of these numbers.  The first that does harm is raised, with a note that says how to make it again."""
    done: Counter[str] = Counter()
    target, slowest = Target(), 0.0
    for n in range(first, first + executions):
        kind, data = mutant(random.Random(f"{seed}/{n}"))
        began = time.process_time()
        try:
            result = target.check(data, WAYS[n % 2 :][:1])
            took = time.process_time() - began
            assert (kind, result) != ("bytes", "taken"), "the checksums have missed it"
            assert took < SECONDS, f"{took:.1f} s"
        except Exception as error:
            error.add_note(f"seed {seed}, execution {n}: {kind}")
            raise
        done[f"{kind}: {result}"] += 1
        slowest = max(slowest, took)
    return Tally(done, slowest)


def main() -> int:
    """Fuzz; the first mutant that does harm, or more memory than is allowed, is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=SNAPSHOTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--report", action="store_true", help="write docs/fuzz.md, of all that out/fuzz tells")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    total: Counter[str] = Counter()
    end, start = options.first + options.executions, time.process_time()
    for first in range(options.first, end, PART):
        began, spent, clock = datetime.now(UTC), time.process_time(), time.monotonic()
        done = fuzz(options.seed, min(PART, end - first), first)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        line = {
            "began": began.isoformat(timespec="seconds"), "seed": options.seed, "first": first,
            "executions": done.results.total(), "seconds": round(time.monotonic() - clock, 1),
            "processor_seconds": round(time.process_time() - spent, 1), "memory": memory,
            "slowest": round(done.slowest, 3), "results": done.results,
        }  # fmt: skip
        with (WORK / "snapshots.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
        total += done.results
        print(f"\r{total.total():,} of {options.executions:,}", end="", file=sys.stderr, flush=True)
        assert memory < MEMORY, f"{memory} MiB"
    print(f"\r{total.total():,} snapshots in {time.process_time() - start:.0f} s of the processor: none did harm")
    for name, count in sorted(total.items()):
        print(f"  {name:26} {count:>9,}")
    if options.report:
        write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
