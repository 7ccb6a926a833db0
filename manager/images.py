"""Images from node to node: a node that has no registry to pull from gets a copy from one that has the image.

The managers pass the pieces on as they come, a few at a time: the slower end sets the pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator

from manager.controller import Controller
from manager.logbroker import LogBroker
from manager.state import View
from pyswarm.api import Demand, ImagePiece, NodeCommand
from pyswarm.errors import NotFound, PermissionDenied, PyswarmError, Unavailable
from pyswarm.objects import Node, NodeState, Task, TaskState

RELAYS = 8
"""Copies that pass through this manager at a time; more wait for their turn."""
DEPTH = 8
"""Pieces (of 256 KiB) held of each."""
MOST_ASKED = 10
"""Nodes that are asked whether they have an image."""


class ImageRelay:
    """Copies of images between the nodes of the cluster."""

    def __init__(self, controller: Controller, broker: LogBroker) -> None:
        self._controller = controller
        self._broker = broker
        self._turns = asyncio.Semaphore(RELAYS)

    async def copy(self, reference: str, node_id: str) -> AsyncGenerator[ImagePiece]:
        """The image that `node_id` needs for one of its tasks. Raises PermissionDenied when no task of its
        has it, NotFound when no node that is likely to have the image gives it."""
        nodes = await self._controller.read(lambda view: holders(view, reference, node_id))
        async with self._turns:
            for holder in nodes:
                began = False
                try:
                    async with contextlib.aclosing(self._from(holder, reference)) as pieces:
                        async for piece in pieces:
                            began = True
                            yield piece
                    return
                except PyswarmError:
                    if began:
                        raise
        raise NotFound(f"no other node has the image {reference}")

    async def _from(self, holder: str, reference: str) -> AsyncGenerator[ImagePiece]:
        command = NodeCommand(node=holder, verb="image.save", args=json.dumps({"reference": reference}))
        async with self._broker.ask(holder, Demand(id="", command=command), DEPTH) as conversation:
            async for answer in conversation.answers():
                reply = answer.reply
                if reply is None:
                    continue
                if reply.kind == "data":
                    yield ImagePiece(file=reply.text, data=reply.data)
                elif reply.kind == "result":
                    return
                elif reply.kind == "error":
                    raise NotFound(reply.text)
            raise Unavailable(f"the connection to node {holder} broke off")


def holders(view: View, reference: str, node_id: str) -> list[str]:
    """The nodes that may have an image, the likeliest first: the leader, where images are built; those where
    tasks of the same services run; the other managers, which may have led before. Pure."""
    needing = [task for task in view.tasks_of_node(node_id) if reference in images_of(task)]
    if not needing:
        raise PermissionDenied(f"no task of node {node_id} needs the image {reference}")
    users: dict[str, None] = {}
    for service_id in dict.fromkeys(task.service_id for task in needing if task.service_id):
        for task in view.tasks_of_service(service_id):
            if TaskState.READY <= task.status.state <= TaskState.RUNNING and reference in images_of(task):
                users[task.node_id] = None
    managers = sorted(
        (node for node in view.nodes() if node.manager_status is not None),
        key=lambda node: (node.manager_status is None or not node.manager_status.leader, node.id),
    )
    order = [*(node.id for node in managers[:1]), *sorted(users), *(node.id for node in managers[1:])]
    able = [id for id in dict.fromkeys(order) if id != node_id and _answers(view, id)]
    return able[:MOST_ASKED]


def images_of(task: Task) -> list[str]:
    """The images that a task needs: its own, and those that it mounts."""
    container = task.spec.container
    return [container.image, *(mount.source for mount in container.mounts if mount.type == "image")]


def _answers(view: View, node_id: str) -> bool:
    node = view.get(Node, node_id)
    return node is not None and node.status.state == NodeState.READY
