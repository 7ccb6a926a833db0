"""What the leader makes of its members' health and its nodes' roles."""

from __future__ import annotations

from manager.membership import MemberState
from manager.raft import superfluous, with_health
from pyswarm.objects import ManagerStatus, Node
from pyswarm.specs import NodeSpec


def member(name: str, id: str = "", *, learner: bool = False, reachable: bool = True) -> MemberState:
    return MemberState(
        id=id or f"id-{name}", name=name, peer_url="", endpoint="", learner=learner, reachable=reachable
    )


def manager(id: str, status: ManagerStatus | None = None) -> Node:
    return Node(id=id, role="manager", spec=NodeSpec(role="manager"), manager_status=status)


def worker(id: str, status: ManagerStatus | None = None) -> Node:
    return Node(id=id, manager_status=status)


def names(members: list[MemberState]) -> list[str]:
    return [m.name for m in members]


def test_members_of_removed_and_demoted_nodes_are_superfluous() -> None:
    members = [member("a"), member("b"), member("c")]
    assert names(superfluous(members, [manager("a"), worker("b")])) == ["b", "c"]
    assert superfluous(members, [manager("a"), manager("b"), manager("c"), worker("d")]) == []


def test_members_that_have_not_started_are_left_alone() -> None:
    assert superfluous([member("a"), member("", "x", learner=True)], [manager("a")]) == []


def test_nothing_is_superfluous_while_nothing_is_known() -> None:
    members = [member("a"), member("b")]
    assert superfluous(members, []) == []
    assert superfluous(members, [worker("w")]) == []
    assert superfluous(members, [manager("elsewhere")]) == []


def test_the_last_voter_stays() -> None:
    assert superfluous([member("a"), member("b", learner=True)], [manager("b")]) == []


def test_health_is_written_where_it_differs() -> None:
    known = ManagerStatus(addr="10.0.0.1:2377", leader=True, raft_id="id-a", reachability="reachable")
    nodes = [manager("a", known), manager("b", ManagerStatus(addr="10.0.0.2:2377")), worker("w")]
    members = [member("a"), member("b", reachable=False)]
    changed = with_health(nodes, members)
    assert [node.id for node in changed] == ["b"]
    expected = ManagerStatus(addr="10.0.0.2:2377", raft_id="id-b", reachability="unreachable")
    assert changed[0].manager_status == expected
    assert with_health([nodes[0], *changed, nodes[2]], members) == []


def test_a_new_voter_gets_a_status_and_a_demoted_node_loses_it() -> None:
    changed = with_health([manager("a"), worker("b", ManagerStatus(raft_id="id-b"))], [member("a")])
    assert [(n.id, n.manager_status) for n in changed] == [
        ("a", ManagerStatus(raft_id="id-a", reachability="reachable")),
        ("b", None),
    ]


def test_a_learner_is_no_manager_yet() -> None:
    assert with_health([manager("a")], [member("a", learner=True)]) == []
