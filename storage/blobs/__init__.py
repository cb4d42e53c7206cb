"""Bytes under opaque keys. This room knows no digest, no repository and no HTTP: it keeps byte strings durable.

Start at `store` (the Protocols), then `keys` (the layout), then `disk`.
"""
