"""The cluster's certificate authority: who gets a certificate, of which role, and the service that says so.

A node joins with a token, which decides its role; from then on its role is `Node.spec.role`, and a renewal
follows it, so that promoting and demoting changes the certificate. A node that was removed gets none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from manager.sealer import Sealer
from manager.store import Put, Records, StaleWrite
from pyswarm import pki
from pyswarm.api import Empty, IssueRequest, IssueResponse, RenewRequest, RootCAResponse
from pyswarm.clock import Clock, base36
from pyswarm.errors import Conflict, Invalid, NotFound, PermissionDenied
from pyswarm.objects import Cluster, JoinTokens, Meta, Node, NodeStatus, Revoked, RootCA
from pyswarm.rpc import Peer
from pyswarm.specs import ClusterSpec, NodeSpec

NodeRole = Literal["worker", "manager"]
_ATTEMPTS = 10
"""Compare-and-set attempts on a node's record before the caller is asked to come again."""


class Authority:
    """What the CA does with the cluster's record. Keys are opened when they are needed, and not kept."""

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock

    # ------------------------------------------------------------------------------------- the cluster

    def create_cluster(self, id: str, spec: ClusterSpec, root: pki.KeyPair | None = None) -> Cluster:
        """The record of a new cluster, with a CA of its own or one that the user brought. Raises Invalid
        if that one cannot serve."""
        now = self._clock.now()
        if root is None:
            root = pki.create_root(now)
        pki.check_root(root, now)
        tokens = JoinTokens(worker=pki.new_token_secret(), manager=pki.new_token_secret())
        ca = RootCA(cert=root.cert.decode(), key=self._sealer.seal(root.key), join_tokens=tokens)
        return Cluster(id=id, spec=spec, root_ca=ca, meta=Meta(created_at=now, updated_at=now))

    def root(self, cluster: Cluster) -> pki.KeyPair:
        """The CA's certificate and opened key. Raises Conflict if it signs elsewhere (external CA)."""
        if not cluster.root_ca.key:
            raise Conflict("this cluster's CA key is kept outside: certificates must be issued there")
        return pki.KeyPair(cluster.root_ca.cert.encode(), self._sealer.open(cluster.root_ca.key))

    # ------------------------------------------------------------------------------------------ tokens

    @staticmethod
    def tokens(cluster: Cluster) -> tuple[str, str]:
        """The join tokens to show: (worker, manager)."""
        ca = cluster.root_ca
        return (
            pki.join_token(ca.cert, ca.join_tokens.worker),
            pki.join_token(ca.cert, ca.join_tokens.manager),
        )

    @staticmethod
    def rotate_tokens(cluster: Cluster, *, worker: bool, manager: bool) -> Cluster:
        """The record with new secrets in the tokens named; the old ones let nobody in any more."""
        old = cluster.root_ca.join_tokens
        tokens = JoinTokens(
            worker=pki.new_token_secret() if worker else old.worker,
            manager=pki.new_token_secret() if manager else old.manager,
        )
        return replace(cluster, root_ca=replace(cluster.root_ca, join_tokens=tokens))

    @staticmethod
    def admit(cluster: Cluster, text: str) -> NodeRole:
        """The role that a join token gives. Raises Invalid or PermissionDenied."""
        token = pki.parse_token(text)
        pki.check_trust(token, cluster.root_ca.cert)
        tokens = cluster.root_ca.join_tokens
        worker = pki.same_secret(token.secret, tokens.worker)
        manager = pki.same_secret(token.secret, tokens.manager)
        if manager:
            return "manager"
        if worker:
            return "worker"
        raise PermissionDenied(
            "the join token is not valid (any more): get the current one with `pyswarm swarm join-token worker` "
            "(or `manager`) on a manager"
        )

    @staticmethod
    def revoke(cluster: Cluster, node: Node, now: float) -> Cluster:
        """The record with the node's certificate revoked (it was demoted or removed), and without those
        that have ended by themselves."""
        kept = [r for r in cluster.root_ca.revoked if r.until > now and r.serial != node.certificate_serial]
        if node.certificate_serial:
            life = max(cluster.spec.node_cert_expiry, pki.MIN_NODE_LIFE)
            kept.append(Revoked(serial=node.certificate_serial, until=now + life))
        return replace(cluster, root_ca=replace(cluster.root_ca, revoked=tuple(kept)))

    # ----------------------------------------------------------------------------------------- signing

    def sign(self, cluster: Cluster, csr: str, node: Node) -> str:
        """A certificate (PEM) for the node's request, of the role that its spec asks for."""
        role: NodeRole = node.spec.role
        subject = pki.Subject(node.id, role, cluster.id, _addresses(node))
        life = max(cluster.spec.node_cert_expiry, pki.MIN_NODE_LIFE)
        return pki.sign(self.root(cluster), csr.encode(), subject, self._clock.now(), life).decode()

    def issue_node(self, cluster: Cluster, node: Node) -> pki.KeyPair:
        """Key and certificate for the first manager, which makes the cluster."""
        key = pki.new_key()
        csr = pki.create_request(key, node.id).decode()
        return pki.KeyPair(self.sign(cluster, csr, node).encode(), key)

    def sign_client(self, cluster: Cluster, name: str, csr: str) -> str:
        """A certificate (PEM) for a person's command line on another machine (a context)."""
        if not name:
            raise Invalid("a client certificate needs a name")
        subject = pki.Subject(name, "client", cluster.id)
        return pki.sign(self.root(cluster), csr.encode(), subject, self._clock.now()).decode()


def node_id_of(csr: str) -> str:
    """The id of the node that joins with this request: a digest of its key, so that asking twice, after a
    lost answer, makes one node. Raises Invalid for a request that does not prove possession of its key."""
    public = pki.check_request(csr.encode())
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base36(int.from_bytes(hashlib.sha256(der).digest()[:16], "big"), 25)


def _addresses(node: Node) -> tuple[str, ...]:
    """Where the node says it is, without ports."""
    said = [node.status.addr, node.data_path_addr]
    if node.manager_status is not None:
        said.append(node.manager_status.addr)
    return tuple(dict.fromkeys(host for text in said if (host := host_of(text))))


def host_of(address: str) -> str:
    """`10.0.0.1:2377` or `[::1]:2377` or either without port -> the host alone."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, _ = address.rpartition(":")
    return host if colon and ":" not in host else address


class CAService:
    """The gRPC service `CA` (see pyswarm.api), on any manager."""

    def __init__(
        self, store: Records, authority: Authority, clock: Clock, managers: Callable[[], Sequence[str]]
    ) -> None:
        """`managers` says where the managers' API is, for those who join."""
        self._store = store
        self._authority = authority
        self._clock = clock
        self._managers = managers

    async def get_root_ca(self, request: Empty, peer: Peer) -> RootCAResponse:
        """For everyone: who joins compares its digest with the token's before it sends the token."""
        return RootCAResponse(cert=(await self._cluster()).root_ca.cert)

    async def issue(self, request: IssueRequest, peer: Peer) -> IssueResponse:
        """Let a node in by its token: make its record and sign its certificate."""
        cluster = await self._cluster()
        role = self._authority.admit(cluster, request.token)
        node_id = node_id_of(request.csr)
        for _ in range(_ATTEMPTS):
            known = await self._store.get("node", node_id)
            if known is not None and not isinstance(known, Node):
                raise Conflict(f"{node_id} is not a node")
            node = known if known is not None else self._new_node(node_id, role, request)
            if node.spec.role != role:
                raise Conflict(
                    f"node {node_id} has joined as {node.spec.role} already: change that with promote"
                )
            answer = await self._sign(cluster, request.csr, node)
            if answer is not None:
                return answer
        raise Conflict(f"the record of node {node_id} is being changed all the time: try again")

    async def renew(self, request: RenewRequest, peer: Peer) -> IssueResponse:
        """A new certificate for a node that shows its old one; of the role that it is to have now."""
        cluster = await self._cluster()
        if peer.cluster_id != cluster.id:
            raise PermissionDenied("the certificate is of another cluster")
        for _ in range(_ATTEMPTS):
            node = await self._store.get("node", peer.node_id)
            if not isinstance(node, Node):
                raise PermissionDenied(f"node {peer.node_id} was removed from the cluster")
            answer = await self._sign(cluster, request.csr, node)
            if answer is not None:
                return answer
        raise Conflict(f"the record of node {peer.node_id} is being changed all the time: try again")

    async def _cluster(self) -> Cluster:
        found = (await self._store.list("cluster")).objects
        if not found or not isinstance(found[0], Cluster):
            raise NotFound("this cluster has no record of itself yet: try again in a moment")
        return found[0]

    def _new_node(self, id: str, role: NodeRole, request: IssueRequest) -> Node:
        now = self._clock.now()
        if request.availability not in ("active", "pause", "drain"):
            raise Invalid(f"availability {request.availability!r}: it is one of active, pause, drain")
        spec = replace(NodeSpec(role=role), availability=request.availability)
        return Node(
            id=id,
            spec=spec,
            role=role,
            status=NodeStatus(addr=request.addr, message="joining", since=now),
            meta=Meta(created_at=now, updated_at=now),
        )

    async def _sign(self, cluster: Cluster, csr: str, node: Node) -> IssueResponse | None:
        """Sign, and write down which certificate the node has; None if the record changed meanwhile."""
        cert = self._authority.sign(cluster, csr, node)
        serial = pki.identity(cert).serial
        meta = replace(node.meta, updated_at=self._clock.now())
        changed = replace(node, role=node.spec.role, certificate_serial=serial, meta=meta)
        try:
            await self._store.commit([Put(changed)])
        except StaleWrite:
            return None
        return IssueResponse(
            node_id=node.id,
            cert=cert,
            role=node.spec.role,
            managers=tuple(self._managers()),
            cluster_id=cluster.id,
            data_path_port=cluster.spec.data_path_port,
        )
