"""The words of the command line as values, values as people read them, and the layout of tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyswarm.api import LogMessage
from pyswarm.cli import archive, human, values
from pyswarm.cli.lazy import GoCommand
from pyswarm.cli.logs import Prefix, lines, moment
from pyswarm.cli.network import pools
from pyswarm.cli.service_flags import BYTES, DURATION
from pyswarm.cli.table import Layout, aligned, formatted, inspected, row
from pyswarm.client import whole_lines
from pyswarm.errors import Invalid
from pyswarm.gotemplate import Struct
from pyswarm.objects import TaskState
from pyswarm.specs import GenericResource, NetworkAttachmentSpec, PortConfig, Ulimit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0), ("-2s", -2), ("1m0.5s", 60.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1d", "1h x", "abc"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(Invalid, match="invalid duration"):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("1.5k", 1536),
        ("100", 100),
        ("100b", 100),
        ("2GiB", 2 << 30),
        ("1MB", 1 << 20),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "m", "1x", "-5", "1 2"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(Invalid, match="invalid size"):
        values.size(text)


def test_cpus() -> None:
    assert values.cpus("0.5") == 500_000_000
    with pytest.raises(Invalid, match="invalid number of CPUs"):
        values.cpus("many")


BAD_WORDS: list[tuple[Any, str, str]] = [
    (values.mount, "type=volume,source=a", "target is required"),
    (values.mount, "type=bind,target=/a", "source is required"),
    (values.mount, "type=floppy,target=/a", "invalid mount type"),
    (values.mount, "type=bind,source=/a,target=/b,volume-nocopy", "cannot mix volume-nocopy"),
    (values.mount, "target=/a,colour=red", "unexpected key 'colour'"),
    (values.mount, "target=/a,readonly=maybe", "invalid value for readonly"),
    (values.mount, "target", "must be a key=value pair"),
    (values.ports, "x:80", "invalid port 'x'"),
    (values.ports, "70000:80", "ports are 1 to 65535"),
    (values.ports, "80-81:80", "target range of the same length"),
    (values.ports, "80-81:80-82", "differ in length"),
    (values.ports, "80/icmp", "invalid protocol"),
    (values.ports, "published=80", "missing mandatory field 'target'"),
    (values.ports, "target=80,mode=fast", "invalid publish mode"),
    (values.network, "alias=x", "name is required"),
    (values.network, "name=x,shape=round", "invalid field key 'shape'"),
    (values.preference, "binpack=x", "unsupported placement preference"),
    (values.preference, "spread", "must be of the format"),
    (values.ulimit, "nofile=9:5", "soft limit must not exceed"),
    (values.ulimit, "nofile=x", "invalid ulimit"),
    (values.host, "db", "bad format for add-host"),
]


@pytest.mark.parametrize(("read", "text", "message"), BAD_WORDS, ids=[word for _, word, _ in BAD_WORDS])
def test_bad_words(read: Any, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read(text)


def test_ports_with_an_address() -> None:
    assert values.ports("127.0.0.1:8080:80") == (
        PortConfig(target_port=80, published_port=8080, host_ip="127.0.0.1"),
    )
    assert values.ports("[::1]:8080:80/udp")[0].host_ip == "::1"


def test_networks() -> None:
    assert values.network("front") == NetworkAttachmentSpec(target="front")
    assert values.network("name=front,alias=a,alias=b,driver-opt=k=v,ip=10.0.0.5") == NetworkAttachmentSpec(
        target="front", aliases=("a", "b"), driver_opts={"k": "v"}, addresses=("10.0.0.5",)
    )


def test_references() -> None:
    short, long = values.references(["a", "source=b,target=/x,uid=5,gid=6,mode=0400"], "secret")
    assert (short.source_name, short.target, short.mode) == ("a", "a", 0o444)
    assert (long.source_name, long.target, long.uid, long.gid, long.mode) == ("b", "/x", "5", "6", 0o400)
    with pytest.raises(Invalid, match="duplicate secret target"):
        values.references(["a", "source=b,target=a"], "secret")
    with pytest.raises(Invalid, match="invalid value for mode"):
        values.references(["source=a,mode=rw"], "secret")


def test_environment_of_files_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("\ufeffA=file\n# comment\nB=file\n\nHOME_DIR\nGONE\n", encoding="utf-8")
    found = values.environment(["A=flag", "USER"], [str(file)], {"USER": "me", "HOME_DIR": "/h"})
    assert found == ("A=flag", "B=file", "HOME_DIR=/h", "USER=me")
    with pytest.raises(Invalid, match="cannot read the environment file"):
        values.environment([], [str(tmp_path / "none")], {})
    with pytest.raises(Invalid, match="invalid environment variable"):
        values.environment(["=x"], [], {})


def test_more_words() -> None:
    assert values.generic_resources(["gpu=2,ssd=1", "gpu=3"]) == (
        GenericResource(kind="gpu", value=3),
        GenericResource(kind="ssd", value=1),
    )
    assert values.ulimit("nofile=-1") == Ulimit(name="nofile", soft=-1, hard=-1)
    assert values.host("db:10.0.0.1") == "10.0.0.1 db"
    assert values.host("db:[::1]") == "::1 db"
    assert values.filters(["Label=a=b", "name=x"]) == [("label", "a=b"), ("name", "x")]
    assert [values.tagged(x) for x in ("a", "r:5000/a", "a:1", "a@sha256:0")] == [
        "a:latest",
        "r:5000/a:latest",
        "a:1",
        "a@sha256:0",
    ]
    with pytest.raises(Invalid, match="invalid filter"):
        values.filters(["name"])


# ------------------------------------------------------------------------------------------- for people


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (3600 * 47, "47 hours"),
        (3600 * 48, "2 days"),
        (3600 * 24 * 14, "2 weeks"),
        (3600 * 24 * 60, "2 months"),
        (3600 * 24 * 365 * 2, "2 years"),
    ],
)
def test_spans_of_time(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


def test_sizes_for_people() -> None:
    assert [human.decimal_size(n) for n in (0, 999, 7_800_000, 1_234_567_890)] == [
        "0B",
        "999B",
        "7.8MB",
        "1.23GB",
    ]
    assert [human.binary_size(n) for n in (0, 1024, 8_131_563_520)] == ["0B", "1KiB", "7.573GiB"]


def test_states_and_cuts() -> None:
    assert human.current_state(TaskState.RUNNING, 40.0, 100.0) == "Running about a minute ago"
    assert human.ago(0.0, 5.0) == "N/A"
    assert human.ellipsis("abcdef", 4) == "abc…"
    assert human.image("a:1@sha256:0") == "a:1"
    assert sorted(["web.10", "web.2", "api.1"], key=human.natural) == ["api.1", "web.2", "web.10"]


LAYOUT = Layout(columns=("ID", "Name"), headers={"ID": "ID", "Name": "NAME", "Labels": "LABELS"})
ROWS = [row({"a.b": "1"}, ID="x", Name="a long name"), row({}, ID="yy", Name="b")]


def test_tables() -> None:
    assert formatted(ROWS, LAYOUT) == "ID        NAME\nx         a long name\nyy        b\n"
    assert formatted([], LAYOUT) == "ID        NAME\n"
    assert formatted(ROWS, LAYOUT, quiet=True) == "x\nyy\n"
    assert (
        formatted(ROWS, LAYOUT, "json")
        == '{"ID":"x","Labels":"a.b=1","Name":"a long name"}\n{"ID":"yy","Labels":"","Name":"b"}\n'
    )
    assert (
        formatted(ROWS, LAYOUT, "yaml")
        == "- ID: x\n  Labels: a.b=1\n  Name: a long name\n- ID: yy\n  Labels: ''\n  Name: b\n"
    )
    assert formatted(ROWS, LAYOUT, r"{{.ID}}\t{{.Name}}") == "x\ta long name\nyy\tb\n"
    assert formatted(ROWS, LAYOUT, r'table {{.Name}}\t{{.Label "a.b"}}') == (
        "NAME          b\na long name   1\nb             \n"
    )
    assert formatted(ROWS, LAYOUT, "table {{upper .Name}}") == "NAME\nA LONG NAME\nB\n"


def test_columns_end_where_no_tab_follows() -> None:
    assert aligned(["a\tb\tc", "a much longer cell\tb", "x\ty\tz"]) == (
        "a                    b         c\na much longer cell   b\nx                    y         z\n"
    )


def test_inspect_formats() -> None:
    element = Struct({"Name": "x", "Labels": {"b": "2", "a": "1"}})
    assert inspected([element]).startswith(
        '[\n    {\n        "Name": "x",\n        "Labels": {\n            "a"'
    )
    assert inspected([element], "json") == '{"Name":"x","Labels":{"a":"1","b":"2"}}\n'
    assert inspected([element], "{{.Name}}") == "x\n"
    assert inspected([element], "yaml") == "- Name: x\n  Labels:\n    b: '2'\n    a: '1'\n"


# ------------------------------------------------------------------------------------------- logs, builds


def test_log_lines() -> None:
    message = LogMessage(
        task_id="t" * 25, service_name="web", slot=3, node_id="n" * 25, nanos=1_500_000_000, data=b"a\nb\n"
    )
    prefix = Prefix({"n" * 25: "alpha"}, resolve=True, task_ids=True, full=False, slots=10)
    assert prefix.of(message) == f"web.3.{'t' * 12}@alpha     | "
    assert lines(message, "p| ", timestamps=True) == [
        b"1970-01-01T00:00:01.500000000Z p| a\n",
        b"1970-01-01T00:00:01.500000000Z p| b\n",
    ]


async def test_pieces_of_lines_are_put_together() -> None:
    def piece(data: bytes, stream: str = "stdout", nanos: int = 1) -> LogMessage:
        return LogMessage(task_id="t", stream=stream, data=data, nanos=nanos)

    async def given() -> AsyncIterator[LogMessage]:
        for each in (piece(b"ab"), piece(b"E\n", "stderr"), piece(b"cd\n", nanos=2), piece(b"end", nanos=3)):
            yield each
        yield LogMessage(warning="w")

    found = [(each.data, each.nanos, each.warning) async for each in whole_lines(given())]
    assert found == [(b"E\n", 1, ""), (b"abcd\n", 1, ""), (b"", 0, "w"), (b"end", 3, "")]


def test_moments() -> None:
    assert moment("", 100.0) == 0.0
    assert moment("1m", 100.0) == 40.0
    assert moment("12.5", 100.0) == 12.5
    assert moment("1970-01-01T00:00:05Z", 100.0) == 5.0


def test_dockerignore(tmp_path: Path) -> None:
    for name in (
        "Dockerfile",
        "a.txt",
        "b.log",
        "src/c.log",
        "src/d.py",
        "node_modules/x/y.js",
        "keep/z.log",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / ".dockerignore").write_text("# comment\n**/*.log\nnode_modules\nDockerfile\n!keep/*.log\n")
    found = {
        path.relative_to(tmp_path).as_posix() for path in archive.members(tmp_path, "") if path.is_file()
    }
    assert found == {".dockerignore", "Dockerfile", "a.txt", "src/d.py", "keep/z.log"}


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("**/*.txt", "d/e/a.txt", True),
        ("**/*.txt", "a.txt", True),
        ("d", "d/e/a.txt", True),
        ("d/**", "d/e", True),
        ("a?c", "abc", True),
        ("[ab]c", "bc", True),
        ("/a", "a", True),
        ("a", "ab", False),
    ],
)
def test_ignore_patterns(pattern: str, path: str, out: bool) -> None:
    assert archive.excluded(path, archive.ignored_by([pattern])) is out


def test_pools_of_a_network() -> None:
    found = pools(("10.1.0.0/16", "fd00::/64"), ("10.1.2.0/24",), ("10.1.0.1", "fd00::1"), ("dns=10.1.0.53",))
    assert [(p.subnet, p.ip_range, p.gateway, dict(p.aux_addresses)) for p in found] == [
        ("10.1.0.0/16", "10.1.2.0/24", "10.1.0.1", {"dns": "10.1.0.53"}),
        ("fd00::/64", "", "fd00::1", {}),
    ]
    with pytest.raises(Invalid, match=r"no matching subnet for gateway 10\.9\.0\.1"):
        pools(("10.1.0.0/16",), (), ("10.9.0.1",), ())
    with pytest.raises(Invalid, match="overlapping"):
        pools(("10.1.0.0/16", "10.1.2.0/24"), (), (), ())
    with pytest.raises(Invalid, match="invalid subnet"):
        pools(("10.1",), (), (), ())


def test_flags_are_usage_errors() -> None:
    import click

    for kind, word in ((DURATION, "x"), (BYTES, "x")):
        with pytest.raises(click.UsageError):
            kind.convert(word, None, None)
    assert GoCommand("x").params == []
