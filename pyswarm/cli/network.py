"""`pyswarm network`: create, ls, inspect, rm, prune."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import click

from pyswarm import engine
from pyswarm.cli import human, inspection, pruning, values
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
from pyswarm.cli.lazy import LazyGroup, refused, refused_option
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.clock import rfc3339
from pyswarm.errors import Invalid
from pyswarm.gotemplate import Struct, Time
from pyswarm.objects import Network
from pyswarm.specs import Driver, IpamPool, NetworkSpec

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("ID", "Name", "Driver", "Scope"),
    headers={
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
)


@click.group(cls=LazyGroup)
def network() -> None:
    """Manage networks."""


ATTACHING = "containers are tasks of services: use `pyswarm service update --network-add` or `--network-rm`"
NO_CONFIGS = "every network is the whole cluster's, so no node has settings of its own for it"
network.add_command(refused("connect", ATTACHING))
network.add_command(refused("disconnect", ATTACHING))


@network.command()
@click.argument("name", metavar="NETWORK")
@click.option("--attachable", is_flag=True, help="Enable manual container attachment.")
@click.option("--aux-address", multiple=True, help="Auxiliary IPv4 or IPv6 addresses (name=address).")
@refused_option("--config-from", why=NO_CONFIGS)
@refused_option("--config-only", why=NO_CONFIGS, flag=True)
@click.option("-d", "--driver", default="overlay", help="Driver to manage the network.")
@click.option("--gateway", multiple=True, help="IPv4 or IPv6 gateway of a subnet.")
@click.option("--ingress", is_flag=True, help="Create the routing-mesh network.")
@click.option("--internal", is_flag=True, help="Restrict external access to the network.")
@click.option("--ip-range", multiple=True, help="Allocate addresses from a sub-range.")
@click.option("--ipam-driver", default="default", help="IP address management driver.")
@click.option("--ipam-opt", multiple=True, help="IPAM driver options (key=value).")
@click.option("--ipv4/--no-ipv4", default=True, help="Enable IPv4 networking.")
@click.option("--ipv6/--no-ipv6", default=False, help="Enable IPv6 networking.")
@click.option("--label", multiple=True, help="Set metadata on the network.")
@click.option("-o", "--opt", multiple=True, help="Driver options (key=value).")
@click.option("--scope", default="swarm", help="The network's scope.")
@click.option("--subnet", multiple=True, help="Subnet in CIDR format.")
@connected
async def create(
    app: App,
    client: Client,
    name: str,
    attachable: bool,
    aux_address: tuple[str, ...],
    driver: str,
    gateway: tuple[str, ...],
    ingress: bool,
    internal: bool,
    ip_range: tuple[str, ...],
    ipam_driver: str,
    ipam_opt: tuple[str, ...],
    ipv4: bool,
    ipv6: bool,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    scope: str,
    subnet: tuple[str, ...],
) -> None:
    """Create a network."""
    del app
    spec = NetworkSpec(
        name=name,
        labels=values.pairs(label),
        driver=Driver(name=driver, options=values.pairs(opt)),
        internal=internal,
        attachable=attachable,
        ingress=ingress,
        enable_ipv4=ipv4,
        enable_ipv6=ipv6,
        scope=scope,
        ipam_driver=Driver(
            name="" if ipam_driver == "default" else ipam_driver, options=values.pairs(ipam_opt)
        ),
        ipam=pools(subnet, ip_range, gateway, aux_address),
    )
    click.echo((await client.create(spec)).id)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def _subnet(text: str) -> _Subnet:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise Invalid(f"invalid subnet {text}: {error}") from None


def _address(text: str) -> _Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise Invalid(f"invalid address {text}: {error}") from None


def pools(
    subnets: tuple[str, ...], ranges: tuple[str, ...], gateways: tuple[str, ...], auxiliary: tuple[str, ...]
) -> tuple[IpamPool, ...]:
    """The pools, each with the range, gateway and auxiliary addresses that lie in it. Raises Invalid for
    one that lies in none."""
    found = [_subnet(text) for text in subnets]
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            if one.version == other.version and one.overlaps(other):
                raise Invalid(
                    f"multiple overlapping subnet configuration is not supported: {one} and {other}"
                )

    def home(network: _Subnet, what: str, text: str) -> int:
        for index, each in enumerate(found):
            same = each.version == network.version
            if same and network.network_address in each and network.broadcast_address in each:
                return index
        raise Invalid(f"no matching subnet for {what} {text}: give it with --subnet")

    chosen: dict[str, dict[int, str]] = {"range": {}, "gateway": {}}
    for what, texts in (("range", ranges), ("gateway", gateways)):
        for text in texts:
            inside = _subnet(text) if what == "range" else ipaddress.ip_network(_address(text))
            index = home(inside, what, text)
            if index in chosen[what]:
                raise Invalid(f"cannot configure multiple {what}s on the same subnet {found[index]}")
            chosen[what][index] = text
    named: dict[int, dict[str, str]] = {}
    for name, text in values.pairs(auxiliary).items():
        index = home(ipaddress.ip_network(_address(text)), "aux-address", text)
        named.setdefault(index, {})[name] = text
    return tuple(
        IpamPool(
            subnet=str(each),
            ip_range=chosen["range"].get(index, ""),
            gateway=chosen["gateway"].get(index, ""),
            aux_addresses=named.get(index, {}),
        )
        for index, each in enumerate(found)
    )


@network.command("ls")
@filter_option
@format_option
@no_trunc_option
@quiet_option("Only display network IDs.")
@connected
async def list_networks(
    app: App, client: Client, filters: tuple[str, ...], format: str, no_trunc: bool, quiet: bool
) -> None:
    """List networks."""
    del app
    found = sorted(
        await client.networks(values.filters(filters)), key=lambda each: human.natural(each.spec.name)
    )
    shown = [_row(each, no_trunc) for each in found]
    click.echo(formatted(shown, LAYOUT, format, quiet), nl=False)


def _row(found: Network, full: bool) -> Struct:
    spec = found.spec
    return row(
        spec.labels,
        ID=human.short(found.id, full),
        Name=spec.name,
        Driver=spec.driver.name,
        Scope=spec.scope,
        IPv4="true" if spec.enable_ipv4 else "false",
        IPv6="true" if spec.enable_ipv6 else "false",
        Internal="true" if spec.internal else "false",
        CreatedAt=Time(rfc3339(found.meta.created_at)).shown(),
    )


@network.command()
@click.argument("networks", nargs=-1, required=True, shell_complete=complete("network"))
@inspect_format_option
@click.option("-v", "--verbose", is_flag=True, help="Also show services and tasks.")
@connected
async def inspect(app: App, client: Client, networks: tuple[str, ...], format: str, verbose: bool) -> None:
    """Display detailed information on one or more networks."""
    del app

    async def fetch(ref: str) -> Struct:
        found = await client.get(Network, ref)
        shown = engine.network(found)
        return await _verbose(client, found, shown) if verbose else shown

    await inspection.inspect(networks, fetch, _same, format, strict=True)


def _same(struct: Struct) -> Struct:
    return struct


async def _verbose(client: Client, found: Network, shown: Struct) -> Struct:
    """With the services on the network, their VIPs and their tasks' addresses, as docker has them."""
    nodes = {each.id: each for each in await client.nodes()}
    tasks = await client.tasks([("desired-state", "running")])
    services: dict[str, Struct] = {}
    for service in await client.services():
        endpoint = service.endpoint
        vips = (
            [vip.addr.partition("/")[0] for vip in endpoint.virtual_ips if vip.network_id == found.id]
            if endpoint
            else []
        )
        members: list[Struct] = []
        for task in tasks:
            for attachment in task.networks if task.service_id == service.id else ():
                if attachment.network_id == found.id and attachment.addresses:
                    node = nodes.get(task.node_id)
                    members.append(
                        Struct(
                            {
                                "Name": task.name,
                                "EndpointID": "",
                                "EndpointIP": attachment.addresses[0].partition("/")[0],
                                "Info": {"Host IP": node.status.addr if node else ""},
                            }
                        )
                    )
        if members or vips:
            published = endpoint.ports if endpoint else ()
            services[service.spec.name] = Struct(
                {
                    "VIP": vips[0] if vips else "",
                    "Ports": [
                        f"Target: {port.target_port}, Publish: {port.published_port}" for port in published
                    ],
                    "LocalLBIndex": 0,
                    "Tasks": members,
                }
            )
    return Struct({**shown, "Services": services}, shown.zero, shown.go_type)


@network.command("rm")
@click.argument("networks", nargs=-1, required=True, shell_complete=complete("network"))
@click.option("-f", "--force", is_flag=True, help="Do not error if the network does not exist.")
@connected
async def remove(app: App, client: Client, networks: tuple[str, ...], force: bool) -> None:
    """Remove one or more networks."""
    del app

    async def one(ref: str) -> None:
        await inspection.unless_gone(client.remove("network", ref), force)

    await inspection.remove_each(networks, one)


@network.command()
@prune_filter_option
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation.")
@connected
async def prune(app: App, client: Client, filters: tuple[str, ...], force: bool) -> None:
    """Remove all networks that no service and no task uses."""
    chosen = pruning.chosen(filters, app.now())
    if not pruning.confirmed("all custom networks not used by at least one container.", force):
        return
    failures = inspection.Failures()
    await prune_unused(client, chosen, failures)
    failures.finish()


async def prune_unused(client: Client, chosen: pruning.Chosen, failures: inspection.Failures) -> None:
    """Remove those of the unused networks that are meant, and print their names."""
    removed: list[str] = []
    for found in await client.networks([("dangling", "true"), ("type", "custom")]):
        if not chosen.takes(found.spec.labels, found.meta.created_at):
            continue
        with failures.kept():
            await client.remove("network", found.id)
            removed.append(found.spec.name)
    if removed:
        click.echo("Deleted Networks:\n" + "".join(f"{name}\n" for name in removed))
