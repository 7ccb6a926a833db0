"""Fixtures for tests with real images: scratch paths on a tmpfs of ours, a store, a registry of our own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent import mounts
from node_agent.images.buildah import BuildRequest, Images
from node_agent.ports import Paths
from pyswarm import tmpfs

BUSYBOX = Path("/bin/busybox")

DOCKERFILE = """\
FROM scratch
ARG GREETING=hello
COPY busybox /bin/busybox
COPY busybox /bin/sh
RUN /bin/busybox --install -s /bin && mkdir -p /data/sub /etc /tmp && echo "$GREETING" > /data/greeting \\
    && ln /data/greeting /data/hard && ln -s greeting /data/soft && chmod 4711 /data/sub \\
    && chown -R 1000:1001 /data && chmod 1777 /tmp \\
    && printf 'root:x:0:0:root:/root:/bin/sh\\napp:x:1000:1001:app:/home/app:/bin/sh\\n' > /etc/passwd \\
    && printf 'root:x:0:\\napp:x:1001:\\nextra:x:2000:app\\n' > /etc/group
VOLUME /data
ENV PATH=/bin
EXPOSE 80/tcp
STOPSIGNAL SIGINT
LABEL made.by=test
HEALTHCHECK --interval=3s --retries=2 CMD true
CMD ["/bin/sleep", "1000"]
"""


@dataclass(frozen=True)
class Lab:
    """Scratch directories of one test module."""

    directory: Path
    paths: Paths

    @property
    def context(self) -> Path:
        return self.directory / "context"


@pytest.fixture
def lab() -> Generator[Lab]:
    """Empty paths; afterwards nothing of ours is mounted and the directory is gone."""
    directory = Path(tempfile.mkdtemp(prefix="psimg-", dir="/var/tmp"))
    lab = Lab(directory, Paths(state=directory / "state", run=directory / "run"))
    tmpfs.ensure(lab.paths.run)
    lab.context.mkdir()
    if not BUSYBOX.exists():
        pytest.fail("busybox is not installed: apt-get install busybox-static")
    shutil.copy(BUSYBOX, lab.context / "busybox")
    (lab.context / "Dockerfile").write_text(DOCKERFILE)
    yield lab
    left = [target for target in mounts.mounts_below(directory) if target != str(lab.paths.run)]
    tmpfs.remove(lab.paths.run)
    mounts.unmount_below(directory)
    shutil.rmtree(directory)
    assert not left, f"still mounted: {left}"


@pytest.fixture
async def images(lab: Lab) -> AsyncGenerator[Images]:
    """A store; unmounted and removed afterwards."""
    images = Images(lab.paths)
    yield images
    await images.stop(remove=True)


async def built(lab: Lab, images: Images, tag: str = "demo:1") -> str:
    """Build the test image; returns its id."""
    return await images.build(BuildRequest(context=str(lab.context), tags=(tag,)), lambda line: None)


@dataclass(frozen=True)
class LocalRegistry:
    address: str
    """host:port on the loopback interface."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def registry(tmp_path: Path) -> Generator[LocalRegistry]:
    """A registry that takes everything from everybody."""
    yield from _serve(tmp_path, "")


PASSWORD_FILE = "alice:$2b$04$MbVXoHjWd/o/JQq7tuUwIeR49yLnsvAaeRYBrD6TqMWmyf4TwIhIK\n"
"""bcrypt of `wonderland`."""


def _serve(directory: Path, auth: str) -> Generator[LocalRegistry]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is not installed: apt-get install docker-registry")
    port = _free_port()
    config = directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory}/registry\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield LocalRegistry(f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    pytest.fail("the registry does not answer")


@pytest.fixture
def locked_registry(tmp_path: Path) -> Generator[LocalRegistry]:
    """A registry that wants a login: alice, whose password is wonderland."""
    (tmp_path / "users").write_text(PASSWORD_FILE)
    yield from _serve(tmp_path, f"auth:\n  htpasswd:\n    realm: test\n    path: {tmp_path}/users\n")
