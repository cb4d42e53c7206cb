"""The local driver's options (`docker volume create -o`): what a volume is mounted from, when not a plain folder."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from node.linux import mounts
from node.volumes.errors import InvalidVolumeOptions

KNOWN = frozenset({"type", "device", "o", "size"})
NEEDS: Mapping[str, tuple[str, ...]] = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
NETWORK = ("nfs", "cifs")
MAX_OPTION = 3500
"""mount(2) takes one page of options; the rest is ours (an address that is looked up)."""


@dataclass(frozen=True, slots=True)
class Backing:
    """The arguments of mount(2), but for an address that is looked up at the mount."""

    kind: str
    device: str
    options: mounts.MountOptions

    @property
    def volatile(self) -> bool:
        """What it holds goes when it is unmounted."""
        return self.kind in ("tmpfs", "ramfs")


def check_options(options: Mapping[str, str]) -> None:
    """Raises InvalidVolumeOptions."""
    for name, value in options.items():
        if name not in KNOWN:
            raise InvalidVolumeOptions(f'invalid option: "{name[:100]}"')
        if "\0" in value or len(value) > MAX_OPTION:
            raise InvalidVolumeOptions(f"invalid option: {name} is longer than {MAX_OPTION} bytes or holds a NUL")
        for other in NEEDS.get(name, ()):
            if not options.get(other):
                raise InvalidVolumeOptions(f'missing required option: "{other}"')
    if "size" in options:
        # Quotas need a file system with project quotas for the home; tmpfs takes its size by o=size=….
        raise InvalidVolumeOptions("quota size requested but no quota support")
    if options.get("type") == "cifs" and urlsplit(options["device"]).netloc.partition(":")[2]:
        raise InvalidVolumeOptions("port not allowed in CIFS device URL, include 'port' in 'o='")
    if _is_bind(options) and not options["device"].startswith("/"):
        raise InvalidVolumeOptions(f'invalid option: device "{options["device"][:300]}" of a bind must be absolute')


def backing(options: Mapping[str, str]) -> Backing | None:
    """None: a plain folder."""
    if not options.get("device"):
        return None
    kind = "" if _is_bind(options) else options["type"]
    return Backing(kind, options["device"], mounts.parse_options(options.get("o", "")))


def _is_bind(options: Mapping[str, str]) -> bool:
    return bool({"bind", "rbind"} & set(options.get("o", "").split(",")))


def data_of(held: Backing) -> str:
    """The options for mount(2): the kernel's nfs and cifs want an address where people write a name. Blocks (DNS);
    raises OSError."""
    if held.kind.rstrip("4") not in NETWORK:
        return held.options.data
    given = dict(option.partition("=")[::2] for option in held.options.data.split(",") if option)
    host = given.get("addr", "")
    if not host and held.kind == "cifs":
        host = urlsplit(held.device).hostname or held.device.lstrip("/").partition("/")[0]
        given["addr"] = host
    if host:
        given["addr"] = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    return ",".join(f"{name}={value}" if value else name for name, value in given.items())
