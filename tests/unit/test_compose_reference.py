"""The tables agree with each other: attributes, models, support, documentation."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from compose import model
from compose.reference import attributes, written
from compose.schema import CONFIG, NETWORK, SECRET, SERVICE, VOLUME
from compose.shapes import Obj
from compose.support import SUPPORT

DOCUMENT = Path(__file__).parents[2] / "docs" / "compose.md"


def test_the_documentation_holds_the_table() -> None:
    text = DOCUMENT.read_text()
    assert written(text) == text, "run `python -m compose.reference docs/compose.md`"


def test_support_names_attributes() -> None:
    known = {path for path, _ in attributes()}
    assert set(SUPPORT) <= known


def _fields(kind: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def test_models_hold_what_the_shapes_allow() -> None:
    pairs: list[tuple[Obj, type[BaseModel], set[str]]] = [
        (SERVICE, model.Service, {"extends"}),
        (NETWORK, model.Network, set()),
        (VOLUME, model.Volume, set()),
        (SECRET, model.FileObject, set()),
    ]
    for shape, kind, gone in pairs:
        assert set(shape.fields) - gone == _fields(kind), kind
    assert set(CONFIG.fields) <= _fields(model.FileObject)
