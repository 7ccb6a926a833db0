"""The agent's worker: one supervisor per assigned task, which walks the task through its states.

The managers say what is to be here (`apply`), the worker makes it so through its ports and reports what
became of it. It needs no manager to go on: what it was told last is on the tmpfs, so that an agent that was
killed takes its containers over, running ones without a restart, ended ones with their exit code.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from node_agent import lifecycle
from node_agent.lifecycle import Health, HealthPolicy, Step
from node_agent.ports import (
    BindMount,
    ExecInput,
    ExecRequest,
    Exit,
    ImageConfig,
    ImagePort,
    Launch,
    NetworkPort,
    Paths,
    RuntimePort,
    StoragePort,
)
from node_agent.records import Records, Remembered
from node_agent.tables import Tables
from pyswarm.clock import Clock
from pyswarm.errors import Invalid, NotFound, PyswarmError, Unavailable
from pyswarm.objects import (
    Assignments,
    Config,
    Node,
    Secret,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
    Volume,
    terminal,
)
from pyswarm.specs import ContainerSpec, GenericResource, Hook
from pyswarm.templating import expand_container

_log = logging.getLogger(__name__)
_A = TypeVar("_A")
_B = TypeVar("_B")

DEFAULT_GRACE = 10.0
"""Seconds between the stop signal and SIGKILL (Docker's)."""


_SLOW_PULL = 0.3
"""Seconds after which a task that waits for its image says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Knobs of a worker; times in seconds."""

    parallel_starts: int = 0
    """Containers being prepared or started at the same time; 0 is twice the number of cores."""
    drain_delay: float = 1.0
    """Between a task's removal from the load balancers and its stop signal, when other nodes send to it:
    the time that their tables may lag behind. On a single node nothing lags, and there is no delay."""
    resync_interval: float = 60.0
    """How often the kernel's tables are compared with what the managers said, and unused images let go."""
    attach_timeout: float = 60.0
    """Seconds that a container made for a client (`attach_first`) waits for it."""
    hook_timeout: float = 300.0
    """Most that one lifecycle hook may take."""


@dataclass(slots=True)
class _Entry:
    """One task here. Only its supervisor changes `status`, `container` and what is below them."""

    task: Task
    status: TaskStatus
    container: lifecycle.Container = "absent"
    lost: bool = False
    """It had started before this machine (or its tmpfs) went down: it will not run again."""
    dismantling: asyncio.Future[None] | None = None
    """Removes container and namespace; done when they are gone."""
    reported: bool = False
    """The managers were told of its end."""
    launch: Launch | None = None
    image: ImageConfig | None = None
    image_ids: tuple[str, ...] = ()
    """Ids of the images that it is mounted from: its own, then those mounted as volumes."""
    network_mounts: Sequence[BindMount] = ()
    desired: TaskState = TaskState.RUNNING
    removed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    supervisor: asyncio.Task[None] | None = None
    work: asyncio.Task[None] | None = None
    """The step being taken, if it may be broken off by a wish to stop."""
    again: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its process is to be started anew."""
    restarting: asyncio.Future[None] | None = None
    """Who asked for that waits for this."""
    restart_grace: float | None = None

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def stopping(self) -> bool:
        return lifecycle.stopping(self.desired)


class Worker:
    """Everything assigned to this node. Use as `async with worker:`; leaving the block ends the supervisors
    and leaves the containers running."""

    def __init__(
        self,
        *,
        paths: Paths,
        node: Node,
        runtime: RuntimePort,
        images: ImagePort,
        storage: StoragePort,
        network: NetworkPort,
        clock: Clock,
        report: Callable[[TaskStatusUpdate], None],
        options: WorkerOptions | None = None,
    ) -> None:
        """`report` is called, without blocking, with each change of a task's status; `statuses` has them
        all for a new session."""
        self._paths = paths
        self._node = node
        self._runtime = runtime
        self._images = images
        self._storage = storage
        self._network = network
        self._clock = clock
        self._report = report
        self._options = options or WorkerOptions()
        self._records = Records(paths)
        self._entries: dict[str, _Entry] = {}
        self._secrets: dict[str, Secret] = {}
        self._configs: dict[str, Config] = {}
        self._volumes: dict[str, Volume] = {}
        self._tables = Tables()
        self._slots = asyncio.Semaphore(self._options.parallel_starts or 2 * (os.cpu_count() or 1))
        self._leftovers: set[str] = set()
        """Task ids that the ports knew at the start: what is unknown now may be older than this agent."""
        self._images_in_use: tuple[str, ...] | None = None
        """As it was at the last release; None before the first, when a former agent's may be mounted."""
        self._unsaved = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------ for the session

    async def __aenter__(self) -> Worker:
        """Take over what the former agent left."""
        await self._group.__aenter__()
        try:
            await self._network.start()
            await self._adopt()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._spawn(self._resync_loop(), "resync")
        self._spawn(self._save_loop(), "save assignment")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the supervisors; containers go on."""
        for task in list(self._running):
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def statuses(self) -> Sequence[TaskStatusUpdate]:
        """The present status of every task here, by id: a new session starts with them. An end that is not
        cleared away yet comes later, as a report."""
        return [
            TaskStatusUpdate(task_id=entry.id, status=entry.status)
            for _, entry in sorted(self._entries.items())
            if entry.status.state >= TaskState.ACCEPTED
            and (entry.reported or not terminal(entry.status.state))
        ]

    def tasks(self) -> Mapping[str, Task]:
        """The assigned tasks with their present status, by id."""
        return {key: replace(entry.task, status=entry.status) for key, entry in sorted(self._entries.items())}

    async def apply(self, assignments: Assignments) -> None:
        """Make what is here agree with the managers' wish: the complete set, or a delta. Returns when the
        network's tables are in place and the supervisors know; they work on by themselves. One call at a
        time, in the order of the stream."""
        self._take_over(assignments)
        for task in assignments.tasks:
            self._assign(task)
        gone = set(assignments.removed_tasks)
        if assignments.complete:
            gone |= set(self._entries) - {task.id for task in assignments.tasks}
        await self._apply_network()
        for entry in [entry for entry in self._entries.values() if entry.supervisor is None]:
            self._start(entry)
        for task_id in sorted(gone & set(self._entries)):
            self._unassign(self._entries[task_id])
        for entry in self._entries.values():
            self._notice(entry)
        if assignments.complete:
            await self._sweep()

    async def remove_all(self) -> None:
        """Stop and forget every task and the network: the node leaves its cluster."""
        for entry in list(self._entries.values()):
            self._unassign(entry)
            self._notice(entry)
        running = [entry.supervisor for entry in self._entries.values() if entry.supervisor]
        await asyncio.gather(*running, return_exceptions=True)
        await self._sweep()
        await self._images.release(())
        await self._network.stop(remove=True)

    # ------------------------------------------------------------------------------------ assignments

    def _take_over(self, assignments: Assignments) -> None:
        """Secrets, configs, volumes and tables: replaced by a complete set, changed by a delta."""
        self._tables.take(assignments)
        if assignments.complete:
            for table in (self._secrets, self._configs, self._volumes):
                table.clear()
        self._secrets.update({secret.id: secret for secret in assignments.secrets})
        self._configs.update({config.id: config for config in assignments.configs})
        self._volumes.update({volume.id: volume for volume in assignments.volumes})
        for keys, store in (
            (assignments.removed_secrets, self._secrets),
            (assignments.removed_configs, self._configs),
            (assignments.removed_volumes, self._volumes),
        ):
            for key in keys:
                store.pop(key, None)
        self._unsaved.set()

    def _assign(self, task: Task) -> None:
        """Take in a task. A new one is started by `apply` once the network knows it, or by the next `apply`
        if this one is broken off."""
        entry = self._entries.get(task.id)
        if entry is None:
            self._entries[task.id] = self._new_entry(task)
            self._records.save_task(task)
            return
        if task.desired_state > entry.desired:
            entry.desired = task.desired_state
            self._records.save_task(task)
        entry.task = task

    def _new_entry(self, task: Task) -> _Entry:
        """A task that this agent has no record of: new, or older than a reboot."""
        known = self._records.status_on_disk(task.id)
        status = lifecycle.started_before(task.status, known)
        container: lifecycle.Container = "absent"
        if task.id in self._leftovers:
            container = "started" if status.state >= TaskState.RUNNING else "present"
        return _Entry(
            task=task,
            status=status,
            container=container,
            lost=container == "absent" and status.state >= TaskState.STARTING,
            dismantling=_done_if(container == "absent" and terminal(status.state)),
            reported=terminal(task.status.state),
            desired=task.desired_state,
        )

    def _unassign(self, entry: _Entry) -> None:
        entry.removed = True
        entry.desired = TaskState.REMOVE

    def _notice(self, entry: _Entry) -> None:
        """Tell the supervisor that what is wanted may have changed."""
        entry.changed.set()
        if entry.stopping and entry.work is not None:
            entry.work.cancel()
        if entry.removed and (entry.supervisor is None or entry.supervisor.done()):
            self._start(entry)

    def _start(self, entry: _Entry) -> None:
        entry.supervisor = self._spawn(self._supervise(entry), f"task {entry.id}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._group.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _apply_network(self) -> None:
        local = {key: e.task for key, e in sorted(self._entries.items()) if not terminal(e.status.state)}
        try:
            await self._network.apply(dict(self._tables.networks), self._tables.ingress, local)
        except (PyswarmError, OSError):
            _log.exception("the network's tables could not be applied; they are tried again")

    async def _sweep(self) -> None:
        """Remove every container, namespace and layer that is not assigned to this node."""
        found = (
            await self._runtime.known(),
            await self._network.known(),
            await self._storage.known(),
        )
        unknown = sorted({task_id for known in found for task_id in known} - set(self._entries))
        for task_id in unknown:
            _log.info("removing task %s, which is not assigned to this node", task_id)
            await _try("delete the container", task_id, self._runtime.delete(task_id))
            await _try("drop the namespace", task_id, self._network.detach(task_id))
            await _try("forget it", task_id, self._storage.forget(task_id))
            self._records.forget(task_id)
        self._leftovers.clear()

    # ------------------------------------------------------------------------------------ adoption

    async def _adopt(self) -> None:
        running = set(await self._runtime.known())
        self._leftovers = running | set(await self._network.known())
        kept = self._records.load_assignment()
        if kept is not None:
            self._take_over(kept)
        for task_id, remembered in self._records.load().items():
            self._entries[task_id] = await self._adopted(remembered, task_id in running)
        if self._entries:
            await self._apply_network()
        for entry in list(self._entries.values()):
            self._start(entry)
        self._leftovers -= set(self._entries)

    async def _adopted(self, remembered: Remembered, exists: bool) -> _Entry:
        status = remembered.status
        self._paths.restarting(remembered.task.id).unlink(missing_ok=True)  # of an agent that was killed
        container: lifecycle.Container = "absent"
        if exists:
            container = "started" if status.started_at else "present"
        entry = _Entry(
            task=remembered.task,
            status=status,
            container=container,
            lost=container == "absent" and bool(status.started_at),
            dismantling=None if remembered.task.id in self._leftovers else _done_if(terminal(status.state)),
            desired=remembered.task.desired_state,
            image_ids=remembered.image_ids,
        )
        if remembered.image_ids and not terminal(status.state):
            with suppress(PyswarmError):
                entry.image = await self._images.ensure(f"sha256:{remembered.image_ids[0]}", "never", "")
        return entry

    # ------------------------------------------------------------------------------------ a supervisor

    async def _supervise(self, entry: _Entry) -> None:
        """Walk a task from where it is to its end, then forget it once it is no longer assigned."""
        while (step := self._next_step(entry)) is not Step.CLEAN:
            try:
                await self._take(step, entry)
            except PyswarmError as error:
                self._fail(entry, str(error))
            except Exception as error:  # a supervisor answers for its task, whatever happened
                _log.exception("task %s: %s failed", entry.id, step.value)
                self._fail(entry, f"agent error in step {step.value}: {error!r}")
        await self._clean(entry)
        if entry.removed:
            await self._forget(entry)

    def _next_step(self, entry: _Entry) -> Step:
        if entry.lost and not terminal(entry.status.state):
            return Step.STOP if entry.stopping else Step.LOST
        return lifecycle.next_step(
            entry.desired, entry.status.state, entry.container, entry.launch is not None
        )

    async def _take(self, step: Step, entry: _Entry) -> None:
        if step is Step.ACCEPT:
            self._set(entry, TaskState.ACCEPTED, message="accepted")
        elif step is Step.PREPARE:
            await self._breakable(entry, self._prepare(entry))
        elif step is Step.HOLD:
            entry.changed.clear()
            if self._next_step(entry) is Step.HOLD:
                await entry.changed.wait()
        elif step is Step.START:
            await self._breakable(entry, self._launch(entry))
        elif step is Step.WATCH:
            await self._breakable(entry, self._watch(entry))
        elif step is Step.STOP:
            await self._stop(entry)
        else:
            self._fail(entry, "task: the container is gone (the node was restarted)")

    async def _breakable(self, entry: _Entry, work: Coroutine[Any, Any, None]) -> None:
        """Take a step that a wish to stop breaks off. A cancellation of the supervisor itself goes on."""
        entry.work = asyncio.create_task(work)
        try:
            await entry.work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not entry.stopping or (current is not None and current.cancelling()):
                raise
        finally:
            entry.work = None

    def _set(self, entry: _Entry, state: TaskState, **changes: Any) -> None:
        """Change the status, remember it, report it. The state never goes back. An end is reported by
        `_clean`, when container, namespace and ports are gone; it is remembered here, before the container
        that knows of it is removed."""
        change = replace(entry.status, state=state, timestamp=self._clock.now(), **changes)
        status = lifecycle.advance(entry.status, change)
        entry.status = status
        self._records.save_status(entry.id, status)
        if not terminal(status.state):
            self._report(TaskStatusUpdate(task_id=entry.id, status=status))

    # ------------------------------------------------------------------------------------ prepare

    async def _prepare(self, entry: _Entry) -> None:
        self._set(entry, TaskState.PREPARING, message="preparing")
        task = replace(
            entry.task,
            spec=replace(entry.task.spec, container=expand_container(entry.task, self._node)),
        )
        refuse_unsupported(task.spec.container)
        spec = task.spec.container
        image = await self._image(entry, spec, task.spec.registry_auth)
        entry.image = image
        entry.image_ids = (image.id,)
        self._health_policy(entry)
        task = await self._with_image_mounts(entry, task)
        self._records.save_images(entry.id, entry.image_ids)
        async with self._slots:
            (root, mounts), netns_of = await _both(self._root(task, image), self._namespace(entry, task))
            user, home = await self._storage.resolve_user(task, image, root)
        entry.launch = Launch(
            task=task,
            image=image,
            rootfs=root,
            mounts=_merge_mounts(mounts, entry.network_mounts),
            netns=self._paths.netns(netns_of) if netns_of else None,
            hostname=hostname(task, self._node),
            env=generic_resources(task.assigned_generic),
            cgroup_parent=self._paths.cgroup_parent,
            user=user,
            home=home,
        )
        self._set(entry, TaskState.READY, message="prepared")

    async def _image(self, entry: _Entry, spec: ContainerSpec, auth: str) -> ImageConfig:
        """Have the image; a pull that takes its time is shown to people."""
        having = asyncio.ensure_future(self._images.ensure(spec.image, spec.pull_policy, auth))
        try:
            done, _ = await asyncio.wait((having,), timeout=_SLOW_PULL)
            if not done:
                self._set(entry, TaskState.PREPARING, message=f"pulling image {spec.image}")
            return await having
        finally:
            having.cancel()

    async def _root(self, task: Task, image: ImageConfig) -> tuple[Any, Sequence[BindMount]]:
        lower = await self._images.mount(image)
        return await self._storage.prepare(task, image, lower, self._secrets, self._configs, self._volumes)

    async def _namespace(self, entry: _Entry, task: Task) -> str:
        """Give the task its network; returns the id of the task whose namespace it uses, "" for the
        host's."""
        mode = task.spec.container.network_mode
        owner = self._owner(mode).task if mode.startswith(("service:", "container:")) else task
        entry.network_mounts = await self._network.attach(owner)
        return "" if mode == "host" else owner.id

    def _owner(self, mode: str) -> _Entry:
        """The running task whose namespace `network_mode: service:NAME` (or container:ID) means."""
        kind, _, name = mode.partition(":")
        for _, entry in sorted(self._entries.items()):
            task = entry.task
            names = (
                (task.service_name, task.service_name.partition("_")[2])
                if kind == "service"
                else (task.id, task.name)
            )
            if name in names and entry.container == "started" and not entry.stopping:
                return entry
        raise Invalid(
            f"network_mode: {mode}: no such task runs on this node; place both services on one node "
            "and let this one depend on the other"
        )

    async def _with_image_mounts(self, entry: _Entry, task: Task) -> Task:
        """Mounts of type `image` as read-only binds of the image's mount."""
        spec = task.spec.container
        if not any(mount.type == "image" for mount in spec.mounts):
            return task
        mounts = list(spec.mounts)
        for number, mount in enumerate(mounts):
            if mount.type == "image":
                image = await self._images.ensure(mount.source, "", task.spec.registry_auth)
                entry.image_ids = (*entry.image_ids, image.id)
                source = await self._images.mount(image)
                mounts[number] = replace(
                    mount, type="bind", source=str(source), read_only=True, bind_create_host_path=False
                )
        return replace(task, spec=replace(task.spec, container=replace(spec, mounts=tuple(mounts))))

    # ------------------------------------------------------------------------------------ start and watch

    async def _launch(self, entry: _Entry) -> None:
        assert entry.launch is not None
        self._set(entry, TaskState.STARTING, message="starting")
        async with self._slots:
            entry.container = "present"
            ports = await self._network.publish(entry.launch.task)
            pid = await self._runtime.create(entry.launch)
        if entry.task.spec.container.attach_first:
            await self._attached(entry)
        async with self._slots:
            await self._runtime.start(entry.id)
        entry.container = "started"
        now = self._clock.now()
        done = self._health_policy(entry) is None and not entry.task.spec.container.post_start
        self._set(
            entry,
            TaskState.RUNNING if done else TaskState.STARTING,
            message="started" if done else "starting container",
            container_id=entry.id,
            pid=pid,
            ports=tuple(ports),
            started_at=now,
            running_since=now if done else 0.0,
            health="" if self._health_policy(entry) is None else "starting",
        )

    async def _attached(self, entry: _Entry) -> None:
        """Wait for the client that the container is for."""
        try:
            async with asyncio.timeout(self._options.attach_timeout):
                await self._runtime.attached(entry.id)
        except TimeoutError:
            waited = f"{self._options.attach_timeout:.0f} seconds"
            raise Unavailable(
                f"nobody attached to the container within {waited}: it was not started"
            ) from None

    def _health_policy(self, entry: _Entry) -> HealthPolicy | None:
        image = entry.image.healthcheck if entry.image else None
        return lifecycle.health_policy(entry.task.spec.container.healthcheck, image)

    async def restart(self, task_id: str, grace: float | None = None) -> None:
        """Stop the container's process and start it anew, in the same container: its writable layer, addresses and
        ports stay. `grace` are the seconds from the stop signal to SIGKILL, None the task's own. Raises NotFound
        for a task that does not run here, Unavailable for one that cannot be started from what is known of it."""
        entry = self._entries.get(task_id)
        if entry is None or entry.container != "started" or terminal(entry.status.state) or entry.stopping:
            raise NotFound(f"task {task_id} does not run on this node")
        if entry.launch is None:
            raise Unavailable(
                f"task {task_id} was started by a former agent: replace it with `pyswarm service update --force`"
            )
        if entry.restarting is None:
            entry.restarting = asyncio.get_running_loop().create_future()
            entry.restart_grace = grace
            entry.again.set()
        await asyncio.shield(entry.restarting)

    async def _restart(self, entry: _Entry, waiter: asyncio.Task[Exit]) -> None:
        assert entry.launch is not None and entry.restarting is not None
        asked, entry.restarting = entry.restarting, None
        entry.again.clear()
        mark = self._paths.restarting(entry.id)
        with suppress(OSError):
            mark.touch(0o600)
        try:
            for number, hook in enumerate(entry.task.spec.container.pre_stop):
                if not waiter.done() and (error := await self._hook(entry, hook, f"pre_stop[{number}]")):
                    _log.warning("task %s: %s", entry.id, error)
            await self._terminate(entry, waiter, entry.restart_grace)
            entry.container = "present"
            await self._runtime.delete(entry.id)
            pid = await self._runtime.create(entry.launch)
            await self._runtime.start(entry.id)
            entry.container = "started"
            for number, hook in enumerate(entry.task.spec.container.post_start):
                if error := await self._hook(entry, hook, f"post_start[{number}]"):
                    raise Invalid(error)
            now = self._clock.now()
            health = "" if self._health_policy(entry) is None else "starting"
            self._set(
                entry,
                TaskState.RUNNING,
                message="restarted",
                pid=pid,
                started_at=now,
                running_since=now,
                health=health,
            )
            asked.set_result(None)
        except BaseException as error:
            asked.set_exception(Unavailable(f"task {entry.id} could not be started again: {error}"))
            asked.exception()  # whoever asked may be gone
            raise
        finally:
            mark.unlink(missing_ok=True)

    async def _watch(self, entry: _Entry) -> None:
        """Until the container has ended, by itself or because it is unhealthy, or was started anew."""
        waiter = asyncio.create_task(self._runtime.wait(entry.id))
        keeper = asyncio.create_task(self._keep(entry))
        again = asyncio.create_task(entry.again.wait())
        try:
            await asyncio.wait((waiter, keeper, again), return_when=asyncio.FIRST_COMPLETED)
            if again.done() and not waiter.done() and not keeper.done():
                keeper.cancel()
                await self._whole(self._restart(entry, waiter))
                return
            if not waiter.done() and (error := await keeper):
                exit_ = await self._terminate(entry, waiter)
                self._ended(entry, TaskState.FAILED, error, exit_)
                return
            exit_ = await waiter
        finally:
            for task in (waiter, keeper, again):
                task.cancel()
            await asyncio.gather(waiter, keeper, again, return_exceptions=True)
        self._ended(entry, lifecycle.exit_state(exit_), lifecycle.exit_error(exit_), exit_)

    def _ended(self, entry: _Entry, state: TaskState, error: str, exit_: Exit) -> None:
        entry.container = "ended"
        self._set(
            entry,
            state,
            message="finished" if state == TaskState.COMPLETE else entry.status.message,
            err=error,
            **_exit_fields(exit_, self._clock.now()),
        )

    async def _keep(self, entry: _Entry) -> str:
        """Bring a started container up (hooks, first health) and probe it as long as it runs. Returns why
        it has to be stopped; never returns for a container that is well."""
        spec = entry.task.spec.container
        if entry.status.state < TaskState.RUNNING:
            for number, hook in enumerate(spec.post_start):
                if error := await self._hook(entry, hook, f"post_start[{number}]"):
                    return error
        policy = self._health_policy(entry)
        if policy is None:
            if entry.status.state < TaskState.RUNNING:
                self._set(entry, TaskState.RUNNING, message="started", running_since=self._clock.now())
            await asyncio.Event().wait()
        assert policy is not None
        return await self._probe(entry, policy)

    async def _probe(self, entry: _Entry, policy: HealthPolicy) -> str:
        health = self._health_so_far(entry.status)
        while health.state != "unhealthy":
            await asyncio.sleep(max(0.0, lifecycle.next_probe(policy, health) - self._clock.monotonic()))
            began = self._clock.monotonic()
            code, output = await self._run_probe(entry, policy)
            health = lifecycle.observe(policy, health, code, output, began, self._clock.monotonic())
            self._show_health(entry, policy, health)
        return lifecycle.unhealthy_error(health)

    def _health_so_far(self, status: TaskStatus) -> Health:
        """Where probing goes on, in monotonic time: a step of the machine's clock must not delay a probe."""
        now = self._clock.monotonic()
        age = max(0.0, self._clock.now() - status.started_at) if status.started_at else 0.0
        return replace(
            lifecycle.health_start(now - age),
            state=status.health or "starting",
            last_at=now if status.health == "healthy" else now - age,
        )

    async def _run_probe(self, entry: _Entry, policy: HealthPolicy) -> tuple[int, str]:
        try:
            return await self._runtime.probe(entry.id, policy.argv, policy.timeout)
        except (PyswarmError, OSError) as error:
            return 1, str(error)

    def _show_health(self, entry: _Entry, policy: HealthPolicy, health: Health) -> None:
        """Report what changed: the health, or why it is not there yet."""
        state, message = entry.status.state, entry.status.message
        if health.state == "healthy" and state < TaskState.RUNNING:
            now = self._clock.now()
            self._set(entry, TaskState.RUNNING, message="started", health="healthy", running_since=now)
            return
        if state < TaskState.RUNNING:
            message = lifecycle.waiting_message(policy, health)
        if health.state != entry.status.health or message != entry.status.message:
            self._set(entry, state, message=message, health=health.state)

    async def _hook(self, entry: _Entry, hook: Hook, where: str) -> str:
        """Run a lifecycle command in the container; returns what went wrong, "" for nothing."""
        request = ExecRequest(
            argv=hook.command,
            env=hook.env,
            user=hook.user,
            working_dir=hook.working_dir,
            privileged=hook.privileged,
        )
        output, code = b"", 0
        try:
            async with asyncio.timeout(self._options.hook_timeout):
                async for kind, data in await self._runtime.exec(entry.id, request, _no_input()):
                    if kind == "exit":
                        code = int(data)
                    else:
                        output = (output + data)[-lifecycle.OUTPUT_LIMIT :]
        except TimeoutError:
            return f"task: {where} took longer than {self._options.hook_timeout:g} s"
        except (PyswarmError, OSError) as error:
            return f"task: {where}: {error}"
        said = " ".join(output.decode(errors="replace").split())[:200]
        return f"task: {where} exited {code}: {said}" if code else ""

    # ------------------------------------------------------------------------------------ stop

    async def _stop(self, entry: _Entry) -> None:
        """Stop the container (drain, pre_stop, signal, grace, SIGKILL) and let go of what it held."""
        exit_: Exit | None = None
        if entry.container == "started":
            waiter = asyncio.create_task(self._runtime.wait(entry.id))
            try:
                await self._drain(entry, waiter)
                for number, hook in enumerate(entry.task.spec.container.pre_stop):
                    if not waiter.done() and (error := await self._hook(entry, hook, f"pre_stop[{number}]")):
                        _log.warning("task %s: %s", entry.id, error)
                exit_ = await self._terminate(entry, waiter)
            finally:
                waiter.cancel()
                await asyncio.gather(waiter, return_exceptions=True)
        entry.container = "ended" if entry.container != "absent" else "absent"
        fields = _exit_fields(exit_, self._clock.now()) if exit_ else {}
        self._set(entry, TaskState.SHUTDOWN, message="shutdown", **fields)

    async def _drain(self, entry: _Entry, waiter: asyncio.Task[Exit]) -> None:
        """Give other nodes time to stop sending to a task that they may be sending to."""
        if entry.status.state == TaskState.RUNNING and self._reached_from_elsewhere(entry.task):
            await asyncio.wait((waiter,), timeout=self._options.drain_delay)

    def _reached_from_elsewhere(self, task: Task) -> bool:
        attached = {attachment.network_id for attachment in task.networks}
        members = any(
            member.node_id != self._node.id
            for network_id, table in self._tables.networks.items()
            if network_id in attached
            for member in table.members
        )
        published = any(
            target.node_id not in ("", self._node.id)
            for port in self._tables.ingress
            if port.service_id == task.service_id
            for target in port.targets
        )
        return members or published

    @staticmethod
    async def _whole(work: Coroutine[Any, Any, None]) -> None:
        """Do the work to its end, also when the wish to stop comes meanwhile: that is heard afterwards."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()
            raise

    @staticmethod
    def _not_restarted(entry: _Entry) -> None:
        """Tell who asked for a restart that came too late."""
        if entry.restarting is not None:
            entry.restarting.set_exception(NotFound(f"task {entry.id} has ended"))
            entry.restarting.exception()
            entry.restarting = None

    async def _terminate(self, entry: _Entry, waiter: asyncio.Task[Exit], most: float | None = None) -> Exit:
        """Stop signal, grace period (`most`, if given), SIGKILL; the way it ended."""
        spec = entry.task.spec.container
        signal = spec.stop_signal or (entry.image.stop_signal if entry.image else "") or "SIGTERM"
        grace = DEFAULT_GRACE if spec.stop_grace_period is None else spec.stop_grace_period
        grace = grace if most is None else most
        await self._signal(entry, signal)
        done, _ = await asyncio.wait((waiter,), timeout=grace)
        while not done:
            await self._signal(entry, "SIGKILL")
            done, _ = await asyncio.wait((waiter,), timeout=5.0)
        return await waiter

    async def _signal(self, entry: _Entry, signal: str) -> None:
        try:
            await self._runtime.kill(entry.id, signal)
        except NotFound:
            pass
        except PyswarmError as error:
            _log.warning("task %s: cannot send %s: %s", entry.id, signal, error)

    async def _take_down(self, task_id: str) -> None:
        """Remove container and namespace, and with them host ports and addresses: the task's successor may
        need them, so this comes before the end is reported."""
        await asyncio.gather(
            _try("delete the container", task_id, self._runtime.delete(task_id)),
            _try("drop the namespace", task_id, self._network.detach(task_id)),
        )

    def _fail(self, entry: _Entry, error: str) -> None:
        """A step did not succeed: REJECTED before the start, FAILED after it."""
        self._set(
            entry,
            lifecycle.failure_state(entry.status.state),
            err=error,
            finished_at=self._clock.now() if entry.status.started_at else 0.0,
        )

    async def _clean(self, entry: _Entry) -> None:
        self._not_restarted(entry)
        if entry.dismantling is None:
            entry.dismantling = asyncio.ensure_future(self._take_down(entry.id))
        await asyncio.shield(entry.dismantling)
        if not entry.reported:
            entry.reported = True
            self._report(TaskStatusUpdate(task_id=entry.id, status=entry.status))
        await _try("release its storage", entry.id, self._storage.release(entry.id, keep_layer=False))
        entry.launch = None
        entry.image = None
        if entry.image_ids:
            self._images_in_use = None  # it may have come and gone between two looks at what is in use
        entry.image_ids = ()

    async def _forget(self, entry: _Entry) -> None:
        await _try("forget it", entry.id, self._storage.forget(entry.id))
        self._records.forget(entry.id)
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]

    # ------------------------------------------------------------------------------------ in the background

    async def _resync_loop(self) -> None:
        while True:
            await asyncio.sleep(self._options.resync_interval)
            await self._apply_network()
            await self._repair_network()
            await self._release_images()

    async def _repair_network(self) -> None:
        try:
            for drift in await self._network.repair():
                _log.warning("network: corrected %s", drift)
        except (PyswarmError, OSError):
            _log.exception("the network could not be compared with what it should be")

    async def release_images(self) -> None:
        """Let go of the images that no task here uses, now."""
        self._images_in_use = None
        await self._release_images()

    async def _release_images(self) -> None:
        used = {image for entry in self._entries.values() for image in entry.image_ids}
        in_use = tuple(sorted(used))
        if in_use == self._images_in_use:
            return
        try:
            await self._images.release(in_use)
            self._images_in_use = in_use
        except (PyswarmError, OSError):
            _log.exception("unused images could not be unmounted")

    async def _save_loop(self) -> None:
        """Keep the tables for a successor; at most twice a second, since they may be large."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            self._records.save_assignment(
                Assignments(
                    secrets=tuple(self._secrets.values()),
                    configs=tuple(self._configs.values()),
                    volumes=tuple(self._volumes.values()),
                    networks=tuple(self._tables.networks.values()),
                    ingress=self._tables.ingress,
                )
            )
            await asyncio.sleep(0.5)


async def _try(what: str, task_id: str, work: Coroutine[Any, Any, None]) -> None:
    """Do what must not keep a task from ending; what is left behind is swept later."""
    try:
        await work
    except Exception:  # whatever it is, it must not end the supervisor, and with it the agent
        _log.exception("task %s: cannot %s", task_id, what)


def _done_if(condition: bool) -> asyncio.Future[None] | None:
    if not condition:
        return None
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


async def _both(first: Coroutine[Any, Any, _A], second: Coroutine[Any, Any, _B]) -> tuple[_A, _B]:
    """Run both at the same time; when one fails, the other is cancelled and waited for."""
    tasks = (asyncio.ensure_future(first), asyncio.ensure_future(second))
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _no_input() -> AsyncIterator[ExecInput]:
    return
    yield ("eof", b"")


def _exit_fields(exit_: Exit, now: float) -> Mapping[str, Any]:
    return {
        "exit_code": exit_.code,
        "oom_killed": exit_.oom_killed,
        "finished_at": exit_.finished_at or now,
    }


def _merge_mounts(own: Sequence[BindMount], network: Sequence[BindMount]) -> tuple[BindMount, ...]:
    """The task's mounts, then hosts, hostname and resolv.conf unless the task brings its own."""
    targets = {mount.target for mount in own}
    return (*own, *(mount for mount in network if mount.target not in targets))


def hostname(task: Task, node: Node) -> str:
    """What a container is called: as asked, else its id's beginning; on the host's network the host's."""
    spec = task.spec.container
    if spec.hostname:
        return spec.hostname
    return node.description.hostname if spec.network_mode == "host" else task.id[:12]


def generic_resources(assigned: Sequence[GenericResource]) -> tuple[str, ...]:
    """The variables by which a task learns of its generic resources: `DOCKER_RESOURCE_GPU=uuid1,uuid2`."""
    values: dict[str, list[str]] = {}
    for resource in assigned:
        name = f"DOCKER_RESOURCE_{resource.kind.upper()}"
        values.setdefault(name, []).append(resource.string_value or str(resource.value))
    return tuple(f"{name}={','.join(values[name])}" for name in sorted(values))


def refuse_unsupported(spec: ContainerSpec) -> None:
    """Invalid for what no part of this agent can do: better a task REJECTED with the reason than a setting
    ignored."""
    for name, value in (("pid", spec.pids_mode), ("ipc", spec.ipc_mode)):
        if value.startswith(("service:", "container:")):
            raise Invalid(f"{name}: {value}: namespaces are shared with the host or with nobody")
    if spec.volumes_from:
        raise Invalid("volumes_from is not supported: mount the same named volume in both services")
    if spec.links:
        raise Invalid("links is not supported: services on one network reach each other by name")
    if spec.storage_opt:
        raise Invalid("storage_opt is not supported: the writable layer has no size limit")
    if spec.isolation not in ("", "default"):
        raise Invalid(f"isolation: {spec.isolation} exists on Windows only")
