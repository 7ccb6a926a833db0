"""References, credentials, build flags and the store's files: the pure part of images."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from node_agent.images.auth import (
    Credentials,
    auth_file,
    decode_header,
    encode_header,
    from_docker_config,
    save_docker_config,
)
from node_agent.images.build import BuildRequest, build_flags
from node_agent.images.buildah import max_age
from node_agent.images.reference import Reference, familiar, insecure, parse
from node_agent.images.store import ImageStore, to_image_config
from pyswarm.errors import Conflict, Fatal, Invalid

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "pull", "local"),
    [
        ("nginx", "docker.io/library/nginx:latest", "localhost/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "localhost/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest", "localhost/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "docker.io/a/b:latest"),
        ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
        ("reg:5000/a/b/c:2", "reg:5000/a/b/c:2", "reg:5000/a/b/c:2"),
        (f"nginx:1.27@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", "localhost/nginx:1.27"),
        (f"ghcr.io/x/y@{DIGEST}", f"ghcr.io/x/y@{DIGEST}", "ghcr.io/x/y:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
    ],
)
def test_references(text: str, pull: str, local: str) -> None:
    reference = parse(text)
    assert reference.pull_name == pull
    assert reference.local_names[0] == local


@pytest.mark.parametrize(
    "text",
    ["", "Nginx", "a//b", "nginx:", "nginx:a b", "nginx@sha256:12", "nginx@md5:" + "a" * 32, "-x", "a/../b",
     "reg:port/x", "x:" + "t" * 129],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(Invalid, match="invalid reference format"):
        parse(text)


def test_uppercase_is_explained() -> None:
    with pytest.raises(Invalid, match="must be lowercase"):
        parse("MyApp:1")


def test_registry_host_of_docker_hub() -> None:
    assert parse("nginx").registry_host == "registry-1.docker.io"
    assert Reference("r:1", "x", "t", "", True).registry_host == "r:1"


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("localhost:5000", True),
        ("127.3.2.1", True),
        ("[::1]:5000", True),
        ("reg.example", False),
        ("reg.example:80", True),
        ("named.example:443", True),
        ("10.1.2.3:5000", True),
        ("10.2.2.3:5000", False),
    ],
)
def test_insecure_registries(domain: str, expected: bool) -> None:
    assert insecure(domain, ("reg.example:80", "named.example", "10.1.0.0/16")) is expected


def test_familiar_names() -> None:
    names = ("docker.io/library/nginx:1", "docker.io/a/b:1", "localhost/x:1", "ghcr.io/a:1")
    assert [familiar(name) for name in names] == ["nginx:1", "a/b:1", "x:1", "ghcr.io/a:1"]


# ------------------------------------------------------------------------------------ credentials


@pytest.mark.parametrize(
    "credentials",
    [Credentials("me", "pw?>~"), Credentials(identity_token="tok"), Credentials(registry_token="reg")],
)
def test_header_round_trip(credentials: Credentials) -> None:
    assert decode_header(encode_header(credentials, "reg")) == credentials
    assert decode_header(encode_header(credentials).rstrip("=")) == credentials


def test_no_header_is_no_credentials() -> None:
    assert not decode_header("")


@pytest.mark.parametrize("text", ["{", "bm90IGpzb24=", "WzFd", "%%%"])
def test_bad_headers(text: str) -> None:
    with pytest.raises(Invalid, match="X-Registry-Auth"):
        decode_header(text)


def test_docker_config_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "config.json"
    assert not save_docker_config(path, "docker.io", Credentials("a", "b:c"))
    data = json.loads(path.read_text())
    data["psFormat"] = "x"
    path.write_text(json.dumps(data))
    assert from_docker_config(path, "docker.io") == Credentials("a", "b:c")
    assert save_docker_config(path, "reg:5000", Credentials("d", "e")) is False
    assert save_docker_config(path, "docker.io", None)
    data = json.loads(path.read_text())
    assert (data["psFormat"], sorted(data["auths"])) == ("x", ["reg:5000"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not from_docker_config(tmp_path / "none.json", "reg")
    path.write_text("{")
    with pytest.raises(Invalid, match="not valid JSON"):
        from_docker_config(path, "reg")


def test_an_auth_file_is_gone_after_use(tmp_path: Path) -> None:
    with auth_file(tmp_path / "auth", "reg:1", Credentials("a", "b")) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text()) == {"auths": {"reg:1": {"auth": "YTpi"}}}
    assert not path.exists()
    with auth_file(tmp_path / "auth", "reg:1", Credentials()) as path:
        assert json.loads(path.read_text()) == {"auths": {}}


# ------------------------------------------------------------------------------------ builds and policies


def test_build_flags() -> None:
    request = BuildRequest(
        context="ctx",
        tags=("app:1", "reg:5000/app"),
        args={"B": "2", "A": "1"},
        target="prod",
        cache_from=("reg/cache:old", "type=registry,ref=reg/c2:x", "type=gha"),
        labels={"l": "v"},
        network="host",
        extra_hosts=("a=1.2.3.4", "b:5.6.7.8"),
        ssh=("default",),
        additional_contexts={"base": "docker-image://alpine"},
        platforms=("linux/arm64",),
        no_cache=True,
        pull=True,
        ulimits=("nofile=1:2",),
        privileged=True,
    )
    flags = build_flags(request)
    assert flags == [
        "--layers",
        "--isolation=chroot",
        "--platform=linux/arm64",
        "--tag=localhost/app:1",
        "--tag=reg:5000/app:latest",
        "--build-arg=A=1",
        "--build-arg=B=2",
        "--label=l=v",
        "--target=prod",
        "--cache-from=docker.io/reg/cache",
        "--cache-from=docker.io/reg/c2",
        "--add-host=a:1.2.3.4",
        "--add-host=b:5.6.7.8",
        "--ssh=default",
        "--build-context=base=docker-image://alpine",
        "--ulimit=nofile=1:2",
        "--no-cache",
        "--cap-add=all",
        "--pull=always",
    ]
    several = build_flags(BuildRequest(tags=("a",), platforms=("linux/amd64", "linux/arm64")))
    assert several[2:4] == ["--platform=linux/amd64,linux/arm64", "--manifest=localhost/a:latest"]


@pytest.mark.parametrize(
    ("request_", "flags"),
    [
        (BuildRequest(), ["--isolation=chroot"]),
        (BuildRequest(network="host"), ["--isolation=chroot"]),
        (BuildRequest(network="none"), ["--isolation=oci", "--network=none"]),
        (BuildRequest(shm_size=5), ["--isolation=oci", "--network=host", "--shm-size=5"]),
    ],
)
def test_isolation(request_: BuildRequest, flags: list[str]) -> None:
    assert build_flags(request_)[1 : 1 + len(flags)] == flags


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [("daily", 86400), ("weekly", 604800), ("every_12h", 43200), ("every_1w2d3h4m5s", 788645)],
)
def test_pull_ages(policy: str, seconds: float) -> None:
    assert max_age(policy) == seconds


@pytest.mark.parametrize("policy", ["hourly", "every_", "every_5", "every_5h3d"])
def test_unknown_policies(policy: str) -> None:
    with pytest.raises(Invalid, match="unknown pull policy"):
        max_age(policy)


# ------------------------------------------------------------------------------------ the store's files


def _store(root: Path, *records: dict[str, Any]) -> ImageStore:
    (root / "overlay-images").mkdir(parents=True, exist_ok=True)
    (root / "overlay-images" / "images.json").write_text(json.dumps(records))
    return ImageStore(root)


def _image(letter: str, *names: str, **rest: Any) -> dict[str, Any]:
    created = "2026-11-24T22:05:41.292345311Z"
    return {"id": letter * 64, "names": list(names), "digest": f"sha256:{letter * 64}", "created": created,
            "layer": "l1", **rest}  # fmt: skip


def test_an_empty_store(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.stamp() is None
    assert store.find("x") is None
    assert not store.images()
    assert store.sizes() == {}


def test_finding(tmp_path: Path) -> None:
    index = "sha256:" + "9" * 64
    store = _store(
        tmp_path,
        _image("a", "localhost/app:1", **{"big-data-names": [f"manifest-{index}", "manifest"]}),
        _image("b", "docker.io/library/app:1", "docker.io/library/nginx:latest"),
        _image("c", **{"names-history": ["docker.io/library/" + "d" * 64 + "-tmp:latest"]}),
    )

    def found(text: str) -> str:
        image = store.find(text)
        return image.id[0] if image else ""

    assert found("app:1") == "a", "what was built here comes first"
    assert found("docker.io/app:1") == "b"
    assert found("nginx") == "b"
    assert found("nginx:2") == ""
    assert found(f"whatever@{index}") == "a"
    assert found("sha256:" + "b" * 64) == "b"
    assert found("b" * 12) == "b"
    assert [image.id[0] for image in store.images() if image.cache] == ["c"]


def test_an_ambiguous_id(tmp_path: Path) -> None:
    store = _store(tmp_path, _image("a"), {**_image("a"), "id": "a" * 63 + "b"})
    with pytest.raises(Conflict, match="ambiguous"):
        store.find("a" * 12)


def test_a_change_is_noticed(tmp_path: Path) -> None:
    store = _store(tmp_path, _image("a", "localhost/app:1"))
    assert store.find("app:1") is not None
    _store(tmp_path, _image("b", "localhost/other:1"))
    assert store.find("app:1") is None


def test_damage_is_named(tmp_path: Path) -> None:
    store = _store(tmp_path, _image("a", "localhost/app:1"))
    image = store.find("app:1")
    assert image is not None
    with pytest.raises(Fatal, match="no configuration of image aaaa"):
        store.config(image)
    (tmp_path / "overlay-images" / "images.json").write_text("[{")
    with pytest.raises(Fatal, match="not JSON"):
        store.images()


def test_sizes_add_up_the_layers(tmp_path: Path) -> None:
    store = _store(tmp_path, _image("a"), {**_image("b"), "layer": ""})
    (tmp_path / "overlay-layers").mkdir()
    layers = [{"id": "l1", "parent": "l0", "diff-size": 5}, {"id": "l0", "diff-size": 7}]
    (tmp_path / "overlay-layers" / "layers.json").write_text(json.dumps(layers))
    assert store.sizes() == {"a" * 64: 12, "b" * 64: 0}


def test_image_configuration() -> None:
    raw = {
        "architecture": "arm64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/e"],
            "Cmd": None,
            "Env": ["A=b"],
            "WorkingDir": "/w",
            "User": "u:g",
            "Volumes": {"/b": {}, "/a": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Labels": None,
            "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 3_000_000_000, "Retries": 4},
        },
    }
    config = to_image_config("id", "sha256:d", raw)
    assert (config.entrypoint, config.cmd, config.volumes) == (("/e",), (), ("/a", "/b"))
    assert config.healthcheck is not None
    assert (config.healthcheck.interval, config.healthcheck.retries, config.healthcheck.timeout) == (
        3.0,
        4,
        None,
    )
    assert to_image_config("id", "d", {}).cmd == ()
