"""Services, tasks and nodes as rows of tables; pure. Used by every command that lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pyswarm.cli import human
from pyswarm.cli.table import Layout, label_method, row
from pyswarm.engine import ServiceCounts, count_tasks
from pyswarm.gotemplate import Struct
from pyswarm.objects import Node, NodeState, Service, Task, TaskState

SERVICES = Layout(
    columns=("ID", "Name", "Mode", "Replicas", "Image", "Ports"),
    headers={
        "ID": "ID",
        "Name": "NAME",
        "Mode": "MODE",
        "Replicas": "REPLICAS",
        "Image": "IMAGE",
        "Ports": "PORTS",
    },
)
TASKS = Layout(
    columns=("ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"),
    headers={
        "ID": "ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Node": "NODE",
        "DesiredState": "DESIRED STATE",
        "CurrentState": "CURRENT STATE",
        "Error": "ERROR",
        "Ports": "PORTS",
    },
)
NODES = Layout(
    columns=("ID", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion"),
    headers={
        "ID": "ID",
        "Self": "",
        "Hostname": "HOSTNAME",
        "Status": "STATUS",
        "Availability": "AVAILABILITY",
        "ManagerStatus": "MANAGER STATUS",
        "EngineVersion": "ENGINE VERSION",
        "TLSStatus": "TLS STATUS",
    },
    cells={"ID": "{{.ID}} {{if .Self}}*{{else}} {{end}}"},
)
ERROR_WIDTH = 30

_MODES = {
    "replicated": "replicated",
    "global": "global",
    "replicated-job": "replicated job",
    "global-job": "global job",
}


def replicas(service: Service, counts: ServiceCounts) -> str:
    """`2/3`, `2/3 (max 1 per node)`, `1/2 (3/5 completed)`."""
    mode, most = service.spec.mode, service.spec.task.placement.max_replicas
    text = f"{counts.running}/{counts.desired}"
    if mode.kind == "replicated-job":
        return f"{text} ({counts.completed}/{mode.total_completions} completed)"
    if mode.kind == "global-job":
        return f"{text} ({counts.completed}/{counts.desired + counts.completed} completed)"
    return f"{text} (max {most} per node)" if most and mode.kind == "replicated" else text


def services(found: Sequence[Service], tasks: Iterable[Task]) -> list[Struct]:
    """Rows of `service ls` and `stack services`, in natural order of names."""
    by_service: dict[str, list[Task]] = {}
    for task in tasks:
        by_service.setdefault(task.service_id, []).append(task)
    ordered = sorted(found, key=lambda each: (human.natural(each.spec.name), each.id))
    return [
        row(
            ID=human.short(each.id),
            Name=each.spec.name,
            Mode=_MODES[each.spec.mode.kind],
            Replicas=replicas(each, count_tasks(each, by_service.get(each.id, ()))),
            Image=human.image(each.spec.task.container.image),
            Ports=human.ports(each.endpoint.ports) if each.endpoint else "",
        )
        for each in ordered
    ]


def task_name(task: Task, resolve: bool = True) -> str:
    """`web.1`, or `web.<node id>` for global services; with ids alone unless `resolve`."""
    service = (task.service_name or task.service_id) if resolve else task.service_id
    return f"{service}.{task.slot or task.node_id}"


def tasks(
    found: Sequence[Task],
    nodes: Mapping[str, Node],
    now: float,
    *,
    resolve: bool = True,
    full: bool = False,
    indent: bool = True,
) -> list[Struct]:
    """Rows of `ps`: by name, the newest task of a slot first and the ones before it (with `indent`, in tables)
    indented below."""
    ordered = sorted(found, key=lambda t: (human.natural(task_name(t, resolve)), -t.meta.created_at, t.id))
    shown: list[Struct] = []
    before = ""
    for task in ordered:
        name = task_name(task, resolve)
        node = nodes.get(task.node_id)
        error = _error(task, now)
        shown.append(
            row(
                ID=human.short(task.id, full),
                Name=f" \\_ {name}" if indent and name == before else name,
                Image=human.image(task.spec.container.image, full),
                Node=node.description.hostname if node is not None and resolve else task.node_id,
                DesiredState=human.state(task.desired_state),
                CurrentState=human.current_state(task.status.state, task.status.timestamp, now),
                Error=f'"{error if full else human.ellipsis(error, ERROR_WIDTH)}"' if error else "",
                Ports=human.host_ports(task.status.ports) if task.status.state == TaskState.RUNNING else "",
            )
        )
        before = name
    return shown


def _error(task: Task, now: float) -> str:
    """Why the task failed, or why it does not get on."""
    if task.status.err or task.status.state >= TaskState.RUNNING:
        return task.status.err
    if task.waiting_for or task.not_before <= now:
        return task.waiting_for
    crashes = f", after {task.backoff} crashes in a row" if task.backoff > 1 else ""
    return f"restarts in {task.not_before - now:.0f} s{crashes}"


def nodes(found: Sequence[Node], self_id: str) -> list[Struct]:
    """Rows of `node ls`, in natural order of host names."""
    ordered = sorted(found, key=lambda node: (human.natural(node.description.hostname), node.id))
    return [_node(node, node.id == self_id) for node in ordered]


def _node(node: Node, own: bool) -> Struct:
    manager = ""
    if node.manager_status is not None:
        manager = "Leader" if node.manager_status.leader else node.manager_status.reachability.capitalize()
    state = node.status.state
    return row(
        Label=label_method(node.spec.labels),
        ID=node.id,
        Self=own,
        Hostname=node.description.hostname,
        Status="Disconnected" if state == NodeState.DISCONNECTED else state.name.capitalize(),
        Availability=node.spec.availability.capitalize(),
        ManagerStatus=manager,
        EngineVersion=node.description.engine_version,
        TLSStatus=_tls_status(node),
    )


def _tls_status(node: Node) -> str:
    """As docker says it: whether the node's certificate is of the root that it is to be of."""
    said = node.description
    if not said.root_ca:
        return "Unknown"
    return "Needs Rotation" if node.certificate_wanted not in ("", said.certificate_issuer) else "Ready"
