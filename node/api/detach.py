"""The key sequence that leaves an attached terminal without ending what runs in it (`ctrl-p,ctrl-q`)."""

from ocispec.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {f"ctrl-{chr(code + 96)}": code for code in range(1, 27)} | {
    "ctrl-@": 0, "ctrl-[": 27, "ctrl-\\": 28, "ctrl-]": 29, "ctrl-^": 30, "ctrl-_": 31
}  # fmt: skip


class InvalidKeys(InvalidArgument):
    """The text is no key sequence."""


class DetachKeys:
    """A scanner of terminal input. What may be the beginning of the sequence is held until the next byte decides."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    @classmethod
    def parse(cls, text: str) -> "DetachKeys":
        """`ctrl-p,ctrl-q` or single characters, comma-separated; "" is the default. Raises InvalidKeys."""
        codes = bytearray()
        for key in (text or DEFAULT).split(","):
            if len(key) == 1 and key.isascii():
                codes.append(ord(key))
            elif key in _CONTROL:
                codes.append(_CONTROL[key])
            else:
                raise InvalidKeys(f"Invalid detach keys ({text}) provided: Unknown character: '{key}'")
        return cls(bytes(codes))

    @property
    def sequence(self) -> bytes:
        return self._sequence

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete (what follows it is dropped)."""
        passed = bytearray()
        for byte in data:
            held = self._sequence[: self._matched] + bytes((byte,))
            while held and not self._sequence.startswith(held):
                passed.append(held[0])
                held = held[1:]
            self._matched = len(held)
            if held == self._sequence:
                self._matched = 0
                return bytes(passed), True
        return bytes(passed), False
