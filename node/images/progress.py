"""How a pull or push says where it is, in Docker's words, so that the docker command's bars come out right."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

_INTERVAL = 0.1  # seconds between two byte counts of one layer


class Progress(Protocol):
    """Where a pull or push reports to. Called on the event loop; must not block."""

    def status(self, text: str, id: str = "") -> None:  # noqa: A002 - the wire's own name
        """A line, of its own or (with `id`) of a layer or tag."""
        ...

    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None:  # noqa: A002
        """A layer's line; with `total` a bar of bytes."""
        ...

    def aux(self, value: Mapping[str, Any]) -> None:
        """What programs read: `{"Tag", "Digest", "Size"}` at the end of a push."""
        ...


class Silent:
    """Progress for who does not look."""

    def status(self, text: str, id: str = "") -> None:  # noqa: A002
        pass

    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None:  # noqa: A002
        pass

    def aux(self, value: Mapping[str, Any]) -> None:
        pass


class LayerLine:
    """One layer's line: counts of bytes are thinned out, changes of the status never."""

    def __init__(self, progress: Progress, id: str) -> None:  # noqa: A002
        self._progress = progress
        self._id = id
        self._status = ""
        self._last = 0.0

    def say(self, status: str, current: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if status == self._status and (not total or (now - self._last < _INTERVAL and current != total)):
            return
        self._status, self._last = status, now
        self._progress.layer(self._id, status, current, total)
