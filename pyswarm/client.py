"""The client of the control API: what the command line, the Engine API and tests call.

Methods take and return specs and objects, and raise the errors of `pyswarm.errors`. One `Client` is one
channel; use it as `async with Client.local(socket) as client`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from pyswarm.api import (
    CreateRequest,
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
    UnlockKeyRequest,
    UnlockRequest,
    UpdateRequest,
)
from pyswarm.errors import PermissionDenied, Unavailable
from pyswarm.nodeconfig import SOCKET_GROUP
from pyswarm.objects import (
    Cluster,
    Config,
    ContainerStats,
    Kind,
    Network,
    Node,
    Object,
    Secret,
    Service,
    Task,
    Volume,
)
from pyswarm.rpc import TLS, Stub, channel
from pyswarm.specs import (
    ClusterSpec,
    ConfigSpec,
    ExternalCA,
    NetworkSpec,
    NodeSpec,
    SecretSpec,
    ServiceSpec,
    VolumeSpec,
)

ObjectT = TypeVar("ObjectT", bound=Object)
Spec = ServiceSpec | NetworkSpec | VolumeSpec | SecretSpec | ConfigSpec | NodeSpec | ClusterSpec

_BOX: Mapping[type, str] = {
    ServiceSpec: "service",
    NetworkSpec: "network",
    VolumeSpec: "volume",
    SecretSpec: "secret",
    ConfigSpec: "config",
    NodeSpec: "node",
    ClusterSpec: "cluster",
}
_KIND: Mapping[type, Kind] = {
    Service: "service",
    Task: "task",
    Node: "node",
    Network: "network",
    Volume: "volume",
    Secret: "secret",
    Config: "config",
    Cluster: "cluster",
}


def box(spec: Spec) -> SpecBox:
    """The message that carries one spec."""
    return SpecBox(**{_BOX[type(spec)]: spec})  # pyright: ignore[reportArgumentType] - the table pairs them


def unbox(answer: ObjectBox) -> Object:
    """The one object in a box."""
    for name in _KIND.values():
        obj = getattr(answer, name)
        if obj is not None:
            return cast("Object", obj)
    raise Unavailable("the manager sent an empty answer: are its version and this one's more than one apart?")


class Client:
    """A connection to any manager."""

    def __init__(self, target: str, tls: TLS | None = None, timeout: float = 30.0) -> None:
        self._channel = channel(target, tls=tls)
        self._stub = Stub(self._channel, timeout)
        self.target = target

    @classmethod
    def local(cls, socket: Path, timeout: float = 30.0) -> Self:
        """Over the manager's unix socket. Raises Unavailable when there is none, PermissionDenied when this user
        may not reach it."""
        try:
            there = socket.exists()
        except PermissionError:
            there = True
        if there and not os.access(socket, os.R_OK | os.W_OK):
            raise PermissionDenied(
                f"permission denied while trying to connect to the pyswarm manager at unix://{socket}: use sudo, or "
                f"become a member of the group {SOCKET_GROUP} (`usermod -aG {SOCKET_GROUP} USER`, then log in again)"
            )
        if not there:
            raise Unavailable(
                f"cannot connect to the pyswarm manager at unix://{socket}: is this node in a cluster? "
                "Start one with `pyswarm init`, or name a manager with --host or --context"
            )
        return cls(f"unix:{socket}", timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close(None)

    # ------------------------------------------------------------------------------ objects

    async def info(self) -> InfoResponse:
        return await self._stub.unary("Control.Info", Empty())

    async def list(self, kind: Kind, filters: Sequence[tuple[str, str]] = ()) -> ListResponse:
        """Objects of one kind, sorted by the manager; see ListRequest for the filters."""
        pairs = tuple(Filter(key=k, value=v) for k, v in filters)
        return await self._stub.unary("Control.List", ListRequest(kind=kind, filters=pairs))

    async def services(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Service, ...]:
        return (await self.list("service", filters)).services

    async def tasks(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Task, ...]:
        return (await self.list("task", filters)).tasks

    async def nodes(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Node, ...]:
        return (await self.list("node", filters)).nodes

    async def networks(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Network, ...]:
        return (await self.list("network", filters)).networks

    async def volumes(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Volume, ...]:
        return (await self.list("volume", filters)).volumes

    async def secrets(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Secret, ...]:
        return (await self.list("secret", filters)).secrets

    async def configs(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Config, ...]:
        return (await self.list("config", filters)).configs

    async def get(self, cls: type[ObjectT], ref: str) -> ObjectT:
        """By id, name or unique beginning of an id; NotFound says `no such service: x`."""
        answer = await self._stub.unary("Control.Get", GetRequest(kind=_KIND[cls], ref=ref))
        return cast("ObjectT", unbox(answer))

    async def create(self, spec: Spec, *, resolve_image: str = "always") -> Object:
        """The new object. Conflict when the name is taken."""
        request = CreateRequest(spec=box(spec), resolve_image=resolve_image)
        return unbox(await self._stub.unary("Control.Create", request, timeout=120))

    async def update(
        self, obj: Object, spec: Spec, *, force: bool = False, resolve_image: str = "always"
    ) -> Object:
        """Write `spec` over `obj` as it was read: Conflict if it was changed since."""
        request = UpdateRequest(
            kind=_KIND[type(obj)],
            id=obj.id,
            version=obj.meta.version,
            spec=box(spec),
            force=force,
            resolve_image=resolve_image,
        )
        return unbox(await self._stub.unary("Control.Update", request, timeout=120))

    async def rollback(self, service: Service) -> Service:
        """Go back to the previous spec; Invalid when there is none."""
        request = UpdateRequest(kind="service", id=service.id, version=service.meta.version, rollback=True)
        return cast("Service", unbox(await self._stub.unary("Control.Update", request)))

    async def bind(self, volume: Volume, node: str) -> Volume:
        """Say that the volume's data is on the node (name or id; "" for any): its tasks run there, and leave
        other nodes. Nothing is copied."""
        request = UpdateRequest(kind="volume", id=volume.id, version=volume.meta.version, node=node)
        return cast("Volume", unbox(await self._stub.unary("Control.Update", request)))

    async def remove(self, kind: Kind, ref: str, *, force: bool = False) -> None:
        await self._stub.unary("Control.Remove", RemoveRequest(kind=kind, ref=ref, force=force))

    # ------------------------------------------------------------------------------ stacks, cluster

    async def deploy(self, request: DeployRequest) -> DeployResponse:
        return await self._stub.unary("Control.Deploy", request, timeout=300)

    async def remove_stack(self, stack: str) -> DeployResponse:
        return await self._stub.unary("Control.RemoveStack", RemoveStackRequest(stack=stack))

    async def join_tokens(self, rotate: RotateRequest | None = None) -> JoinTokensResponse:
        """The current tokens, after rotating what `rotate` says."""
        return await self._stub.unary("Control.JoinTokens", rotate or RotateRequest())

    async def rotate_ca(
        self,
        *,
        cert: str = "",
        key: str = "",
        cert_expiry: float = 0.0,
        external_cas: Sequence[ExternalCA] = (),
    ) -> None:
        """Begin to replace the root CA; see RotateCARequest."""
        request = RotateCARequest(
            cert=cert, key=key, cert_expiry=cert_expiry, external_cas=tuple(external_cas)
        )
        await self._stub.unary("Control.RotateCA", request)

    async def unlock_key(self, *, rotate: bool = False) -> str:
        """The key that unlocks managers; "" where they are not locked."""
        return (await self._stub.unary("Control.UnlockKey", UnlockKeyRequest(rotate=rotate))).key

    async def unlock(self, key: str) -> None:
        """Unlock the manager of this machine. Raises Invalid, PermissionDenied, or Conflict if it is not locked."""
        await self._stub.unary("Lock.Unlock", UnlockRequest(key=key))

    async def issue_client(self, name: str, csr: str) -> IssueClientResponse:
        """A client certificate for a context on another machine."""
        return await self._stub.unary("Control.IssueClient", IssueClientRequest(name=name, csr=csr))

    async def stats(self, tasks: Sequence[str] = ()) -> tuple[ContainerStats, ...]:
        return (await self._stub.unary("Control.Stats", StatsRequest(tasks=tuple(tasks)))).stats

    # ------------------------------------------------------------------------------ streams

    def events(
        self, filters: Sequence[tuple[str, str]] = (), *, after: int = 0, snapshot: bool = False
    ) -> AsyncIterator[EventMessage]:
        """Changes as they are committed; with `snapshot` first all that exists, then `synced`."""
        pairs = tuple(Filter(key=k, value=v) for k, v in filters)
        request = EventsRequest(filters=pairs, after=after, snapshot=snapshot)
        return self._stub.stream("Control.Events", request)

    def logs(self, request: LogsRequest) -> AsyncIterator[LogMessage]:
        """Whole lines, each with its newline; but for the last one of a task that ended without, and for those of
        more than a mebibyte."""
        return whole_lines(self._stub.stream("Control.Logs", request))

    def exec(self, inputs: AsyncIterator[ExecInputMessage]) -> AsyncGenerator[ExecOutputMessage]:
        """The first input carries `start`. Ends with an `exit` message. To be closed by whoever leaves it earlier."""
        return self._stub.duplex("Control.Exec", inputs)

    def command(self, inputs: AsyncIterator[NodeCommand]) -> AsyncGenerator[NodeReply]:
        """A request to one node's agent (see NodeCommand). Ends with `result` or `error`. To be closed by whoever
        leaves it earlier."""
        return self._stub.duplex("Control.Command", inputs)


LONGEST_LINE = 1 << 20
"""Bytes of a line that are waited for."""


async def whole_lines(messages: AsyncIterator[LogMessage]) -> AsyncIterator[LogMessage]:
    """Put together the pieces that a container's monitor cuts lines into: it writes down what a read gave it. A line
    has the time of its first piece."""
    pieces: dict[tuple[str, str], LogMessage] = {}
    async for message in messages:
        if message.warning:
            yield message
            continue
        key = (message.task_id, message.stream)
        if key in pieces:
            message = replace(pieces[key], data=pieces.pop(key).data + message.data)
        if message.data.endswith(b"\n") or len(message.data) > LONGEST_LINE:
            yield message
        else:
            pieces[key] = message
    for message in pieces.values():
        yield message


Connect = Callable[[], Client]
