"""Keeps one lease alive from a thread of its own.

The lead hangs on a lease of a second. The manager's event loop may be held up for longer than that: a large
cluster's state is read, a plan is made for thousands of tasks, the machine is overloaded. Were renewals its
work, the lead would be lost, the next leader would be held up in the same way, and nobody would ever lead. So
a thread renews; the event loop is only asked for a sign of life, and one that gives none for `HUNG` seconds
loses the lease, for then somebody else should lead.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import cast

import grpc

from manager.store.etcd_pb import rpc_pb2 as pb

HUNG = 15.0
"""Seconds without a sign of life from the event loop after which its lease is let go."""

ASKED = 3.0
"""Seconds after a sign of life at which the next one is asked for."""

Connect = Callable[[int], grpc.Channel]
"""A channel to an endpoint; the argument counts the attempts, so that each goes to another one. Called in the
thread."""


class Renewals:
    """Renews a lease until it is closed, gone, or cannot be renewed in time; tells the last two once.

    The time counts from when a renewal was *asked* for, so that we give up no later than etcd does (but for
    one last question, for it may have been us who stood still, not etcd; what is written meanwhile is fenced).
    """

    def __init__(
        self, lease: int, ttl: float, asked: float, connect: Connect, method: str, lost: Callable[[], None]
    ) -> None:
        """`asked` is the monotonic time at which the lease was asked for; `lost` is called in the event loop."""
        self._lease = lease
        self._ttl = ttl
        self._good_until = asked + ttl
        self._connect = connect
        self._method = method
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._seen = time.monotonic()
        self._over = threading.Event()
        self._attempts = 0
        self._stream: _Stream | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop renewing."""
        self._over.set()
        await asyncio.to_thread(self._thread.join)

    # ------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while self._renewed():
                if time.monotonic() - self._seen > ASKED:
                    self._in_loop(self._alive)
                self._over.wait(self._ttl / 3)
        finally:
            self._disconnect()
            if not self._over.is_set():
                self._in_loop(self._lost)

    def _alive(self) -> None:
        self._seen = time.monotonic()

    def _in_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call)

    def _renewed(self) -> bool:
        """Renew, again and again while there is time; False when the lease is not ours any more."""
        while not self._over.is_set() and time.monotonic() - self._seen < HUNG:
            asked = time.monotonic()
            granted = self._ask(self._ttl / 2)
            if granted is not None:
                self._good_until = asked + granted
                return granted > 0
            if asked >= self._good_until:
                return False
            self._over.wait(0.05)
        return False

    def _ask(self, timeout: float) -> int | None:
        """The seconds that the lease was given, 0 when it is gone; None when nobody answered."""
        if self._stream is None:
            self._stream = _Stream(self._connect(self._attempts), self._method)
            self._attempts += 1
        granted = self._stream.ask(self._lease, timeout)
        if granted is None:
            self._disconnect()
        return granted

    def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class _Stream:
    """One stream of questions and answers, over a channel that it closes in the end.

    It stays open between renewals: a call for each of them would cost an idle manager two new threads every
    time. An answer is waited for only once there is a question, because gRPC looks ten times a second whether
    one has come.
    """

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._channel = channel
        self._questions: SimpleQueue[pb.LeaseKeepAliveRequest | None] = SimpleQueue()
        self._asked: SimpleQueue[bool] = SimpleQueue()
        """True for each question whose answer is to be read; False: no more will come."""
        self._answers: SimpleQueue[int | None] = SimpleQueue()
        """Seconds granted; None: the stream has ended."""
        call = channel.stream_stream(
            method,
            request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )
        self._call = call(iter(self._questions.get, None), metadata=(("hasleader", "true"),))
        self._reader = threading.Thread(target=self._read, name="lease-answers", daemon=True)
        self._reader.start()

    def ask(self, lease: int, timeout: float) -> int | None:
        """The seconds granted, 0 when the lease is gone; None without an answer in time."""
        self._questions.put(pb.LeaseKeepAliveRequest(ID=lease))
        self._asked.put(True)
        try:
            return self._answers.get(timeout=timeout)
        except Empty:
            return None

    def close(self) -> None:
        self._questions.put(None)
        self._asked.put(False)
        self._call.cancel()
        self._reader.join()
        self._channel.close()

    def _read(self) -> None:
        answers = cast("Iterator[pb.LeaseKeepAliveResponse]", self._call)
        while self._asked.get():
            try:
                self._answers.put(next(answers).TTL)
            except (grpc.RpcError, StopIteration):
                self._answers.put(None)
                return
