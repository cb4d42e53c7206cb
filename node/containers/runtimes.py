"""Which OCI runtime makes a container's processes: ours, or another program that the node was told of."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.containers.errors import CannotStart, InvalidSpec
from node.containers.launcher import Program
from node.settings import RuntimeSettings
from ocispec.errors import InvalidArgument

log = logging.getLogger(__name__)

OURS = "seawall"
ALIASES = frozenset({"runc", "io.containerd.runc.v2"})
"""What clients of Docker write when they mean the default: ours, unless the node was told of a runtime of that name."""

FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNIFIED = "/sys/fs/cgroup/unified"


class NoSuchRuntime(InvalidArgument):
    """The node was told of a runtime that this host does not have."""


@dataclass(frozen=True, slots=True)
class Runtimes:
    """`programs`: paths by name, without ours."""

    programs: Mapping[str, str]
    default: str = OURS

    @classmethod
    def of(cls, settings: RuntimeSettings) -> "Runtimes":
        """Raises NoSuchRuntime when the default one is not here. Another that is missing stops nobody's node."""
        programs = dict(settings.added)
        default = settings.default or OURS
        if default != OURS and default not in programs:
            name = Path(default).name
            programs[name] = default if "/" in default else _found(default)
            default = name
        for name, path in programs.items():
            if not os.access(path, os.X_OK):
                if name == default:
                    raise NoSuchRuntime(f"--runtime {name}: {path} is no program")
                log.warning("the runtime %s cannot be used: %s is no program", name, path)
        return cls(programs, default)

    def settle(self, asked: str) -> str:
        """The name a new container keeps. Raises InvalidSpec."""
        if not asked:
            return self.default
        if asked == OURS or asked in self.programs or asked in ALIASES:
            return asked
        raise InvalidSpec(f"unknown or invalid runtime name: {asked[:100]}")

    def foreign(self, name: str) -> str:
        """The name, when it stands for another runtime than ours; else nothing."""
        return name if name in self.programs else ""

    def program(self, name: str) -> Program | None:
        """None: ours. Raises CannotStart: the node of today may not know the runtime of a container of before."""
        if name in ("", OURS) or (name in ALIASES and name not in self.programs):
            return None
        path = self.programs.get(name)
        if path is None:
            raise CannotStart(f"the container was made for the runtime {name}, which this node does not know: "
                              f"start it with --add-runtime {name}=PATH")  # fmt: skip
        if not os.access(path, os.X_OK):
            raise CannotStart(f"the runtime {name} cannot be used: {path} is no program")
        # crun refuses to work on a host that has both versions of cgroups, once it sees that.
        hidden = (UNIFIED,) if Path(path).name.startswith("crun") and Path(UNIFIED).is_dir() else ()
        return Program(path, hidden=hidden)

    def described(self) -> dict[str, str]:
        """Name → path, for info."""
        return {OURS: "seawall-runtime", **self.programs}


def _found(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{FOLDERS}")
    if path is None:
        raise NoSuchRuntime(f"--runtime {name}: not found on this host's path; name it by --add-runtime {name}=PATH")
    return path
