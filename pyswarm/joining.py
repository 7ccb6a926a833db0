"""Joining a cluster: trust by the token's digest, a certificate for a key made here, an agent, perhaps a manager.

The token says which CA to trust before anything secret is sent: the manager's own certificate only serves to
ask for the CA's, and that must have the digest in the token. Everything is written after the manager agreed;
what was written is taken away again when the agent does not start. A manager goes on by itself from there: it
is a learner in Raft first and a voter once it has caught up, and opens its socket then.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pyswarm import daemon, daemons, disk, nodeconfig, pki, tmpfs
from pyswarm.api import Empty, IssueRequest, IssueResponse, RootCAResponse
from pyswarm.clock import RandomIds
from pyswarm.errors import Conflict, Invalid, PermissionDenied, Unavailable, Untrusted
from pyswarm.nodeconfig import CgroupDriver, NodeConfig, Ports, write_private
from pyswarm.rpc import TLS, Stub, channel

TIMEOUT = 20.0
"""Seconds for each answer of the manager."""
REGISTER_TIMEOUT = 60.0
"""Seconds that the agent has to register, once it was started."""
MANAGER_TIMEOUT = 180.0
"""Seconds that a new manager has to become one of the voters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """`pyswarm join`'s flags."""

    token: str
    remote: str
    """host:port of a manager's join listener; the port is 2377 where none is said."""
    advertise_addr: str = ""
    """IP address or interface, with or without port; "" finds the one towards `remote`."""
    listen_addr: str = ""
    """IP address, with or without port, on which a manager is to be joined through it; "" is 0.0.0.0:2377."""
    data_path_addr: str = ""
    availability: str = "active"
    state_dir: Path = nodeconfig.STATE_DIR
    run_dir: Path = nodeconfig.RUN_DIR
    cgroup_parent: str = "/pyswarm"
    cgroup_driver: CgroupDriver = "auto"
    link_prefix: str = "ps"
    ports: Ports = field(default_factory=Ports)
    """Those that this node listens on as a manager."""
    insecure_registries: tuple[str, ...] = ()
    generic_resources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """What the manager answered, and the key that it signed."""

    answer: IssueResponse
    ca: str
    key: bytes


def join(options: JoinOptions) -> NodeConfig:
    """Make this machine a node of the cluster, of the role that the token gives; returns its settings. Raises
    Conflict when it is a node already, PermissionDenied for a token or CA that is not right, Unavailable when no
    manager answers."""
    if (options.state_dir / "node.json").exists():
        raise Conflict(
            "this node is already part of a swarm: use `pyswarm leave` to leave it and join another one"
        )
    daemon.check_machine()
    disk.check_layers(options.state_dir)
    token = pki.parse_token(options.token)
    host, port = daemon.split_port(options.remote)
    if not host:
        raise Invalid(f"invalid address {options.remote!r}: write HOST:2377, where a manager listens")
    port = port or 2377
    own, own_port = daemon.split_port(options.advertise_addr)
    advertise = daemon.address_of(own) if own else daemon.address_towards(host, port)
    listening = daemon.listening(own_port, options.listen_addr, options.ports)
    admission = asyncio.run(_admitted(host, port, token, options, advertise))
    config = _config(options, admission, advertise, *listening)
    if config.role == "manager":
        daemon.check_ports(config)
    created = not options.state_dir.exists()
    try:
        _write(config, admission)
        tmpfs.ensure(config.run)
        daemons.start(config)
        _wait_registered(config)
    except BaseException:
        daemon.undo(config, remove_all=created)
        raise
    if config.role == "manager":
        _wait_manages(config)
    return config


def _wait_manages(config: NodeConfig) -> None:
    """Until this manager is one of the voters. It may be one at any moment, so that nothing is taken back here."""
    deadline = time.monotonic() + MANAGER_TIMEOUT
    while not config.socket.exists():
        if time.monotonic() > deadline:
            raise Unavailable(
                f"this node has joined, but its manager has not become one of the managers within "
                f"{MANAGER_TIMEOUT:.0f} s. It goes on trying; to give up, run `pyswarm node demote "
                f"{config.node_id}` on another manager\n{daemons.last_words(config)}"
            )
        time.sleep(0.05)


def _wait_registered(config: NodeConfig) -> None:
    """Until the agent has a session with a manager."""
    deadline = time.monotonic() + REGISTER_TIMEOUT
    while not config.session_file.exists():
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the agent has not registered within {REGISTER_TIMEOUT:.0f} s, so this machine has not joined. "
                f"The cluster keeps a record of the attempt: remove it with `pyswarm node rm {config.node_id}`\n"
                + daemons.last_words(config)
            )
        time.sleep(0.02)


async def _admitted(
    host: str, port: int, token: pki.JoinToken, options: JoinOptions, advertise: str
) -> Admission:
    leaf = await asyncio.to_thread(_certificate_of, host, port)
    target = f"dns:///{host}:{port}"
    ca = cast("RootCAResponse", await _ask(target, leaf.encode(), "CA.GetRootCA", Empty())).cert
    pki.check_trust(token, ca)
    key = pki.new_key()
    request = IssueRequest(
        csr=pki.create_request(key, RandomIds().new_id()).decode(),
        token=str(token),
        availability=options.availability,
        addr=advertise,
    )
    try:
        answer = cast("IssueResponse", await _ask(target, ca.encode(), "CA.Issue", request, wait=False))
    except Untrusted:
        raise PermissionDenied(
            f"who answers at {host}:{port} cannot show a certificate of the cluster's CA: wrong address, or someone in "
            "between. The token was not sent"
        ) from None
    return Admission(answer, ca, key)


def _certificate_of(host: str, port: int) -> str:
    """The certificate that the listener shows, trusted for nothing yet."""
    try:
        return ssl.get_server_certificate((host, port), timeout=TIMEOUT)
    except OSError as error:
        raise Unavailable(
            f"cannot reach a manager at {host}:{port}: {error}: is the address right, and the port open?"
        ) from None


async def _ask(
    target: str, ca: bytes, method: str, request: object, *, wait: bool = True
) -> RootCAResponse | IssueResponse:
    """`wait` for the connection to come up, where it is not known that it will not."""
    opened = channel(target, tls=TLS(ca=ca))
    try:
        return await Stub(opened, TIMEOUT).unary(method, request, wait=wait)
    finally:
        await opened.close(None)


def _config(
    options: JoinOptions, admission: Admission, advertise: str, listen: str, ports: Ports
) -> NodeConfig:
    data_path = daemon.address_of(options.data_path_addr) if options.data_path_addr else advertise
    answer = admission.answer
    return NodeConfig(
        node_id=answer.node_id,
        cluster_id=answer.cluster_id,
        role=answer.role,
        advertise_addr=advertise,
        data_path_addr=data_path,
        data_path_port=answer.data_path_port,
        listen_addr=listen,
        ports=ports,
        managers=answer.managers,
        state_dir=str(options.state_dir),
        run_dir=str(options.run_dir),
        cgroup_parent=options.cgroup_parent,
        cgroup_driver=options.cgroup_driver,
        link_prefix=options.link_prefix,
        insecure_registries=options.insecure_registries,
        generic_resources=options.generic_resources,
        service_manager="systemd" if daemons.systemd_runs() else "supervisor",
    )


def _write(config: NodeConfig, admission: Admission) -> None:
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.state.chmod(0o700)
    config.certs.mkdir(mode=0o700, exist_ok=True)
    write_private(config.certs / "ca.pem", admission.ca.encode())
    write_private(config.certs / "node.pem", admission.answer.cert.encode())
    write_private(config.certs / "node.key", admission.key)
    nodeconfig.save(config)
