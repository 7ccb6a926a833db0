"""`pyswarm compose build|pull|push|images`, and what `up` needs of images before it deploys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import credentials, human, nodes, values
from pyswarm.cli.app import warn
from pyswarm.cli.compose_local import checked, closure, only
from pyswarm.cli.compose_session import (
    ComposeCommand,
    Scope,
    in_project,
    note,
    refuse,
    say,
    settings,
    specs_of,
)
from pyswarm.cli.compose_state import containers
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.errors import Invalid, NotFound, PyswarmError

if TYPE_CHECKING:
    from compose.convert import Build, StackSpecs

IMAGES = Layout(
    columns=("ContainerName", "Repository", "Tag", "Platform", "ID", "Size", "CreatedSince"),
    headers={
        "ContainerName": "CONTAINER",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Platform": "PLATFORM",
        "ID": "IMAGE ID",
        "Size": "SIZE",
        "CreatedSince": "CREATED",
    },
)


async def image_id(scope: Scope, reference: str) -> str:
    """The id of an image on the project's node; "" when it is not there."""
    try:
        found = await nodes.ask(scope.client, "image.inspect", {"name": reference}, node=await scope.node())
    except NotFound:
        return ""
    return str(found.get("Id", ""))


def build_all_services(builds: Sequence[Build]) -> list[Build]:
    """Each image once, in the order of the services."""
    return list({each.image: each for each in builds}.values())


async def build_images(scope: Scope, builds: Sequence[Build], *, quiet: bool = False, **more: Any) -> None:
    """Build on the project's node, one after the other."""
    from pyswarm.cli.stack import build_one

    for each in build_all_services(builds):
        say("Image", each.image, "Building")
        if settings().dry_run:
            continue
        await build_one(scope.client, each, quiet=quiet, node=await scope.node(), **more)
        say("Image", each.image, "Built")


async def pull_image(scope: Scope, reference: str, quiet: bool = False) -> None:
    say("Image", reference, "Pulling")
    if settings().dry_run:
        return
    args = {"reference": reference, "auth": credentials.registry_auth(reference)}
    lines: list[str] = []
    await nodes.ask(scope.client, "image.pull", args, node=await scope.node(), say=lines.append)
    if not quiet:
        say("Image", reference, "Pulled")


async def prepare(
    scope: Scope,
    specs: StackSpecs,
    *,
    build: bool = False,
    no_build: bool = False,
    pull: str = "policy",
    quiet_build: bool = False,
    quiet_pull: bool = False,
) -> Mapping[str, str]:
    """Build and pull what the services need on the project's node; ids by image. Of an image that is not there and
    not pulled here, the agent's own attempt says what is wrong."""
    found = {
        image: await image_id(scope, image)
        for image in sorted({each.task.container.image for each in specs.services})
    }
    wanted: list[Build] = []
    for each in build_all_services(specs.builds):
        missing = not found.get(values.tagged(each.image))
        policy = _policy(specs, each.image)
        if build or (not no_build and (missing or policy == "build")):
            wanted.append(each)
        elif no_build and missing:
            raise Invalid(
                f"services.{each.service}: image {each.image} is not there, and --no-build forbids it"
            )
    await build_images(scope, wanted, quiet=quiet_build)
    built = {values.tagged(each.image) for each in specs.builds}
    for image in sorted(set(found) - built):
        said = _policy(specs, image) if pull in ("policy", "build") else pull
        if said == "always" or (not found[image] and said != "never"):
            await pull_image(scope, image, quiet_pull)
        elif not found[image]:
            raise NotFound(f"no such image: {image}: it is not on the node, and the pull policy is never")
    if settings().dry_run:
        return {}
    ids = {image: await image_id(scope, image) for image in sorted(found)}
    return {image: identifier for image, identifier in ids.items() if identifier}


def _policy(specs: StackSpecs, image: str) -> str:
    return next(
        (
            each.task.container.pull_policy
            for each in specs.services
            if values.tagged(each.task.container.image) == values.tagged(image)
        ),
        "",
    )


# ------------------------------------------------------------------------------------------- commands


def _selected(scope: Scope, names: Sequence[str], deps: bool) -> StackSpecs:
    """The specs of these services, or of all."""
    project = scope.loaded()
    for name in names:
        checked(project, name)
    specs = specs_of(project)
    if not names:
        return specs
    return only(specs, closure(project, names) if deps else names)


@click.command(cls=ComposeCommand)
@click.option("--build-arg", "build_args", multiple=True, help="Set build-time variables for services.")
@click.option("--no-cache", is_flag=True, help="Do not use cache when building the image.")
@click.option("--pull", is_flag=True, help="Always attempt to pull a newer version of the image.")
@click.option("--push", "then_push", is_flag=True, help="Push service images.")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the build output.")
@click.option("--ssh", multiple=True, help="SSH agent socket or keys to use.")
@click.option("--with-dependencies", is_flag=True, help="Also build dependencies (transitively).")
@click.option("-m", "--memory", default="", help="Not supported.")
@click.option("--builder", default="", help="Not supported.")
@click.option("--check", is_flag=True, help="Not supported.")
@click.option("--print", "print_bake", is_flag=True, help="Not supported.")
@click.option("--provenance", default="", help="Not supported.")
@click.option("--sbom", default="", help="Not supported.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project(needed=True)
async def build(
    scope: Scope,
    build_args: tuple[str, ...],
    no_cache: bool,
    pull: bool,
    then_push: bool,
    quiet: bool,
    ssh: tuple[str, ...],
    with_dependencies: bool,
    names: tuple[str, ...],
    **options: Any,
) -> None:
    """Build or rebuild services."""
    for key in ("memory", "builder", "check", "print_bake", "provenance", "sbom"):
        if options[key]:
            refuse(f"--{key.partition('_')[0]}", "images are built by buildah on the node")
    specs = _selected(scope, names, with_dependencies)
    if not specs.builds:
        warn("no services to build")
    import os

    for each in build_all_services(specs.builds):
        given = {
            key: value if separator else os.environ.get(key, "")
            for key, separator, value in (text.partition("=") for text in build_args)
        }
        more: dict[str, Any] = {"args": {**each.args, **given}}
        if no_cache:
            more["no_cache"] = True
        if pull:
            more["pull"] = True
        if ssh:
            more["ssh"] = [*each.ssh, *ssh]
        await build_images(scope, [each], quiet=quiet, **more)
        if then_push:
            await _push(scope, each.image)


@click.command(cls=ComposeCommand)
@click.option("--ignore-buildable", is_flag=True, help="Ignore images that can be built.")
@click.option("--ignore-pull-failures", is_flag=True, help="Pull what can be pulled.")
@click.option("--include-deps", is_flag=True, help="Also pull services declared as dependencies.")
@click.option("--policy", type=click.Choice(("missing", "always")), default="always", help="Pull policy.")
@click.option("-q", "--quiet", is_flag=True, help="Pull without printing progress information.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project(needed=True)
async def pull(
    scope: Scope,
    ignore_buildable: bool,
    ignore_pull_failures: bool,
    include_deps: bool,
    policy: str,
    quiet: bool,
    names: tuple[str, ...],
) -> None:
    """Pull service images."""
    specs = _selected(scope, names, include_deps)
    built = {values.tagged(each.image) for each in specs.builds}
    for image in sorted({each.task.container.image for each in specs.services}):
        if image in built and (ignore_buildable or _is_default(specs, image)):
            continue
        if policy == "missing" and await image_id(scope, image):
            continue
        try:
            await pull_image(scope, image, quiet)
        except PyswarmError as error:
            if not ignore_pull_failures and image not in built:
                raise
            note(f"{image} cannot be pulled: {error}")


def _is_default(specs: StackSpecs, image: str) -> bool:
    """Whether the image has the name that a service without `image` gets: no registry has it."""
    return image.startswith(f"{specs.stack}-") and "/" not in image


@click.command(cls=ComposeCommand)
@click.option("--ignore-push-failures", is_flag=True, help="Push what can be pushed.")
@click.option("--include-deps", is_flag=True, help="Also push images of services declared as dependencies.")
@click.option("-q", "--quiet", is_flag=True, help="Push without printing progress information.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project(needed=True)
async def push(
    scope: Scope, ignore_push_failures: bool, include_deps: bool, quiet: bool, names: tuple[str, ...]
) -> None:
    """Push service images, those that are built here."""
    del quiet
    specs = _selected(scope, names, include_deps)
    for each in build_all_services(specs.builds):
        if not scope.loaded().services[each.service].image:
            say("Service", each.service, "Skipped: it has no image name that a registry could have")
            continue
        for image in dict.fromkeys((each.image, *each.tags)):
            try:
                await _push(scope, image)
            except PyswarmError as error:
                if not ignore_push_failures:
                    raise
                note(f"{image} cannot be pushed: {error}")


async def _push(scope: Scope, image: str) -> None:
    reference = values.tagged(image)
    say("Image", reference, "Pushing")
    if settings().dry_run:
        return
    args = {"reference": reference, "auth": credentials.registry_auth(reference)}
    await nodes.ask(scope.client, "image.push", args, node=await scope.node())
    say("Image", reference, "Pushed")


@click.command(cls=ComposeCommand)
@click.option("--format", type=click.Choice(("table", "json")), default="table", help="Format the output.")
@click.option("-q", "--quiet", is_flag=True, help="Only display IDs.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def images(scope: Scope, format: str, quiet: bool, names: tuple[str, ...]) -> None:
    """List images used by the created containers."""
    shown: list[Any] = []
    for each in containers(scope.chosen(names), scope.tasks):
        reference = each.task.spec.container.image
        try:
            found = await nodes.ask(
                scope.client, "image.inspect", {"name": reference}, node=each.task.node_id
            )
        except NotFound:
            continue
        name, _, tag = reference.partition("@")[0].rpartition(":")
        identifier = str(found.get("Id", "")).removeprefix("sha256:")
        shown.append(
            row(
                ContainerName=each.name,
                Repository=name,
                Tag=tag,
                Platform=f"{found.get('Os', 'linux')}/{found.get('Architecture', '')}",
                ID=human.short(identifier),
                Size=human.decimal_size(found.get("Size", 0)),
                CreatedSince=human.ago(_created(found.get("Created")), scope.app.now()),
            )
        )
    if quiet:
        click.echo("".join(f"{name}\n" for name in dict.fromkeys(each["ID"] for each in shown)), nl=False)
    else:
        click.echo(formatted(shown, IMAGES, "" if format == "table" else format), nl=False)


def _created(value: Any) -> float:
    """When an image was made, from the text or the number that its node gave."""
    from pyswarm.engine import parse_rfc3339

    return parse_rfc3339(value) if isinstance(value, str) and value else float(value or 0)
