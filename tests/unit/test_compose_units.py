"""Durations, sizes and numbers, in and out."""

from __future__ import annotations

import pytest

from compose.short import ShortSyntaxError, parse_device, parse_host, parse_port, parse_volume, shell_words
from compose.units import format_duration, number_text, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0", "0s"),
        ("1h30m", "1h30m0s"),
        ("90s", "1m30s"),
        ("1.5s", "1.5s"),
        ("500ms", "500ms"),
        ("10us", "10µs"),
        ("1d", "24h0m0s"),
        ("2w", "336h0m0s"),
        ("1h0m61s500ms", "1h1m1.5s"),
        ("-5s", "-5s"),
        (".5s", "500ms"),
    ],
)
def test_durations(text: str, printed: str) -> None:
    span = parse_duration(text)
    assert span is not None
    assert format_duration(span) == printed
    assert parse_duration(printed) == span


@pytest.mark.parametrize("text", ["", "10", "abc", "1x", "1 s", "s", "1h-5m", "9" * 40 + "h"])
def test_not_durations(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2gib", 2 << 30),
        ("10b", 10),
        ("300 kb", 300 << 10),
        ("-1", -1),
        ("1tb", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "1x", "1.2.3m", "-5m", "one"])
def test_not_sizes(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (1.5, "1.5"),
        (0.1, "0.1"),
        (1e5, "100000"),
        (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (-2.5, "-2.5"),
        (0.0, "0"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_as_go_prints_them(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a b  c", ["a", "b", "c"]),
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("a\\ b", ["a b"]),
        ("--x='y z'", ["--x=y z"]),
        ("a ''", ["a", ""]),
        ('a \'\\n\' "\\""', ["a", "\\n", '"']),
        ("a $(b c) d", ["a", "$(b c)", "d"]),
        ("a `b c`", ["a", "`b c`"]),
    ],
)
def test_shell_words(line: str, words: list[str]) -> None:
    assert shell_words(line) == (words, "")


@pytest.mark.parametrize(
    ("line", "words", "cut"),
    [
        ("a && b", ["a"], "&"),
        ("a;b", ["a"], ";"),
        ("a | b", ["a"], "|"),
        ("a >b", ["a"], ">"),
        ("a 2>b", ["a"], ">"),
        ("'a;b' c", ["a;b", "c"], ""),
    ],
)
def test_shell_operators_end_the_line(line: str, words: list[str], cut: str) -> None:
    assert shell_words(line) == (words, cut)


@pytest.mark.parametrize("line", ["'a", '"a', "a\\", "a (b)", "`a", "$(a"])
def test_open_quotes(line: str) -> None:
    with pytest.raises(ShortSyntaxError):
        shell_words(line)


def _port(
    target: int, published: str | None = None, host: str = "", protocol: str = "tcp"
) -> dict[str, object]:
    port: dict[str, object] = {"mode": "ingress", "protocol": protocol, "target": target}
    if host:
        port["host_ip"] = host
    if published is not None:
        port["published"] = published
    return port


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [_port(80)]),
        ("80-81", [_port(80), _port(81)]),
        ("8080:80", [_port(80, "8080")]),
        ("8080-8081:80-81", [_port(80, "8080"), _port(81, "8081")]),
        ("8000-9000:80", [_port(80, "8000-9000")]),
        ("127.0.0.1:8080:80/udp", [_port(80, "8080", "127.0.0.1", "udp")]),
        ("[::1]:8080:80", [_port(80, "8080", "::1")]),
        ("127.0.0.1::80", [_port(80, None, "127.0.0.1")]),
    ],
)
def test_ports(text: str, ports: list[dict[str, object]]) -> None:
    assert parse_port(text) == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "80:",
        "0",
        "70000",
        "80:70000",
        "81-80",
        "80:80/x",
        "80-82:80-81",
        "x:80:80",
        "::1:80:80",
        "80/",
    ],
)
def test_not_ports(text: str) -> None:
    with pytest.raises(ShortSyntaxError):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a", {"type": "volume", "target": "/a", "volume": {}}),
        ("vol:/a", {"type": "volume", "source": "vol", "target": "/a", "volume": {}}),
        (
            "./x:/a/:ro,z",
            {
                "type": "bind",
                "source": "./x",
                "target": "/a",
                "read_only": True,
                "bind": {"selinux": "z", "create_host_path": True},
            },
        ),
        (
            "C:\\x:/a",
            {"type": "bind", "source": "C:\\x", "target": "/a", "bind": {"create_host_path": True}},
        ),
        ("vol:/a:nocopy", {"type": "volume", "source": "vol", "target": "/a", "volume": {"nocopy": True}}),
    ],
)
def test_volumes(text: str, mount: dict[str, object]) -> None:
    assert parse_volume(text) == mount


@pytest.mark.parametrize("text", ["", "vol::/a", "vol:/a:ro:rw", ":/a", "vol:"])
def test_not_volumes(text: str) -> None:
    with pytest.raises(ShortSyntaxError):
        parse_volume(text)


def test_devices_and_hosts() -> None:
    assert parse_device("/dev/a") == {"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}
    assert parse_device("/dev/a:/dev/b:r") == {"source": "/dev/a", "target": "/dev/b", "permissions": "r"}
    assert parse_host("a:::1") == ("a", ["::1"])
    assert parse_host("a=[::1]") == ("a", ["::1"])
    assert parse_host("a=::1,1.1.1.1") == ("a", ["::1", "1.1.1.1"])
    for text in ("a:b:c:d", "/dev/a:/dev/b:x", ":x"):
        with pytest.raises(ShortSyntaxError):
            parse_device(text)
    for text in ("a", "a=", "=1.1.1.1", ""):
        with pytest.raises(ShortSyntaxError):
            parse_host(text)
