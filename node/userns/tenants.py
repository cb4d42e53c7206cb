"""Which running container has which of the host's ids, so that an id that comes from a container counts as the one that
the container sees."""

from pathlib import Path

from node.userns.ranges import IdRange


class Tenants:
    def __init__(self) -> None:
        self._ranges: dict[str, IdRange] = {}

    def move_in(self, name: str, ids: IdRange) -> None:
        self._ranges[name] = ids

    def move_out(self, name: str) -> None:
        self._ranges.pop(name, None)

    def of(self, name: str) -> IdRange | None:
        return self._ranges.get(name)

    def inside(self, host_id: int) -> int:
        """The id as its container sees it; the same id when it is no container's."""
        for ids in self._ranges.values():
            if (found := ids.inside(host_id)) is not None:
                return found
        return host_id


def range_of(pid: int) -> IdRange | None:
    """Of a running process: its ids, None: the host's (or a map that is none of ours). Blocks; raises OSError."""
    lines = Path(f"/proc/{pid}/uid_map").read_text().splitlines()
    words = [int(word) for word in lines[0].split()] if len(lines) == 1 else []
    if len(words) != 3 or words[0] != 0 or words[1] == 0:
        return None
    return IdRange(words[1], words[2])
