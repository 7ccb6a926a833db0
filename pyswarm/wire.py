"""protobuf to objects and back: one generic codec, driven by the dataclasses' own type hints.

The mapping, which `proto/generate.py` writes down as .proto files:

- str, Literal -> string; bytes; bool; int -> int64; float -> double; IntEnum -> an enum of the same numbers;
- tuple[T, ...] -> repeated T; Mapping[str, str] -> map<string, string>; a dataclass -> a message;
- a scalar that may be None, or whose default is not protobuf's zero, is `optional`: absent means the
  dataclass's default, so a field added later reads from old state as its default;
- tuple[T, ...] | None -> a message `<T>List`, since protobuf cannot tell an absent list from an empty one.

Only what differs from the default is written. Unknown fields and enum numbers from a newer version are
ignored (an unknown number of a state ladder is read as the next lower state that is known).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from pyswarm.objects import KINDS, Assignments, Kind, Object

T = TypeVar("T")

# `Any` here: the codec is generic over every message class and field type by design.

_SCALARS: Mapping[type, tuple[str, Any]] = {
    str: ("string", ""),
    bytes: ("bytes", b""),
    bool: ("bool", False),
    int: ("int64", 0),
    float: ("double", 0.0),
}
_MISSING = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class Field:
    """How one dataclass field travels."""

    name: str
    shape: Literal["scalar", "enum", "message", "list", "map", "optional_list"]
    item: Any
    """The scalar, enum or dataclass type (of the elements, for lists)."""
    proto: str
    """Type as written in the .proto file, with `optional` or `repeated`."""
    wrapper: str = ""


def _strip_optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (typing.Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(rest) != 1:
            raise TypeError(f"only `X | None` can travel, not {hint}")
        return rest[0], True
    return hint, False


def _scalar_of(hint: Any) -> Any:
    return str if get_origin(hint) is Literal else hint


def _proto_name(item: Any) -> str:
    return _SCALARS[item][0] if item in _SCALARS else item.__name__


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not _MISSING:
        return field.default
    if field.default_factory is not _MISSING:
        return field.default_factory()
    return _MISSING


def _describe(field: dataclasses.Field[Any], hint: Any) -> Field:
    inner, nullable = _strip_optional(hint)
    origin = get_origin(inner)
    if origin is tuple:
        item = _scalar_of(get_args(inner)[0])
        name = _proto_name(item)
        if nullable:
            wrapper = ("String" if item is str else item.__name__) + "List"
            return Field(field.name, "optional_list", item, wrapper, wrapper)
        return Field(field.name, "list", item, f"repeated {name}")
    if origin is not None and origin is not Literal:
        return Field(field.name, "map", str, "map<string, string>")
    item = _scalar_of(inner)
    if dataclasses.is_dataclass(item):
        return Field(field.name, "message", item, cast("type", item).__name__)
    zero = 0 if issubclass(item, IntEnum) else _SCALARS[item][1]
    default = _default(field)
    optional = "optional " if nullable or default not in (zero, _MISSING) else ""
    shape: Literal["enum", "scalar"] = "enum" if issubclass(item, IntEnum) else "scalar"
    return Field(field.name, shape, item, optional + _proto_name(item))


@cache
def fields_of(cls: type) -> tuple[Field, ...]:
    """How each field of a dataclass travels, in the order of the class."""
    hints = typing.get_type_hints(cls)
    return tuple(_describe(field, hints[field.name]) for field in dataclasses.fields(cls))


def wrappers(file: str) -> dict[str, str]:
    """The list wrappers that a .proto file needs: name -> element type."""
    return {"StringList": "string", "IngressPortList": "IngressPort"} if file == "objects" else {}


# ---------------------------------------------------------------------------------------------- codec

_Filler = Callable[[Any, Any], None]
_Reader = Callable[[Any], Any]


@cache
def _message_class(cls: type) -> Any:
    from pyswarm.v1 import api_pb2, objects_pb2

    return getattr(objects_pb2, cls.__name__, None) or getattr(api_pb2, cls.__name__)


def _fill_scalar(name: str) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        if value is not None:
            setattr(message, name, value)

    return fill


def _fill_message(name: str, cls: type) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        if value is not None:
            target = getattr(message, name)
            target.SetInParent()
            _filler(cls)(target, value)

    return fill


def _fill_list(name: str, item: Any) -> Callable[[Any, Any], None]:
    def fill_scalars(message: Any, value: Any) -> None:
        getattr(message, name).extend(value)

    def fill_messages(message: Any, value: Any) -> None:
        target, fill_item = getattr(message, name), _filler(item)
        for element in value:
            fill_item(target.add(), element)

    return fill_messages if dataclasses.is_dataclass(item) else fill_scalars


def _fill_wrapped(name: str, item: Any) -> Callable[[Any, Any], None]:
    fill_values = _fill_list("values", item)

    def fill(message: Any, value: Any) -> None:
        if value is not None:
            target = getattr(message, name)
            target.SetInParent()
            fill_values(target, value)

    return fill


def _fill_map(name: str) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        getattr(message, name).update(value)

    return fill


def _field_filler(field: Field) -> Callable[[Any, Any], None]:
    match field.shape:
        case "message":
            return _fill_message(field.name, field.item)
        case "list":
            return _fill_list(field.name, field.item)
        case "map":
            return _fill_map(field.name)
        case "optional_list":
            return _fill_wrapped(field.name, field.item)
        case _:
            return _fill_scalar(field.name)


@cache
def _filler(cls: type) -> _Filler:
    """A function that writes a `cls` into a message of its kind, leaving out what equals the default."""
    defaults = {f.name: _default(f) for f in dataclasses.fields(cls)}
    steps = tuple((f.name, defaults[f.name], _field_filler(f)) for f in fields_of(cls))

    def fill(message: Any, obj: Any) -> None:
        for name, default, write in steps:
            value = getattr(obj, name)
            if value is not default and value != default:
                write(message, value)

    return fill


def _read_enum(cls: type[IntEnum]) -> _Reader:
    known = {int(member): member for member in cls}
    ladder = sorted(known)

    def read(number: Any) -> Any:
        member = known.get(number)
        if member is not None:
            return member
        lower = [n for n in ladder if n <= number]
        return known[lower[-1] if lower else ladder[0]]

    return read


def _field_reader(field: Field) -> _Reader | None:
    """None where the value can be used as it comes."""
    if field.shape == "map":
        return dict
    if field.shape == "enum":
        return _read_enum(field.item)
    nested = dataclasses.is_dataclass(field.item)
    if field.shape == "message":
        return lambda value: _reader(field.item)(value)
    if field.shape == "list":
        return (lambda value: tuple(map(_reader(field.item), value))) if nested else tuple
    if field.shape == "optional_list":
        return (
            (lambda value: tuple(map(_reader(field.item), value.values)))
            if nested
            else lambda v: tuple(v.values)
        )
    return None


@cache
def _reader(cls: type) -> _Reader:
    readers = {f.name: _field_reader(f) for f in fields_of(cls)}
    required = {
        field.name: _zero(field)
        for field, its in zip(fields_of(cls), dataclasses.fields(cls), strict=True)
        if _default(its) is _MISSING
    }

    def read(message: Any) -> Any:
        values: dict[str, Any] = {}
        for descriptor, value in message.ListFields():
            name = descriptor.name
            convert = readers.get(name, _UNKNOWN)
            if convert is not _UNKNOWN:
                values[name] = convert(value) if convert is not None else value
        for name, zero in required.items():
            if name not in values:
                values[name] = zero()
        return cls(**values)

    return read


_UNKNOWN: Any = object()


def _zero(field: Field) -> Callable[[], Any]:
    """What a field without a default is read as when it is absent: protobuf's zero of its type."""
    match field.shape:
        case "message":
            return lambda: _reader(field.item)(_message_class(field.item)())
        case "list":
            return tuple
        case "map":
            return dict
        case "optional_list":
            return lambda: None
        case "enum":
            return lambda: _read_enum(field.item)(0)
        case "scalar":
            return lambda: _SCALARS[field.item][1]


class _Shared:
    """The serialised form of large values that many messages hold as the same object: each is encoded once.

    Keeps a few of them, with the objects themselves, so that an id stays theirs.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[int, tuple[object, bytes]] = {}

    def encoded(self, obj: object) -> bytes:
        known = self._known.pop(id(obj), None)
        if known is None:
            known = (obj, _plain_bytes(obj))
            if len(self._known) >= self._size:
                del self._known[next(iter(self._known))]
        self._known[id(obj)] = known
        return known[1]


_shared = _Shared(32)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SHARED_FIELDS = ("networks", "network_changes", "ingress_changes")
"""Fields of `Assignments` whose elements are the same objects for many nodes."""


@cache
def _tag(field: str) -> bytes:
    """What stands before each element of a field of `Assignments`: field number and wire type 2."""
    number = _message_class(Assignments).DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | 2)


def _assignments_bytes(obj: Assignments) -> bytes:
    """What many nodes are told may be large, and is encoded once: protobuf lets the elements of a repeated
    field be appended."""
    parts = [_plain_bytes(dataclasses.replace(obj, networks=(), network_changes=(), ingress_changes=()))]
    for field in _SHARED_FIELDS:
        for shared in getattr(obj, field):
            data = _shared.encoded(shared)
            parts += [_tag(field), _varint(len(data)), data]
    return b"".join(parts)


def to_bytes(obj: Any) -> bytes:
    """Serialise any of the contract's dataclasses."""
    if type(obj) is Assignments and any(getattr(obj, field) for field in _SHARED_FIELDS):
        return _assignments_bytes(obj)
    return _plain_bytes(obj)


def _plain_bytes(obj: Any) -> bytes:
    message = _message_class(type(obj))()
    _filler(type(obj))(message, obj)
    return message.SerializeToString()


def from_bytes(cls: type[T], data: bytes) -> T:
    """The inverse of `to_bytes`. Raises protobuf's DecodeError on bytes that are no such message."""
    message = _message_class(cls)()
    message.ParseFromString(data)
    return _reader(cls)(message)


def encode(obj: Object) -> bytes:
    """An object as it is stored: without `meta.version`, which the store knows better."""
    if obj.meta.version:
        obj = dataclasses.replace(obj, meta=dataclasses.replace(obj.meta, version=0))
    return to_bytes(obj)


def decode(kind: Kind, data: bytes, version: int = 0) -> Object:
    """A stored object, with the store's revision of it as `meta.version`."""
    obj = from_bytes(KINDS[kind], data)
    return with_version(obj, version)


def with_version(obj: Object, version: int) -> Object:
    """The same object, written at revision `version`."""
    if obj.meta.version == version:
        return obj
    return dataclasses.replace(obj, meta=dataclasses.replace(obj.meta, version=version))
