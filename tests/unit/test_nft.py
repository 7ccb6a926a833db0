"""Text of packet rule changes: only differences, in an order that nftables takes."""

from __future__ import annotations

import pytest

from node_agent.network import nft
from node_agent.network.plan import Ruleset

A = Ruleset(
    chains={"one": ("dnat to 10.0.0.1",), "two": ("dnat to 10.0.0.2",)},
    elements={"vips": {"x": "goto one", "y": "goto two"}, "same": {"k": ""}},
)


def test_no_difference_is_no_text() -> None:
    assert nft.change("ip t", A, A) == ""
    assert nft.change("ip t", Ruleset(), Ruleset(elements={"vips": {}})) == ""


def test_first_load_makes_chains_before_elements() -> None:
    assert nft.change("ip t", Ruleset(), A).splitlines() == [
        "add chain ip t one",
        "add rule ip t one dnat to 10.0.0.1",
        "add chain ip t two",
        "add rule ip t two dnat to 10.0.0.2",
        "add element ip t same { k }",
        "add element ip t vips { x : goto one, y : goto two }",
    ]


def test_a_changed_chain_is_written_anew_in_place() -> None:
    changed = Ruleset(chains={**A.chains, "one": ("dnat to 10.0.0.9",)}, elements=A.elements)
    assert nft.change("ip t", A, changed).splitlines() == [
        "flush chain ip t one",
        "add rule ip t one dnat to 10.0.0.9",
    ]


def test_a_chain_goes_after_what_leads_to_it() -> None:
    left = Ruleset(chains={"two": A.chains["two"]}, elements={"vips": {"y": "goto two"}, "same": {"k": ""}})
    assert nft.change("ip t", A, left).splitlines() == [
        "delete element ip t vips { x : goto one }",
        "delete chain ip t one",
    ]


def test_a_changed_value_is_taken_out_and_put_in() -> None:
    changed = Ruleset(
        chains=A.chains, elements={"vips": {"x": "goto two", "y": "goto two"}, "same": {"k": ""}}
    )
    assert nft.change("ip t", A, changed).splitlines() == [
        "delete element ip t vips { x : goto one }",
        "add element ip t vips { x : goto two }",
    ]


def test_replacing_a_table_is_one_transaction() -> None:
    text = nft.replace("ip t", "table ip t {\n}\n", A)
    assert text.startswith("table ip t\ndelete table ip t\ntable ip t {")
    assert text.endswith("goto two }\n")


@pytest.mark.parametrize(
    "text", [nft.fabric_base("169.254.1.2"), nft.host_base("pyswarm_x", "x-up", "169.254.1.1")]
)
def test_bases_are_whole(text: str) -> None:
    assert text.count("{") == text.count("}")
