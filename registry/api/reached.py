"""How a client reached us: from which address, under which scheme and host. Only a proxy of ours is believed."""

import ipaddress
import re
from collections.abc import Sequence

from aiohttp import web

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class Reached:
    """`proxies`: networks whose `X-Forwarded-*` headers are believed. From anybody else they are only text: a client
    could otherwise choose the address that its failed logins are counted under."""

    def __init__(self, proxies: Sequence[Network] = ()) -> None:
        self._proxies = tuple(proxies)

    def remote(self, request: web.BaseRequest) -> str:
        """The client's address: behind trusted proxies the last one that none of them is."""
        nearest = request.remote or ""
        if not self._proxies or not self._trusts(nearest):
            return nearest
        for hop in reversed(",".join(request.headers.getall("X-Forwarded-For", [])).split(",")):
            address = _address(hop.strip())
            if address is None:
                break
            nearest = str(address)
            if not self._trusts(nearest):
                break
        return nearest

    def base(self, request: web.BaseRequest) -> str:
        """Scheme and host, e.g. `https://registry.example.com:5000`."""
        scheme, host = request.scheme, request.headers.get("Host", "")
        if self._proxies and self._trusts(request.remote or ""):
            told = _last(request, "X-Forwarded-Proto").lower()
            scheme = told if told in ("http", "https") else scheme
            host = _last(request, "X-Forwarded-Host") or host
        if not _HOST.fullmatch(host):
            host = _socket(request)
        return f"{scheme}://{host}"

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._proxies)


def _last(request: web.BaseRequest, name: str) -> str:
    """The nearest proxy's word, when several have spoken."""
    return ",".join(request.headers.getall(name, [])).rpartition(",")[2].strip()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _socket(request: web.BaseRequest) -> str:
    """Our own end of the connection, for a client that names no host that could be one."""
    where = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(where, tuple):
        return "localhost"
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
