"""Where content lives: bytes, rows, and what a repository does with them. Used by the registry and the node alike.

It knows nothing of HTTP, users or containers. Rooms, from the floor up: `settings` and `errors`; `blobs` (bytes
under opaque keys) beside `metadata` (all SQL); `uploads` (the session); `repository` (blobs, manifests, tags,
referrers); `gc`. Start at `repository.store.ContentStore`, which is what a composition root builds.
"""
