"""DNS messages: read, answered from zones, held against an independent library."""

from __future__ import annotations

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.network import dns
from node_agent.network.plan import Zone

ZONE = Zone(
    network="front",
    names={
        "web": ("10.0.1.2",),
        "many": tuple(f"10.0.2.{number}" for number in range(1, 101)),
        "both": ("10.0.1.9", "2001:db8::9"),
        "empty": (),
        "under_score": ("10.0.1.3",),
    },
    reverse={"10.0.1.2": "web", "2001:db8::9": "both"},
    subnets=("10.0.1.0/24", "2001:db8::/64"),
)


def ask(
    name: str, kind: str = "A", *, limit: int | None = None, udp_size: int = 0, turn: int = 0
) -> dnslib.DNSRecord:
    question = dnslib.DNSRecord.question(name, kind)
    if udp_size:
        question.add_ar(dnslib.EDNS0(udp_len=udp_size))
    query = dns.parse(bytes(question.pack()))
    reply = dns.answer(query, [ZONE], turn, query.limit if limit is None else limit)
    assert reply is not None
    record = dnslib.DNSRecord.parse(reply)
    assert (
        record.header.id == question.header.id
        and record.header.qr
        and str(record.q.qname) == str(question.q.qname)
    )
    return record


def found(record: dnslib.DNSRecord) -> list[str]:
    return [str(answer.rdata) for answer in record.rr]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web", "A", ["10.0.1.2"]),
        ("WEB.Front.", "A", ["10.0.1.2"]),
        ("under_score", "A", ["10.0.1.3"]),
        ("web", "AAAA", []),
        ("web", "MX", []),
        ("web", "ANY", ["10.0.1.2"]),
        ("both", "A", ["10.0.1.9"]),
        ("both", "AAAA", ["2001:db8::9"]),
        ("empty", "A", []),
        ("2.1.0.10.in-addr.arpa", "PTR", ["web.front."]),
        ("9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR", ["both.front."]),
    ],
)
def test_answers(name: str, kind: str, expected: list[str]) -> None:
    record = ask(name, kind)
    assert record.header.rcode == 0 and record.header.aa and record.header.ra
    assert found(record) == expected
    assert all(answer.ttl <= 5 for answer in record.rr)


def test_unknown_address_of_ours_does_not_exist_and_others_are_forwarded() -> None:
    assert ask("77.1.0.10.in-addr.arpa", "PTR").header.rcode == dns.NXDOMAIN
    for name, kind in (("example.com", "A"), ("7.2.0.192.in-addr.arpa", "PTR"), ("x.in-addr.arpa", "PTR")):
        assert (
            dns.answer(dns.parse(bytes(dnslib.DNSRecord.question(name, kind).pack())), [ZONE], 0, 512) is None
        )


def test_addresses_take_turns() -> None:
    assert {found(ask("many", limit=65535, turn=turn))[0] for turn in range(100)} == set(ZONE.names["many"])
    assert sorted(found(ask("many", limit=65535, turn=7))) == sorted(ZONE.names["many"])


def test_too_long_for_udp_is_cut_with_the_truncation_bit() -> None:
    plain = ask("many")
    assert plain.header.tc and not plain.rr
    larger = ask("many", udp_size=4096)
    assert larger.header.tc and larger.ar[0].edns_len == 1232, "we never send more than 1232 over UDP"
    assert not ask("many", limit=65535).header.tc
    small = ask("web", udp_size=4096)
    assert found(small) == ["10.0.1.2"] and small.ar


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x03web\0\0\1\0\1", dns.FORMERR),
        (b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fweb\0\0\1\0\1", dns.FORMERR),
        (b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\0\1\0\1", dns.FORMERR),
        (b"\x12\x34\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\0\0\1\0\1", dns.NOTIMP),
    ],
)
def test_malformed_queries_get_an_error(data: bytes, code: int) -> None:
    with pytest.raises(dns.Malformed) as caught:
        dns.parse(data)
    assert dnslib.DNSHeader.parse(dnslib.DNSBuffer(caught.value.reply)).rcode == code


@pytest.mark.parametrize("data", [b"", b"\x12\x34", b"\x12\x34\x81\x80" + bytes(8)])
def test_garbage_and_answers_are_not_answered(data: bytes) -> None:
    with pytest.raises(dns.Malformed) as caught:
        dns.parse(data)
    assert caught.value.reply == b""


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_no_input_does_more_than_be_refused(data: bytes) -> None:
    for packet in (data, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + data):
        try:
            query = dns.parse(packet)
        except dns.Malformed:
            continue
        dns.answer(query, [ZONE], 0, query.limit)
        dns.response(query, dns.SERVFAIL)


@given(st.lists(st.text("abcxyz0189_-", min_size=1, max_size=20), min_size=1, max_size=5))
def test_names_are_read_as_the_library_writes_them(labels: list[str]) -> None:
    query = dns.parse(bytes(dnslib.DNSRecord.question(".".join(labels)).pack()))
    assert query.name == ".".join(labels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("5.1.0.10.in-addr.arpa", "10.0.1.5"),
        ("1.0.10.in-addr.arpa", None),
        ("300.1.0.10.in-addr.arpa", None),
        ("web", None),
        ("1.ip6.arpa", None),
    ],
)
def test_reverse_names(name: str, expected: str | None) -> None:
    assert dns.reverse_address(name) == expected
