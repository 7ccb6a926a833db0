"""The cluster's certificate authority: who gets a certificate, of which role, and the service that says so.

A node joins with a token, which decides its role; from then on its role is `Node.spec.role`, and a renewal
follows it, so that promoting and demoting changes the certificate. A node that was removed gets none.

The root can be replaced while the cluster works (`begin_rotation`): the new one is kept beside the present one,
which certifies its key; from then on it signs, and what it signs carries that certificate along, so that nodes
with either root trust it. `manager.orchestrator.rotation` has the nodes renew, and drops the old root at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from manager import lock
from manager.external_ca import Cfssl, Outside
from manager.sealer import Sealer
from manager.store import Put, Records, StaleWrite
from manager.trust import Signer, issued, signer_of
from pyswarm import pki
from pyswarm.api import Empty, IssueRequest, IssueResponse, RenewRequest, RootCAResponse, RotateCARequest
from pyswarm.clock import Clock, base36
from pyswarm.errors import Conflict, Invalid, NotFound, PermissionDenied
from pyswarm.objects import Cluster, JoinTokens, Meta, Node, NodeStatus, RootCA, RootRotation
from pyswarm.rpc import Peer
from pyswarm.specs import ClusterSpec, ExternalCA, NodeSpec

NodeRole = Literal["worker", "manager"]
_ATTEMPTS = 10
"""Compare-and-set attempts on a node's record before the caller is asked to come again."""


class Authority:
    """What the CA does with the cluster's record. Keys are opened when they are needed, and not kept."""

    def __init__(self, sealer: Sealer, clock: Clock, outside: Outside | None = None) -> None:
        """`outside` calls external CAs, where the cluster has some."""
        self._sealer = sealer
        self._clock = clock
        self._outside = outside if outside is not None else Cfssl()

    # ------------------------------------------------------------------------------------- the cluster

    def create_cluster(self, id: str, spec: ClusterSpec, root: pki.KeyPair | None = None) -> Cluster:
        """The record of a new cluster, with a CA of its own or one that the user brought, or the root of an
        external CA that the spec names. Raises Invalid if that one cannot serve."""
        now = self._clock.now()
        tokens = JoinTokens(worker=pki.new_token_secret(), manager=pki.new_token_secret())
        if root is None and spec.external_cas:
            ca = RootCA(cert=_outside_root(spec.external_cas, now), join_tokens=tokens)
            return Cluster(id=id, spec=spec, root_ca=ca, meta=Meta(created_at=now, updated_at=now))
        if root is None:
            root = pki.create_root(now)
        pki.check_root(root, now)
        ca = RootCA(cert=root.cert.decode(), key=self._sealer.seal(root.key), join_tokens=tokens)
        return Cluster(id=id, spec=spec, root_ca=ca, meta=Meta(created_at=now, updated_at=now))

    def root(self, cluster: Cluster) -> pki.KeyPair:
        """The present root's certificate and opened key. Raises Conflict if it signs elsewhere (external CA)."""
        return self._pair(Signer(cluster.root_ca.cert, cluster.root_ca.key))

    def _pair(self, signer: Signer) -> pki.KeyPair:
        if not signer.key:
            raise Conflict("this cluster's CA key is kept outside: certificates must be issued there")
        return pki.KeyPair(signer.cert.encode(), self._sealer.open(signer.key))

    # ---------------------------------------------------------------------------------------- rotation

    def begin_rotation(self, cluster: Cluster, request: RotateCARequest) -> Cluster:
        """The record with a new root beside the present one; in place of another that was to come, if a rotation
        goes on. The present root alone ends that, and everything stays as it was. Raises Invalid or Conflict when
        the new one cannot serve. May call an external CA: it blocks."""
        now = self._clock.now()
        spec = cluster.spec
        if request.cert_expiry:
            spec = replace(spec, node_cert_expiry=request.cert_expiry)
        new = self._new_root(request, now)
        cert = new.cert.decode()
        cas = tuple(replace(ca, ca_cert=ca.ca_cert or cert) for ca in request.external_cas)
        spec = replace(spec, external_cas=(*cas, *(ca for ca in spec.external_cas if ca not in cas)))
        ca = cluster.root_ca
        if pki.trusts(ca.cert, cert):
            if ca.rotation is None:
                raise Conflict("this is the root CA that the cluster has already")
            return replace(cluster, spec=spec, root_ca=replace(ca, rotation=None))
        crossed = self._cross_signed(cluster, new, now)
        rotation = RootRotation(cert=cert, key=self._sealer.seal(new.key), cross_signed=crossed)
        return replace(cluster, spec=spec, root_ca=replace(ca, rotation=rotation))

    @staticmethod
    def _new_root(request: RotateCARequest, now: float) -> pki.KeyPair:
        """The root to take; without a key when an external CA has it."""
        if not request.cert:
            if request.key or request.external_cas:
                raise Invalid("the CA's certificate is needed as well: --ca-cert FILE")
            return pki.create_root(now)
        root = pki.KeyPair(pki.bundle([request.cert]).encode(), request.key.encode())
        if request.key:
            pki.check_root(root, now)
        elif request.external_cas:
            pki.check_root_certificate(root.cert, now)
        else:
            raise Invalid(
                "the CA's key is needed as well (--ca-key FILE), or who signs with it (--external-ca)"
            )
        return root

    def _cross_signed(self, cluster: Cluster, new: pki.KeyPair, now: float) -> str:
        """The new root's key, certified by the present root."""
        ca = cluster.root_ca
        if ca.key:
            return pki.cross_sign(new.cert, self.root(cluster), now).decode()
        if not new.key:
            raise Invalid(
                "one external CA cannot be replaced by another at once: rotate to a root with its key first"
            )
        csr = pki.root_request(new).decode()
        return self._outside.cross_sign(cluster.spec.external_cas, ca.cert, csr, now).decode()

    # ---------------------------------------------------------------------------------------- autolock

    def unlock_key(self, cluster: Cluster) -> str:
        """The key that unlocks managers, as people write it; "" when they are not locked."""
        return lock.as_text(self._sealer.open(cluster.unlock_key)) if cluster.unlock_key else ""

    def locked(self, cluster: Cluster, *, rotate: bool = False) -> Cluster:
        """The record with an unlock key where its spec asks for one, and without where not; with a new one if
        `rotate`."""
        if not cluster.spec.autolock:
            return replace(cluster, unlock_key=b"")
        if cluster.unlock_key and not rotate:
            return cluster
        return replace(cluster, unlock_key=self._sealer.seal(lock.new_key()))

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

    # ----------------------------------------------------------------------------------------- signing

    def sign(self, cluster: Cluster, csr: str, node: Node) -> str:
        """A certificate (PEM) for the node's request, of the role that its spec asks for. Blocks while an external
        CA signs."""
        role: NodeRole = node.spec.role
        life = max(cluster.spec.node_cert_expiry, pki.MIN_NODE_LIFE)
        return self._certificate(cluster, csr, pki.Subject(node.id, role, cluster.id, _addresses(node)), life)

    async def sign_soon(self, cluster: Cluster, csr: str, node: Node) -> str:
        """As `sign`, from the event loop."""
        if signer_of(cluster.root_ca).key:
            return self.sign(cluster, csr, node)
        return await asyncio.to_thread(self.sign, cluster, csr, node)

    def _certificate(self, cluster: Cluster, csr: str, subject: pki.Subject, life: float) -> str:
        """Signed here, or outside, where the CA there decides how long it lives."""
        now, signer = self._clock.now(), signer_of(cluster.root_ca)
        if signer.key:
            chain = signer.chain.encode()
            return pki.sign(self._pair(signer), csr.encode(), subject, now, life, chain).decode()
        pki.check_request(csr.encode())
        cert = self._outside.sign(cluster.spec.external_cas, signer.cert, csr, subject, now)
        return cert.decode().rstrip() + "\n" + signer.chain

    def issue_node(self, cluster: Cluster, node: Node) -> pki.KeyPair:
        """Key and certificate for the first manager, which makes the cluster."""
        key = pki.new_key()
        csr = pki.create_request(key, node.id).decode()
        return pki.KeyPair(self.sign(cluster, csr, node).encode(), key)

    def sign_client(self, cluster: Cluster, name: str, csr: str) -> str:
        """A certificate (PEM) for a person's command line on another machine (a context)."""
        if not name:
            raise Invalid("a client certificate needs a name")
        return self._certificate(cluster, csr, pki.Subject(name, "client", cluster.id), pki.NODE_LIFE)


def _outside_root(cas: Sequence[ExternalCA], now: float) -> str:
    """The root of the external CAs of a new cluster."""
    certs = [ca.ca_cert for ca in cas if ca.ca_cert]
    if not certs:
        raise Invalid("--external-ca: say with cacert=FILE which root the CA signs with")
    pki.check_root_certificate(certs[0], now)
    return pki.bundle(certs[:1])


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
        cert = await self._authority.sign_soon(cluster, csr, node)
        now = self._clock.now()
        meta = replace(node.meta, updated_at=now)
        changed = replace(issued(node, pki.identity(cert), now), role=node.spec.role, meta=meta)
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
