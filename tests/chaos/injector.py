"""Does the faults of a plan to the machines of a lab, and undoes each when its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Sequence

from pyswarm import supervisor
from pyswarm.client import Client
from pyswarm.errors import PyswarmError
from pyswarm.lab import Lab, Machine
from tests.chaos import clocks, disks
from tests.chaos.plan import LEADER, Fault
from tests.e2e.lab_cluster import containers_of
from tests.e2e.machine import processes

Undo = Callable[[], None]
ASK = 1.0
"""Seconds that a manager has to say whether it leads."""


def nothing() -> None:
    """What is to be undone of a fault that is over at once."""


class Injector:
    """One run's. `note` is told what happens, for the timeline."""

    def __init__(self, lab: Lab, note: Callable[[str], None]) -> None:
        self._lab = lab
        self._note = note
        self._dark: set[str] = set()
        """Machines without power."""
        self._tables = 0
        self._has_netem: bool | None = None

    async def run(self, faults: Sequence[Fault]) -> None:
        """Returns when the last one has ended. Whatever interrupts this, all are undone."""
        begin = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, begin + fault.at - asyncio.get_running_loop().time()))
                group.create_task(self._inflict(fault))

    async def _inflict(self, fault: Fault) -> None:
        machine = await self._machine(fault.machine)
        if machine is None or machine.name in self._dark:
            self._note(f"left out, for there is no such machine now: {fault}")
            return
        self._note(f"{fault}" + (f" ({machine.name})" if fault.machine == LEADER else ""))
        undo = await asyncio.to_thread(self._begin, fault, machine)
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            await asyncio.shield(asyncio.to_thread(undo))
            if undo is not nothing:
                self._note(f"over: {fault.kind} {machine.name}")

    async def _machine(self, name: str) -> Machine | None:
        if name != LEADER:
            return self._lab.machine(name)
        managers = [m for m in self._lab.machines if m.role == "manager"]
        for machine in managers:
            with contextlib.suppress(PyswarmError, TimeoutError):
                async with asyncio.timeout(ASK), Client.local(machine.run / "pyswarm.sock", ASK) as client:
                    if (await client.info()).is_leader:
                        return machine
        return None

    def _begin(self, fault: Fault, machine: Machine) -> Undo:
        others = [self._lab.machine(name) for name in fault.others if name != machine.name]
        match fault.kind:
            case "kill":
                self._signal(machine, fault.part, signal.SIGKILL)
                return nothing
            case "pause":
                return self._pause(machine, fault.part)
            case "isolate":
                return self._rules(self._cuts([machine], [m for m in self._lab.machines if m != machine]))
            case "split":
                side = [machine, *others]
                return self._rules(self._cuts(side, [m for m in self._lab.machines if m not in side]))
            case "one way":
                return self._rules({machine: [f"ip daddr {o.address} drop" for o in others]})
            case "loss":
                return self._lose(machine, others, fault.amount)
            case "delay":
                return self._delay(machine, others, fault.amount)
            case "full disk":
                disks.fill(machine)
                return functools.partial(disks.free, machine)
            case "clock":
                clocks.step(machine, fault.amount)
                return functools.partial(clocks.step, machine, 0)
            case "power cut":
                return self._cut_power(machine)

    # ------------------------------------------------------------------------------ processes

    def _pids(self, machine: Machine, part: str) -> list[int]:
        match part:
            case "manager" | "agent" | "supervisor":
                found = supervisor.holder(machine.run / f"{part}.lock")
                return [found] if found else []
            case "etcd":
                return [p for p, a in processes(f"{machine.state}/etcd").items() if a[0].endswith("etcd")]
            case "conmon":
                return [p for p, a in processes(f"{machine.run}/agent").items() if a[0].endswith("conmon")]
            case _:
                return sorted(containers_of(machine).values())

    def _signal(self, machine: Machine, part: str, number: signal.Signals) -> list[int]:
        """Send it to one process of the kind; its pidfd, so that nobody else is ever meant."""
        for pid in sorted(self._pids(machine, part))[:1]:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                signal.pidfd_send_signal(descriptor, number)
                return [descriptor]
        return []

    def _pause(self, machine: Machine, part: str) -> Undo:
        stopped = self._signal(machine, part, signal.SIGSTOP)

        def resume() -> None:
            for descriptor in stopped:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGCONT)
                os.close(descriptor)

        return resume

    def _cut_power(self, machine: Machine) -> Undo:
        self._dark.add(machine.name)
        machine.kill()

        def boot() -> None:
            machine.start()
            self._dark.discard(machine.name)

        return boot

    # ------------------------------------------------------------------------------ the network

    def _cuts(self, one: Sequence[Machine], other: Sequence[Machine]) -> dict[Machine, list[str]]:
        """Rules on both sides: what each sends to the other side is lost."""
        pairs = [(here, other) for here in one] + [(here, one) for here in other]
        return {here: [f"ip daddr {there.address} drop" for there in far] for here, far in pairs}

    def _lose(self, machine: Machine, others: Sequence[Machine], percent: int) -> Undo:
        some = f"numgen random mod 100 < {percent} drop"
        both = [(machine, other) for other in others] + [(other, machine) for other in others]
        return self._rules({here: [f"ip daddr {there.address} {some}"] for here, there in both})

    def _delay(self, machine: Machine, others: Sequence[Machine], milliseconds: int) -> Undo:
        """On all that the machine sends. Where the kernel has no netem a fifth is lost instead, which delays, too."""
        discipline = ("dev", "eth0", "root", "netem", "delay", f"{milliseconds}ms")
        if machine.exec("tc", "qdisc", "add", *discipline).returncode == 0:
            return lambda: void(machine.exec("tc", "qdisc", "delete", *discipline))
        if self._has_netem is None:
            self._has_netem = False
            self._note("this kernel has no netem: packets are lost where they were to be delayed")
        return self._lose(machine, others, 20)

    def _rules(self, rules: dict[Machine, list[str]]) -> Undo:
        """Rules before all others on what the machines send, in a table of this fault's own."""
        self._tables += 1
        table = f"chaos{self._tables}"
        for machine, lines in rules.items():
            script = [
                f"add table inet {table}",
                f"add chain inet {table} out {{ type filter hook postrouting priority -400; }}",
                *(f"add rule inet {table} out {line}" for line in lines),
            ]
            machine.exec("nft", "; ".join(script))

        def remove() -> None:
            for machine in rules:
                machine.exec("nft", "delete", "table", "inet", table)

        return remove


def void(result: object) -> None:
    """Drop a result."""
