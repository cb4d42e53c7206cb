"""What config.json says of a container with a user namespace of its own: its ids, and how binds show theirs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from node.containers.errors import InvalidSpec
from node.containers.idmap import Extents, IdMap
from node.linux.idmapped import Part
from node.userns.ranges import IdRange


@dataclass(frozen=True, slots=True)
class OwnIds:
    """`path` names the user namespace."""

    path: str
    ids: IdRange
    parts: Callable[[str, bool], Sequence[Part]] = lambda _source, _recursive: ()
    """Of a bind's source, with what is mounted below or without; empty: all of it can be mapped."""

    def namespace(self) -> dict[str, str]:
        return {"type": "user", "path": self.path}

    def mappings(self) -> dict[str, Any]:
        whole = [{"containerID": 0, "hostID": self.ids.first, "size": self.ids.size}]
        return {"uidMappings": whole, "gidMappings": whole}

    def outside(self, id_map: IdMap) -> IdMap:
        """A mapping to the container's ids as one to the host's. What the container has no id for is left out, and
        appears as nobody. Raises InvalidSpec when nothing is left: no mapping would mean all of the container's."""
        mapped = IdMap(self._outside(id_map.uids), self._outside(id_map.gids))
        if not (mapped.uids and mapped.gids):
            raise InvalidSpec(f"idmap: none of its ids is among the {self.ids.size} of the container")
        return mapped

    def _outside(self, extents: Extents) -> Extents:
        return tuple((disk, self.ids.outside(seen), min(count, self.ids.size - seen))
                     for disk, seen, count in extents if seen < self.ids.size)

    def bind(self, mount: dict[str, Any], *, recursive: bool) -> list[dict[str, Any]]:
        """The mount of config.json with the container's ids: one, or one for each mount of the host in it where not all
        of them can be mapped. What shows the kernel (proc, sysfs …) stays as it is."""
        parts = list(self.parts(mount["source"], recursive))
        if not parts:
            return [_mapped(mount, recursive=recursive)]
        if not any(part.mapped for part in parts):
            return [mount]
        return [_single(mount, parts[0].point, part) for part in _apart(parts)]


def _apart(parts: Sequence[Part]) -> Iterator[Part]:
    """Nothing is mounted over a mounted proc: its mounts below go with it."""
    procs = [f"{part.point}/" for part in parts if part.kind == "proc"]
    return (part for part in parts if not part.point.startswith(tuple(procs)))


def _single(mount: dict[str, Any], top: str, part: Part) -> dict[str, Any]:
    """The bind of one mount in it."""
    below = part.point[len(top.rstrip("/")):].rstrip("/")
    options = mount["options"] if part.kind == "proc" else [_ALONE.get(word, word) for word in mount["options"]]
    one = {**mount, "source": part.point, "destination": f"{mount['destination'].rstrip('/')}{below}",
           "options": options}  # fmt: skip
    return _mapped(one, recursive=False) if part.mapped else one


_ALONE = {"rbind": "bind"}


def _mapped(mount: dict[str, Any], *, recursive: bool) -> dict[str, Any]:
    return {**mount, "options": [*mount["options"], "ridmap" if recursive else "idmap"]}
