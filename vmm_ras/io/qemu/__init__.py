"""An unmodified QEMU whose guest we are the firmware of: shared RAM, debugger stub, monitor and qtest."""
