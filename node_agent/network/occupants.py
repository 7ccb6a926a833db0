"""Programs of this node that wait for clients at a port: whether there is one, and which."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from pyswarm.specs import PortConfig

_WAITING = {"tcp": "0A", "udp": "07"}
"""The kernel's socket states (include/net/tcp_states.h) of those that wait for anybody's packets."""


def sockets(port: PortConfig) -> list[str]:
    """Inodes of the sockets that wait at the port. An outgoing connection that happens to come from there is no such
    thing, and sockets that are bound and do not listen (pyswarm's own claims) are not listed."""
    ending, found = f":{port.published_port:04X}", list[str]()
    for family in ("", "6"):
        with suppress(OSError):
            rows = Path(f"/proc/thread-self/net/{port.protocol}{family}").read_text().splitlines()[1:]
            for fields in map(str.split, rows):
                if fields[1].endswith(ending) and fields[3] == _WAITING.get(port.protocol):
                    found.append(fields[9])
    return found


def who(port: PortConfig) -> str:
    """`nginx (pid 812)`, or `another program` where that cannot be told (it runs in a namespace of its own)."""
    wanted = {f"socket:[{inode}]" for inode in sockets(port)}
    pid = next(_holders(wanted), 0) if wanted else 0
    if not pid:
        return "another program"
    with suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return f"pid {pid}"


def _holders(links: Collection[str]) -> Iterator[int]:
    """Processes that have one of these open, the oldest first."""
    pids = sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    for pid in pids:
        with suppress(OSError):
            if any(str(path.readlink()) in links for path in Path(f"/proc/{pid}/fd").iterdir()):
                yield pid
