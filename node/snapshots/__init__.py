"""Root file systems: one directory tree a layer, and a writable one a container, by overlayfs or by plain copies.

This room knows chain ids and directories. It knows no manifest, no tar and no registry: `node.images` unpacks into the
directories that `LayerSnapshots.prepare` hands out. Start at `store` (the Protocols), then `index` (the layout on
disk), then `overlay` and `vfs`; `choose.open_snapshotter` picks one.
"""
