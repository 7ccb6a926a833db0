"""A seed's plan of faults: the same each time, within the run, and with every kind in it before long."""

from __future__ import annotations

from typing import get_args

from tests.chaos.plan import LEADER, Kind, plan

MANAGERS, WORKERS = ("m1", "m2", "m3"), ("w1", "w2")


def test_a_seed_is_a_plan() -> None:
    assert plan(3, 60, MANAGERS, WORKERS, ("m3",)) == plan(3, 60, MANAGERS, WORKERS, ("m3",))
    assert plan(3, 60, MANAGERS, WORKERS, ("m3",)) != plan(4, 60, MANAGERS, WORKERS, ("m3",))


def test_faults_begin_and_end_within_the_run() -> None:
    for seed in range(30):
        faults = plan(seed, 60, MANAGERS, WORKERS, ("m3",))
        assert len(faults) > 8
        assert all(fault.at >= 2 and fault.at + fault.lasts <= 60 for fault in faults)
        assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_every_kind_comes_up_and_hits_what_is_there() -> None:
    faults = plan(1, 3600, MANAGERS, WORKERS, ("m3",))
    assert {fault.kind for fault in faults} == set(get_args(Kind))
    for fault in faults:
        assert fault.machine in (*MANAGERS, *WORKERS, LEADER)
        assert fault.machine not in fault.others
        if fault.part in ("manager", "etcd"):
            assert fault.machine in (*MANAGERS, LEADER)
        assert str(fault).startswith(fault.kind)


def test_without_small_disks_none_is_filled() -> None:
    assert not [f for f in plan(1, 3600, MANAGERS, WORKERS, ()) if f.kind == "full disk"]
