"""What a client may say of itself, and what only a trusted proxy may say of it."""

import ssl
from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from registry.api.reached import Reached

PROXIES = [ip_network("10.0.0.0/8"), ip_network("::1/128")]


class Transport:
    def __init__(self, peer: str) -> None:
        self.about = {"peername": (peer, 1234), "sockname": ("192.0.2.1", 5000)}

    def get_extra_info(self, name, default=None):
        return self.about.get(name, default)


def request(peer: str, *headers: tuple[str, str], secure: bool = False):
    context = ssl.create_default_context() if secure else None
    return make_mocked_request("GET", "/v2/", CIMultiDict(headers), transport=Transport(peer), sslcontext=context)


@pytest.mark.parametrize(("peer", "forwarded", "remote"), [
    ("198.51.100.1", ("203.0.113.9",), "198.51.100.1"),
    ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
    ("10.0.0.1", ("6.6.6.6, 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
    ("10.0.0.1", ("6.6.6.6", "203.0.113.9"), "203.0.113.9"),
    ("10.0.0.1", ("6.6.6.6, nonsense",), "10.0.0.1"),
    ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
    ("10.0.0.1", (), "10.0.0.1"),
    ("::ffff:10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
    ("::1", ("2001:db8::5",), "2001:db8::5"),
])
def test_the_client_is_the_last_that_no_proxy_of_ours_is(peer, forwarded, remote) -> None:
    told = [("X-Forwarded-For", value) for value in forwarded]
    assert Reached(PROXIES).remote(request(peer, *told)) == remote


def test_without_proxies_nobody_is_believed() -> None:
    told = (("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("Host", "me"))
    assert Reached().remote(request("10.0.0.1", *told)) == "10.0.0.1"
    assert Reached().base(request("10.0.0.1", *told)) == "http://me"


@pytest.mark.parametrize(("peer", "headers", "base"), [
    ("10.0.0.1", {"Host": "inner:5000", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "hub.example.com"},
     "https://hub.example.com"),
    ("10.0.0.1", {"Host": "hub.example.com", "X-Forwarded-Proto": "http, HTTPS"}, "https://hub.example.com"),
    ("10.0.0.1", {"Host": "hub", "X-Forwarded-Proto": "gopher"}, "http://hub"),
    ("198.51.100.1", {"Host": "hub:5000", "X-Forwarded-Proto": "https"}, "http://hub:5000"),
    ("198.51.100.1", {"Host": "[2001:db8::1]:5000"}, "http://[2001:db8::1]:5000"),
    ("198.51.100.1", {"Host": 'x",realm="evil'}, "http://192.0.2.1:5000"),
    ("198.51.100.1", {"Host": "user@evil/"}, "http://192.0.2.1:5000"),
    ("198.51.100.1", {}, "http://192.0.2.1:5000"),
])
def test_scheme_and_host(peer, headers, base) -> None:
    assert Reached(PROXIES).base(request(peer, *headers.items())) == base


def test_tls_of_our_own() -> None:
    assert Reached().base(request("198.51.100.1", ("Host", "hub"), secure=True)) == "https://hub"
