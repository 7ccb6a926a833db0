"""The codec and the contract: everything round-trips, the committed .proto says what the dataclasses say, and what a
newer or older version wrote is read."""

from __future__ import annotations

import dataclasses
import enum
import json
import random
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import generate
from pyswarm import api, objects, specs, wire
from pyswarm.objects import Cluster, Meta, NodeState, NodeStatus, Service, Task, TaskState, TaskStatus
from pyswarm.specs import ClusterSpec, ServiceSpec
from pyswarm.v1 import api_pb2, objects_pb2

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/field_numbers.json"
CLASSES: list[type] = [
    cls
    for module in (specs, objects, api)
    for cls in generate.classes((module,))
    if not issubclass(cls, enum.IntEnum)
]
HINTS: Mapping[type, Mapping[str, Any]] = {cls: typing.get_type_hints(cls) for cls in CLASSES}
NEVER_EMPTY = {(ClusterSpec, "default_address_pool")}
"""Lists whose default is not empty; an empty one is read as the default, and validation refuses it."""
WORDS = ("", "a", "web", "\u00fc\u6f22", "x y", "0")

# Any: what is made here is of every type of the contract.


def make(hint: Any, chance: random.Random, depth: int = 0) -> Any:
    """Any value of a type of the contract."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [h for h in inner if h is not type(None)]
        return None if chance.random() < 0.4 else make(rest[0], chance, depth)
    if origin is Literal:
        return chance.choice(inner)
    if origin is tuple and depth > 3:
        return ()
    if origin is tuple:
        return tuple(make(inner[0], chance, depth + 1) for _ in range(chance.choice((0, 1, 2))))
    if origin is not None:
        return {chance.choice(WORDS): chance.choice(WORDS) for _ in range(chance.choice((0, 2)))}
    if dataclasses.is_dataclass(hint):
        if depth > 2 and all(wire._default(f) is not dataclasses.MISSING for f in dataclasses.fields(hint)):  # pyright: ignore[reportPrivateUsage]
            return typing.cast("type", hint)()
        return instance(typing.cast("type", hint), chance, depth + 1)
    if issubclass(hint, enum.IntEnum):
        return chance.choice(list(hint))
    simple: Mapping[type, Any] = {
        str: chance.choice(WORDS),
        bytes: chance.randbytes(chance.choice((0, 3))),
        bool: chance.random() < 0.5,
        int: chance.choice((0, 1, -1, 2**63 - 1, -(2**63))),
        float: chance.choice((0.0, 1.0, -0.5, 1e300)),
    }
    return simple[hint]


def instance(cls: type, chance: random.Random, depth: int = 0) -> Any:
    hints = HINTS[cls]
    values = {
        f.name: make(hints[f.name], chance, depth)
        for f in dataclasses.fields(cls)
        if chance.random() < 0.7 or wire._default(f) is dataclasses.MISSING  # pyright: ignore[reportPrivateUsage]
    }
    if (cls, "default_address_pool") in NEVER_EMPTY and not values.get("default_address_pool"):
        values.pop("default_address_pool", None)
    return cls(**values)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_class_of_the_contract_comes_back_as_it_was(seed: int) -> None:
    chance = random.Random(seed)
    for cls in CLASSES:
        obj = instance(cls, chance)
        assert wire.from_bytes(cls, wire.to_bytes(obj)) == obj, cls


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_nothing_on_the_wire_is_every_default(cls: type) -> None:
    found = wire.from_bytes(cls, b"")
    for field in dataclasses.fields(cls):
        default = wire._default(field)  # pyright: ignore[reportPrivateUsage]
        if default is not dataclasses.MISSING:
            assert getattr(found, field.name) == default, field.name
        else:
            assert getattr(found, field.name) is not None, field.name
    assert wire.to_bytes(found) == b"" or dataclasses.fields(cls)[0].default is dataclasses.MISSING


def test_no_field_has_a_default_that_hides_a_value() -> None:
    """An empty list, or None, cannot be told from the default where that is another: such a field must not be."""
    for cls in CLASSES:
        for field, dc in zip(wire.fields_of(cls), dataclasses.fields(cls), strict=True):
            default = wire._default(dc)  # pyright: ignore[reportPrivateUsage]
            if field.shape in ("list", "map"):
                known = default is dataclasses.MISSING or not default
                assert known or (cls, field.name) in NEVER_EMPTY, f"{cls.__name__}.{field.name}"


@pytest.mark.parametrize("name", ["objects", "api"])
def test_the_committed_proto_is_the_dataclasses(name: str) -> None:
    path = ROOT / f"proto/pyswarm/v1/{name}.proto"
    assert generate.render(name, path.read_text()) == path.read_text(), "run `make proto`"


def test_the_compiled_messages_are_the_dataclasses() -> None:
    for cls in CLASSES:
        module = objects_pb2 if hasattr(objects_pb2, cls.__name__) else api_pb2
        fields = getattr(module, cls.__name__).DESCRIPTOR.fields_by_name
        assert set(fields) == {f.name for f in dataclasses.fields(cls)}, cls


def numbers() -> dict[str, dict[str, int]]:
    return {
        name: fields
        for file in ("objects", "api")
        for name, fields in generate.known_numbers(
            (ROOT / f"proto/pyswarm/v1/{file}.proto").read_text()
        ).items()
    }


def test_a_field_keeps_its_number_for_ever() -> None:
    """New fields are added to the golden file by PYTHONPATH=. python tests/unit/test_wire.py; no line of it may
    change or go."""
    golden: dict[str, dict[str, int]] = json.loads(GOLDEN.read_text())
    now = numbers()
    for message, fields in golden.items():
        for field, number in fields.items():
            assert now.get(message, {}).get(field) == number, f"{message}.{field} was number {number}"
    for message, fields in now.items():
        assert len(set(fields.values())) == len(fields), f"{message} has one number twice"


def test_a_removed_field_leaves_its_number_reserved() -> None:
    text = "message NodeStatus {\n  string addr = 7;\n  string gone = 9;\n}\n"
    old = generate.known_numbers(text)["NodeStatus"]
    rendered = generate.render_message(NodeStatus, old)
    assert "reserved 9; // gone" in rendered
    assert "string addr = 7;" in rendered
    again = generate.known_numbers(rendered)["NodeStatus"]
    assert again["gone"] == 9
    assert min(n for name, n in again.items() if name not in old) == 10, "a new field takes a fresh number"
    assert generate.render_message(NodeStatus, again) == rendered


def test_an_unknown_state_is_read_as_the_next_lower_one() -> None:
    message = objects_pb2.TaskStatus()
    message.state = 700  # type: ignore[assignment] - between SHUTDOWN and FAILED, from a newer version
    assert wire.from_bytes(TaskStatus, message.SerializeToString()).state == TaskState.SHUTDOWN
    status = objects_pb2.NodeStatus()
    status.state = 99  # type: ignore[assignment]
    assert wire.from_bytes(NodeStatus, status.SerializeToString()).state == max(NodeState)
    message.state = -5  # type: ignore[assignment]
    assert wire.from_bytes(TaskStatus, message.SerializeToString()).state == min(TaskState)


def test_unknown_fields_of_a_newer_version_are_passed_over() -> None:
    extra = b"\xfa\x3e\x03new"  # field 1007, a string
    service = Service(id="x", spec=ServiceSpec(name="web"))
    assert wire.from_bytes(Service, wire.to_bytes(service) + extra) == service


def test_an_absent_list_is_not_an_empty_one() -> None:
    for ingress in (None, ()):
        found = wire.from_bytes(objects.Assignments, wire.to_bytes(objects.Assignments(ingress=ingress)))
        assert found.ingress == ingress


def test_a_stored_object_has_the_stores_version_and_no_other() -> None:
    task = Task(id="t", meta=Meta(version=9, created_at=1.5))
    data = wire.encode(task)
    assert data == wire.encode(wire.with_version(task, 12))
    found = wire.decode("task", data, 7)
    assert found == wire.with_version(task, 7)


def test_an_empty_list_where_the_default_is_not_is_the_default() -> None:
    cluster = Cluster(id="c", spec=ClusterSpec(default_address_pool=()))
    assert wire.from_bytes(Cluster, wire.to_bytes(cluster)).spec.default_address_pool == ("10.0.0.0/8",)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(DecodeError):
        wire.from_bytes(Task, b"\xff\xff\xff")


def _member(task_id: str, address: str) -> objects.Member:
    return objects.Member(
        task_id=task_id,
        service_id="s",
        node_id="n",
        node_addr="192.0.2.1",
        address=address,
        mac_address="02:00:00:00:00:01",
        healthy=True,
    )


def test_tables_that_many_assignments_share_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tuple(
        objects.NetworkTable(
            network=objects.Network(id=f"net{n}"),
            members=tuple(_member(f"{n}.{i}", f"10.0.{n}.{i}") for i in range(200)),
        )
        for n in range(40)
    )
    encoded: list[str] = []
    plain = wire._plain_bytes  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(wire, "_plain_bytes", lambda obj: (encoded.append(type(obj).__name__), plain(obj))[1])  # type: ignore[func-returns-value]
    for sequence in range(3):
        for table in tables[:20]:
            sent = objects.Assignments(sequence=sequence, networks=(table, tables[0]), removed_tasks=("t",))
            data = wire.to_bytes(sent)
            assert data != b""
            assert wire.from_bytes(objects.Assignments, data) == sent
    assert encoded.count("NetworkTable") == 20
    change = objects.NetworkChange(network_id="net0", members=tables[0].members[:1], node_addrs=())
    ports = objects.IngressChange(
        service_id="s", ports=(objects.IngressPort(service_id="s", port=specs.PortConfig(target_port=80)),)
    )
    for sequence in range(3):
        sent = objects.Assignments(
            sequence=sequence, networks=tables[:1], network_changes=(change,), ingress_changes=(ports,)
        )
        assert wire.from_bytes(objects.Assignments, wire.to_bytes(sent)) == sent
    assert (encoded.count("NetworkChange"), encoded.count("IngressChange")) == (1, 1)
    everything = objects.Assignments(networks=tables)  # more than are kept
    assert wire.from_bytes(objects.Assignments, wire.to_bytes(everything)) == everything
    assert wire.from_bytes(objects.Assignments, wire.to_bytes(everything)) == everything


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for message_name, its in numbers().items():
        known[message_name] = {**its, **known.get(message_name, {})}
    GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
