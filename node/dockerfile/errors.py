"""What is wrong with a Dockerfile, and where."""

from ocispec.errors import InvalidArgument


class InvalidInstruction(InvalidArgument):
    """The text is no instruction, or not one that may stand here."""


class InvalidDockerfile(InvalidArgument):
    """`line` counts from 1; `reason` is the bare sentence, the message says the line too."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(f"dockerfile parse error on line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line
