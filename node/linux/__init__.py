"""The kernel floor: system calls, mounts, namespaces, capabilities, seccomp, cgroups, netlink, nftables.

Standard library only, synchronous, cheap to import: the runtime's launcher stands on these modules in an interpreter
that starts in milliseconds. Every call into libc is checked and raises `OSError` with the kernel's errno.
It must not know: containers, images, the daemon, or anything that is not a fact of Linux.
Start reading at `seccomp.py` (filters), `capabilities.py`, and `cgroups/__init__.py`.
"""
