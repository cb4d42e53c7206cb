"""Who answers to which name, and to whom."""

from ipaddress import ip_address
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from node.keeper.answers import Malformed, fitting, known, parse
from node.keeper.zones import Membership, Zones


def place(network: str, names: tuple[str, ...], *addresses: str, links: dict[str, str] | None = None) -> Membership:
    return Membership.parse({"id": network, "name": network, "subnets": ["172.30.0.0/16", "fd00::/64"],
                             "names": names, "addresses": addresses, "links": links or {}})


@pytest.fixture
def zones() -> Zones:
    zones = Zones()
    zones.put("a" * 64, (place("front", ("Web", "aaaa"), "172.30.0.2", "fd00::2"), place("back", ("Web",), "172.31.0.2")))
    zones.put("b" * 64, (place("back", ("db", "storage"), "172.31.0.3", links={"primary": "db"}),))
    zones.put("c" * 64, (place("back", ("db2", "storage"), "172.31.0.4"),))
    return zones


def found(zones: Zones, sandbox: str, name: str) -> Any:
    addresses = zones.addresses(sandbox * 64, name)
    return addresses and [str(address) for address in addresses]


def test_names_are_known_on_their_own_network_alone(zones: Zones) -> None:
    assert found(zones, "a", "web") == ["172.30.0.2", "fd00::2"]
    assert found(zones, "b", "web") == ["172.31.0.2"]
    assert found(zones, "b", "aaaa") is None
    assert found(zones, "d", "web") is None


def test_one_alias_of_several_containers_turns(zones: Zones) -> None:
    first = [found(zones, "a", "storage")[0] for _ in range(10)]
    assert sorted(set(first)) == ["172.31.0.3", "172.31.0.4"]
    assert first.count("172.31.0.3") == 5


def test_a_name_may_say_its_network(zones: Zones) -> None:
    assert found(zones, "a", "web.back") == ["172.31.0.2"]
    assert found(zones, "b", "web.front") is None


def test_links_are_for_who_has_them(zones: Zones) -> None:
    assert found(zones, "b", "primary") == ["172.31.0.3"]
    assert found(zones, "c", "primary") is None


def test_what_is_dropped_is_forgotten(zones: Zones) -> None:
    zones.drop("b" * 64)
    assert found(zones, "a", "db") is None
    assert found(zones, "a", "storage") == ["172.31.0.4"]
    assert zones.name_of("a" * 64, ip_address("172.31.0.3")) is None
    for sandbox in "ac":
        zones.drop(sandbox * 64)
    assert not zones._named and not zones._addressed and not zones._places


def answer(zones: Zones, name: str, kind: str, sandbox: str = "a") -> DNSRecord | None:
    return known(zones, sandbox * 64, parse(DNSRecord.question(name, kind).pack()))


def test_answers_by_kind(zones: Zones) -> None:
    four, six = answer(zones, "WEB", "A"), answer(zones, "web", "AAAA")
    assert four is not None and [str(rr.rdata) for rr in four.rr] == ["172.30.0.2"] and str(four.q.qname) == "WEB."
    assert six is not None and [str(rr.rdata) for rr in six.rr] == ["fd00::2"]
    for kind in ("MX", "HTTPS", "TXT"):
        nothing = answer(zones, "web", kind)
        assert nothing is not None and not nothing.rr and nothing.header.rcode == RCODE.NOERROR
    only_four = answer(zones, "db", "AAAA")
    assert only_four is not None and not only_four.rr and only_four.header.rcode == RCODE.NOERROR
    assert answer(zones, "example.org", "A") is None


def test_addresses_have_names(zones: Zones) -> None:
    four, six = (answer(zones, name, "PTR") for name in
                 ("2.0.30.172.in-addr.arpa", "2." + "0." * 27 + "0.0.d.f.ip6.arpa"))
    assert four is not None and str(four.rr[0].rdata) == "web.front."
    assert six is not None and str(six.rr[0].rdata) == "web.front."
    nobody = answer(zones, "77.0.30.172.in-addr.arpa", "PTR")
    assert nobody is not None and nobody.header.rcode == RCODE.NXDOMAIN
    assert answer(zones, "1.2.0.192.in-addr.arpa", "PTR") is None


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\x12\x34\x80\0" + bytes(8)])
def test_what_is_no_question_is_met_with_silence(data: bytes) -> None:
    with pytest.raises(Malformed) as error:
        parse(data)
    assert error.value.reply == b""


@pytest.mark.parametrize(("data", "code"), [
    (b"\x12\x34\x01\0" + bytes(8), RCODE.FORMERR),  # no question
    (b"\x12\x34\x01\0\0\x01" + bytes(6) + b"\xc0\x0c\0\x01\0\x01", RCODE.FORMERR),  # a name that points to itself
    (b"\x12\x34\x01\0\0\x02" + bytes(6) + b"\x01a\0\0\x01\0\x01" * 2, RCODE.FORMERR),
    (b"\x12\x34\x11\0\0\x01" + bytes(6) + b"\x01a\0\0\x01\0\x01", RCODE.NOTIMP),
    (b"\x12\x34\x01\0\0\x01\0\0\0\0\xff\xff" + b"\x01a\0\0\x01\0\x01", RCODE.FORMERR),  # 65,535 records, of which none
])
def test_malformed_questions_are_answered_so(data: bytes, code: int) -> None:
    with pytest.raises(Malformed) as error:
        parse(data)
    reply = DNSRecord.parse(error.value.reply)
    assert reply.header.id == 0x1234 and reply.header.qr == 1 and reply.header.rcode == code


def test_what_does_not_fit_a_datagram_says_so() -> None:
    zones = Zones()
    for number in range(100):
        zones.put(f"{number}", (place("n", ("many",), f"172.30.0.{number + 1}"),))
    question = parse(DNSRecord.question("many").pack())
    reply = known(zones, "1", question)
    assert reply is not None and len(reply.rr) == 100
    short = DNSRecord.parse(fitting(question, reply))
    assert short.header.tc == 1 and not short.rr and str(short.q.qname) == "many."
    roomy = DNSRecord.question("many")
    from dnslib import EDNS0

    roomy.add_ar(EDNS0(udp_len=4096))
    assert DNSRecord.parse(fitting(parse(roomy.pack()), reply)).header.tc == 0
    assert question.kind == QTYPE.A
