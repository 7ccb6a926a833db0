"""The flags of `service create` and `service update`, and a spec with those flags applied; pure but for files.

One function, `apply`, serves both: creating is updating a blank spec. A flag that was not given is None (or an
empty tuple) and changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import click

from pyswarm.cli import values
from pyswarm.errors import Invalid
from pyswarm.specs import (
    ContainerSpec,
    Driver,
    EndpointSpec,
    Healthcheck,
    NetworkAttachmentSpec,
    Placement,
    ResourceRequirements,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _List:
    """A flag that may be repeated: `--NAME` of create, `--NAME-add` and `--NAME-rm` of update."""

    name: str
    help: str
    short: str = ""


LISTS = (
    _List("config", "Specify configurations to expose to the service"),
    _List("constraint", "Placement constraints"),
    _List("container-label", "Container labels"),
    _List("dns", "Set custom DNS servers"),
    _List("dns-option", "Set DNS options"),
    _List("dns-search", "Set custom DNS search domains"),
    _List("env", "Set environment variables", "-e"),
    _List("generic-resource", "User defined resources"),
    _List("group", "Set one or more supplementary user groups for the container"),
    _List("host", "Set one or more custom host-to-IP mappings (host:ip)"),
    _List("label", "Service labels", "-l"),
    _List("mount", "Attach a filesystem mount to the service"),
    _List("network", "Network attachments"),
    _List("placement-pref", "Add a placement preference"),
    _List("publish", "Publish a port as a node port", "-p"),
    _List("secret", "Specify secrets to expose to the service"),
    _List("sysctl", "Sysctl options"),
    _List("ulimit", "Ulimit options"),
)


class _Parsed(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only since click 8.4
    """A value read by one of `pyswarm.cli.values`' functions; a word that it refuses is wrong usage."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except Invalid as error:
            self.fail(str(error), param, ctx)


DURATION = _Parsed("duration", values.duration)
BYTES = _Parsed("bytes", values.size)
CPUS = _Parsed("decimal", values.cpus)
_COUNT = click.IntRange(min=0)


def _scalars() -> list[Callable[[Command], Command]]:
    """Options that create and update share."""
    option = click.option
    update: list[Callable[[Any], Any]] = []
    for kind, word in (("update", "update"), ("rollback", "rollback")):
        actions = ("pause", "continue", "rollback") if kind == "update" else ("pause", "continue")
        update += [
            option(f"--{kind}-delay", type=DURATION, help=f"Delay between task {word}s (default 0s)"),
            option(
                f"--{kind}-failure-action",
                type=click.Choice(actions),
                help=f"Action on {word} failure (default pause)",
            ),
            option(
                f"--{kind}-max-failure-ratio",
                type=float,
                help=f"Failure rate to tolerate during a {word} (default 0)",
            ),
            option(
                f"--{kind}-monitor",
                type=DURATION,
                help=f"Duration after each task {word} to monitor for failure (default 5s)",
            ),
            option(
                f"--{kind}-order",
                type=click.Choice(("start-first", "stop-first")),
                help=f"Order of a {word} (default stop-first)",
            ),
            option(
                f"--{kind}-parallelism",
                type=_COUNT,
                help=f"Tasks in one {word} at the same time, 0 for all (default 1)",
            ),
        ]
    return [
        option("--cap-add", multiple=True, help="Add Linux capabilities"),
        option("--cap-drop", multiple=True, help="Drop Linux capabilities"),
        option("--credential-spec", hidden=True),
        option("-d", "--detach/--no-detach", default=False, help="Do not wait for the service to converge"),
        option("--endpoint-mode", type=click.Choice(("vip", "dnsrr")), help="Endpoint mode (default vip)"),
        option("--entrypoint", help="Overwrite the default ENTRYPOINT of the image"),
        option("--health-cmd", help="Command to run to check health"),
        option("--health-interval", type=DURATION, help="Time between running the check"),
        option("--health-retries", type=_COUNT, help="Consecutive failures needed to report unhealthy"),
        option("--health-start-interval", type=DURATION, help="Time between checks during the start period"),
        option("--health-start-period", type=DURATION, help="Start period before counting retries"),
        option("--health-timeout", type=DURATION, help="Maximum time to allow one check to run"),
        option("--hostname", help="Container hostname"),
        option("--init/--no-init", default=None, help="Use an init inside each container to reap processes"),
        option("--isolation", hidden=True),
        option("--limit-cpu", type=CPUS, help="Limit CPUs"),
        option("--limit-memory", type=BYTES, help="Limit memory"),
        option("--limit-pids", type=_COUNT, help="Limit maximum number of processes (default 0 = unlimited)"),
        option("--log-driver", help="Logging driver for the service"),
        option("--log-opt", multiple=True, help="Logging driver options"),
        option(
            "--max-concurrent",
            type=_COUNT,
            help="Number of job tasks to run concurrently (default equal to --replicas)",
        ),
        option("--no-healthcheck/--with-healthcheck", default=False, help="Disable the image's HEALTHCHECK"),
        option("--no-resolve-image", is_flag=True, help="Do not pin the image to its digest"),
        option("--oom-score-adj", type=click.IntRange(-1000, 1000), help="Tune host's OOM preferences"),
        option("-q", "--quiet", is_flag=True, help="Suppress progress output"),
        option("--read-only/--no-read-only", default=None, help="Mount the root filesystem as read only"),
        option("--replicas", type=_COUNT, help="Number of tasks"),
        option(
            "--replicas-max-per-node",
            type=_COUNT,
            help="Maximum number of tasks per node (default 0 = unlimited)",
        ),
        option("--reserve-cpu", type=CPUS, help="Reserve CPUs"),
        option("--reserve-memory", type=BYTES, help="Reserve memory"),
        option(
            "--restart-condition",
            type=click.Choice(("none", "on-failure", "any")),
            help="When to restart (default any; of jobs on-failure)",
        ),
        option("--restart-delay", type=DURATION, help="Delay between restart attempts (default 5s)"),
        option("--restart-max-attempts", type=_COUNT, help="Maximum number of restarts before giving up"),
        option("--restart-window", type=DURATION, help="Window used to evaluate the restart policy"),
        *update,
        option(
            "--stop-grace-period",
            type=DURATION,
            help="Time to wait before force killing a container (default 10s)",
        ),
        option("--stop-signal", help="Signal to stop the container"),
        option("--timeout", type=DURATION, help="Give up waiting after this time, with exit code 1"),
        option("-t", "--tty/--no-tty", default=None, help="Allocate a pseudo-TTY"),
        option("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])"),
        option(
            "--with-registry-auth", is_flag=True, help="Send registry authentication details to the agents"
        ),
        option("-w", "--workdir", help="Working directory inside the container"),
    ]


def _decorated(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def create_options(command: Command) -> Command:
    """Every option of `service create`."""
    modes = ("replicated", "global", "replicated-job", "global-job")
    lists = [
        click.option(
            *([each.short] if each.short else []),
            f"--{each.name}",
            f"{each.name.replace('-', '_')}_add",
            multiple=True,
            help=each.help,
        )
        for each in LISTS
    ]
    more = [
        click.option("--env-file", multiple=True, help="Read in a file of environment variables"),
        click.option("--mode", type=click.Choice(modes), default="replicated", help="Service mode"),
        click.option("--name", default="", help="Service name"),
    ]
    return _decorated(command, [*lists, *more, *_scalars()])


def update_options(command: Command) -> Command:
    """Every option of `service update`."""
    lists: list[Callable[[Any], Any]] = []
    for each in LISTS:
        lists.append(click.option(f"--{each.name}-add", multiple=True, help=f"Add: {each.help}"))
        lists.append(click.option(f"--{each.name}-rm", multiple=True, help=f"Remove: {each.help}"))
    more = [
        click.option("--args", help="Service command args"),
        click.option("--force", is_flag=True, help="Force update even if no changes require it"),
        click.option("--image", help="Service image tag"),
        click.option("--rollback", is_flag=True, help="Rollback to previous specification"),
    ]
    return _decorated(command, [*lists, *more, *_scalars()])


class Flags:
    """The options of one command line: `flags["limit_cpu"]`, None or () when not given."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def __getitem__(self, name: str) -> Any:
        return self._given.get(name)

    def adding(self, name: str) -> tuple[str, ...]:
        return self._given.get(f"{name}_add") or ()

    def removing(self, name: str) -> tuple[str, ...]:
        return self._given.get(f"{name}_rm") or ()

    def changed(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Keyword arguments for `replace`: attribute -> value, of the flags that were given."""
        return {field: self[flag] for field, flag in fields.items() if self[flag] is not None}


def apply(
    spec: ServiceSpec,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    network_ids: Mapping[str, str] | None = None,
) -> ServiceSpec:
    """`spec` with the flags applied. `environ` gives a bare `--env NAME` its value; `network_ids` are the ids
    of the networks that are named, for those that the spec holds by id. Raises Invalid."""
    flags = Flags(given)
    ids = network_ids or {}
    mode = _mode(spec.mode, flags)
    return replace(
        spec,
        name=flags["name"] or spec.name,
        labels=_labels(spec.labels, flags, "label"),
        task=_run_once(_task(spec.task, flags, environ, ids), mode, flags),
        mode=mode,
        update=_update(spec.update, flags, "update"),
        rollback=_update(spec.rollback, flags, "rollback"),
        endpoint=_endpoint(spec.endpoint, flags),
    )


def _run_once(task: TaskSpec, mode: ServiceMode, flags: Flags) -> TaskSpec:
    """A job that says nothing of when to restart does so on failure: to have completed is its end."""
    if not mode.kind.endswith("-job") or flags["restart_condition"] or task.restart.condition != "any":
        return task
    return replace(task, restart=replace(task.restart, condition="on-failure"))


def _without(items: Sequence[T], removed: Sequence[str], key: Callable[[T], str]) -> tuple[T, ...]:
    return tuple(item for item in items if key(item) not in removed)


def _merged(
    items: Sequence[T], added: Sequence[T], removed: Sequence[str], key: Callable[[T], str]
) -> tuple[T, ...]:
    """Old items less those removed or replaced, then the new ones."""
    keys = [key(item) for item in added]
    return (*_without(items, [*removed, *keys], key), *added)


def _words(items: Sequence[str], flags: Flags, name: str) -> tuple[str, ...]:
    """A list of plain words, each at most once, in order."""
    kept = [item for item in items if item not in flags.removing(name)]
    return tuple(dict.fromkeys([*kept, *flags.adding(name)]))


def _labels(labels: Mapping[str, str], flags: Flags, name: str) -> Mapping[str, str]:
    if not flags.adding(name) and not flags.removing(name):
        return labels
    kept = {key: value for key, value in labels.items() if key not in flags.removing(name)}
    return {**kept, **values.pairs(flags.adding(name))}


# ------------------------------------------------------------------------------------------- the task


def _task(spec: TaskSpec, flags: Flags, environ: Mapping[str, str], ids: Mapping[str, str]) -> TaskSpec:
    log = spec.log_driver
    if flags["log_driver"] is not None or flags["log_opt"]:
        name = flags["log_driver"] if flags["log_driver"] is not None else (log.name if log else "")
        log = Driver(name=name, options=values.pairs(flags["log_opt"] or ()))
    return replace(
        spec,
        container=_container(spec.container, flags, environ),
        resources=_resources(spec.resources, flags),
        restart=_restart(spec.restart, flags),
        placement=_placement(spec.placement, flags),
        networks=_networks(spec.networks, flags, ids),
        log_driver=log,
        force_update=spec.force_update,
    )


_CONTAINER_TEXTS = {
    "hostname": "hostname",
    "dir": "workdir",
    "user": "user",
    "isolation": "isolation",
    "init": "init",
    "tty": "tty",
    "read_only": "read_only",
    "stop_signal": "stop_signal",
    "stop_grace_period": "stop_grace_period",
    "oom_score_adj": "oom_score_adj",
}


def _container(spec: ContainerSpec, flags: Flags, environ: Mapping[str, str]) -> ContainerSpec:
    if flags["credential_spec"]:
        raise Invalid("--credential-spec is for Windows containers, which pyswarm does not run")
    cap_add, cap_drop = _capabilities(spec, flags)
    return replace(
        spec,
        **flags.changed(_CONTAINER_TEXTS),
        image=values.tagged(flags["image"]) if flags["image"] else spec.image,
        command=_command(spec.command, flags["entrypoint"]),
        args=_arguments(spec.args, flags),
        env=_env(spec.env, flags, environ),
        labels=_labels(spec.labels, flags, "container_label"),
        groups=_words(spec.groups, flags, "group"),
        dns_nameservers=_words(spec.dns_nameservers, flags, "dns"),
        dns_search=_words(spec.dns_search, flags, "dns_search"),
        dns_options=_words(spec.dns_options, flags, "dns_option"),
        hosts=_hosts(spec.hosts, flags),
        mounts=_merged(
            spec.mounts,
            [values.mount(text) for text in flags.adding("mount")],
            flags.removing("mount"),
            lambda mount: mount.target,
        ),
        secrets=_files(spec.secrets, flags, "secret"),
        configs=_files(spec.configs, flags, "config"),
        sysctls=_labels(spec.sysctls, flags, "sysctl"),
        ulimits=_merged(
            spec.ulimits,
            [values.ulimit(text) for text in flags.adding("ulimit")],
            flags.removing("ulimit"),
            lambda limit: limit.name,
        ),
        cap_add=cap_add,
        cap_drop=cap_drop,
        healthcheck=_health(spec.healthcheck, flags),
    )


def _command(command: tuple[str, ...] | None, entrypoint: str | None) -> tuple[str, ...] | None:
    if entrypoint is None:
        return command
    return tuple(_split(entrypoint)) or None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Invalid(f"cannot split {text!r} into words: {error}") from None


def _arguments(args: tuple[str, ...] | None, flags: Flags) -> tuple[str, ...] | None:
    """`--args` of update is one string; create has the words after the image."""
    if flags["arguments"]:
        return tuple(flags["arguments"])
    if flags["args"] is None:
        return args
    return tuple(_split(flags["args"])) or None


def _env(env: tuple[str, ...], flags: Flags, environ: Mapping[str, str]) -> tuple[str, ...]:
    added = values.environment(flags.adding("env"), flags["env_file"] or (), environ)
    found = {entry.partition("=")[0]: entry for entry in (*env, *added)}
    return tuple(entry for name, entry in found.items() if name not in flags.removing("env"))


def _hosts(hosts: tuple[str, ...], flags: Flags) -> tuple[str, ...]:
    removed = [text.partition(":") for text in flags.removing("host")]
    kept = tuple(
        line
        for line in hosts
        if not any(
            name in line.split()[1:] and (not address or line.split()[0] == address)
            for name, _, address in removed
        )
    )
    return (*kept, *(values.host(text) for text in flags.adding("host")))


def _files(refs: tuple[Any, ...], flags: Flags, kind: str) -> tuple[Any, ...]:
    """References to secrets or configs: removed by the name of their source, replaced by target."""
    kept = tuple(ref for ref in refs if ref.source_name not in flags.removing(kind))
    added = values.references(flags.adding(kind), kind)
    targets = [ref.target for ref in added]
    return (*(ref for ref in kept if ref.target not in targets), *added)


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def _capabilities(spec: ContainerSpec, flags: Flags) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adding what was dropped undoes the drop, and the other way round, as docker's update does."""
    if not flags["cap_add"] and not flags["cap_drop"]:
        return spec.cap_add, spec.cap_drop
    adding = [_capability(name) for name in flags["cap_add"] or ()]
    dropping = [_capability(name) for name in flags["cap_drop"] or ()]
    add, drop = set(spec.cap_add), set(spec.cap_drop)
    if "RESET" in (name.removeprefix("CAP_") for name in adding):
        add, adding = set(), [name for name in adding if name != "CAP_RESET"]
    if "RESET" in (name.removeprefix("CAP_") for name in dropping):
        drop, dropping = set(), [name for name in dropping if name != "CAP_RESET"]
    undone = {name for name in adding if name in drop}
    add |= {name for name in adding if name not in undone}
    drop -= undone
    undone = {name for name in dropping if name in spec.cap_add and name not in adding}
    drop |= {name for name in dropping if name not in undone}
    add -= undone
    return tuple(sorted(add - drop)), tuple(sorted(drop))


_HEALTH = {
    "interval": "health_interval",
    "timeout": "health_timeout",
    "retries": "health_retries",
    "start_period": "health_start_period",
    "start_interval": "health_start_interval",
}


def _health(check: Healthcheck | None, flags: Flags) -> Healthcheck | None:
    changed = flags.changed(_HEALTH)
    if flags["no_healthcheck"]:
        if changed or flags["health_cmd"] is not None:
            raise Invalid("--no-healthcheck conflicts with --health-* options")
        return Healthcheck(test=("NONE",))
    if flags["health_cmd"] is not None:
        changed["test"] = ("CMD-SHELL", flags["health_cmd"]) if flags["health_cmd"] else ()
    if not changed:
        return check
    base = check or Healthcheck()
    if base.test == ("NONE",) and "test" not in changed:
        base = Healthcheck()
    return replace(base, **changed)


def _resources(resources: ResourceRequirements, flags: Flags) -> ResourceRequirements:
    limits = replace(
        resources.limits,
        **flags.changed({"nano_cpus": "limit_cpu", "memory": "limit_memory", "pids": "limit_pids"}),
    )
    kinds = [text.partition("=")[0] for text in flags.removing("generic_resource")]
    reservations = replace(
        resources.reservations,
        **flags.changed({"nano_cpus": "reserve_cpu", "memory": "reserve_memory"}),
        generic=_merged(
            resources.reservations.generic,
            values.generic_resources(flags.adding("generic_resource")),
            kinds,
            lambda item: item.kind,
        ),
    )
    return replace(resources, limits=limits, reservations=reservations)


def _restart(policy: RestartPolicy, flags: Flags) -> RestartPolicy:
    fields = {
        "condition": "restart_condition",
        "delay": "restart_delay",
        "max_attempts": "restart_max_attempts",
        "window": "restart_window",
    }
    changed = flags.changed(fields)
    if changed:
        changed.setdefault("delay", 5.0 if policy.delay is None else policy.delay)
    return replace(policy, **changed)


def _placement(placement: Placement, flags: Flags) -> Placement:
    added = [values.preference(text) for text in flags.adding("placement_pref")]
    removed = [values.preference(text) for text in flags.removing("placement_pref")]
    kept = tuple(each for each in placement.preferences if each not in removed)
    return replace(
        placement,
        constraints=_words(placement.constraints, flags, "constraint"),
        preferences=(*kept, *added),
        **flags.changed({"max_replicas": "replicas_max_per_node"}),
    )


def _networks(
    networks: tuple[NetworkAttachmentSpec, ...], flags: Flags, ids: Mapping[str, str]
) -> tuple[NetworkAttachmentSpec, ...]:
    def key(wish: NetworkAttachmentSpec) -> str:
        return ids.get(wish.target, wish.target)

    added = [values.network(text) for text in flags.adding("network")]
    before = {key(wish) for wish in networks}
    for wish in added:
        if key(wish) in before and key(wish) not in {ids.get(n, n) for n in flags.removing("network")}:
            raise Invalid(f"service is already attached to network {wish.target}")
    removed = [ids.get(name, name) for name in flags.removing("network")]
    return _merged(networks, added, removed, key)


# ------------------------------------------------------------------------------------------- the service


def _mode(mode: ServiceMode, flags: Flags) -> ServiceMode:
    kind = flags["mode"] or mode.kind
    replicas, concurrent = flags["replicas"], flags["max_concurrent"]
    if kind in ("global", "global-job"):
        if replicas is not None:
            raise Invalid("replicas can only be used with replicated or replicated-job mode")
        if concurrent is not None:
            raise Invalid("max-concurrent can only be used with replicated-job mode")
        if flags["replicas_max_per_node"]:
            raise Invalid("replicas-max-per-node can only be used with replicated or replicated-job mode")
        return replace(mode, kind=kind)
    if kind == "replicated":
        if concurrent is not None:
            raise Invalid("max-concurrent can only be used with replicated-job mode")
        return replace(mode, kind=kind, replicas=mode.replicas if replicas is None else replicas)
    total = replicas if replicas is not None else mode.total_completions
    if concurrent is None:
        creating = flags["mode"] is not None
        concurrent = total if creating else mode.max_concurrent
    return replace(mode, kind=kind, total_completions=total, max_concurrent=concurrent)


def _update(config: UpdateConfig | None, flags: Flags, kind: str) -> UpdateConfig | None:
    names = ("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order")
    changed = flags.changed({name: f"{kind}_{name}" for name in names})
    if not changed:
        return config
    ratio = changed.get("max_failure_ratio", 0.0)
    if not 0 <= ratio <= 1:
        raise Invalid(f"--{kind}-max-failure-ratio {ratio} must be between 0 and 1")
    return replace(config or UpdateConfig(monitor=5.0), **changed)


def _endpoint(endpoint: EndpointSpec, flags: Flags) -> EndpointSpec:
    added = [port for text in flags.adding("publish") for port in values.ports(text)]
    removed = [_target(text) for text in flags.removing("publish")]
    kept = tuple(
        port
        for port in endpoint.ports
        if (port.target_port, port.protocol) not in removed and port not in added
    )
    mode = cast("Any", flags["endpoint_mode"] or endpoint.mode)
    return replace(endpoint, mode=mode, ports=(*kept, *added))


def _target(text: str) -> tuple[int, str]:
    """`--publish-rm 80`, `80/udp` or a whole port; the target port decides."""
    port = values.ports(text)[0]
    return port.target_port, port.protocol
