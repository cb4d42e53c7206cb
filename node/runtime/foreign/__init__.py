"""Containers whose processes another OCI runtime makes (runc, crun, youki, …), under the same monitor.

The bundle is ours, made fit for a runtime that knows less (`bundle`): what it may not know (id-mapped, shared and
partial binds) the monitor mounts itself, beside the root, and the runtime binds from there. The monitor then commands
the runtime's program (`command`): create, start, exec, delete. What these leave behind, the container's processes,
become the monitor's children (it is a subreaper), so streams, log, exit status and signals are handled as with our own
(`task`). Pause, limits, stats, kill and the OOM killer are the cgroup's affair and need no runtime (`maker`).

Start reading at `maker.py`.
"""
