"""`--name[=value]` of an instruction."""

from collections.abc import Sequence
from difflib import get_close_matches

from node.dockerfile.errors import InvalidInstruction

_WORDS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class Flags:
    """Taken one after the other; `finish` refuses what nobody took."""

    def __init__(self, instruction: str, written: Sequence[str]) -> None:
        self._instruction = instruction
        self._asked: set[str] = set()
        self._held: list[tuple[str, str | None]] = []
        for flag in written:
            name, equals, value = flag.removeprefix("--").partition("=")
            self._held.append((name, value if equals else None))

    def texts(self, name: str) -> tuple[str, ...]:
        """A flag that may be repeated. Raises InvalidInstruction."""
        self._asked.add(name)
        found = []
        for held, value in self._held:
            if held == name:
                if value is None:
                    raise InvalidInstruction(f"missing a value on flag: {name}")
                found.append(value)
        return tuple(found)

    def text(self, name: str) -> str:
        self._once(name)
        return (self.texts(name) or ("",))[0]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first of the choices is the default."""
        value = self.text(name) or choices[0]
        if value not in choices:
            raise InvalidInstruction(f'invalid {name} mode: "{value[:50]}": one of {", ".join(choices)}')
        return value

    def maybe(self, name: str) -> bool | None:
        self._once(name)
        self._asked.add(name)
        for held, value in self._held:
            if held == name:
                if value is not None and value.lower() not in _WORDS:
                    raise InvalidInstruction(f"expecting boolean value for flag {name}, not: {value[:50]}")
                return True if value is None else _WORDS[value.lower()]
        return None

    def boolean(self, name: str) -> bool:
        return bool(self.maybe(name))

    def finish(self) -> None:
        """Raises InvalidInstruction."""
        for name, _ in self._held:
            if name not in self._asked:
                near = get_close_matches(name, self._asked, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise InvalidInstruction(f"{self._instruction}: unknown flag: --{name[:50]}{hint}")

    def _once(self, name: str) -> None:
        if sum(held == name for held, _ in self._held) > 1:
            raise InvalidInstruction(f"duplicate flag specified: {name}")
