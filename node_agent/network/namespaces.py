"""Network namespaces as files: made, entered and dropped by system calls in worker threads, without forks.

Everything here blocks and belongs in a worker thread. A socket stays for ever in the namespace it was opened
in, so callers open what they need inside once and use it from any thread afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pyswarm.errors import Fatal

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _run_apart(enter: Callable[[], None], work: Callable[[], T]) -> T:
    """Run `enter` and `work` in a thread of their own that ends afterwards.

    A thread that changed its namespace is never given back to a pool: were the way back to fail, the next
    job of that thread would quietly run in the wrong namespace.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            enter()
            results.append(work())
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def create(path: Path, work: Callable[[], T]) -> T:
    """Make a new namespace, hold it by a bind mount on `path`, and run `work` inside; its result is returned.

    When anything fails, nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(exist_ok=True, mode=0o600)

    def enter() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        _check(_libc.mount(source, os.fsencode(path), b"none", _MS_BIND, None), f"mount {path}")

    try:
        return _run_apart(enter, work)
    except BaseException:
        drop(path)
        raise


def inside(path: Path, work: Callable[[], T]) -> T:
    """Run `work` in the namespace held by `path`."""

    def enter() -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(descriptor, _CLONE_NEWNET), f"setns {path}")
        finally:
            os.close(descriptor)

    return _run_apart(enter, work)


def drop(path: Path) -> None:
    """Let go of the namespace: it ends with its last process and socket. Harmless when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        while held(path):
            _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"umount {path}")
        path.unlink()


def held(path: Path) -> bool:
    """Whether `path` is a namespace (and not a file that was left when the machine went down)."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def write_sysctls(values: Mapping[str, str]) -> None:
    """Write `net/...` sysctls of the namespace that this thread is in. One that the kernel does not have is
    Fatal, but for IPv6's: a machine may have none."""
    for key, value in values.items():
        try:
            descriptor = os.open(f"/proc/sys/{key}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if key.startswith("net/ipv6/"):
                continue
            advice = _ADVICE.get(key, "the kernel was built without an option that overlay networks need")
            raise Fatal(f"this kernel has no sysctl {key}: {advice}") from None
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


_ADVICE = {"net/bridge/bridge-nf-call-iptables": "load it with `modprobe br_netfilter`"}
