"""The process that keeps what containers have on the network while they run, daemon or not: it answers their DNS
questions at 127.0.0.11 and holds the sockets of published ports.

One a node, started with the first container that needs it; it ends when the last has ended and no daemon is
connected. It stands on the standard library, `node.linux` and dnslib. The daemon's side is `node.network.keeper`; the
two meet over a socket. It must not know containers beyond what it is told. Start at `control` for what it is told,
`zones` for who is called what, `sandbox` for one container's sockets, `forward` for questions that others answer.
"""
