"""A process that is one machine's agent, for the network tests: runs a NetworkManager in the namespace it was
started in, and does what it reads from its standard input (pickled calls, answered in order)."""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import sys
import traceback
from pathlib import Path
from typing import Any

from node_agent.network.manager import NetworkManager
from node_agent.ports import Paths
from pyswarm.errors import Conflict, Invalid, NotFound, Unavailable


async def main() -> None:
    state, run, node_id, addr, prefix, resolv, port = sys.argv[1:8]
    paths = Paths(state=Path(state), run=Path(run))
    manager = NetworkManager(
        paths,
        node_id=node_id,
        data_path_addr=addr,
        data_path_port=int(port),
        prefix=prefix,
        resolv_conf=Path(resolv),
        repair_interval=float(os.environ.get("REPAIR_INTERVAL", "0")),
    )
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while True:
        try:
            size = struct.unpack("!I", await reader.readexactly(4))[0]
        except asyncio.IncompleteReadError:
            return
        name, args, kwargs = pickle.loads(await reader.readexactly(size))
        answer: tuple[bool, Any]
        try:
            if name == "attach_many":
                answer = True, list(await asyncio.gather(*(manager.attach(task) for task in args[0])))
            elif name == "attach_cancelled":
                job = asyncio.ensure_future(manager.attach(args[0]))
                await asyncio.sleep(0)
                job.cancel()
                await asyncio.wait([job])
                answer = True, None
            else:
                answer = True, await getattr(manager, name)(*args, **kwargs)
        except Exception as exc:
            plain = (Invalid, Conflict, NotFound, Unavailable)
            answer = False, exc if isinstance(exc, plain) else RuntimeError(traceback.format_exc())
        data = pickle.dumps(answer)
        sys.stdout.buffer.write(struct.pack("!I", len(data)) + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main())
