"""vmm-ras: what a VMM owes its guest when the host loses memory under it.

Follow one error: ``events`` → ``memory`` → ``policy`` → ``record`` → ``source`` → ``delivery`` (``arm64``, ``sdei``),
all driven by ``notifier``; ``guests`` take what comes out, ``traces`` bring what goes in, ``replay`` joins the two.
"""
