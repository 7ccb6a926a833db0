"""Requests to a node's agent (images, volumes, disk use), and which node they go to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pyswarm.api import NodeCommand
from pyswarm.errors import (
    Conflict,
    Fatal,
    Invalid,
    NotFound,
    PermissionDenied,
    PyswarmError,
    Unavailable,
)
from pyswarm.objects import Node, NodeState

if TYPE_CHECKING:
    from pyswarm.client import Client

CHUNK = 256 * 1024
"""Bytes per message of an archive."""

Say = Callable[[str], None]


def _silent(text: str) -> None:
    del text


async def ask(
    client: Client,
    verb: str,
    args: dict[str, Any],
    *,
    node: str = "",
    data: AsyncIterator[bytes] | None = None,
    say: Say = _silent,
) -> Any:
    """The agent's answer (JSON, shaped by the verb: see `NodeCommand`). `node` is a node's id, "" the one of
    the manager that is asked; `data` follows the request; `say` gets the lines of progress. Raises the error
    that the agent raised."""

    async def inputs() -> AsyncIterator[NodeCommand]:
        yield NodeCommand(node=node, verb=verb, args=json.dumps(args), eof=data is None)
        if data is not None:
            async for piece in data:
                yield NodeCommand(data=piece)
            yield NodeCommand(eof=True)

    async with aclosing(client.command(inputs())) as replies:
        async for reply in replies:
            if reply.kind == "progress":
                say(reply.text)
            elif reply.kind == "result":
                return json.loads(reply.text)
            elif reply.kind == "error":
                raise _error(reply.error_class, reply.text)
    raise Unavailable(f"the node's agent ended without an answer to {verb}")


async def receive(
    client: Client, verb: str, args: dict[str, Any], write: Callable[[bytes], object], *, node: str = ""
) -> None:
    """The data that the agent answers with, piece by piece. Raises the error that the agent raised."""

    async def inputs() -> AsyncIterator[NodeCommand]:
        yield NodeCommand(node=node, verb=verb, args=json.dumps(args), eof=True)

    async with aclosing(client.command(inputs())) as replies:
        async for reply in replies:
            if reply.kind == "data":
                write(reply.data)
            elif reply.kind == "result":
                return
            elif reply.kind == "error":
                raise _error(reply.error_class, reply.text)
    raise Unavailable(f"the node's agent ended without an answer to {verb}")


_ERRORS: Mapping[str, type[PyswarmError]] = {
    cls.__name__: cls for cls in (Invalid, NotFound, Conflict, Unavailable, PermissionDenied, Fatal)
}


def _error(name: str, text: str) -> PyswarmError:
    return _ERRORS.get(name, PyswarmError)(text)


async def chosen(client: Client, name: str) -> str:
    """The id of the node called `name`; "" for the manager's own when no name is given."""
    return (await client.get(Node, name)).id if name else ""


async def ready(client: Client) -> list[Node]:
    """All nodes that answer."""
    return [node for node in await client.nodes() if node.status.state == NodeState.READY]
