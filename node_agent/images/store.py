"""Reading the image store's own files, so that a look costs a stat(2) and no process.

The files are containers-storage's: `overlay-images/images.json`, `overlay-layers/layers.json` and one file
per manifest and configuration; they are replaced atomically, so that no lock is needed to read them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from node_agent.images.reference import Reference, image_id, parse
from node_agent.ports import ImageConfig
from pyswarm.errors import Conflict, Fatal, Invalid
from pyswarm.specs import Healthcheck

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
_FRACTION = re.compile(r"\.(\d+)")
_MANIFEST = "manifest-"
MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes of a manifest or index, as registries limit them."""
_CACHE_NAME = re.compile(r"[0-9a-f]{64}-tmp:latest\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One record of the store."""

    id: str
    digest: str
    digests: tuple[str, ...]
    """Of every manifest and index under which it was pulled or built."""
    names: tuple[str, ...]
    created: float
    layer: str
    """The topmost layer; "" for an image without layers."""
    cache: bool
    """A step that `build` keeps for the next build; docker hides those."""


def unix_time(text: str) -> float:
    """RFC 3339 with any number of fractional digits."""
    trimmed = _FRACTION.sub(lambda match: "." + match.group(1)[:6].ljust(6, "0"), text)
    try:
        return datetime.fromisoformat(trimmed.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _record(entry: Mapping[str, Any]) -> StoredImage:
    names = tuple(str(name) for name in entry.get("names") or ())
    history = tuple(str(name) for name in entry.get("names-history") or ())
    manifests = {
        key.removeprefix(_MANIFEST) for key in entry.get("big-data-names") or () if key.startswith(_MANIFEST)
    }
    digest = str(entry.get("digest") or "")
    return StoredImage(
        id=str(entry["id"]),
        digest=digest,
        digests=tuple(sorted(manifests | ({digest} if digest else set()))),
        names=names,
        created=unix_time(str(entry.get("created") or "")),
        layer=str(entry.get("layer") or ""),
        cache=not names and any(_CACHE_NAME.search(name) for name in history),
    )


class ImageStore:
    """The store below one root directory. Keeps what it read until a file changes."""

    def __init__(self, root: Path, kept: Path | None = None) -> None:
        """`kept` is a directory of manifests, each named by the image's id and its own digest, under which
        the image is to be found too (see `node_agent.images.transfer`)."""
        self._kept = kept
        self._images_file = root / "overlay-images" / "images.json"
        self._layers_file = root / "overlay-layers" / "layers.json"
        self._stamp: tuple[int, int, int] | None = None
        self._images: Sequence[StoredImage] = ()
        self._by_name: Mapping[str, StoredImage] = {}
        self._by_digest: Mapping[str, StoredImage] = {}
        self._found: dict[str, StoredImage] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the list of images does; None while there is no store."""
        try:
            found = self._images_file.stat()
        except FileNotFoundError:
            return None
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def images(self) -> Sequence[StoredImage]:
        """All images, newest first."""
        stamp = self.stamp()
        if stamp != self._stamp:
            self._load(stamp)
        return self._images

    def _load(self, stamp: tuple[int, int, int] | None) -> None:
        entries = _load_list(self._images_file) if stamp else []
        self._images = sorted(map(_record, entries), key=lambda image: (-image.created, image.id))
        self._by_name = {name: image for image in reversed(self._images) for name in image.names}
        kept = self._kept_digests()
        self._by_digest = {
            digest: image
            for image in reversed(self._images)
            for digest in (*image.digests, *kept.get(image.id, ()))
        }
        self._found = {}
        known = {image.id for image in self._images}
        self._configs = {key: value for key, value in self._configs.items() if key in known}
        self._stamp = stamp

    # ------------------------------------------------------------------------------ manifests

    def _kept_digests(self) -> Mapping[str, Sequence[str]]:
        """Image id -> digests of the manifests that are kept for it."""
        found: dict[str, list[str]] = {}
        if self._kept is not None and self._kept.is_dir():
            for path in sorted(self._kept.iterdir()):
                image, _, digest = path.name.partition("-")
                found.setdefault(image, []).append(f"sha256:{digest}")
        return found

    def manifests(self, image: StoredImage) -> Mapping[str, bytes]:
        """The image's manifests and indexes by their digests, as they were when it came here."""
        directory = self._images_file.parent / image.id
        files = {digest: directory / _file_name(_MANIFEST + digest) for digest in image.digests}
        for digest in self._kept_digests().get(image.id, ()):
            files[digest] = self._kept_file(image.id, digest)
        return {digest: path.read_bytes() for digest, path in sorted(files.items()) if path.is_file()}

    def keep(self, image_id: str, manifests: Mapping[str, bytes]) -> None:
        """Keep these manifests for an image, so that it is found by their digests; those of images that are
        gone are deleted."""
        if self._kept is None:
            return
        self._kept.mkdir(mode=0o700, exist_ok=True)
        for digest, data in manifests.items():
            path = self._kept_file(image_id, digest)
            fresh = path.with_name(f".{path.name}")
            fresh.write_bytes(data)
            fresh.replace(path)
        known = {image.id for image in self.images()}
        for path in self._kept.iterdir():
            if path.name.partition("-")[0].removeprefix(".") not in known:
                path.unlink(missing_ok=True)
        self._load(self.stamp())

    def _kept_file(self, image_id: str, digest: str) -> Path:
        assert self._kept is not None
        return self._kept / f"{image_id}-{digest.removeprefix('sha256:')}"

    def find(self, text: str) -> StoredImage | None:
        """The image that a reference, a digest, an id or the beginning of one names."""
        self.images()
        if text not in self._found:
            image = self._search(text)
            if image is None:
                return None
            self._found[text] = image
        return self._found[text]

    def _search(self, text: str) -> StoredImage | None:
        if text.startswith("sha256:") and text in self._by_digest:
            return self._by_digest[text]
        try:
            image = self._by_reference(parse(text))
        except Invalid:
            image = None
        return image or self._by_id(text)

    def _by_reference(self, reference: Reference) -> StoredImage | None:
        if reference.digest:
            return self._by_digest.get(reference.digest)
        return next((self._by_name[name] for name in reference.local_names if name in self._by_name), None)

    def _by_id(self, text: str) -> StoredImage | None:
        start = image_id(text)
        matches = [image for image in self._images if start and image.id.startswith(start)]
        if len(matches) > 1:
            raise Conflict(f"image id {text} is ambiguous: {', '.join(m.id[:19] for m in matches)}")
        return matches[0] if matches else None

    def raw_config(self, image: StoredImage) -> Mapping[str, Any]:
        """The image's OCI configuration as JSON."""
        if image.id not in self._configs:
            path = self._images_file.parent / image.id / _file_name(f"sha256:{image.id}")
            try:
                data: Any = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                raise Fatal(
                    f"image store is damaged: no configuration of image {image.id[:12]} ({error})"
                ) from error
            self._configs[image.id] = cast("Mapping[str, Any]", data)
        return self._configs[image.id]

    def config(self, image: StoredImage) -> ImageConfig:
        """What the agent needs of the configuration."""
        return to_image_config(image.id, image.digest or f"sha256:{image.id}", self.raw_config(image))

    def sizes(self) -> Mapping[str, int]:
        """Bytes of each image, by id: the sum of its unpacked layers."""
        layers = {str(entry["id"]): entry for entry in _load_list(self._layers_file)}
        return {image.id: sum(_chain(image.layer, layers)) for image in self.images()}

    def layer_sizes(self, image: StoredImage) -> Sequence[int]:
        """Bytes of each of the image's layers, the lowest first."""
        layers = {str(entry["id"]): entry for entry in _load_list(self._layers_file)}
        return list(_chain(image.layer, layers))[::-1]


def _chain(layer: str, layers: Mapping[str, Mapping[str, Any]]) -> Iterator[int]:
    """Bytes of a layer and of those below it."""
    while layer in layers:
        yield int(layers[layer].get("diff-size") or 0)
        layer = str(layers[layer].get("parent") or "")


def _load_list(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        data: Any = json.loads(path.read_bytes() or b"[]")
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise Fatal(f"image store is damaged: {path} is not JSON ({error})") from error
    return cast("Sequence[Mapping[str, Any]]", data or [])


def _file_name(key: str) -> str:
    """How containers-storage names the file of a big-data item."""
    return key if _PLAIN_NAME.match(key) else "=" + base64.b64encode(key.encode()).decode()


def to_image_config(image_id: str, digest: str, raw: Mapping[str, Any]) -> ImageConfig:
    """An OCI or Docker image configuration as the agent's own value."""
    config = cast("Mapping[str, Any]", raw.get("config") or {})
    return ImageConfig(
        id=image_id,
        digest=digest,
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        env=tuple(config.get("Env") or ()),
        working_dir=str(config.get("WorkingDir") or ""),
        user=str(config.get("User") or ""),
        volumes=tuple(sorted(config.get("Volumes") or ())),
        exposed_ports=tuple(sorted(config.get("ExposedPorts") or ())),
        labels=dict(config.get("Labels") or {}),
        stop_signal=str(config.get("StopSignal") or ""),
        healthcheck=_healthcheck(config.get("Healthcheck")),
        os=str(raw.get("os") or "linux"),
        architecture=str(raw.get("architecture") or ""),
    )


def _healthcheck(raw: Mapping[str, Any] | None) -> Healthcheck | None:
    if not raw or not raw.get("Test"):
        return None

    def seconds(key: str) -> float | None:
        return int(raw[key]) / 1e9 if raw.get(key) else None

    return Healthcheck(
        test=tuple(raw["Test"]),
        interval=seconds("Interval"),
        timeout=seconds("Timeout"),
        retries=int(raw["Retries"]) if raw.get("Retries") else None,
        start_period=seconds("StartPeriod"),
        start_interval=seconds("StartInterval"),
    )
