"""Whether another manager still answers: a sign of its end that comes sooner than the end of its lease.

The lease of a leader that was killed, or whose machine is gone, is held for seconds still, more in a large cluster,
and a new etcd leader gives it its whole time once more. Who stands next in line knocks at its door meanwhile. The
kernel answers for a process that is busy, or stopped: such a one keeps the lead until its lease runs out. But a
connection that is refused means that the process is gone, and silence, twice, that the machine is. Nothing that is
true depends on it: writes are fenced and reads confirmed, so that a mistake costs a change of the leader and no
more. An address that has never answered says nothing: a firewall may be in the way.
"""

from __future__ import annotations

import asyncio
import enum
import socket

PERIOD = 0.5
"""Seconds between two knocks."""
PATIENCE = 0.5
"""Seconds that a knock may remain unanswered."""
SILENCES = 2
"""Knocks without an answer, one after the other, that count as the end."""


class Sign(enum.Enum):
    ANSWERED = "answered"
    REFUSED = "refused"
    SILENT = "silent"


async def until_gone(address: str) -> None:
    """Returns when nobody is there any more, at an address (host:port) that has answered since this was called."""
    known, silences = False, 0
    while True:
        sign = await asyncio.to_thread(knock, address)
        known |= sign is Sign.ANSWERED
        silences = silences + 1 if sign is Sign.SILENT else 0
        if known and (sign is Sign.REFUSED or silences >= SILENCES):
            return
        await asyncio.sleep(0.0 if silences else PERIOD)


def knock(address: str) -> Sign:
    """Connect, and hang up. Blocks; a thread that is held up meanwhile does not take that for silence."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE):
            return Sign.ANSWERED
    except ConnectionRefusedError:
        return Sign.REFUSED
    except OSError:
        return Sign.SILENT
