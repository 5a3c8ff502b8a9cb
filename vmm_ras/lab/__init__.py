"""The lab: our tables, records and notifications in an unmodified Linux under QEMU's emulation (no KVM is needed).

QEMU and a Debian kernel come from Debian packages (``packages``); guest RAM, console, monitor, debugger and qtest are
file descriptors, so that no socket or file outlives a run (``qemu``).  ``guest`` carries out the core's effects: it
writes into the RAM that QEMU shares, and makes a vCPU take a synchronous external abort through the debugger stub.
``smoke`` is the scenario, ``report`` what it leaves behind.
"""
