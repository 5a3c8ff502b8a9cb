"""SDEI once more, as small as it can be, from the facts (fixtures/sdei/spec_states.md), not from the product.

It knows no speed, no registers and no snapshots: sets, a list, and the conditions of a dispatch word for word.
"""

import re
from pathlib import Path

OK, NOT_SUPPORTED, INVALID, DENIED, PENDING, NO_SLOT = 0, -1, -2, -3, -5, -10
AFFINITY = 0xFF_00FF_FFFF
CALLS = [
    "VERSION", "REGISTER", "ENABLE", "DISABLE", "CONTEXT", "COMPLETE", "COMPLETE_AND_RESUME", "UNREGISTER", "STATUS",
    "GET_INFO", "ROUTING_SET", "PE_MASK", "PE_UNMASK", "BIND", "RELEASE", "SIGNAL", "FEATURES", "PRIVATE_RESET",
    "SHARED_RESET",
]  # fmt: skip
LINES = (Path(__file__).parents[2] / "fixtures" / "sdei" / "spec_states.md").read_text().splitlines()
COLUMNS = [name.strip() for name in LINES[0].strip("|").split("|")][1:]
TABLE = {
    (int(re.search(r"\((\d)\)", line)[1]), column): cell.strip()
    for line in LINES[2:]
    for column, cell in zip(COLUMNS, line.strip("|").split("|")[1:], strict=True)
}


class Model:
    """The dispatcher of a VM.  An instance of an event is (number, PE), or (number, None) for a shared one."""

    def __init__(self, events, mpidrs, kept):
        self.shared = {number: shared for number, shared, _, _ in events} | {0: False}
        self.critical = {number for number, _, critical, _ in events if critical}
        self.slots = sorted(number for number, _, _, slot in events if slot)
        self.pes = [mpidr & AFFINITY for mpidr in mpidrs]
        self.kept = kept
        self.state, self.entry, self.bound = {}, {}, {}
        self.pending = []
        self.masked, self.absent = set(range(len(mpidrs))), set()
        self.stack = {pe: [] for pe in range(len(mpidrs))}

    def instance(self, number, pe):
        return (number, None if self.shared[number] else pe)

    def act(self, instance, column):
        """Take a cell of the table; its return code."""
        cell = TABLE[self.state.get(instance, 0), column]
        if after := re.search(r"->(\d)", cell):
            self.state[instance] = int(after[1])
        if "PENDING" in cell:
            return PENDING
        return DENIED if cell.startswith(("deny", "no")) else OK

    # -- the platform

    def can_run(self, instance, pe):
        """Section 4: whether this pending instance can be dispatched on this PE."""
        number, own = instance
        running = [event for event, _ in self.stack[pe]]
        if own is None:
            _, _, mode, affinity = self.entry.get(instance, (0, 0, 0, 0))
            target = mode == 0 or self.pes[pe] == affinity
        else:
            target = pe == own
        return (
            instance in self.pending
            and self.state.get(instance, 0) == 3
            and target
            and pe not in self.masked
            and pe not in self.absent
            and not (self.critical & set(running) if number in self.critical else running)
        )

    def able(self, pe):
        return [instance for instance in self.pending if self.can_run(instance, pe)]

    def signal(self, instance):
        if instance not in self.pending:
            self.pending.append(instance)

    def dispatch(self, pe, state):
        """The event that starts, or None: critical before normal, the PE's own before shared, the oldest first."""
        able = sorted(self.able(pe), key=lambda i: (i[0] not in self.critical, i[1] is None))
        if not able:
            return None
        self.pending.remove(able[0])
        assert self.act(able[0], "dispatch") == OK
        self.stack[pe].append((able[0][0], state))
        return able[0]

    def switch_on(self, pe):
        for number, _ in self.stack[pe]:
            self.act(self.instance(number, pe), "COMPLETE")
        self.stack[pe] = []
        self.masked.add(pe)
        lost = [i for i in self.pending if i[1] == pe]
        self.pending = [i for i in self.pending if i[1] != pe]
        self.state = {i: state for i, state in self.state.items() if i[1] != pe}
        return sorted(number for number, _ in lost if number)

    # -- the client: (X0 or what is restored, events discarded)

    def call(self, pe, function, args, active):
        number = (function & 0xFFFF_FFFF) - 0xC400_0020
        if not 0 <= number < len(CALLS):
            return NOT_SUPPORTED, []
        self.lost = []
        answer = getattr(self, "do_" + CALLS[number].lower())(pe, active, *args[:5])
        return answer, sorted(self.lost)

    def drop(self, instance):
        if instance in self.pending:
            self.pending.remove(instance)
            if instance[0]:
                self.lost.append(instance[0])

    def routing_is_valid(self, mode, affinity):
        return mode == 0 or (mode == 1 and affinity & AFFINITY in self.pes)

    def do_version(self, pe, active, *_):
        return 0x0001_0001_0000_0000

    def do_register(self, pe, active, event, entry, argument, flags, affinity):
        if event not in self.shared or entry == 0 or entry % 4 or not self.routing_is_valid(flags, affinity):
            return INVALID
        if event in self.slots and (event not in self.bound or self.bound[event] in active):
            return DENIED
        instance = self.instance(event, pe)
        code = self.act(instance, "REGISTER")
        if code == OK:
            mode = flags if self.shared[event] else 0
            self.entry[instance] = (entry, argument, mode, affinity & AFFINITY)
            self.drop(instance)
        return code

    def do_enable(self, pe, active, event, *_):
        return self.act(self.instance(event, pe), "ENABLE") if event in self.shared else INVALID

    def do_disable(self, pe, active, event, *_):
        return self.act(self.instance(event, pe), "DISABLE") if event in self.shared else INVALID

    def do_unregister(self, pe, active, event, *_):
        return self.unregister(self.instance(event, pe)) if event in self.shared else INVALID

    def unregister(self, instance):
        was = self.state.get(instance, 0)
        code = self.act(instance, "UNREGISTER")
        if was & 1:
            self.drop(instance)
        return code

    def do_context(self, pe, active, index, *_):
        if index > 17:
            return INVALID
        if not self.stack[pe]:
            return DENIED
        value = self.stack[pe][-1][1].x[index]
        return value if value < 1 << 63 else value - (1 << 64)

    def do_complete(self, pe, active, status, *_):
        return self.finish(pe, "COMPLETE")

    def do_complete_and_resume(self, pe, active, address, *_):
        return DENIED if address == 0 or address % 4 else self.finish(pe, "COMPLETE_AND_RESUME")

    def finish(self, pe, column):
        if not self.stack[pe]:
            return DENIED
        event, state = self.stack[pe].pop()
        assert self.act(self.instance(event, pe), column) == OK
        return event, state

    def do_status(self, pe, active, event, *_):
        return self.state.get(self.instance(event, pe), 0) if event in self.shared else INVALID

    def do_get_info(self, pe, active, event, info, *_):
        if event not in self.shared or info > 4:
            return INVALID
        if info < 3:
            return [int(self.shared[event]), int(event != 0), int(event in self.critical)][info]
        if not self.shared[event]:
            return INVALID
        if not self.state.get((event, None), 0) & 1:
            return DENIED
        _, _, mode, affinity = self.entry[event, None]
        return mode if info == 3 else affinity if mode == 1 else INVALID

    def do_routing_set(self, pe, active, event, mode, affinity, *_):
        if not self.shared.get(event, False) or not self.routing_is_valid(mode, affinity):
            return INVALID
        if event in self.slots and event not in self.bound:
            return INVALID
        code = self.act((event, None), "ROUTING_SET")
        if code == OK:
            self.entry[event, None] = (*self.entry[event, None][:2], mode, affinity & AFFINITY)
        return code

    def do_pe_mask(self, pe, active, *_):
        was = pe in self.masked
        self.masked.add(pe)
        return int(not was)

    def do_pe_unmask(self, pe, active, *_):
        self.masked.discard(pe)
        return OK

    def do_bind(self, pe, active, intid, *_):
        private = 16 <= intid <= 31 or 1056 <= intid <= 1119
        if not private and not (32 <= intid <= 1019 or 4096 <= intid <= 5119):
            return INVALID
        if intid in self.bound.values():
            return next(event for event in self.bound if self.bound[event] == intid)
        if intid in self.kept:
            return DENIED
        free = [event for event in self.slots if event not in self.bound and self.shared[event] != private]
        if not free:
            return NO_SLOT
        self.bound[free[0]] = intid
        return free[0]

    def do_release(self, pe, active, event, *_):
        if event not in self.bound:
            return INVALID
        codes = [self.act((event, at), "RELEASE") for at in (None, *range(len(self.pes)))]
        if DENIED in codes or self.bound[event] in active:
            return DENIED
        del self.bound[event]
        return OK

    def do_signal(self, pe, active, event, affinity, *_):
        if event != 0 or affinity & AFFINITY not in self.pes:
            return INVALID
        self.signal((0, self.pes.index(affinity & AFFINITY)))
        return OK

    def do_features(self, pe, active, feature, *_):
        if feature == 0:
            shared = sum(self.shared[slot] for slot in self.slots)
            return shared << 16 | len(self.slots) - shared
        return 0 if feature == 1 else INVALID

    def do_private_reset(self, pe, active, *_):
        codes = [self.unregister((event, pe)) for event in self.shared if not self.shared[event]]
        return DENIED if PENDING in codes else OK

    def do_shared_reset(self, pe, active, *_):
        codes = [self.unregister((event, None)) for event in self.shared if self.shared[event]]
        if PENDING in codes:
            return DENIED
        codes = [self.do_release(pe, active, event) for event in list(self.bound)]
        return DENIED if DENIED in codes else OK
