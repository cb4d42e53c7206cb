"""Holding published ports: a bound socket each, so that nobody else of the host can have them."""

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

from node.network.model import ANY, PortBinding, PortInUse
from ocispec.errors import InvalidArgument, Unimplemented

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

MAX_PORTS = 240
"""Each is a descriptor that goes to the container's monitor in one message, which holds 253 (unix(7), SCM_RIGHTS)."""

Taken = Mapping[tuple[str, str, int], str]
"""(protocol, host address, host port) → container."""


def hold(published: Sequence[PortBinding], taken: Taken) -> tuple[list[socket.socket], list[PortBinding]]:
    """Sockets and the bindings with addresses and ports filled in. All or none.

    Raises PortInUse, InvalidArgument, Unimplemented, OSError (no more descriptors).
    """
    if len(published) > MAX_PORTS:
        raise Unimplemented(f"publishing more than {MAX_PORTS} ports of one container ({len(published)}) is not "
                            "supported yet")
    sockets: list[socket.socket] = []
    resolved: list[PortBinding] = []
    try:
        for wanted in published:
            binding = replace(wanted, host_ip=_address(wanted.host_ip))
            _check(binding, taken)
            held = _bind(binding)
            sockets.append(held)
            resolved.append(replace(binding, host_port=held.getsockname()[1]))
    except BaseException:
        for held in sockets:
            held.close()
        raise
    return sockets, resolved


def _address(text: str) -> str:
    """An IPv4 address in its one usual form: it becomes part of a rule and of a key, and is never looked up as a name.
    """
    try:
        address = ip_address(text or ANY)
    except ValueError as error:
        raise InvalidArgument(f"invalid IP address: {text[:100]!r} (to publish a port on)") from error
    if address.version != 4:
        raise Unimplemented(f"publishing a port on the IPv6 address {address} is not supported yet")
    return str(address)


def _check(binding: PortBinding, taken: Taken) -> None:
    if binding.proto not in KINDS:
        raise Unimplemented(f"publishing a port over {binding.proto} is not supported yet")
    for proto, address, port in taken:
        if (proto, port) == (binding.proto, binding.host_port) and ANY in (address, binding.host_ip):
            raise _allocated(binding)
    if (binding.proto, binding.host_ip, binding.host_port) in taken:
        raise _allocated(binding)


def _allocated(binding: PortBinding) -> PortInUse:
    return PortInUse(f"Bind for {binding.host_ip}:{binding.host_port} failed: port is already allocated")


def _bind(binding: PortBinding) -> socket.socket:
    held = socket.socket(socket.AF_INET, KINDS[binding.proto] | socket.SOCK_CLOEXEC)
    try:
        if binding.proto == "tcp":
            # A listener of before whose connections linger in TIME_WAIT is no reason to refuse.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((binding.host_ip, binding.host_port))
        if binding.proto == "tcp":
            held.listen(1)
    except OSError as error:
        held.close()
        reason = os.strerror(error.errno or 0).lower()
        message = f"listen {binding.proto}4 {binding.host_ip}:{binding.host_port}: bind: {reason}"
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise PortInUse(message) from error
        raise
    return held
