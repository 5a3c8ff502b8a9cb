"""Guests: what takes the effects.  ``model`` is a whole guest in Python: memory, vCPUs and an operating system's RAS side."""
