"""A node of an ordinary user: the daemon runs as root of a user namespace that the user may make.

```
seawalld          started by the user: finds or starts the holder, enters its namespaces, executes itself there
seawall-holder    one a node, in the host's network: keeps the namespaces (user, network, mount, IPC), starts pasta or
                  slirp4netns, and makes the sockets of published ports, which must be the host's
```

Nothing else of the node knows how it came to be root; what it lacks (device nodes, most of the host's cgroups, mounts
of disks) the kernel refuses in the rooms concerned. The holder outlives the daemon, so that containers do; should it be
killed, the next one finds the namespaces by the processes that are still in them.

`idmaps` says which ids the user has, `namespaces` makes and finds, `uplink` is the way out, `holder` is the process,
`link` how others ask it, `entry` what `seawalld` calls first. Standard library and node.linux, but for `entry`.
"""
