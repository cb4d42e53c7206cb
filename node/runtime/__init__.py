"""An OCI runtime in processes of its own: launcher, monitor, container init (docs/process-model.md).

Standard library and `node.linux` only: the launcher must be warm in milliseconds and small when it forks, and what runs
inside a container's namespaces must not know the daemon. Start reading at `launcher`, then `monitor`, `birth` (what a
new process does before execve) and `rootfs` (mounts as data).
"""
