"""Replacing the root CA while the cluster works: who is to renew its certificate now, and when the old root goes.

`Authority.begin_rotation` puts the new root beside the present one. From then on nodes are told to trust both,
and here are marked, a batch at a time, to have a certificate of the new one (`Node.certificate_wanted`; the agent
renews, and registers with its new certificate). Once every node says that it has one, and trusts the new root, that is
the only root. All that decides is in the store: a new leader goes on where the old one stopped.

A node that is down keeps the old root in force, since it could not come back otherwise: it returns, or is removed.
Keys: `("cluster", "")`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from manager.state import Changed, Key, Plan, View
from manager.trust import signer_of
from pyswarm import pki
from pyswarm.objects import Cluster, Node, NodeState

BATCH = 30
"""Nodes that renew at the same time (SwarmKit's)."""
_KEY: Key = ("cluster", "")


class RootRotation:
    """Carries a rotation through; without one, sees to it that all certificates are the present root's."""

    name = "rotation"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        before, after = change.before, change.after
        if isinstance(change.obj, Cluster):
            was = before.root_ca if isinstance(before, Cluster) else None
            now = after.root_ca if isinstance(after, Cluster) else None
            return () if was == now else (_KEY,)
        if isinstance(change.obj, Node):
            return () if _seen(before) == _seen(after) else (_KEY,)
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        return (_KEY,)

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        cluster = view.cluster
        if not keys or cluster is None or not cluster.root_ca.cert.startswith("-----BEGIN"):
            return plan
        root = signer_of(cluster.root_ca).cert
        wanted = pki.key_id(root)
        nodes = sorted(view.nodes(), key=lambda node: node.id)
        for node in due(nodes, wanted):
            plan.put(replace(node, certificate_wanted=wanted))
        if cluster.root_ca.rotation is not None and all(settled(node, root, wanted) for node in nodes):
            rotated = cluster.root_ca.rotation
            ca = replace(cluster.root_ca, cert=rotated.cert, key=rotated.key, rotation=None)
            plan.put(replace(cluster, root_ca=ca))
        return plan


def due(nodes: Iterable[Node], wanted: str) -> list[Node]:
    """The nodes to mark for renewal now: never more than a batch of those that are up has yet to renew."""
    late = [node for node in nodes if _up(node) and node.description.certificate_issuer not in ("", wanted)]
    waiting = [node for node in late if node.certificate_wanted != wanted]
    return waiting[: max(BATCH - (len(late) - len(waiting)), 0)]


def settled(node: Node, root: str, wanted: str) -> bool:
    """Whether a node has a certificate of the root and trusts it, as it says itself."""
    said = node.description
    return said.certificate_issuer == wanted and pki.trusts(said.root_ca, root)


def _up(node: Node) -> bool:
    return node.status.state == NodeState.READY


def _seen(obj: object) -> object:
    """What of a node matters here."""
    if not isinstance(obj, Node):
        return None
    said = obj.description
    return said.certificate_issuer, said.root_ca, obj.certificate_wanted, obj.status.state
