"""Go templates: what docker's own client answered to each of these, and the rest of the language."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyswarm.gotemplate import (
    Duration,
    Row,
    Struct,
    Template,
    TemplateError,
    Time,
    duration_text,
    render,
    to_json,
)

CONTEXT = Struct(
    {
        "Current": True,
        "Description": "Current DOCKER_HOST based configuration",
        "DockerEndpoint": "unix:///var/run/docker.sock",
        "Error": "",
        "Name": "default",
    },
    go_type="*formatter.clientContextContext",
)
# Recorded from `docker context ls --format ...`, docker 28.2.
OUTPUTS = [
    ("{{index .Name 1}}", "101"),
    ('{{.Name | printf "%d"}}', "%!d(string=default)"),
    (
        "{{json .}}",
        '{"Current":true,"Description":"Current DOCKER_HOST based configuration","DockerEndpoint":"unix:///var/run/docker.sock","Error":"","Name":"default"}',
    ),
    ("{{slice .Name 1 3}}", "ef"),
    ("{{pad .Name 2 3}}|", "  default   |"),
    ("{{truncate .Name 3}}", "def"),
    ('{{title "a bc"}}', "A Bc"),
    ('{{join (split "a,b" ",") "/"}}', "a/b"),
    (
        '{{printf "%d %s %v %q %5.2f|%-5s|%05d %t %x" 1 "a" 2 "q" 1.5 "ab" 42 true 255}}',
        '1 a 2 "q"  1.50|ab   |00042 true ff',
    ),
    ('{{printf "%d" "x"}}', "%!d(string=x)"),
    ('{{printf "%s"}}', "%!s(MISSING)"),
    ('{{printf "a" 1}}', "a%!(EXTRA int=1)"),
    ('{{println 1 "a"}}|', "1 a\n|"),
    ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
    ('{{- " a " -}} b', " a b"),
    ("{{/* c */}}x", "x"),
    ("{{with $x := 5}}{{$x}}{{end}}", "5"),
    ('{{range $i, $e := split "a,b" ","}}{{$i}}={{$e}};{{end}}', "0=a;1=b;"),
    ('{{not true}} {{and 1 0}} {{or 0 "x"}}', "false 0 x"),
    ('{{html "<a>"}} {{urlquery "a b"}} {{js "x\\"y"}}', '&lt;a&gt; a+b x\\"y'),
    ("{{1.5}} {{1e3}} {{0x10}} {{1e30}} {{'a'}}", "1.5 1000 16 1e+30 97"),
    ("{{.Name | }}", "default"),
    ('{{define "x"}}y{{end}}{{template "x" .}}', "y"),
    ('{{(index (split "a,b" ",") 1)}}', "b"),
]
ERRORS = [
    (
        "{{.Foo}}",
        ':1:2: executing "" at <.Foo>: can\'t evaluate field Foo in type *formatter.clientContextContext',
    ),
    ("{{.Name", ":1: unclosed action"),
    ("{{if}}", ":1: missing value for if"),
    ("{{.Name | foo}}", ':1: function "foo" not defined'),
    ("{{.Name.X}}", ':1:7: executing "" at <.Name.X>: can\'t evaluate field X in type string'),
    ("{{range .Name}}x{{end}}", ':1:8: executing "" at <.Name>: range can\'t iterate over default'),
    ("{{end}}", ":1: unexpected {{end}}"),
    ('{{"a}}', ":1: unterminated quoted string"),
    ("{{$x}}", ':1: undefined variable "$x"'),
    ('{{lt 1 "a"}}', ':1:2: executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison'),
    (
        '{{index .Endpoints "x"}}',
        ':1:8: executing "" at <.Endpoints>: can\'t evaluate field Endpoints in type *formatter.clientContextContext',
    ),
    ("{{.Name}}{{end", ":1: unclosed action"),
    ('{{template "x"}}', ':1:11: executing "" at <{{template "x"}}>: template "x" not defined'),
    ("{{1 2}}", ':1:2: executing "" at <1>: can\'t give argument to non-function 1'),
    ("{{len 3}}", ':1:2: executing "" at <len 3>: error calling len: len of type int'),
    ('{{.Name "a"}}', ':1:2: executing "" at <.Name>: wrong number of args for Name: want 0 got 1'),
    ("{{eq .Name}}", ':1:2: executing "" at <eq .Name>: error calling eq: missing argument for comparison'),
    ("{{}}", ":1: missing value for command"),
    ("{{nil}}", ':1:2: executing "" at <nil>: nil is not a command'),
    ("{{break}}", ":1: {{break}} outside {{range}}"),
    ("{{foo}}", ':1: function "foo" not defined'),
    ("{{| .Name}}", ':1: unexpected "|" in command'),
    ("{{if .Name}}", ":1: unexpected EOF"),
    ("{{else}}", ":1: unexpected {{else}}"),
    (
        '{{eq 1 2 1}} {{ne 1 2}} {{eq "a" 1}}',
        ':1:26: executing "" at <eq "a" 1>: error calling eq: incompatible types for comparison',
    ),
    ("{{ge 2 1.0}}", ':1:2: executing "" at <ge 2 1.0>: error calling ge: incompatible types for comparison'),
]


@pytest.mark.parametrize(("template", "text"), OUTPUTS)
def test_prints_what_docker_prints(template: str, text: str) -> None:
    assert render(template, CONTEXT) == text


@pytest.mark.parametrize(("template", "message"), ERRORS)
def test_fails_as_docker_fails(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        render(template, CONTEXT)
    assert str(raised.value) == f"template: {message}"


DATA: dict[str, Any] = {
    "list": ["a", "b", "c"],
    "map": {"z": "1", "a": "2"},
    "nested": {"deep": {"er": 5}},
    "none": None,
    "yes": True,
    "float": 2.5,
}
LANGUAGE = [
    ("{{range .list}}{{.}},{{end}}", "a,b,c,"),
    ("{{range $i, $v := .list}}{{if $i}} {{end}}{{$i}}{{$v}}{{end}}", "0a 1b 2c"),
    ("{{range $k, $v := .map}}{{$k}}={{$v}};{{end}}", "a=2;z=1;"),
    ("{{range .nothing}}x{{else}}empty{{end}}", "empty"),
    ("{{range .list}}{{if eq . `b`}}{{continue}}{{end}}{{.}}{{end}}", "ac"),
    ("{{range .list}}{{if eq . `b`}}{{break}}{{end}}{{.}}{{end}}", "a"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("{{with .nested}}{{.deep.er}}{{end}}", "5"),
    ("{{with .none}}x{{else}}none{{end}}", "none"),
    ("{{with .none}}x{{else with .yes}}{{.}}{{end}}", "true"),
    ("{{if .none}}a{{else if .yes}}b{{else}}c{{end}}", "b"),
    ("{{if and .yes (eq .float 2.5)}}both{{end}}", "both"),
    ("{{$x := 1}}{{range .list}}{{$x = len $.list}}{{end}}{{$x}}", "3"),
    ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
    ("{{.nested.missing}}", "<no value>"),
    ("{{.none}}", "<nil>"),
    ("{{.list}} {{.map}}", "[a b c] map[a:2 z:1]"),
    ("{{index .list 1}} {{index .map `z`}} [{{index .map `q`}}]", "b 1 []"),
    ("{{index .nested `deep` `er`}}", "5"),
    ("{{len .list}} {{len .map}} {{len `äö`}}", "3 2 4"),
    (
        "{{json .}}",
        json.dumps({k: DATA[k] for k in sorted(DATA)} | {"map": {"a": "2", "z": "1"}}, separators=(",", ":")),
    ),
    ("{{.list | json}}", '["a","b","c"]'),
    ("{{join .list `-` | upper | printf `%-8s|`}}", "A-B-C   |"),
    ("{{(index .list 0) | printf `%q %v` `x`}}", '"x" a'),
    ("{{define `t`}}<{{.}}>{{end}}{{range .list}}{{template `t` .}}{{end}}", "<a><b><c>"),
    ("{{block `b` .float}}[{{.}}]{{end}}", "[2.5]"),
    ("a {{- /* gone */ -}} b", "ab"),
    ('{{`raw \\n`}}{{"\\t\\u00e4"}}', "raw \\n\t\u00e4"),
    (
        "{{printf `%05.1f %x %X %o %b %c %U %+d` 3.14159 255 255 8 5 65 65 7}}",
        "003.1 ff FF 10 101 A U+0041 +7",
    ),
    ("{{not .none}} {{or .none `x`}} {{and .yes `y`}}", "true x y"),
    (
        "{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge `b` `a`}} {{ne 1 2}} {{eq 1 2 3 1}}",
        "true true false true true true",
    ),
    ("{{slice `abcdef` 1 3}} {{slice .list 1}}", "bc [b c]"),
    ("{{html `<a>`}} {{urlquery `a b&c`}}", "&lt;a&gt; a+b%26c"),
    ("{{print `a` 1 2 `b`}}", "a1 2b"),
    ("{{1_000}} {{0b11}} {{'\\n'}} {{.5}}", "1000 3 10 0.5"),
]


@pytest.mark.parametrize(("template", "text"), LANGUAGE)
def test_language(template: str, text: str) -> None:
    assert render(template, DATA) == text


def test_methods_take_arguments() -> None:
    def label(name: str) -> str:
        return f"<{name}>"

    row = Struct({"Label": label, "ID": "x"})
    assert render('{{.Label "a"}} {{.ID | .Label}}', row) == "<a> <x>"
    with pytest.raises(TemplateError, match="wrong number of args for Label"):
        render("{{.Label}}", row)


def test_a_struct_knows_its_empty_fields_and_no_others() -> None:
    struct = Struct({"A": 1}, {"B": ""}, "swarm.Thing")
    assert render("{{.A}}[{{.B}}]", struct) == "1[]"
    assert to_json(struct) == '{"A":1}'
    with pytest.raises(TemplateError, match=r"can't evaluate field C in type swarm\.Thing"):
        render("{{.C}}", struct)


def test_strict_refuses_missing_keys() -> None:
    with pytest.raises(TemplateError, match=r'executing "" at <\.a\.b>: map has no entry for key "b"'):
        render("{{.a.b}}", {"a": {}}, strict=True)


def test_rows_escape_their_json() -> None:
    assert render("{{json .}}", Row({"P": "a->b & <c>"})) == '{"P":"a-\\u003eb \\u0026 \\u003cc\\u003e"}'
    assert render("{{json .P}}", Row({"P": "a->b"})) == '"a->b"'


def test_times_and_durations_print_as_go_prints_them() -> None:
    data = {"t": Time("2026-01-02T03:04:05.120Z"), "d": Duration(90_000_000_000)}
    assert render("{{.t}} {{.d}}", data) == "2026-01-02 03:04:05.12 +0000 UTC 1m30s"
    assert render("{{json .}}", data) == '{"d":90000000000,"t":"2026-01-02T03:04:05.120Z"}'


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (250_000_000, "250ms"),
        (5_000_000_000, "5s"),
        (3_600_000_000_000, "1h0m0s"),
        (3_661_500_000_000, "1h1m1.5s"),
        (-2_000_000_000, "-2s"),
    ],
)
def test_durations(nanos: int, text: str) -> None:
    assert duration_text(nanos) == text


def test_a_template_is_parsed_once_and_run_often() -> None:
    template = Template("{{.}}")
    assert [template.execute(number) for number in (1, 2)] == ["1", "2"]


def test_endless_templates_end() -> None:
    with pytest.raises(TemplateError, match="maximum template depth"):
        render('{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}', {})
