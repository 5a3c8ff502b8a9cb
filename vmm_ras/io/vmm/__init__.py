"""A small VMM for arm64 KVM: it boots an unmodified Linux without UEFI, and tells it memory errors as firmware does.

``machine`` is the virtual machine; ``bus``, ``pl011`` and ``console`` are what its guest finds beside RAM and the
interrupt controller, which KVM has.  Everything about errors is the core's, and ``vmm_ras.io.kvm`` carries it out.
"""
