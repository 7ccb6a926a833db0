"""What a Compose file says of a container is what its process sees, from the file to the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, busybox_context, until

pytestmark = pytest.mark.e2e

STACK = """
services:
  all:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
    hostname: myhost
    domainname: example.test
    user: "12:34"
    group_add: ["29", "99"]
    working_dir: /new/dir
    environment: {A: "1", B: "two words"}
    ulimits: {nofile: {soft: 100, hard: 200}, core: 0}
    sysctls: {net.core.somaxconn: "321"}
    shm_size: 8m
    pids_limit: 50
    read_only: true
    tmpfs: ["/t1:size=1m,mode=1777"]
    init: true
    extra_hosts: ["db:10.1.2.3"]
    dns_search: ["corp.test"]
    dns_opt: ["ndots:3"]
    cap_add: [NET_ADMIN]
    cap_drop: [CHOWN, MKNOD]
    security_opt: ["no-new-privileges:true"]
    devices: ["/dev/full:/dev/myfull:r"]
    oom_score_adj: 123
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M}}}
  privileged:
    image: busybox
    privileged: true
    command: [sleep, "1000"]
    stop_signal: KILL
  plain:
    image: busybox
    security_opt: ["seccomp=unconfined"]
    tty: true
    command: [sleep, "1000"]
    stop_signal: KILL
  image:
    image: fields
    stop_grace_period: 5s
"""
DOCKERFILE = r"""
RUN echo 'root:x:0:0::/root:/bin/sh' >/etc/passwd && echo 'app:x:1234:1235::/home/app:/bin/sh' >>/etc/passwd
RUN printf 'appg:x:1235:\nextra:x:77:app\n' >/etc/group && mkdir /data && echo hi >/data/file
RUN chmod 1777 /tmp
ENV FROM_IMAGE=yes
WORKDIR /work/dir
USER app
VOLUME /data
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=200ms --retries=2 --start-period=5s CMD test -e /tmp/ok
ENTRYPOINT ["sh", "-c"]
CMD ["trap 'echo got USR1; exit 0' USR1; touch /tmp/ok; while :; do sleep 0.1; done"]
"""


@pytest.fixture(scope="module")
def stack(shared: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("fields")
    context = busybox_context(directory)
    with (context / "Dockerfile").open("a") as file:
        file.write(DOCKERFILE)
    shared.build("fields", context)
    (directory / "compose.yml").write_text(STACK)
    shared.cli("stack", "deploy", "-q", "-c", str(directory / "compose.yml"), "--timeout", "60s", "f")
    yield shared
    shared.cli("stack", "rm", "f")


def inside(cluster: Cluster, service: str, script: str) -> str:
    return cluster.cli("exec", f"f_{service}", "sh", "-c", script).strip()


SEEN = {
    "id": "uid=12 gid=34 groups=29,34,99",
    "pwd": "/new/dir",
    "hostname -f": "myhost.example.test",
    'echo "$A $B"': "1 two words",
    "grep 'open files' /proc/1/limits | tr -s ' '": "Max open files 100 200 files",
    "ulimit -c": "0",
    "cat /proc/sys/net/core/somaxconn": "321",
    "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2": "8192",
    "touch /x 2>/dev/null || touch /t1/x && stat -c %a /t1": "1777",
    "grep ' /t1 ' /proc/mounts | grep -o size=1024k": "size=1024k",
    "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f1": "/sbin/docker-init",
    "grep -w db /etc/hosts": "10.1.2.3\tdb",
    "cat /etc/resolv.conf": "nameserver 127.0.0.11\nsearch corp.test\noptions ndots:3",
    "grep -E 'CapBnd|NoNewPrivs' /proc/self/status": "CapBnd:\t00000000a00435fa\nNoNewPrivs:\t1",
    "stat -c '%t:%T' /dev/myfull; cat /proc/1/oom_score_adj": "1:7\n123",
}


def test_what_the_container_sees(stack: Cluster) -> None:
    parts = inside(stack, "all", "; echo @@; ".join(SEEN)).split("@@")
    assert dict(zip(SEEN, map(str.strip, parts), strict=True)) == SEEN


def test_limits_are_the_kernels(stack: Cluster) -> None:
    (task,) = stack.running("f_all")
    groups = Path(f"/proc/{stack.containers()[task.id]}/cgroup").read_text().splitlines()

    def limit(controller: str, file: str) -> str:
        for line in groups:
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{path}/{file}").read_text().strip()
        path = next(line.split("::", 1)[1] for line in groups if line.startswith("0::"))
        modern = {
            "pids.max": "pids.max",
            "memory.limit_in_bytes": "memory.max",
            "cpu.cfs_quota_us": "cpu.max",
        }
        return Path(f"/sys/fs/cgroup{path}/{modern[file]}").read_text().split()[0]

    assert limit("pids", "pids.max") == "50"
    assert limit("memory", "memory.limit_in_bytes") == str(64 << 20)
    assert limit("cpu", "cpu.cfs_quota_us") == "50000"


def test_privileges(stack: Cluster) -> None:
    assert inside(stack, "privileged", "mkdir /m; mount -t tmpfs x /m && echo mounted") == "mounted"
    assert inside(stack, "privileged", "grep Seccomp: /proc/self/status") == "Seccomp:\t0"
    assert inside(stack, "plain", "grep Seccomp: /proc/self/status; readlink /proc/1/fd/1") == (
        "Seccomp:\t0\n/dev/pts/0"
    )


def test_what_the_image_says_counts(stack: Cluster) -> None:
    assert inside(stack, "image", "id; pwd; echo $FROM_IMAGE $HOME; cat /data/file") == (
        "uid=1234(app) gid=1235(appg) groups=77(extra),1235(appg)\n/work/dir\nyes /home/app\nhi"
    )
    shown = stack.cli("ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Command}}")
    assert shown.startswith("f_image.1.") and shown.endswith("\"sh -c 'trap 'echo g…\"\n")
    (old,) = stack.running("f_image")
    stack.cli("service", "update", "--force", "-d", "f_image")
    log = until(lambda: stack.cli("logs", "--raw", old.id), "the container logs its stop signal")
    assert log == "got USR1\n"
