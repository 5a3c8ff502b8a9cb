"""The model guest as an adapter: it carries out effects and answers with events, as KVM's adapter does for a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acpi.image import Image
from vmm_ras.effects import (
    ArmAck,
    Effect,
    Escalate,
    InjectSea,
    InjectSerror,
    PollAck,
    RaiseLine,
    Release,
    Reply,
    SetRegisters,
    Stop,
    WriteGuest,
)
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Done, Event, Failed, GuestCall, Stopped
from vmm_ras.guests.memory import GuestMemory
from vmm_ras.guests.os import SDEI_ENTRY, Call, GuestOs
from vmm_ras.guests.vcpu import Vcpu
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import GuestProfile

MAX_CALLS = 10_000
"""Rounds of effects and answers after one event: more is a loop between core and guest."""


class ModelGuest:
    """Memory, vCPUs and operating system of one model guest, booted with an image of tables."""

    def __init__(
        self, image: Image, profile: GuestProfile, *, vcpus: int = 1, page_shift: int = 12, sdei: bool = True
    ) -> None:
        self.memory = GuestMemory()
        for _, gpa, data in image.regions:
            self.memory.add_region(gpa & -(1 << 16), (len(data) + (gpa & 0xFFFF) + 0xFFFF) & -(1 << 16))
        image.write(self.memory.write)
        self.vcpus = [Vcpu() for _ in range(vcpus)]
        self.os = GuestOs(self.memory, self.vcpus, profile, page_shift=page_shift, sdei=sdei)
        self.os.boot(image.rsdp)
        self._programs: dict[int, Call] = {}
        self._answers: dict[int, int] = {}
        self._stops: set[int] = set()
        self.escalated: list[Escalate] = []
        self._stay = -1
        self._handlers: dict[type, Callable[[Any, float, list[Event]], None]] = {
            WriteGuest: self._write,
            ArmAck: self._arm,
            PollAck: self._poll,
            Stop: self._stop,
            InjectSea: self._sea,
            InjectSerror: self._serror,
            SetRegisters: self._set,
            RaiseLine: self._line,
            Reply: self._reply,
            Escalate: self._escalate,
            Release: self._go,
        }

    def start_sdei(self, notifier: Notifier, now: float, registered: bool = True) -> None:
        """Let the guest's SDEI client register, or unregister, its events."""
        for index, vcpu in enumerate(self.vcpus):
            if registered:
                program = self.os.register_sdei(index == 0)
            elif index == 0:
                program = self.os.unregister_sdei()
            else:
                break
            pc, pstate = vcpu.pc, vcpu.pstate
            vcpu.run_at(1, pc)
            call = self._resume(index, program, None)
            while call is not None:
                self.drive(notifier, notifier.receive(call, now), now, stay=index)
                answer = self._answers.pop(index, 0)
                if vcpu.pc == SDEI_ENTRY:  # an event that waited was dispatched on the way back
                    events: list[Event] = []
                    self._release(index, now, events)
                    for event in events:
                        self.drive(notifier, notifier.receive(event, now), now)
                call = self._resume(index, program, answer)
            vcpu.pstate, vcpu.pc = pstate, pc
            vcpu.poll_serror()

    def drive(self, notifier: Notifier, effects: list[Effect], now: float, stay: int = -1) -> list[Effect]:
        """Carry out effects, hand the answers to the core, and so on until nothing is left; all effects, in order.

        The vCPU ``stay`` is not run when it is released.  Raises GuestError if core and guest never come to rest.
        """
        seen: list[Effect] = []
        rounds = 0
        receive = notifier.receive
        while effects:
            seen += effects
            following: list[Effect] = []
            for answer in self.perform(effects, now, stay):
                following += receive(answer, now)
            effects = following
            rounds += 1
            if rounds > MAX_CALLS:
                raise GuestError("core and guest do not come to rest")
        return seen

    def perform(self, effects: list[Effect], now: float, stay: int = -1) -> list[Event]:
        """Carry out a list of effects in order; the answers.  The vCPU ``stay`` is not run when it is released."""
        out: list[Event] = []
        failed: set[int | None] = set()
        self._stay = stay
        handlers = self._handlers
        for e in effects:
            handler = handlers.get(e.__class__)
            if handler is None:
                continue  # a notice
            if failed and getattr(e, "source_id", None) in failed:
                continue
            try:
                handler(e, now, out)
            except GuestError as error:
                failed.add(getattr(e, "source_id", None))
                out.append(Failed(e.id, str(error)))
        if effects:
            out.append(Done(effects[-1].id))
        return out

    def _write(self, e: WriteGuest, now: float, out: list[Event]) -> None:
        self.memory.write(e[2], e[3])
        if len(e[3]) == 4 and e[3] != b"\0\0\0\0":
            self.os.block_written(e[1], now)

    def _arm(self, e: ArmAck, now: float, out: list[Event]) -> None:
        value = int.from_bytes(self.memory.read(e[2], 8), "little")
        self.memory.write(e[2], (value & ~e[3]).to_bytes(8, "little"))

    def _poll(self, e: PollAck, now: float, out: list[Event]) -> None:
        out.append(AckRead(e[0], e[1], int.from_bytes(self.memory.read(e[2], e[3]), "little")))

    def _stop(self, e: Stop, now: float, out: list[Event]) -> None:
        if e[1] in self._programs:  # its call comes first; it is stopped when that is answered
            self._stops.add(e[1])
        else:
            out.append(Stopped(e[1], self.vcpus[e[1]].state()))

    def _sea(self, e: InjectSea, now: float, out: list[Event]) -> None:
        self.vcpus[e[2]].take_sea(e[3], e[4])

    def _serror(self, e: InjectSerror, now: float, out: list[Event]) -> None:
        self.vcpus[e.vcpu].pend_serror(e.vsesr)

    def _set(self, e: SetRegisters, now: float, out: list[Event]) -> None:
        self.vcpus[e.vcpu].set_registers(e)

    def _line(self, e: RaiseLine, now: float, out: list[Event]) -> None:
        self.os.interrupt(e.source_id, now)

    def _reply(self, e: Reply, now: float, out: list[Event]) -> None:
        self._answers[e.vcpu] = e.x0
        self.vcpus[e.vcpu].x[0] = e.x0 & (1 << 64) - 1

    def _escalate(self, e: Escalate, now: float, out: list[Event]) -> None:
        self.escalated.append(e)

    def _go(self, e: Release, now: float, out: list[Event]) -> None:
        if e[1] != self._stay:
            self._release(e[1], now, out)

    def _release(self, index: int, now: float, out: list[Event]) -> None:
        program = self._programs.pop(index, None)
        if program is not None and index in self._answers:
            call = self._resume(index, program, self._answers.pop(index))
        else:
            program = self.os.run(index, now)
            call = None if program is None else self._resume(index, program, None)
        if call is not None and program is not None:
            self._programs[index] = program
            out.append(call)
        elif index in self._stops:
            self._stops.discard(index)
            out.append(Stopped(index, self.vcpus[index].state()))

    def _resume(self, index: int, program: Call, answer: int | None) -> GuestCall | None:
        try:
            function, args = next(program) if answer is None else program.send(answer)
        except StopIteration:
            return None
        return GuestCall(index, function, args, self.vcpus[index].state())
