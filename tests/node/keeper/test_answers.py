"""Messages as hostile as containers can make them, and as plain as resolvers send them."""

import struct
import time
from ipaddress import IPv4Address, IPv4Network

import pytest
from dnslib import EDNS0, RCODE, DNSRecord

from node.keeper.answers import Malformed, known, parse
from node.keeper.zones import Membership, Zones


def pointers_to_pointers() -> bytes:
    """4 KB of questions, each one's name a pointer to the one before: a reader that follows them does so 200,000
    times."""
    data, before, number = b"\1a\0\0\1\0\1", 12, 1
    while len(data) < 4070:
        here = 12 + len(data)
        data += struct.pack("!HHH", 0xC000 | before, 1, 1)
        before, number = here, number + 1
    return struct.pack("!6H", 7, 0x0100, number, 0, 0, 0) + data


@pytest.mark.parametrize("data", [
    pointers_to_pointers(),
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 60000) + b"\1a\0\0\1\0\1",
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 1) + b"\1a\0\0\1\0\1" + b"\0\0\x29\x10\0\0\0\0\0\xff\xff",
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x3fa" * 100,
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\1a" * 200 + b"\0\0\1\0\1",
    struct.pack("!6H", 7, 0x0100, 0, 0, 0, 0),
])
def test_what_is_malformed_costs_nothing(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Malformed) as refused:
        parse(data)
    assert time.process_time() - began < 0.5  # a collection of garbage may fall into it; what was hostile took seconds
    assert DNSRecord.parse(refused.value.reply).header.rcode == RCODE.FORMERR


def test_a_question_of_a_resolver_is_read_whole() -> None:
    asked = DNSRecord.question("Web.Example", "AAAA")
    asked.header.id, asked.header.ad = 4711, 1
    asked.add_ar(EDNS0(udp_len=1232))
    question = parse(asked.pack())
    assert (question.name, question.kind, question.room) == ("web.example", 28, 1232)
    reply = DNSRecord.parse(question.refuse(RCODE.NXDOMAIN))
    assert (reply.header.id, reply.header.rd, str(reply.q.qname)) == (4711, 1, "Web.Example.")


def test_a_name_longer_than_dns_has_is_not_told() -> None:
    zones = Zones()
    place = Membership("n", "net", (IPv4Network("172.30.0.0/16"),), ("w" * 100,), (IPv4Address("172.30.0.2"),))
    zones.put("one", (place,))
    reply = known(zones, "one", parse(DNSRecord.question("2.0.30.172.in-addr.arpa", "PTR").pack()))
    assert reply is not None and DNSRecord.parse(reply.pack()).header.rcode == RCODE.NXDOMAIN
