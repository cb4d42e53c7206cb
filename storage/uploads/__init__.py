"""The upload session: open → appended* → committed | aborted | expired.

The row's offset is the truth, and only what is durable counts; the hasher in memory is a cache of it. Start at
`session`. The room knows bytes and rows, and nothing of manifests or HTTP ranges.
"""
