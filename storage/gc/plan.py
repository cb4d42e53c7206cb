"""In which order the dead of a repository go, and what stays with one that turns out to live. Pure.

An index goes before its children and a subject before its referrers. So when a manifest is found alive after all (a tag
was set on it since it was marked), all that lives with it is still there, and is taken out of the plan.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

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
        self.saved: set[Digest] = set()

    @property
    def empty(self) -> bool:
        return not self._manifests and not self._blobs

    def manifests(self, size: int) -> Iterator[Sequence[HeldManifest]]:
        """Batches, without what was saved before a batch is asked for."""
        batch: list[HeldManifest] = []
        for digest in self._ordered():
            if digest not in self.saved:
                batch.append(self._manifests[digest])
            if len(batch) == size:
                yield batch
                batch = []
        yield [item for item in batch if item.digest not in self.saved]

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

    def _ordered(self) -> list[Digest]:
        before: dict[Digest, int] = dict.fromkeys(self._manifests, 0)
        for followers in self._followers.values():
            for follower in followers:
                before[follower] += 1
        ready = [digest for digest, count in before.items() if not count]
        ordered: list[Digest] = []
        while ready:
            digest = ready.pop()
            ordered.append(digest)
            for follower in self._followers[digest]:
                before[follower] -= 1
                if not before[follower]:
                    ready.append(follower)
        # A digest cannot be part of what it is the digest of; were there a loop, its manifests would stay.
        return ordered
