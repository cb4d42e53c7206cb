"""Taking over what another registry stored: its folder or bucket is read, its content becomes ours.

    tree       what a source's files look like: `folder` (hostile until shown otherwise) and `bucket`
    layouts    `distribution` (CNCF distribution, docker-registry, Harbor's) and `layout` (zot, any OCI image layout)
    journal    everything that was damaged, and what was done about it
    transfer   bytes: read, hashed, linked or copied
    takeover   the order of things: blobs, then manifests, then tags, repository by repository

The source is only read. What is done already is seen from our own rows, so nothing has to be remembered elsewhere and
an interrupted import goes on when it is started again. Start at `takeover`.
"""
