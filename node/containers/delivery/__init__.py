"""Logs on their way to a log service (syslog, journald), from the spool beside the container. Start at `courier`.

Nothing here holds up a container: what cannot be delivered now waits in the spool, whose size is bounded.
"""
