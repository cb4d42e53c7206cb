"""What sections are made of: fields with their documentation, and the fault of a wrong one."""

from dataclasses import field
from typing import Any

from ocispec.errors import InvalidArgument


class InvalidSettings(InvalidArgument):
    """A file, variable or flag holds what cannot be right; the message names it."""


def doc(default: Any, text: str) -> Any:
    return field(default=default, metadata={"doc": text})


def secret(text: str) -> Any:
    return field(default="", repr=False, metadata={"doc": text})


def at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InvalidSettings(f"{name} is {value:g}, less than {least:g}")
