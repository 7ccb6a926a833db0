"""What a build is asked to be, and buildah's flags for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node_agent.images.reference import parse
from pyswarm.errors import Invalid

LIMITS = (
    *("cgroup-parent", "cpu-period", "cpu-quota", "cpu-shares", "cpuset-cpus", "cpuset-mems"),
    *("memory", "memory-swap", "security-opt"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSecret:
    """A secret for `RUN --mount=type=secret,id=...`: from a file or from a value."""

    id: str
    source: str = ""
    value: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Everything that Compose's `build` can say."""

    context: str = "."
    """Directory, or URL of a git repository or archive."""
    dockerfile: str = ""
    """Path, relative to the context; "" is Dockerfile (or Containerfile)."""
    dockerfile_inline: str = ""
    tags: tuple[str, ...] = ()
    args: Mapping[str, str] = field(default_factory=dict[str, str])
    target: str = ""
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    network: str = ""
    """"", host or default: the node's network; or none."""
    extra_hosts: tuple[str, ...] = ()
    """`name:address` or `name=address`."""
    secrets: tuple[BuildSecret, ...] = ()
    ssh: tuple[str, ...] = ()
    """`default` or `id=path`."""
    additional_contexts: Mapping[str, str] = field(default_factory=dict[str, str])
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    """`name=soft:hard`."""
    privileged: bool = False
    limits: Mapping[str, str | Sequence[str]] = field(default_factory=dict[str, str | Sequence[str]])
    """Of the steps' containers, by buildah's names for them: see LIMITS."""


def _isolation(request: BuildRequest) -> Sequence[str]:
    """Steps run in a chroot, the cheapest; limits, a network or a /dev/shm of their own need an OCI runtime."""
    if request.network not in ("", "default", "host", "none"):
        raise Invalid(f"build.network: {request.network!r} is not supported: use host, default or none")
    if request.network != "none" and not request.shm_size and not request.limits:
        return ("--isolation=chroot",)
    network = "none" if request.network == "none" else "host"
    shm = [f"--shm-size={request.shm_size}"] if request.shm_size else []
    unknown = sorted(set(request.limits) - set(LIMITS))
    if unknown:
        raise Invalid(f"build.limits: unknown {', '.join(unknown)}: one of {', '.join(LIMITS)}")
    limits = [
        f"--{name}={value}"
        for name, values in sorted(request.limits.items())
        for value in ((values,) if isinstance(values, str) else values)
    ]
    return ("--isolation=oci", f"--network={network}", *shm, *limits)


def _cache_repository(entry: str) -> str:
    """The repository that a cache_from or cache_to entry names; "" for caches that are no registry."""
    if "=" not in entry:
        return parse(entry).repository
    pairs = (part.partition("=") for part in entry.split(","))
    fields = {name: value for name, _, value in pairs}
    return parse(fields["ref"]).repository if fields.get("type") == "registry" and "ref" in fields else ""


def build_flags(request: BuildRequest) -> Sequence[str]:
    """buildah's flags for a request. Pure."""
    flags: list[str] = ["--layers", *_isolation(request)]
    if len(request.platforms) > 1:
        flags += [f"--platform={','.join(request.platforms)}"]
        flags += [f"--manifest={parse(tag).local_names[0]}" for tag in request.tags[:1]]
    else:
        flags += [f"--platform={platform}" for platform in request.platforms]
        flags += [f"--tag={parse(tag).local_names[0]}" for tag in request.tags]
    flags += [f"--build-arg={name}={value}" for name, value in sorted(request.args.items())]
    flags += [f"--label={name}={value}" for name, value in sorted(request.labels.items())]
    flags += [f"--target={request.target}"] if request.target else []
    flags += [f"--cache-from={name}" for name in filter(None, map(_cache_repository, request.cache_from))]
    flags += [f"--cache-to={name}" for name in filter(None, map(_cache_repository, request.cache_to))]
    flags += [f"--add-host={entry.replace('=', ':', 1)}" for entry in request.extra_hosts]
    flags += [f"--ssh={entry}" for entry in request.ssh]
    flags += [
        f"--build-context={name}={value}" for name, value in sorted(request.additional_contexts.items())
    ]
    flags += [f"--ulimit={entry}" for entry in request.ulimits]
    flags += ["--no-cache"] if request.no_cache else []
    flags += ["--cap-add=all"] if request.privileged else []
    flags += ["--pull=always"] if request.pull else ["--pull=false"]
    return flags
