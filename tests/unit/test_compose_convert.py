"""Projects become specs as `docker stack deploy` makes them, and what a cluster adds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compose.convert import StackSpecs, convert_stack
from compose.errors import ComposeErrors
from compose.load import load_project
from manager.orchestrator.cron import parse
from pyswarm.specs import (
    Autoscale,
    CronSchedule,
    Dependency,
    DeviceMapping,
    DeviceRequest,
    Driver,
    FileReference,
    GenericResource,
    Healthcheck,
    Hook,
    IpamPool,
    Mount,
    Platform,
    PortConfig,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    Ulimit,
    UpdateConfig,
)

Convert = Callable[..., StackSpecs]


@pytest.fixture
def stack(tmp_path: Path) -> Convert:
    """Converts a Compose file's text to a stack named shop."""

    def convert(text: str, environ: dict[str, str] | None = None) -> StackSpecs:
        file = tmp_path / "compose.yml"
        file.write_text(text)
        return convert_stack(load_project([file], environ=environ or {}, project_name="p"), "shop")

    return convert


def _only(specs: StackSpecs) -> ServiceSpec:
    (service,) = specs.services
    return service


def test_names_labels_networks(stack: Convert) -> None:
    specs = stack("services: {web: {image: nginx:1, labels: {a: b}, deploy: {labels: {c: d}}}}")
    web = _only(specs)
    assert web.name == "shop_web"
    assert web.labels == {
        "c": "d",
        "com.docker.stack.namespace": "shop",
        "com.docker.stack.image": "nginx:1",
    }
    assert web.task.container.labels == {"a": "b", "com.docker.stack.namespace": "shop"}
    assert [(a.target, a.aliases) for a in web.task.networks] == [("shop_default", ("web",))]
    (network,) = specs.networks
    assert (network.name, network.driver, network.attachable) == (
        "shop_default",
        Driver(name="overlay"),
        False,
    )
    assert web.task.restart == RestartPolicy()
    assert web.mode == ServiceMode(kind="replicated", replicas=1)
    assert web.update is None
    assert web.rollback is None


def test_deploy_is_complete(stack: Convert) -> None:
    specs = stack("""
services:
  a:
    image: x
    deploy:
      mode: replicated
      replicas: 6
      endpoint_mode: dnsrr
      update_config: {parallelism: 0, delay: 10s, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.3, order: start-first}
      rollback_config: {failure_action: continue}
      resources:
        limits: {cpus: '0.5', memory: 50M, pids: 100}
        reservations:
          cpus: '0.25'
          memory: 20M
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
          devices: [{capabilities: [tpu], count: 2, driver: d, options: {k: v}}]
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      placement: {constraints: [node.role==manager], preferences: [{spread: node.labels.az}], max_replicas_per_node: 2}
""")  # noqa: E501
    service = _only(specs)
    assert service.mode == ServiceMode(kind="replicated", replicas=6)
    assert service.endpoint.mode == "dnsrr"
    assert service.update == UpdateConfig(
        parallelism=0,
        delay=10.0,
        failure_action="rollback",
        monitor=60.0,
        max_failure_ratio=0.3,
        order="start-first",
    )
    assert service.rollback == UpdateConfig(failure_action="continue")
    resources = service.task.resources
    assert resources.limits == Resources(nano_cpus=500_000_000, memory=50 << 20, pids=100)
    assert resources.reservations == Resources(
        nano_cpus=250_000_000, memory=20 << 20, generic=(GenericResource(kind="gpu", value=2),)
    )
    assert service.task.container.device_requests == (
        DeviceRequest(driver="d", count=2, capabilities=("tpu",), options={"k": "v"}),
    )
    assert service.task.restart == RestartPolicy(
        condition="on-failure", delay=5.0, max_attempts=3, window=120.0
    )
    placement = service.task.placement
    assert placement.constraints == ("node.role==manager",)
    assert placement.preferences == (SpreadPreference(spread_descriptor="node.labels.az"),)
    assert placement.max_replicas == 2


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        ("", RestartPolicy(condition="any")),
        ('restart: "no"', RestartPolicy(condition="none")),
        ("restart: always", RestartPolicy(condition="any")),
        ("restart: unless-stopped", RestartPolicy(condition="any")),
        ("restart: on-failure", RestartPolicy(condition="on-failure")),
        ("restart: on-failure:4", RestartPolicy(condition="on-failure", max_attempts=4)),
        ("restart: always, deploy: {restart_policy: {condition: none}}", RestartPolicy(condition="none")),
        ("deploy: {restart_policy: {delay: 1s}}", RestartPolicy(condition="any", delay=1.0)),
    ],
)
def test_restart(stack: Convert, said: str, policy: RestartPolicy) -> None:
    assert _only(stack(f"services: {{a: {{image: x, {said}}}}}")).task.restart == policy


@pytest.mark.parametrize(
    ("mode", "expected", "condition"),
    [
        ("global", ServiceMode(kind="global"), "any"),
        ("global-job", ServiceMode(kind="global-job"), "on-failure"),
        (
            "replicated-job, replicas: 3",
            ServiceMode(kind="replicated-job", max_concurrent=3, total_completions=3),
            "on-failure",
        ),
    ],
)
def test_modes(stack: Convert, mode: str, expected: ServiceMode, condition: str) -> None:
    service = _only(stack(f"services: {{a: {{image: x, deploy: {{mode: {mode}}}}}}}"))
    assert service.mode == expected
    assert service.task.restart.condition == condition


def test_what_others_wait_for_runs_once(stack: Convert) -> None:
    specs = stack("""
services:
  api: {image: x, depends_on: {migrate: {condition: service_completed_successfully}, db: {condition: service_healthy, restart: true}, opt: {condition: service_started, required: false}}}
  migrate: {image: x}
  forced: {image: x, restart: always}
  db: {image: x}
  opt: {image: x}
""")  # noqa: E501
    by_name = {service.name: service for service in specs.services}
    assert by_name["shop_migrate"].task.restart.condition == "on-failure"
    assert by_name["shop_db"].task.restart.condition == "any"
    assert by_name["shop_api"].depends_on == (
        Dependency(service="shop_db", condition="service_healthy", restart=True),
        Dependency(service="shop_migrate", condition="service_completed_successfully"),
        Dependency(service="shop_opt", required=False),
    )


def test_container_fields(stack: Convert) -> None:
    service = _only(
        stack("""
services:
  a:
    image: x
    command: [c, d]
    entrypoint: e f
    environment: {B: "2", A: 1, BARE: }
    hostname: h
    domainname: d.example
    working_dir: /w
    user: "1:2"
    group_add: [audio]
    init: true
    tty: true
    stdin_open: true
    read_only: true
    stop_signal: SIGINT
    stop_grace_period: 1m
    extra_hosts: ["h1=1.1.1.1", "h2:::1"]
    dns: 8.8.8.8
    dns_search: [s]
    dns_opt: [o]
    cap_add: [net_admin, ALL]
    cap_drop: [CAP_CHOWN]
    privileged: true
    security_opt: ["no-new-privileges:true", "seccomp=unconfined"]
    devices: ["/dev/a:/dev/b:r"]
    device_cgroup_rules: ["c 1:3 mr"]
    gpus: all
    ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}
    sysctls: {a.b: 1}
    shm_size: 64m
    pid: host
    ipc: private
    uts: host
    cgroup: private
    oom_score_adj: 5
    storage_opt: {size: 1G}
    annotations: {k: v}
    post_start: [{command: a b, user: root, environment: [X=1]}]
    pre_stop: [{command: [c]}]
    mem_limit: 100m
    memswap_limit: 300m
    mem_reservation: 50m
    mem_swappiness: 0
    cpus: 1.5
    pids_limit: 9
    cpuset: "0"
    cpu_shares: 10
    runtime: crun
    platform: linux/arm64
    pull_policy: always
    logging: {driver: json-file, options: {max-size: 1m}}
    healthcheck: {test: curl x, interval: 10s, timeout: 1s, retries: 2, start_period: 3s, start_interval: 1s}
""")
    )
    container = service.task.container
    assert container.command == ("e", "f")
    assert container.args == ("c", "d")
    assert container.env == ("A=1", "B=2", "BARE")
    assert container.hosts == ("1.1.1.1 h1", "::1 h2")
    assert container.cap_add == ("CAP_NET_ADMIN", "ALL")
    assert container.cap_drop == ("CAP_CHOWN",)
    assert container.no_new_privileges
    assert container.security_opt == ("seccomp=unconfined",)
    assert container.devices == (
        DeviceMapping(path_on_host="/dev/a", path_in_container="/dev/b", permissions="r"),
    )
    assert container.device_requests == (DeviceRequest(count=-1, capabilities=("gpu",)),)
    assert container.ulimits == (
        Ulimit(name="nofile", soft=1, hard=2),
        Ulimit(name="nproc", soft=5, hard=5),
    )
    assert container.post_start == (Hook(command=("a", "b"), user="root", env=("X=1",)),)
    assert container.healthcheck == Healthcheck(
        test=("CMD-SHELL", "curl x"),
        interval=10.0,
        timeout=1.0,
        retries=2,
        start_period=3.0,
        start_interval=1.0,
    )
    assert (container.stop_grace_period, container.shm_size) == (60.0, 64 << 20)
    assert (container.pids_mode, container.ipc_mode, container.uts_mode) == ("host", "private", "host")
    resources = service.task.resources
    assert resources.limits == Resources(nano_cpus=1_500_000_000, memory=100 << 20, pids=9)
    assert (resources.swap, resources.swappiness, resources.memory_low) == (200 << 20, 0, 50 << 20)
    assert service.task.placement.platforms == (Platform(os="linux", architecture="arm64"),)
    assert service.task.runtime == "crun"
    assert service.task.log_driver == Driver(name="json-file", options={"max-size": "1m"})


def test_ports(stack: Convert) -> None:
    specs = stack("""
services:
  a:
    image: x
    ports: ["80", "8080:80/udp", "127.0.0.1:1:2", {target: 5, published: 6, mode: host}, "7000-7001:7"]
""")
    assert _only(specs).endpoint.ports == (
        PortConfig(target_port=80),
        PortConfig(target_port=80, published_port=8080, protocol="udp"),
        PortConfig(target_port=2, published_port=1, host_ip="127.0.0.1"),
        PortConfig(target_port=5, published_port=6, publish_mode="host"),
        PortConfig(target_port=7, published_port=7000),
        PortConfig(target_port=7, published_port=7001),
    )


def test_mounts(stack: Convert, tmp_path: Path) -> None:
    specs = stack("""
services:
  a:
    image: x
    volumes: ["data:/d:ro", "./b:/b", "/anon", "ext:/e", "named:/n", {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}, {type: bind, source: /s, target: /s, bind: {propagation: rslave, create_host_path: false, recursive: disabled}}]
    tmpfs: ["/run:size=64k,mode=1777,noexec"]
  b: {image: x, volumes_from: ["a:ro"], volumes: ["other:/d"]}
volumes: {data: {driver_opts: {type: nfs}, labels: {l: m}}, ext: {external: true, name: outside}, named: {name: real}, other: , unused: }
""")  # noqa: E501
    a, b = specs.services
    stack_label = {"com.docker.stack.namespace": "shop"}
    assert a.task.container.mounts == (
        Mount(
            source="shop_data",
            target="/d",
            read_only=True,
            volume_labels={"l": "m", **stack_label},
            volume_driver=Driver(name="local", options={"type": "nfs"}),
        ),
        Mount(type="bind", source=str(tmp_path / "b"), target="/b"),
        Mount(target="/anon", volume_labels=stack_label),
        Mount(source="outside", target="/e"),
        Mount(source="real", target="/n", volume_labels=stack_label),
        Mount(type="tmpfs", target="/t", tmpfs_size=1 << 20, tmpfs_mode=0o700),
        Mount(
            type="bind",
            source="/s",
            target="/s",
            bind_propagation="rslave",
            bind_create_host_path=False,
            bind_non_recursive=True,
        ),
        Mount(type="tmpfs", target="/run", tmpfs_size=64 << 10, tmpfs_mode=0o1777),
    )
    assert [(mount.source, mount.target, mount.read_only) for mount in b.task.container.mounts][:2] == [
        ("shop_other", "/d", False),
        (str(tmp_path / "b"), "/b", True),
    ]
    assert [volume.name for volume in specs.volumes] == ["real", "shop_data", "shop_other"]
    assert specs.external_volumes == ("outside",)


def test_secrets_and_configs(stack: Convert, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"file\xff")
    specs = stack(
        """
services:
  a:
    image: x
    secrets: [f, {source: e, target: /etc/e, uid: "5", gid: "6", mode: 0400}, out]
    configs: [c, {source: v, target: /etc/v}]
secrets: {f: {file: ./s.txt}, e: {environment: TOKEN, name: token}, out: {external: true}, unused: {file: ./none}}
configs: {c: {content: "hi ${WHO}"}, v: {environment: TOKEN, template_driver: golang, labels: {a: b}}}
""",
        {"TOKEN": "t", "WHO": "you"},
    )
    container = _only(specs).task.container
    assert container.secrets == (
        FileReference(source_name="out", target="out"),
        FileReference(source_name="shop_f", target="f"),
        FileReference(source_name="token", target="/etc/e", uid="5", gid="6", mode=0o400),
    )
    assert container.configs == (
        FileReference(source_name="shop_c", target="c"),
        FileReference(source_name="shop_v", target="/etc/v"),
    )
    assert [(secret.name, secret.data) for secret in specs.secrets] == [
        ("shop_f", b"file\xff"),
        ("token", b"t"),
    ]
    assert [(config.name, config.data) for config in specs.configs] == [
        ("shop_c", b"hi you"),
        ("shop_v", b"t"),
    ]
    assert specs.external_secrets == ("out",)
    assert any("left out, no service uses it" in str(warning) for warning in specs.warnings)


def test_missing_contents_are_errors_when_used(stack: Convert) -> None:
    with pytest.raises(ComposeErrors) as caught:
        stack(
            "services: {a: {image: x, secrets: [f], configs: [e]}}\n"
            "secrets: {f: {file: ./none}}\nconfigs: {e: {environment: NOPE}}\n"
        )
    shown = str(caught.value)
    assert "secrets.f: cannot read" in shown
    assert "configs.e: variable NOPE is not set" in shown


def test_builds(stack: Convert, tmp_path: Path) -> None:
    specs = stack(
        """
services:
  web: {build: ./web}
  api: {image: "reg/api:2", build: {context: ., dockerfile: D, target: t, args: {A: 1, N: }, labels: {l: m}, tags: [x:1], ulimits: {nofile: {soft: 1, hard: 2}}, extra_hosts: ["h=1.1.1.1"], secrets: [s]}, platform: linux/amd64}
secrets: {s: {environment: T}}
""",  # noqa: E501
        {"T": "secret", "N": "from-env"},
    )
    api, web = specs.builds
    assert (web.service, web.image, web.context, web.dockerfile) == (
        "web",
        "shop-web:latest",
        str(tmp_path / "web"),
        "Dockerfile",
    )
    assert api.image == "reg/api:2"
    assert dict(api.args) == {"A": "1", "N": "from-env"}
    assert (api.dockerfile, api.target, api.tags) == ("D", "t", ("x:1",))
    assert api.ulimits == ("nofile=1:2",)
    assert api.extra_hosts == ("h:1.1.1.1",)
    assert dict(api.secrets) == {"s": b"secret"}
    assert api.platforms == ("linux/amd64",)
    images = {service.name: service.task.container.image for service in specs.services}
    assert images == {"shop_api": "reg/api:2", "shop_web": "shop-web:latest"}


def test_networks(stack: Convert) -> None:
    specs = stack("""
services:
  a: {image: x, container_name: boss, networks: {n: {aliases: [one], ipv4_address: 10.1.0.9, driver_opts: {k: 1}}, out: , host: }}
  b: {image: x, network_mode: none}
  c: {image: x, network_mode: "service:d"}
  d: {image: x, links: ["a:alias"], networks: [m]}
networks:
  n: {driver: bridge, internal: true, attachable: true, enable_ipv6: true, labels: {l: m}, driver_opts: {o: p}, ipam: {driver: default, config: [{subnet: 10.1.0.0/16, gateway: 10.1.0.1}]}}
  m: {name: explicit}
  out: {external: true}
  host: {external: true}
  unused: {}
""")  # noqa: E501
    a, b, c, d = specs.services
    assert [(x.target, x.aliases) for x in a.task.networks] == [
        ("out", ("a", "alias", "boss")),
        ("shop_n", ("one", "a", "alias", "boss")),
    ]
    assert a.task.networks[1].addresses == ("10.1.0.9",)
    assert a.task.container.network_mode == "host"
    assert (b.task.networks, b.task.container.network_mode) == ((), "none")
    assert [x.target for x in c.task.networks] == [x.target for x in d.task.networks] == ["explicit"]
    assert [network.name for network in specs.networks] == ["explicit", "shop_n"]
    assert specs.networks[1].ipam == (IpamPool(subnet="10.1.0.0/16", gateway="10.1.0.1"),)
    assert specs.networks[1].driver == Driver(name="overlay", options={"o": "p"})
    assert specs.external_networks == ("out",)
    messages = [warning.message for warning in specs.warnings]
    assert 'driver "bridge" has no effect: an overlay network reaches every node' in messages


def test_x_pyswarm(stack: Convert) -> None:
    specs = stack("""
services:
  a:
    image: x
    x-pyswarm: {schedule: {cron: "0 3 * * *", time_zone: Europe/Oslo, concurrency: replace, history: 5, starting_deadline: 1m}}
  b:
    image: x
    x-pyswarm: {autoscale: {min: 2, max: 9, cpu: 70%, memory: 0.5, cooldown: 1m}, volumes_per_slot: true, rebalance: gentle, placement_strategy: binpack, progress_deadline: 5m, restart_max_delay: 1m}
""")  # noqa: E501
    a, b = specs.services
    assert a.mode.kind == "replicated-job"
    assert a.cron == CronSchedule(
        schedule="0 3 * * *",
        time_zone="Europe/Oslo",
        concurrency="replace",
        history=5,
        starting_deadline=60.0,
    )
    assert b.autoscale == Autoscale(min=2, max=9, cpu=0.7, memory=0.5, cooldown=60.0)
    assert b.volumes_per_slot
    assert b.rebalance == "gentle"
    assert b.task.placement.strategy == "binpack"
    assert b.update == UpdateConfig(progress_deadline=300.0)
    assert b.task.restart.max_delay == 60.0


@pytest.mark.parametrize("said", ["@every 90s", "@every 1h30m", "@hourly", "*/5 * * * mon-fri"])
def test_schedules(stack: Convert, said: str) -> None:
    (job,) = stack(f"services: {{a: {{image: x, x-pyswarm: {{schedule: '{said}'}}}}}}").services
    assert job.cron == CronSchedule(schedule=said)
    assert parse(said).next_after(0.0) is not None


def test_what_is_not_supported_is_named(stack: Convert) -> None:
    specs = stack("""
services:
  a: {image: x, external_links: [q], use_api_socket: true, cpu_count: 2, network_mode: "container:z", pid: "container:z", tmpfs: "/x:uid=5", volumes: ["./a:/a:z"]}
  gone: {provider: {type: cloud}}
""")  # noqa: E501
    assert [service.name for service in specs.services] == ["shop_a"]
    keys = sorted(warning.path for warning in specs.warnings)
    assert keys == [
        "services.a.cpu_count",
        "services.a.external_links",
        "services.a.network_mode",
        "services.a.pid",
        "services.a.tmpfs[0]",
        "services.a.use_api_socket",
        "services.a.volumes[0].bind.selinux",
        "services.gone.provider",
    ]
    assert all(warning.position.line for warning in specs.warnings)


def test_dnsrr_cannot_publish_in_ingress(stack: Convert) -> None:
    with pytest.raises(ComposeErrors, match="endpoint_mode dnsrr has no address"):
        stack("services: {a: {image: x, ports: ['80:80'], deploy: {endpoint_mode: dnsrr}}}")


def test_two_services_cannot_publish_one_port(stack: Convert) -> None:
    text = "services:\n  a: {image: x, ports: ['80:80']}\n  b: {image: x, ports: ['81:1', '80:8080']}\n"
    with pytest.raises(
        ComposeErrors, match=r":3:33: services.b.ports\[1\]: port 80/tcp is published by service a"
    ):
        stack(text)
    stack("services: {a: {image: x, ports: ['80:80']}, b: {image: x, ports: ['80:80/udp']}}")
    stack("services: {a: {image: x, ports: ['127.0.0.1:80:80']}, b: {image: x, ports: ['127.0.0.2:80:80']}}")


def test_ports_need_a_network(stack: Convert) -> None:
    specs = stack("services: {a: {image: x, network_mode: host, ports: ['80:80']}}")
    assert _only(specs).endpoint.ports == ()
    assert specs.warnings[0].path == "services.a.ports"


def test_one_address_for_many_tasks_is_warned(stack: Convert) -> None:
    specs = stack(
        "services: {a: {image: x, scale: 2, networks: {n: {ipv4_address: 10.0.0.5}}}}\nnetworks: {n: }"
    )
    assert "can be given to one task only" in specs.warnings[0].message


@pytest.mark.parametrize("image", ["Not Valid", "UPPER", "a//b", "a:b:c", "", "a@sha256:1", "-a"])
def test_names_of_images(stack: Convert, image: str) -> None:
    with pytest.raises(ComposeErrors):
        stack(f"services: {{a: {{image: '{image}'}}}}")


@pytest.mark.parametrize(
    "image", ["a", "a/b:1", "REG.example:5000/a/b_c:V1", "localhost/a", "a@sha256:" + "0" * 64]
)
def test_good_names_of_images(stack: Convert, image: str) -> None:
    assert _only(stack(f"services: {{a: {{image: '{image}'}}}}")).task.container.image == image


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{schedule: '0 3 * *'}", "is not a schedule"),
        ("{schedule: {time_zone: UTC}}", '"cron" is missing'),
        ("{autoscale: {min: 5, max: 2, cpu: 0.5}}", '"min" 5 is above "max" 2'),
        ("{autoscale: {max: 2}}", "needs what to scale by"),
        ("{autoscale: {metric: x}}", '"metric" and "target" go together'),
        ("{schedul: x}", 'did you mean "schedule"'),
        ("{rebalance: always}", "is not one of off, gentle"),
    ],
)
def test_mistakes_in_x_pyswarm(stack: Convert, said: str, message: str) -> None:
    with pytest.raises(ComposeErrors, match=message):
        stack(f"services: {{a: {{image: x, x-pyswarm: {said}}}}}")
