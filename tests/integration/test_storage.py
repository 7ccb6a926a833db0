"""Layers, volumes, binds, tmpfs, secrets and configs, mounted by the real kernel."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent import mounts
from node_agent.ports import BindMount, ImageConfig
from node_agent.storage import Storage
from node_agent.volumes import LocalVolume, VolumeStore, copy_tree
from pyswarm import tmpfs
from pyswarm.errors import Conflict, Fatal, Invalid, NotFound
from pyswarm.objects import Config, Node, NodeDescription, Secret, Task, Volume
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    Driver,
    FileReference,
    Mount,
    SecretSpec,
    TaskSpec,
    VolumeSpec,
)
from tests.integration.image_lab import *  # noqa: F403  fixtures
from tests.integration.image_lab import Lab

pytestmark = pytest.mark.root

IMAGE = ImageConfig(id="i", digest="sha256:i")
NODE = Node(id="node1", description=NodeDescription(hostname="host1"))


@pytest.fixture
def lower(lab: Lab) -> Path:
    """An image's root: /data with files of all kinds, passwd, a link that tries to lead out."""
    root = lab.directory / "lower"
    (root / "data" / "sub").mkdir(parents=True)
    (root / "data" / "file").write_text("content")
    os.link(root / "data" / "file", root / "data" / "hard")
    (root / "data" / "soft").symlink_to("file")
    os.mkfifo(root / "data" / "pipe")
    (root / "data" / "sub" / "suid").write_text("x")
    os.chown(root / "data" / "sub" / "suid", 7, 8)
    (root / "data" / "sub" / "suid").chmod(0o4755)
    os.setxattr(root / "data" / "file", "user.note", b"kept")
    os.chown(root / "data", 1000, 1001)
    (root / "data").chmod(0o750)
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app\nmore:x:3000:\n")
    (root / "out").symlink_to("/etc")
    root.chmod(0o755)
    return root


@pytest.fixture
def storage(lab: Lab) -> Storage:
    return Storage(lab.paths, NODE)


def task(task_id: str = "t1", **container: Any) -> Task:
    return Task(
        id=task_id, service_name="shop_web", slot=3, spec=TaskSpec(container=ContainerSpec(**container))
    )


def names(directory: str) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


async def prepare(
    storage: Storage,
    lower: Path,
    wanted: Task,
    image: ImageConfig = IMAGE,
    secrets: tuple[Secret, ...] = (),
    configs: tuple[Config, ...] = (),
    volumes: tuple[Volume, ...] = (),
) -> tuple[Path, dict[str, BindMount]]:
    root, made = await storage.prepare(
        wanted,
        image,
        lower,
        {secret.id: secret for secret in secrets},
        {config.id: config for config in configs},
        {volume.id: volume for volume in volumes},
    )
    return root, {mount.target: mount for mount in made}


async def test_the_writable_layer_lies_over_the_image(lab: Lab, storage: Storage, lower: Path) -> None:
    root, made = await prepare(storage, lower, task())
    assert made == {}
    (root / "new").write_text("mine")
    (root / "data" / "file").write_text("changed")
    assert (lower / "data" / "file").read_text() == "content"
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    again, _ = await prepare(Storage(lab.paths, NODE), lower, task())
    assert (again / "new").read_text() == "mine", "a successor finds the layer as it is"
    assert await storage.known() == ["t1"]
    await storage.release("t1", keep_layer=True)
    assert not mounts.is_mount(root)
    root, _ = await prepare(storage, lower, task())
    assert (root / "new").read_text() == "mine"
    await storage.release("t1", keep_layer=False)
    assert not root.exists()
    await storage.forget("t1")
    assert await storage.known() == []


async def test_a_new_volume_gets_the_images_content(lab: Lab, storage: Storage, lower: Path) -> None:
    wanted = task(mounts=(Mount(source="db", target="/data", volume_labels={"a": "b"}),))
    _, made = await prepare(storage, lower, wanted)
    data = Path(made["/data"].source)
    assert data == lab.paths.state / "volumes" / "db" / "_data"
    assert (data.stat().st_uid, data.stat().st_gid, stat.S_IMODE(data.stat().st_mode)) == (1000, 1001, 0o750)
    assert (data / "file").read_text() == "content"
    assert (data / "file").stat().st_ino == (data / "hard").stat().st_ino
    assert (data / "soft").readlink() == Path("file")
    assert stat.S_ISFIFO((data / "pipe").stat().st_mode)
    suid = (data / "sub" / "suid").stat()
    assert (suid.st_uid, suid.st_gid, stat.S_IMODE(suid.st_mode)) == (7, 8, 0o4755)
    assert os.getxattr(data / "file", "user.note") == b"kept"
    assert (data / "file").stat().st_mtime_ns == (lower / "data" / "file").stat().st_mtime_ns

    (data / "file").write_text("mine")
    await prepare(storage, lower, task("t2", mounts=(Mount(source="db", target="/data", read_only=True),)))
    assert (data / "file").read_text() == "mine", "a volume in use is never filled again"
    (use,) = storage.list_volumes()
    assert (use.volume.name, use.tasks, dict(use.volume.labels)) == ("db", ("t1", "t2"), {"a": "b"})
    with pytest.raises(Conflict, match="in use by t1, t2"):
        storage.remove_volume("db")
    for task_id in ("t1", "t2"):
        await storage.release(task_id, keep_layer=False)
    assert storage.volume_size("db") == len("mine") + 1
    assert storage.prune_volumes() == ([], 0), "named volumes are only pruned when all are asked for"
    assert storage.prune_volumes(all_volumes=True)[0] == ["db"]
    with pytest.raises(NotFound):
        storage.inspect_volume("db")


async def test_a_copy_cut_short_is_done_again(lab: Lab, lower: Path) -> None:
    store = VolumeStore(lab.paths.state / "volumes")
    store.create(LocalVolume(name="db"))
    home = lab.paths.state / "volumes" / "db"
    (home / "filling").touch()
    (home / "_data" / "half").write_text("hal")
    _, made = await prepare(
        Storage(lab.paths, NODE), lower, task(mounts=(Mount(source="db", target="/data"),))
    )
    assert names(made["/data"].source) == ["file", "hard", "pipe", "soft", "sub"]
    assert not (home / "filling").exists()
    await Storage(lab.paths, NODE).forget("t1")


async def test_many_tasks_fill_a_volume_once(storage: Storage, lower: Path) -> None:
    wanted = [task(f"t{n}", mounts=(Mount(source="db", target="/data"),)) for n in range(6)]
    await asyncio.gather(*(prepare(storage, lower, each) for each in wanted))
    assert (Path(storage.inspect_volume("db").mountpoint) / "sub" / "suid").exists()
    for each in wanted:
        await storage.forget(each.id)


async def test_nocopy_links_and_missing_targets(storage: Storage, lower: Path) -> None:
    wanted = task(
        mounts=(
            Mount(source="empty", target="/data", volume_no_copy=True),
            Mount(source="links", target="/out"),
            Mount(source="none", target="/not/there"),
        )
    )
    _, made = await prepare(storage, lower, wanted)
    assert names(made["/data"].source) == []
    assert names(made["/not/there"].source) == []
    assert names(made["/out"].source) == ["group", "passwd"], "the image's /etc, not the host's"
    await storage.forget("t1")


async def test_anonymous_volumes_go_with_their_task(lab: Lab, storage: Storage, lower: Path) -> None:
    image = replace(IMAGE, volumes=("/data", "/covered"))
    wanted = task(mounts=(Mount(type="tmpfs", target="/covered"), Mount(target="/anon")))
    _, made = await prepare(storage, lower, wanted, image)
    assert made["/covered"].type == "tmpfs"
    assert (Path(made["/data"].source) / "file").exists()
    assert len(storage.list_volumes()) == 2
    _, again = await prepare(Storage(lab.paths, NODE), lower, wanted, image)
    assert again["/data"].source == made["/data"].source
    await storage.release("t1", keep_layer=True)
    assert len(storage.list_volumes()) == 2
    await storage.forget("t1")
    assert storage.list_volumes() == []


async def test_binds(lab: Lab, storage: Storage, lower: Path) -> None:
    there = lab.directory / "there"
    there.mkdir()
    wanted = task(
        mounts=(
            Mount(type="bind", source=str(there), target="/b/c", read_only=True, bind_propagation="rslave"),
            Mount(type="bind", source=f"{there}/made", target="/a", bind_non_recursive=True),
        )
    )
    root, made = await storage.prepare(wanted, IMAGE, lower, {}, {}, {})
    assert [mount.target for mount in made] == ["/a", "/b/c"], "shallow targets first"
    assert made[0].options == ("bind", "rprivate")
    assert made[1].options == ("rbind", "rslave", "ro")
    assert (there / "made").is_dir()
    await storage.forget("t1")
    assert not root.exists()


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (
            Mount(type="bind", source="/no/such", target="/x", bind_create_host_path=False),
            r'mounts\[0\]: invalid mount config for type "bind": bind source path does not exist: /no/such',
        ),
        (Mount(type="bind", source="relative", target="/x"), r"mounts\[0\]: bind source must be an absolute"),
        (Mount(type="bind", source="/tmp/../etc", target="/x"), "without `..`"),
        (Mount(type="bind", source="/tmp", target="/x", bind_propagation="odd"), "propagation"),
        (Mount(source="../../etc", target="/x"), r"mounts\[0\]: volume name '../../etc' is invalid"),
        (Mount(source="v", target="x"), "must be an absolute path"),
        (Mount(source="v", target="/a/../../x"), "`..` is not allowed"),
        (Mount(source="v", target="/"), "destination can't be '/'"),
        (Mount(source="v", target="/x", volume_driver=Driver(name="netapp")), "netapp"),
        (Mount(source="v", target="/x", volume_driver=Driver(name="local", options={"a": "b"})), "'a'"),
        (Mount(type="cluster", source="v", target="/x"), "'cluster' is not supported"),
        (Mount(source="v", target="/x", volume_subpath="nope"), "subpath 'nope': No such file"),
        (
            Mount(
                source="v",
                target="/x",
                volume_driver=Driver(name="local", options={"type": "nosuchfs", "device": "/dev/null"}),
            ),
            r"mounts\[0\]: volume v: cannot mount /dev/null \(type nosuchfs",
        ),
    ],
)
async def test_bad_mounts_are_named(storage: Storage, lower: Path, mount: Mount, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        await prepare(storage, lower, task(mounts=(mount,)))
    await storage.forget("t1")


async def test_a_target_twice(storage: Storage, lower: Path) -> None:
    wanted = task(mounts=(Mount(source="a", target="/x"), Mount(type="tmpfs", target="/x/")))
    with pytest.raises(Invalid, match="duplicate mount point: /x"):
        await prepare(storage, lower, wanted)
    await storage.forget("t1")


async def test_a_subpath_cannot_be_led_out_of_its_volume(lab: Lab, storage: Storage, lower: Path) -> None:
    data = Path(storage.create_volume(LocalVolume(name="v")).mountpoint)
    (data / "in").mkdir()
    (data / "in" / "here").touch()
    (data / "link").symlink_to("/etc")
    (data / "up").symlink_to("../../../..")
    (data / "file").write_text("one")
    wanted = task(
        mounts=(
            Mount(source="v", target="/a", volume_subpath="in"),
            Mount(source="v", target="/b", volume_subpath="file"),
            Mount(source="v", target="/c", volume_subpath="up"),
        )
    )
    _, made = await prepare(storage, lower, wanted)
    _, made = await prepare(Storage(lab.paths, NODE), lower, wanted)
    assert names(made["/a"].source) == ["here"]
    assert Path(made["/b"].source).read_text() == "one"
    assert len(mounts.mounts_below(Path(made["/b"].source))) == 1, "a successor does not mount it again"
    assert names(made["/c"].source) == ["file", "in", "link", "up"], "the volume itself"
    await storage.release("t1", keep_layer=False)
    assert (data / "in" / "here").exists()
    with pytest.raises(Invalid, match="subpath 'link'"):
        await prepare(storage, lower, task(mounts=(Mount(source="v", target="/a", volume_subpath="link"),)))
    await storage.forget("t1")


async def test_volumes_from_elsewhere(lab: Lab, storage: Storage, lower: Path) -> None:
    there = lab.directory / "there"
    there.mkdir()
    spec = VolumeSpec(
        name="bound",
        driver=Driver(name="local", options={"type": "none", "o": "bind,ro", "device": str(there)}),
    )
    ram = Driver(name="local", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"})
    first = task(
        mounts=(Mount(source="bound", target="/a"), Mount(source="ram", target="/b", volume_driver=ram))
    )
    _, made = await prepare(storage, lower, first, volumes=(Volume(id="x", spec=spec),))
    assert mounts.is_mount(made["/b"].source)
    assert os.statvfs(made["/b"].source).f_blocks * os.statvfs(made["/b"].source).f_frsize == 1 << 20
    assert Path(made["/b"].source).stat().st_uid == 1000
    with pytest.raises(OSError, match="Read-only"):
        (Path(made["/a"].source) / "x").touch()
    (Path(made["/b"].source) / "kept").touch()
    await prepare(storage, lower, task("t2", mounts=(Mount(source="ram", target="/b"),)))
    await storage.forget("t1")
    assert (Path(made["/b"].source) / "kept").exists(), "another task still uses it"
    assert not mounts.mounts_below(Path(made["/a"].source))
    await storage.forget("t2")
    assert not mounts.mounts_below(lab.paths.state)


async def test_tmpfs_options(storage: Storage, lower: Path) -> None:
    wanted = task(mounts=(Mount(type="tmpfs", target="/x", tmpfs_size=4096, tmpfs_mode=0o700),))
    _, made = await prepare(storage, lower, wanted)
    assert made["/x"].options == ("nosuid", "nodev", "noexec", "mode=700", "size=4096")
    await storage.forget("t1")


# ---------------------------------------------------------------------------------- secrets and configs


def secret(name: str, data: bytes = b"geheim", **spec: Any) -> Secret:
    return Secret(id=f"id-{name}", spec=SecretSpec(name=name, data=data, **spec))


def config(name: str, data: bytes = b"setting", **spec: Any) -> Config:
    return Config(id=f"id-{name}", spec=ConfigSpec(name=name, data=data, **spec))


def reference(name: str, **fields: Any) -> FileReference:
    return FileReference(source_id=f"id-{name}", source_name=name, **fields)


async def test_secrets_and_configs_are_files_on_tmpfs(lab: Lab, storage: Storage, lower: Path) -> None:
    wanted = task(
        secrets=(
            reference("pw"),
            reference("key", target="deep/key.pem", uid="1000", gid="1001", mode=0o400),
            reference("abs", target="/etc/app/abs"),
        ),
        configs=(reference("conf"), reference("ini", target="/etc/app.ini", mode=0o640)),
    )
    _, made = await prepare(
        storage,
        lower,
        wanted,
        secrets=(secret("pw"), secret("key"), secret("abs")),
        configs=(config("conf"), config("ini")),
    )
    assert sorted(made) == ["/conf", "/etc/app.ini", "/etc/app/abs", "/run/secrets"]
    shared = Path(made["/run/secrets"].source)
    assert (shared / "pw").read_bytes() == b"geheim"
    assert stat.S_IMODE((shared / "pw").stat().st_mode) == 0o444
    key = (shared / "deep" / "key.pem").stat()
    assert (key.st_uid, key.st_gid, stat.S_IMODE(key.st_mode)) == (1000, 1001, 0o400)
    assert all("ro" in mount.options for mount in made.values())
    for mount in made.values():
        assert mounts.filesystem_type(Path(mount.source)) == mounts.TMPFS_MAGIC
    for path in lab.paths.state.rglob("*"):
        assert not path.is_file() or b"geheim" not in path.read_bytes()
    held = os.open(shared, os.O_DIRECTORY)
    await prepare(storage, lower, wanted, secrets=(secret("pw", b"neu"), secret("key"), secret("abs")),
                  configs=(config("conf"), config("ini")))  # fmt: skip
    assert (Path(f"/proc/self/fd/{held}") / "pw").read_bytes() == b"neu", "seen where it is mounted"
    os.close(held)
    await storage.release("t1", keep_layer=False)
    assert not shared.exists()
    await storage.forget("t1")


async def test_templates(storage: Storage, lower: Path) -> None:
    text = b'{{.Service.Name}} {{.Task.Slot}} {{.Node.Hostname}} {{env "A"}} {{secret "pw"}} {{config "c"}}'
    wanted = task(
        env=("A=1",), secrets=(reference("pw"),), configs=(reference("t"), reference("c"), reference("raw"))
    )
    golang = Driver(name="golang")
    _, made = await prepare(
        storage,
        lower,
        wanted,
        secrets=(secret("pw"),),
        configs=(config("t", text, templating=golang), config("c"), config("raw", text)),
    )
    assert Path(made["/t"].source).read_text() == "shop_web 3 host1 1 geheim setting"
    assert Path(made["/raw"].source).read_bytes() == text
    with pytest.raises(Invalid, match=r"config t: .*Nope"):
        await prepare(
            storage,
            lower,
            task("t2", configs=(reference("t"),)),
            configs=(config("t", b"{{.Nope}}", templating=golang),),
        )
    for task_id in ("t1", "t2"):
        await storage.forget(task_id)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"target": "../../etc/shadow"}, r"secrets\[0\]: invalid target"),
        ({"target": "/a/../../b"}, r"secrets\[0\]: invalid target"),
        ({"uid": "app"}, "uid and gid must be numbers"),
        ({"source_id": "other"}, "secret pw is not on this node"),
    ],
)
async def test_bad_files_are_named(
    storage: Storage, lower: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        await prepare(
            storage, lower, task(secrets=(replace(reference("pw"), **fields),)), secrets=(secret("pw"),)
        )
    await storage.forget("t1")


async def test_no_secret_without_a_tmpfs(lab: Lab, lower: Path) -> None:
    paths = replace(lab.paths, run=lab.directory / "disk")
    paths.run.mkdir(mode=0o700)
    with pytest.raises(Fatal, match="not a tmpfs"):
        await prepare(Storage(paths, NODE), lower, task())


def test_the_tmpfs_is_ours_alone(lab: Lab) -> None:
    run = lab.directory / "own"
    tmpfs.ensure(run)
    (run / "kept").touch()
    tmpfs.ensure(run)
    assert (run / "kept").exists()
    assert mounts.filesystem_type(run) == mounts.TMPFS_MAGIC
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    run.chmod(0o755)
    with pytest.raises(Fatal, match="open to others"):
        mounts.verify_tmpfs(run)
    tmpfs.remove(run)
    assert not run.exists()


# ---------------------------------------------------------------------------------- users


@pytest.mark.parametrize(
    ("spec", "image_user", "expected"),
    [
        ({}, "", ((0, 0, ()), "/root")),
        ({}, "app", ((1000, 1001, (2000,)), "/home/app")),
        ({"user": "1000"}, "root", ((1000, 1001, (2000,)), "/home/app")),
        ({"user": "app:extra"}, "", ((1000, 2000, ()), "/home/app")),
        ({"user": "4711"}, "", ((4711, 0, ()), "/")),
        ({"user": "4711:12"}, "", ((4711, 12, ()), "/")),
        ({"user": "app", "group_add": ("more", "99")}, "", ((1000, 1001, (2000, 3000, 99)), "/home/app")),
        ({"user": "app", "groups": ("3000",)}, "", ((1000, 1001, (2000, 3000)), "/home/app")),
    ],
)
async def test_users(
    storage: Storage, lower: Path, spec: dict[str, Any], image_user: str, expected: object
) -> None:
    assert await storage.resolve_user(task(**spec), replace(IMAGE, user=image_user), lower) == expected


async def test_unknown_users_and_links_out_of_the_image(storage: Storage, lower: Path) -> None:
    with pytest.raises(Invalid, match="'nobody'"):
        await storage.resolve_user(task(user="nobody"), IMAGE, lower)
    with pytest.raises(Invalid, match="'nogroup'"):
        await storage.resolve_user(task(user="app:nogroup"), IMAGE, lower)
    (lower / "etc" / "passwd").unlink()
    (lower / "etc" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(Invalid, match="'daemon'"):
        await storage.resolve_user(task(user="daemon"), IMAGE, lower)


def test_volume_records(lab: Lab) -> None:
    store = VolumeStore(lab.paths.state / "volumes")
    store.create(LocalVolume(name="v", labels={"a": "b"}))
    assert store.create(LocalVolume(name="v")).labels == {"a": "b"}
    record = lab.paths.state / "volumes" / "v" / "volume.json"
    assert json.loads(record.read_text())["name"] == "v"
    record.write_text("{")
    with pytest.raises(Fatal, match="damaged"):
        store.get("v")


def test_copy_tree_of_a_socket_and_devices(lab: Lab) -> None:
    source, target = lab.directory / "s", lab.directory / "t"
    source.mkdir()
    target.mkdir()
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (source / "broken").symlink_to("/nowhere")
    copy_tree(source, target)
    assert (target / "null").stat().st_rdev == os.makedev(1, 3)
    assert (target / "broken").readlink() == Path("/nowhere")
