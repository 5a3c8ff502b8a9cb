"""Guests: what takes the effects.  ``model`` is one in Python: memory, vCPUs and an operating system's RAS side."""
