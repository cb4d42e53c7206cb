"""The walk: parents first, everything once, loops and depth bounded."""

import json

import pytest

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.graph import MAX_DEPTH, TooDeep, walk


def described(digest: Digest, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": 1}


def image(*layers: bytes):
    return manifests.parse(json.dumps({
        "schemaVersion": 2, "config": described(Digest.of(b"{}"), mediatype.OCI_CONFIG),
        "layers": [described(Digest.of(layer), mediatype.OCI_LAYER) for layer in layers]}).encode())


def index(*children, extra=()):
    listed = [described(child.digest(), child.media_type) for child in children] + list(extra)
    return manifests.parse(json.dumps({"schemaVersion": 2, "manifests": listed}).encode())


async def visited(root, held):
    known = {manifest.digest(): manifest for manifest in held}

    async def load(descriptor):
        return known.get(descriptor.digest)

    return [node async for node in walk([root.descriptor(root.digest())], load)]


async def test_parents_before_children_and_each_once():
    first, second = image(b"shared", b"one"), image(b"shared", b"two")
    root = index(first, second, first)
    nodes = await visited(root, (root, first, second))
    digests = [node.descriptor.digest for node in nodes]
    assert len(digests) == len(set(digests)) == 3 + 1 + 3
    assert digests[0] == root.digest()
    for child in (first, second):
        for blob in child.blobs:
            assert digests.index(child.digest()) < digests.index(blob.digest) or blob.digest in {
                b.digest for b in first.blobs}
    assert nodes[0].depth == 0
    assert max(node.depth for node in nodes) == 2


async def test_absent_manifests_and_blobs_are_leaves():
    absent = image(b"x")
    root = index(absent)
    nodes = await visited(root, (root,))
    assert [(node.descriptor.digest, node.manifest) for node in nodes] == [
        (root.digest(), root), (absent.digest(), None)]


async def test_a_child_of_another_type_is_a_leaf():
    root = index(extra=[described(Digest.of(b"blob"), "application/x-other")])
    assert [node.depth for node in await visited(root, (root,))] == [0, 1]


async def test_a_loop_ends():
    """No index can hold its own digest, but a store that answers wrongly can make one."""
    inner = image(b"x")
    root = index(inner)

    async def always_root(descriptor):
        return root if descriptor.media_type in mediatype.INDEXES else inner

    nodes = [node async for node in walk([Descriptor(mediatype.OCI_INDEX, Digest.of(b"any"), 1)], always_root)]
    assert len(nodes) == 4


async def test_depth_is_bounded():
    chain = [image(b"x")]
    for _ in range(MAX_DEPTH + 2):
        chain.append(index(chain[-1]))
    with pytest.raises(TooDeep):
        await visited(chain[-1], chain)
    assert len(await visited(chain[MAX_DEPTH], chain)) == MAX_DEPTH + 3
