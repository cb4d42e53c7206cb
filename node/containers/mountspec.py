"""A mount as asked for: `-v source:target[:options]` or `--mount`. Raises Docker's messages."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """bind, volume or tmpfs."""

    target: str
    """Absolute, cleaned, never the root."""

    source: str = ""
    """Host path of a bind; name of a volume ("" = anonymous)."""

    read_only: bool = False
    propagation: str = ""
    mode: str = ""
    """The options as written in a bind, for inspect."""

    no_copy: bool = False
    from_bind: bool = False
    """Written as `source:target`: a missing host folder is made (Docker's rule); `--mount` refuses instead."""

    create_source: bool = False
    recursive: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of a volume to be made."""

    driver: str = ""
    driver_options: Mapping[str, str] = field(default_factory=dict)
    tmpfs_size: int = 0
    tmpfs_mode: int = 0

    @classmethod
    def parse_bind(cls, text: str) -> "MountSpec":
        """`source:target[:options]` of HostConfig.Binds. Raises InvalidMount."""
        parts = text.split(":")
        if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
            raise InvalidMount(f"invalid volume specification: '{text}'")
        source, target, mode = parts[0], check_target(parts[1], text), parts[2] if len(parts) == 3 else ""
        read_only, no_copy, propagation = _options(mode, text)
        if source.startswith("/"):
            source = posixpath.normpath(source)
            if no_copy:
                raise InvalidMount(f"invalid volume specification: '{text}': nocopy is for volumes")
            return cls("bind", target, _clean(source), read_only, propagation, mode, from_bind=True, create_source=True)
        if not VOLUME_NAME.fullmatch(source):
            raise InvalidMount(
                f'create {source}: "{source}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        return cls("volume", target, source, read_only, propagation, mode, no_copy, from_bind=True)

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


def _options(mode: str, text: str) -> tuple[bool, bool, str]:
    read_only, no_copy, propagation = False, False, ""
    for option in filter(None, mode.split(",")):
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option == "nocopy":
            no_copy = True
        elif option in PROPAGATIONS:
            propagation = option
        elif option not in LABELS:
            raise InvalidMount(f"invalid mode: {option} in '{text}'")
    return read_only, no_copy, propagation
