"""What a courier needs of a log service. Every method blocks, for SECONDS at most at a time; they run in threads."""

from collections.abc import Sequence
from typing import Protocol

from node.containers.logformats import Entry

SECONDS = 5.0


class Sender(Protocol):
    """A log service, not yet or no longer connected until something is sent."""

    def send(self, entries: Sequence[Entry]) -> None:
        """All of them, or OSError: some may have arrived then."""
        ...

    def close(self) -> None: ...


def lines(entry: Entry) -> list[bytes]:
    """Without their newlines; empty ones are left out, as Docker does."""
    return [line for line in entry.text.split(b"\n") if line]
