"""The `seawall-registry` command, a file a group of verbs. Start at `root`."""

from registry.cli import accounts as accounts
from registry.cli import events as events
from registry.cli import immutable as immutable
from registry.cli import importing as importing
from registry.cli import quota as quota
from registry.cli import retention as retention
from registry.cli import upstreams as upstreams
from registry.cli import verify as verify
from registry.cli.root import main

__all__ = ["main"]
