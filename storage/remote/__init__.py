"""Another registry as a place where content lives: the client side of the OCI distribution spec.

`client.RemoteRegistry` is the way in; `transport` holds what every request needs (redirects, retries, sizes, the
schemes allowed), `auth` the challenges and tokens. Nothing here trusts the other side: every length is bounded while
reading, every digest is checked, and credentials go only where the registry's own name ties them (CVE-2026-33540).
"""
