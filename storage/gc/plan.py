"""In which order the dead of a repository go, and what stays with one that turns out to live. Pure.

An index goes before its children and a subject before its referrers. So when a manifest is found alive after all (a tag
was set on it since it was marked), all that lives with it is still there, and is taken out of the plan. Those that live
with each other (an index whose subject is one of its children) go in one batch.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ocispec.digest import Digest
from storage.gc.mark import Marked
from storage.metadata.garbage import HeldManifest


class Plan:
    def __init__(self, marked: Marked) -> None:
        dead = frozenset(marked.dead_manifests)
        self._manifests = {item.digest: item for item in marked.content.manifests if item.digest in dead}
        self._blobs = set(marked.dead_blobs)
        self._followers: dict[Digest, list[Digest]] = defaultdict(list)
        for item in self._manifests.values():
            self._followers[item.digest] += [child for child in item.children if child in dead]
            if item.subject in dead:
                self._followers[item.subject].append(item.digest)
        self._groups = _components(self._followers)
        self.saved: set[Digest] = set()

    @property
    def empty(self) -> bool:
        return not self._manifests and not self._blobs

    def manifests(self, size: int) -> Iterator[Sequence[HeldManifest]]:
        """Batches of about `size`, without what was saved before a batch is asked for."""
        batch: list[HeldManifest] = []
        for group in self._groups:
            left = [self._manifests[digest] for digest in group if digest not in self.saved]
            if batch and len(batch) + len(left) > size:
                yield batch
                batch = []
                left = [item for item in left if item.digest not in self.saved]
            batch += left
        if batch:
            yield batch

    def blobs(self, size: int) -> Iterator[Sequence[Digest]]:
        """To be asked for when the manifests are done."""
        listed = list(self._blobs)
        for first in range(0, len(listed), size):
            yield listed[first : first + size]

    def save(self, digests: Iterable[Digest]) -> None:
        """These manifests live, and what lives with them."""
        pending = list(digests)
        while pending:
            digest = pending.pop()
            if digest in self.saved:
                continue
            self.saved.add(digest)
            self._blobs.difference_update(self._manifests[digest].blobs)
            pending += self._followers[digest]


def _components(graph: Mapping[Digest, Sequence[Digest]]) -> list[list[Digest]]:
    """What is reachable from each other, grouped; a group before those that are reachable from it (Tarjan)."""
    index: dict[Digest, int] = {}
    low: dict[Digest, int] = {}
    path: list[Digest] = []
    on_path: set[Digest] = set()
    found: list[list[Digest]] = []
    work: list[tuple[Digest, Iterator[Digest]]] = []

    def enter(digest: Digest) -> None:
        index[digest] = low[digest] = len(index)
        path.append(digest)
        on_path.add(digest)
        work.append((digest, iter(graph[digest])))

    for root in graph:
        if root not in index:
            enter(root)
        while work:
            digest, followers = work[-1]
            for follower in followers:
                if follower not in index:
                    enter(follower)
                    break
                if follower in on_path:
                    low[digest] = min(low[digest], index[follower])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    low[above] = min(low[above], low[digest])
                if low[digest] == index[digest]:
                    group = [path.pop()]
                    while group[-1] != digest:
                        group.append(path.pop())
                    on_path.difference_update(group)
                    found.append(group)
    return found[::-1]
