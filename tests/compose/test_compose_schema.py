"""The JSON schema of the Compose Specification and our tables agree on what is valid.

The schema is the one inside the docker-compose program that the other tests compare with.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compose.errors import ComposeErrors, Report
from compose.read import decode, documents
from compose.reference import attributes
from compose.schema import SERVICE, canonical
from tests.compose import differ

pytestmark = pytest.mark.differential

EXTRA = {
    "secrets.*.content": "a secret's content may stand in the file, as a config's may",
    "services.*.build.no_cache_filter": "newer than this version of the schema",
    "services.*.x-pyswarm": "what a cluster adds",
}
"""Attributes that we have and the schema does not, with all below them."""
UNLISTED = {f"{kind}.*.external.name" for kind in ("configs", "networks", "secrets", "volumes")}
"""Read, and turned into `name` with a warning: the schema calls them deprecated."""
LENIENT = dict.fromkeys(
    [
        "annotations",
        "cap_add",
        "cap_drop",
        "dns",
        "dns_opt",
        "dns_search",
        "environment",
        "expose",
        "labels",
        "links",
        "profiles",
        "sysctls",
        "tmpfs",
        "volumes",
        "ports",
        "secrets",
        "configs",
        "build",
        "deploy",
        "networks",
        "post_start",
        "pre_stop",
        "develop",
        "healthcheck",
    ],
    "the same word twice counts once: docker compose drops repeats before it checks",
) | {"cpu_percent": "a fraction of a percent is a number too"}
"""Attributes where we take what the schema refuses."""
STRICT = (
    dict.fromkeys(
        [
            "attach",
            "blkio_config",
            "build",
            "configs",
            "cpu_count",
            "cpu_percent",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "cpu_shares",
            "cpus",
            "deploy",
            "develop",
            "devices",
            "env_file",
            "gpus",
            "healthcheck",
            "init",
            "mem_limit",
            "mem_reservation",
            "mem_swappiness",
            "memswap_limit",
            "oom_kill_disable",
            "oom_score_adj",
            "pids_limit",
            "ports",
            "post_start",
            "pre_stop",
            "privileged",
            "read_only",
            "restart",
            "scale",
            "secrets",
            "shm_size",
            "stdin_open",
            "stop_grace_period",
            "tty",
            "ulimits",
            "volumes",
            "command",
            "entrypoint",
            "depends_on",
        ],
        "a string must hold what the attribute needs (a number, a size, a duration, a switch ...)",
    )
    | dict.fromkeys(
        ("annotations", "environment", "labels", "sysctls", "extra_hosts"),
        "a list's entry needs a name before =",
    )
    | {
        "storage_opt": "values must be text: docker compose refuses the others as well, after the schema took them"
    }
)
"""Attributes where we refuse what the schema takes."""


@functools.cache
def schema() -> dict[str, Any]:
    """The schema that the program carries."""
    text = Path(differ.oracle()).read_bytes()
    start = text.rfind(b"{", 0, text.index(b'"$id": "compose_spec.json"'))
    found, _ = json.JSONDecoder().raw_decode(text[start : start + 400_000].decode("utf-8", "replace"))
    found["$schema"] = "http://json-schema.org/draft-07/schema#"
    found.pop("$id")
    return found


def _paths(part: dict[str, Any], path: str, found: set[str], seen: tuple[str, ...]) -> None:
    if "$ref" in part:
        name = part["$ref"].rsplit("/", 1)[-1]
        if name not in seen:
            _paths(schema()["definitions"][name], path, found, (*seen, name))
        return
    for choice in part.get("oneOf", []):
        _paths(choice, path, found, seen)
    for key, child in part.get("properties", {}).items():
        place = f"{path}.{key}" if path else key
        found.add(place)
        _paths(child, place, found, seen)
    for pattern, child in part.get("patternProperties", {}).items():
        if pattern != "^x-":
            _paths(child, f"{path}.*", found, seen)
    if isinstance(part.get("items"), dict):
        _paths(part["items"], f"{path}.*", found, seen)


def test_the_same_attributes() -> None:
    theirs: set[str] = set()
    _paths(schema(), "", theirs, ())
    mine = {path for path, _ in attributes()}
    assert theirs - mine == UNLISTED
    assert {path for path in mine - theirs if not path.startswith(tuple(EXTRA))} == set()


def _refused(document: dict[str, Any]) -> list[str]:
    report = Report()
    try:
        canonical(documents(decode(json.dumps(document, ensure_ascii=False).encode(), "f"))[0], report)
    except ComposeErrors as error:
        return [str(error)]
    return [str(problem) for problem in report.problems]


@functools.cache
def _validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(schema())


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 50),
    st.sampled_from([1.5, -1.5, 2.0]),
    st.sampled_from(
        ["", "a", "1", "80:80", "./x:/y", "10s", "64m", "A=b", "host", "all", "CMD", "daily", "bind"]
    ),
)
KEYS = st.sampled_from(
    [
        "a",
        "b-1",
        "source",
        "target",
        "type",
        "path",
        "x-y",
        "soft",
        "hard",
        "condition",
        "file",
        "service",
        "driver",
        "test",
        "watch",
        "action",
        "count",
        "context",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(set(SERVICE.fields) - {"x-pyswarm"})), VALUES)
def test_any_value_is_valid_for_both_or_for_neither(name: str, value: Any) -> None:
    document = {"services": {"s": {name: value}}}
    valid = _validator().is_valid(document)
    refused = _refused(document)
    if valid and refused:
        assert name in STRICT, f"{name}: {value!r} is valid for the schema: {refused}"
    if not valid and not refused:
        assert name in LENIENT, f"{name}: {value!r} is not valid for the schema"


TEXTS = st.text("ab1 .:/=-_\té$", max_size=5) | st.sampled_from(["1", "true", "10s", "64m", "/x:/y", "a=b"])
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "integer": st.integers(-5, 5000),
    "number": st.integers(-5, 5000) | st.floats(-10, 1000, allow_nan=False, width=16),
    "string": TEXTS,
}


def _generated(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Documents that a part of the schema allows. (hypothesis-jsonschema does not run with current
    hypothesis, and knows more than this schema needs.)"""
    if "$ref" in part:
        return _generated(schema()["definitions"][part["$ref"].rsplit("/", 1)[-1]])
    if "oneOf" in part:
        return st.one_of([_generated(choice) for choice in part["oneOf"]])
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if "pattern" in part:
        return st.from_regex(part["pattern"], fullmatch=True)
    kinds = part.get("type", "string")
    options = [_of_type(kind, part) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return st.one_of(options)


def _of_type(kind: str, part: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind == "array":
        items = _generated(part["items"])
        return st.lists(items, max_size=3, unique_by=repr if part.get("uniqueItems") else None)
    if kind == "object":
        return _objects(part)
    if kind == "integer" and ("minimum" in part or "maximum" in part):
        return st.integers(part.get("minimum", -5), part.get("maximum", 5000))
    return BY_TYPE[kind]


def _objects(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    fields = part.get("properties", {})
    needed = set(part.get("required", ()))
    known = st.fixed_dictionaries(
        {key: _generated(fields[key]) for key in needed},
        optional={
            key: st.deferred(lambda key=key: _generated(fields[key])) for key in fields if key not in needed
        },
    )
    named = [child for pattern, child in part.get("patternProperties", {}).items() if pattern != "^x-"]
    if not named:
        return known
    others = st.dictionaries(st.sampled_from(["abc", "nofile", "z"]), _generated(named[0]), max_size=2)
    return st.builds(_both, known, others)


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {**first, **second}


@functools.cache
def _valid_values(name: str) -> st.SearchStrategy[Any]:
    return _generated(schema()["definitions"]["service"]["properties"][name])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_the_schema_allows_is_valid_here(data: st.DataObject) -> None:
    loose = sorted(set(SERVICE.fields) - set(STRICT) - {"x-pyswarm"})
    name = data.draw(st.sampled_from(loose))
    value = data.draw(_valid_values(name))
    document = {"services": {"s": {name: value}}}
    assert _validator().is_valid(document)
    refused = _refused(document)
    assert not refused, f"{name}: {value!r}: {refused}"
