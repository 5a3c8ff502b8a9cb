"""The QEMU Machine Protocol without sockets: bytes in, commands out; replies and events in, bytes out.

``json_reader`` cuts the stream into JSON values, ``session`` is the state of one client, ``commands`` what it may ask
of the VMs (``machine``), ``events`` what it is told unasked.
"""

from __future__ import annotations
