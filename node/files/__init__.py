"""What is read from and written into a container's file tree, as tar, by worker processes shut into that tree.

The tree is hostile and may be changing: its container runs. So the daemon itself never looks a path of it up. A worker
(`worker`, a program) enters the container's own mount namespace, or one where a stopped container's root and volumes
are mounted and nothing else is (`view`), forgets how to import modules, and does one thing there: `lookup`, `sending`,
`receiving`, `comparing`. `workers` is the daemon's side. This room knows no containers and no images.
"""
