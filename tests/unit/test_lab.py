"""A lab's plan: names, addresses, what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm.errors import Invalid, NotFound, PyswarmError
from pyswarm.lab import Lab

LAB = Lab(name="lab", directory=Path("/nowhere/lab"), subnet="198.18.97.0/24", managers=2, workers=3)


def test_machines() -> None:
    assert [(m.name, m.role, m.address) for m in LAB.machines] == [
        ("m1", "manager", "198.18.97.1"),
        ("m2", "manager", "198.18.97.2"),
        ("w1", "worker", "198.18.97.3"),
        ("w2", "worker", "198.18.97.4"),
        ("w3", "worker", "198.18.97.5"),
    ]
    assert LAB.gateway == "198.18.97.254"
    first = LAB.machines[0]
    assert (first.link, first.cgroup) == ("lab-m1", "/lab-m1")
    assert first.environment["PYSWARM_STATE_DIR"] == "/nowhere/lab/m1/state"
    assert first.argv(["ip", "link"]) == [
        "nsenter",
        "--net=/nowhere/lab/m1/net",
        "--uts=/nowhere/lab/m1/uts",
        "--",
        "ip",
        "link",
    ]


def test_links_fit_the_kernels_names() -> None:
    widest = Lab(name="abcdefg", directory=Path("/x"), subnet="198.18.0.0/16", managers=99, workers=1)
    assert max(len(machine.link) for machine in widest.machines) <= 15


@pytest.mark.parametrize("which", ["w2", "4", "198.18.97.4"])
def test_a_machine_by_name_number_or_address(which: str) -> None:
    assert LAB.machine(which).name == "w2"


def test_an_unknown_machine_names_those_there_are() -> None:
    with pytest.raises(NotFound, match="no such machine: w9: the lab has m1, m2, w1, w2, w3"):
        LAB.machine("w9")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "Lab"}, "lab name"),
        ({"name": "eightlet"}, "lab name"),
        ({"managers": 0}, "at least one manager"),
        ({"workers": 100}, "too many"),
        ({"subnet": "198.18.0.1/24"}, "host bits"),
        ({"subnet": "198.18.0.0/30"}, "no room"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, object], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(Invalid, match=complaint):
        Lab.up(**{"directory": tmp_path / "lab", **options})  # type: ignore[arg-type]  # a table of keyword arguments
    assert not (tmp_path / "lab").exists()


def test_no_lab_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PyswarmError, match="no such lab: lab: make one with `pyswarm lab up`"):
        Lab.load("lab", tmp_path)
