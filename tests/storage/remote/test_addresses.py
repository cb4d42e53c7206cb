import ipaddress
import socket

import pytest
from yarl import URL

from storage.remote.addresses import AddressRefused, guarded_sockets, is_public, is_usable
from storage.remote.errors import RemoteUnavailable
from storage.remote.origin import OriginRegistry
from storage.remote.transport import Reach, RemoteSettings

INTERNAL = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "::",
            "fc00::1", "fe80::1", "169.254.169.254", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
            "2002:7f00:1::", "ff02::1", "240.0.0.1", "192.0.2.1", "192.0.0.192", "168.63.129.16", "::7f00:1",
            "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "::ffff:168.63.129.16"]


@pytest.mark.parametrize("text", INTERNAL)
def test_what_is_inside_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_what_is_outside_is(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1",
                                  "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "::ffff:168.63.129.16"])
def test_no_registry_lives_where_clouds_keep_their_secrets(text: str) -> None:
    assert not is_usable(ipaddress.ip_address(text))
    with pytest.raises(AddressRefused):
        guarded_sockets(allow_private=True)((socket.AF_INET, socket.SOCK_STREAM, 0, "", (text, 443)))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"])
async def test_a_name_is_checked_as_the_address_it_means(url: str) -> None:
    settings = RemoteSettings(attempts=1)
    async with OriginRegistry("x.test", settings=settings, reach=Reach(URL(url))) as origin:
        with pytest.raises(RemoteUnavailable, match="not a public address"):
            await origin.ping()
