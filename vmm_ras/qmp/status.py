"""What the core of one VM knows at this moment, as JSON-able values: for query-ras, and for people."""

from __future__ import annotations

from typing import Any

from vmm_ras.memory import HELD, TOUCH
from vmm_ras.notifier import Notifier
from vmm_ras.sdei_state import SHARED
from vmm_ras.source import ErrorSource

_NAMES = {HELD: "(held)", TOUCH: "(on touch)"}


def status(core: Notifier) -> dict[str, Any]:
    """Page counts by state, sources, sources whose acknowledgement the guest owes, and what waits for what."""
    counts, rules = core.poison.counts, core.rules
    waiting = {
        _NAMES.get(queue) or rules[queue].name: pages for queue, pages in enumerate(core.poison.waiting) if pages
    }
    inbox, sdei = core.inbox, core.sdei.state
    return {
        "guest": core.guest.name,
        "vcpus": core.vcpus,
        "pages": {"unreported": counts[1], "posted": counts[2], "acked": counts[3]},
        "waiting": waiting,
        "sources": [_source(source) for source in core.sources.values()],
        "open": sorted(core.open_ways()),
        "owed": sorted(core.busy),
        "pending": {
            "held": sorted(vcpu for vcpu, abort in core.aborts.items() if abort.state is not None),
            "stopping": sorted(core.stopping),
            "records": len(inbox.records),
            "injections": sum(len(orders) for orders in inbox.orders.values()),
            "sdei": [
                {"vcpu": None if place == SHARED else place, "events": list(events)}
                for place, events in sorted(sdei.pending.items())
            ],
        },
        "records": {"told": inbox.told, "dropped": inbox.dropped},
        "blocks": core.records,
    }


def _source(source: ErrorSource) -> dict[str, Any]:
    s = source.state
    state = "broken" if s.broken else "free" if source.free else "posted"
    return {
        "id": source.placed.source_id, "delivery": source.way, "vector": source.placed.vector, "state": state,
        "pages": len(s.pages), "record": s.record is not None, "tries": s.tries, "reason": s.broken,
    }  # fmt: skip
