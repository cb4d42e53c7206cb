"""The registry: the OCI distribution API (and what Docker's client asks beside it) over a content store.

Start at `app` (what is put together), then `api/routes` (every operation on one screen). It knows nothing of nodes and
containers; they meet over HTTP.
"""
