"""What nodes are told: tasks, what they need, tables of networks and the ingress, and deltas of all that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.allocator import Allocator
from manager.assignments import Tracker, assignments_for
from manager.scheduler.scheduler import Scheduler
from node_agent.tables import Tables
from pyswarm.objects import (
    Assignments,
    Cluster,
    Config,
    Member,
    NetworkTable,
    Secret,
    Service,
    Task,
    TaskState,
    Volume,
)
from pyswarm.specs import (
    ClusterSpec,
    ConfigSpec,
    ContainerSpec,
    FileReference,
    Mount,
    NetworkAttachmentSpec,
    PortConfig,
    SecretSpec,
    VolumeSpec,
)
from tests.unit.rounds import Rounds, network, node, service, tasks_of

HTTP = PortConfig(target_port=8000, published_port=80)
NEEDY = ContainerSpec(
    image="app",
    hostname="apphost",
    secrets=(FileReference(source_id="sec"),),
    configs=(FileReference(source_name="conf"),),
    mounts=(Mount(source="data", target="/data"), Mount(type="bind", source="/etc", target="/x")),
)


class Cell:
    """A cluster of three nodes with a tracker behind it."""

    def __init__(self, *, nodes: str = "abc", spec: ClusterSpec | None = None) -> None:
        self.rounds = Rounds(Allocator(), Scheduler())
        self.tracker = Tracker()
        self.tables: dict[str, Tables] = {}
        """What each connected node holds."""
        self.rounds.put(
            Cluster(id="c", spec=spec or ClusterSpec()),
            *(node(id, data_path_addr=f"192.0.2.{n}", labels={"edge": id}) for n, id in enumerate(nodes, 1)),
            network("ingress", ingress=True, created=0.5),
            network("net", created=1),
            network("other", created=2),
            Secret(id="sec", spec=SecretSpec(name="sec", data=b"s3cret")),
            Secret(id="unused", spec=SecretSpec(name="unused")),
            Config(id="conf-id", spec=ConfigSpec(name="conf")),
            Volume(id="vol-id", spec=VolumeSpec(name="data")),
        )

    def deploy(self, owner: Service, count: int, node_id: str = "") -> list[Task]:
        tasks = tasks_of(owner, count, state=TaskState.NEW, node_id=node_id)
        self.rounds.put(owner, *tasks)
        return self.rounds.tasks(owner)

    def told(self, node_id: str) -> Assignments:
        return assignments_for(self.rounds.view, node_id)

    def open(self, *node_ids: str) -> None:
        self.rounds.committed.clear()
        for node_id in node_ids:
            self.tables[node_id] = Tables()
            self.tables[node_id].take(self.tracker.open(self.rounds.view, node_id))

    def deltas(self) -> dict[str, Assignments]:
        for changed in self.rounds.committed:
            self.tracker.changed(changed)
        self.rounds.committed.clear()
        deltas = self.tracker.collect(self.rounds.view)
        for node_id, delta in deltas.items():
            self.tables[node_id].take(delta)
        return deltas


def table(told: Assignments, net: str) -> NetworkTable:
    return next(t for t in told.networks if t.network.id == net)


def member(told: Assignments, net: str, task: Task) -> Member:
    return next(m for m in table(told, net).members if m.task_id == task.id)


# ------------------------------------------------------------------------------------------ complete sets


def test_a_node_is_told_its_own_tasks_and_only_what_they_need() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", networks=["net"], container=NEEDY), 1, "a")
    told = cell.told("a")
    assert [t.id for t in told.tasks] == [task.id]
    assert [s.id for s in told.secrets] == ["sec"]
    assert told.secrets[0].spec.data == b"s3cret"
    assert [c.id for c in told.configs] == ["conf-id"]
    assert [v.id for v in told.volumes] == ["vol-id"]
    assert [t.network.id for t in told.networks] == ["net"]
    assert cell.told("b") == Assignments(complete=True, ingress=())


@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.PENDING])
def test_tasks_below_assigned_are_the_managers_own(state: TaskState) -> None:
    rounds = Rounds()
    owner = service("app")
    rounds.put(node("a"), owner, *tasks_of(owner, 1, state=state, node_id="a"))
    assert assignments_for(rounds.view, "a").tasks == ()


def test_an_ended_task_stays_until_its_record_goes_but_its_needs_do_not() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", networks=["net"], container=NEEDY), 1, "a")
    cell.rounds.set_state(task, state=TaskState.FAILED, desired=TaskState.SHUTDOWN)
    told = cell.told("a")
    assert [t.id for t in told.tasks] == [task.id]
    assert (told.secrets, told.configs, told.volumes, told.networks) == ((), (), (), ())


def test_members_of_a_network_are_those_of_all_nodes() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", networks=["net"], container=NEEDY), 1, "a")
    [far] = cell.deploy(service("db", networks=["net", "other"], created=2), 1, "b")
    told = cell.told("a")
    assert [m.task_id for m in table(told, "net").members] == [task.id, far.id]
    assert member(told, "net", far) == Member(
        task_id=far.id,
        service_id="db",
        node_id="b",
        node_addr="192.0.2.2",
        address="10.1.0.5",
        mac_address="02:42:0a:01:00:05",
        healthy=False,
        names=(f"db.1.{far.id}", "db.1", far.id[:12]),
    )
    assert "apphost" in member(told, "net", task).names


@pytest.mark.parametrize(
    ("hostname", "extra"),
    [
        ("", ()),
        ("box", ("box",)),
        ("app", ()),
        ("api", ()),
        ("{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}", ("app-1-host-a",)),
        ("{{.Nonsense}}", ()),
    ],
)
def test_names_of_a_member(hostname: str, extra: tuple[str, ...]) -> None:
    cell = Cell()
    wish = NetworkAttachmentSpec(target="net", aliases=("api",))
    container = ContainerSpec(image="app", hostname=hostname)
    [task] = cell.deploy(service("app", networks=[wish], container=container), 1, "a")
    expected = (f"app.1.{task.id}", "app.1", *extra, task.id[:12])
    assert member(cell.told("a"), "net", task).names == expected


def test_a_task_without_a_service_has_its_aliases_itself() -> None:
    cell = Cell()
    wish = NetworkAttachmentSpec(target="net", aliases=("api",))
    [task] = tasks_of(service("x", networks=[wish]), 1, state=TaskState.NEW)
    lone = replace(task, service_id="", service_name="", slot=0)
    cell.rounds.put(lone)
    told = cell.told(cell.rounds.get(lone).node_id)
    assert member(told, "net", lone).names == (lone.id[:12], "api")


def test_services_with_their_virtual_ips_and_names() -> None:
    cell = Cell()
    wish = NetworkAttachmentSpec(target="net", aliases=("api", "backend"))
    cell.deploy(service("app", networks=[wish, "other"]), 1, "a")
    cell.deploy(service("rr", networks=["net"], mode="dnsrr", created=2), 1, "b")
    app, rr = table(cell.told("a"), "net").services
    assert (app.name, app.mode, app.vip, app.names) == ("app", "vip", "10.1.0.2", ("app", "api", "backend"))
    assert (rr.name, rr.mode, rr.vip, rr.names) == ("rr", "dnsrr", "", ("rr",))
    [elsewhere] = table(cell.told("a"), "other").services
    assert elsewhere.names == ("app",)


@pytest.mark.parametrize(
    ("state", "desired", "healthy"),
    [
        (TaskState.ASSIGNED, TaskState.RUNNING, False),
        (TaskState.STARTING, TaskState.RUNNING, False),
        (TaskState.RUNNING, TaskState.RUNNING, True),
        (TaskState.RUNNING, TaskState.COMPLETE, True),
        (TaskState.RUNNING, TaskState.SHUTDOWN, False),
        (TaskState.RUNNING, TaskState.REMOVE, False),
    ],
)
def test_health(state: TaskState, desired: TaskState, healthy: bool) -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", networks=["net"], ports=[HTTP]), 1, "a")
    cell.rounds.set_state(task, state=state, desired=desired)
    told = cell.told("a")
    assert member(told, "net", task).healthy is healthy
    assert told.ingress is not None
    assert bool(told.ingress[0].targets) is healthy


def test_an_unhealthy_container_gets_no_connections() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", networks=["net"]), 1, "a")
    cell.rounds.set_state(task, state=TaskState.RUNNING)
    cell.rounds.update(task, lambda t: replace(t, status=replace(t.status, health="unhealthy")))
    assert not member(cell.told("a"), "net", task).healthy


def test_the_ingress_table_goes_to_every_node() -> None:
    cell = Cell()
    tasks = cell.deploy(service("app", networks=["net"], ports=[HTTP]), 2, "b")
    cell.rounds.set_state(*tasks, state=TaskState.RUNNING)
    told = cell.told("c")
    assert told.tasks == ()
    [entry] = told.ingress or []
    assert entry.port.published_port == 80
    assert [(t.address, t.node_addr, t.node_id) for t in entry.targets] == [
        ("10.0.0.3", "192.0.2.2", "b"),
        ("10.0.0.4", "192.0.2.2", "b"),
    ]
    ingress = table(told, "ingress")
    assert ingress.node_addrs == ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert all(m.names == () for m in ingress.members)
    assert [(s.vip, s.names) for s in ingress.services] == [("10.0.0.2", ())]


def test_only_chosen_nodes_serve_ingress() -> None:
    cell = Cell(spec=ClusterSpec(ingress_node_selector=("node.labels.edge==c",)))
    cell.deploy(service("app", ports=[HTTP]), 1, "a")
    assert cell.told("b").ingress == ()
    assert cell.told("b").networks == ()
    assert len(cell.told("c").ingress or ()) == 1
    assert [t.network.id for t in cell.told("a").networks] == ["ingress"]


# ------------------------------------------------------------------------------------------------- deltas


def test_only_concerned_nodes_are_told() -> None:
    cell = Cell()
    cell.deploy(service("far", networks=["other"]), 1, "c")
    cell.open("a", "b", "c")
    [task] = cell.deploy(service("app", networks=["net"], container=NEEDY), 1, "a")
    deltas = cell.deltas()
    assert list(deltas) == ["a"]
    assert not deltas["a"].complete
    assert [t.id for t in deltas["a"].tasks] == [task.id]
    assert [s.id for s in deltas["a"].secrets] == ["sec"]
    assert deltas["a"].ingress is None


def test_a_report_is_not_news_to_the_node_that_made_it() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", container=NEEDY), 1, "a")
    cell.open("a", "b", "c")
    cell.rounds.set_state(task, state=TaskState.STARTING)
    cell.rounds.set_state(task, state=TaskState.RUNNING)
    assert cell.deltas() == {}


def test_a_wish_is() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app"), 1, "a")
    cell.open("a", "b")
    cell.rounds.update(task, lambda t: replace(t, desired_state=TaskState.SHUTDOWN))
    deltas = cell.deltas()
    assert [t.desired_state for t in deltas["a"].tasks] == [TaskState.SHUTDOWN]
    assert list(deltas) == ["a"]


def test_an_ended_task_takes_its_needs_away_once() -> None:
    cell = Cell()
    [task] = cell.deploy(service("app", networks=["net"], container=NEEDY), 1, "a")
    cell.open("a")
    cell.rounds.set_state(task, state=TaskState.FAILED)
    [delta] = cell.deltas().values()
    assert delta == Assignments(
        complete=False,
        removed_secrets=("sec",),
        removed_configs=("conf-id",),
        removed_volumes=("vol-id",),
        removed_networks=("net",),
    )
    cell.rounds.delete(cell.rounds.get(task))
    [delta] = cell.deltas().values()
    assert delta == Assignments(complete=False, removed_tasks=(task.id,))


def test_one_member_changed_is_all_that_the_nodes_of_the_network_are_told() -> None:
    cell = Cell()
    web = service("web", networks=["net", "other"])
    tasks = cell.deploy(web, 3)
    assert {task.node_id for task in tasks} == {"a", "b", "c"}
    lone = cell.deploy(service("lone", networks=["other"], created=2), 1, "a")
    cell.open("a", "b", "c")
    cell.rounds.set_state(lone[0], state=TaskState.RUNNING)
    deltas = cell.deltas()
    assert sorted(deltas) == ["a", "b", "c"]
    changes = [delta.network_changes for delta in deltas.values()]
    assert all(len(found) == 1 and found[0].network_id == "other" for found in changes)
    assert [m.task_id for m in changes[0][0].members] == [lone[0].id]
    assert len({id(found[0]) for found in changes}) == 1, "the same object, to be encoded once"
    assert all((delta.tasks, delta.networks) == ((), ()) for delta in deltas.values())


def test_a_service_more_or_less_is_all_that_the_nodes_of_its_network_are_told() -> None:
    cell = Cell()
    cell.deploy(service("web", networks=["net"]), 1, "a")
    cell.open("a", "b")
    late = service("late", networks=["net"], created=2)
    cell.rounds.put(late)
    [delta] = cell.deltas().values()
    [change] = delta.network_changes
    assert [entry.name for entry in change.services] == ["late"]
    assert (change.members, change.node_addrs) == ((), None)
    cell.rounds.delete(cell.rounds.get(late))
    [delta] = cell.deltas().values()
    assert delta.network_changes[0].removed_services == ("late",)
    assert [entry.name for entry in cell.tables["a"].networks["net"].services] == ["web"]


def test_a_network_that_is_another_is_told_whole() -> None:
    cell = Cell()
    cell.deploy(service("web", networks=["net"]), 1, "a")
    cell.open("a")
    known = next(n for n in cell.rounds.view.networks() if n.id == "net")
    cell.rounds.put(replace(known, vni=known.vni + 100))
    [delta] = cell.deltas().values()
    assert delta.network_changes == ()
    assert table(delta, "net").network.vni == known.vni + 100


def test_a_node_that_comes_back_before_a_change_was_collected_is_told_it_once() -> None:
    cell = Cell()
    [task] = cell.deploy(service("web", networks=["net"]), 1, "a")
    cell.open("a")
    cell.rounds.set_state(task, state=TaskState.RUNNING)
    cell.tables["a"].take(cell.tracker.open(cell.rounds.view, "a"))
    assert len(cell.deltas()["a"].network_changes) == 1
    assert cell.tables["a"].networks["net"].members[0].healthy
    assert cell.deltas() == {}


def test_a_task_leaves_dns_and_ingress_before_it_is_stopped() -> None:
    """In the very message that wants it to shut down it is not healthy any more."""
    cell = Cell()
    web = service("web", networks=["net"], ports=[HTTP])
    first, second = cell.deploy(web, 2)
    cell.rounds.set_state(first, second, state=TaskState.RUNNING)
    cell.open("a", "b", "c")
    cell.rounds.update(first, lambda t: replace(t, desired_state=TaskState.SHUTDOWN))
    deltas = cell.deltas()
    assert sorted(deltas) == ["a", "b", "c"]
    for delta in deltas.values():
        assert delta.ingress is None
        [change] = delta.ingress_changes
        assert len(change.ports[0].targets) == 1
    stopping = deltas[first.node_id]
    assert [t.id for t in stopping.tasks] == [first.id]
    members = {m.task_id: m.healthy for m in cell.tables[first.node_id].networks["net"].members}
    assert members == {first.id: False, second.id: True}


def test_commits_between_two_collections_are_one_delta() -> None:
    cell = Cell()
    cell.open("a")
    [task] = cell.deploy(service("app", networks=["net"]), 1, "a")
    cell.rounds.set_state(task, state=TaskState.RUNNING)
    cell.rounds.update(task, lambda t: replace(t, desired_state=TaskState.SHUTDOWN))
    [delta] = cell.deltas().values()
    assert [t.desired_state for t in delta.tasks] == [TaskState.SHUTDOWN]
    cell.rounds.delete(cell.rounds.get(task))
    [task] = cell.deploy(service("brief", networks=["net"], created=2), 1, "a")
    cell.rounds.delete(cell.rounds.get(task))
    [delta] = cell.deltas().values()
    assert (delta.tasks, delta.removed_networks) == ((), ("net",))


def test_a_closed_node_is_told_nothing_and_starts_again_with_everything() -> None:
    cell = Cell()
    [first] = cell.deploy(service("first", networks=["net"]), 1, "a")
    cell.open("a")
    cell.tracker.close("a")
    [task] = cell.deploy(service("app", networks=["net"], created=2), 1, "a")
    assert cell.deltas() == {}
    told = cell.tracker.open(cell.rounds.view, "a")
    assert told.complete
    assert [t.id for t in told.tasks] == [task.id, first.id]


def test_a_moved_vxlan_endpoint_is_told_to_those_that_send_there() -> None:
    cell = Cell()
    cell.deploy(service("web", networks=["net"]), 2)
    cell.open("a", "b", "c")
    cell.rounds.put(node("b", data_path_addr="198.51.100.7", labels={"edge": "b"}))
    deltas = cell.deltas()
    assert sorted(deltas) == ["a", "b"]
    assert "198.51.100.7" in {m.node_addr for m in cell.tables["a"].networks["net"].members}


def test_a_node_that_joins_is_known_on_the_ingress_network() -> None:
    cell = Cell()
    cell.deploy(service("web", ports=[HTTP]), 1, "a")
    cell.open("a", "b")
    cell.rounds.put(node("d", data_path_addr="192.0.2.9"))
    assert list(cell.deltas()) == ["a", "b"]
    assert {id: tables.networks["ingress"].node_addrs[-1] for id, tables in cell.tables.items()} == {
        "a": "192.0.2.9",
        "b": "192.0.2.9",
    }


def test_new_ingress_selection() -> None:
    cell = Cell()
    cell.deploy(service("web", ports=[HTTP]), 1, "a")
    cell.open("a", "b", "c")
    chosen = ClusterSpec(ingress_node_selector=("node.labels.edge==b",))
    cell.rounds.put(Cluster(id="c", spec=chosen))
    deltas = cell.deltas()
    assert (deltas["a"].ingress, deltas["a"].removed_networks) == ((), ())
    assert (deltas["c"].ingress, deltas["c"].removed_networks) == ((), ("ingress",))
    assert "b" not in deltas


def test_labels_of_a_secret_reach_those_that_hold_it() -> None:
    cell = Cell()
    cell.deploy(service("app", container=NEEDY), 1, "a")
    cell.open("a", "b")
    cell.rounds.put(Secret(id="sec", spec=SecretSpec(name="sec", data=b"s3cret", labels={"x": "y"})))
    deltas = cell.deltas()
    assert list(deltas) == ["a"]
    assert [s.id for s in deltas["a"].secrets] == ["sec"]


def test_after_the_state_was_read_again_nodes_are_told_the_difference() -> None:
    cell = Cell()
    kept, gone = cell.deploy(service("app", networks=["net"], container=NEEDY), 2, "a")
    cell.open("a", "b")
    objects = [
        cell.rounds.view.cluster,
        *cell.rounds.view.nodes(),
        *cell.rounds.view.services(),
        *(task for task in cell.rounds.view.tasks() if task.id != gone.id),
        *cell.rounds.view.networks(),
        *cell.rounds.view.volumes(),
        *cell.rounds.view.secrets(),
        *cell.rounds.view.configs(),
    ]
    cell.rounds.state.load([obj for obj in objects if obj is not None], 99)
    deltas = cell.deltas()
    assert list(deltas) == ["a"]
    assert (deltas["a"].complete, deltas["a"].removed_tasks, deltas["a"].tasks) == (False, (gone.id,), ())
    assert [m.task_id for m in cell.tables["a"].networks["net"].members] == [kept.id]
