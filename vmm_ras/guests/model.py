"""The model guest as an adapter: it carries out effects and answers with events, as an adapter of a real guest does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from acpi.image import Image
from vmm_ras.arm64 import NEOVERSE_N1, PSTATE_A
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

_NOTICES: Final = frozenset(get_args(Notice)) | {Hold, Report}
_ArmAck: Final = ArmAck  # names that compiled code need not look up
_PollAck: Final = PollAck
_Release: Final = Release
_SetRegisters: Final = SetRegisters
_Stop: Final = Stop
_WriteGuest: Final = WriteGuest
_AckRead: Final = AckRead
_Done: Final = Done
_GuestCall: Final = GuestCall
_Stopped: Final = Stopped
Watch = Callable[[list[Effect]], None]
MAX_ESCALATED: Final = 100
MAX_ROUNDS: Final = 4_000_000
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
        self.escalated: deque[Escalate] = deque(maxlen=MAX_ESCALATED)
        """What the orchestrator was asked for last."""
        self._stay = -1
        self.listeners: dict[type, Callable[[Any, float], None]] = {}
        self._steps: dict[type, Callable[[Any, float], None] | None] = {
            InjectSea: self._sea,
            InjectSerror: self._serror,
            RaiseLine: self._line,
            Reply: self._reply,
            Escalate: self._escalate,
            **dict.fromkeys(_NOTICES),
        }
        """How each kind of effect that has no answer, and is none of the most frequent, is carried out."""

    def listen(self, listeners: Mapping[type, Callable[[Any, float], None]]) -> None:
        """Let these hear of a kind of notice, of Escalate, and of an InjectSea without a record, when it is reached.

        Each is called with the effect and the time.
        """
        self.listeners = dict(listeners)
        self._steps |= {kind: heard for kind, heard in listeners.items() if kind in _NOTICES}

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
            vcpu.run_at(1, pc, PSTATE_A)  # an SError that is masked stays so
            call = self._resume(index, program)
            while call is not None:
                self.drive(notifier, notifier.receive(call, now), now, watch, index)
                self.answered.discard(index)
                if vcpu.pc == SDEI_ENTRY:  # an event that waited was dispatched on the way back
                    event = self._enter(index, now)
                    if event is not None:
                        self.drive(notifier, notifier.receive(event, now), now, watch)
                call = self._resume(index, program)
            vcpu.pstate, vcpu.pc = pstate, pc
            if vcpu.poll_serror():
                self.os.run(index, now)

    def drive(
        self, notifier: Notifier, effects: list[Effect], now: float, watch: Watch | None = None, stay: int = -1
    ) -> None:
        """Carry out effects, hand the answers to the core, carry out what follows, until nothing is left.

        ``watch`` is given each list of effects once it was carried out; a large page takes thousands of them.  The vCPU
        ``stay`` is not run when it is released.  Raises GuestError if core and guest never come to rest.
        """
        handlers = notifier.handlers
        self._stay = stay
        if not effects:
            return
        for _round in range(MAX_ROUNDS):
            done = effects
            answers = self.perform(done, now)
            if watch is not None:
                watch(done)
            effects = []
            for answer in answers:
                more = handlers[type(answer)](answer, now)
                effects = effects + more if effects else more
            if not effects:
                break
        else:
            raise GuestError("core and guest do not come to rest")
        handlers[_Done](new(_Done, (done[-1][0],)), now)

    def perform(self, effects: list[Effect], now: float) -> list[Event]:
        """Carry out a list of effects in order; the answers, but for Done.

        After one that failed, later ones for its source are skipped, but for notices.
        """
        out: list[Event] = []
        left: list[Any] = effects
        while True:
            try:
                for e in left:
                    kind = type(e)
                    if kind is _WriteGuest:
                        self._write(e)
                    elif kind is _Release:
                        vcpu: int = e[1]
                        if vcpu != self._stay:
                            entered = self._enter(vcpu, now)
                            if entered is not None:
                                out.append(entered)
                    elif kind is _ArmAck:
                        self._arm(e)
                    elif kind is _PollAck:
                        out.append(self._poll(e))
                    elif kind is _Stop:
                        stopped = self._stop(e)
                        if stopped is not None:
                            out.append(stopped)
                    elif kind is _SetRegisters:
                        self._set(e)
                    else:
                        step = self._steps[kind]
                        if step is not None:
                            step(e, now)
                return out
            except GuestError as error:
                out.append(Failed(e.id, str(error)))
                left = left[left.index(e) + 1 :]
                source_id = getattr(e, "source_id", None)
                if source_id is not None:  # of no source: nothing hangs on it
                    left = [o for o in left if o.__class__ in _NOTICES or getattr(o, "source_id", None) != source_id]

    def _arm(self, e: ArmAck) -> None:
        self.memory.update_word(e[2], ~e[3], 0)

    def _write(self, e: WriteGuest) -> None:
        _, source_id, gpa, data = e
        self.memory.write(gpa, data)
        if source_id in self.os.polled and len(data) == 4 and data != b"\0\0\0\0":
            self.os.block_written(source_id)

    def _poll(self, e: PollAck) -> AckRead:
        id, source_id, gpa, size = e
        memory = self.memory
        value = memory.word(gpa) if size == 8 else int.from_bytes(memory.read(gpa, size), "little")
        return new(_AckRead, (id, source_id, value))

    def _stop(self, e: Stop) -> Stopped | None:
        vcpu = e[1]
        if self.programs and vcpu in self.programs:  # its call comes first; it is stopped when that is answered
            self.stops.add(vcpu)
            return None
        return new(_Stopped, (vcpu, self.vcpus[vcpu].state()))

    def _sea(self, e: InjectSea, now: float) -> None:
        _, source_id, vcpu, esr, far = e
        self.vcpus[vcpu].take_sea(esr, far)
        if source_id is None and InjectSea in self.listeners:
            self.listeners[InjectSea](e, now)

    def _serror(self, e: InjectSerror, now: float) -> None:
        self.vcpus[e.vcpu].pend_serror(e.vsesr)

    def _set(self, e: SetRegisters) -> None:
        self.vcpus[e[2]].set_registers(e)

    def _line(self, e: RaiseLine, now: float) -> None:
        self.os.interrupt(e.source_id, now)

    def _reply(self, e: Reply, now: float) -> None:
        _, vcpu, x0 = e
        self.answered.add(vcpu)
        self.vcpus[vcpu].x[0] = x0 & (1 << 64) - 1

    def _escalate(self, e: Escalate, now: float) -> None:
        self.escalated.append(e)
        if Escalate in self.listeners:
            self.listeners[Escalate](e, now)

    def _enter(self, index: int, now: float) -> GuestCall | Stopped | None:
        """The vCPU enters the guest; its next call, or that it was stopped, if that comes first."""
        program = self.programs.pop(index, None) if self.programs else None
        if program is not None and index in self.answered:
            self.answered.discard(index)
        else:
            program = self.os.run(index, now)
        if program is not None:
            call = self._resume(index, program)
            if call is not None:
                self.programs[index] = program
                return call
        if self.stops and index in self.stops:
            self.stops.discard(index)
            return new(_Stopped, (index, self.vcpus[index].state()))
        return None

    def _resume(self, index: int, program: Program) -> GuestCall | None:
        for function, args in program:
            return new(_GuestCall, (index, function, args, self.vcpus[index].state()))
        return None
