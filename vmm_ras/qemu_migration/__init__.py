"""QEMU's migration stream, as ``migrate`` writes it into a file: framing, RAM, device state, and the RAS state in it.

The stream describes itself: behind its end stands a JSON text that names every field of every device.  No I/O is done
here; a file is given as bytes, or as a mapping of it.
"""
