"""The output of stages that are built side by side, one after the other: the first that has not ended is shown as it
goes, what the others say is kept until it is their turn."""

from collections.abc import Callable, Mapping
from typing import Any

from node.build.values import Output

MAX_KEPT = 4 * 1024 * 1024
"""Characters of one stage; beyond it what a command prints is left out until it is its turn."""


EACH = 256
"""What a line costs beside its text: a command may print one character at a time."""


class Turns:
    def __init__(self, output: Output, count: int) -> None:
        self._output = output
        self._kept: list[list[Callable[[Output], None]]] = [[] for _ in range(count)]
        self._sizes = [0] * count
        self._over = [False] * count
        self._turn = 0

    def of(self, place: int) -> "Turn":
        return Turn(self, place)

    def say(self, place: int, what: Callable[[Output], None], size: int) -> None:
        if place == self._turn:
            what(self._output)
            return
        if self._sizes[place] > MAX_KEPT:
            return
        self._sizes[place] += size + EACH
        if self._sizes[place] > MAX_KEPT:
            self._kept[place].append(lambda output: output.stream("[output left out]\n"))
            return
        self._kept[place].append(what)

    async def ready(self, place: int) -> None:
        if place == self._turn:
            await self._output.ready()

    def end(self, place: int) -> None:
        self._over[place] = True
        while self._turn < len(self._over) and self._over[self._turn]:
            self._turn += 1
            if self._turn < len(self._kept):
                for what in self._kept[self._turn]:
                    what(self._output)
                self._kept[self._turn] = []


    def show(self, place: int) -> None:
        """What this one said, out of its turn: the build ends with it."""
        if place != self._turn:
            for what in self._kept[place]:
                what(self._output)
            self._kept[place] = []


class Turn:
    """One stage's output (`values.Output`)."""

    def __init__(self, turns: Turns, place: int) -> None:
        self._turns = turns
        self._place = place

    async def ready(self) -> None:
        await self._turns.ready(self._place)

    def stream(self, text: str) -> None:
        self._turns.say(self._place, lambda output: output.stream(text), len(text))

    def aux(self, value: Mapping[str, Any]) -> None:
        self._turns.say(self._place, lambda output: output.aux(value), 100)

    def status(self, text: str, id: str = "") -> None:  # noqa: A002 - the wire's own name
        self._turns.say(self._place, lambda output: output.status(text, id), len(text))

    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None:  # noqa: A002
        self._turns.say(self._place, lambda output: output.layer(id, status, current, total), 100)
