"""`pyswarm compose up|create|start|restart|scale`: containers come to life."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pyswarm.api import DeployAction, DeployRequest
from pyswarm.cli import compose_local as local
from pyswarm.cli import nodes
from pyswarm.cli.compose_images import prepare
from pyswarm.cli.compose_provider import given, providers
from pyswarm.cli.compose_provider import run as provide
from pyswarm.cli.compose_session import (
    ComposeCommand,
    Scope,
    in_project,
    note,
    refuse,
    say,
    settings,
    specs_of,
)
from pyswarm.cli.compose_state import current, ended, of_service, short_name, stage, wants
from pyswarm.cli.compose_wait import until_ended, until_started
from pyswarm.errors import Invalid, NotFound
from pyswarm.objects import Service
from pyswarm.specs import ServiceSpec

if TYPE_CHECKING:
    from compose.convert import StackSpecs


def _create_options(command: Any) -> Any:
    """Options that `up` and `create` share."""
    option = click.option
    for each in reversed(
        (
            option("--build", is_flag=True, help="Build images before starting containers."),
            option("--no-build", is_flag=True, help="Don't build an image, even if it's missing."),
            option(
                "--force-recreate",
                is_flag=True,
                help="Recreate containers even if their configuration and image haven't changed.",
            ),
            option("--no-recreate", is_flag=True, help="If containers already exist, don't recreate them."),
            option(
                "--pull",
                type=click.Choice(("always", "missing", "never", "build", "policy")),
                default="policy",
                help="Pull image before running.",
            ),
            option("--quiet-pull", is_flag=True, help="Pull without printing progress information."),
            option(
                "--remove-orphans",
                is_flag=True,
                help="Remove containers for services not defined in the Compose file.",
            ),
            option("--scale", "scales", multiple=True, metavar="SERVICE=NUM", help="Scale SERVICE to NUM."),
            option("-y", "--yes", is_flag=True, help="Accepted; nothing asks."),
        )
    ):
        command = each(command)
    return command


@click.command(cls=ComposeCommand)
@click.option("--abort-on-container-exit", is_flag=True, help="Stop all containers if any was stopped.")
@click.option("--abort-on-container-failure", is_flag=True, help="Stop all containers if any failed.")
@click.option("--always-recreate-deps", is_flag=True, help="Recreate dependent containers.")
@click.option("--attach", "attach", multiple=True, help="Restrict attaching to the specified services.")
@click.option("--attach-dependencies", is_flag=True, help="Attach to log output of dependent services too.")
@click.option("-d", "--detach", is_flag=True, help="Run containers in the background.")
@click.option("--exit-code-from", default="", help="Return the exit code of the selected service container.")
@click.option("--menu/--no-menu", default=False, hidden=True)
@click.option("--no-attach", multiple=True, help="Do not attach (stream logs) to the specified services.")
@click.option("--no-color", is_flag=True, help="Produce monochrome output.")
@click.option("--no-deps", is_flag=True, help="Don't start linked services.")
@click.option("--no-log-prefix", is_flag=True, help="Don't print prefix in logs.")
@click.option("--no-start", is_flag=True, help="Don't start the services after creating them.")
@click.option("--quiet-build", is_flag=True, help="Suppress the build output.")
@click.option("-V", "--renew-anon-volumes", is_flag=True, help="Always so: a new container has new ones.")
@click.option("-t", "--timeout", type=float, default=None, help="Seconds for containers to stop.")
@click.option("--timestamps", is_flag=True, help="Show timestamps.")
@click.option("--wait", "until_healthy", is_flag=True, help="Wait for services to be running|healthy.")
@click.option("--wait-timeout", type=float, default=None, help="Most seconds to wait.")
@click.option("-w", "--watch", "then_watch", is_flag=True, help="Watch source code and refresh containers.")
@_create_options
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project(needed=True)
async def up(scope: Scope, names: tuple[str, ...], **options: Any) -> int | None:
    """Create and start containers."""
    _check(options)
    aborts = options["abort_on_container_exit"] or options["exit_code_from"]
    began = scope.app.now()
    specs = _selected(scope, names, bool(options["no_deps"]))
    meant = [] if options["no_deps"] and names else names or list(scope.loaded().services)
    ids = await bring(scope, specs, {**options, "providers": meant}, names)
    if options["no_start"] or settings().dry_run:
        return None
    if options["detach"] or options["until_healthy"]:
        timeout = options["wait_timeout"] if options["until_healthy"] else None
        await until_started(scope, ids, healthy=bool(options["until_healthy"]), timeout=timeout)
        return None
    from pyswarm.cli.compose_attach import Foreground

    shown = _shown(scope, names, options)
    view = Foreground(
        scope,
        ids,
        shown,
        since=began,
        prefix=not options["no_log_prefix"],
        monochrome=bool(options["no_color"]),
        timestamps=bool(options["timestamps"]),
        abort="exit" if aborts else "failure" if options["abort_on_container_failure"] else "",
        code_from=str(options["exit_code_from"]),
        grace=options["timeout"],
    )
    if not options["then_watch"]:
        return await view.run()
    from pyswarm.cli.compose_watch import watching

    return await view.run(watching(scope, specs, quiet=bool(options["quiet_build"])))


def _check(options: Mapping[str, Any]) -> None:
    """Refuse what excludes each other, in docker compose's words."""
    if options["build"] and options["no_build"]:
        raise Invalid("--build and --no-build are incompatible")
    if options["force_recreate"] and options["no_recreate"]:
        raise Invalid("--force-recreate and --no-recreate are incompatible")
    if options["always_recreate_deps"] and options["no_recreate"]:
        raise Invalid("--always-recreate-deps and --no-recreate are incompatible")
    background = options["detach"] or options["until_healthy"]
    stopping = ("abort_on_container_exit", "abort_on_container_failure", "exit_code_from", "attach")
    if background and any(options[key] for key in stopping):
        raise Invalid(
            "--detach and --wait cannot be combined with --abort-on-container-exit, "
            "--abort-on-container-failure, --exit-code-from or --attach"
        )
    if options["abort_on_container_exit"] and options["abort_on_container_failure"]:
        raise Invalid("--abort-on-container-exit and --abort-on-container-failure are incompatible")
    if background and options["then_watch"]:
        raise Invalid("--watch cannot be combined with --detach or --wait")
    if options["attach"] and options["attach_dependencies"]:
        raise Invalid("--attach and --attach-dependencies are incompatible")
    if options["menu"]:
        refuse("--menu", "there are no shortcuts: press Ctrl+C to stop")


def _selected(scope: Scope, names: Sequence[str], no_deps: bool) -> StackSpecs:
    """The specs that are meant, as of one machine but for node and images."""
    project = scope.loaded()
    specs = specs_of(project)
    if names:
        for name in names:
            local.checked(project, name)
        specs = local.only(specs, names if no_deps else local.closure(project, names))
    if not specs.services and not providers(project, names or None):
        raise Invalid("no service selected")
    return specs


def _shown(scope: Scope, names: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The services whose log is shown."""
    project = scope.loaded()
    if options["attach"]:
        wanted = [local.checked(project, name) and name for name in options["attach"]]
    elif names and not options["attach_dependencies"]:
        wanted = list(names)
    else:
        wanted = sorted(project.services)
    hidden = set(options["no_attach"])
    if options["exit_code_from"]:
        local.checked(project, options["exit_code_from"])
    return [
        name
        for name in wanted
        if name not in hidden
        and project.services[name].provider is None
        and (project.services[name].attach or name in options["attach"])
    ]


async def bring(
    scope: Scope, specs: StackSpecs, options: Mapping[str, Any], names: Sequence[str] = ()
) -> list[str]:
    """Build, pull, run providers (those that `options["providers"]`, names of services, lead to), deploy, and begin
    what has ended anew; ids of the services."""
    images = await prepare(
        scope,
        specs,
        build=bool(options["build"]),
        no_build=bool(options["no_build"]),
        pull=str(options["pull"]),
        quiet_build=bool(options.get("quiet_build")),
        quiet_pull=bool(options["quiet_pull"]),
    )
    project = scope.loaded()
    specs = local.localized(specs, project, await scope.node(), images)
    found = [] if options.get("no_start") else providers(project, options.get("providers", ()))
    if found:
        specs = given(specs, project, await provide(project, found, "up"))
    if not specs.services:
        return []
    specs = local.scaled(specs, local.parse_scales(options["scales"]))
    local.check_ports(specs)
    if options.get("no_start"):
        specs = replace(specs, services=tuple(_unstarted(scope, each) for each in specs.services))
    if options["no_recreate"]:
        specs = _without_changes(scope, specs)
    former = {each.id for each in scope.tasks}
    answer = await scope.client.deploy(_request(specs))
    wanted = {each.name: each for each in specs.services}
    for each in answer.actions:
        _report(scope, each, wanted)
    for text in answer.warnings:
        note(text)
    await _orphans(scope, bool(options["remove_orphans"]))
    if settings().dry_run:
        return []
    await scope.refresh()
    mine = [each for each in scope.services if each.spec.name in wanted]
    if not options.get("no_start"):
        await _anew(scope, mine, former, specs, options, names)
    return [each.id for each in mine]


def _request(specs: StackSpecs) -> DeployRequest:
    return DeployRequest(
        stack=specs.stack,
        services=specs.services,
        networks=specs.networks,
        volumes=specs.volumes,
        secrets=specs.secrets,
        configs=specs.configs,
        resolve_image="never",
        dry_run=settings().dry_run,
    )


_WORDS = {"create": "Created", "update": "Recreated", "remove": "Removed"}


def _report(scope: Scope, action: DeployAction, wanted: Mapping[str, ServiceSpec]) -> None:
    """A line for what changed; services are shown as their containers start."""
    if action.kind == "service":
        word = {"unchanged": "Running", "create": "Creating", "update": "Recreate"}.get(action.action, "")
        former = next((each.spec for each in scope.services if each.spec.name == action.name), None)
        spec = wanted.get(action.name)
        if word == "Recreate" and former is not None and spec is not None and former.task == spec.task:
            word = "Starting" if former.stopped and not spec.stopped else "Running"
        if word:
            say("Service", action.name.removeprefix(f"{scope.name}_"), word)
        return
    if action.action != "unchanged":
        say(action.kind.capitalize(), action.name, _WORDS[action.action])


def _unstarted(scope: Scope, spec: Any) -> Any:
    """As it is in the cluster where it runs there, else stopped: what `create` makes."""
    running = next((each for each in scope.services if each.spec.name == spec.name), None)
    return spec if running is not None and wants(running) else local.stopped(spec)


def _without_changes(scope: Scope, specs: StackSpecs) -> StackSpecs:
    """Services that exist keep the tasks that they have; only their number follows the file."""
    existing = {each.spec.name: each.spec for each in scope.services}
    services = tuple(
        replace(existing[each.name], mode=each.mode) if each.name in existing else each
        for each in specs.services
    )
    return replace(specs, services=services)


async def _orphans(scope: Scope, remove: bool) -> None:
    from pyswarm.cli.compose_state import is_one_off

    found = [each for each in scope.orphans() if not is_one_off(each)]
    if not found:
        return
    if not remove:
        names = ", ".join(sorted(each.spec.name for each in found))
        note(f"found orphan services ({names}) for this project: --remove-orphans removes them")
        return
    for each in found:
        if not settings().dry_run:
            await scope.client.remove("service", each.id)
        say("Service", short_name(each), "Removed")


async def _anew(
    scope: Scope,
    services: Sequence[Service],
    former: Collection[str],
    specs: StackSpecs,
    options: Mapping[str, Any],
    names: Sequence[str],
) -> None:
    """New containers for services whose own have ended, or that are to be recreated. `former` are the tasks from
    before the deploy: a service that keeps none of them has new containers already."""
    direct = {f"{specs.stack}_{name}" for name in names}
    for each in services:
        name = each.spec.name
        kept = [t for t in scope.tasks if t.service_id == each.id and t.id in former and current(each, t)]
        if not kept:
            continue
        forced = options["force_recreate"] and (not direct or name in direct)
        forced = forced or (options.get("always_recreate_deps") and bool(direct) and name not in direct)
        if forced or ended(each, scope.tasks):
            await scope.amend(each, lambda spec: spec, force=True)
    await scope.refresh()


@click.command(cls=ComposeCommand)
@_create_options
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project(needed=True)
async def create(scope: Scope, names: tuple[str, ...], **options: Any) -> None:
    """Create what services need, and do not start them: images, networks, volumes, and services that are stopped."""
    if options["build"] and options["no_build"]:
        raise Invalid("--build and --no-build are incompatible")
    await bring(scope, _selected(scope, names, False), {**options, "no_start": True}, names)


# ------------------------------------------------------------------------------------------- start, restart


def needed_by(scope: Scope, services: Sequence[Service]) -> list[Service]:
    """The services and those of the project that they depend on, these first."""
    by_name = {each.spec.name: each for each in scope.services}
    found: dict[str, Service] = {}

    def visit(service: Service) -> None:
        if service.spec.name in found:
            return
        found[service.spec.name] = service
        for dependency in service.spec.depends_on:
            if dependency.service in by_name:
                visit(by_name[dependency.service])

    for each in services:
        visit(each)
    return list(reversed(found.values()))


async def begin(scope: Scope, services: Sequence[Service]) -> list[str]:
    """Give stopped services their containers back, and begin those anew whose containers have ended; ids."""
    ids: list[str] = []
    for each in services:
        again = each.spec.stopped or ended(each, scope.tasks)
        if settings().dry_run:
            say("Service", short_name(each), "Starting")
            continue
        await scope.amend(each, local.started, force=again)
        ids.append(each.id)
    return ids


@click.command(cls=ComposeCommand)
@click.option("--wait", "until_healthy", is_flag=True, help="Wait for services to be running|healthy.")
@click.option("--wait-timeout", type=float, default=None, help="Most seconds to wait.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def start(
    scope: Scope, until_healthy: bool, wait_timeout: float | None, names: tuple[str, ...]
) -> None:
    """Start services, and what they depend on."""
    chosen = scope.chosen(names)
    if not chosen:
        raise NotFound(f"project {scope.name} has no containers to start: `compose up` makes them")
    ids = await begin(scope, needed_by(scope, chosen))
    if ids:
        await until_started(scope, ids, healthy=until_healthy, timeout=wait_timeout)


@click.command(cls=ComposeCommand)
@click.option("--no-deps", is_flag=True, help="Don't restart dependent services.")
@click.option("-t", "--timeout", type=float, default=None, help="Specify a shutdown timeout in seconds.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def restart(scope: Scope, no_deps: bool, timeout: float | None, names: tuple[str, ...]) -> None:
    """Restart service containers, running ones in their place; ended ones are replaced."""
    chosen = scope.chosen(names)
    if scope.project is not None and names and not no_deps:
        more = local.dependents(scope.project, names)
        chosen = [each for each in scope.chosen(()) if short_name(each) in more]
    chosen = [each for each in needed_by(scope, chosen) if each in chosen]
    if settings().dry_run:
        for each in chosen:
            say("Service", short_name(each), "Restarting")
        return
    for each in chosen:
        await restarted(scope, each, timeout)


async def restarted(scope: Scope, service: Service, grace: float | None = None) -> None:
    """Restart a service's containers: those that run keep what was written into them. Returns when all run."""
    mine = of_service([service], scope.tasks, service)
    again = [each for each in mine if stage(each.task) in ("started", "healthy")]
    if service.spec.stopped or len(again) < max(1, len(mine)):
        old = {each.task.id for each in mine}
        await scope.amend(service, local.started, force=True)
        if grace is not None:
            await until_ended(scope, [service.id], grace=grace, verb="Stopped", tasks=old)
        await until_started(scope, [service.id])
        return
    for each in again:
        say("Container", each.name, "Restarting")
        question = {"task": each.task.id, "timeout": grace}
        await nodes.ask(scope.client, "task.restart", question, node=each.task.node_id)
        say("Container", each.name, "Started")


@click.command(cls=ComposeCommand)
@click.option("--no-deps", is_flag=True, help="Don't start linked services.")
@click.argument("scales", nargs=-1, required=True, metavar="SERVICE=REPLICAS...")
@in_project()
async def scale(scope: Scope, no_deps: bool, scales: tuple[str, ...]) -> None:
    """Scale services."""
    counts = local.parse_scales(scales)
    chosen = scope.chosen(list(counts))
    missing = sorted(set(counts) - {short_name(each) for each in chosen})
    if missing:
        raise NotFound(f"service {missing[0]} has no containers yet: `compose up --scale` makes them")
    ids: list[str] = []
    for each in chosen:
        count = counts[short_name(each)]
        say("Service", short_name(each), f"Scaling to {count}")
        if not settings().dry_run:
            await scope.amend(each, lambda spec, n=count: local.with_replicas(local.started(spec), n))
            ids.append(each.id)
    if not settings().dry_run:
        linked = [] if no_deps else [each for each in needed_by(scope, chosen) if each not in chosen]
        ids += await begin(scope, linked)
        await until_started(scope, ids)


async def halt(scope: Scope, services: Sequence[Service], grace: float | None) -> None:
    """Stop services, in reverse order of what they depend on; they remember how many containers they had."""
    ids: list[str] = []
    for each in reversed(needed_by(scope, services)):
        if each not in services or each.spec.mode.kind != "replicated":
            continue
        if not settings().dry_run:
            await scope.amend(each, local.stopped)
        else:
            say("Service", short_name(each), "Stopping")
        ids.append(each.id)
    if not settings().dry_run:
        await until_ended(scope, ids, grace=grace, verb="Stopped")
