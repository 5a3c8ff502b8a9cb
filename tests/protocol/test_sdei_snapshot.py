"""The state of an SDEI dispatcher leaves as plain data and comes back, and nothing that comes back is trusted."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.sdei_guest import (
    AFFINITY,
    CRITICAL,
    EL0,
    EVENTS,
    HANDLER,
    KEPT,
    MPIDRS,
    PAN,
    PPI,
    PRIVATE,
    PRIVATE_CRITICAL,
    SHARED,
    SLOT,
    SPI,
    Guest,
    N,
    at,
)  # fmt: skip
from vmm_ras import sdei_table as t
from vmm_ras.arm64 import Features
from vmm_ras.errors import SnapshotError
from vmm_ras.sdei import SdeiDispatcher


def nested():
    """A bit of everything: two handlers on one PE, one routed, one unregistered while it runs; bound; absent."""
    guest = Guest()
    guest.ready(PRIVATE)
    guest.ready(CRITICAL, flags=1, mpidr=AFFINITY[0])
    guest.ready(SHARED)
    guest.ready(0, vcpu=3)
    guest.x0("INTERRUPT_BIND", SPI)
    guest.ready(SLOT)
    guest.unmask(0, 3)
    guest.run(PRIVATE, state=at(0x1000, N | EL0))
    guest.run(CRITICAL, state=at((1 << 64) - 4, HANDLER, ((1 << 64) - 1,) * 18))
    guest.x0("EVENT_UNREGISTER", PRIVATE)
    guest.sdei.set_absent(3)
    guest.sdei.signal(CRITICAL)
    guest.sdei.signal(SHARED)
    guest.x0("EVENT_SIGNAL", 0, AFFINITY[3])
    return guest.sdei


def restore(snapshot):
    return SdeiDispatcher.restore(snapshot, EVENTS, MPIDRS, kept=[KEPT])


def test_snapshot_survives_json():
    sdei = nested()
    snapshot = json.loads(json.dumps(sdei.snapshot()))
    again = restore(snapshot)
    assert again.snapshot() == sdei.snapshot() == snapshot
    assert again.running(0) == (PRIVATE, CRITICAL)
    assert [again.masked(vcpu) for vcpu in range(4)] == [False, True, True, False]
    for _ in range(2):
        assert again.call(0, t.EVENT_COMPLETE, (0,), at()) == sdei.call(0, t.EVENT_COMPLETE, (0,), at())
    assert again.wanted() == sdei.wanted() == (0,)
    assert again.set_absent(3, False) == sdei.set_absent(3, False) == (0, 3)


def test_a_restored_dispatcher_sends_events_where_the_first_would():
    guest = Guest()
    for vcpu in range(4):
        guest.ready(PRIVATE_CRITICAL, vcpu=vcpu)
    for vcpu in (2, 3):
        guest.ready(PRIVATE, vcpu=vcpu)
    guest.ready(CRITICAL)
    guest.ready(SHARED)
    guest.x0("EVENT_DISABLE", SHARED)
    assert guest.x0("EVENT_ROUTING_SET", SHARED, t.RM_ANY, AFFINITY[3]) == 0
    guest.x0("EVENT_ENABLE", SHARED)
    guest.unmask(0, 1, 2, 3)
    guest.run(SHARED, 0)
    guest.run(CRITICAL, 2)
    guest.run(PRIVATE_CRITICAL, 3)
    again = restore(guest.sdei.snapshot())
    for sdei in (guest.sdei, again):
        assert [sdei.signal(PRIVATE_CRITICAL, vcpu) for vcpu in range(4)] == [0, 1, None, None]
        assert [sdei.signal(PRIVATE, vcpu) for vcpu in range(4)] == [None] * 4
        assert sdei.withdraw(PRIVATE)
        assert sdei.signal(PRIVATE) is None
    assert again.snapshot() == guest.sdei.snapshot()
    assert {"vcpu": 2, "events": [PRIVATE_CRITICAL, PRIVATE]} in again.snapshot()["pending"]


def test_what_is_no_state_is_given_again():
    """The features of the PEs, the version and the interrupts that are not the client's."""
    guest = Guest(version=t.VERSION_1_0)
    guest.ready(SHARED)
    guest.unmask(0)
    features = Features(pan=False)
    again = SdeiDispatcher.restore(guest.sdei.snapshot(), EVENTS, MPIDRS, features, version=t.VERSION_1_0, kept=[KEPT])
    assert again.call(0, t.VERSION, (), at()).x0 == t.VERSION_1_0
    assert again.call(0, t.INTERRUPT_BIND, (KEPT,), at()).x0 == t.DENIED
    assert again.signal(SHARED) == 0
    assert again.dispatch(0, at()).pstate == HANDLER & ~PAN


def test_what_was_handed_over_is_shared_with_nobody():
    sdei = nested()
    before = json.dumps(sdei.snapshot())
    again = restore(snapshot := sdei.snapshot())
    for part in snapshot.values():
        if isinstance(part, list):
            part.clear()
    assert json.dumps(sdei.snapshot()) == json.dumps(again.snapshot()) == before
    again.call(0, t.EVENT_COMPLETE, (0,), at())
    again.signal(CRITICAL)
    assert json.dumps(sdei.snapshot()) == before


def test_a_snapshot_of_another_machine_is_refused():
    snapshot = nested().snapshot()
    for events, mpidrs, version, said in (
        (EVENTS[1:], MPIDRS, t.VERSION_1_1, "events: not the events"),
        (EVENTS, MPIDRS[:3], t.VERSION_1_1, "mpidrs: not the PEs"),
        (EVENTS, MPIDRS, t.VERSION_1_0, "version: expected 0x1000000000000"),
    ):
        with pytest.raises(SnapshotError, match=said):
            SdeiDispatcher.restore(snapshot, events, mpidrs, version=version)


# handlers of nested(): 0 private 900 on 0 (state 4), 1 event 0 on 3, 2 shared 804, 3 shared 805 (7, RM_PE), 4 slot 1000
REFUSED = [
    (("format",), 2, "format: expected 1"),
    (("format",), ..., "format: missing"),
    (("extra",), 2, "top: expected no other fields"),
    (("version",), 0, "version: expected 0x1000100000000"),
    (("events", 1, 0), 5, "events: not the events"),
    (("mpidrs", 0), 5, "mpidrs: not the PEs"),
    (("unmasked",), 9, "unmasked: expected a list"),
    (("unmasked", 1), 4, "unmasked[1]: expected a vCPU below 4"),
    (("unmasked", 1), True, "unmasked[1]: expected a vCPU below 4"),
    (("unmasked", 1), 0, "unmasked[1]: expected vCPUs in order, each once"),
    (("absent", 0), -1, "absent[0]: expected a vCPU below 4"),
    (("handlers",), {}, "handlers: expected a list"),
    (("handlers", 0), [], "handlers[0]: expected an object"),
    (("handlers", 0, "state"), ..., "handlers[0].state: missing"),
    (("handlers", 0, "event"), 7, "handlers[0].event: no event 7"),
    (("handlers", 0, "event"), "x", "handlers[0].event: expected an unsigned"),
    (("handlers", 0, "vcpu"), 4, "handlers[0].vcpu: expected a vCPU below 4"),
    (("handlers", 0, "vcpu"), None, "handlers[0].vcpu: expected a vCPU below 4"),
    (("handlers", 0, "vcpu"), True, "handlers[0].vcpu: expected a vCPU below 4"),
    (("handlers", 2, "vcpu"), 0, "handlers[2].vcpu: a shared event has no vCPU"),
    (("handlers", 0, "state"), 2, "handlers[0].state: no state 2"),
    (("handlers", 0, "state"), 6, "handlers[0].state: no state 6"),
    (("handlers", 0, "state"), 0, "handlers[0].state: no state 0"),
    (("handlers", 0, "state"), True, "handlers[0].state: expected an unsigned"),
    (("handlers", 0, "entry"), 8, "handlers[0]: a handler that is not registered"),
    (("handlers", 2, "entry"), 0, "handlers[2].entry: no address"),
    (("handlers", 2, "entry"), 1 << 64, "handlers[2].entry: expected an unsigned"),
    (("handlers", 2, "routing"), 2, "handlers[2].routing: expected 0 or 1"),
    (("handlers", 2, "affinity"), 1, "handlers[2].affinity: no PE"),
    (("handlers", 3, "affinity"), 2, "handlers[3].affinity: no PE"),
    (("handlers", 3, "affinity"), AFFINITY[1], "contexts[1].vcpu: event 805 is routed to another PE"),
    (("handlers", 1, "routing"), 1, "handlers[1].routing: a private event is not routed"),
    (("handlers", 2, "state"), 7, "contexts: a handler runs, but on no vCPU"),
    (("handlers", 3, "state"), 3, "contexts[1].event: the handler of event 805 does not run"),
    (("handlers", 2, "event"), CRITICAL, "handlers[3]: given twice"),
    (("bound",), [], "handlers[4]: nothing is bound to the event"),
    (("bound", 0), [SLOT], "bound[0]: expected [event, INTID]"),
    (("bound", 0), [SHARED, SPI], f"bound[0]: interrupt {SPI} cannot be bound to it"),
    (("bound", 0), [SLOT, PPI], f"bound[0]: interrupt {PPI} cannot be bound to it"),
    (("bound", 0), [SLOT, 1020], "bound[0]: interrupt 1020 cannot be bound to it"),
    (("bound",), [[SLOT, SPI], [SLOT, SPI + 1]], "bound[1]: bound twice"),
    (("bound",), [[SLOT, SPI], [SLOT + 1, SPI]], "bound[1]: bound twice"),
    (("pending", 0), [3, 0], "pending[0]: expected an object"),
    (("pending", 0, "events"), [], "pending[0]: expected each vCPU once, with its events"),
    (("pending", 0, "vcpu"), 3, "pending[0].events[0]: null is for shared events, only"),
    (("pending", 1, "vcpu"), None, "pending[1]: expected each vCPU once"),
    (("pending", 0, "events", 0), 7, "pending[0].events[0]: no event 7"),
    (("pending", 0, "events", 1), CRITICAL, "pending[0].events[1]: given twice"),
    (("contexts", 1), None, "contexts[1]: expected an object"),
    (("contexts", 1, "vcpu"), 4, "contexts[1].vcpu: expected a vCPU below 4"),
    (("contexts", 0, "x", 17), -1, "contexts[0].x[17]: expected an unsigned"),
    (("contexts", 0, "x"), [0], "contexts[0].x: expected 18 registers"),
    (("contexts", 0, "pc"), 1.0, "contexts[0].pc: expected an unsigned"),
    (("contexts", 0, "pstate"), 0x3C9, "contexts[0].pstate: neither EL0 nor EL1"),
    (("contexts", 0, "event"), 7, "contexts[0].event: no event 7"),
    (("contexts", 0, "event"), CRITICAL, "contexts[1].event: event 805 runs twice"),
    (("contexts", 0, "event"), PRIVATE_CRITICAL, "contexts[0].event: the handler of event 901 does not run"),
    (("contexts", 0, "pstate"), -1, "contexts[0].pstate: expected an unsigned"),
    (("contexts", 0, "x"), {}, "contexts[0].x: expected a list"),
    (("contexts", 0, "more"), 1, "contexts[0]: expected no other fields"),
    (("contexts",), None, "contexts: expected a list"),
    (("pending", 1, "vcpu"), 9, "pending[1].vcpu: expected a vCPU below 4"),
    (("pending", 1, "events"), 7, "pending[1].events: expected a list"),
    (("pending",), {}, "pending: expected a list"),
    (("bound", 0), ["x", SPI], "bound[0]: expected an unsigned"),
    (("bound", 0), [SLOT, -1], "bound[0]: expected an unsigned"),
    (("bound",), {}, "bound: expected a list"),
    (("format",), "1", "format: expected an unsigned"),
]


@pytest.mark.parametrize(("path", "new", "said"), REFUSED)
def test_a_bad_snapshot_is_refused_by_field(path, new, said):
    snapshot = json.loads(json.dumps(nested().snapshot()))
    *way, last = path
    at = snapshot
    for step in way:
        at = at[step]
    if new is ...:
        del at[last]
    else:
        at[last] = new
    with pytest.raises(SnapshotError) as caught:
        restore(snapshot)
    assert str(caught.value).startswith(f"sdei snapshot: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [(SHARED, PRIVATE), (CRITICAL, PRIVATE_CRITICAL), (CRITICAL, PRIVATE), (PRIVATE_CRITICAL, SHARED)],
)
def test_only_a_critical_handler_is_inside_a_normal_one(first, second):
    guest = Guest()
    guest.ready(first, vcpu=0)
    guest.ready(second, vcpu=1)
    guest.unmask(0, 1)
    guest.run(first, 0)
    guest.run(second, 1)
    snapshot = guest.sdei.snapshot()
    restore(copy.deepcopy(snapshot))
    snapshot["contexts"][1]["vcpu"] = 0
    for handler in snapshot["handlers"]:
        if handler["event"] == second and handler["vcpu"] == 1:
            handler["vcpu"] = 0
    with pytest.raises(SnapshotError, match=r"contexts\[1\]\.event: a critical event interrupts a normal one"):
        restore(snapshot)


def test_there_is_no_third_level():
    snapshot = nested().snapshot()
    snapshot["handlers"].append({**snapshot["handlers"][0], "event": PRIVATE_CRITICAL, "state": 4})
    snapshot["contexts"].append({**snapshot["contexts"][1], "event": PRIVATE_CRITICAL})
    with pytest.raises(SnapshotError, match=r"contexts\[2\]: more than 2 handlers on vCPU 0"):
        restore(snapshot)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_junk_anywhere_is_refused_or_is_a_state(data):
    snapshot = nested().snapshot()
    at, last = {"top": snapshot}, "top"
    while isinstance(at[last], (list, dict)) and at[last] and data.draw(st.booleans()):
        at = at[last]
        last = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    box = {"top": snapshot} if last == "top" else at
    box[last] = data.draw(JUNK)
    junk = box["top"] if last == "top" else snapshot
    try:
        sdei = restore(junk)
    except SnapshotError as error:
        assert "\n" not in str(error)
    else:
        assert sdei.snapshot() == junk or {**sdei.snapshot(), "handlers": 0} == {**junk, "handlers": 0}
        for vcpu in range(4):
            assert len(sdei.running(vcpu)) <= 2
