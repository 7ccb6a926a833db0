"""Running buildah: its environment independent of the host's, its output by lines, its errors in its words."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from node_agent.ports import Paths
from pyswarm.errors import Fatal, Invalid, MissingProgram, PyswarmError

Progress = Callable[[str], None]
"""Gets each line that a long command prints."""

_LOG_LINE = re.compile(r'time="[^"]*" level=(\w+) msg="(.*)"\Z')


class Buildah:
    """The program over one store."""

    def __init__(self, paths: Paths, insecure_registries: Sequence[str]) -> None:
        self.root = paths.state / "images"
        self.runroot = paths.run / "images"
        self.conf = paths.state / "images-conf"
        self.tmp = paths.state / "images-tmp"
        self._insecure = tuple(insecure_registries)
        self._environment: dict[str, str] | None = None

    def prepare(self) -> dict[str, str]:
        """Write the configuration files that make buildah independent of the host's, once."""
        if self._environment is not None:
            return self._environment
        for directory in (self.root, self.conf, self.tmp, self.runroot):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        storage, registries = self.conf / "storage.conf", self.conf / "registries.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.root}"\nrunroot = "{self.runroot}"\n'
        )
        registries.write_text(_registries_conf(self._insecure))
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "TMPDIR": str(self.tmp),
            "LC_ALL": "C.UTF-8",
        }
        return self._environment

    def _argv(self, command: str, arguments: Sequence[str]) -> Sequence[str]:
        program = shutil.which("buildah")
        if program is None:
            raise MissingProgram("buildah", "buildah", "it keeps the images")
        flags = [f"--root={self.root}", f"--runroot={self.runroot}", "--storage-driver=overlay"]
        policy = self._policy() if command in ("pull", "push", "build", "from") else ()
        runtime = self._runtime() if "--isolation=oci" in arguments else ()
        return [program, *flags, command, *policy, *runtime, *arguments]

    def _runtime(self) -> Sequence[str]:
        """runc by its path: a host's default may be a runtime that its cgroups do not suit."""
        runc = shutil.which("runc")
        if runc is None:
            raise MissingProgram("runc", "runc", "it runs the steps of this build")
        return (f"--runtime={runc}",)

    def _policy(self) -> Sequence[str]:
        """The machine's signature policy is honoured; without one everything is accepted, as docker does."""
        if Path("/etc/containers/policy.json").exists():
            return ()
        policy = self.conf / "policy.json"
        if not policy.exists():
            policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
        return (f"--signature-policy={policy}",)

    async def run(
        self,
        command: str,
        *arguments: str,
        progress: Progress | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run buildah; returns its standard output. Invalid with its own reason when it fails. When
        cancelled, buildah is killed."""
        environment = environment or self.prepare()
        process = await asyncio.create_subprocess_exec(
            *self._argv(command, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            output, complaints = await asyncio.gather(
                _lines(process.stdout, progress), _lines(process.stderr, progress)
            )
            code = await process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if code != 0:
            raise _failure(command, code, complaints)
        return "\n".join(output)


async def _lines(stream: asyncio.StreamReader, progress: Progress | None) -> Sequence[str]:
    """The lines of a stream, each given to `progress` as it comes; long lines are cut into pieces."""
    lines: list[str] = []
    rest = b""
    while chunk := await stream.read(65536):
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in (raw.decode(errors="replace") for raw in whole):
            lines.append(line)
            if progress is not None and line:
                progress(_readable(line))
    if rest:
        lines.append(rest.decode(errors="replace"))
        if progress is not None:
            progress(_readable(lines[-1]))
    return lines


def _readable(line: str) -> str:
    """A log line of buildah's as plain text."""
    match = _LOG_LINE.match(line)
    return f"{match.group(1)}: {match.group(2)}" if match else line


def _failure(command: str, code: int, complaints: Sequence[str]) -> PyswarmError:
    """buildah's own reason: the text from its last `Error:` on."""
    if code < 0:
        return Fatal(f"buildah {command} was ended by signal {-code}")
    start = max((n for n, line in enumerate(complaints) if line.startswith("Error: ")), default=None)
    told = complaints[start:] if start is not None else complaints[-3:]
    text = " ".join(line.strip().removeprefix("Error: ") for line in told if line.strip())
    text = re.sub(r"^1 error occurred:\s*\* ", "", text)
    text = re.sub(r"^initializing source \S+: ", "", text)
    return Invalid(text or f"buildah {command} failed with exit code {code}")


def _registries_conf(insecure_registries: Sequence[str]) -> str:
    lines = ['unqualified-search-registries = ["docker.io"]', 'short-name-mode = "permissive"']
    for location in insecure_registries:
        if "/" not in location:
            lines += ["", "[[registry]]", f'location = "{location}"', "insecure = true"]
    return "\n".join(lines) + "\n"
