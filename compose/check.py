"""What must hold between the parts of a project: every name that is used exists, nothing contradicts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping

from compose.errors import Report, near_miss
from compose.tree import Node, child_path, mapping, sequence

_FIELD = r"[\d*/,\-A-Za-z?LW#]+"
_MACRO = r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every\s+(\d+(\.\d+)?(h|m|s|ms))+"
_CRON = re.compile(rf"({_MACRO}|{_FIELD}(\s+{_FIELD}){{4}})\Z")


def check(root: Node, report: Report, disabled: Mapping[str, Node]) -> None:
    """Report everything that is inconsistent. `disabled` are the services that no profile enables."""
    _Checker(root, report, disabled).run()


class _Checker:
    def __init__(self, root: Node, report: Report, disabled: Mapping[str, Node]) -> None:
        self._root = root
        self._report = report
        self._disabled = disabled
        self._services = mapping(root.get("services"))
        self._networks = mapping(root.get("networks"))
        self._volumes = mapping(root.get("volumes"))
        self._secrets = mapping(root.get("secrets"))
        self._configs = mapping(root.get("configs"))
        self._models = mapping(root.get("models"))
        self._mistaken = report.mistaken(2)

    def run(self) -> None:
        for name, node in self._services.items():
            self._service(name, child_path("services", name), node)
        self._sources("secrets", self._secrets, ("file", "environment", "content", "driver"))
        self._sources("configs", self._configs, ("file", "environment", "content"))
        for kind in ("networks", "volumes", "secrets", "configs"):
            self._external(kind, mapping(self._root.get(kind)))
        self._container_names()
        self._cycles()

    # ------------------------------------------------------------------------------------- services

    def _service(self, name: str, path: str, node: Node) -> None:
        value = mapping(node)
        said = any(_said(value.get(key)) for key in ("image", "build", "provider"))
        if not said and path not in self._mistaken:
            self._report.error('needs "image" or "build"', path, node.pos)
        self._networks_of(value, path)
        self._references(value, path)
        self._depends(name, value, path)
        self._health(value, path)
        self._scale(value, path)
        self._cluster(value.get("x-pyswarm"), f"{path}.x-pyswarm")
        self._limits(value, path)
        self._mounts(value, path)
        self._build(value, path)
        self._watch(value, path)

    def _near(self, name: str, known: Collection[str]) -> str:
        return "" if self._report.full else near_miss(name, tuple(known))

    def _undefined(self, what: str, name: str, known: Collection[str], path: str, node: Node) -> None:
        hint = self._near(name, known) or f': define it under the top-level "{what}s"'
        self._report.error(f'{what} "{name}" is not defined{hint}', path, node.pos)

    def _networks_of(self, value: Mapping[str, Node], path: str) -> None:
        networks = value.get("networks")
        for name, settings in mapping(networks).items():
            place = child_path(f"{path}.networks", name)
            if name not in self._networks:
                position = networks.key_position(name) if networks is not None else settings.pos
                self._undefined("network", name, self._networks, place, Node(None, position))
            for key in ("ipv4_address", "ipv6_address"):
                address = settings.get(key)
                if address is not None and not _is_address(address.text()):
                    self._report.error(
                        f'"{address.text()}" is not an IP address', f"{place}.{key}", address.pos
                    )
        mode = value.get("network_mode")
        if mode is not None and mode.value and mapping(networks):
            self._report.error(
                '"network_mode" and "networks" exclude each other', f"{path}.network_mode", mode.pos
            )

    def _references(self, value: Mapping[str, Node], path: str) -> None:
        for what, known in (("secret", self._secrets), ("config", self._configs)):
            for index, item in enumerate(sequence(value.get(f"{what}s"))):
                self._file_mount(what, known, item, f"{path}.{what}s[{index}]")
        build = value.get("build")
        for index, item in enumerate(sequence(build.get("secrets") if build is not None else None)):
            self._file_mount("secret", self._secrets, item, f"{path}.build.secrets[{index}]")
        models = value.get("models")
        for name, child in mapping(models).items():
            if name not in self._models:
                place = child_path(f"{path}.models", name)
                position = models.key_position(name) if models is not None else child.pos
                self._undefined("model", name, self._models, place, Node(None, position))
        spec = value.get("credential_spec")
        config = spec.get("config") if spec is not None else None
        if config is not None and config.text() not in self._configs:
            self._undefined("config", config.text(), self._configs, f"{path}.credential_spec.config", config)

    def _file_mount(self, what: str, known: Mapping[str, Node], item: Node, path: str) -> None:
        source = item.get("source")
        if source is None:
            self._report.error('key "source" is missing', path, item.pos)
        elif source.text() not in known:
            self._undefined(what, source.text(), known, path, source)

    def _depends(self, name: str, value: Mapping[str, Node], path: str) -> None:
        depends = value.get("depends_on")
        for target, settings in mapping(depends).items():
            place = f"{path}.{settings.via}" if settings.via else child_path(f"{path}.depends_on", target)
            position = depends.key_position(target) if depends is not None else settings.pos
            required = settings.get("required")
            if target in self._services:
                continue
            if required is not None and required.value is False:
                if target not in self._disabled:
                    self._report.warn(f'service "{target}" is not defined: not waited for', place, position)
                continue
            if target in self._disabled:
                profiles = ", ".join(item.text() for item in sequence(self._disabled[target].get("profiles")))
                message = f'service "{target}" is only enabled by the profile {profiles}'
                self._report.error(f"{message}: enable it, or say required: false", place, position)
                continue
            hint = self._near(target, self._services)
            self._report.error(f'service "{target}" is not defined{hint}', place, position)

    def _health(self, value: Mapping[str, Node], path: str) -> None:
        health = value.get("healthcheck")
        if health is None:
            return
        disable, test = health.get("disable"), health.get("test")
        words = sequence(test)
        if disable is not None and disable.value is True and words and words[0].value != "NONE":
            self._report.warn(
                '"test" has no effect: "disable" is set',
                f"{path}.healthcheck",
                health.key_position("disable"),
            )
        period, interval = health.get("start_interval"), health.get("start_period")
        if period is not None and interval is None:
            self._report.warn(
                '"start_interval" counts only during "start_period", which is not set',
                f"{path}.healthcheck.start_interval",
                period.pos,
            )

    def _scale(self, value: Mapping[str, Node], path: str) -> None:
        deploy = value.get("deploy")
        replicas = deploy.get("replicas") if deploy is not None else None
        scale = value.get("scale")
        if scale is not None and replicas is not None and scale.value != replicas.value:
            self._report.error('"scale" and "deploy.replicas" differ', f"{path}.scale", scale.pos)
        mode = deploy.get("mode") if deploy is not None else None
        if mode is not None and mode.value in ("global", "global-job") and _above(replicas, 1):
            assert replicas is not None
            self._report.error(
                f'"replicas" cannot be set in mode {mode.value}: one task runs on each node',
                f"{path}.deploy.replicas",
                replicas.pos,
            )
        name = value.get("container_name")
        count = replicas if replicas is not None else scale
        if name is not None and _above(count, 1):
            self._report.error(
                f'container_name "{name.text()}" cannot be shared by {count.value if count else 0} containers',
                f"{path}.container_name",
                name.pos,
            )

    def _cluster(self, node: Node | None, path: str) -> None:
        """What pyswarm adds: a schedule that can be read, bounds in order."""
        schedule = node.get("schedule") if node is not None else None
        if schedule is not None:
            said = schedule.get("schedule") or schedule.get("cron")
            if said is None:
                self._report.error('key "cron" is missing', f"{path}.schedule", schedule.pos)
            elif not _CRON.match(said.text().strip()):
                message = f'"{said.text()}" is not a schedule: write five fields, @hourly and the like, or @every 90s'
                self._report.error(message, f"{path}.schedule", said.pos)
        autoscale = node.get("autoscale") if node is not None else None
        if autoscale is None:
            return
        low, high = autoscale.get("min"), autoscale.get("max")
        bounds = [bound.value for bound in (low, high) if bound is not None and isinstance(bound.value, int)]
        if low is not None and len(bounds) == 2 and bounds[0] > bounds[1]:
            self._report.error(f'"min" {bounds[0]} is above "max" {bounds[1]}', f"{path}.autoscale", low.pos)
        if not any(autoscale.get(key) for key in ("cpu", "memory", "metric")):
            self._report.error(
                'needs what to scale by: "cpu", "memory", or "metric" and "target"',
                f"{path}.autoscale",
                autoscale.pos,
            )
        if (autoscale.get("metric") is None) != (autoscale.get("target") is None):
            self._report.error('"metric" and "target" go together', f"{path}.autoscale", autoscale.pos)

    def _limits(self, value: Mapping[str, Node], path: str) -> None:
        deploy = value.get("deploy")
        resources = deploy.get("resources") if deploy is not None else None
        limits = resources.get("limits") if resources is not None else None
        reservations = resources.get("reservations") if resources is not None else None
        for key, part, other in (
            ("mem_limit", limits, "memory"),
            ("cpus", limits, "cpus"),
            ("pids_limit", limits, "pids"),
            ("mem_reservation", reservations, "memory"),
        ):
            mine, theirs = value.get(key), part.get(other) if part is not None else None
            if mine is not None and theirs is not None and mine.value != theirs.value:
                where = "limits" if part is limits else "reservations"
                self._report.error(
                    f'"{key}" and "deploy.resources.{where}.{other}" differ: set one of them',
                    f"{path}.{key}",
                    mine.pos,
                    (("other", theirs.pos),),
                )

    def _mounts(self, value: Mapping[str, Node], path: str) -> None:
        for index, mount in enumerate(sequence(value.get("volumes"))):
            place = f"{path}.volumes[{index}]"
            if not isinstance(mount.value, dict):
                continue  # was reported when it was read
            kind, source, target = mount.get("type"), mount.get("source"), mount.get("target")
            if target is None or not target.value:
                self._report.error('key "target" is missing', place, mount.pos)
            if kind is None:
                continue
            if kind.value in ("bind", "image") and (source is None or not source.value):
                self._report.error(f'a mount of type {kind.value} needs "source"', place, mount.pos)
            if source is None or not source.value:
                continue
            if kind.value == "volume" and source.text() not in self._volumes:
                self._undefined("volume", source.text(), self._volumes, place, source)
            if kind.value == "tmpfs":
                self._report.warn("has no effect: a tmpfs has no source", f"{place}.source", source.pos)

    def _build(self, value: Mapping[str, Node], path: str) -> None:
        build = value.get("build")
        if build is None:
            return
        inline, file = build.get("dockerfile_inline"), build.get("dockerfile")
        if inline is not None and file is not None and file.value:
            self._report.error(
                '"dockerfile" and "dockerfile_inline" exclude each other', f"{path}.build", file.pos
            )
        for name, context in mapping(build.get("additional_contexts")).items():
            target = context.text().removeprefix("service:")
            if target != context.text() and target not in {**self._services, **self._disabled}:
                hint = self._near(target, self._services)
                place = child_path(f"{path}.build.additional_contexts", name)
                self._report.error(f'service "{target}" is not defined{hint}', place, context.pos)
        platform = value.get("platform")
        platforms = sequence(build.get("platforms"))
        if platform is not None and platforms and platform.value not in [item.value for item in platforms]:
            self._report.error(
                f'"platforms" of the build does not hold the service\'s platform "{platform.text()}"',
                f"{path}.build.platforms",
                platforms[0].pos,
            )

    def _watch(self, value: Mapping[str, Node], path: str) -> None:
        develop = value.get("develop")
        for index, rule in enumerate(sequence(develop.get("watch") if develop is not None else None)):
            action = rule.get("action")
            if action is None or "sync" not in action.text():
                continue
            if rule.get("target") is None:
                self._report.error(
                    f'action {action.text()} needs "target"', f"{path}.develop.watch[{index}]", action.pos
                )

    # ------------------------------------------------------------------------------------ the rest

    def _sources(self, kind: str, entries: Mapping[str, Node], ways: tuple[str, ...]) -> None:
        for name, node in entries.items():
            path = child_path(kind, name)
            external = node.get("external")
            if external is not None and external.value is True:
                continue
            said = [way for way in ways if node.get(way) is not None and way != "driver"]
            if not said and node.get("driver") is None:
                choice = ", ".join(way for way in ways if way != "driver")
                self._report.error(f"needs one of {choice}, or external: true", path, node.pos)
            elif len(said) > 1:
                names = " and ".join(f'"{way}"' for way in said)
                self._report.error(f"{names} exclude each other", path, node.key_position(said[1]))

    def _external(self, kind: str, entries: Mapping[str, Node]) -> None:
        """What is external is not created here. docker compose refuses other settings for volumes only."""
        for name, node in entries.items():
            external = node.get("external")
            if external is None or external.value is not True:
                continue
            for key, child in mapping(node).items():
                if key in ("external", "name", "ipam") or key.startswith("x-") or not _said(child):
                    continue
                message = f'"{key}" has no place on what is external: it is not created here'
                path, position = f"{child_path(kind, name)}.{key}", node.key_position(key)
                if kind == "volumes":
                    self._report.error(message, path, position)
                else:
                    self._report.warn(message, path, position)

    def _container_names(self) -> None:
        seen: dict[str, str] = {}
        for name, node in self._services.items():
            container = node.get("container_name")
            if container is None:
                continue
            if container.text() in seen:
                self._report.error(
                    f'container_name "{container.text()}" is already used by service {seen[container.text()]}',
                    f"{child_path('services', name)}.container_name",
                    container.pos,
                )
            seen.setdefault(container.text(), name)

    def _cycles(self) -> None:
        """Report one cycle for each knot of services that wait for each other."""
        state: dict[str, int] = {}
        for start in self._services:
            if state.get(start) is None:
                self._visit(start, state)

    def _visit(self, start: str, state: dict[str, int]) -> None:
        trail = [start]
        pending = [iter(mapping(self._services[start].get("depends_on")))]
        state[start] = 1
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                state[trail.pop()] = 2
            elif following in self._services and state.get(following) is None:
                state[following] = 1
                trail.append(following)
                pending.append(iter(mapping(self._services[following].get("depends_on"))))
            elif state.get(following) == 1:
                cycle = [*trail[trail.index(following) :], following]
                depends = self._services[trail[-1]].get("depends_on")
                assert depends is not None
                alone = len(cycle) == 2
                self._report.error(
                    "waits for itself" if alone else f"services wait for each other: {' -> '.join(cycle)}",
                    f"{child_path('services', trail[-1])}.depends_on",
                    depends.key_position(following),
                )


def _said(node: Node | None) -> bool:
    return node is not None and node.value is not None and node.value != ""


def _above(node: Node | None, limit: int) -> bool:
    return node is not None and isinstance(node.value, int) and node.value > limit


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
