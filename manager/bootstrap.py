"""The first manager of a new cluster: its CA, its certificate, its sealing key, and the first records.

`prepare` runs in `pyswarm init`, before any daemon; it leaves the records in a file (keys in it are sealed),
which the manager writes to the store once etcd answers (`first_records`).
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

from manager.ca import Authority
from manager.sealer import Sealer
from pyswarm import nodeconfig, pki, wire
from pyswarm.clock import Clock, IdSource
from pyswarm.nodeconfig import NodeConfig, write_private
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

SEAL_KEY = Path("manager/seal.key")
RECORDS = Path("manager/bootstrap.json")


def prepare(
    config: NodeConfig, spec: ClusterSpec, node_spec: NodeSpec, clock: Clock, ids: IdSource
) -> Cluster:
    """Write everything that the first manager starts from below `config.state`; returns the cluster."""
    state = config.state
    for part in ("certs", "manager", "log"):
        (state / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    sealer = Sealer.create(state / SEAL_KEY)
    authority = Authority(sealer, clock)
    cluster = authority.create_cluster(config.cluster_id, spec)
    node = _first_node(config, node_spec, clock.now())
    pair = authority.issue_node(cluster, node)
    node = replace(node, certificate_serial=pki.identity(pair.cert).serial)
    write_private(config.certs / "ca.pem", cluster.root_ca.cert.encode())
    write_private(config.certs / "node.pem", pair.cert)
    write_private(config.certs / "node.key", pair.key)
    _save_records(state / RECORDS, [cluster, node, *_networks(ids, clock.now())])
    nodeconfig.save(config)
    return cluster


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


def _save_records(path: Path, objects: list[Object]) -> None:
    rows = [{"kind": kind_of(o), "data": base64.b64encode(wire.encode(o)).decode()} for o in objects]
    write_private(path, json.dumps(rows).encode())


def first_records(state: Path) -> list[Object]:
    """What `prepare` left to be written to the store; [] when it was written already."""
    path = state / RECORDS
    if not path.exists():
        return []
    return [wire.decode(row["kind"], base64.b64decode(row["data"])) for row in json.loads(path.read_text())]


def records_written(state: Path) -> None:
    """The records are in the store: forget the file."""
    (state / RECORDS).unlink(missing_ok=True)
