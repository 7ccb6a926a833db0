"""The short syntaxes: ports, volumes, devices, hosts, commands. Text in, the long form out."""

from __future__ import annotations

import ipaddress
import posixpath
import re

from compose.errors import Report
from compose.shapes import shown, wrong_type, wrong_value
from compose.tree import Node, written
from compose.units import parse_integer

MAX_PORTS = 16_384
PROTOCOLS = ("tcp", "udp", "sctp")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z")
_DRIVE = re.compile(r"[A-Za-z]:/")
_PROPAGATIONS = frozenset(("rprivate", "private", "rshared", "shared", "rslave", "slave"))
_OPERATORS = frozenset(";&|<>")


class ShortSyntaxError(Exception):
    """Text that does not follow a short syntax; `str()` says what is wrong."""


# ---------------------------------------------------------------------------------------------- ports


def port_range(text: str) -> tuple[int, int]:
    """First and last port of `80` or `80-89`. Raises ShortSyntaxError."""
    match = _RANGE.match(text)
    if match is None:
        raise ShortSyntaxError(f'"{shown(text)}" is not a port or a range of ports')
    first = int(match.group(1))
    last = int(match.group(2) or first)
    if first > 65535 or last > 65535:
        raise ShortSyntaxError(f'"{shown(text)}" is above 65535, the highest port')
    if last < first:
        raise ShortSyntaxError(f'"{shown(text)}" runs backwards')
    return first, last


def parse_port(text: str) -> list[dict[str, str | int]]:
    """The ports that `[[ip:]published:]target[/protocol]` stands for. Raises ShortSyntaxError."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise ShortSyntaxError(f'protocol "{shown(protocol)}" is not one of {", ".join(PROTOCOLS)}')
    front, _, target = rest.rpartition(":")
    host_ip, _, published = front.rpartition(":")
    if not target:
        raise ShortSyntaxError(f'"{shown(text)}" names no container port')
    first, last = port_range(target)
    if not first:
        raise ShortSyntaxError("container port 0 cannot be published")
    if last - first >= MAX_PORTS:
        raise ShortSyntaxError(f"more than {MAX_PORTS} ports of one service")
    common: dict[str, str | int] = {"mode": "ingress", "protocol": protocol}
    if host_ip:
        common["host_ip"] = _host_ip(host_ip)
    if not published:
        return [{**common, "target": port} for port in range(first, last + 1)]
    low, high = port_range(published)
    if high - low == last - first:
        return [
            {**common, "target": first + step, "published": str(low + step)}
            for step in range(last - first + 1)
        ]
    if first == last:
        return [{**common, "target": first, "published": published}]
    raise ShortSyntaxError(f"the ranges {published} and {target} differ in length")


def _host_ip(text: str) -> str:
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in text and address is text:
        raise ShortSyntaxError(f'"{shown(text)}" is not an address: write IPv6 addresses in brackets')
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise ShortSyntaxError(f'"{shown(text)}" is not an IP address') from None
    return address


# -------------------------------------------------------------------------------------------- volumes


def is_path(source: str) -> bool:
    """Whether a volume's source is a path of the host, not a volume's name."""
    if source[:1] in (".", "/", "~") or source.startswith("\\\\"):
        return True
    return len(source) > 1 and source[0].isalpha() and source[1] == ":"


def _split_volume(text: str) -> list[str]:
    """The sections between colons; a single letter before a colon is a Windows drive."""
    sections: list[str] = []
    current = ""
    for char in text:
        if char == ":" and not (len(current) == 1 and current.isalpha()):
            sections.append(current)
            current = ""
        else:
            current += char
    return [*sections, current]


def parse_volume(text: str) -> dict[str, object]:
    """`[source:]target[:options]` as a mount. Raises ShortSyntaxError."""
    if not text:
        raise ShortSyntaxError("is empty")
    if len(text) <= 2:
        return {"type": "volume", "target": text, "volume": {}}
    sections = _split_volume(text)
    if any(not section for section in sections):
        raise ShortSyntaxError(f'"{shown(text)}" has an empty section between colons')
    if len(sections) > 3:
        raise ShortSyntaxError(f'"{shown(text)}" has too many colons')
    source, target = ("", sections[0]) if len(sections) == 1 else (sections[0], sections[1])
    mount: dict[str, object] = {"type": "bind" if is_path(source) else "volume"}
    if source:
        mount["source"] = source
    mount["target"] = posixpath.normpath(target) if target.startswith("/") else target
    if target.startswith("//"):
        mount["target"] = posixpath.normpath("/" + target.lstrip("/"))
    _volume_options(mount, sections[2].split(",") if len(sections) == 3 else [])
    return mount


def _volume_options(mount: dict[str, object], options: list[str]) -> None:
    bind: dict[str, object] = {}
    volume: dict[str, object] = {}
    for option in options:
        if option == "ro":
            mount["read_only"] = True
        elif option == "rw":
            mount.pop("read_only", None)
        elif option == "nocopy":
            volume["nocopy"] = True
        elif option in _PROPAGATIONS:
            bind["propagation"] = option
        elif option in ("z", "Z"):
            bind["selinux"] = option
    if mount["type"] == "bind":
        bind["create_host_path"] = True
    if bind:
        mount["bind"] = bind
    if volume or mount["type"] == "volume":
        mount["volume"] = volume


def unknown_volume_options(text: str) -> list[str]:
    """The options of a short volume that Compose ignores without a word."""
    sections = _split_volume(text)
    if len(sections) != 3:
        return []
    known = {"ro", "rw", "nocopy", "z", "Z", *_PROPAGATIONS}
    return [option for option in sections[2].split(",") if option not in known]


# ---------------------------------------------------------------------------------- devices, hosts


def parse_device(text: str) -> dict[str, str]:
    """`source[:target[:permissions]]`, or a CDI name. Raises ShortSyntaxError."""
    parts = text.split(":")
    if len(parts) > 3:
        raise ShortSyntaxError(f'"{shown(text)}" has too many colons')
    source = parts[0]
    target = parts[1] if len(parts) > 1 else source
    permissions = parts[2] if len(parts) > 2 else "rwm"
    if not source:
        raise ShortSyntaxError(f'"{shown(text)}" names no device')
    if not permissions or any(char not in "rwm" for char in permissions):
        raise ShortSyntaxError(f'permissions "{shown(permissions)}" are not made of r, w and m')
    return {"source": source, "target": target, "permissions": permissions}


def parse_host(text: str) -> tuple[str, list[str]]:
    """Name and addresses of `name:address` or `name=address,address`. Raises ShortSyntaxError."""
    name, equals, address = text.partition("=")
    if not equals:
        name, colon, address = text.partition(":")
        if not colon:
            raise ShortSyntaxError(f'"{shown(text)}" is not name=address')
    addresses = address.split(",")
    if not name or not all(addresses):
        raise ShortSyntaxError(f'"{shown(text)}" is not name=address')
    return name, [bare_address(each) for each in addresses]


def bare_address(address: str) -> str:
    """An address without the brackets of IPv6."""
    if address.startswith("[") and address.endswith("]"):
        return address[1:-1]
    return address


# ------------------------------------------------------------------------------------------- commands


def shell_words(text: str) -> tuple[list[str], str]:
    """A command line as arguments, and the shell operator that cut it short ("" if none).

    Compose runs no shell: quotes and backslashes count, and the line ends at the first `;`, `&`, `|`,
    `<` or `>` outside quotes. Raises ShortSyntaxError for open quotes and parentheses.
    """
    return _Words(text).split()


class _Words:
    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = []
        self._word = ""
        self._started = False
        self._quote = ""

    def split(self) -> tuple[list[str], str]:
        escaped = False
        for char in self._text:
            if escaped:
                self._take(char)
                escaped = False
            elif char == "\\" and self._quote != "'":
                escaped = True
            elif char in " \t\r\n" and not self._quote:
                self._end_word()
            elif not self._quote and char in _OPERATORS:
                if char == ">" and self._word[:1].isdigit():
                    self._started = False
                self._end_word()
                return self._words, char
            else:
                self._char(char)
        if escaped or self._quote:
            raise ShortSyntaxError(f'"{shown(self._text)}" has a quote that is not closed')
        self._end_word()
        return self._words, ""

    def _char(self, char: str) -> None:
        quote = self._quote
        if char in "'\"" and quote in ("", char):
            self._started = self._started or bool(quote)
            self._quote = "" if quote else char
            return
        if char == "`" and quote in ("", "`"):
            self._quote = "" if quote else "`"
        elif char == "(" and quote in ("", ")"):
            if quote or not self._word.endswith("$"):
                raise ShortSyntaxError(f'"{shown(self._text)}" has a parenthesis outside quotes')
            self._quote = ")"
        elif char == ")" and quote in ("", ")"):
            self._quote = "" if quote else ")"
        self._take(char)

    def _take(self, char: str) -> None:
        self._word += char
        self._started = True

    def _end_word(self) -> None:
        if self._started:
            self._words.append(self._word)
        self._word = ""
        self._started = False


# -------------------------------------------------------------------------------------- as shapes


def lift(value: object, at: Node) -> Node:
    """Plain values as nodes that all stand where `at` stands."""
    if isinstance(value, dict):
        items: dict[str, object] = value  # pyright: ignore[reportUnknownVariableType]  # keys are strings here
        return Node({key: lift(child, at) for key, child in items.items()}, at.pos, None, "", at.via)
    if isinstance(value, list):
        children: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        return Node([lift(child, at) for child in children], at.pos, None, "", at.via)
    assert value is None or isinstance(value, (str, int, float, bool))
    return Node(value, at.pos, None, "", at.via)


def read_volume(node: Node, text: str, path: str, report: Report) -> Node:
    try:
        mount = parse_volume(text)
    except ShortSyntaxError as error:
        return wrong_value(str(error), node, path, report)
    if _DRIVE.match(text):
        report.warn(
            f'"{text[:2]}" is taken for a Windows drive, as docker compose does: names of volumes have two '
            "characters or more",
            path,
            node.pos,
        )
    for option in unknown_volume_options(text):
        report.warn(f'volume option "{shown(option)}" is not known and ignored', path, node.pos)
    return lift(mount, node)


def read_device(node: Node, text: str, path: str, report: Report) -> Node:
    try:
        return lift(parse_device(text), node)
    except ShortSyntaxError as error:
        return wrong_value(str(error), node, path, report)


def read_command(node: Node, path: str, report: Report) -> Node:
    """A command: null, a line that is split as a shell would, or a list."""
    value = node.value
    if value is None:
        return node
    if isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item.value, str):
                hint = ""
                if isinstance(item.value, (bool, int, float)):
                    hint = f': write "{written(item)}" in quotes'
                wrong_type("a string", item, f"{path}[{index}]", report, hint)
        return node
    if not isinstance(value, str):
        return wrong_type("a string or a list", node, path, report)
    try:
        words, cut = shell_words(value)
    except ShortSyntaxError as error:
        return wrong_value(str(error), node, path, report)
    if cut:
        report.warn(
            f'the command ends before "{cut}": no shell reads it; write ["sh", "-c", "..."] for one',
            path,
            node.pos,
        )
    return lift(list(words), node)


def read_test(node: Node, path: str, report: Report) -> Node:
    """A health check's test: a line for the shell, or a list that starts with CMD, CMD-SHELL or NONE."""
    value = node.value
    if isinstance(value, str):
        return Node(
            [Node("CMD-SHELL", node.pos, None, "", node.via), Node(value, node.pos, None, "", node.via)],
            node.pos,
        )
    if not isinstance(value, list):
        return wrong_type("a string or a list", node, path, report)
    for index, item in enumerate(value):
        if not isinstance(item.value, str):
            return wrong_type("a string", item, f"{path}[{index}]", report)
    if value and value[0].value not in ("NONE", "CMD", "CMD-SHELL"):
        message = f'starts with "{shown(value[0].value)}": the first item must be CMD, CMD-SHELL or NONE'
        return wrong_value(message, value[0], f"{path}[0]", report)
    return node


def read_extra_hosts(node: Node, path: str, report: Report) -> Node:
    """Hosts as a list of `name=address`."""
    value = node.value
    if isinstance(value, dict):
        hosts: list[Node] = []
        for name, child in value.items():
            addresses = child.value if isinstance(child.value, list) else [child]
            for address in addresses:
                if not isinstance(address.value, str):
                    wrong_type("an address", address, f"{path}.{name}", report)
                    continue
                hosts.append(address.replaced(f"{name}={bare_address(address.value)}"))
        return node.replaced(hosts)
    if not isinstance(value, list):
        return wrong_type("a mapping or a list of name=address", node, path, report)
    items: list[Node] = []
    for index, item in enumerate(value):
        if not isinstance(item.value, str):
            wrong_type("a string", item, f"{path}[{index}]", report)
            continue
        try:
            name, addresses = parse_host(item.value)
        except ShortSyntaxError as error:
            wrong_value(str(error), item, f"{path}[{index}]", report)
            if report.templates:
                items.append(item)
            continue
        items += [item.replaced(f"{name}={address}") for address in addresses]
    return Node(items, node.pos, None, node.tag)


def read_published(node: Node, path: str, report: Report) -> Node:
    """A published port or range, as a string."""
    value = node.value
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return wrong_type("a port or a range of ports", node, path, report)
    text = str(value)
    if text:
        try:
            port_range(text)
        except ShortSyntaxError as error:
            return wrong_value(str(error), node, path, report)
    return node.replaced(text)


def read_target_port(node: Node, path: str, report: Report) -> Node:
    value = node.value
    number = parse_integer(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        return wrong_type("a port number", node, path, report)
    if not 0 < number <= 65535:
        return wrong_value(f"{number} is not a port number (1 to 65535)", node, path, report)
    return node.replaced(number)


def read_mode(node: Node, path: str, report: Report) -> Node:
    """Permission bits: `0440`, "0440"; canonical is the octal string that Compose prints."""
    value = node.value
    if isinstance(value, str):
        text = value.removeprefix("0o")
        if not re.fullmatch(r"[0-7]{1,5}", text):
            return wrong_value(f'"{shown(value)}" is not a file mode such as 0440', node, path, report)
        number = int(text, 8)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        return wrong_type("a file mode such as 0440", node, path, report)
    if not 0 <= number <= 0o7777:
        return wrong_value(f"{shown(value)} is not a file mode such as 0440", node, path, report)
    return node.replaced(f"{number:04o}")
