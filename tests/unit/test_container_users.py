"""Users and groups by a container's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.runtime.users import User, read_inside, resolve
from pyswarm.errors import Invalid

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:\n77:x:5:6::/:\nbroken\n"
GROUP = "root:x:0:\nwheel:x:10:app,root\nextra:x:20:app\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("root", User(0, 0, (10,))),
        ("app", User(1000, 1001, (10, 20))),
        ("1000", User(1000, 1001, (10, 20))),
        ("app:wheel", User(1000, 10)),
        ("1000:20", User(1000, 20)),
        ("4242", User(4242, 0)),
        ("4242:99", User(4242, 99)),
        ("77", User(5, 6)),
        ("app:", User(1000, 1001, (10, 20))),
    ],
)
def test_resolve(text: str, user: User) -> None:
    assert resolve(text, PASSWD, GROUP) == user


@pytest.mark.parametrize("text", ["nobody", "app:none", ":"])
def test_unknown_names(text: str) -> None:
    with pytest.raises(Invalid, match="user"):
        resolve(text, PASSWD, GROUP)


def test_reading_stays_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (root / "inside").write_text("fine")
    (root / "etc/up").symlink_to("../../outside")
    (root / "etc/absolute").symlink_to(tmp_path / "outside")
    (root / "etc/own").symlink_to("/inside")
    assert read_inside(str(root), "etc/own") == "fine"
    assert read_inside(str(root), "etc/up") == ""
    assert read_inside(str(root), "etc/absolute") == ""
    assert read_inside(str(root), "etc/none") == ""
    assert read_inside(str(tmp_path / "none"), "etc/passwd") == ""
