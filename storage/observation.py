"""What storage tells of its work to whoever measures or traces it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Tally(Protocol):
    """Something that is counted."""

    def add(self, amount: float = 1.0) -> None: ...


class Observer(Protocol):
    """Told on the event loop, and cheap to tell."""

    def span(self, room: str, call: str) -> AbstractContextManager[object]:
        """Surrounds one piece of work; `room` is `database`, `store` or `upstream`, `call` names what is done there. An
        exception that leaves it is the work's failure."""
        ...

    def tally(self, what: str) -> Tally:
        """Something to count: `cache.manifests.hit`, `store.read.bytes`. To be asked for once, not for each count."""
        ...


class Unobserved:
    """Nobody looks."""

    def span(self, room: str, call: str) -> AbstractContextManager[object]:  # noqa: ARG002
        return _NOTHING

    def tally(self, what: str) -> Tally:  # noqa: ARG002
        return Uncounted()


class Uncounted:
    __slots__ = ()

    def add(self, amount: float = 1.0) -> None:
        """Nobody counts."""


_NOTHING = nullcontext()
