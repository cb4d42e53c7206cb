"""What a repository does, free of HTTP and SQL: blobs, uploads, manifests, tags, referrers.

Start at `store.ContentStore`. Who may do it is decided above, in the program that calls.
"""
