"""This node's role and certificate: renewed in time, and changed when the node is promoted or demoted.

A renewed certificate is for the key that is there, so that it is one file that is replaced. A promoted node asks
for a manager's certificate and starts a manager, which joins the others by itself. A demoted one waits until the
others have taken its manager out of Raft (its record says so), and ends it then: before, they might miss it.

While the root CA is replaced, managers say which roots to trust, and the node's record which one is to have signed
its certificate.
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
from pyswarm.nodeconfig import NodeConfig, keep_node_key, write_private
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
        take_role: Callable[[str], None],
        renew: Callable[[str], Awaitable[IssueResponse]],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`config` are the node's settings now, and `take_role` changes its role in them. `renew` asks the CA,
        `changed` is told when the certificate or the role is another one."""
        self._config = config
        self._take_role = take_role
        self._renew = renew
        self._changed = changed
        self._clock = clock
        self._node: Node | None = None
        self._roots = ""
        self._news = asyncio.Event()
        self._chance = random.Random().random()

    def told(self, node: Node | None, roots: str = "") -> None:
        """The node's record, and the roots (PEM) to trust, as a manager has just sent them."""
        self._node = node if node is not None else self._node
        self._roots = roots or self._roots
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
        trusted = self._trust(self._config())
        try:
            await self._follow()
        finally:
            if trusted:
                self._changed()

    async def _follow(self) -> None:
        config = self._config()
        role = wanted_role(self._node, config.role)
        if role != config.role:
            log.info("this node is to be a %s", role)
            await self._new_certificate(role)
            self._take_role(role)
            config = self._config()
            self._keep_key(config)  # before the manager's files go, among which it may be locked
            await asyncio.to_thread(daemons.follow_role, config)
            self._keep_key(config)  # and after it, who might have locked it once more
            self._changed()
        elif self._due(config):
            await self._new_certificate(role)
            self._changed()
        elif self._node is not None:
            await asyncio.to_thread(daemons.follow_role, config, only_if_needed=True)

    @staticmethod
    def _keep_key(config: NodeConfig) -> None:
        """A worker's key is in its file: autolock is for managers."""
        if config.role == "worker":
            keep_node_key(config.certs / "node.key")

    def _trust(self, config: NodeConfig) -> bool:
        """Trust the roots that managers name; True when those are others than before."""
        roots = self._roots
        if not roots or config.cert("ca.pem").decode() == roots:
            return False
        pki.load_certificates(roots)
        write_private(config.certs / "ca.pem", roots.encode())
        log.info(
            "this node trusts another set of root CAs: %s", ", ".join(map(pki.root_digest, pki.split(roots)))
        )
        return True

    def _due(self, config: NodeConfig) -> bool:
        cert = config.cert("node.pem")
        who = pki.identity(cert)
        wanted = self._node.certificate_wanted if self._node is not None else ""
        if wanted and pki.issuer_id(cert, config.cert("ca.pem")) != wanted:
            return True
        return self._void(who, config.role) or self._clock.now() >= pki.renewal_time(who, self._chance)

    def _void(self, who: pki.Identity, role: str) -> bool:
        """Whether the managers hold this certificate for void (they have revoked it, or signed another one since,
        whose way here was cut), or it is for another role than the node's."""
        node = self._node
        if node is None or node.spec.role != role:
            return False
        return who.role != role or who.serial != node.certificate_serial

    async def _new_certificate(self, role: str) -> None:
        """Raises Unavailable where the managers have not written down the role yet."""
        config = self._config()
        answer = await self._renew(pki.create_request(config.cert("node.key"), config.node_id).decode())
        if answer.role != role:
            raise Unavailable(f"the managers gave a certificate for a {answer.role}, not a {role}")
        write_private(config.certs / "node.pem", answer.cert.encode())
        if self._node is not None:
            serial = pki.identity(answer.cert.encode()).serial
            self._node = replace(self._node, certificate_serial=serial)
        log.info("this node has a new certificate, as a %s", role)


def wanted_role(node: Node | None, now: str) -> str:
    """The role to take: the record's, but a manager stays one for as long as it is a member of Raft."""
    if node is None or (node.spec.role != "manager" and node.manager_status is not None):
        return now
    return node.spec.role
