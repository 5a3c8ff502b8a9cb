"""Damaged and hostile snapshots by the million: ``python -m tests.fuzz.snapshots --executions 1000000`` (`make fuzz`).

Every one is refused with one line, and nothing has changed then, or it is a snapshot, and core and guest go on with it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from acpi.presets import PRESETS
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
from vmm_ras.snapshot.container import Part, decode, encode
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


def mutant(r: random.Random) -> tuple[str, bytes]:
    """(how, bytes)."""
    kind = r.random()
    if kind < 0.7:
        data = flipped(r, SAMPLE)
        return ("bytes" if data != SAMPLE else "nothing changed"), data
    parts = dict(PARTS)
    if kind < 0.75:
        chosen = r.sample(list(parts.values()), r.randrange(len(parts) + 1))
        return "parts", encode(chosen)
    if kind < 0.78:
        one, two = r.sample(list(parts), 2)
        parts[one], parts[two] = Part(one, PARTS[two].body), Part(two, PARTS[one].body)
        return "swapped parts", encode(parts.values())
    name = r.choice(list(BODIES))
    if kind < 0.85:
        parts[name] = parts[name]._replace(body=flipped(r, BODIES[name]))
        return "JSON text", encode(parts.values())
    parts[name] = parts[name]._replace(body=damaged(r, name))
    return "JSON values", encode(parts.values())


class Target:
    """Where snapshots are restored: one core until it has taken one."""

    def __init__(self) -> None:
        self.core = core()
        self.before = orjson.dumps(take(self.core))

    def check(self, data: bytes) -> str:
        """Refused, or taken and gone on with.  Raises AssertionError, or whatever the product must not raise."""
        try:
            snapshot = read_snapshot(data, state.PARTS)
        except SnapshotError as error:
            return one_line(error)
        taken = []
        try:
            restore(self.core, snapshot)
            taken.append(self.core)
        except SnapshotError as error:
            one_line(error)
            assert orjson.dumps(take(self.core)) == self.before, "a refused snapshot changes nothing"
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


def fuzz(seed: int, executions: int, said: Callable[[int], None] = lambda n: None) -> Counter[str]:
    """So many mutants; how many of each kind were refused and taken."""
    done: Counter[str] = Counter()
    target = Target()
    for n in range(executions):
        r = random.Random(f"{seed}/{n}")
        kind, data = mutant(r)
        try:
            result = target.check(data)
            assert (kind, result) != ("bytes", "taken"), "the checksums have missed it"
            done[f"{kind}: {result}"] += 1
        except Exception as error:
            error.add_note(f"seed {seed}, execution {n}: {kind}")
            raise
        said(n)
    return done


def main() -> int:
    """Fuzz; the first mutant that does harm is an error with its seed and number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()

    def said(n: int) -> None:
        if n % 5000 == 0:
            print(f"\r{n:,} of {options.executions:,}", end="", file=sys.stderr, flush=True)

    done = fuzz(options.seed, options.executions, said)
    print(f"\r{options.executions:,} snapshots in {time.monotonic() - start:.0f} s: none did harm")
    for name, count in sorted(done.items()):
        print(f"  {name:26} {count:>9,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
