"""What a person reads when a Compose file is wrong: every mistake, its place, the way out."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from compose.errors import ComposeErrors
from compose.load import find_files, list_variables, load_project, load_template
from compose.project import Project


def _load(directory: Path, files: Mapping[str, str | bytes], **options: object) -> Project:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    environ = options.pop("environ", {})
    named = [directory / str(name) for name in options.pop("load", ["compose.yml"])]  # pyright: ignore[reportGeneralTypeIssues]
    return load_project(named, environ=environ, project_name="p", **options)  # pyright: ignore[reportArgumentType]


def _problems(directory: Path, files: Mapping[str, str | bytes], **options: object) -> list[str]:
    with pytest.raises(ComposeErrors) as caught:
        _load(directory, files, **options)
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


def test_all_mistakes_at_once_with_places_and_near_misses(tmp_path: Path) -> None:
    text = """\
services:
  web:
    image: nginx
    enviroment:
      A: 1
    ports:
      - 80:80
      - "99999:80"
    deploy:
      replica: 2
      resources:
        limits:
          memory: 50
    networks: [frnt]
networks:
  front: {}
"""
    assert _problems(tmp_path, {"compose.yml": text}) == [
        'compose.yml:4:5: services.web: unknown key "enviroment" (did you mean "environment"?)',
        'compose.yml:8:9: services.web.ports[1]: "99999" is above 65535, the highest port',
        'compose.yml:10:7: services.web.deploy: unknown key "replica" (did you mean "replicas"?)',
        "compose.yml:13:19: services.web.deploy.resources.limits.memory: must be a size such as 64m, "
        'not a number: write "50" in quotes',
        'compose.yml:14:16: services.web.networks.frnt: network "frnt" is not defined (did you mean "front"?)',
    ]


def test_the_offending_line_with_a_caret(tmp_path: Path) -> None:
    with pytest.raises(ComposeErrors) as caught:
        _load(tmp_path, {"compose.yml": "services:\n  web:\n    imag: x\n"})
    lines = caught.value.pretty().splitlines()
    assert lines[1] == "    3 |     imag: x"
    assert lines[2] == "      |     ^"


def test_a_mistake_of_a_variable_names_it(tmp_path: Path) -> None:
    text = "services:\n  a:\n    image: x\n    scale: ${COUNT}\n"
    assert _problems(tmp_path, {"compose.yml": text}, environ={"COUNT": "many"}) == [
        'compose.yml:4:12: services.a.scale: "many" is not a whole number (from ${COUNT})'
    ]


def test_places_through_include_extends_and_override(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [sub/inc.yml]\nservices:\n  a: {extends: {file: base.yml, service: b}}\n",
        "override.yml": "services:\n  a:\n    ports: [x]\n",
        "sub/inc.yml": "services:\n  c: {image: x, tty: perhaps}\n",
        "base.yml": "services:\n  b:\n    image: x\n    restart: sometimes\n",
    }
    assert _problems(tmp_path, files, load=["compose.yml", "override.yml"]) == [
        'base.yml:4:14: services.b.restart: "sometimes" is not one of no, always, on-failure[:times], '
        "unless-stopped",
        'sub/inc.yml:2:22: services.c.tty: "perhaps" is not true or false',
        'override.yml:3:13: services.a.ports[0]: "x" is not a port or a range of ports',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "compose.yml: the file is empty: it must hold services"),
        ("[a]", "compose.yml:1:1: the file must hold a mapping with services"),
        ("services:\n\ta: 1", "compose.yml:2:1: tabs cannot indent YAML: use spaces"),
        ("a: 1\na: 2", 'compose.yml:2:1: key "a" is set twice in one mapping (first at compose.yml:1:1)'),
        ("a: *b", "compose.yml:1:4: alias *b has no anchor &b before it"),
        ("a: &b [*b]", "compose.yml:1:8: alias *b stands inside its own anchor"),
        ("1: a", 'compose.yml:1:1: key 1 is not a string: write "1" in quotes'),
        ("? [a]\n: b", "compose.yml:1:3: a mapping's key must be a string, not a collection"),
        ("a: !foo b", 'compose.yml:1:4: unknown tag "!foo": only !reset and !override are known'),
        ("a: !!binary YQ==", "compose.yml:1:4: binary values are not supported: write text"),
        ("a: !!int x", 'compose.yml:1:4: "x" is not a value of type !!int'),
        ("a: {<<: 5}", "compose.yml:1:9: << takes a mapping or a list of mappings"),
        (b"a: \xff\xfea", "compose.yml:1:4: not valid UTF-8: byte 0xff; save the file as UTF-8"),
        ("a: \x00", "compose.yml:1:4: character '\\x00' is not allowed in YAML"),
    ],
)
def test_mistakes_in_the_yaml(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert _problems(tmp_path, {"compose.yml": text}) == [message]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfservices: {a: {image: x}}\n",
        "services: {a: {image: x}}\n".encode("utf-16"),
        b"services:\r\n  a:\r\n    image: x\r\n",
        b"services: {a: {image: x}}",
        b"%YAML 1.2\n---\nservices: {a: {image: x}}\n...\n",
    ],
)
def test_byte_order_marks_and_line_ends(tmp_path: Path, data: bytes) -> None:
    assert _load(tmp_path, {"compose.yml": data}).services["a"].image == "x"


def test_the_norway_problem_as_compose_sees_it(tmp_path: Path) -> None:
    text = "services: {a: {image: x, environment: {N: no, Y: yes, T: true, O: on, F: off}, tty: yes}}"
    project = _load(tmp_path, {"compose.yml": text})
    expected = {"N": "no", "Y": "yes", "T": "true", "O": "on", "F": "off"}
    assert dict(project.services["a"].environment) == expected
    assert project.services["a"].tty is True
    assert [warning.message for warning in project.warnings] == ['"yes" is a string in YAML 1.2: write true']


LAUGHS = "\n".join(
    ["x-0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"x-{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 10)]
)
LAUGHS_SMALL = "\n".join(LAUGHS.splitlines()[:5]) + "\nservices: {}"
"""Some 60,000 values once the aliases are followed."""
HOSTILE = {
    "laughs": (LAUGHS, "holds more than 150000 values"),
    "flow": ("a: " + "[" * 900, "nested more than 64 levels"),
    "deeper flow": ("a: " + "[" * 100_000, "nesting depth"),
    "maps": ("{a: " * 100_000, "nested more than 64 levels"),
    "blocks": ("\n".join(" " * n + "a:" for n in range(2000)), "nested more than 64 levels"),
    "large": ("a: " + "x" * 5_000_000, "larger than 4194304 bytes"),
    "wide": ("services:\n" + "".join(f"  s{n}: {{imge: x}}\n" for n in range(5_000)), "unknown key"),
    "list": ("x: [" + "1," * 300_000 + "1]", "holds more than 150000 values"),
    "nested variables": ("services: {a: {image: '" + "${A:-" * 5000 + "x" + "}" * 5000 + "'}}", "nested"),
    "dollars": ("services: {a: {image: '" + "${" * 100_000 + "'}}", "invalid interpolation"),
    "ports": (
        "services: {a: {image: x, ports: ['1-65535', '1-65535/udp', '0-65536']}}",
        "more than 16384 ports",
    ),
    "number": ("services: {a: {image: x, scale: " + "9" * 100_000 + "}}", "not a"),
    "duration": ("services: {a: {image: x, stop_grace_period: '" + "9" * 100_000 + "h'}}", "not a duration"),
    "merge": ("x: &a {b: 1}\ny: {" + ", ".join(["<<: *a"] * 2) + "}", '"<<" is set twice'),
    "depth of extends": (
        "services:\n  s0: {image: x}\n"
        + "".join(f"  s{n}: {{extends: s{n - 1}}}\n" for n in range(900, 0, -1)),
        "extends more than 100 services",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_fast_and_small(tmp_path: Path, name: str) -> None:
    text, expected = HOSTILE[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    problems = _problems(tmp_path, {"compose.yml": text})
    assert time.process_time() - start < 3.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert any(expected in problem for problem in problems), problems[:3]
    assert len(problems) <= 200


def test_include_and_extends_cycles(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [b.yml]\nservices: {a: {image: x}}\n",
        "b.yml": "include: [compose.yml]\nservices: {b: {image: x}}\n",
    }
    assert _problems(tmp_path, files) == [
        f"b.yml:1:11: include[0]: files include each other: {tmp_path}/compose.yml -> {tmp_path}/b.yml -> "
        f"{tmp_path}/compose.yml".replace(f"{tmp_path}/", "")
    ]
    text = "services:\n  a: {extends: b}\n  b: {extends: {file: compose.yml, service: a}}\n"
    problems = _problems(tmp_path, {"compose.yml": text})
    assert any("services extend each other: a (compose.yml) -> b" in problem for problem in problems)


def test_missing_files_point_at_who_named_them(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [no.yml]\nservices:\n  a: {image: x, env_file: no.env}\n"
        "  b: {extends: {file: no2.yml, service: q}}\n"
    }
    assert _problems(tmp_path, files) == [
        "compose.yml:1:11: include[0]: cannot read no.yml: no such file or directory",
        "compose.yml:3:27: services.a.env_file[0]: cannot read no.env: no such file or directory",
        "compose.yml:4:23: services.b.extends: cannot read no2.yml: no such file or directory",
    ]


def test_env_file_mistakes_point_into_the_file(tmp_path: Path) -> None:
    files = {"compose.yml": "services: {a: {image: x, env_file: e.env}}", "e.env": "A=1\nB C=2\n"}
    assert _problems(tmp_path, files) == [
        'e.env:2:1: services.a.env_file[0]: variable name "B C" holds a space: write NAME=value'
    ]


def test_cycles_of_dependencies_are_named(tmp_path: Path) -> None:
    text = (
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, links: [c]}\n"
        "  c: {image: x, depends_on: [a]}\n"
    )
    assert _problems(tmp_path, {"compose.yml": text}) == [
        "compose.yml:4:30: services.c.depends_on: services wait for each other: a -> b -> c -> a"
    ]


def test_strict_turns_warnings_into_errors(tmp_path: Path) -> None:
    files = {"compose.yml": 'version: "3"\nservices: {a: {image: "x:${NOPE}"}}\n'}
    project = _load(tmp_path, files)
    shown = [str(warning).replace(f"{tmp_path}/", "") for warning in project.warnings]
    assert shown == [
        'compose.yml:2:23: services.a.image: variable "NOPE" is not set: it becomes an empty string',
        'compose.yml:1:1: version: "version" is obsolete and ignored: remove it',
    ]
    assert _problems(tmp_path, files, strict=True) == shown


def test_default_files(tmp_path: Path) -> None:
    with pytest.raises(ComposeErrors, match="no Compose file in"):
        find_files(tmp_path / "none", {})
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("docker-compose.yml", "compose.yml", "compose.override.yml"):
        (tmp_path / name).write_text("services: {}")
    expected = (tmp_path / "compose.yml", tmp_path / "compose.override.yml")
    assert find_files(tmp_path / "deep" / "er", {}) == expected
    named = find_files(tmp_path, {"COMPOSE_FILE": "a.yml:b.yml"})
    assert named == (tmp_path / "a.yml", tmp_path / "b.yml")
    piped = find_files(tmp_path, {"COMPOSE_FILE": "a.yml|b.yml", "COMPOSE_PATH_SEPARATOR": "|"})
    assert piped == (tmp_path / "a.yml", tmp_path / "b.yml")


def test_standard_input(tmp_path: Path) -> None:
    project = load_project(
        ["-"],
        project_directory=tmp_path,
        environ={},
        stdin=lambda: "services: {a: {image: x, volumes: [./d:/d]}}",
    )
    assert project.services["a"].volumes[0].source == str(tmp_path / "d")
    with pytest.raises(ComposeErrors, match=r"^<stdin>:1:16: services.a: unknown key"):
        load_project(["-"], project_directory=tmp_path, environ={}, stdin=lambda: "services: {a: {imag: x}}")


def test_old_keys_say_what_to_write(tmp_path: Path) -> None:
    text = "services: {a: {image: x, log_driver: y, net: host}}"
    assert _problems(tmp_path, {"compose.yml": text}) == [
        'compose.yml:1:26: services.a: unknown key "log_driver": write "logging.driver"',
        'compose.yml:1:41: services.a: unknown key "net": write "network_mode"',
    ]


def test_variables_around_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.env").write_text(
        "A=a\nCOMPOSE_FILE=named.yml\nCOMPOSE_PROFILES=p\nCOMPOSE_PROJECT_NAME=given\n"
    )
    (tmp_path / ".env").write_text("A=default\n")
    text = (
        "services: {a: {image: 'x:${A}', profiles: [p], working_dir: $PWD, hostname: $COMPOSE_PROJECT_NAME}}"
    )
    (tmp_path / "named.yml").write_text(text)
    project = load_project([], environ={"COMPOSE_ENV_FILES": "a.env"})
    service = project.services["a"]
    assert (project.name, service.image, service.hostname) == ("given", "x:a", "given")
    assert service.working_dir == str(tmp_path)
    assert load_project(["named.yml"], environ={"A": "wins"}, profiles=["p"]).services["a"].image == "x:wins"
    assert load_project(["named.yml"], environ={}, profiles=["*"]).services["a"].image == "x:default"
    off = load_project(["named.yml"], environ={"COMPOSE_DISABLE_ENV_FILE": "1"}, profiles=["p"])
    assert off.services["a"].image == "x:"
    assert load_project(["named.yml"], environ={}).services == {}


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("links: [q]", "services.a.links"),
        ("ipc: 'service:q'", "services.a.ipc"),
        ("network_mode: 'service:q'", "services.a.network_mode"),
        ("volumes_from: ['q:ro']", "services.a.volumes_from"),
        ("depends_on: [q]", "services.a.depends_on.q"),
    ],
)
def test_undefined_services_are_reported_where_they_are_named(tmp_path: Path, said: str, path: str) -> None:
    problems = _problems(tmp_path, {"compose.yml": f"services: {{a: {{image: x, {said}}}}}"})
    assert [problem.split(": ", 1)[1] for problem in problems] == [f'{path}: service "q" is not defined']


def test_numbers_in_advice_are_as_written(tmp_path: Path) -> None:
    problems = _problems(
        tmp_path, {"compose.yml": "services: {a: {image: 1.10, hostname: 0x1F, user: 1_000}}"}
    )
    assert [problem.rsplit(": ", 1)[1] for problem in problems] == [
        'write "1.10" in quotes',
        'write "0x1F" in quotes',
        'write "1_000" in quotes',
    ]


def test_hostile_environment_files(tmp_path: Path) -> None:
    start = time.process_time()
    files = {"compose.yml": "services: {a: {image: x, env_file: e.env}}", "e.env": "A=1\n" * 130_000}
    assert _load(tmp_path, files).services["a"].environment == {"A": "1"}
    files["e.env"] = "A=1\n" * 150_000
    assert "larger than 524288 bytes" in _problems(tmp_path, files)[0]
    files["e.env"] = 'A="' + "x\n" * 200_000
    assert "has no closing" in _problems(tmp_path, files)[0]
    assert time.process_time() - start < 5.0


def test_many_includes_share_one_budget(tmp_path: Path) -> None:
    files = {f"{n}.yml": LAUGHS_SMALL for n in range(100)}
    files["compose.yml"] = f"include: [{', '.join(files)}]\nservices: {{a: {{image: x}}}}\n"
    start = time.process_time()
    problems = _problems(tmp_path, files)
    assert any("hold more than 400000 values together" in problem for problem in problems)
    assert time.process_time() - start < 15.0


def test_variables_are_listed_without_values(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("services: {a: {image: 'x:${A:?}', scale: '${B:-2}'}}")
    found = list_variables([tmp_path / "a.yml", "-"], environ={}, stdin=lambda: "x-c: $C")
    assert [(variable.name, variable.required, variable.default) for variable in found] == [
        ("A", True, ""),
        ("B", False, "2"),
        ("C", False, ""),
    ]


def test_variables_can_stay_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "services: {a: {image: 'x:${A:?}', scale: '$N', ports: ['${P}:80', '${Q}:80', '81:81'], mem_limit: '${M}', "
        "environment: {HOME: , B: '$$x'}, volumes: ['./${D}:/d'], extra_hosts: ['${H}'], restart: '$R'}}"
    )
    (tmp_path / "b.yml").write_text("services: {a: {ports: ['${P}:80'], labels: {k: '${L}'}}}")
    value = load_template(
        [tmp_path / "a.yml", tmp_path / "b.yml"], environ={"HOME": "/root"}, project_name="p"
    )
    service = value["services"]["a"]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]
    expected = {
        "image": "x:${A:?}",
        "scale": "$N",
        "mem_limit": "${M}",
        "environment": {"HOME": None, "B": "$$x"},
        "extra_hosts": ["${H}"],
        "restart": "$R",
        "labels": {"k": "${L}"},
    }
    assert {key: service[key] for key in expected} == expected
    assert service["ports"][:2] == ["${P}:80", "${Q}:80"]
    assert service["volumes"][0]["source"] == str(tmp_path / "${D}")
    (tmp_path / "c.yml").write_text("services: {a: {imag: x, scale: many}}")
    with pytest.raises(ComposeErrors, match="did you mean"):
        load_template([tmp_path / "c.yml"], environ={}, project_name="p")


def test_names_of_one_letter_are_no_volumes(tmp_path: Path) -> None:
    project = _load(tmp_path, {"compose.yml": "services: {a: {image: x, volumes: ['v:/data']}}"})
    assert "taken for a Windows drive" in project.warnings[0].message


def test_a_pipe_that_nobody_writes_into_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    problems = _problems(
        tmp_path, {"compose.yml": "include: [pipe]\nservices: {a: {image: x, env_file: [./pipe]}}\n"}
    )
    assert any("nobody writes into this pipe" in problem for problem in problems)


def test_a_pipe_with_a_writer_is_read(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"services: {a: {image: piped}}\n")
    os.close(writer)
    try:
        project = load_project([f"/dev/fd/{reader}"], project_name="p", environ={})
    finally:
        os.close(reader)
    assert project.services["a"].image == "piped"
