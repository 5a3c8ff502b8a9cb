"""Scenarios: what happens to a machine, said in sentences, and what must have become of it.

>>> from vmm_ras.scenario import Machine, ModelRunner
>>> machine = Machine(ModelRunner(preset="default", guest="linux"))
>>> effects = machine.consumes(page=3, vcpu=1)
>>> machine.told(page=3).by("sdei")
page 3 (gpa 0x40003000) was told by sea (source 0, rule consumed), not by sdei
>>> machine.page(3).is_offlined()
page 3 (gpa 0x40003000) is offlined

A sentence is a line of a trace (``vmm_ras.traces.items``), and ``Machine.journal`` is what followed.  A machine is
played by a :class:`Runner`: the model here; whoever drives a real guest writes another.
"""

from vmm_ras.scenario.guest import Guest, Page
from vmm_ras.scenario.journal import Moment
from vmm_ras.scenario.machine import Machine
from vmm_ras.scenario.runner import ModelRunner, Runner
from vmm_ras.scenario.told import Block, Telling, Verdict, differences

__all__ = ["Block", "Guest", "Machine", "ModelRunner", "Moment", "Page", "Runner", "Telling", "Verdict", "differences"]
