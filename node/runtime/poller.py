"""Waiting for many descriptors at once, with a function for each.

epoll rather than `selectors`: a watch for nothing still hears of a hang-up, which tells a client that has gone from one
that has only closed its sending half. See epoll_ctl(2).
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR


class Poller:
    """A descriptor must be forgotten before it is closed: a forked child may hold the same file open, and epoll would
    go on reporting it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Callable[[int, int], None]]] = {}
        self.chore: Callable[[], bool] | None = None
        """Work that can be done in slices between events: called until it says that nothing is left."""

    def watch(self, fd: int, events: int, handle: Callable[[int, int], None]) -> None:
        """Call `handle(fd, events)` when one of the events or a hang-up comes; replaces an earlier watch."""
        held = self._watched.get(fd)
        if held is None:
            self._epoll.register(fd, events)
        elif held[0] != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = (events, handle)

    def forget(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        self._epoll.close()

    def wait(self, timeout: float | None) -> None:
        """Handle what happens next, or nothing within `timeout` seconds."""
        for fd, events in self._epoll.poll(timeout if self.chore is None else 0):
            held = self._watched.get(fd)
            # An earlier handler of this round may have ended what this is about.
            if held is not None:
                held[1](fd, events)
        if self.chore is not None and not self.chore():
            self.chore = None
