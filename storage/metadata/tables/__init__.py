"""The schema. A change here needs a migration in `migrations/storage/versions` (a test compares the two).

Bytes and rows: `blobs` maps a digest to the storage key that holds it; `tombstones` are keys whose rows are gone and
whose bytes have yet to go. Manifests are small, read often and written in the transaction that checks them, so they
live in rows whole. They belong to one repository: nobody reads a manifest through another's name.

`touched` is when a client was last told that the thing exists, or when a manifest last named it. The garbage
collector leaves alone what was touched within its grace; see `storage.gc`.
"""

from storage.metadata.tables.accounts import memberships, policies, refresh_tokens, robots, signing_keys, users
from storage.metadata.tables.base import EPOCH, DigestText, Instant, metadata
from storage.metadata.tables.content import (
    blobs,
    lease_contents,
    leases,
    manifest_annotations,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
    tombstones,
    uploads,
)
from storage.metadata.tables.events import events, webhook_cursors, webhook_dead, webhooks
from storage.metadata.tables.replicas import topics
from storage.metadata.tables.rules import blob_reviews, duties, pulls, rules, usage
from storage.metadata.tables.scrub import scrub_passes
from storage.metadata.tables.sessions import sessions
from storage.metadata.tables.upstreams import cached_tags, fills

__all__ = [
    "EPOCH",
    "DigestText",
    "Instant",
    "blob_reviews",
    "blobs",
    "cached_tags",
    "duties",
    "events",
    "fills",
    "lease_contents",
    "leases",
    "manifest_annotations",
    "manifest_references",
    "manifests",
    "memberships",
    "metadata",
    "policies",
    "pulls",
    "refresh_tokens",
    "repositories",
    "repository_blobs",
    "robots",
    "rules",
    "scrub_passes",
    "sessions",
    "signing_keys",
    "tags",
    "tombstones",
    "topics",
    "uploads",
    "usage",
    "users",
    "webhook_cursors",
    "webhook_dead",
    "webhooks",
]
