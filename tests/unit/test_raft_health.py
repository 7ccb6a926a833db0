"""What the leader makes of its members and its nodes' roles: the next change of the group, and the records."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.membership import MemberState
from manager.roster import (
    Add,
    Joiner,
    Promote,
    Remove,
    keeps_quorum,
    next_step,
    place,
    refuse_taken,
    with_health,
)
from pyswarm.errors import Conflict
from pyswarm.objects import ManagerStatus, Node
from pyswarm.specs import NodeSpec


def member(name: str, id: str = "", *, learner: bool = False, reachable: bool = True) -> MemberState:
    url = f"https://{name or 'new'}:2380"
    return MemberState(
        id=id or f"id-{name}", name=name, peer_url=url, endpoint="", learner=learner, reachable=reachable
    )


def unnamed(id: str, url: str) -> MemberState:
    return MemberState(id=id, name="", peer_url=url, endpoint="", learner=True)


def joiner(name: str, member_id: str = "") -> Joiner:
    return Joiner(name, f"https://{name}:2380", member_id)


def manager(id: str, status: ManagerStatus | None = None) -> Node:
    return Node(id=id, role="manager", spec=NodeSpec(role="manager"), manager_status=status)


def worker(id: str, status: ManagerStatus | None = None) -> Node:
    return Node(id=id, manager_status=status)


def goes(nodes: list[Node], members: list[MemberState], *, late: tuple[str, ...] = ()) -> str:
    """The name of the member that is to go, "" for none."""
    step = next_step(nodes, members, late=late)
    return (step.member.name or step.member.id) if isinstance(step, Remove) else ""


# ---------------------------------------------------------------------------------------- who goes


def test_members_of_removed_and_demoted_nodes_go() -> None:
    members = [member("a"), member("b"), member("c")]
    assert goes([manager("a"), worker("b"), manager("c")], members) == "b"
    assert goes([manager("a"), manager("b")], members) == "c"
    assert next_step([manager("a"), manager("b"), manager("c"), worker("d")], members) is None


def test_the_dead_go_before_the_living() -> None:
    members = [member("a"), member("b"), member("c"), member("d", reachable=False)]
    assert goes([manager("a"), manager("c"), worker("b")], members) == "d"


def test_nobody_goes_where_the_others_would_have_no_quorum() -> None:
    members = [member("a"), member("b"), member("c", reachable=False)]
    nodes = [manager("a"), worker("b"), manager("c")]
    assert next_step(nodes, members) is None
    assert keeps_quorum(members, members[2]) and not keeps_quorum(members, members[1])
    assert goes([manager("a"), worker("b"), worker("c")], members) == "c"
    assert goes([manager("a"), worker("b")], members[:2]) == "b"


def test_nothing_changes_while_nothing_is_known_and_the_last_voter_stays() -> None:
    members = [member("a"), member("b")]
    assert next_step([], members) is None
    assert next_step([worker("w")], members) is None
    assert next_step([manager("elsewhere")], [member("a")]) is None


def test_learners_of_nodes_that_are_no_managers_go() -> None:
    assert goes([manager("a")], [member("a"), member("b", learner=True)]) == "b"
    assert goes([manager("a"), worker("b")], [member("a"), member("b", learner=True)]) == "b"


def test_a_learner_that_does_not_come_up_goes_after_its_time() -> None:
    """Also one that has no name: its manager was killed between asking for its place and starting etcd."""
    nodes = [manager("a"), manager("b")]
    for learner in (member("b", learner=True, reachable=False), unnamed("x", "https://b:2380")):
        members = [member("a"), learner]
        assert next_step(nodes, members) is None
        assert goes(nodes, members, late=(learner.id,)) == (learner.name or learner.id)
    caught_up = [member("a"), member("b", learner=True)]
    assert next_step(nodes, caught_up, late=["id-b"]) == Promote(caught_up[1])


# ---------------------------------------------------------------------------------------- who comes


def test_a_manager_that_asks_gets_room_as_a_learner_and_becomes_a_voter() -> None:
    nodes = [manager("a"), manager("b")]
    assert next_step(nodes, [member("a")], [joiner("b")]) == Add(joiner("b"))
    assert next_step([manager("a"), worker("b")], [member("a")], [joiner("b")]) is None
    learner = member("b", learner=True)
    assert next_step(nodes, [member("a"), learner], [joiner("b", "id-b")]) == Promote(learner)
    assert next_step(nodes, [member("a"), replace(learner, reachable=False)], [joiner("b", "id-b")]) is None


def test_one_learner_at_a_time() -> None:
    nodes = [manager("a"), manager("b"), manager("c")]
    members = [member("a"), unnamed("x", "https://b:2380")]
    assert next_step(nodes, members, [joiner("b"), joiner("c")]) is None


def test_the_place_of_a_joiner() -> None:
    started, waiting = member("b", "7", learner=True), unnamed("8", "https://b:2380")
    assert place(joiner("b"), [member("a"), waiting]) == waiting
    assert place(joiner("b", "7"), [member("a"), started]) == started
    assert place(joiner("b"), [member("a"), started]) is None, "it has no data of it any more"
    assert place(joiner("b", "6"), [member("a"), started]) is None, "its data are of a former member"
    assert place(joiner("c"), [member("a"), waiting]) is None


@pytest.mark.parametrize("learner", [True, False])
def test_a_manager_that_has_lost_its_data_gets_a_new_member(learner: bool) -> None:
    nodes = [manager("a"), manager("b"), manager("c")]
    former = member("b", learner=learner, reachable=False)
    members = [member("a"), former, member("c")]
    assert next_step(nodes, members, [joiner("b")]) == Remove(former, "its manager has lost its data")
    assert next_step(nodes, [member("a"), member("c")], [joiner("b")]) == Add(joiner("b"))


def test_a_lost_member_is_not_replaced_at_the_cost_of_the_quorum() -> None:
    nodes = [manager("a"), manager("b"), manager("c")]
    members = [member("a"), member("b"), member("c", reachable=False)]
    assert next_step(nodes, members, [joiner("b")]) is None


def test_an_address_is_not_given_twice() -> None:
    rival = Joiner("z", "https://b:2380")
    with pytest.raises(Conflict, match="demote b"):
        refuse_taken(rival, [member("a"), member("b")], [manager("a"), manager("b"), manager("z")])
    nodes = [manager("a"), worker("b"), manager("z")]
    refuse_taken(rival, [member("a"), member("b")], nodes)
    assert next_step([manager("a"), manager("b"), manager("z")], [member("a"), member("b")], [rival]) is None
    refuse_taken(joiner("b"), [member("b")], [manager("b")])


# ---------------------------------------------------------------------------------------- all the way


def _apply(step: Add | Promote | Remove, members: list[MemberState], number: int) -> list[MemberState]:
    match step:
        case Add(asking):
            return [*members, unnamed(f"n{number}", asking.peer_url)]
        case Promote(learner):
            return [replace(m, learner=False) if m.id == learner.id else m for m in members]
        case Remove(going):
            return [m for m in members if m.id != going.id]


@settings(max_examples=150, deadline=None)
@given(
    roles=st.lists(st.sampled_from(["manager", "worker"]), min_size=5, max_size=5),
    held=st.lists(st.sampled_from(["voter", "learner", "lost", "none"]), min_size=5, max_size=5),
    seed=st.integers(0, 1000),
)
def test_any_group_becomes_the_one_that_is_wanted(roles: list[str], held: list[str], seed: int) -> None:
    """From wherever it was left, whoever is killed meanwhile, without a moment in which the quorum is lost."""
    chance = random.Random(seed)
    nodes = [manager("a")] + [
        manager(f"n{i}") if role == "manager" else worker(f"n{i}") for i, role in enumerate(roles)
    ]
    members = [member("a")]
    data = {"a": "id-a"}
    for i, state in enumerate(held):
        if state != "none" and not (state == "learner" and any(m.learner for m in members)):
            name = f"n{i}"
            members.append(member(name, learner=state == "learner"))
            data[name] = "id-" + name if state != "lost" else ""
    wanted = {node.id for node in nodes if node.spec.role == "manager"}
    for number in itertools.count():
        assert number < 100, "it does not come to rest"
        asking = [joiner(n, data.get(n, "")) for n in sorted(wanted)]
        step = next_step(nodes, members, asking)
        if step is not None:
            assert not isinstance(step, Remove) or step.member.learner or keeps_quorum(members, step.member)
            members = _apply(step, members, number)
        starting = [j for j in asking if (mine := place(j, members)) and not mine.name]
        if starting and chance.random() < 0.7:  # else it was killed before it started, and asks again
            mine = place(starting[0], members)
            assert mine is not None
            data[starting[0].node_id] = mine.id
            members = [
                replace(m, name=starting[0].node_id, reachable=True) if m == mine else m for m in members
            ]
        elif step is None and not starting:
            break
    assert sorted(m.name for m in members) == sorted(wanted)
    assert not any(m.learner for m in members)
    assert all(data[m.name] == m.id for m in members)


# ---------------------------------------------------------------------------------------- the records


def test_health_is_written_where_it_differs() -> None:
    known = ManagerStatus(addr="10.0.0.1:2377", leader=True, raft_id="id-a", reachability="reachable")
    nodes = [manager("a", known), manager("b", ManagerStatus(addr="10.0.0.2:2377")), worker("w")]
    members = [member("a"), member("b", reachable=False)]
    changed = with_health(nodes, members)
    assert [node.id for node in changed] == ["b"]
    expected = ManagerStatus(addr="10.0.0.2:2377", raft_id="id-b", reachability="unreachable")
    assert changed[0].manager_status == expected
    assert with_health([nodes[0], *changed, nodes[2]], members) == []


def test_a_new_voter_gets_a_status_and_a_demoted_node_loses_it_once_it_is_out() -> None:
    out = worker("b", ManagerStatus(raft_id="id-b", reachability="reachable"))
    changed = with_health([manager("a"), out], [member("a")])
    assert [(n.id, n.manager_status) for n in changed] == [
        ("a", ManagerStatus(raft_id="id-a", reachability="reachable")),
        ("b", None),
    ]
    assert with_health([out], [member("b")]) == [], "it is a member still"
    assert with_health([out], [member("b", learner=True)]) == []


def test_a_learner_is_no_manager_yet() -> None:
    assert with_health([manager("a")], [member("a", learner=True)]) == []


def test_a_manager_whose_member_is_gone_is_none_until_it_has_another() -> None:
    was = manager("a", ManagerStatus(raft_id="id-a", reachability="reachable", addr="10.0.0.1:2377"))
    changed = with_health([was], [member("b")])
    assert changed[0].manager_status == ManagerStatus(addr="10.0.0.1:2377", reachability="unreachable")
