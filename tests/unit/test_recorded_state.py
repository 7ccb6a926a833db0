"""State that each released version has stored can be read by this one, whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from manager import backup
from manager.schema import refuse_newer
from pyswarm.errors import Fatal, Invalid
from pyswarm.objects import SCHEMA_VERSION, Cluster, kind_of
from pyswarm.wire import decode, encode
from tests.fixtures.record_state import summary

RECORDED = sorted((Path(__file__).parent.parent / "fixtures").glob("state-*.backup"))


def test_there_is_recorded_state() -> None:
    assert RECORDED


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_all_of_it_is_read(path: Path) -> None:
    objects = backup.load(path).objects
    assert summary(objects) == json.loads(path.with_suffix(".json").read_text())
    refuse_newer(objects)
    for obj in objects:
        assert decode(kind_of(obj), encode(obj)) == replace(obj, meta=replace(obj.meta, version=0))


def test_a_newer_schema_is_refused() -> None:
    newer = Cluster(id="c", schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(Fatal, match="install the version here that the other managers run"):
        refuse_newer([newer])
    packed = backup.pack(backup.Backup(created_at=0.0, revision=1, objects=(newer,)))
    with pytest.raises(Invalid, match=f"schema {SCHEMA_VERSION + 1}"):
        backup.unpack(packed)


def test_state_that_names_no_schema_is_of_the_first() -> None:
    assert Cluster(id="c").schema_version == 1, "absent in stored state: this default must never change"
