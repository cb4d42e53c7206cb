"""The version of the Engine API a request speaks: `/v1.43/…`, or the newest when the path names none."""

import re
from dataclasses import dataclass

from ocispec.errors import InvalidArgument

_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)")


class WrongVersion(InvalidArgument):
    """The client speaks a version older or newer than this daemon; the message is Docker's."""


@dataclass(frozen=True, slots=True, order=True)
class ApiVersion:
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


# 1.24 is what every client since 2016 can speak: raising this floor is what broke tools when Docker did it.
OLDEST = ApiVersion(1, 24)
NEWEST = ApiVersion(1, 51)


def split_version(path: str) -> tuple[ApiVersion, str]:
    """The version and the path without it. Raises WrongVersion."""
    match = _PREFIX.fullmatch(path)
    if not match:
        return NEWEST, path
    version = ApiVersion(int(match[1]), int(match[2]))
    if version > NEWEST:
        raise WrongVersion(f"client version {version} is too new. Maximum supported API version is {NEWEST}")
    if version < OLDEST:
        raise WrongVersion(
            f"client version {version} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    return version, match[3]
