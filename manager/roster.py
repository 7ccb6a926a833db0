"""Who is to be a member of the managers' Raft group: the next change, one at a time, and what the records say.

The recorded role of the nodes is what is wanted, the list of members is what there is, and nothing else counts:
asked again after any interruption, by any leader, these functions go on from where the group stands. A member is
known by its name, which is its node's id; one that has not started yet has none, and is known by its address
alone. A manager that has lost its data, or whose member was taken out, gets a new member, never its former one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from manager.membership import MemberState
from pyswarm.errors import Conflict
from pyswarm.objects import ManagerStatus, Node


@dataclass(frozen=True, slots=True)
class Joiner:
    """A manager that asks for its place."""

    node_id: str
    peer_url: str
    member_id: str = ""
    """The member whose data it has; "" when it has none."""
    addr: str = ""
    api: str = ""
    """Its addresses, as in `ManagerStatus`."""


@dataclass(frozen=True, slots=True)
class Add:
    """Make room for a manager, as a learner."""

    joiner: Joiner


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a learner a voter, which etcd refuses until it has caught up."""

    member: MemberState


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a member out; its etcd ends by itself."""

    member: MemberState
    why: str


Step = Add | Promote | Remove


def place(joiner: Joiner, members: Iterable[MemberState]) -> MemberState | None:
    """The member that a manager may start as: the one whose data it has, or one at its address that nobody has
    started yet."""
    for member in members:
        if member.id == joiner.member_id or (not member.name and member.peer_url == joiner.peer_url):
            return member
    return None


def refuse_taken(joiner: Joiner, members: Iterable[MemberState], nodes: Iterable[Node]) -> None:
    """Raises Conflict when the address is that of another manager."""
    managers = _managers(nodes)
    for member in members:
        if member.peer_url == joiner.peer_url and member.name != joiner.node_id and member.name in managers:
            raise Conflict(
                f"manager {member.name} at {member.peer_url} belongs to the cluster already: remove it first with "
                f"`pyswarm node demote {member.name}`"
            )


def next_step(
    nodes: Sequence[Node],
    members: Sequence[MemberState],
    joiners: Iterable[Joiner] = (),
    late: Collection[str] = (),
) -> Step | None:
    """The next change; None when there is none to make, or none that leaves a healthy quorum. `late` are the ids
    of learners that have had their time to catch up. Nothing while nothing is known of the nodes."""
    managers = _managers(nodes)
    if not managers:
        return None
    joiners = sorted((j for j in joiners if j.node_id in managers), key=lambda j: j.node_id)
    members = sorted(members, key=lambda m: m.id)
    return (
        _learner_to_remove(members, managers, late)
        or _voter_to_remove(members, managers)
        or _to_promote(members, managers)
        or _for_joiner(members, joiners)
    )


def _managers(nodes: Iterable[Node]) -> set[str]:
    return {node.id for node in nodes if node.spec.role == "manager"}


def _learner_to_remove(
    members: Sequence[MemberState], managers: set[str], late: Collection[str]
) -> Remove | None:
    """Should its manager come after all, it gets another place."""
    for member in members:
        if not member.learner:
            continue
        if member.name and member.name not in managers:
            return Remove(member, "its node is not a manager (any more)")
        if member.id in late and not member.reachable:
            return Remove(member, "it was to join, and has not come up")
    return None


def _voter_to_remove(members: Sequence[MemberState], managers: set[str]) -> Remove | None:
    """The dead before the living: each of those that goes makes the quorum safer."""
    going = [m for m in members if not m.learner and m.name and m.name not in managers]
    for member in sorted(going, key=lambda m: m.reachable):
        if keeps_quorum(members, member):
            return Remove(member, "its node is not a manager any more")
    return None


def keeps_quorum(members: Iterable[MemberState], leaving: MemberState) -> bool:
    """Whether more than half of the voters that stay can be reached."""
    staying = [m for m in members if not m.learner and m.id != leaving.id]
    return 2 * sum(m.reachable for m in staying) > len(staying)


def _to_promote(members: Sequence[MemberState], managers: set[str]) -> Promote | None:
    ready = (m for m in members if m.learner and m.name in managers and m.reachable)
    return next(map(Promote, ready), None)


def _for_joiner(members: Sequence[MemberState], joiners: Sequence[Joiner]) -> Step | None:
    """Room for who asks, one learner at a time: first away with a member of its own that has no data any more."""
    for joiner in joiners:
        if place(joiner, members) is not None:
            continue
        former = [m for m in members if m.name == joiner.node_id]
        if former and not (former[0].learner or keeps_quorum(members, former[0])):
            continue
        if former:
            return Remove(former[0], "its manager has lost its data")
        if not any(m.learner or m.peer_url == joiner.peer_url for m in members):
            return Add(joiner)
    return None


# ---------------------------------------------------------------------------------------- the records


def introduced(nodes: Iterable[Node], joiner: Joiner) -> list[Node]:
    """The joiner's node, where its record does not have the addresses yet under which agents and other managers find
    it. Its agent tells them too, but perhaps not before the others are lost."""
    if not joiner.api:
        return []
    own = [(node, node.manager_status or ManagerStatus()) for node in nodes if node.id == joiner.node_id]
    return [
        replace(node, manager_status=replace(status, addr=joiner.addr, api=joiner.api))
        for node, status in own
        if (status.addr, status.api) != (joiner.addr, joiner.api)
    ]


def with_health(nodes: Sequence[Node], members: Sequence[MemberState]) -> list[Node]:
    """The nodes whose record says something else of their Raft member than is true now. A demoted node's says
    nothing any more once its member is out, which tells its agent that the manager may end."""
    by_name = {member.name: member for member in members if member.name}
    changed: list[Node] = []
    for node in nodes:
        status = _status(node, by_name.get(node.id))
        if status != node.manager_status:
            role = node.spec.role if status is None else node.role
            changed.append(replace(node, manager_status=status, role=role))
    return changed


def _status(node: Node, member: MemberState | None) -> ManagerStatus | None:
    old = node.manager_status
    if member is not None and not member.learner:
        reach = "reachable" if member.reachable else "unreachable"
        return replace(old or ManagerStatus(), raft_id=member.id, reachability=reach)
    if node.spec.role != "manager":
        return None if member is None else old or ManagerStatus()
    if old is None or not old.raft_id:
        return old
    return replace(old, raft_id="", reachability="unreachable")
