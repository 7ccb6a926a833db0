"""`pyswarm image`: ls, pull, push, build, tag, inspect, rm, prune, on one node or on all; see image_files too."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pyswarm.cli import archive, credentials, human, inspection, nodes, pruning, values
from pyswarm.cli.app import (
    App,
    connected,
    filter_option,
    format_option,
    inspect_format_option,
    no_trunc_option,
    prune_filter_option,
    quiet_option,
)
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import Entry, LazyGroup, needless_option, refused, refused_option
from pyswarm.cli.service_flags import BYTES
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.clock import rfc3339
from pyswarm.errors import Invalid, NotFound
from pyswarm.gotemplate import Struct, Time

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("Repository", "Tag", "ID", "CreatedSince", "Size"),
    headers={
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
        "Node": "NODE",
    },
)
DIGEST_LAYOUT = Layout(
    columns=("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"), headers=LAYOUT.headers
)

node_option = click.option(
    "--node", default="", shell_complete=complete("node"), help="Node (default: the manager's own)."
)
all_nodes_option = click.option("--all-nodes", is_flag=True, help="On every node.")


@click.group(
    cls=LazyGroup,
    entries={
        "history": Entry("pyswarm.cli.image_files:history", "Show the history of an image"),
        "load": Entry("pyswarm.cli.image_files:load", "Load an image from a tar archive or stdin"),
        "save": Entry("pyswarm.cli.image_files:save", "Save images to a tar archive"),
    },
)
def image() -> None:
    """Manage the images of the nodes."""


image.add_command(refused("import", "build an image with `FROM scratch` and `ADD archive.tar /`"))
UNUSED = "all images without at least one container associated to them"
DANGLING = "all dangling images"
ONE_PLATFORM = "a node keeps an image for its own platform"


async def targets(client: Client, node: str, all_nodes: bool) -> list[tuple[str, str]]:
    """(id, name to show) of the nodes that are meant; the name is "" when there is but one."""
    if all_nodes and node:
        raise Invalid("--node and --all-nodes exclude each other")
    if not all_nodes:
        return [(await nodes.chosen(client, node), "")]
    return [(each.id, each.description.hostname) for each in await nodes.ready(client)]


async def _on_each(
    client: Client, where: Sequence[tuple[str, str]], verb: str, args: dict[str, Any]
) -> list[Any]:
    """The answers of the nodes, one after the other; errors are raised together at the end."""
    answers: list[Any] = []
    failures = inspection.Failures()
    for each, name in where:
        with failures.kept(f"node {name}" if name else ""):
            answers.append(await nodes.ask(client, verb, args, node=each, say=_speaker(name)))
    failures.finish()
    return answers


def _speaker(name: str) -> nodes.Say:
    def say(text: str) -> None:
        click.echo(f"{name}: {text}" if name else text, err=True)

    return say


# ------------------------------------------------------------------------------------------- looking


def _split(reference: str) -> tuple[str, str]:
    """(repository, tag) of a name, docker's <none> for what is missing."""
    name, separator, tag = reference.rpartition(":")
    return (name, tag) if separator and "/" not in tag else (reference, "<none>")


def _names(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(repository, tag, digest) of an image, a row each."""
    digests = {each.partition("@")[0]: each.partition("@")[2] for each in summary.get("RepoDigests") or ()}
    tags = [_split(each) for each in summary.get("RepoTags") or () if each != "<none>:<none>"]
    if tags:
        return [(name, tag, digests.get(name, "<none>")) for name, tag in tags]
    return [(name, "<none>", digest) for name, digest in digests.items()] or [("<none>", "<none>", "<none>")]


def image_rows(found: Sequence[tuple[str, dict[str, Any]]], now: float, full: bool) -> list[Struct]:
    """Rows of `image ls`, newest first. `found` pairs each image with the name of its node."""
    ordered = sorted(found, key=lambda pair: (-pair[1].get("Created", 0), str(pair[1].get("Id")), pair[0]))
    shown: list[Struct] = []
    for node, summary in ordered:
        identifier = str(summary.get("Id", ""))
        size = human.decimal_size(summary.get("Size", 0))
        for repository, tag, digest in _names(summary):
            shown.append(
                row(
                    ID=identifier if full else human.short(identifier.removeprefix("sha256:")),
                    Repository=repository,
                    Tag=tag,
                    Digest=digest,
                    CreatedSince=human.ago(summary.get("Created", 0), now),
                    CreatedAt=Time(rfc3339(summary.get("Created", 0))).shown(),
                    Size=size,
                    Containers=str(summary.get("Containers", "N/A")),
                    VirtualSize=size,
                    SharedSize="N/A",
                    UniqueSize="N/A",
                    Node=node,
                )
            )
    return shown


def _passes(summary: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> bool:
    """docker's filters of images: dangling, label, reference."""
    import fnmatch

    tags = [each for each in summary.get("RepoTags") or () if each != "<none>:<none>"]
    labels = summary.get("Labels") or {}
    for key, value in pairs:
        if key == "dangling":
            if (not tags) != values.boolean(value, "dangling"):
                return False
        elif key == "label":
            name, separator, wanted = value.partition("=")
            if name not in labels or (separator and labels[name] != wanted):
                return False
        elif key == "reference":
            names = [*tags, *(_split(tag)[0] for tag in tags)]
            if not any(fnmatch.fnmatchcase(name, value) for name in names):
                return False
        else:
            raise Invalid(f"invalid filter {key!r}: one of dangling, label, reference")
    return True


@image.command("ls")
@click.argument("repository", required=False, default="", metavar="[REPOSITORY[:TAG]]")
@click.option("-a", "--all", "everything", is_flag=True, help="Show intermediate images too.")
@click.option("--digests", is_flag=True, help="Show digests.")
@filter_option
@format_option
@no_trunc_option
@quiet_option("Only show image IDs.")
@refused_option("--tree", why=ONE_PLATFORM, flag=True)
@node_option
@all_nodes_option
@connected
async def list_images(
    app: App,
    client: Client,
    repository: str,
    everything: bool,
    digests: bool,
    filters: tuple[str, ...],
    format: str,
    no_trunc: bool,
    quiet: bool,
    node: str,
    all_nodes: bool,
) -> None:
    """List images."""
    pairs = values.filters(filters)
    if repository:
        pairs.append(("reference", repository))
    where = await targets(client, node, all_nodes)
    answers = await _on_each(client, where, "image.ls", {"all": everything})
    found = [
        (name, summary)
        for (_, name), answer in zip(where, answers, strict=True)
        for summary in answer
        if _passes(summary, pairs)
    ]
    shown = image_rows(found, app.now(), no_trunc)
    if quiet:
        shown = list({each["ID"]: each for each in shown}.values())
    click.echo(formatted(shown, DIGEST_LAYOUT if digests else LAYOUT, format, quiet), nl=False)


@image.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@inspect_format_option
@refused_option("--platform", why=ONE_PLATFORM)
@node_option
@connected
async def inspect(app: App, client: Client, names: tuple[str, ...], format: str, node: str) -> None:
    """Display detailed information on one or more images."""
    del app
    target = await nodes.chosen(client, node)

    async def fetch(ref: str) -> Struct:
        return Struct(await nodes.ask(client, "image.inspect", {"name": ref}, node=target))

    def same(found: Struct) -> Struct:
        return found

    await inspection.inspect(names, fetch, same, format, strict=True)


# ------------------------------------------------------------------------------------------- changing


@image.command()
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@refused_option("-a", "--all-tags", why="pull the tags that you need, one by one", flag=True)
@needless_option("--disable-content-trust")
@click.option("--platform", default="", help="Platform of the image, where it has several (os/arch).")
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output.")
@node_option
@all_nodes_option
@connected
async def pull(
    app: App, client: Client, name: str, platform: str, quiet: bool, node: str, all_nodes: bool
) -> None:
    """Download an image from a registry."""
    del app
    if values.tagged(name) != name:
        click.echo("Using default tag: latest")
    reference = values.tagged(name)
    args = {"reference": reference, "auth": credentials.registry_auth(reference), "platform": platform}
    where = await targets(client, node, all_nodes)
    for target in where:
        answer = (await _on_each(client, [target], "image.pull", args))[0]
        if answer.get("digest") and not quiet:
            click.echo(f"Digest: {answer['digest']}")
    click.echo(_domained(reference))


def _domained(reference: str) -> str:
    domain = credentials.domain(reference)
    if domain != "docker.io" or reference.startswith("docker.io/"):
        return reference
    return f"docker.io/{reference if '/' in reference else f'library/{reference}'}"


@image.command()
@click.argument("name", metavar="NAME[:TAG]")
@refused_option("-a", "--all-tags", why="push the tags one by one", flag=True)
@needless_option("--disable-content-trust")
@refused_option("--platform", why=ONE_PLATFORM)
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output.")
@node_option
@connected
async def push(app: App, client: Client, name: str, quiet: bool, node: str) -> None:
    """Upload an image to a registry."""
    del app
    reference = values.tagged(name)
    args = {"reference": reference, "auth": credentials.registry_auth(reference)}
    target = await nodes.chosen(client, node)
    answer = await nodes.ask(client, "image.push", args, node=target, say=_speaker(""))
    if quiet:
        click.echo(_domained(reference))
    else:
        click.echo(f"{reference.rpartition(':')[2]}: digest: {answer.get('digest', '')}")


@image.command()
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]")
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
@node_option
@all_nodes_option
@connected
async def tag(app: App, client: Client, source: str, target: str, node: str, all_nodes: bool) -> None:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE."""
    del app
    where = await targets(client, node, all_nodes)
    await _on_each(client, where, "image.tag", {"source": source, "target": values.tagged(target)})


@image.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--force", is_flag=True, help="Force removal of the image.")
@click.option("--no-prune", is_flag=True, hidden=True)
@refused_option("--platform", why=ONE_PLATFORM)
@node_option
@all_nodes_option
@connected
async def remove(
    app: App, client: Client, names: tuple[str, ...], force: bool, no_prune: bool, node: str, all_nodes: bool
) -> None:
    """Remove one or more images."""
    del app, no_prune
    where = await targets(client, node, all_nodes)
    failures = inspection.Failures()
    for name in names:
        with failures.kept(), suppress(NotFound) if force else nullcontext():
            answers = await _on_each(client, where, "image.rm", {"references": [name], "force": force})
            for entry in (entry for answer in answers for entry in answer):
                click.echo("\n".join(f"{word}: {what}" for word, what in entry.items()))
    failures.finish()


@image.command()
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Remove all unused images, not just dangling ones."
)
@prune_filter_option
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation.")
@node_option
@all_nodes_option
@connected
async def prune(
    app: App,
    client: Client,
    everything: bool,
    filters: tuple[str, ...],
    force: bool,
    node: str,
    all_nodes: bool,
) -> None:
    """Remove unused images; what a task on the node uses is never removed."""
    chosen = pruning.chosen([each for each in filters if not each.startswith("dangling=")], app.now())
    everything = everything or "dangling=false" in filters
    if not pruning.confirmed(f"{UNUSED if everything else DANGLING}.", force):
        return
    args = {"all": everything, "keep": await wanted_by_services(client), **asdict(chosen)}
    answers = await _on_each(client, await targets(client, node, all_nodes), "image.prune", args)
    deleted = [name for answer in answers for name in answer.get("deleted") or ()]
    if deleted:
        click.echo("Deleted Images:\n" + "".join(f"deleted: {name}\n" for name in deleted))
    reclaimed = sum(int(answer.get("reclaimed") or 0) for answer in answers)
    click.echo(f"Total reclaimed space: {human.decimal_size(reclaimed)}")


async def wanted_by_services(client: Client) -> list[str]:
    """Images that services may need again: after scaling up from nothing, and for going back to the previous
    version."""
    specs = [spec for each in await client.services() for spec in (each.spec, each.previous_spec) if spec]
    return sorted({spec.task.container.image for spec in specs})


# ------------------------------------------------------------------------------------------- building


@image.command()
@click.argument("path", metavar="PATH|URL|-")
@click.option("--add-host", multiple=True, help="Add a custom host-to-IP mapping (host:ip).")
@click.option("--build-arg", multiple=True, help="Set build-time variables.")
@click.option("--build-context", multiple=True, help="Additional build contexts (name=path).")
@click.option("--cache-from", multiple=True, help="Images to consider as cache sources.")
@click.option("--cgroup-parent", default="", help="Parent cgroup of the RUN instructions.")
@needless_option("--compress")
@click.option("--cpu-period", default="", metavar="MICROSECONDS", help="Limit the CPU CFS period.")
@click.option("--cpu-quota", default="", metavar="MICROSECONDS", help="Limit the CPU CFS quota.")
@click.option("-c", "--cpu-shares", default="", metavar="WEIGHT", help="CPU shares.")
@click.option(
    "--cpuset-cpus", default="", metavar="CPUS", help="CPUs in which to allow execution (0-3, 0,1)."
)
@click.option("--cpuset-mems", default="", metavar="NODES", help="Memory nodes in which to allow execution.")
@needless_option("--disable-content-trust")
@click.option("-f", "--file", default="", help="Name of the Dockerfile (default: PATH/Dockerfile).")
@needless_option("--force-rm")
@click.option("--iidfile", type=click.Path(dir_okay=False), help="Write the image ID to the file.")
@refused_option("--isolation", why="containers of Linux have one kind")
@click.option("--label", multiple=True, help="Set metadata for an image.")
@click.option("-m", "--memory", default="", metavar="BYTES", help="Memory limit.")
@click.option(
    "--memory-swap", default="", metavar="BYTES", help="Limit of memory and swap; -1 for unlimited swap."
)
@click.option("--network", default="default", help="Networking mode for RUN instructions.")
@click.option("--no-cache", is_flag=True, help="Do not use cache when building the image.")
@click.option("--platform", multiple=True, help="Set target platform for build.")
@click.option("--pull", is_flag=True, help="Always attempt to pull all referenced images.")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the build output and print image ID on success.")
@needless_option("--rm")
@click.option("--security-opt", multiple=True, help="Security options.")
@refused_option(
    "--squash", why="layers are shared between images: use a stage of its own, and COPY", flag=True
)
@click.option(
    "--secret", multiple=True, help="Secret to expose to the build (id=NAME,src=FILE|env=VARIABLE)."
)
@click.option("--shm-size", type=BYTES, default="0", help="Shared memory size for build containers.")
@click.option("--ssh", multiple=True, help="SSH agent socket or keys to expose to the build.")
@click.option("-t", "--tag", multiple=True, help="Name and optionally a tag (name:tag).")
@click.option("--target", default="", help="Set the target build stage to build.")
@click.option("--ulimit", multiple=True, help="Ulimit options.")
@node_option
@all_nodes_option
@connected
async def build(
    app: App,
    client: Client,
    path: str,
    add_host: tuple[str, ...],
    build_arg: tuple[str, ...],
    build_context: tuple[str, ...],
    cache_from: tuple[str, ...],
    file: str,
    iidfile: str | None,
    label: tuple[str, ...],
    network: str,
    no_cache: bool,
    platform: tuple[str, ...],
    pull: bool,
    quiet: bool,
    secret: tuple[str, ...],
    shm_size: int,
    ssh: tuple[str, ...],
    tag: tuple[str, ...],
    target: str,
    ulimit: tuple[str, ...],
    node: str,
    all_nodes: bool,
    **limits: str | tuple[str, ...],
) -> None:
    """Build an image from a Dockerfile."""
    del app
    args: dict[str, Any] = {
        "tags": [values.tagged(each) for each in tag],
        "args": {
            k: v if sep else os.environ.get(k, "") for k, sep, v in (a.partition("=") for a in build_arg)
        },
        "additional_contexts": values.pairs(build_context),
        "cache_from": list(cache_from),
        "labels": values.pairs(label),
        "network": network,
        "no_cache": no_cache,
        "pull": pull,
        "target": target,
        "secrets": [_secret(text) for text in secret],
        "ssh": list(ssh),
        "extra_hosts": list(add_host),
        "platforms": list(platform),
        "shm_size": shm_size,
        "ulimits": list(ulimit),
        "limits": {flag.replace("_", "-"): value for flag, value in limits.items() if value},
    }
    for each, name in await targets(client, node, all_nodes):
        answer = await build_on(client, path, file, args, each, nodes_say(quiet, name))
        click.echo(answer["id"])
        if iidfile is not None:
            Path(iidfile).write_text(f"sha256:{answer['id']}")


def nodes_say(quiet: bool, name: str = "") -> nodes.Say:
    """Where lines of progress go: standard error, or nowhere."""
    return (lambda text: None) if quiet else _speaker(name)


def _secret(text: str) -> dict[str, str]:
    """`--secret id=NAME,src=FILE` or `id=NAME,env=VARIABLE`, with the secret's value."""
    given = values.pairs(text.split(","))
    name = given.get("id", "")
    source, variable = given.get("src") or given.get("source", ""), given.get("env", "")
    if not name:
        raise Invalid(f"invalid secret {text!r}: id is missing")
    if variable:
        if variable not in os.environ:
            raise Invalid(f"invalid secret {text!r}: the variable {variable} is not set")
        return {"id": name, "value": os.environ[variable]}
    try:
        return {"id": name, "value": Path(source or name).read_text()}
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"invalid secret {text!r}: {error}") from None


async def build_on(
    client: Client, context: str, dockerfile: str, args: dict[str, Any], node: str, say: nodes.Say
) -> Any:
    """Build on a node from a directory here, standard input ("-") or a URL. The answer has the image's id."""
    if _remote(context):
        return await nodes.ask(
            client, "image.build", {**args, "context": context, "dockerfile": dockerfile}, node=node, say=say
        )
    file, name = _packed(context, dockerfile, args)
    with file:
        request = {**args, "context": "-", "dockerfile": name}
        data: AsyncIterator[bytes] = archive.pieces(file)
        return await nodes.ask(client, "image.build", request, node=node, data=data, say=say)


def _remote(context: str) -> bool:
    return "://" in context or context.startswith("git@")


def _packed(context: str, dockerfile: str, args: dict[str, Any]) -> tuple[IO[bytes], str]:
    """The archive to send, and the Dockerfile's name in it."""
    if context == "-":
        data = sys.stdin.buffer.read()
        import io

        if data[257:262] == b"ustar" or data[:2] == b"\x1f\x8b":
            return io.BytesIO(data), dockerfile
        return archive.pack_dockerfile(data), "Dockerfile"
    place = Path(context)
    if not dockerfile or args.get("dockerfile_inline"):
        return archive.pack(place, ""), ""
    path = Path(dockerfile)
    inside = path if path.is_absolute() else (place / path if (place / path).exists() else path)
    if not inside.is_file():
        raise Invalid(f"unable to evaluate the Dockerfile: {inside} does not exist")
    try:
        return archive.pack(place, name := inside.resolve().relative_to(place.resolve()).as_posix()), name
    except ValueError:
        return archive.pack(place, ".pyswarm.Dockerfile", inside), ".pyswarm.Dockerfile"
