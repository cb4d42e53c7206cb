"""A mount as asked for: `-v source:target[:options]` or `--mount`. Raises Docker's messages."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from node.containers.idmap import AUTO, parse_idmap
from ocispec.errors import InvalidArgument

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
# z and Z ask for SELinux labels: like Docker on a host without SELinux, they are accepted and mean nothing.
LABELS = frozenset({"z", "Z"})


class InvalidMount(InvalidArgument):
    """A mount cannot be what was asked."""


@dataclass(frozen=True, slots=True)
class MountSpec:
    kind: str
    """bind, volume, tmpfs, image, secret or config."""

    target: str
    """Absolute, cleaned, never the root."""

    source: str = ""
    """Host path of a bind; name of a volume ("" = anonymous), image, secret or config."""

    read_only: bool = False
    propagation: str = ""
    mode: str = ""
    """The options as written in a bind, for inspect."""

    no_copy: bool = False
    from_bind: bool = False
    """Written as `source:target`: a missing host folder is made (Docker's rule); `--mount` refuses instead."""

    create_source: bool = False
    recursive: bool = True
    """With what is mounted below the source."""

    read_only_below: str = ""
    """Of a read-only mount, whether what is mounted below is read-only too: "" yes, `force` yes and say so, `no`."""

    subpath: str = ""
    """Of a volume or an image: only this part of it."""

    idmap: str = ""
    """`auto` or mappings (`idmap.py`)."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Of a volume to be made."""

    driver: str = ""
    driver_options: Mapping[str, str] = field(default_factory=dict)
    tmpfs_size: int = 0
    tmpfs_mode: int = 0
    tmpfs_options: tuple[str, ...] = ()
    owner: tuple[int, int] = (0, 0)
    """Of a secret's or config's file: uid, gid."""

    file_mode: int = 0o444

    @classmethod
    def parse_bind(cls, text: str) -> "MountSpec":
        """`source:target[:options]` of HostConfig.Binds. Raises InvalidMount."""
        parts = text.split(":")
        if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
            raise InvalidMount(f"invalid volume specification: '{text}'")
        source, target, mode = parts[0], check_target(parts[1], text), parts[2] if len(parts) == 3 else ""
        said = _options(mode, text)
        if source.startswith("/"):
            if said.no_copy:
                raise InvalidMount(f"invalid volume specification: '{text}': nocopy is for volumes")
            return cls("bind", target, _clean(source), said.read_only, said.propagation, mode, from_bind=True,
                       create_source=True, idmap=said.idmap)  # fmt: skip
        if not VOLUME_NAME.fullmatch(source):
            raise InvalidMount(
                f'create {source}: "{source}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        return cls("volume", target, source, said.read_only, said.propagation, mode, said.no_copy, from_bind=True,
                   idmap=said.idmap)  # fmt: skip

    def bind_text(self) -> str:
        """The HostConfig.Binds form of a mount that came as one."""
        return f"{self.source}:{self.target}" + (f":{self.mode}" if self.mode else "")


def check_target(target: str, text: str = "") -> str:
    """The cleaned path in the container. Raises InvalidMount unless absolute and not the root."""
    cleaned = _clean(target)
    if not target.startswith("/"):
        raise InvalidMount(f"invalid mount path: '{target}' mount path must be absolute")
    if cleaned == "/":
        problem = "invalid mount config: destination can't be '/'"
        raise InvalidMount(f"invalid volume specification: '{text or target}': {problem}")
    if "\0" in target:
        raise InvalidMount("invalid mount path: it contains a NUL")
    return cleaned


def _clean(path: str) -> str:
    # normpath keeps two leading slashes (POSIX lets them mean something else); Linux gives them no meaning.
    return "/" + posixpath.normpath(path).lstrip("/")


def check_subpath(path: str) -> str:
    """Raises InvalidMount unless it names something inside."""
    if path.startswith("/"):
        raise InvalidMount("subpath must be a relative path within the volume")
    cleaned = posixpath.normpath(path) if path else ""
    if cleaned == ".." or cleaned.startswith("../") or "\0" in path:
        raise InvalidMount("subpath must be a relative path within the volume")
    return "" if cleaned == "." else cleaned


@dataclass(frozen=True, slots=True)
class _Said:
    read_only: bool
    no_copy: bool
    propagation: str
    idmap: str


def _options(mode: str, text: str) -> _Said:
    read_only, no_copy, propagation, idmap, access = False, False, "", "", ""
    for option in filter(None, mode.split(",")):
        if option in ("ro", "rw") and not access:
            access, read_only = option, option == "ro"
        elif option == "nocopy":
            no_copy = True
        elif option in PROPAGATIONS and not propagation:
            propagation = option
        elif option.partition("=")[0] == "idmap" and not idmap:
            idmap = option.partition("=")[2] or AUTO
            parse_idmap(idmap)
        elif option not in LABELS:
            raise InvalidMount(f"invalid mode: {option} in '{text}'")
    return _Said(read_only, no_copy, propagation, idmap)
