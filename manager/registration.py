"""What a manager believes of what a node says: of itself when it registers, and of its tasks. Pure."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import replace

from pyswarm import wire
from pyswarm.api import SessionRequest
from pyswarm.errors import Invalid
from pyswarm.objects import TaskStatus

MAX_BYTES = 256 * 1024
"""Of a whole registration; a node with labels, plugins and two roots has a few thousand."""
MAX_NAME = 255
MAX_AMOUNT = 2**62
"""Of a resource."""
MAX_WORDS = 8192
"""Characters of a task's message or error that are kept."""


def check(request: SessionRequest) -> None:
    """Raises Invalid with all that cannot be: addresses that are none would break the networks of other nodes, and
    control characters the terminals of people."""
    said = request.description
    problems = [
        *(_address("addr", request.addr)),
        *(_address("data_path_addr", request.data_path_addr)),
        *(_host_port("join_addr", request.join_addr)),
        *(_host_port("api_addr", request.api_addr)),
    ]
    for name, text in (
        ("hostname", said.hostname),
        ("engine_version", said.engine_version),
        ("kernel", said.kernel),
        ("os_name", said.os_name),
        ("cgroup", said.cgroup),
        ("certificate_issuer", said.certificate_issuer),
        ("platform.architecture", said.platform.architecture),
        ("platform.os", said.platform.os),
    ):
        if len(text) > MAX_NAME or not text.isprintable():
            problems.append(f"description.{name}: must be printable, and of {MAX_NAME} characters at most")
    amounts = (said.resources.nano_cpus, said.resources.memory, *(g.value for g in said.resources.generic))
    if any(not 0 <= amount <= MAX_AMOUNT for amount in amounts):
        problems.append("description.resources: an amount is negative, or beyond any machine")
    if len(wire.to_bytes(request)) > MAX_BYTES:
        problems.append(f"description: more than {MAX_BYTES} bytes")
    if problems:
        raise Invalid("registration: " + "; ".join(problems))


def _address(name: str, text: str) -> list[str]:
    try:
        if text:
            ipaddress.ip_address(text)
    except ValueError:
        return [f"{name}: not an IP address"]
    return []


def _host_port(name: str, text: str) -> list[str]:
    host, _, port = text.rpartition(":")
    if text and (not port.isdecimal() or not 0 < int(port[:6]) < 65536 or _address(name, host.strip("[]"))):
        return [f"{name}: not an IP address and a port"]
    return []


def believed(status: TaskStatus) -> TaskStatus:
    """What an agent reports of its task, of a size that the store can keep. Raises Invalid for times that are none."""
    times = (status.timestamp, status.started_at, status.finished_at, status.running_since)
    if not all(map(math.isfinite, times)):
        raise Invalid("a task's status carries a time that is none")
    if max(len(status.message), len(status.err), len(status.container_id)) <= MAX_WORDS:
        return status
    return replace(
        status,
        message=status.message[:MAX_WORDS],
        err=status.err[:MAX_WORDS],
        container_id=status.container_id[:MAX_WORDS],
    )
