"""buildah for real: build, mount, pull, push, log in, remove, prune, in a store of our own."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from node_agent import mounts
from node_agent.images import auth
from node_agent.images.auth import Credentials, encode_header
from node_agent.images.buildah import BuildRequest, BuildSecret, Images
from pyswarm import tmpfs
from pyswarm.clock import SystemClock
from pyswarm.errors import Conflict, Invalid, MissingProgram, NotFound, PermissionDenied, Unavailable
from tests.integration.image_lab import *  # noqa: F403  fixtures
from tests.integration.image_lab import Lab, LocalRegistry, built

pytestmark = pytest.mark.root


async def test_build_ensure_mount(lab: Lab, images: Images) -> None:
    lines: list[str] = []
    request = BuildRequest(
        context=str(lab.context), tags=("demo:1", "demo:latest"), args={"GREETING": "moin"}, labels={"a": "b"}
    )
    image_id = await images.build(request, lines.append)
    assert any(line.startswith("STEP 1/") for line in lines)
    config = await images.ensure("demo:1", "", "")
    assert config.id == image_id
    assert config.cmd == ("/bin/sleep", "1000")
    assert config.volumes == ("/data",)
    assert config.exposed_ports == ("80/tcp",)
    assert config.stop_signal == "SIGINT"
    assert config.labels["made.by"] == "test"
    assert config.labels["a"] == "b"
    assert config.healthcheck is not None
    assert (config.healthcheck.test, config.healthcheck.interval) == (("CMD-SHELL", "true"), 3.0)
    assert config.digest.startswith("sha256:")
    assert (await images.ensure(f"demo@{config.digest}", "", "")).id == image_id
    assert (await images.ensure(f"demo:1@{config.digest}", "always", "")).id == image_id
    assert (await images.ensure(image_id[:12], "never", "")).id == image_id

    root, again = await asyncio.gather(images.mount(config), images.mount(config))
    assert root == again
    assert (root / "data" / "greeting").read_text() == "moin\n"
    with pytest.raises(OSError, match="Read-only"):
        (root / "new").touch()

    successor = Images(lab.paths)
    assert await successor.mount(await successor.ensure("demo:1", "never", "")) == root
    await successor.release((config.id,))
    assert mounts.is_mount(root)
    await successor.release(())
    assert not mounts.is_mount(root)
    assert mounts.is_mount(await images.mount(config)), "noticed that another process let it go"


async def test_an_ensure_with_nothing_to_do_is_cheap(lab: Lab, images: Images) -> None:
    await built(lab, images)
    await images.ensure("demo:1", "", "")
    start = time.perf_counter()
    for _ in range(100):
        await images.ensure("demo:1", "", "")
    assert time.perf_counter() - start < 2.0, "a hundred runs of buildah would take five seconds"


async def test_a_rebuilt_tag_is_noticed(lab: Lab, images: Images) -> None:
    first = await built(lab, images)
    assert (await images.ensure("demo:1", "", "")).id == first
    (lab.context / "Dockerfile").write_text("FROM scratch\nCOPY busybox /b\n")
    second = await built(lab, Images(lab.paths))
    assert second != first
    assert (await images.ensure("demo:1", "", "")).id == second


async def test_a_failed_build_names_its_step(lab: Lab, images: Images) -> None:
    request = BuildRequest(
        context=str(lab.context), dockerfile_inline="FROM scratch\nCOPY busybox /bin/sh\nRUN exit 7\n"
    )
    lines: list[str] = []
    with pytest.raises(Invalid, match=r'building at STEP "RUN exit 7".*exit status 7'):
        await images.build(request, lines.append)
    assert any("RUN exit 7" in line for line in lines)
    with pytest.raises(Invalid, match=r"build\.network"):
        await images.build(BuildRequest(context=str(lab.context), network="bridge"), lines.append)


async def test_build_options(lab: Lab, images: Images) -> None:
    other = lab.directory / "other"
    other.mkdir()
    (other / "file").write_text("from elsewhere")
    secret_file = lab.directory / "secret"
    secret_file.write_text("from a file")
    inline = """\
FROM scratch AS base
COPY busybox /bin/sh
COPY busybox /bin/busybox
RUN /bin/busybox --install -s /bin
ENV PATH=/bin
FROM base AS wanted
COPY --from=more file /file
RUN --mount=type=secret,id=one --mount=type=secret,id=two cat /run/secrets/one /run/secrets/two > /secrets
RUN grep -q "10.9.8.7.*far" /etc/hosts
FROM base AS unwanted
RUN exit 1
"""
    request = BuildRequest(
        context=str(lab.context),
        dockerfile_inline=inline,
        tags=("options:1",),
        target="wanted",
        additional_contexts={"more": str(other)},
        secrets=(
            BuildSecret(id="one", source=str(secret_file)),
            BuildSecret(id="two", value=b" and a value"),
        ),
        extra_hosts=("far=10.9.8.7",),
        platforms=("linux/amd64",) if os.uname().machine == "x86_64" else ("linux/arm64",),
        no_cache=True,
        ulimits=("nofile=100:200",),
    )
    lines: list[str] = []
    try:
        await images.build(request, lines.append)
    except Invalid as error:
        pytest.fail(f"{error}\n" + "\n".join(lines))
    root = await images.mount(await images.ensure("options:1", "never", ""))
    assert (root / "file").read_text() == "from elsewhere"
    assert (root / "secrets").read_text() == "from a file and a value"
    assert list((lab.paths.run / "auth").iterdir()) == [], "secret values of a build are gone"
    with pytest.raises(Invalid, match="no file"):
        await images.build(
            BuildRequest(context=".", secrets=(BuildSecret(id="x", source="/nope"),)), lines.append
        )


async def test_a_build_with_its_own_network_and_shm(lab: Lab, images: Images) -> None:
    inline = (
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n"
        "RUN test $(/bin/busybox wc -l < /proc/net/dev) = 3 && /bin/busybox df -k /dev/shm "
        "| /bin/busybox grep -q ' 2048 '\n"
    )
    request = BuildRequest(
        context=str(lab.context), dockerfile_inline=inline, network="none", shm_size=2 << 20, no_cache=True
    )
    assert await images.build(request, lambda line: None)


async def test_push_and_pull(lab: Lab, images: Images, registry: LocalRegistry) -> None:
    await built(lab, images)
    name = f"{registry.address}/team/demo:1"
    await images.tag("demo:1", name)
    digest = await images.push(name)
    assert await images.resolve(name) == digest
    assert await images.resolve(f"{name}@{digest}") == digest
    assert await images.resolve("demo:1") == (await images.ensure("demo:1", "", "")).digest

    fresh_paths = type(lab.paths)(state=lab.directory / "state2", run=lab.paths.run / "second")
    other = Images(fresh_paths)
    try:
        pulls = await asyncio.gather(*(other.ensure(f"{name}@{digest}", "", "") for _ in range(4)))
        assert len({pulled.id for pulled in pulls}) == 1
        assert (await other.ensure(name, "always", "")).id == pulls[0].id
        lines: list[str] = []
        summary = await other.pull(name, progress=lines.append)
        assert summary.names == (name,)
        assert lines
        assert (await other.ensure(name, "daily", "")).id == pulls[0].id
        assert (await other.ensure(name, "every_12h", "")).id == pulls[0].id
        with pytest.raises(Invalid, match="unknown pull policy"):
            await other.ensure(name, "sometimes", "")
    finally:
        await other.stop(remove=True)


async def test_what_cannot_be_pulled_is_said_in_the_registrys_words(
    images: Images, registry: LocalRegistry
) -> None:
    with pytest.raises(Invalid, match="manifest unknown"):
        await images.ensure(f"{registry.address}/team/none:1", "", "")
    with pytest.raises(NotFound, match="manifest unknown"):
        await images.resolve(f"{registry.address}/team/none:1")
    with pytest.raises(Unavailable, match="cannot reach registry"):
        await images.resolve("127.0.0.1:1/team/none:1")
    with pytest.raises(Invalid, match="pull_policy is never"):
        await images.ensure("nothing-here", "never", "")
    with pytest.raises(Invalid, match="is built, not pulled"):
        await images.ensure("nothing-here", "build", "")
    with pytest.raises(Invalid, match="invalid reference format"):
        await images.ensure("Not Valid", "", "")


async def test_logins(lab: Lab, images: Images, locked_registry: LocalRegistry) -> None:
    await built(lab, images)
    name = f"{locked_registry.address}/demo:1"
    await images.tag("demo:1", name)
    config = lab.directory / "docker" / "config.json"
    with pytest.raises(PermissionDenied):
        await images.login(locked_registry.address, "alice", "wrong", config)
    assert not config.exists()
    with pytest.raises(Invalid, match=r"unauthorized|authentication required"):
        await images.push(name)
    await images.login(locked_registry.address, "alice", "wonderland", config)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    digest = await images.push(name, docker_config=config)
    header = encode_header(Credentials("alice", "wonderland"))
    assert await images.resolve(name, header) == digest
    with pytest.raises(PermissionDenied):
        await Images(lab.paths).resolve(f"{locked_registry.address}/other:1")
    assert auth.from_docker_config(config, locked_registry.address) == Credentials("alice", "wonderland")
    await images.remove(name)
    assert (await images.ensure(name, "always", header)).digest
    assert list((lab.paths.run / "auth").iterdir()) == [], "no credentials are left"
    assert await images.logout(locked_registry.address, config)
    assert not await images.logout(locked_registry.address, config)


async def test_list_inspect_remove_prune(lab: Lab, images: Images) -> None:
    await built(lab, images)
    await images.tag("demo:1", "demo:2")
    (only,) = [summary for summary in await images.list() if summary.names]
    assert sorted(only.names) == ["demo:1", "demo:2"]
    assert only.size > 1_000_000
    assert only.containers == 0
    inspected = await images.inspect("demo:1")
    assert inspected["Id"] == f"sha256:{only.id}"
    assert inspected["Config"]["Cmd"] == ["/bin/sleep", "1000"]
    with pytest.raises(NotFound, match="no such image: nope"):
        await images.inspect("nope")

    root = await images.mount(await images.ensure("demo:1", "", ""))
    assert await images.remove("demo:2") == ["Untagged: demo:2"]
    with pytest.raises(Conflict, match="uses it"):
        await images.remove("demo:1")
    removed, _ = await images.prune(all_images=True)
    assert only.id not in removed
    assert (root / "bin" / "sh").exists()
    await images.release(())
    removed, freed = await images.prune(all_images=True)
    assert only.id in removed
    assert freed > 1_000_000
    assert await images.list() == []


async def test_images_survive_a_reboot(lab: Lab, images: Images) -> None:
    await built(lab, images)
    config = await images.ensure("demo:1", "", "")
    await images.mount(config)
    mounts.unmount_below(lab.paths.state / "images")
    tmpfs.remove(lab.paths.run)
    tmpfs.ensure(lab.paths.run)
    successor = Images(lab.paths)
    again = await successor.mount(await successor.ensure("demo:1", "never", ""))
    assert (again / "bin" / "sh").exists()
    assert mounts.is_mount(again)


async def test_save_and_load(lab: Lab, images: Images) -> None:
    image_id = await built(lab, images)
    await images.tag("demo:1", "team/other:2")
    file = lab.directory / "demo.tar"
    await images.save(["demo:1", "team/other:2", image_id], file)
    for name in ("demo:1", "team/other:2"):
        await images.remove(name)
    assert await images.load(file) == ["demo:1", "team/other:2", f"sha256:{image_id}"]
    found = await images.inspect(image_id)
    assert sorted(found["RepoTags"]) == ["demo:1", "team/other:2"]
    with pytest.raises(Invalid, match="no archive of images"):
        (lab.directory / "bad.tar").write_bytes(b"nothing")
        await images.load(lab.directory / "bad.tar")


async def test_history(lab: Lab, images: Images) -> None:
    image_id = await built(lab, images)
    steps = await images.history("demo:1")
    assert steps[0]["Id"] == f"sha256:{image_id}" and steps[0]["Tags"] == ["demo:1"]
    assert any("COPY" in step["CreatedBy"] for step in steps)
    assert sum(step["Size"] for step in steps) == (await images.inspect("demo:1"))["Size"] > 0


async def test_prune_chooses_by_label_and_age(lab: Lab, images: Images) -> None:
    request = BuildRequest(context=str(lab.context), tags=("labelled:1",), labels={"team": "a"})
    image_id = await images.build(request, lambda line: None)
    now = time.time()

    async def pruned(**chosen: Any) -> bool:
        return image_id in (await images.prune(all_images=True, **chosen))[0]

    assert not await pruned(before=now - 3600)
    assert not await pruned(labels=["team=b"])
    assert not await pruned(without=["team"])
    assert await pruned(before=now + 3600, labels=["team=a"], without=["stage"])


def silent(line: str) -> None:
    del line


class Later(SystemClock):
    """The machine's clock, some hours on."""

    hours = 0

    def now(self) -> float:
        return super().now() + 3600 * self.hours


async def test_a_full_disk_loses_what_can_be_pulled_again(
    lab: Lab, images: Images, registry: LocalRegistry
) -> None:
    """Not what is in use or wanted, nor what was built here; and no more than makes room."""
    await built(lab, images)
    names = [f"{registry.address}/x:{number}" for number in range(4)]
    for number, name in enumerate(names):
        await images.build(
            BuildRequest(context=str(lab.context), tags=(name,), labels={"n": str(number)}), silent
        )
        await images.push(name)
        await images.remove(name)
        await images.pull(name)
    clock = Later()
    successor = Images(lab.paths, insecure_registries=("127.0.0.1:*",), clock=clock)
    assert await successor.collect((), lambda: 0.99) == []  # all were pulled a moment ago
    clock.hours = 2
    assert await successor.collect((), lambda: 0.84) == []
    await successor.prune()  # steps of builds
    mounted = await successor.ensure(names[0], "never", "")
    await successor.mount(mounted)
    fills = iter((0.9, 0.9, 0.79))
    gone = await successor.collect([names[1]], lambda: next(fills))
    left = {name for image in await images.list() for name in image.names}
    assert len(gone) == 1 and left == {"demo:1", names[0], names[1], names[3]}


async def test_missing_buildah(lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(lab.directory))
    with pytest.raises(MissingProgram, match="apt-get install buildah"):
        await images.ensure("127.0.0.1:1/x", "", "")


async def test_a_cancelled_build_ends_its_process(lab: Lab, images: Images) -> None:
    started = asyncio.Event()
    request = BuildRequest(
        context=str(lab.context),
        dockerfile_inline="FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n"
        'RUN ["/bin/busybox", "sleep", "30"]\n',
    )
    task = asyncio.create_task(images.build(request, lambda line: started.set() if "sleep" in line else None))
    async with asyncio.timeout(20):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not list(Path(lab.paths.state / "images-tmp").glob("build-*"))
