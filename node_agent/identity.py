"""This node's role and certificate: renewed in time, and changed when the node is promoted or demoted.

A renewed certificate is for the key that is there, so that it is one file that is replaced. A promoted node asks
for a manager's certificate and starts a manager, which joins the others by itself. A demoted one waits until the
others have taken its manager out of Raft (its record says so), and ends it then: before, they might miss it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pyswarm import daemons, pki
from pyswarm.api import IssueResponse
from pyswarm.clock import Clock
from pyswarm.errors import PyswarmError, Unavailable
from pyswarm.nodeconfig import NodeConfig, write_private
from pyswarm.objects import Node

log = logging.getLogger(__name__)

LOOK = 60.0
"""Seconds between two looks at the certificate's age, and at whether the daemons are those of the role."""
RETRY = 1.0


class Identity:
    """One node's, kept by its agent."""

    def __init__(
        self,
        *,
        config: Callable[[], NodeConfig],
        save: Callable[[NodeConfig], None],
        renew: Callable[[str], Awaitable[IssueResponse]],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`renew` asks the CA, `changed` is told when the certificate or the role is another one."""
        self._config = config
        self._save = save
        self._renew = renew
        self._changed = changed
        self._clock = clock
        self._node: Node | None = None
        self._news = asyncio.Event()
        self._chance = random.Random().random()

    def told(self, node: Node) -> None:
        """The node's record, as a manager has just sent it."""
        self._node = node
        self._news.set()

    async def run(self) -> None:
        while True:
            pause = LOOK
            self._news.clear()
            try:
                await self._step()
            except Unavailable as error:
                log.info("the node's identity is to change, but: %s", error)
                pause = RETRY
            except PyswarmError as error:
                log.warning("the node's identity is to change, but: %s", error)
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _step(self) -> None:
        config = self._config()
        role = wanted_role(self._node, config.role)
        if role != config.role:
            log.info("this node is to be a %s", role)
            await self._new_certificate(role)
            config = replace(config, role=role)
            self._save(config)
            await asyncio.to_thread(daemons.follow_role, config)
            self._changed()
        elif self._due(config):
            await self._new_certificate(role)
            self._changed()
        elif self._node is not None:
            await asyncio.to_thread(daemons.follow_role, config, only_if_needed=True)

    def _due(self, config: NodeConfig) -> bool:
        who = pki.identity(config.cert("node.pem"))
        return self._clock.now() >= pki.renewal_time(who, self._chance)

    async def _new_certificate(self, role: str) -> None:
        """Raises Unavailable where the managers have not written down the role yet."""
        config = self._config()
        answer = await self._renew(pki.create_request(config.cert("node.key"), config.node_id).decode())
        if answer.role != role:
            raise Unavailable(f"the managers gave a certificate for a {answer.role}, not a {role}")
        write_private(config.certs / "node.pem", answer.cert.encode())
        log.info("this node has a new certificate, as a %s", role)


def wanted_role(node: Node | None, now: str) -> str:
    """The role to take: the record's, but a manager stays one for as long as it is a member of Raft."""
    if node is None or (node.spec.role != "manager" and node.manager_status is not None):
        return now
    return node.spec.role
