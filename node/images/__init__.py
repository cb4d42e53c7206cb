"""Images on a node: pull, push, tag, list, remove, and the unpacking of layers into snapshots.

Content (manifests, blobs, tags) is kept by `storage`, trees by `node.snapshots`; this room brings both together. Start
at `store.Images`, then `pull`, `layers` and `unpack`. It knows no HTTP server and no container.
"""
