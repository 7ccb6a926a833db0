"""The first manager of a new cluster: its CA, its certificate, its sealing key, and the first records.

`prepare` runs in `pyswarm init`, before any daemon; it leaves the records in a file, sealed as they will be in the
store, which the manager writes there once etcd answers (`first_records`).
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

from manager import trust
from manager.backup import Backup
from manager.ca import Authority
from manager.sealer import Sealer
from pyswarm import nodeconfig, pki, wire
from pyswarm.clock import Clock, IdSource
from pyswarm.errors import Invalid
from pyswarm.nodeconfig import SEAL_KEY, NodeConfig, write_private
from pyswarm.objects import (
    Cluster,
    ManagerStatus,
    Meta,
    Network,
    Node,
    NodeStatus,
    Object,
    kind_of,
)
from pyswarm.specs import ClusterSpec, Driver, NetworkSpec, NodeSpec

RECORDS = Path("manager/bootstrap.sealed")


def prepare(
    config: NodeConfig, spec: ClusterSpec, node_spec: NodeSpec, clock: Clock, ids: IdSource
) -> Cluster:
    """Write everything that the first manager starts from below `config.state`; returns the cluster."""
    state = config.state
    for part in ("certs", "manager", "log"):
        (state / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    sealer = Sealer.create(state / SEAL_KEY)
    authority = Authority(sealer, clock)
    cluster = authority.locked(authority.create_cluster(config.cluster_id, spec))
    node = _first_node(config, node_spec, clock.now())
    pair = authority.issue_node(cluster, node)
    node = trust.issued(node, pki.identity(pair.cert), clock.now())
    _write_identity(config, cluster, pair)
    _save_records(state / RECORDS, [cluster, node, *_networks(ids, clock.now())], sealer)
    nodeconfig.save(config)
    return cluster


def prepare_restored(config: NodeConfig, backup: Backup, node_spec: NodeSpec, clock: Clock) -> None:
    """Write everything that the first manager of a cluster from a backup starts from. The nodes that were managers
    are workers from now on: their copies of the state are not this cluster's any more. Raises Invalid for a backup
    without a cluster or its keys."""
    state, now = config.state, clock.now()
    cluster = next((o for o in backup.objects if isinstance(o, Cluster)), None)
    if cluster is None or not backup.seal_keys:
        raise Invalid("the backup lacks the cluster's record, or the keys to its secrets: use a complete one")
    for part in ("certs", "manager", "log"):
        (state / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    sealer = Sealer(*backup.seal_keys)
    sealer.save(state / SEAL_KEY)
    node = _first_node(config, node_spec, now)
    pair = Authority(sealer, clock).issue_node(cluster, node)
    node = trust.issued(node, pki.identity(pair.cert), now)
    records: list[Object] = [node]
    for obj in backup.objects:
        if isinstance(obj, Node) and (obj.manager_status is not None or obj.spec.role == "manager"):
            cluster = trust.revoked(cluster, obj, now)
            spec = replace(obj.spec, role="worker")
            obj = replace(obj, role="worker", spec=spec, manager_status=None, **trust.NO_CERTIFICATE)
        if not isinstance(obj, Cluster):
            records.append(obj)
    fresh = [replace(o, meta=replace(o.meta, version=0)) for o in (cluster, *records)]
    _write_identity(config, cluster, pair)
    _save_records(state / RECORDS, fresh, sealer)
    nodeconfig.save(config)


def _write_identity(config: NodeConfig, cluster: Cluster, pair: pki.KeyPair) -> None:
    write_private(config.certs / "ca.pem", cluster.root_ca.cert.encode())
    write_private(config.certs / "node.pem", pair.cert)
    write_private(config.certs / "node.key", pair.key)


def _first_node(config: NodeConfig, spec: NodeSpec, now: float) -> Node:
    return Node(
        id=config.node_id,
        spec=spec,
        role="manager",
        status=NodeStatus(addr=config.advertise_addr, since=now),
        manager_status=ManagerStatus(
            addr=config.join_address, api=config.api_address, leader=True, reachability="reachable"
        ),
        data_path_addr=config.data_path_addr,
        meta=Meta(created_at=now, updated_at=now),
    )


def _networks(ids: IdSource, now: float) -> list[Object]:
    """The networks that every cluster has: the routing mesh's, and the one of services that name none."""
    meta = Meta(created_at=now, updated_at=now)
    ingress = NetworkSpec(name="ingress", ingress=True, driver=Driver(name="overlay"))
    default = NetworkSpec(name="bridge", attachable=True, driver=Driver(name="overlay"))
    return [
        Network(id=ids.new_id(), meta=meta, spec=ingress),
        Network(id=ids.new_id(), meta=meta, spec=default),
    ]


def _save_records(path: Path, objects: list[Object], sealer: Sealer) -> None:
    rows = [{"kind": kind_of(o), "data": base64.b64encode(wire.encode(o)).decode()} for o in objects]
    write_private(path, sealer.seal(json.dumps(rows).encode()))


def is_first(state: Path) -> bool:
    """Whether this manager is to write the cluster's first records."""
    return (state / RECORDS).exists()


def first_records(state: Path, sealer: Sealer) -> list[Object]:
    """What `prepare` left to be written to the store; [] when it was written already."""
    if not is_first(state):
        return []
    rows = json.loads(sealer.open((state / RECORDS).read_bytes()))
    return [wire.decode(row["kind"], base64.b64decode(row["data"])) for row in rows]


def records_written(state: Path) -> None:
    """The records are in the store: forget the file."""
    (state / RECORDS).unlink(missing_ok=True)
