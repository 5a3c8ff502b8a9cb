"""`make prove`: a seeded walk of random host events, guest actions and acknowledgements over many small VMs.

Each VM is one of the presets, guests and policies of ``tests/walker.py``, lives for ``LIFE`` actions, and must tell all
that it lost in the end.  What fails prints the seed and the actions of that VM; ``--seed N --vm K`` repeats it alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.walker import BREAKABLE, POLICIES, SDEI_CALLS, World
from vmm_ras.effects import Stop

LIFE = 150
PRESETS, GUESTS = ("all", "default", "qemu-11.1", "conformance"), ("linux", "generic")


def actions(r: random.Random, hostile: bool) -> list[tuple[int, str, Any]]:
    """(weight, method of World, what draws its arguments)."""

    def page() -> int:
        return r.randrange(71)

    def vcpu() -> int:
        return r.randrange(4)

    def u64() -> int:
        return r.getrandbits(r.choice((1, 8, 32, 64)))

    kinds: list[tuple[int, str, Any]] = [
        (30, "consumed", lambda: (page(), vcpu(), r.choice((0, 12, 12, 12, 14)))),
        (30, "found", lambda: (page(), r.choice((12, 12, 16)), r.choice((1, 1, 101)))),
        (5, "faulted", lambda: (page(),)),
        (8, "aborted", lambda: (vcpu(), r.choice((None, page())), u64(), r.choice((None, u64())))),
        (2, "elsewhere", lambda: (r.getrandbits(64), r.randrange(64))),
        (4, "replaced", lambda: (page(), r.randint(1, 20))),
        (4, "proceed", lambda: (r.choice(("consumed", "found", "nobody")),)),
        (
            8,
            "acknowledge_late",
            lambda: (r.choice((0.0, 0.0, 0.4, 3.0, float("inf"))), r.choice((None, r.randrange(6)))),
        ),
        (10, "run_at", lambda: (vcpu(), r.randrange(2))),
        (4, "mask", lambda: (vcpu(),)),
        (3, "sdei", lambda: (r.random() < 0.6,)),
        (6, "sdei_call", lambda: (vcpu(), r.choice(SDEI_CALLS))),
        (3, "polls", lambda: (r.random() < 0.4,)),
        (6, "told_record", lambda: (r.randrange(256), r.choice((None, None, r.randrange(6))), vcpu())),
        (4, "told_abort", lambda: (vcpu(), r.random() < 0.3)),
        (3, "told_event", lambda: (r.choice((None, vcpu())),)),
        (5, "fail_next", lambda: r.choices((*BREAKABLE, Stop), k=r.choice((1, 1, 1, 2, 3)))),
        (2, "cannot_stop", lambda: (vcpu(),)),
        (2, "stops_late", lambda: (vcpu(),)),
        (6, "stops_again", lambda: (vcpu(),)),
        (3, "nonsense", lambda: (r.getrandbits(40), r.randrange(10))),
        (25, "wait", lambda: (r.choice((0.01, 0.6, 2.5, 30.0)),)),
    ]
    if hostile:
        kinds += [
            (25, "wild_call", lambda: (vcpu(), 0xC4000020 + r.randrange(20), tuple(u64() for _ in range(6)), 1)),
            (10, "scribble", lambda: (r.getrandbits(20), r.randbytes(r.randint(1, 64)))),
        ]
    return kinds


def live(seed: int, vm: int, life: int, done: Counter[str]) -> None:
    """One VM from its boot to its end.  Raises AssertionError, with the actions as a note."""
    r = random.Random(f"{seed}/{vm}")
    hostile = vm % 5 == 4
    preset, guest, policy = r.choice(PRESETS), r.choice(GUESTS), r.choice(list(POLICIES))
    world = World(preset, guest, policy)
    kinds = actions(r, hostile)
    weights = [weight for weight, _, _ in kinds]
    log = [f"World({preset!r}, {guest!r}, {policy!r})"]
    try:
        for _, name, draw in r.choices(kinds, weights, k=life):
            arguments = draw()
            log.append(f"{name}{tuple(arguments)}")
            getattr(world, name)(*arguments)
            done[name] += 1
            world.check()
        log.append("finish()")
        world.finish()
    except Exception as error:
        error.add_note(f"seed {seed}, VM {vm}:\n  " + "\n  ".join(log))
        raise
    done[f"{preset}, {guest}, {policy}" + (", hostile" if hostile else "")] += 1


def walk(seed: int, steps: int, progress: bool = False) -> Counter[str]:
    """So many actions over as many VMs as it takes; how often each kind was taken."""
    done: Counter[str] = Counter()
    for vm in range(-(-steps // LIFE)):
        live(seed, vm, min(LIFE, steps - vm * LIFE), done)
        if progress and vm % 50 == 0:
            print(f"\r{vm * LIFE:,} of {steps:,} steps", end="", file=sys.stderr, flush=True)
    return done


def report(seed: int, steps: int, seconds: float, done: Counter[str], moves: int, moved: Counter[str]) -> str:
    """What was walked, and moved, as a page of the documentation."""
    lines = [
        "# What a random walk showed", "",
        f"`make prove` walked {steps:,} actions over {-(-steps // LIFE):,} virtual machines (seed {seed}, "
        f"{seconds:.0f} s) and found nothing that must not be:", "",
        "* every page that the host lost is in the poison map, told or waiting, after every action;",
        "* no posted block is overwritten, and none is written before its gate is armed;",
        "* no masked PE is entered, and no third SDEI level;",
        "* the core reads and writes guest memory at its own blocks and gates only, whatever the guest scribbles;",
        "* a vCPU is touched only while it is out of the guest, and stays out only while it is held; a hold ends in "
        "the time that its rule says; queues and counters are bounded;",
        "* whoever is to take an SEA, an SError or an SDEI event is asked for, whichever vCPUs come late or cannot be "
        "stopped;",
        "* once the guest behaves, every page is told and acknowledged (not asked of a hostile guest).", "",
        "| what | times |", "|---|---:|",
    ]  # fmt: skip
    lines += [f"| {name} | {count:,} |" for name, count in sorted(done.items(), key=lambda i: (", " in i[0], i[0]))]
    lines += [
        "", "## Moved at a random point", "",
        f"{moves:,} further VMs (seed {seed}) were saved at a random point of such a life, and made again of nothing "
        "but the bytes of the snapshot (docs/snapshot.md).  From then on both did the same, effect by effect, and in "
        "the end remembered the same.", "",
        "| what | times |", "|---|---:|",
    ]  # fmt: skip
    lines += [f"| {name} | {count:,} |" for name, count in sorted(moved.items(), key=lambda i: ("," in i[0], i[0]))]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Walk; exit 1, with the seed and the actions, at the first thing that does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vm", type=int, help="walk this VM only")
    parser.add_argument("--moves", type=int, default=10_000, help="VMs that are moved at a random point")
    parser.add_argument("--move", type=int, metavar="VM", help="move this VM only")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    from tests import moving

    start = time.monotonic()
    try:
        if options.vm is not None:
            live(options.seed, options.vm, LIFE, Counter())
            return 0
        if options.move is not None:
            moving.live(options.seed, options.move, Counter())
            return 0
        done = walk(options.seed, options.steps, progress=True)
        seconds = time.monotonic() - start
        print(f"\r{options.steps:,} steps in {seconds:.0f} s: nothing was lost", flush=True)
        moved = moving.move(options.seed, options.moves, progress=True)
    except Exception:
        traceback.print_exc()
        return 1
    took = time.monotonic() - start - seconds
    print(f"\r{options.moves:,} VMs moved in {took:.0f} s: each went on as if it had not been")
    if options.report:
        options.report.write_text(report(options.seed, options.steps, seconds, done, options.moves, moved))
    return 0


if __name__ == "__main__":
    sys.exit(main())
