"""What the row of an upload holds of a multipart upload, so that any process can go on with it."""

from dataclasses import dataclass

from ocispec.errors import InvalidArgument

NO_TAIL = "-"
FIELDS = 4


class InvalidMark(InvalidArgument):
    """The database holds something else than a mark of ours."""


@dataclass(frozen=True, slots=True)
class Mark:
    """`upload` is S3's id; it has `count` parts with numbers from 1 and `size` bytes in all; `tail` names the object
    that holds the bytes behind them."""

    upload: str
    count: int
    size: int
    tail: str | None

    @classmethod
    def parse(cls, text: str) -> "Mark":
        """Raises InvalidMark."""
        fields = text.split(" ")
        if len(fields) != FIELDS or not all(fields) or not (fields[1].isdecimal() and fields[2].isdecimal()):
            raise InvalidMark(f"invalid mark of an upload: {text[:200]!r}")
        return cls(fields[0], int(fields[1]), int(fields[2]), None if fields[3] == NO_TAIL else fields[3])

    def __str__(self) -> str:
        return f"{self.upload} {self.count} {self.size} {self.tail or NO_TAIL}"
