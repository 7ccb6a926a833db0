"""Keeps the protobuf contract in step with the dataclasses, and compiles it.

    python proto/generate.py           write proto/pyswarm/v1/*.proto, compile every .proto
    python proto/generate.py --check   exit 1 if anything would change

A field keeps its number for ever: numbers are read back from the file that is there, a new field takes the
next free one, and a removed field's number and name are reserved. Rules of the mapping are in pyswarm/wire.py.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from pyswarm import api, objects, specs, wire  # noqa: E402

FILES = {"objects": (specs, objects), "api": (api,)}
HEADER = """// {title}
// Kept in step with {modules} by proto/generate.py, which never changes a number.
syntax = "proto3";

package pyswarm.v1;
"""
TITLES = {
    "objects": "Specs and objects: what users want and what the cluster knows, on the wire and in the store.",
    "api": "Messages and services between command line, managers and agents.",
}


def classes(modules: tuple[object, ...]) -> list[type]:
    """The dataclasses and enums of the modules, in the order they are written."""
    found: list[type] = []
    for module in modules:
        members = inspect.getmembers(module, inspect.isclass)
        mine = [c for _, c in members if c.__module__ == module.__name__]  # type: ignore[attr-defined]
        mine = [c for c in mine if dataclasses.is_dataclass(c) or issubclass(c, enum.IntEnum)]
        mine = [c for c in mine if c is not api.Method]
        tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
        lines = {node.name: node.lineno for node in tree.body if isinstance(node, ast.ClassDef)}
        found.extend(sorted(mine, key=lambda c: lines[c.__name__]))
    return found


def known_numbers(text: str) -> dict[str, dict[str, int]]:
    """message -> field -> number, with reserved ones under their old names, from an existing file."""
    numbers: dict[str, dict[str, int]] = {}
    for match in re.finditer(r"^message (\w+) \{\n(.*?)^\}", text, re.S | re.M):
        fields = numbers.setdefault(match[1], {})
        for line in match[2].splitlines():
            if found := re.match(r"\s+(?:optional |repeated )?[\w<>, ]+ (\w+) = (\d+);", line):
                fields[found[1]] = int(found[2])
            elif found := re.match(r"\s+reserved (\d+); // (\w+)", line):
                fields[found[2]] = int(found[1])
    return numbers


def render_enum(cls: type[enum.IntEnum]) -> str:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()
    rows = "".join(f"  {prefix}_{member.name} = {member.value};\n" for member in cls)
    return f"enum {cls.__name__} {{\n{rows}}}\n"


def render_message(cls: type, old: dict[str, int]) -> str:
    rows: list[str] = []
    last = max(old.values(), default=0)
    current = wire.fields_of(cls)
    for field in current:
        if field.name not in old:
            last += 1
        number = old.get(field.name, last)
        rows.append(f"  {field.proto} {field.name} = {number};\n")
    names = {field.name for field in current}
    for name, number in old.items():
        if name not in names:
            rows.append(f"  reserved {number}; // {name}\n")
    doc = (cls.__doc__ or "").strip().splitlines()
    comment = "" if not doc or doc[0].startswith(cls.__name__ + "(") else f"// {doc[0]}\n"
    return f"{comment}message {cls.__name__} {{\n{''.join(rows)}}}\n"


def render_services() -> str:
    out: list[str] = []
    for service in dict.fromkeys(method.service for method in api.METHODS):
        rows: list[str] = []
        for m in api.METHODS:
            if m.service == service:
                request = ("stream " if m.client_stream else "") + m.request.__name__
                response = ("stream " if m.server_stream else "") + m.response.__name__
                rows.append(f"  rpc {m.name}({request}) returns ({response});\n")
        out.append(f"service {service} {{\n{''.join(rows)}}}\n")
    return "\n".join(out)


def render(name: str, existing: str) -> str:
    modules = FILES[name]
    numbers = known_numbers(existing)
    parts = [HEADER.format(title=TITLES[name], modules=" and ".join(m.__name__ for m in modules))]
    if name == "api":
        parts.append('import "pyswarm/v1/objects.proto";\n')
    for cls in classes(modules):
        if issubclass(cls, enum.IntEnum):
            parts.append(render_enum(cls))
        else:
            parts.append(render_message(cls, numbers.get(cls.__name__, {})))
    for wrapper, proto in wire.wrappers(name).items():
        parts.append(
            f"// A list that can be absent.\nmessage {wrapper} {{\n  repeated {proto} values = 1;\n}}\n"
        )
    if name == "api":
        parts.append(render_services())
    return "\n".join(parts)


def compile_protos(source: Path, out: Path) -> None:
    files = sorted(str(p.relative_to(source)) for p in (source / "pyswarm").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{source}", f"--python_out={out}"]
    subprocess.run([*command, f"--pyi_out={out}", *files], check=True)
    etcd = [
        *command[:3],
        f"-Imanager/store/etcd_pb={HERE / 'etcd'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
    ]
    subprocess.run([*etcd, "manager/store/etcd_pb/rpc.proto"], check=True)
    (out / "pyswarm/v1/__init__.py").write_text('"""Compiled from proto/ by proto/generate.py."""\n')


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "proto", Path(scratch) / "out"
        (source / "pyswarm/v1").mkdir(parents=True)
        out.mkdir()
        results: dict[Path, str] = {}
        for name in FILES:
            target = HERE / f"pyswarm/v1/{name}.proto"
            text = render(name, target.read_text() if target.exists() else "")
            (source / f"pyswarm/v1/{name}.proto").write_text(text)
            results[target] = text
        compile_protos(source, out)
        for produced in sorted(out.rglob("*.py*")):
            results[ROOT / produced.relative_to(out)] = produced.read_text()
        for target, text in results.items():
            if target.exists() and target.read_text() == text:
                continue
            stale.append(str(target.relative_to(ROOT)))
            if not check:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
    if check and stale:
        sys.stderr.write("out of date, run `make proto`: " + ", ".join(stale) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
