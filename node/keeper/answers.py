"""DNS messages: what came, and what is answered of our own knowledge (RFC 1035, 3596, 6891)."""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnslib import AAAA, CLASS, PTR, QTYPE, RCODE, RR, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from node.keeper.zones import Zones

TTL = 5
"""Seconds. Short, because caches in containers (nginx, JVMs) believe it, and a container's successor has another
address; Docker says 600."""

HEADER = struct.Struct("!6H")
LONGEST_LABEL, LONGEST_NAME = 63, 255
MOST_RECORDS = 16
"""Behind the question. Resolvers send one or two."""

PLAIN_UDP = 512
LARGEST_UDP = 4096
_REVERSE4 = re.compile(r"((?:\d{1,3}\.){4})in-addr\.arpa")
_REVERSE6 = re.compile(r"((?:[0-9a-f]\.){32})ip6\.arpa")


class Malformed(Exception):
    """No question that can be answered; `reply` is what to send, empty for silence."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("malformed DNS message")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Question:
    record: DNSRecord
    name: str
    """Lower case, without the dot at the end."""

    kind: int
    room: int
    """Bytes that the asker takes in one datagram."""

    @property
    def single(self) -> bool:
        return "." not in self.name

    def reply(self, code: int = RCODE.NOERROR) -> DNSRecord:
        header = self.record.header
        return DNSRecord(DNSHeader(id=header.id, bitmap=0, qr=1, rd=header.rd, ra=1, rcode=code), q=self.record.q)

    def refuse(self, code: int) -> bytes:
        return bytes(self.reply(code).pack())


def parse(data: bytes) -> Question:
    """Raises Malformed.

    Read here and not by dnslib, which follows pointers as often as it is told to: 4 KB of questions whose names point
    to one another would keep it busy for seconds, and every container waits for this one thread.
    """
    if len(data) < HEADER.size or data[2] & 0x80:
        raise Malformed
    number, flags, questions, *others = HEADER.unpack_from(data)
    if flags >> 11 & 15:
        raise Malformed(_bare(data, RCODE.NOTIMP))
    try:
        if questions != 1 or sum(others) > MOST_RECORDS:
            raise ValueError
        labels, at = _question_name(data)
        kind, group = struct.unpack_from("!HH", data, at)
        asked = _largest(data, at + 4, others)
    except (ValueError, IndexError, struct.error) as error:
        raise Malformed(_bare(data, RCODE.FORMERR)) from error
    record = DNSRecord(DNSHeader(id=number, bitmap=flags), q=DNSQuestion(DNSLabel(labels), kind, group))
    name = b".".join(labels).decode("latin-1").lower()
    return Question(record, name, kind, min(max(asked, PLAIN_UDP), LARGEST_UDP))


def _question_name(data: bytes) -> tuple[list[bytes], int]:
    """Its labels, and where it ends. There is nothing before it that a pointer could mean."""
    labels, at = [], HEADER.size
    while length := data[at]:
        if length > LONGEST_LABEL or at + 1 + length > len(data):
            raise ValueError
        labels.append(bytes(data[at + 1:at + 1 + length]))
        at += 1 + length
        if at - HEADER.size >= LONGEST_NAME:
            raise ValueError
    return labels, at + 1


def _largest(data: bytes, at: int, counts: list[int]) -> int:
    """What the asker takes in one datagram (RFC 6891), of the records behind the question."""
    found = PLAIN_UDP
    for number in range(sum(counts)):
        start = at
        while 0 < data[at] <= LONGEST_LABEL:
            at += 1 + data[at]
        at += 2 if data[at] else 1
        kind, group, _, length = struct.unpack_from("!HHIH", data, at)
        if number >= counts[0] + counts[1] and kind == QTYPE.OPT and not data[start]:
            found = int(group)
        at += 10 + length
        if at > len(data):
            raise ValueError
    return found


def _bare(data: bytes, code: int) -> bytes:
    """A header that answers this one and nothing else."""
    return data[:2] + bytes([0x80 | data[2] & 0x79, 0x80 | code]) + bytes(8)


def known(zones: Zones, sandbox: str, question: Question) -> DNSRecord | None:
    """The answer of our own knowledge; None: others may know."""
    if question.record.q.qclass != CLASS.IN:
        return None
    if question.kind == QTYPE.PTR and (address := _reversed(question.name)) is not None:
        return _pointer(zones, sandbox, question, address)
    addresses = zones.addresses(sandbox, question.name)
    if addresses is None:
        return None
    # A name that is ours has no records of other kinds: that is said at once, and nobody outside is asked for it.
    reply = question.reply()
    for found in addresses:
        data = A(str(found)) if found.version == 4 else AAAA(str(found))
        kind = QTYPE.A if found.version == 4 else QTYPE.AAAA
        if question.kind in (kind, QTYPE.ANY):
            reply.add_answer(RR(question.record.q.qname, kind, rdata=data, ttl=TTL))
    return reply


def _pointer(zones: Zones, sandbox: str, question: Question, address: IPv4Address | IPv6Address) -> DNSRecord | None:
    name = zones.name_of(sandbox, address)
    if name is None or not _sayable(name):
        # Resolvers outside would be asked, and waited for, in vain.
        return question.reply(RCODE.NXDOMAIN) if zones.own(sandbox, address) else None
    reply = question.reply()
    reply.add_answer(RR(question.record.q.qname, QTYPE.PTR, rdata=PTR(name + "."), ttl=TTL))
    return reply


def _sayable(name: str) -> bool:
    """A container may be called longer than DNS lets a name be."""
    return len(name) < LONGEST_NAME - 1 and all(0 < len(label) <= LONGEST_LABEL for label in name.split("."))


def _reversed(name: str) -> IPv4Address | IPv6Address | None:
    try:
        if found := _REVERSE4.fullmatch(name):
            return ip_address(".".join(reversed(found[1].rstrip(".").split("."))))
        if found := _REVERSE6.fullmatch(name):
            return IPv6Address(int("".join(reversed(found[1].replace(".", ""))), 16))
    except ValueError:
        return None
    return None


def fitting(question: Question, reply: DNSRecord) -> bytes:
    """For a datagram: without its records, and marked so, where it is too large; the asker comes again by TCP."""
    packed = bytes(reply.pack())
    if len(packed) <= question.room:
        return packed
    short = question.reply(reply.header.rcode)
    short.header.tc = 1
    return bytes(short.pack())
