"""Swarm's templates in container specs and payloads."""

from __future__ import annotations

from typing import Any

import pytest

from pyswarm.errors import Invalid
from pyswarm.objects import Config, Node, NodeDescription, Secret, Task
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    Driver,
    FileReference,
    Mount,
    Platform,
    SecretSpec,
    TaskSpec,
)
from pyswarm.templating import expand_container, render_payload

NODE = Node(
    id="n1",
    description=NodeDescription(hostname="host1", platform=Platform(architecture="x86_64", os="linux")),
)


def task(slot: int = 2, **container: Any) -> Task:
    return Task(
        id="t1",
        service_id="s1",
        service_name="web",
        service_labels={"tier": "front", "a.b": "dotted"},
        slot=slot,
        node_id="n1",
        spec=TaskSpec(container=ContainerSpec(**container)),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Service.Name}}-{{.Task.Slot}}", "web-2"),
        ("{{.Service.ID}} {{.Task.ID}} {{.Node.ID}}", "s1 t1 n1"),
        ("{{.Task.Name}}", "web.2.t1"),
        ("{{.Node.Hostname}}/{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "host1/linux/x86_64"),
        ('{{index .Service.Labels "a.b"}} {{.Service.Labels.tier}}', "dotted front"),
        ('{{if eq .Node.Platform.OS "linux"}}yes{{else}}no{{end}}', "yes"),
        ("plain {braces}", "plain {braces}"),
    ],
)
def test_what_a_template_can_say(text: str, expected: str) -> None:
    assert expand_container(task(env=(f"A={text}",)), NODE).env == (f"A={expected}",)


def test_a_global_tasks_slot_is_its_node() -> None:
    assert expand_container(task(slot=0, hostname="{{.Task.Slot}}"), NODE).hostname == "n1"


def test_mounts_and_hostname() -> None:
    mount = Mount(
        source="data-{{.Task.Slot}}",
        target="/x/{{.Service.Name}}",
        volume_labels={"l": "{{.Node.ID}}"},
        volume_driver=Driver(name="local", options={"device": "/srv/{{.Task.Slot}}"}),
    )
    spec = expand_container(task(hostname="{{.Node.Hostname}}", mounts=(mount,)), NODE)
    (made,) = spec.mounts
    assert (spec.hostname, made.source, made.target) == ("host1", "data-2", "/x/web")
    assert made.volume_labels == {"l": "n1"}
    assert made.volume_driver == Driver(name="local", options={"device": "/srv/2"})


def test_a_spec_without_templates_is_itself() -> None:
    plain = task(env=("A=1",), hostname="h")
    assert expand_container(plain, NODE) is plain.spec.container


@pytest.mark.parametrize(
    ("container", "where"),
    [
        ({"env": ("OK=1", "A={{.Nope}}")}, r"env\[1\]: .*Nope"),
        ({"hostname": "{{.Service"}, "hostname: "),
        ({"mounts": (Mount(source="{{.Node.Nope}}", target="/x"),)}, r"mounts\[0\]\.source: "),
    ],
)
def test_errors_name_the_field(container: dict[str, Any], where: str) -> None:
    with pytest.raises(Invalid, match=where):
        expand_container(task(**container), NODE)


def test_payloads() -> None:
    golang = Driver(name="golang")
    secret = Secret(id="s", spec=SecretSpec(name="pw", data=b"geheim"))
    other = Config(id="o", spec=ConfigSpec(name="other", data=b"text"))
    wanted = task(
        env=("A=1", "BARE"),
        secrets=(FileReference(source_id="s", source_name="pw", target="password"),),
        configs=(FileReference(source_id="o", source_name="other"),),
    )

    def payload(text: bytes, driver: Driver | None = golang) -> bytes:
        item = Config(id="c", spec=ConfigSpec(name="c", data=text, templating=driver))
        return render_payload(item, wanted, NODE, {"s": secret}, {"o": other})

    assert payload(b'{{env "A"}}{{env "BARE"}}{{env "NONE"}}') == b"1"
    assert payload(b'{{secret "password"}} {{config "other"}}') == b"geheim text"
    assert payload(b"\xff {{", None) == b"\xff {{", "without a driver bytes stay bytes"
    with pytest.raises(Invalid, match=r"config c: .*no secret"):
        payload(b'{{secret "pw"}}')
    with pytest.raises(Invalid, match="config c: a template must be UTF-8"):
        payload(b"\xff")
    with pytest.raises(Invalid, match="unknown template driver"):
        payload(b"x", Driver(name="jinja"))
