"""Laws of the loader: no input makes anything but a located error, canonical form is a fixed point,
variables agree with a reference model, merging is associative."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compose import dotenv
from compose.convert import convert_stack
from compose.errors import ComposeErrors, Report, Source
from compose.interpolate import Substitution, TemplateError
from compose.load import load_project
from compose.merge import drop_repeats, merge_files, settle
from compose.plan import StackState, plan_stack
from compose.project import Project
from compose.read import decode, documents
from compose.schema import PROJECT, SERVICE, canonical
from compose.short import ShortSyntaxError, parse_port, parse_volume, shell_words
from compose.tree import Node, plain

FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# ------------------------------------------------------------------------------------- templates

NAMES = st.sampled_from(["A", "B", "C_1", "_d"])
ENVIRONMENTS = st.dictionaries(NAMES, st.sampled_from(["", "v", "x y", "$$", "}"]), max_size=4)
Template = tuple[Any, ...]  # a small tree: the kind and its parts


def _templates() -> st.SearchStrategy[list[Template]]:
    text = st.tuples(st.just("text"), st.text("ab -:?+.", max_size=4))
    dollar = st.just(("dollar",))
    plain_name = st.tuples(st.just("braced"), NAMES, st.just(""), st.just(()))
    leaf = st.lists(text | dollar | plain_name, max_size=3)
    return st.recursive(
        leaf,
        lambda inner: st.lists(
            text
            | dollar
            | plain_name
            | st.tuples(st.just("braced"), NAMES, st.sampled_from([":-", "-", ":+", "+"]), inner),
            max_size=3,
        ),
        max_leaves=8,
    )


def _write(parts: Any) -> str:
    out = ""
    for part in parts:
        if part[0] == "text":
            out += part[1]
        elif part[0] == "dollar":
            out += "$$"
        else:
            out += "${" + part[1] + part[2] + _write(part[3]) + "}"
    return out


def _reference(parts: Any, environment: Mapping[str, str]) -> str:
    """What the parts stand for, computed on the tree they were written from."""
    out = ""
    for part in parts:
        if part[0] == "text":
            out += part[1]
        elif part[0] == "dollar":
            out += "$"
        else:
            _, name, operator, rest = part
            value = environment.get(name)
            counts = bool(value) if operator.startswith(":") else value is not None
            if operator.endswith("-"):
                out += (value or "") if counts else _reference(rest, environment)
            elif operator.endswith("+"):
                out += _reference(rest, environment) if counts else ""
            else:
                out += value or ""
    return out


@FAST
@given(_templates(), ENVIRONMENTS)
def test_interpolation_agrees_with_the_reference(parts: Any, environment: dict[str, str]) -> None:
    template = _write(parts)
    if "$${" in template:
        return  # a doubled dollar before a brace counts as an opening brace, as docker compose has it
    assert Substitution(environment).fill(template) == _reference(parts, environment)


@FAST
@given(st.text("$${}AB:-?+ x", max_size=30), ENVIRONMENTS)
def test_any_template_fills_or_says_why(template: str, environment: dict[str, str]) -> None:
    try:
        Substitution(environment).fill(template)
    except TemplateError as error:
        assert str(error)


@FAST
@given(st.text("AB=: '\"\\$#\n\r\t{}x1-export", max_size=40))
def test_any_environment_file_parses_or_has_a_line(text: str) -> None:
    try:
        dotenv.parse(Source("e", text), {"A": "1"}.get)
    except ComposeErrors as error:
        assert error.problems[0].position.line >= 1


@FAST
@given(st.text("0123456789:-/.[]tcpud", max_size=20))
def test_short_syntaxes_never_crash(text: str) -> None:
    for parse in (parse_port, parse_volume, shell_words):
        try:
            parse(text)
        except ShortSyntaxError as error:
            assert str(error)


# ------------------------------------------------------------------------------------- any input


def _load_bytes(data: bytes) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "compose.yml"
        path.write_bytes(data)
        try:
            project = load_project([path], environ={"A": "1"}, project_name="p")
        except ComposeErrors as error:
            assert error.problems
            assert error.pretty()
            return [str(problem) for problem in error.problems]
        convert_or_refuse(project)
        return []


def convert_or_refuse(project: Any) -> None:
    try:
        specs = convert_stack(project, "s")
    except ComposeErrors as error:
        assert error.problems
        return
    plan_stack(specs, StackState(), True)


@FAST
@given(st.binary(max_size=60))
def test_any_bytes_give_a_project_or_located_problems(data: bytes) -> None:
    _load_bytes(data)


@FAST
@given(st.text("services:\n {}[],-'\"|>&*!?#%@`<<a1~\t\r", max_size=60))
def test_any_yaml_like_text_gives_a_project_or_located_problems(text: str) -> None:
    _load_bytes(text.encode())


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70000),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(
        ["", "a", "1", "80:80", "./x:/y", "10s", "64m", "A=b", "host", "service:a", "${A}", "$", "a b"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "source", "target", "type", "path", "x-y"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)
SERVICE_VALUES = st.dictionaries(st.sampled_from(sorted(SERVICE.fields)), VALUES, max_size=6)


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SERVICE_VALUES, st.dictionaries(st.sampled_from(sorted(PROJECT.fields)), VALUES, max_size=2))
def test_any_values_of_known_keys_give_a_project_or_located_problems(
    service: dict[str, Any], top: dict[str, Any]
) -> None:
    top.pop("include", None)
    problems = _load_bytes(json.dumps({**top, "services": {"a": {"image": "x", **service}}}).encode())
    assert all(problem.partition(": ")[0].count(":") >= 2 for problem in problems), problems


# ------------------------------------------------------------------------------- valid documents

WORDS = st.sampled_from(["a", "b-1", "C_2", "d.e"])
TEXTS = st.text("ab $c{}\"'\\:#\té", max_size=6)
PAIRS = st.dictionaries(
    st.sampled_from(["K", "L.m", "N_1"]), st.none() | TEXTS | st.integers(0, 9), max_size=3
)
PORTS = st.lists(
    st.one_of(
        st.integers(1, 99),
        st.sampled_from(["80", "81:80", "127.0.0.1:82:80/udp", "90-91:90-91", "1000-1002:7"]),
        st.fixed_dictionaries(
            {"target": st.integers(1, 99)}, optional={"published": st.sampled_from(["5", "6-7"])}
        ),
    ),
    max_size=3,
)
VOLUMES = st.lists(
    st.one_of(
        st.sampled_from(["/anon", "vol:/v", "./b:/b:ro", "~/h:/h", "vol:/w:nocopy"]),
        st.fixed_dictionaries({"type": st.just("tmpfs"), "target": st.sampled_from(["/t", "/u"])}),
    ),
    max_size=3,
)
SERVICES = st.fixed_dictionaries(
    {"image": st.sampled_from(["x", "x:1", "r.io/x@sha256:" + "0" * 64])},
    optional={
        "command": st.none() | st.lists(TEXTS, max_size=2) | st.sampled_from(["a b", "a 'b c'", ""]),
        "environment": PAIRS,
        "labels": PAIRS,
        "ports": PORTS,
        "volumes": VOLUMES,
        "hostname": TEXTS,
        "init": st.booleans(),
        "privileged": st.booleans(),
        "mem_limit": st.sampled_from(["1g", 5, "300kb", "-1"]),
        "stop_grace_period": st.sampled_from(["1s", "90s", "1.5h", "0s"]),
        "deploy": st.none()
        | st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "labels": PAIRS}),
        "healthcheck": st.fixed_dictionaries(
            {"test": TEXTS | st.just(["CMD", "x"])},
            optional={"interval": st.just("90s"), "retries": st.integers(0, 3)},
        ),
        "networks": st.lists(st.sampled_from(["n", "m"]), unique=True, max_size=2),
        "expose": st.lists(st.sampled_from(["1", 2]), unique=True, max_size=2),
        "tmpfs": st.sampled_from(["/x", ["/x", "/y"]]),
        "ulimits": st.just({"nofile": {"soft": 1, "hard": 2}}) | st.just({"nofile": 5}),
        "extra_hosts": st.just({"a": "1.1.1.1"}) | st.just(["b=::1"]),
        "cap_add": st.lists(WORDS, unique=True, max_size=2),
        "restart": st.sampled_from(["no", "always", "on-failure:2"]),
        "x-extra": VALUES,
    },
)
PROJECTS = st.fixed_dictionaries(
    {
        "services": st.dictionaries(WORDS, SERVICES, min_size=1, max_size=3),
        "networks": st.just({"n": None, "m": {"driver": "overlay"}}),
        "volumes": st.just({"vol": None}),
    },
    optional={"x-top": VALUES},
)


def _escaped(value: Any) -> Any:
    """Dollar signs doubled, so that generated text holds no variables; keys left alone."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(child) for key, child in value.items()}
    return [_escaped(child) for child in value] if isinstance(value, list) else value


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROJECTS)
def test_canonical_form_is_a_fixed_point(document: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "compose.yml"
        path.write_text(json.dumps(_escaped(document)))
        project = load_project([path], environ={"HOME": "/root"}, project_name="p")
        first = json.loads(json.dumps(project.canonical()))
        path.write_text(json.dumps(first))
        again = load_project([path], environ={"HOME": "/root"}, project_name="p")
        assert json.loads(json.dumps(again.canonical())) == first
        assert _services(again) == _services(project)
        for name in project.services:
            assert again.hash(name) == project.hash(name)


def _services(project: Project) -> object:
    try:
        return convert_stack(project, "s").services
    except ComposeErrors as error:  # two services may publish one port
        return sorted((problem.path, problem.message) for problem in error.problems)


def _tree(document: dict[str, Any]) -> Node:
    report = Report()
    tree = canonical(documents(decode(json.dumps(document).encode(), "f"))[0], report)
    report.check()
    return tree


@FAST
@given(PROJECTS, PROJECTS, PROJECTS)
def test_merging_is_associative(first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]) -> None:
    a, b, c = _tree(_escaped(first)), _tree(_escaped(second)), _tree(_escaped(third))
    report = Report()
    left = merge_files(merge_files(a, b, report), c, report)
    right = merge_files(a, merge_files(b, c, report), report)
    assert plain(settle(left)) == plain(settle(right))


@FAST
@given(PROJECTS)
def test_merging_a_file_over_itself_changes_nothing(document: dict[str, Any]) -> None:
    tree = drop_repeats(_tree(_escaped(document)))
    merged = plain(settle(merge_files(tree, tree, Report())))
    assert merged == plain(settle(tree))
