"""A project becomes specs: what `stack deploy` sends to the managers.

Names get the stack's prefix as `docker stack deploy` gives it, and defaults are the same. What a cluster
treats differently from one machine is in `compose.support`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from compose import model, parts
from compose.errors import Position, Problem, Report
from compose.project import Project
from compose.short import MAX_PORTS
from compose.support import warned
from compose.tree import child_path
from compose.units import parse_size
from pyswarm.specs import (
    IMAGE_LABEL,
    STACK_LABEL,
    ConfigSpec,
    ContainerSpec,
    Dependency,
    DeviceMapping,
    Driver,
    EndpointSpec,
    FileReference,
    IpamPool,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    PortConfig,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)

MAX_SECRET = 500 * 1024
MAX_CONFIG = 1000 * 1024
_OWN_NETWORKS = frozenset(("host", "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An image to build before the stack is deployed."""

    service: str
    """The service's short name."""
    image: str
    """The tag that the service runs."""
    context: str
    """Absolute directory, or the URL of a git repository or archive."""
    dockerfile: str = "Dockerfile"
    """Relative to the context, or absolute; "" when `dockerfile_inline` is set."""
    dockerfile_inline: str = ""
    args: Mapping[str, str]
    target: str = ""
    labels: Mapping[str, str]
    tags: tuple[str, ...] = ()
    """More tags for the same image."""
    cache_from: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    shm_size: int = 0
    extra_hosts: tuple[str, ...] = ()
    """`name:address`, as buildah's --add-host takes them."""
    additional_contexts: Mapping[str, str]
    secrets: Mapping[str, bytes]
    """Build secrets by id."""
    ssh: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    """`name=soft:hard`."""
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSpecs:
    """Everything that a stack is to be, by full names, each kind sorted by name."""

    stack: str
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    configs: tuple[ConfigSpec, ...] = ()
    external_networks: tuple[str, ...] = ()
    """Names that must exist in the cluster before."""
    external_volumes: tuple[str, ...] = ()
    external_secrets: tuple[str, ...] = ()
    external_configs: tuple[str, ...] = ()
    builds: tuple[Build, ...] = ()
    warnings: tuple[Problem, ...] = ()


def convert_stack(project: Project, stack: str) -> StackSpecs:
    """The specs of `project` as the stack named `stack`.

    Raises ComposeErrors when something cannot be deployed: a secret's file is missing, an address range
    of ports cannot be published, ...
    """
    return _Converter(project, stack).convert()


def image_name(stack: str, service: str) -> str:
    """The tag of a service that says `build` and no `image`: docker compose's rule, `stack-service`."""
    return f"{stack}-{service}:latest"


_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9.+_-]*:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)
"""The grammar of image references, as registries have it."""


class _Converter:
    def __init__(self, project: Project, stack: str) -> None:
        self._project = project
        self._stack = stack
        self._report = Report()
        self._labels = {STACK_LABEL: stack}
        self._services = {
            name: service for name, service in project.services.items() if service.provider is None
        }
        self._published: dict[tuple[int, str, str], tuple[str, Position]] = {}
        self._awaited = self._awaited_services()
        self._link_aliases = self._aliases_from_links()

    def convert(self) -> StackSpecs:
        for path, parent, _, text in warned(self._project.tree):
            key = path.rsplit(".", 1)[-1].split("[")[0]
            self._report.warn(f'"{key}" has no effect: {text}', path, parent.key_position(key))
        services = [self._service(name, service) for name, service in sorted(self._services.items())]
        networks, external_networks = self._networks()
        volumes, external_volumes = self._volumes()
        secrets = self._file_objects("secret", self._project.secrets)
        configs = self._file_objects("config", self._project.configs)
        builds = [
            self._build(name, service.build, service)
            for name, service in sorted(self._services.items())
            if service.build is not None
        ]
        self._report.check()
        return StackSpecs(
            stack=self._stack,
            services=tuple(services),
            networks=networks,
            volumes=volumes,
            secrets=tuple(self._secret(name, what, data) for name, what, data in secrets),
            configs=tuple(self._config(name, what, data) for name, what, data in configs),
            external_networks=external_networks,
            external_volumes=external_volumes,
            external_secrets=self._external(self._project.secrets, self._used("secrets")),
            external_configs=self._external(self._project.configs, self._used("configs")),
            builds=tuple(builds),
            warnings=(*self._project.warnings, *self._report.warnings),
        )

    # ------------------------------------------------------------------------------------ names

    def _scoped(self, key: str, name: str) -> str:
        """The full name of a resource: what the file says, else the stack's name in front of its key."""
        return name if name and name != f"{self._project.name}_{key}" else f"{self._stack}_{key}"

    def _full(self, service: str) -> str:
        return f"{self._stack}_{service}"

    def _awaited_services(self) -> frozenset[str]:
        """Services that others wait for to complete."""
        return frozenset(
            target
            for service in self._services.values()
            for target, dependency in service.depends_on.items()
            if dependency.condition == "service_completed_successfully"
        )

    def _aliases_from_links(self) -> dict[str, list[str]]:
        """`links: [db:database]` gives the service db the alias database."""
        aliases: dict[str, list[str]] = {}
        for _, service in sorted(self._services.items()):
            for link in service.links:
                target, colon, alias = link.partition(":")
                if colon and alias and alias != target:
                    aliases.setdefault(target, []).append(alias)
        return aliases

    # ---------------------------------------------------------------------------------- services

    def _service(self, name: str, service: model.Service) -> ServiceSpec:
        path = child_path("services", name)
        deploy = service.deploy or model.Deploy()
        image = service.image or image_name(self._stack, name)
        if not _IMAGE.fullmatch(image):
            self._report.error(
                f'"{image}" is not the name of an image: write [registry/]name[:tag][@digest] in small letters',
                f"{path}.image",
                self._project.position("services", name, "image"),
            )
        extra = service.pyswarm or model.Pyswarm()
        mode = self._mode(service, deploy, extra)
        placement = parts.placement(service, deploy, extra)
        return ServiceSpec(
            name=self._full(name),
            labels={**deploy.labels, **self._labels, IMAGE_LABEL: image},
            task=TaskSpec(
                container=self._container(name, path, service, image),
                resources=parts.resources(service, deploy),
                restart=self._restart(name, path, service, deploy, mode, extra),
                placement=placement,
                networks=self._attachments(name, service),
                log_driver=parts.log_driver(service.logging),
                runtime=service.runtime,
            ),
            mode=mode,
            update=parts.update(deploy.update_config, extra),
            rollback=parts.update(deploy.rollback_config, None),
            endpoint=EndpointSpec(
                mode=cast(Literal["vip", "dnsrr"], deploy.endpoint_mode or "vip"),  # the schema's enum
                ports=self._ports(name, path, service, deploy),
            ),
            depends_on=tuple(
                Dependency(
                    service=self._full(target),
                    condition=cast(
                        Literal["service_started", "service_healthy", "service_completed_successfully"],
                        dependency.condition,
                    ),
                    restart=dependency.restart,
                    required=dependency.required,
                )
                for target, dependency in sorted(service.depends_on.items())
                if target in self._services
            ),
            cron=parts.cron(extra.schedule),
            autoscale=parts.autoscale(extra.autoscale),
            volumes_per_slot=extra.volumes_per_slot,
            volumes_move_after=extra.volumes_move_after,
            rebalance=extra.rebalance,
        )

    def _mode(self, service: model.Service, deploy: model.Deploy, extra: model.Pyswarm) -> ServiceMode:
        count = deploy.replicas if deploy.replicas is not None else service.scale
        count = 1 if count is None else count
        kind = deploy.mode or "replicated"
        if extra.schedule is not None and not kind.endswith("-job"):
            kind = f"{kind}-job"
        if kind == "replicated-job":
            return ServiceMode(kind="replicated-job", max_concurrent=count, total_completions=count)
        if kind == "replicated":
            return ServiceMode(kind="replicated", replicas=count)
        return ServiceMode(kind="global" if kind == "global" else "global-job")

    def _restart(
        self,
        name: str,
        path: str,
        service: model.Service,
        deploy: model.Deploy,
        mode: ServiceMode,
        extra: model.Pyswarm,
    ) -> RestartPolicy:
        """deploy.restart_policy, else `restart`, else Swarm's default; a one-shot that others wait for
        and every job must not run again after it succeeded."""
        job = mode.kind.endswith("-job")
        once = job or name in self._awaited
        said = deploy.restart_policy
        if said is not None:
            condition = said.condition or ("on-failure" if once else "any")
            if job and condition == "any":
                self._report.warn(
                    'a job is not restarted after success: "any" counts as on-failure',
                    f"{path}.deploy.restart_policy.condition",
                    self._project.position("services", name, "deploy", "restart_policy", "condition"),
                )
                condition = "on-failure"
            policy = RestartPolicy(
                condition=cast(Literal["none", "on-failure", "any"], condition),
                delay=said.delay,
                max_attempts=said.max_attempts or 0,
                window=said.window or 0.0,
            )
        else:
            policy = parts.compose_restart(service.restart, once, job)
        if extra.restart_max_delay is not None:
            policy = replace(policy, max_delay=extra.restart_max_delay)
        return policy

    def _container(self, name: str, path: str, service: model.Service, image: str) -> ContainerSpec:
        no_new_privileges, security_opt = parts.security(service.security_opt)
        return ContainerSpec(
            image=image,
            pull_policy=service.pull_policy,
            labels={**service.labels, **self._labels},
            command=None if service.entrypoint is None else tuple(service.entrypoint),
            args=None if service.command is None else tuple(service.command),
            hostname=service.hostname,
            domainname=service.domainname,
            env=parts.environment(service.environment),
            dir=service.working_dir,
            user=service.user,
            groups=tuple(service.group_add),
            init=service.init,
            tty=service.tty,
            open_stdin=service.stdin_open,
            read_only=service.read_only,
            stop_signal=service.stop_signal,
            stop_grace_period=service.stop_grace_period,
            healthcheck=parts.healthcheck(service.healthcheck),
            mounts=self._mounts(name, path, service),
            secrets=self._references("secret", service.secrets, self._project.secrets),
            configs=self._references("config", service.configs, self._project.configs),
            hosts=tuple(parts.host(entry) for entry in service.extra_hosts),
            dns_nameservers=tuple(service.dns),
            dns_search=tuple(service.dns_search),
            dns_options=tuple(service.dns_opt),
            cap_add=tuple(parts.capability(name) for name in service.cap_add),
            cap_drop=tuple(parts.capability(name) for name in service.cap_drop),
            privileged=service.privileged,
            no_new_privileges=no_new_privileges,
            security_opt=security_opt,
            devices=tuple(
                DeviceMapping(
                    path_on_host=device.source,
                    path_in_container=device.target,
                    permissions=device.permissions,
                )
                for device in service.devices
            ),
            device_cgroup_rules=tuple(service.device_cgroup_rules),
            device_requests=parts.device_requests(service),
            ulimits=tuple(parts.ulimit(name, value) for name, value in sorted(service.ulimits.items())),
            sysctls=service.sysctls,
            shm_size=service.shm_size,
            pids_mode=self._namespace(name, path, "pid", service.pid or ""),
            ipc_mode=self._namespace(name, path, "ipc", service.ipc),
            uts_mode=self._namespace(name, path, "uts", service.uts),
            cgroup_mode=service.cgroup,
            cgroup_parent=service.cgroup_parent,
            userns_mode=service.userns_mode,
            oom_kill_disable=service.oom_kill_disable,
            oom_score_adj=service.oom_score_adj,
            storage_opt={key: str(value) for key, value in service.storage_opt.items()},
            annotations=service.annotations,
            post_start=tuple(parts.hook(hook) for hook in service.post_start),
            pre_stop=tuple(parts.hook(hook) for hook in service.pre_stop),
            mac_address=service.mac_address,
            network_mode=self._network_mode(name, path, service),
        )

    def _namespace(self, name: str, path: str, key: str, value: str) -> str:
        """Sharing a namespace with another container works only where both are on one node."""
        if value.startswith("container:"):
            self._report.warn(
                f'"{value}" has no effect: the namespace is private; containers outside the stack are not joined',
                f"{path}.{key}",
                self._project.position("services", name, key),
            )
            return ""
        if value.startswith("service:"):
            return f"service:{self._full(value.removeprefix('service:'))}"
        return value

    def _network_mode(self, name: str, path: str, service: model.Service) -> str:
        mode = service.network_mode
        own = self._own_network(service)
        if own:
            return own
        if mode.startswith(("service:", "container:")):
            self._report.warn(
                f'"{mode}" has no effect: a task has a network of its own; it is put on the same networks',
                f"{path}.network_mode",
                self._project.position("services", name, "network_mode"),
            )
        elif mode not in ("", "bridge", "default"):
            self._report.warn(
                f'network mode "{mode}" is not known: the stack\'s default network is used',
                f"{path}.network_mode",
                self._project.position("services", name, "network_mode"),
            )
        return ""

    def _networks_of(
        self, name: str, seen: frozenset[str] = frozenset()
    ) -> dict[str, model.ServiceNetwork | None]:
        """The networks of a service; with `network_mode: service:x` those of x."""
        service = self._services[name]
        mode = service.network_mode
        if mode in _OWN_NETWORKS:
            return {}
        if mode.startswith("service:"):
            other = mode.removeprefix("service:")
            if other in self._services and other not in seen:
                return dict.fromkeys(self._networks_of(other, seen | {name}))
        return dict(service.networks) or {"default": None}

    def _attachments(self, name: str, service: model.Service) -> tuple[NetworkAttachmentSpec, ...]:
        found: list[NetworkAttachmentSpec] = []
        for key, said in self._networks_of(name).items():
            network = self._project.networks.get(key, model.Network())
            if network.external and network.name in _OWN_NETWORKS:
                continue
            said = said or model.ServiceNetwork()
            fixed = tuple(part for part in (said.ipv4_address, said.ipv6_address) if part)
            if fixed and not parts.single(service):
                self._report.warn(
                    f"address {fixed[0]} can be given to one task only: the others wait for it",
                    f"{child_path('services', name)}.networks.{key}",
                    self._project.position("services", name, "networks", key),
                )
            names = [*said.aliases, name, *self._link_aliases.get(name, ())]
            if service.container_name:
                names.append(service.container_name)
            found.append(
                NetworkAttachmentSpec(
                    target=self._scoped(key, network.name),
                    aliases=tuple(dict.fromkeys(names)),
                    addresses=fixed,
                    driver_opts=said.driver_opts,
                    mac_address=said.mac_address,
                    priority=said.priority,
                    gw_priority=said.gw_priority,
                    interface_name=said.interface_name,
                )
            )
        return tuple(sorted(found, key=lambda attachment: attachment.target))

    def _ports(
        self, name: str, path: str, service: model.Service, deploy: model.Deploy
    ) -> tuple[PortConfig, ...]:
        ports: list[PortConfig] = []
        if service.ports and self._own_network(service):
            self._report.warn(
                '"ports" has no effect: the service has no network of the cluster to publish from',
                f"{path}.ports",
                self._project.position("services", name, "ports"),
            )
            return ()
        for index, port in enumerate(service.ports):
            place = f"{path}.ports[{index}]"
            at = self._project.position("services", name, "ports", index)
            if deploy.endpoint_mode == "dnsrr" and port.mode == "ingress":
                self._report.error(
                    "endpoint_mode dnsrr has no address to publish on: use mode: host", place, at
                )
            for published in parts.published(port.published):
                ports.append(parts.port(port, published))
                self._claim(name, ports[-1], place, at)
            if len(ports) > MAX_PORTS:
                self._report.error(f"more than {MAX_PORTS} ports of one service", place, at)
                break
        return tuple(ports)

    def _claim(self, name: str, port: PortConfig, place: str, at: Position) -> None:
        """An ingress port belongs to one service of the cluster."""
        if port.publish_mode != "ingress" or not port.published_port:
            return
        key = (port.published_port, port.protocol, port.host_ip)
        first = self._published.setdefault(key, (name, at))
        if first[1] != at and first[0] != name:
            message = f"port {port.published_port}/{port.protocol} is published by service {first[0]} too"
            self._report.error(f"{message}: choose another, or mode: host", place, at, (("first", first[1]),))

    def _own_network(self, service: model.Service) -> str:
        """ "host" or "none" when the service is on no network of the cluster."""
        if service.network_mode in _OWN_NETWORKS:
            return service.network_mode
        external = [self._project.networks[key] for key in service.networks]
        names = [network.name for network in external if network.external]
        return next((name for name in names if name in _OWN_NETWORKS), "")

    # ------------------------------------------------------------------------------------- mounts

    def _mounts(self, name: str, path: str, service: model.Service) -> tuple[Mount, ...]:
        mounts = [self._mount(mount) for mount in service.volumes]
        for index, entry in enumerate(service.tmpfs):
            mounts.append(self._tmpfs(entry, f"{path}.tmpfs[{index}]", name))
        known = {mount.target for mount in mounts}
        for mount in self._borrowed(name, path, service, frozenset((name,))):
            if mount.target not in known:
                known.add(mount.target)
                mounts.append(mount)
        return tuple(mounts)

    def _borrowed(self, name: str, path: str, service: model.Service, seen: frozenset[str]) -> list[Mount]:
        """The mounts that `volumes_from` adds."""
        mounts: list[Mount] = []
        for entry in service.volumes_from:
            source, _, access = entry.partition(":")
            if source == "container" or source not in self._services:
                self._report.warn(
                    f'"{entry}" has no effect: volumes of containers outside the stack are not mounted',
                    f"{path}.volumes_from",
                    self._project.position("services", name, "volumes_from"),
                )
            elif source not in seen:
                other = self._services[source]
                theirs = [self._mount(mount) for mount in other.volumes]
                theirs += self._borrowed(source, child_path("services", source), other, seen | {source})
                mounts += [replace(mount, read_only=True) if access == "ro" else mount for mount in theirs]
        return mounts

    def _mount(self, mount: model.Mount) -> Mount:
        kind = cast(Literal["bind", "volume", "tmpfs", "image", "cluster", "npipe"], mount.type)
        plain = Mount(
            type=kind,
            source=mount.source,
            target=mount.target,
            read_only=mount.read_only,
            consistency=mount.consistency,
        )
        if kind == "bind":
            return replace(
                plain,
                bind_propagation=mount.bind.propagation,
                bind_create_host_path=mount.bind.create_host_path,
                bind_non_recursive=mount.bind.recursive == "disabled",
            )
        if kind == "tmpfs":
            return replace(plain, tmpfs_size=mount.tmpfs.size, tmpfs_mode=mount.tmpfs.mode)
        if kind == "image":
            return replace(plain, volume_subpath=mount.image.subpath)
        return self._volume_mount(plain, mount)

    def _volume_mount(self, plain: Mount, mount: model.Mount) -> Mount:
        volume = self._project.volumes.get(mount.source) if mount.source else None
        labels = dict(mount.volume.labels)
        driver: Driver | None = None
        source = plain.source
        if volume is not None:
            source = self._scoped(mount.source, volume.name)
            if not volume.external:
                labels = {**labels, **volume.labels, **self._labels}
                if volume.driver or volume.driver_opts:
                    driver = Driver(name=volume.driver or "local", options=volume.driver_opts)
        elif not source:
            labels = {**labels, **self._labels}
        return replace(
            plain,
            source=source,
            volume_no_copy=mount.volume.nocopy,
            volume_subpath=mount.volume.subpath,
            volume_labels=labels,
            volume_driver=driver,
        )

    def _tmpfs(self, entry: str, path: str, name: str) -> Mount:
        """`/path[:option,...]`, as `docker run --tmpfs` takes it."""
        target, _, options = entry.partition(":")
        mount = Mount(type="tmpfs", target=posixpath.normpath(target) if target else target)
        for option in options.split(",") if options else ():
            key, _, value = option.partition("=")
            size = parse_size(value) if key == "size" else None
            if size is not None:
                mount = replace(mount, tmpfs_size=size)
            elif key == "mode" and value.isdigit() and not set(value) & set("89"):
                mount = replace(mount, tmpfs_mode=int(value, 8))
            elif option == "ro":
                mount = replace(mount, read_only=True)
            elif option not in ("rw", "noexec", "nosuid", "nodev"):
                self._report.warn(
                    f'tmpfs option "{option}" has no effect: only size, mode and ro count',
                    path,
                    self._project.position("services", name, "tmpfs"),
                )
        return mount

    def _references(
        self, kind: str, mounts: Sequence[model.FileMount], known: Mapping[str, model.FileObject]
    ) -> tuple[FileReference, ...]:
        found: list[FileReference] = []
        for mount in mounts:
            target = mount.target or mount.source
            if kind == "secret":
                target = target.removeprefix("/run/secrets/")
            found.append(
                FileReference(
                    source_name=self._scoped(mount.source, known[mount.source].name),
                    target=target,
                    uid=mount.uid or "0",
                    gid=mount.gid or "0",
                    mode=0o444 if mount.mode is None else mount.mode,
                )
            )
        return tuple(sorted(found, key=lambda reference: (reference.source_name, reference.target)))

    # ----------------------------------------------------------------------------- other nouns

    def _networks(self) -> tuple[tuple[NetworkSpec, ...], tuple[str, ...]]:
        """The networks that services are on, and those that must exist."""
        used = sorted({key for name in self._services for key in self._networks_of(name)})
        made: list[NetworkSpec] = []
        outside: set[str] = set()
        for key in used:
            network = self._project.networks.get(key, model.Network())
            if network.external:
                if network.name not in _OWN_NETWORKS:
                    outside.add(network.name)
                continue
            made.append(self._network(key, network))
        return tuple(sorted(made, key=lambda spec: spec.name)), tuple(sorted(outside))

    def _network(self, key: str, network: model.Network) -> NetworkSpec:
        driver = network.driver or "overlay"
        if driver != "overlay":
            self._report.warn(
                f'driver "{driver}" has no effect: an overlay network reaches every node',
                f"{child_path('networks', key)}.driver",
                self._project.position("networks", key, "driver"),
            )
            driver = "overlay"
        return NetworkSpec(
            name=self._scoped(key, network.name),
            labels={**network.labels, **self._labels},
            driver=Driver(name=driver, options=network.driver_opts),
            internal=network.internal,
            attachable=network.attachable,
            enable_ipv4=network.enable_ipv4 is not False,
            enable_ipv6=network.enable_ipv6 is True,
            ipam_driver=Driver(
                name="" if network.ipam.driver == "default" else network.ipam.driver,
                options=network.ipam.options,
            ),
            ipam=tuple(
                IpamPool(
                    subnet=pool.subnet,
                    ip_range=pool.ip_range,
                    gateway=pool.gateway,
                    aux_addresses=pool.aux_addresses,
                )
                for pool in network.ipam.config
            ),
        )

    def _volumes(self) -> tuple[tuple[VolumeSpec, ...], tuple[str, ...]]:
        """The named volumes that services mount, and those that must exist."""
        used = {
            mount.source
            for service in self._services.values()
            for mount in service.volumes
            if mount.type in ("volume", "cluster") and mount.source in self._project.volumes
        }
        made: list[VolumeSpec] = []
        outside: set[str] = set()
        for key in sorted(used):
            volume = self._project.volumes[key]
            name = self._scoped(key, volume.name)
            if volume.external:
                outside.add(name)
                continue
            driver = Driver(name=volume.driver or "local", options=volume.driver_opts)
            made.append(VolumeSpec(name=name, labels={**volume.labels, **self._labels}, driver=driver))
        return tuple(sorted(made, key=lambda spec: spec.name)), tuple(sorted(outside))

    def _used(self, kind: Literal["secrets", "configs"]) -> frozenset[str]:
        mounts = [
            mount
            for service in self._services.values()
            for mount in (service.secrets if kind == "secrets" else service.configs)
        ]
        return frozenset(mount.source for mount in mounts)

    def _external(self, entries: Mapping[str, model.FileObject], used: frozenset[str]) -> tuple[str, ...]:
        return tuple(
            sorted(
                self._scoped(key, entry.name)
                for key, entry in entries.items()
                if entry.external and key in used
            )
        )

    def _file_objects(
        self, kind: Literal["secret", "config"], entries: Mapping[str, model.FileObject]
    ) -> list[tuple[str, model.FileObject, bytes]]:
        """Name, definition and data of each secret or config to create, by name."""
        limit = MAX_SECRET if kind == "secret" else MAX_CONFIG
        used = self._used("secrets" if kind == "secret" else "configs")
        found: list[tuple[str, model.FileObject, bytes]] = []
        for key, entry in entries.items():
            if entry.external:
                continue
            content = self._project.contents[(kind, key)]
            path = child_path(f"{kind}s", key)
            at = self._project.position(f"{kind}s", key)
            if content.missing:
                if key in used:
                    self._report.error(content.missing, path, at)
                else:
                    self._report.warn(f"left out, no service uses it: {content.missing}", path, at)
                continue
            if len(content.data) > limit:
                self._report.error(f"holds {len(content.data)} bytes, at most {limit} fit", path, at)
            found.append((self._scoped(key, entry.name), entry, content.data))
        return sorted(found, key=lambda item: item[0])

    def _secret(self, name: str, entry: model.FileObject, data: bytes) -> SecretSpec:
        return SecretSpec(
            name=name,
            labels={**entry.labels, **self._labels},
            data=data,
            driver=Driver(name=entry.driver, options=entry.driver_opts) if entry.driver else None,
            templating=Driver(name=entry.template_driver) if entry.template_driver else None,
        )

    def _config(self, name: str, entry: model.FileObject, data: bytes) -> ConfigSpec:
        return ConfigSpec(
            name=name,
            labels={**entry.labels, **self._labels},
            data=data,
            templating=Driver(name=entry.template_driver) if entry.template_driver else None,
        )

    def _build(self, name: str, build: model.Build, service: model.Service) -> Build:
        secrets: dict[str, bytes] = {}
        for index, mount in enumerate(build.secrets):
            content = self._project.contents[("secret", mount.source)]
            path = f"{child_path('services', name)}.build.secrets[{index}]"
            at = self._project.position("services", name, "build", "secrets")
            if self._project.secrets[mount.source].external:
                self._report.error(
                    "a build cannot use an external secret: its data stays in the cluster", path, at
                )
            elif content.missing:
                self._report.error(content.missing, path, at)
            secrets[mount.target or mount.source] = content.data
        return Build(
            service=name,
            image=service.image or image_name(self._stack, name),
            context=build.context,
            dockerfile=build.dockerfile,
            dockerfile_inline=build.dockerfile_inline,
            args={key: value for key, value in build.args.items() if value is not None},
            target=build.target,
            labels=build.labels,
            tags=tuple(build.tags),
            cache_from=tuple(build.cache_from),
            no_cache=build.no_cache,
            pull=build.pull or service.pull_policy == "always",
            network=build.network,
            shm_size=build.shm_size,
            extra_hosts=tuple(entry.replace("=", ":", 1) for entry in build.extra_hosts),
            additional_contexts=build.additional_contexts,
            secrets=secrets,
            ssh=tuple(build.ssh),
            ulimits=tuple(parts.build_ulimit(key, value) for key, value in sorted(build.ulimits.items())),
            platforms=tuple(build.platforms) or ((service.platform,) if service.platform else ()),
        )
