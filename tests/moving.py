"""A walked VM is moved: its snapshot becomes another one, of nothing but the bytes; from then on both must be alike."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import Any

from tests.machine import Machine
from tests.prove import GUESTS, PRESETS, actions
from tests.walker import POLICIES, World
from vmm_ras.guests import state as guest_state
from vmm_ras.snapshot import Snapshot, holes, pending, read_snapshot, rebuild
from vmm_ras.state import take

LIFE = 24


def saved(world: World) -> bytes:
    """The snapshot of a walked VM."""
    m = world.m
    for gpa, size in holes(m.core):  # what the host lost, the walker does not take from the model's memory
        m.guest.memory.poison(gpa, size)
    return guest_state.save(m.core, m.guest, m.now, sources=m.image.sources)


def arrived(data: bytes, world: World) -> World:
    """Another VM made of the bytes; what ``world`` knows of its host and its guest's deeds goes with it."""
    snapshot = read_snapshot(data, guest_state.PARTS)
    new = World.__new__(World)
    new.m = Machine.__new__(Machine)
    new.m.core, new.m.guest, arrival = guest_state.resume(snapshot)
    assert arrival.effects == ()
    new.m.image, new.m.now, new.m.last_id = world.m.image, snapshot.now, world.m.last_id
    new.lost, new.hostile, new.break_next = set(world.lost), world.hostile, list(world.break_next)
    new.gone, new.slow, new.unanswered = set(world.gone), set(world.slow), dict(world.unanswered)
    new.watch(world.policy)
    new._out, new._held = set(world._out), dict(world._held)
    return new


def remembered(world: World) -> Any:
    """All that core and guest remember, in an order of its own where order means nothing."""
    parts = {part.name: part.body for part in guest_state.take(world.m.guest)}
    return take(world.m.core), [vcpu.take() for vcpu in world.m.guest.vcpus], parts


def live(seed: int, vm: int, done: Counter[str]) -> None:
    """One VM that is moved at a random point; it and its copy then do the same.  Raises AssertionError with a note."""
    r = random.Random(f"{seed}/{vm}/moved")
    hostile = vm % 5 == 4
    preset, guest, policy = r.choice(PRESETS), r.choice(GUESTS), r.choice(list(POLICIES))
    one = World(preset, guest, policy)
    kinds = actions(r, hostile)
    chosen = [(name, draw()) for _, name, draw in r.choices(kinds, [weight for weight, _, _ in kinds], k=LIFE)]
    if r.random() < 0.6:  # a guest that is slow, or deaf, is owed more
        chosen[:4] = [
            ("acknowledge_late", (r.choice((3.0, float("inf"))), None)),
            *(("mask", (vcpu,)) for vcpu in range(2)),
            ("consumed", (r.randrange(71), 0, 12)),
        ]
    point = r.randint(4, LIFE)
    log = [f"World({preset!r}, {guest!r}, {policy!r}), moved before action {point}"]
    log += [f"{name}{arguments}" for name, arguments in chosen]
    try:
        for name, arguments in chosen[:point]:
            getattr(one, name)(*arguments)
        data = saved(one)
        two = arrived(data, one)
        assert saved(two) == data, "what arrived is what was sent"
        for name, arguments in [*chosen[point:], ("wait", (20.0,))]:
            seen = []
            for world in (one, two):
                world.effects = []
                getattr(world, name)(*arguments)
                seen.append(world.effects)
            assert seen[0] == seen[1], name
            done["effects that were compared"] += len(seen[0])
        assert remembered(one) == remembered(two)
        two.check()
    except Exception as error:
        error.add_note(f"seed {seed}, VM {vm}:\n  " + "\n  ".join(log))
        raise
    done["VMs moved at a random point"] += 1
    done["bytes of their snapshots"] += len(data)
    for key, n in Counter(_owed(read_snapshot(data, guest_state.PARTS))).items():
        done[f"moved, {key}"] += n


def move(seed: int, vms: int, progress: bool = False) -> Counter[str]:
    """So many VMs, each moved once; what they were owed then."""
    done: Counter[str] = Counter()
    for vm in range(vms):
        live(seed, vm, done)
        if progress and vm % 50 == 0:
            print(f"\r{vm:,} of {vms:,} VMs moved", end="", file=sys.stderr, flush=True)
    return done


def _owed(snapshot: Snapshot) -> list[str]:
    """What kinds of things the guest was owed."""
    core, arrival = rebuild(snapshot)
    owed = pending(core, arrival.vcpus)
    kinds = {entry["owed"] for vcpu in owed["vcpus"] for entry in vcpu["owed"]}
    kinds |= {f"unacknowledged {source['way']}" for source in owed["sources"]}
    if owed["pages"]["unreported"]:
        kinds.add("pages to tell")
    return sorted(kinds) or ["nothing owed"]
