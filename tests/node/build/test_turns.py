"""Output of stages that run side by side."""

from collections.abc import Mapping
from typing import Any

from node.build.turns import EACH, MAX_KEPT, Turns


class Said:
    def __init__(self) -> None:
        self.texts: list[str] = []

    async def ready(self) -> None: ...
    def stream(self, text: str) -> None:
        self.texts.append(text)

    def aux(self, value: Mapping[str, Any]) -> None:
        self.texts.append(str(value))

    def status(self, text: str, id: str = "") -> None:  # noqa: A002
        self.texts.append(text + id)

    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None:  # noqa: A002
        self.texts.append(f"{id} {status} {current}/{total}")


def test_one_after_the_other() -> None:
    said = Said()
    turns = Turns(said, 3)
    one, two, three = (turns.of(place) for place in range(3))
    two.stream("2a")
    one.stream("1a")
    three.status("3a")
    turns.end(1)
    one.layer("x", "Pulling", 1, 2)
    turns.end(0)
    three.aux({"ID": 1})
    turns.end(2)
    assert said.texts == ["1a", "x Pulling 1/2", "2a", "3a", "{'ID': 1}"]


def test_what_is_kept_is_bounded() -> None:
    said = Said()
    turns = Turns(said, 2)
    later = turns.of(1)
    for _ in range(10):
        later.stream("x" * (MAX_KEPT // 4 - EACH))
    turns.end(0)
    assert said.texts[-1] == "[output left out]\n"
    assert len(said.texts) == 5
    later.stream("now")
    assert said.texts[-1] == "now"


def test_short_lines_have_a_price_too() -> None:
    said = Said()
    turns = Turns(said, 2)
    for _ in range(100_000):
        turns.of(1).stream("x")
    turns.end(0)
    assert len(said.texts) < 20_000


def test_who_fails_is_heard() -> None:
    said = Said()
    turns = Turns(said, 2)
    turns.of(1).stream("why")
    turns.show(1)
    assert said.texts == ["why"]
