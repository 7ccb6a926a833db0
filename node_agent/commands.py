"""Node commands: what `pyswarm image ...`, `volume ...` and `system df` ask of one node's agent.

The verbs and their arguments are described at `pyswarm.api.NodeCommand`. Each handler takes the JSON
arguments and a function for progress lines, and returns the JSON of the result.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from node_agent.images.buildah import BuildRequest, BuildSecret, Images, ImageSummary
from node_agent.images.reference import parse
from node_agent.images.transfer import CHUNK
from node_agent.storage import Storage, VolumeUse
from pyswarm.api import NodeCommand, NodeReply
from pyswarm.clock import rfc3339
from pyswarm.errors import Invalid, NotFound, PyswarmError

# `Any` here: JSON from and for the command line, whose shapes are the Engine API's.
Arguments = Mapping[str, Any]
Progress = Callable[[str], None]
Handler = Callable[[Arguments, Progress], Awaitable[Any]]


class Commands:
    """The verbs of one node."""

    def __init__(
        self,
        images: Images,
        storage: Storage,
        scratch: Path,
        in_use: Callable[[], list[str]],
        kill: Callable[[str, str], Awaitable[None]] | None = None,
        restart: Callable[[str, float | None], Awaitable[None]] | None = None,
        release: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`in_use` names the images that assigned tasks need; `kill` sends a signal, by name, to a task's main
        process; `restart` stops and starts it in its container; `release` lets go of images that no
        task uses any more."""
        self._release = release
        self._restart = restart
        self._images = images
        self._storage = storage
        self._scratch = scratch
        self._in_use = in_use
        self._kill = kill
        self._verbs: Mapping[str, Handler] = {
            "image.ls": self._image_ls,
            "image.inspect": self._image_inspect,
            "image.pull": self._image_pull,
            "image.push": self._image_push,
            "image.tag": self._image_tag,
            "image.rm": self._image_rm,
            "image.prune": self._image_prune,
            "image.history": self._image_history,
            "image.resolve": self._image_resolve,
            "image.build": self._image_build,
            "volume.ls": self._volume_ls,
            "volume.rm": self._volume_rm,
            "volume.prune": self._volume_prune,
            "system.df": self._system_df,
            "task.kill": self._task_kill,
            "task.restart": self._task_restart,
            "task.sizes": self._task_sizes,
        }

    async def run(self, command: NodeCommand, more: AsyncIterator[NodeCommand]) -> AsyncIterator[NodeReply]:
        """Progress as it comes, then the result or the error. `more` is input that follows the command."""
        if command.verb in ("image.save", "image.archive"):
            send = self._image_save if command.verb == "image.save" else self._image_archive
            async with aclosing(send(command)) as replies:
                async for reply in replies:
                    yield reply
            return
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        work = asyncio.ensure_future(self._perform(command, more, lines.put_nowait))
        work.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield NodeReply(kind="progress", text=line)
            yield NodeReply(kind="result", text=json.dumps(work.result()))
        except PyswarmError as error:
            yield NodeReply(kind="error", text=str(error), error_class=type(error).__name__)
        finally:
            work.cancel()

    async def _perform(
        self, command: NodeCommand, more: AsyncIterator[NodeCommand], progress: Progress
    ) -> Any:
        if command.verb == "image.load":
            return await self._image_load(command, more)
        handler = self._verbs.get(command.verb)
        if handler is None:
            raise Invalid(f"this node does not know the command {command.verb!r}: is its pyswarm older?")
        arguments = _arguments(command)
        if command.verb == "image.build" and arguments.get("context") == "-":
            return await self._build_archive(arguments, command, more, progress)
        return await handler(arguments, progress)

    # ------------------------------------------------------------------------------ tasks

    async def _task_kill(self, arguments: Arguments, progress: Progress) -> Any:
        if self._kill is None:
            raise Invalid("this node sends no signals")
        await self._kill(_text(arguments, "task"), str(arguments.get("signal") or "SIGKILL"))
        return {}

    async def _task_restart(self, arguments: Arguments, progress: Progress) -> Any:
        if self._restart is None:
            raise Invalid("this node restarts no tasks")
        grace = arguments.get("timeout")
        if grace is not None and not isinstance(grace, (int, float)):
            raise Invalid("task.restart: timeout must be a number of seconds")
        await self._restart(_text(arguments, "task"), grace)
        return {}

    async def _task_sizes(self, arguments: Arguments, progress: Progress) -> Any:
        layers = await asyncio.to_thread(self._storage.layers)
        return {task: size for task, (size, _) in layers.items()}

    # ------------------------------------------------------------------------------ images

    async def _image_ls(self, arguments: Arguments, progress: Progress) -> Any:
        return [_summary(image) for image in await self._images.list(all_images=bool(arguments.get("all")))]

    async def _image_inspect(self, arguments: Arguments, progress: Progress) -> Any:
        return dict(await self._images.inspect(_text(arguments, "name")))

    async def _image_pull(self, arguments: Arguments, progress: Progress) -> Any:
        image = await self._images.pull(
            _text(arguments, "reference"),
            auth=str(arguments.get("auth", "")),
            progress=progress,
            platform=str(arguments.get("platform", "")),
        )
        return {"id": image.id, "digest": image.digests[0].partition("@")[2] if image.digests else ""}

    async def _image_push(self, arguments: Arguments, progress: Progress) -> Any:
        digest = await self._images.push(
            _text(arguments, "reference"), auth=str(arguments.get("auth", "")), progress=progress
        )
        return {"digest": digest}

    async def _image_tag(self, arguments: Arguments, progress: Progress) -> Any:
        await self._images.tag(_text(arguments, "source"), _text(arguments, "target"))
        return {}

    async def _image_rm(self, arguments: Arguments, progress: Progress) -> Any:
        if self._release is not None:
            await self._release()
        rows: list[dict[str, str]] = []
        for reference in arguments.get("references", ()):
            for line in await self._images.remove(reference, force=bool(arguments.get("force"))):
                word, _, what = line.partition(": ")
                rows.append({word: what})
        return rows

    async def _image_prune(self, arguments: Arguments, progress: Progress) -> Any:
        deleted, freed = await self._images.prune(
            all_images=bool(arguments.get("all")),
            keep=[*self._in_use(), *(arguments.get("keep") or ())],
            before=arguments.get("before"),
            labels=arguments.get("labels") or (),
            without=arguments.get("without") or (),
        )
        return {"deleted": list(deleted), "reclaimed": freed}

    async def _image_history(self, arguments: Arguments, progress: Progress) -> Any:
        return list(await self._images.history(_text(arguments, "name")))

    async def _image_archive(self, command: NodeCommand) -> AsyncGenerator[NodeReply]:
        """Images as one archive of docker's, in pieces."""
        async with self._work("save-") as work:
            try:
                await self._images.save(_arguments(command).get("references") or (), work / "images.tar")
            except PyswarmError as error:
                yield NodeReply(kind="error", text=str(error), error_class=type(error).__name__)
                return
            with (work / "images.tar").open("rb") as file:
                while data := await asyncio.to_thread(file.read, CHUNK):
                    yield NodeReply(kind="data", data=data)
        yield NodeReply(kind="result", text="{}")

    async def _image_load(self, first: NodeCommand, more: AsyncIterator[NodeCommand]) -> Any:
        async with self._work("load-") as work:
            await _receive(work / "images.tar", first, more)
            return {"loaded": list(await self._images.load(work / "images.tar"))}

    @asynccontextmanager
    async def _work(self, prefix: str) -> AsyncGenerator[Path]:
        """A directory for the time of one command."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        work = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch, prefix=prefix))
        try:
            yield work
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)

    async def _image_resolve(self, arguments: Arguments, progress: Progress) -> Any:
        reference = _text(arguments, "reference")
        if arguments.get("built"):
            found = self._images.built_here(reference)
            if found is None:
                raise NotFound(f"no image {reference} was built on this node")
            digest, created = found
        else:
            digest, created = await self._images.resolve(reference, str(arguments.get("auth", ""))), 0.0
        bare = reference.partition("@")[0]
        named = bare if parse(bare).tag and ":" in bare.rpartition("/")[2] else f"{bare}:latest"
        return {"pinned": f"{named}@{digest}", "digest": digest, "created": created}

    async def _image_save(self, command: NodeCommand) -> AsyncGenerator[NodeReply]:
        """A copy of an image: pieces of its files, each with the file's name."""
        reference = _text(json.loads(command.args), "reference")
        async with aclosing(self._images.export(reference)) as copy:
            async for name, data in copy:
                yield NodeReply(kind="data", text=name, data=data)
        yield NodeReply(kind="result", text="{}")

    async def _image_build(self, arguments: Arguments, progress: Progress) -> Any:
        return {"id": await self._images.build(build_request(arguments), progress)}

    async def _build_archive(
        self, arguments: Arguments, first: NodeCommand, more: AsyncIterator[NodeCommand], progress: Progress
    ) -> Any:
        """Build from a tar archive that follows the command."""
        async with self._work("context-") as work:
            archive = work / "context.tar"
            await _receive(archive, first, more)
            context = work / "context"
            await asyncio.to_thread(_unpack, archive, context)
            return await self._image_build({**arguments, "context": str(context)}, progress)

    # ------------------------------------------------------------------------------ volumes

    async def _volume_ls(self, arguments: Arguments, progress: Progress) -> Any:
        return [_volume(use) for use in await asyncio.to_thread(self._storage.list_volumes)]

    async def _volume_rm(self, arguments: Arguments, progress: Progress) -> Any:
        await asyncio.to_thread(self._storage.remove_volume, _text(arguments, "name"))
        return {}

    async def _volume_prune(self, arguments: Arguments, progress: Progress) -> Any:
        everything, keep = bool(arguments.get("all")), frozenset(arguments.get("keep") or ())
        deleted, freed = await asyncio.to_thread(
            lambda: self._storage.prune_volumes(all_volumes=everything, keep=keep)
        )
        return {"deleted": list(deleted), "reclaimed": freed}

    async def _system_df(self, arguments: Arguments, progress: Progress) -> Any:
        images = await self._images.list(all_images=True)
        volumes = await asyncio.to_thread(self._storage.list_volumes)
        sizes = await asyncio.to_thread(lambda: [self._storage.volume_size(v.volume.name) for v in volumes])
        layers = (await asyncio.to_thread(self._storage.layers)).values()
        return {
            "images": {
                "total": len(images),
                "active": sum(1 for image in images if image.containers),
                "size": sum(image.size for image in images),
                "reclaimable": sum(image.size for image in images if not image.containers),
            },
            "volumes": {
                "total": len(volumes),
                "active": sum(1 for volume in volumes if volume.tasks),
                "size": sum(sizes),
                "reclaimable": sum(
                    size for size, volume in zip(sizes, volumes, strict=True) if not volume.tasks
                ),
                "sizes": {v.volume.name: size for v, size in zip(volumes, sizes, strict=True)},
            },
            "containers": {
                "total": len(layers),
                "active": sum(1 for _, live in layers if live),
                "size": sum(size for size, _ in layers),
                "reclaimable": sum(size for size, live in layers if not live),
            },
        }


def _arguments(command: NodeCommand) -> Arguments:
    try:
        arguments = json.loads(command.args or "{}")
    except ValueError as error:
        raise Invalid(f"{command.verb}: the arguments are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise Invalid(f"{command.verb}: the arguments are not a JSON object")
    return cast("Arguments", arguments)


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"the command needs {name!r}")
    return value


def build_request(arguments: Arguments) -> BuildRequest:
    """A build's JSON as the request it is; Invalid names what it does not know."""
    _text(arguments, "context")
    known = set(BuildRequest.__dataclass_fields__)
    unknown = sorted(set(arguments) - known - {"auth"})
    if unknown:
        raise Invalid(f"image.build: unknown arguments {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "secrets":
            values[name] = tuple(_secret(row) for row in value)
        elif name in known:
            values[name] = tuple(value) if isinstance(value, list) else value
    return BuildRequest(**values)


def _secret(row: Mapping[str, Any]) -> BuildSecret:
    value = row.get("value")
    return BuildSecret(
        id=str(row.get("id", "")),
        source=str(row.get("source", "")),
        value=str(value).encode() if value is not None else None,
    )


def _summary(image: ImageSummary) -> dict[str, Any]:
    return {
        "Id": f"sha256:{image.id}",
        "RepoTags": list(image.names),
        "RepoDigests": list(image.digests),
        "Created": int(image.created),
        "Size": image.size,
        "Labels": dict(image.labels),
        "Containers": image.containers,
    }


def _volume(use: VolumeUse) -> dict[str, Any]:
    return {
        "Name": use.volume.name,
        "Driver": "local",
        "Mountpoint": use.mountpoint,
        "CreatedAt": rfc3339(use.volume.created),
        "Labels": dict(use.volume.labels),
        "Options": dict(use.volume.options),
        "Scope": "local",
        "Anonymous": use.volume.anonymous,
        "Tasks": list(use.tasks),
    }


async def _receive(archive: Path, first: NodeCommand, more: AsyncIterator[NodeCommand]) -> None:
    with archive.open("wb") as file:
        file.write(first.data)
        if first.eof:
            return
        async for piece in more:
            await asyncio.to_thread(file.write, piece.data)
            if piece.eof:
                return


def _unpack(archive: Path, target: Path) -> None:
    """Unpack a build context; members that would leave the directory are refused by tarfile's filter. Links may
    point anywhere, as in any context: the builder follows them inside of it."""
    import tarfile

    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="tar")
    except (tarfile.TarError, OSError) as error:
        raise Invalid(f"the build context is not a usable tar archive: {error}") from error
