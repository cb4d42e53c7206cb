"""Mounts as data: what a snapshotter says, and what the container's monitor or an unpack worker does."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RootMount:
    """One mount(2) of a root file system.

    `type` is `overlay`, or `bind` (then `source` is an absolute path). `cwd` is where to chdir before the mount: the
    options name the layers by paths relative to it, so that hundreds of layers fit the page that the kernel reads.
    """

    type: str
    source: str
    options: tuple[str, ...]
    cwd: str = ""

    def data(self) -> str:
        """The options as mount(2)'s last argument (a bind has none)."""
        return ",".join(self.options) if self.type != "bind" else ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A container's own tree, and what it stands on (None: on nothing), for who compares them.

    `whole`: `own` is a complete tree; otherwise it holds what the container wrote, in overlayfs' form."""

    own: Path
    below: RootMount | None
    whole: bool
