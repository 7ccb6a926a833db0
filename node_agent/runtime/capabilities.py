"""Linux capabilities: the names, Docker's default set, and what cap_add and cap_drop make of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm.errors import Invalid

_ALL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE"
)

ALL: tuple[str, ...] = tuple(f"CAP_{name}" for name in _ALL.split())
"""Every capability, at the index of its number (capabilities(7))."""

DEFAULT: tuple[str, ...] = tuple(f"CAP_{name}" for name in _DEFAULT.split())
"""What Docker leaves a container: 00000000a80425fb in /proc/self/status."""

_KNOWN = frozenset(ALL)


def from_mask(mask: int) -> frozenset[str]:
    """The names of the bits set in `mask`, as in the Cap lines of /proc/PID/status."""
    return frozenset(name for number, name in enumerate(ALL) if mask >> number & 1)


def canonical(name: str, where: str) -> str:
    """`net_admin` and `CAP_NET_ADMIN` as `CAP_NET_ADMIN`; ALL as `ALL`. Invalid for an unknown one."""
    upper = name.strip().upper()
    if upper in ("ALL", "CAP_ALL"):
        return "ALL"
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in _KNOWN:
        raise Invalid(f"{where}: {name!r} is no Linux capability: see capabilities(7) for the names")
    return full


def effective(
    add: Sequence[str], drop: Sequence[str], *, privileged: bool, available: frozenset[str]
) -> tuple[str, ...]:
    """The capabilities of a container, in the order of their numbers.

    Docker's rules: a privileged container has all; `cap_add: ALL` is all but what is dropped; `cap_drop: ALL`
    leaves what is added; otherwise the default set and what is added, without what is dropped.
    `available` is what the agent holds itself. Asking by name for one it does not hold is Invalid.
    """
    added = [canonical(name, f"cap_add[{index}]") for index, name in enumerate(add)]
    dropped = {canonical(name, f"cap_drop[{index}]") for index, name in enumerate(drop)}
    if privileged:
        return _ordered(_KNOWN & available)
    for name in added:
        if name != "ALL" and name not in available:
            raise Invalid(f"cap_add: the node agent does not hold {name} itself, so no container can have it")
    if "ALL" in added:
        return _ordered((_KNOWN & available) - dropped)
    base: set[str] = set() if "ALL" in dropped else set(DEFAULT) - dropped
    return _ordered(frozenset(base | set(added)) & available)


def _ordered(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in ALL if name in names)
