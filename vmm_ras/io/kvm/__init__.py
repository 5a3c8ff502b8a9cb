"""KVM on arm64 by its ioctls, on plain ``fcntl`` and ``mmap``: machine, vCPU, interrupt controller; and the adapter.

``ioctl`` makes the calls; ``system``, ``vm``, ``vcpu`` and ``gic`` are the four kinds of file; ``inject`` lets a vCPU
take an exception; ``guest`` carries out the core's effects, ``thread`` is one of its vCPUs, ``service`` hears of memory
that is lost.
"""
