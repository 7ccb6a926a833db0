"""The Control service on the leading manager: requests in, objects, events, logs and streams out.

Reads answer from the leader's state, which holds every acknowledged write (the leader is the only writer and
applies a commit before it acknowledges it), so they are linearizable as long as its fence holds; writes go
through the controller and are acknowledged once committed to Raft.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from manager import desired, query, validate
from manager.controller import Controller, Transaction
from manager.desired import Builder, StillThere
from manager.dispatcher import Dispatcher
from manager.logbroker import Conversation, LogBroker, alongside
from manager.logs import stream_logs
from manager.state import Changed, View
from pyswarm.api import (
    AnswerInput,
    CreateRequest,
    Demand,
    DeployRequest,
    DeployResponse,
    Empty,
    EventMessage,
    EventsRequest,
    ExecInputMessage,
    ExecOutputMessage,
    Filter,
    GetRequest,
    InfoResponse,
    IssueClientRequest,
    IssueClientResponse,
    JoinTokensResponse,
    ListRequest,
    ListResponse,
    LogMessage,
    LogsRequest,
    NodeCommand,
    NodeReply,
    ObjectBox,
    RemoveRequest,
    RemoveStackRequest,
    RotateCARequest,
    RotateRequest,
    SpecBox,
    StatsRequest,
    StatsResponse,
    UnlockKeyRequest,
    UnlockKeyResponse,
    UpdateRequest,
)
from pyswarm.clock import Clock, encode_id
from pyswarm.errors import Conflict, Invalid, NotFound, PyswarmError, Unavailable, named
from pyswarm.objects import (
    Cluster,
    Config,
    Kind,
    Node,
    NodeState,
    Object,
    RootCA,
    RootRotation,
    Secret,
    Service,
    Task,
    TaskState,
    Volume,
    kind_of,
)
from pyswarm.rpc import Peer
from pyswarm.specs import ServiceSpec

log = logging.getLogger(__name__)

T = TypeVar("T")
EVENT_HISTORY = 2_000
"""Commits kept for `events --since` and for clients that reconnect."""
EVENT_QUEUE = 2_000
"""Commits held for a reader of events before it is cut off, so that it lists again."""
RESOLVE_TIMEOUT = 30.0
"""Seconds for pinning one image to its digest."""
BUILT_TIMEOUT = 5.0
"""Seconds that a manager's node has to say whether an image was built there."""
REMOVAL_WAIT = 60.0
"""Seconds that a request waits for a name whose owner is being removed."""
REMOVAL_LOOK = 0.1
RESOLVES = 16
"""Images that are looked up at the same time."""


Commit = tuple[int, float, tuple[Changed, ...]]
"""Revision, Unix time and changes."""
_CREATED: tuple[Kind, ...] = ("service", "network", "volume", "secret", "config")
_SHOWN: tuple[Kind, ...] = ("service", "task", "node", "network", "volume", "secret", "config", "cluster")
"""Kinds that events tell of."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the manager's process knows of itself."""

    node_id: str
    node_addr: str
    version: str
    raft_version: Callable[[], str]
    managers: Callable[[], Sequence[str]]
    """host:port of every manager's API."""
    join_addresses: Callable[[], Sequence[str]]
    state_dir: str
    run_dir: str
    tokens: Callable[[Cluster], tuple[str, str]]
    """The worker's and the manager's token of a cluster, as people pass them to `join`."""
    rotate: Callable[[Cluster, RotateRequest], Cluster]
    sign_client: Callable[[Cluster, str, str], str]
    """Cluster, name and request (PEM) -> a client's certificate (PEM)."""
    trust: Callable[[Cluster], str]
    """The roots (PEM) to trust now."""
    begin_rotation: Callable[[Cluster, RotateCARequest], Cluster]
    """The record with a new root CA beside the present one. May block for seconds."""
    locked: Callable[[Cluster, bool], Cluster]
    """The record with an unlock key if its spec asks for one, a new one if the flag says so."""
    unlock_key: Callable[[Cluster], str]
    """As people write it; "" without autolock."""


def box(obj: Object) -> ObjectBox:
    """One object for the wire, without what nobody may read back."""
    return ObjectBox(**{kind_of(obj): blanked(obj)})  # pyright: ignore[reportArgumentType] - keyed by kind


def blanked(obj: Object) -> Object:
    """Without payloads of secrets, private keys and registry credentials."""
    match obj:
        case Secret():
            return replace(obj, spec=replace(obj.spec, data=b""))
        case Cluster():
            rotation = obj.root_ca.rotation
            shown = RootRotation(cert=rotation.cert) if rotation is not None else None
            return replace(obj, root_ca=RootCA(cert=obj.root_ca.cert, rotation=shown), unlock_key=b"")
        case Service():
            previous = _without_auth(obj.previous_spec) if obj.previous_spec is not None else None
            return replace(obj, spec=_without_auth(obj.spec), previous_spec=previous)
        case Task():
            return replace(obj, spec=replace(obj.spec, registry_auth="")) if obj.spec.registry_auth else obj
        case _:
            return obj


def _without_auth(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, task=replace(spec.task, registry_auth="")) if spec.task.registry_auth else spec


class Control:
    """The handler of the Control service."""

    def __init__(
        self,
        controller: Controller,
        dispatcher: Dispatcher,
        broker: LogBroker,
        builder: Builder,
        clock: Clock,
        facts: Facts,
    ) -> None:
        self._controller = controller
        self._dispatcher = dispatcher
        self._broker = broker
        self._builder = builder
        self._clock = clock
        self._facts = facts
        self._history: deque[Commit] = deque(maxlen=EVENT_HISTORY)
        self._subscribers: set[asyncio.Queue[Commit | None]] = set()
        controller.observe(self._observe)

    async def _find(self, kind: Kind, ref: str) -> Object:
        return await self._controller.read_latest(lambda view: query.find(view, kind, ref))

    # ------------------------------------------------------------------------------ reads

    async def info(self, request: Empty, peer: Peer) -> InfoResponse:
        return await self._controller.read_latest(self._info)

    def _info(self, view: View) -> InfoResponse:
        tasks = list(view.tasks())
        cluster = view.cluster
        nodes = list(view.nodes())
        return InfoResponse(
            cluster=cast("Cluster", blanked(cluster)) if cluster is not None else None,
            node_id=self._facts.node_id,
            node_addr=self._facts.node_addr,
            is_leader=True,
            version=self._facts.version,
            raft_version=self._facts.raft_version(),
            managers=sum(node.role == "manager" for node in nodes),
            nodes=len(nodes),
            services=sum(1 for _ in view.services()),
            tasks=len(tasks),
            tasks_running=sum(task.status.state == TaskState.RUNNING for task in tasks),
            manager_addresses=tuple(self._facts.managers()),
            state_dir=self._facts.state_dir,
            run_dir=self._facts.run_dir,
        )

    async def list(self, request: ListRequest, peer: Peer) -> ListResponse:
        kind = query.kind_named(request.kind)
        selected = await self._controller.read_latest(lambda view: query.select(view, kind, request.filters))
        found = tuple(blanked(o) for o in selected)
        revision = self._controller.state.revision
        return ListResponse(**{f"{kind}s": found, "revision": revision})  # pyright: ignore[reportArgumentType]

    async def get(self, request: GetRequest, peer: Peer) -> ObjectBox:
        kind = query.kind_named(request.kind)
        if kind == "node" and request.ref == "self":
            return box(await self._find(kind, self._facts.node_id))
        if kind == "cluster" and not request.ref:
            return box(await self._controller.read_latest(_cluster))
        return box(await self._find(kind, request.ref))

    # ------------------------------------------------------------------------------ writes

    async def create(self, request: CreateRequest, peer: Peer) -> ObjectBox:
        spec = request.spec
        if spec.service is not None:
            pinned, _ = await self._pinned([spec.service], request.resolve_image)
            spec = replace(spec, service=pinned[0])
        id = _id_for(request.idempotency_key)
        return box(await self._when_free(lambda tx: self._create(tx, spec, id)))

    async def _when_free(self, mutation: Callable[[Transaction], T]) -> T:
        """Submit it; while a name that it wants belongs to what is being removed, wait for that: people remove a
        service and create it again in one breath."""
        end = self._clock.monotonic() + REMOVAL_WAIT
        while True:
            try:
                return await self._controller.submit(mutation)
            except StillThere:
                if self._clock.monotonic() >= end:
                    raise
            await asyncio.sleep(REMOVAL_LOOK)

    def _create(self, tx: Transaction, spec: SpecBox, id: str) -> Object:
        kind = _kind_in(spec)
        known = tx.view.get(kind, id) if kind is not None and id else None
        if known is not None:
            return known
        if spec.service is not None:
            return desired.create_service(tx, spec.service, id)
        if spec.network is not None:
            return self._builder.network(tx, spec.network, id)
        if spec.volume is not None:
            return self._builder.volume(tx, spec.volume, id)
        if spec.secret is not None:
            return self._builder.secret(tx, spec.secret, id)
        if spec.config is not None:
            return self._builder.config(tx, spec.config, id)
        raise Invalid("only services, networks, volumes, secrets and configs are created this way")

    async def update(self, request: UpdateRequest, peer: Peer) -> ObjectBox:
        spec = request.spec
        if spec.service is not None and not request.rollback:
            pinned, _ = await self._pinned([spec.service], request.resolve_image)
            spec = replace(spec, service=pinned[0])
        request = replace(request, spec=spec)
        return box(await self._controller.submit(lambda tx: self._update(tx, request)))

    def _update(self, tx: Transaction, request: UpdateRequest) -> Object:
        obj = query.find(tx.view, query.kind_named(request.kind), request.id)
        if request.version and request.version != obj.meta.version:
            raise Conflict(f"{request.kind} {query.display_name(obj)} was changed meanwhile: read it again")
        spec = request.spec
        match obj:
            case Service():
                return self._update_service(tx, obj, request)
            case Node() if spec.node is not None:
                return desired.update_node(tx, obj, spec.node)
            case Cluster() if spec.cluster is not None:
                return desired.update_cluster(tx, obj, spec.cluster, lambda c: self._facts.locked(c, False))
            case Volume() if request.node is not None:
                return desired.bind_volume(tx, obj, request.node)
            case Secret() if spec.secret is not None:
                wanted = replace(spec.secret, labels=obj.spec.labels, data=obj.spec.data)
                same = wanted == obj.spec and spec.secret.data in (b"", self._builder.content(obj))
                return desired.update_labels(tx, obj, spec.secret.labels, same)
            case Config() if spec.config is not None:
                data = spec.config.data or obj.spec.data
                same = replace(spec.config, labels=obj.spec.labels, data=data) == obj.spec
                return desired.update_labels(tx, obj, spec.config.labels, same)
            case _:
                raise Invalid(f"a {request.kind} cannot be updated")

    def _update_service(self, tx: Transaction, service: Service, request: UpdateRequest) -> Service:
        if request.rollback:
            return desired.rollback_service(tx, service)
        if request.spec.service is None:
            raise Invalid("the update carries no service")
        spec = request.spec.service
        if not spec.task.registry_auth:
            spec = replace(spec, task=replace(spec.task, registry_auth=service.spec.task.registry_auth))
        return desired.update_service(tx, service, spec, force=request.force)

    async def remove(self, request: RemoveRequest, peer: Peer) -> Empty:
        kind = query.kind_named(request.kind)
        await self._controller.submit(lambda tx: desired.remove(tx, kind, request.ref, force=request.force))
        return Empty()

    async def deploy(self, request: DeployRequest, peer: Peer) -> DeployResponse:
        services, warnings = await self._pinned(request.services, request.resolve_image)
        request = replace(request, services=tuple(services))
        if request.dry_run:
            response = await self._when_free(lambda tx: _tried(tx, request, self._builder))
        else:
            response = await self._when_free(lambda tx: self._builder.deploy(tx, request))
        return replace(
            response, warnings=(*warnings, *response.warnings), revision=self._controller.state.revision
        )

    async def remove_stack(self, request: RemoveStackRequest, peer: Peer) -> DeployResponse:
        return await self._controller.submit(lambda tx: desired.remove_stack(tx, request.stack))

    async def join_tokens(self, request: RotateRequest, peer: Peer) -> JoinTokensResponse:
        if request.worker_token or request.manager_token:
            await self._controller.submit(lambda tx: self._rotate(tx, request))
        cluster = await self._controller.read_latest(_cluster)
        worker, manager = self._facts.tokens(cluster)
        return JoinTokensResponse(
            worker=worker, manager=manager, addresses=tuple(self._facts.join_addresses())
        )

    async def issue_client(self, request: IssueClientRequest, peer: Peer) -> IssueClientResponse:
        cluster = await self._controller.read_latest(_cluster)
        cert = await asyncio.to_thread(self._facts.sign_client, cluster, request.name, request.csr)
        return IssueClientResponse(
            cert=cert, ca=self._facts.trust(cluster), managers=tuple(self._facts.managers())
        )

    async def rotate_ca(self, request: RotateCARequest, peer: Peer) -> Empty:
        """Begin to replace the root CA; the leader's reconcilers carry it through."""
        cluster = await self._controller.read_latest(_cluster)
        changed = await asyncio.to_thread(self._facts.begin_rotation, cluster, request)

        def write(tx: Transaction) -> None:
            validate.cluster(changed.spec)
            if tx.view.cluster is None or tx.view.cluster.meta.version != cluster.meta.version:
                raise Conflict("the cluster's settings were changed meanwhile: try again")
            tx.put(changed)

        await self._controller.submit(write)
        return Empty()

    async def unlock_key(self, request: UnlockKeyRequest, peer: Peer) -> UnlockKeyResponse:
        """The key that unlocks managers, a new one if asked for. Raises Conflict for a new one without autolock."""

        def rotate(tx: Transaction) -> None:
            cluster = tx.view.cluster
            if cluster is None or not cluster.spec.autolock:
                raise Conflict("managers are not locked: `pyswarm swarm update --autolock=true` has them so")
            tx.put(self._facts.locked(cluster, True))

        if request.rotate:
            await self._controller.submit(rotate)
        return UnlockKeyResponse(key=self._facts.unlock_key(await self._controller.read_latest(_cluster)))

    def _rotate(self, tx: Transaction, request: RotateRequest) -> None:
        if tx.view.cluster is not None:
            tx.put(self._facts.rotate(tx.view.cluster, request))

    # ------------------------------------------------------------------------------ images

    async def _pinned(
        self, specs: Sequence[ServiceSpec], resolve: str = "always"
    ) -> tuple[list[ServiceSpec], list[str]]:
        """The specs with their images pinned to digests, and a warning for each that could not be."""
        warnings: list[str] = []
        if resolve == "never":
            return list(specs), warnings
        former = await self._controller.read_latest(
            lambda view: {s.name: _former_pin(view, s) for s in specs}
        )
        images = {
            (s.task.container.image, s.task.registry_auth)
            for s in specs
            if _must_pin(s, resolve, former[s.name])
        }
        ordered = sorted(images)
        free = asyncio.Semaphore(RESOLVES)

        async def look_up(image: str, auth: str) -> str | PyswarmError:
            async with free:
                return await self._digest(image, auth)

        answers = await asyncio.gather(*(look_up(image, auth) for image, auth in ordered))
        pins: dict[tuple[str, str], str] = {}
        for key, answer in zip(ordered, answers, strict=True):
            if isinstance(answer, PyswarmError):
                warnings.append(
                    f"image {key[0]} could not be resolved to a digest: each node will use what it has or can pull "
                    f"({answer})"
                )
            else:
                pins[key] = answer
        kept = former if resolve == "changed" else {}
        return [_with_pin(spec, pins, kept.get(spec.name)) for spec in specs], warnings

    async def _digest(self, image: str, auth: str) -> str | PyswarmError:
        """`name:tag@sha256:...`: of the newest image of that name that was built on a manager's node, else as
        the leader's node finds it at the registry."""
        builds = await self._builds(image)
        if builds:
            return max(builds)[1]
        answer = await self._resolved("", {"reference": image, "auth": auth}, RESOLVE_TIMEOUT)
        return answer if isinstance(answer, PyswarmError) else str(answer["pinned"])

    async def _builds(self, image: str) -> list[tuple[float, str]]:
        """When it was built and its pinned name, from each manager's node that has it: people build on the
        manager that they are connected to, and it need not lead. With one manager, its own lookup does it."""

        def managers(view: View) -> list[str]:
            found = (node for node in view.nodes() if node.manager_status is not None)
            return sorted(node.id for node in found if node.status.state == NodeState.READY)

        nodes = await self._controller.read_latest(managers)
        if len(nodes) < 2:
            return []
        question = {"reference": image, "built": True}
        answers = await asyncio.gather(*(self._resolved(node, question, BUILT_TIMEOUT) for node in nodes))
        return [
            (float(answer.get("created", 0.0)), str(answer["pinned"]))
            for answer in answers
            if not isinstance(answer, PyswarmError)
        ]

    async def _resolved(
        self, node_id: str, question: Mapping[str, object], seconds: float
    ) -> Mapping[str, Any] | PyswarmError:
        """A node's answer to image.resolve; "" is the leader's node."""
        command = NodeCommand(node=node_id, verb="image.resolve", args=json.dumps(question))
        try:
            async with asyncio.timeout(seconds):
                async for reply in self.command(_once(command), Peer("admin")):
                    if reply.kind == "result":
                        return cast("Mapping[str, Any]", json.loads(reply.text))
                    if reply.kind == "error":
                        return NotFound(reply.text)
        except PyswarmError as error:
            return error
        except TimeoutError:
            return Unavailable(f"no answer within {seconds:.0f} s")
        return Unavailable("the node's agent gave no answer")

    # ------------------------------------------------------------------------------ events

    def _observe(self, revision: int, changes: Sequence[Changed]) -> None:
        entry = (revision, self._clock.now(), tuple(changes))
        self._history.append(entry)
        for queue in tuple(self._subscribers):
            if queue.qsize() < EVENT_QUEUE:
                queue.put_nowait(entry)
            else:
                self._subscribers.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    async def events(self, request: EventsRequest, peer: Peer) -> AsyncIterator[EventMessage]:
        filters = tuple(f for f in request.filters if f.key != "type")
        kinds = _event_kinds({f.value for f in request.filters if f.key == "type"}, filters)
        queue: asyncio.Queue[Commit | None] = asyncio.Queue()

        def subscribe(view: View) -> list[EventMessage]:
            self._subscribers.add(queue)
            if request.after:
                for entry in self._history:
                    if entry[0] > request.after:
                        queue.put_nowait(entry)
            return self._existing(view, kinds, filters) if request.snapshot else []

        try:
            for message in await self._controller.read_latest(subscribe):
                yield message
            while (entry := await queue.get()) is not None:
                for message in await self._controller.read_latest(_matching(entry, kinds, filters)):
                    yield message
            raise Unavailable("events were lost, since they were not read as fast as they came: begin anew")
        finally:
            self._subscribers.discard(queue)

    def _existing(self, view: View, kinds: Sequence[Kind], filters: Sequence[Filter]) -> list[EventMessage]:
        now, revision = self._clock.now(), self._controller.state.revision
        found = [o for kind in kinds for o in query.select(view, kind, filters)]
        messages = [
            EventMessage(
                action="exists",
                time=now,
                revision=revision,
                kind=kind_of(o),
                id=o.id,
                name=query.display_name(o),
                object=box(o),
            )
            for o in found
        ]
        return [*messages, EventMessage(action="synced", time=now, revision=revision)]

    # ------------------------------------------------------------------------------ streams

    async def logs(self, request: LogsRequest, peer: Peer) -> AsyncIterator[LogMessage]:
        async for message in stream_logs(self._controller, self._broker, request):
            yield message

    async def exec(
        self, messages: AsyncIterator[ExecInputMessage], peer: Peer
    ) -> AsyncIterator[ExecOutputMessage]:
        first = await anext(messages, None)
        if first is None or first.start is None:
            raise Invalid("an exec starts with a message that says what to run")
        task = await self._find("task", first.start.task)
        assert isinstance(task, Task)
        if task.status.state != TaskState.RUNNING and task.status.state != TaskState.STARTING:
            raise Conflict(f"task {task.name} is not running (it is {task.status.state.name.lower()})")
        demand = Demand(id="", exec=replace(first.start, task=task.id))
        async with (
            self._broker.ask(task.node_id, demand) as conversation,
            alongside(_feed_exec(conversation, messages)),
        ):
            async for answer in conversation.answers():
                if answer.reply is not None:
                    raise named(answer.reply.error_class, answer.reply.text)
                if answer.exec is not None:
                    yield answer.exec
                    if answer.exec.kind == "exit":
                        return
            raise Unavailable(f"the connection to node {task.node_id} broke off")

    async def command(self, messages: AsyncIterator[NodeCommand], peer: Peer) -> AsyncIterator[NodeReply]:
        first = await anext(messages, None)
        if first is None or not first.verb:
            raise Invalid("a command starts with a message that says what to do")
        node_id = (await self._find("node", first.node)).id if first.node else self._facts.node_id
        async with (
            self._broker.ask(node_id, Demand(id="", command=replace(first, node=node_id))) as conversation,
            alongside(_feed_command(conversation, messages)),
        ):
            async for answer in conversation.answers():
                if answer.reply is not None:
                    yield answer.reply
                    if answer.reply.kind in ("result", "error"):
                        return
            raise Unavailable(f"the connection to node {node_id} broke off")

    async def stats(self, request: StatsRequest, peer: Peer) -> StatsResponse:
        figures = self._dispatcher.stats
        wanted = request.tasks or tuple(sorted(figures))
        return StatsResponse(stats=tuple(figures[task] for task in wanted if task in figures))


def _must_pin(spec: ServiceSpec, resolve: str, former: str | None) -> bool:
    image = spec.task.container.image
    if not image or "@" in image:
        return False
    return resolve != "changed" or former is None


def _former_pin(view: View, spec: ServiceSpec) -> str | None:
    """The pinned image of the running service, when the name that people wrote has not changed."""
    service = view.by_name(Service, spec.name)
    if service is None:
        return None
    current = service.spec.task.container.image
    return current if current.partition("@")[0] == spec.task.container.image and "@" in current else None


def _with_pin(spec: ServiceSpec, pins: Mapping[tuple[str, str], str], former: str | None) -> ServiceSpec:
    image = spec.task.container.image
    pinned = pins.get((image, spec.task.registry_auth)) or (former if "@" not in image else None)
    if pinned is None:
        return spec
    task = spec.task
    return replace(spec, task=replace(task, container=replace(task.container, image=pinned)))


def _cluster(view: View) -> Cluster:
    if view.cluster is None:
        raise NotFound("this cluster has no record of itself yet")
    return view.cluster


def _tried(tx: Transaction, request: DeployRequest, builder: Builder) -> DeployResponse:
    """What a deploy would do; staged and taken back."""
    try:
        return builder.deploy(tx, request)
    finally:
        tx.undo()


def _kind_in(spec: SpecBox) -> Kind | None:
    """The kind of object that the box asks for, of those that are created this way."""
    for kind in _CREATED:
        if getattr(spec, kind) is not None:
            return kind
    return None


def _id_for(idempotency_key: str) -> str:
    """The id of the object that a create with this key makes, on whichever manager and however often it is
    asked; "" where there is no key."""
    if not idempotency_key:
        return ""
    return encode_id(int.from_bytes(hashlib.sha256(idempotency_key.encode()).digest()[:16]))


def _event_kinds(wanted: set[str], filters: Sequence[Filter]) -> list[Kind]:
    """The kinds of object that a reader of events asks about: those that have every filter named. Raises Invalid
    for a word that none knows."""
    chosen: list[Kind] = [query.kind_named(kind) for kind in sorted(wanted)]
    if chosen:
        for kind in chosen:
            query.check_filters(kind, filters)
        return chosen
    fitting: list[Kind] = [kind for kind in _SHOWN if all(query.has_filter(kind, f.key) for f in filters)]
    if not fitting:
        raise Invalid(f"no kind of object has all of the filters {', '.join(f.key for f in filters)}")
    return fitting


def _matching(
    entry: Commit, kinds: Collection[Kind], filters: Sequence[Filter]
) -> Callable[[View], list[EventMessage]]:
    """The events of one commit that pass the filters, as a question to the view."""
    revision, time, changes = entry

    def select(view: View) -> list[EventMessage]:
        passed = [
            changed
            for changed in changes
            if kind_of(changed.obj) in kinds
            and query.matches(changed.obj, kind_of(changed.obj), filters, view)
        ]
        return [_event(changed, revision, time) for changed in passed]

    return select


def _event(changed: Changed, revision: int, time: float) -> EventMessage:
    action = "create" if changed.before is None else "remove" if changed.after is None else "update"
    obj = changed.obj
    return EventMessage(
        action=action,
        time=time,
        revision=revision,
        kind=kind_of(obj),
        id=obj.id,
        name=query.display_name(obj),
        object=box(obj),
    )


async def _once(command: NodeCommand) -> AsyncIterator[NodeCommand]:
    yield command


async def _feed_exec(conversation: Conversation, messages: AsyncIterator[ExecInputMessage]) -> None:
    async for message in messages:
        await conversation.send(AnswerInput(exec=message))
    await conversation.finish_input()


async def _feed_command(conversation: Conversation, messages: AsyncIterator[NodeCommand]) -> None:
    async for message in messages:
        await conversation.send(AnswerInput(command=message))
    await conversation.finish_input()
