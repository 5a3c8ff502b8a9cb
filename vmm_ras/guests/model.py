"""The model guest as an adapter: it carries out effects and answers with events, as an adapter of a real guest does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from acpi.image import Image
from vmm_ras.arm64 import NEOVERSE_N1
from vmm_ras.effects import (
    ArmAck,
    Effect,
    Escalate,
    Hold,
    InjectSea,
    InjectSerror,
    Notice,
    PollAck,
    RaiseLine,
    Release,
    Reply,
    Report,
    SetRegisters,
    Stop,
    WriteGuest,
)
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Done, Event, Failed, GuestCall, Stopped, new
from vmm_ras.guests.memory import GuestMemory
from vmm_ras.guests.os import SDEI_ENTRY, GuestOs, Program
from vmm_ras.guests.vcpu import Vcpu
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import GuestProfile

_NOTICES = frozenset(get_args(Notice)) | {Hold, Report}
Watch = Callable[[list[Effect]], None]
MAX_ROUNDS = 4_000_000
"""Lists of effects after one event: more is a loop between core and guest, for a 16 GiB page takes 650,000."""


class ModelGuest:
    """Memory, vCPUs and operating system of one model guest, booted with an image of tables.

    Without an image its memory is empty and nothing was booted: what it remembers is put into it.
    """

    def __init__(
        self, image: Image | None, profile: GuestProfile, *, vcpus: int = 1, page_shift: int = 12, sdei: bool = True
    ) -> None:
        self.memory, self.profile, self.page_shift = GuestMemory(), profile, page_shift
        for _, gpa, data in () if image is None else image.regions:
            self.memory.add_region(gpa & -(1 << 16), (len(data) + (gpa & 0xFFFF) + 0xFFFF) & -(1 << 16))
        features = NEOVERSE_N1._replace(ras=profile.ras)
        self.vcpus = [Vcpu(features) for _ in range(vcpus)]
        self.os = GuestOs(self.memory, self.vcpus, profile, page_shift=page_shift, sdei=sdei)
        if image is not None:
            image.write(self.memory.write)
            self.os.boot(image.rsdp)
        self.programs: dict[int, Program] = {}
        """vCPU to what it has still to call."""
        self.answered: set[int] = set()
        """vCPUs whose call was answered, and that were not released since."""
        self.stops: set[int] = set()
        """vCPUs that are to be stopped as soon as their call is answered."""
        self.escalated: list[Escalate] = []
        self._stay = -1
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            InjectSerror: self._serror,
            SetRegisters: self._set,
            RaiseLine: self._line,
            Reply: self._reply,
            Escalate: self._escalate,
        }
        self.listeners: dict[type, Callable[[Any], None]] = {}
        """Who hears of a kind of notice, of Escalate, and of an InjectSea without a record, as they are reached."""

    def start_sdei(self, notifier: Notifier, now: float, registered: bool = True, watch: Watch | None = None) -> None:
        """Let the guest's SDEI client register, or unregister, its events; ``watch`` as in :meth:`drive`."""
        for index, vcpu in enumerate(self.vcpus):
            if registered:
                program = self.os.register_sdei(index == 0)
            elif index == 0:
                program = self.os.unregister_sdei()
            else:
                break
            pc, pstate = vcpu.pc, vcpu.pstate
            vcpu.run_at(1, pc)
            call = self._resume(index, program)
            while call is not None:
                self.drive(notifier, notifier.receive(call, now), now, watch, index)
                self.answered.discard(index)
                if vcpu.pc == SDEI_ENTRY:  # an event that waited was dispatched on the way back
                    events: list[Event] = []
                    self._release(index, now, events)
                    for event in events:
                        self.drive(notifier, notifier.receive(event, now), now, watch)
                call = self._resume(index, program)
            vcpu.pstate, vcpu.pc = pstate, pc
            vcpu.poll_serror()

    def drive(
        self, notifier: Notifier, effects: list[Effect], now: float, watch: Watch | None = None, stay: int = -1
    ) -> None:
        """Carry out effects, hand the answers to the core, carry out what follows, until nothing is left.

        ``watch`` is given each list of effects once it was carried out; a large page takes thousands of them.  The vCPU
        ``stay`` is not run when it is released.  Raises GuestError if core and guest never come to rest.
        """
        handlers, perform = notifier.handlers, self.perform
        self._stay = stay
        last = 0
        for _ in range(MAX_ROUNDS):
            if not effects:
                break
            last = effects[-1].id
            answers = perform(effects, now)
            if watch is not None:
                watch(effects)
            if len(answers) == 1:
                effects = handlers[answers[0].__class__](answers[0], now)
                continue
            effects = []
            for answer in answers:
                effects += handlers[answer.__class__](answer, now)
        else:
            raise GuestError("core and guest do not come to rest")
        if last:
            handlers[Done](new(Done, (last,)), now)

    def perform(self, effects: list[Effect], now: float) -> list[Event]:
        """Carry out a list of effects in order; the answers, but for Done.

        The kinds that every error takes are told apart here, because a call for each costs more than the work.
        """
        out: list[Event] = []
        failed: set[int | None] | None = None
        memory, listeners = self.memory, self.listeners
        e: Any
        for e in effects:
            kind = e.__class__
            if kind in _NOTICES:
                if kind in listeners:
                    listeners[kind](e)
                continue
            if failed is not None and getattr(e, "source_id", None) in failed:
                continue
            try:
                if kind is WriteGuest:
                    _, source_id, gpa, data = e
                    memory.write(gpa, data)
                    if len(data) == 4 and data != b"\0\0\0\0":
                        self.os.block_written(source_id, now)
                elif kind is Release:
                    if e.vcpu != self._stay:
                        self._release(e.vcpu, now, out)
                elif kind is PollAck:
                    id, source_id, gpa, size = e
                    value = memory.word(gpa) if size == 8 else int.from_bytes(memory.read(gpa, size), "little")
                    out.append(new(AckRead, (id, source_id, value)))
                elif kind is ArmAck:
                    _, _, gpa, mask = e
                    memory.update_word(gpa, ~mask, 0)
                elif kind is Stop:
                    vcpu = e.vcpu
                    if vcpu in self.programs:  # its call comes first; it is stopped when that is answered
                        self.stops.add(vcpu)
                    else:
                        out.append(new(Stopped, (vcpu, self.vcpus[vcpu].state())))
                elif kind is InjectSea:
                    _, source_id, vcpu, esr, far = e
                    self.vcpus[vcpu].take_sea(esr, far)
                    if source_id is None and InjectSea in listeners:
                        listeners[InjectSea](e)
                else:
                    self._handlers[kind](e, now)
                    if kind in listeners:
                        listeners[kind](e)
            except GuestError as error:
                failed = {*(failed or ()), getattr(e, "source_id", None)} - {None}  # of no source: nothing hangs on it
                out.append(Failed(e.id, str(error)))
        return out

    def _serror(self, e: InjectSerror, now: float) -> None:
        self.vcpus[e.vcpu].pend_serror(e.vsesr)

    def _set(self, e: SetRegisters, now: float) -> None:
        self.vcpus[e.vcpu].set_registers(e)

    def _line(self, e: RaiseLine, now: float) -> None:
        self.os.interrupt(e.source_id, now)

    def _reply(self, e: Reply, now: float) -> None:
        self.answered.add(e.vcpu)
        self.vcpus[e.vcpu].x[0] = e.x0 & (1 << 64) - 1

    def _escalate(self, e: Escalate, now: float) -> None:
        self.escalated.append(e)

    def _release(self, index: int, now: float, out: list[Event]) -> None:
        programs = self.programs
        program = programs.pop(index, None) if programs else None
        if program is not None and index in self.answered:
            self.answered.discard(index)
        else:
            program = self.os.run(index, now)
        call = None if program is None else self._resume(index, program)
        if call is not None and program is not None:
            programs[index] = program
            out.append(call)
        elif index in self.stops:
            self.stops.discard(index)
            out.append(Stopped(index, self.vcpus[index].state()))

    def _resume(self, index: int, program: Program) -> GuestCall | None:
        found = next(program, None)
        return None if found is None else new(GuestCall, (index, *found, self.vcpus[index].state()))
