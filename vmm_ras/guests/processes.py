"""Processes of the model guest that own a page, and the SIGBUS that each gets."""

from __future__ import annotations

from dataclasses import dataclass

from vmm_ras.profiles import GuestProfile

KILLED, NONE = "killed", "none"
_WALKS = frozenset({*range(0x13, 0x18), *range(0x1B, 0x20)})
"""Fault status codes of an abort on a translation table walk: the process is killed."""


@dataclass
class Process:
    """One process and its page."""

    page: int
    """Guest physical address."""
    reads: bool
    """It reads the page again and again."""
    early: bool
    """It asked to be told as soon as its page is lost (PR_MCE_KILL_EARLY)."""
    handles: bool = True
    """It has a handler for SIGBUS, which ends it."""
    signal: str = NONE
    """The code that it got: ``BUS_MCEERR_AR``, ``BUS_MCEERR_AO``, ``BUS_OBJERR``, ``SI_KERNEL``; ``killed``."""

    def _gets(self, code: str) -> None:
        if self.signal == NONE:
            self.signal = code if self.handles else KILLED

    def aborted(self, outcome: str, lost: bool, esr: int, profile: GuestProfile) -> None:
        """It took an abort, and the guest did ``outcome`` about it; ``lost``: its own page is out of use now."""
        if outcome == "oops" or (outcome == "objerr" and esr & 0x3F in _WALKS):
            self.signal = KILLED
        elif outcome == "objerr":
            self._gets("BUS_OBJERR")
        elif lost:
            self._gets("BUS_MCEERR_AR")
        elif outcome == "ignored" and profile.sea_unrecovered:
            self._gets("SI_KERNEL")

    def loses(self) -> None:
        """Its page was taken out of use."""
        if self.early:
            self._gets("BUS_MCEERR_AO")
        elif self.reads:
            self._gets("BUS_MCEERR_AR")
