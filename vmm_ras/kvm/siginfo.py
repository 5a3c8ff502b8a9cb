"""struct signalfd_siginfo (``linux/signalfd.h``): the SIGBUS by which the host, KVM too, tells of lost memory."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from cper.wire import U16, U32, U64, Reserved, Struct, blob

SIGBUS: Final = 7
PR_MCE_KILL: Final = 33
PR_MCE_KILL_GET: Final = 34
PR_MCE_KILL_SET: Final = 1
PR_MCE_KILL_EARLY: Final = 1
MADV_HWPOISON: Final = 100
SFD_NONBLOCK: Final = 0o4000
SFD_CLOEXEC: Final = 0o2000000


class SignalfdSiginfo(Struct, size=128):
    """One signal as a signalfd gives it; of a SIGBUS only code, address and granule are set."""

    signo: U32 = 0
    errno: U32 = 0
    code: U32 = 0
    """si_code: signed, but those of SIGBUS are positive."""
    pid: U32 = 0
    uid: U32 = 0
    between: Annotated[bytes, blob(52)] = bytes(52)
    addr: U64 = 0
    """Host virtual address."""
    addr_lsb: U16 = 0
    """log2 of the bytes lost."""
    rest: ClassVar = Reserved(46)
