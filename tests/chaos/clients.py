"""Clients that change and read the cluster all the time, and remember what they were told when.

What they write are services and configs. The value that the history knows is a label, which no other write has; with
each write of a service its number of replicas changes, too.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from pyswarm.client import Client
from pyswarm.errors import Conflict, NotFound, PyswarmError, Unavailable
from pyswarm.lab import Machine
from pyswarm.objects import Config, Object, Service
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    Mount,
    NetworkAttachmentSpec,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from tests.chaos.linear import NEVER, Operation
from tests.chaos.model import Action, Change, Create, Read, Remove
from tests.e2e.cluster import SLEEPER

VALUE = "chaos.value"
IMAGE, NETWORK = "busybox", "chaos"
PATIENCE = 8.0
"""Seconds that a call may take; then its client goes to another manager."""
GENERATION = 25.0
"""Seconds for which names are used; operations without an answer make old histories costly to judge."""
SERVICES, CONFIGS = 2, 3
"""Names of a generation."""
KEPT = "keep-"
"""Names of configs that nobody changes or removes."""
MOST_REPLICAS = 3


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One named object."""

    kind: str
    """`service` or `config`."""
    name: str


@dataclass(slots=True)
class Record:
    """What all clients of a run were told."""

    history: dict[Key, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    surprises: list[str] = field(default_factory=list[str])
    """Answers that no fault explains."""
    replicas: dict[str, int] = field(default_factory=dict[str, int])
    """Value of a service -> how many replicas were written with it."""

    @property
    def operations(self) -> int:
        return sum(map(len, self.history.values()))

    @property
    def acknowledged(self) -> int:
        writes = (o for all in self.history.values() for o in all if not isinstance(o.action, Read))
        return sum(o.answer == "done" and not o.pending for o in writes)


def service_spec(name: str, value: str, replicas: int) -> ServiceSpec:
    """Every second one has a volume of its own for each task."""
    mounts = (Mount(type="volume", target="/data"),) if replicas % 2 else ()
    task = TaskSpec(
        container=ContainerSpec(
            image=IMAGE, args=tuple(SLEEPER), mounts=mounts, stop_grace_period=0.3, init=True
        ),
        networks=(NetworkAttachmentSpec(target=NETWORK),),
        restart=RestartPolicy(delay=0.2),
    )
    return ServiceSpec(name=name, labels={VALUE: value}, task=task, mode=ServiceMode(replicas=replicas))


def value_of(obj: Object) -> str:
    assert isinstance(obj, Service | Config)
    return obj.spec.labels[VALUE]


class Caller:
    """A client that calls one manager, and goes to the next when that does not answer."""

    def __init__(self, name: str, machines: Sequence[Machine], record: Record, first: int = 0) -> None:
        self.name = name
        self._machines = machines
        self._record = record
        self._at = first
        self._client: Client | None = None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> Client:
        """A connection to a manager; waits while there is no socket anywhere. Nothing is sent yet."""
        while self._client is None:
            machine = self._machines[self._at % len(self._machines)]
            try:
                self._client = Client.local(machine.run / "pyswarm.sock", PATIENCE)
            except PyswarmError:
                self._at += 1
                await asyncio.sleep(0.05)
        return self._client

    async def call(self, key: Key, action: Action, work: Callable[[Client], Awaitable[object]]) -> object:
        """Make a call and write it down; what it returned, or None."""
        client = await self._connected()
        loop = asyncio.get_running_loop()
        called = loop.time()
        result: object = None
        try:
            async with asyncio.timeout(PATIENCE):
                result = await work(client)
            if isinstance(result, Service) and result.pending_delete:
                raise NotFound("it is being removed")
            answer: str | None = value_of(result) if isinstance(action, Read) else "done"  # type: ignore[arg-type]
        except NotFound:
            result = None
            answer = None if isinstance(action, Read) else "gone"
        except Conflict as error:
            answer = "gone" if "being removed" in str(error) else "refused"
        except asyncio.CancelledError:
            self._unanswered(key, action, called)
            raise
        except (Unavailable, TimeoutError):
            await self._no_answer(key, action, called)
            return None
        except PyswarmError as error:
            self._record.surprises.append(
                f"{self.name}: {action} of {key.name}: {type(error).__name__}: {error}"
            )
            await self._no_answer(key, action, called)
            return None
        self._record.history[key].append(Operation(self.name, action, answer, called, loop.time()))
        return result

    async def _no_answer(self, key: Key, action: Action, called: float) -> None:
        self._unanswered(key, action, called)
        self._at += 1
        await self.close()
        await asyncio.sleep(0.05)

    def _unanswered(self, key: Key, action: Action, called: float) -> None:
        if not isinstance(action, Read):
            self._record.history[key].append(Operation(self.name, action, None, called, NEVER))

    async def read(self, key: Key) -> Object | None:
        kind = Service if key.kind == "service" else Config
        return await self.call(key, Read(), lambda client: client.get(kind, key.name))  # type: ignore[return-value]


class Names:
    """The names in use: a few at a time, new ones every GENERATION seconds."""

    def __init__(self, begin: float) -> None:
        self._begin = begin

    def generation(self, now: float) -> int:
        return int((now - self._begin) / GENERATION)

    def keys(self, generation: int) -> tuple[Key, ...]:
        return tuple(
            Key(kind, f"{kind}-{generation}-{number}")
            for kind, count in (("service", SERVICES), ("config", CONFIGS))
            for number in range(count)
        )


_values = itertools.count(1)


class Writer(Caller):
    """Creates, changes, scales and removes, on one call at a time."""

    def __init__(
        self,
        name: str,
        machines: Sequence[Machine],
        record: Record,
        names: Names,
        chance: random.Random,
        first: int,
    ) -> None:
        super().__init__(name, machines, record, first)
        self._names = names
        self._chance = chance
        self._swept = 0

    async def run(self) -> None:
        """Until cancelled. A call that is on its way then counts as one without an answer."""
        while True:
            generation = self._names.generation(asyncio.get_running_loop().time())
            await self._sweep(generation - 1)
            key = self._chance.choice(self._names.keys(generation))
            roll = self._chance.random()
            if roll < 0.15:
                await self._keep()
            elif roll < 0.35:
                await self._create(key)
            elif roll < 0.90:
                await self._change(key)
            else:
                await self._remove(key)
            await asyncio.sleep(self._chance.uniform(0.0, 0.25))

    def _value(self) -> tuple[str, int]:
        """A value that nobody has written, and replicas to write with it."""
        value = f"{self.name}.{next(_values)}"
        replicas = self._chance.randint(0, MOST_REPLICAS)
        self._record.replicas[value] = replicas
        return value, replicas

    async def _keep(self) -> None:
        """A config that nobody changes or removes: a loss shows."""
        value, _ = self._value()
        key = Key("config", f"{KEPT}{value.replace('.', '-')}")
        spec = ConfigSpec(name=key.name, data=b"x", labels={VALUE: value})
        await self.call(key, Create(value), lambda client: client.create(spec))

    async def _create(self, key: Key) -> None:
        value, replicas = self._value()
        spec = (
            service_spec(key.name, value, replicas)
            if key.kind == "service"
            else ConfigSpec(name=key.name, data=b"x", labels={VALUE: value})
        )
        await self.call(key, Create(value), lambda client: client.create(spec, resolve_image="never"))

    async def _change(self, key: Key) -> None:
        found = await self.read(key)
        if found is None:
            return
        value, replicas = self._value()
        spec = (
            service_spec(key.name, value, replicas)
            if isinstance(found, Service)
            else replace(found.spec, labels={VALUE: value})  # type: ignore[union-attr]
        )
        await self.call(
            key,
            Change(value_of(found), value),
            lambda client: client.update(found, spec, resolve_image="never"),  # type: ignore[arg-type]
        )

    async def _remove(self, key: Key) -> None:
        await self.call(key, Remove(), lambda client: client.remove(key.kind, key.name))  # type: ignore[arg-type]

    async def _sweep(self, generation: int) -> None:
        """Remove the services of old generations, so that the machines do not fill up."""
        while self._swept < generation:
            for key in self._names.keys(self._swept):
                if key.kind == "service":
                    await self._remove(key)
            self._swept += 1


class Reader(Caller):
    """Reads, one manager after the other."""

    def __init__(
        self, name: str, machines: Sequence[Machine], record: Record, names: Names, chance: random.Random
    ) -> None:
        super().__init__(name, machines, record)
        self._names = names
        self._chance = chance

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            generation = self._names.generation(asyncio.get_running_loop().time())
            await self.read(self._chance.choice(self._names.keys(generation)))
            self._at += 1
            await self.close()
            await asyncio.sleep(self._chance.uniform(0.0, 0.1))


async def judge(machines: Sequence[Machine], record: Record) -> None:
    """Write down what is there at the end, of every key that was ever written; each manager tells of some."""
    callers = [Caller(f"judge-{m.name}", [m], record) for m in machines]
    called = asyncio.get_running_loop().time()
    async with Client.local(machines[0].run / "pyswarm.sock") as client:
        kept = {config.spec.name: value_of(config) for config in await client.configs()}
    answered = asyncio.get_running_loop().time()
    for number, key in enumerate(sorted(record.history)):
        if key.name.startswith(KEPT):
            read = Operation("judge", Read(), kept.get(key.name), called, answered)
            record.history[key].append(read)
        else:
            await callers[number % len(callers)].read(key)
    for caller in callers:
        await caller.close()
