"""Waiting for a project's containers: until they have started, are healthy, have ended, or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pyswarm.cli import nodes
from pyswarm.cli.app import warn
from pyswarm.cli.compose_session import Scope, say
from pyswarm.cli.compose_state import (
    Container,
    containers,
    current,
    exit_code,
    of_service,
    restarts,
    stage,
    wants,
)
from pyswarm.errors import Conflict, NotFound, PyswarmError
from pyswarm.objects import Service, Task, TaskState, alive

POLL = 0.1
"""Seconds between looks at a project."""

PATIENCE = 5.0
"""Seconds after which people are told what is waited for."""


class NotStarted(PyswarmError):
    """A container could not be started, or did not become healthy; the text says which, and why."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the containers of some services are at one moment."""

    done: tuple[Container, ...]
    waiting: tuple[str, ...]
    """Why the others are not there yet, a line each."""
    failed: tuple[str, ...] = ()


def standing(services: Sequence[Service], tasks: Sequence[Task], *, healthy: bool) -> Standing:
    """Which containers have started (with `healthy`: run and are healthy), which wait, which cannot; pure."""
    done: list[Container] = []
    waiting: list[str] = []
    failed: list[str] = []
    for service in services:
        mine = [c for c in of_service([service], tasks, service) if current(service, c.task)]
        for each in mine:
            problem = _problem(each, healthy)
            if problem:
                failed.append(problem)
            elif stage(each.task) in (("healthy",) if healthy else ("started", "healthy", "exited")):
                done.append(each)
            else:
                waiting.append(_why(each))
        waiting += [f"{service.spec.name}: no container yet"] * max(0, wants(service) - len(mine))
    return Standing(tuple(done), tuple(waiting), tuple(failed))


def _problem(each: Container, healthy: bool) -> str:
    """Why this container will never be there; "" while it may."""
    if restarts(each.task):
        return ""
    err = each.task.status.err
    match stage(each.task):
        case "failed":
            return f"container {each.name}: {err or 'could not be started'}"
        case "exited" if healthy:
            return f"container {each.name} exited ({exit_code(each.task)})"
        case "exited" if each.task.status.exit_code is None and err:
            return f"container {each.name}: {err}"
        case _:
            return ""


def _why(each: Container) -> str:
    reason = each.task.waiting_for or each.task.status.err or each.task.status.message
    return f"{each.name}: {each.task.status.state.name.lower()}" + (f": {reason}" if reason else "")


def blocked(services: Sequence[Service], tasks: Sequence[Task]) -> list[str]:
    """Services that wait for a dependency that will not come: it ended, or failed to; pure."""
    by_name = {each.spec.name: each for each in services}
    found: list[str] = []
    for service in services:
        for dependency in service.spec.depends_on:
            target = by_name.get(dependency.service)
            if target is None or not dependency.required:
                continue
            for each in of_service([target], tasks, target):
                if stage(each.task) not in ("exited", "failed") or restarts(each.task):
                    continue
                if not current(target, each.task):
                    continue
                completed = dependency.condition == "service_completed_successfully"
                if completed and exit_code(each.task) == 0:
                    continue
                if dependency.condition == "service_started" and stage(each.task) == "exited":
                    continue
                what = (
                    f"didn't complete successfully: exit {exit_code(each.task)}"
                    if completed
                    else "is not running"
                )
                found.append(f"dependency failed to start: container {each.name} {what}")
    return list(dict.fromkeys(found))


async def until_started(
    scope: Scope, ids: Sequence[str], *, healthy: bool = False, timeout: float | None = None
) -> None:
    """Return when every container of the services has started, with a line for each. Raises NotStarted."""
    told: set[str] = set()
    verb = "Healthy" if healthy else "Started"
    patience = asyncio.get_running_loop().time() + PATIENCE
    try:
        async with asyncio.timeout(timeout):
            while True:
                await scope.refresh()
                mine = [each for each in scope.services if each.id in ids]
                found = standing(mine, scope.tasks, healthy=healthy)
                for each in found.done:
                    if each.name not in told:
                        told.add(each.name)
                        say("Container", each.name, verb)
                problems = [*found.failed, *(blocked(scope.services, scope.tasks) if found.waiting else ())]
                if problems:
                    raise NotStarted("\n".join(problems))
                if not found.waiting:
                    return
                if asyncio.get_running_loop().time() >= patience:
                    for line in [each for each in found.waiting if each not in told]:
                        told.add(line)
                        warn(f"waiting for {line}")
                await asyncio.sleep(POLL)
    except TimeoutError:
        left = "\n".join(f"  {line}" for line in found.waiting)  # pyright: ignore[reportPossiblyUnboundVariable]
        raise NotStarted(f"application not ready after {timeout:g} s:\n{left}") from None


async def until_ended(
    scope: Scope,
    ids: Collection[str],
    *,
    grace: float | None,
    verb: str,
    tasks: Collection[str] | None = None,
) -> None:
    """Return when no container of the services lives (of these `tasks` alone, if they are given), with a line for
    each. After `grace` seconds those that still live are killed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    services = [each for each in scope.services if each.id in ids]
    names: dict[str, str] = {}
    everyone: Sequence[Task] = scope.tasks
    killed = False
    while True:
        living = [each for each in _living(services, everyone) if tasks is None or each.task.id in tasks]
        left = {each.task.id for each in living}
        for task_id in sorted(set(names) - left, key=names.__getitem__):
            say("Container", names.pop(task_id), verb)
        names |= {each.task.id: each.name for each in living}
        if not living:
            break
        if grace is not None and not killed and loop.time() - began >= grace:
            killed = True
            await signal_tasks(scope, [each.task for each in living], "SIGKILL")
        await asyncio.sleep(POLL)
        everyone = await scope.client.tasks(scope.label)
    await scope.refresh()


def _living(services: Sequence[Service], tasks: Sequence[Task]) -> list[Container]:
    """Every task that has a process, or may have one soon; older ones of a slot too."""
    found: list[Container] = []
    by_id = {service.id: service for service in services}
    for task in tasks:
        if task.service_id in by_id and alive(task.status.state):
            found += containers([by_id[task.service_id]], [task])
    return found


async def signal_tasks(scope: Scope, tasks: Sequence[Task], signal: str) -> list[str]:
    """Send a signal to the main processes; ids of those that were there to get it. Raises Conflict where a node
    is not able to."""
    reached: list[str] = []
    for task in tasks:
        if not task.node_id or task.status.state < TaskState.STARTING:
            continue
        try:
            await nodes.ask(scope.client, "task.kill", {"task": task.id, "signal": signal}, node=task.node_id)
            reached.append(task.id)
        except NotFound:
            continue
    return reached


async def until_gone(scope: Scope, ids: Mapping[str, str], timeout: float | None = None) -> None:
    """Return when the services (name by id) and their tasks are gone. Raises Conflict."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                services, tasks = await asyncio.gather(
                    scope.client.services(scope.label), scope.client.tasks(scope.label)
                )
                left = [each for each in services if each.id in ids]
                if not left and not any(each.service_id in ids for each in tasks):
                    return
                await asyncio.sleep(POLL)
    except TimeoutError:
        raise Conflict(f"not gone after {timeout:g} s: {', '.join(sorted(ids.values()))}") from None
