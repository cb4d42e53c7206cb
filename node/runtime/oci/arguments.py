"""Flags as other runtimes take them: `--flag value`, `--flag=value`, `-f value`, one dash for long ones too.

`argparse` would cost more than all of the rest of a call, and takes what it does not know for a prefix of what it does.
"""

from __future__ import annotations

from node.runtime.oci.failure import Failure
from node.runtime.record import record

TRUTH = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


@record
class Flag:
    """`names` separated by spaces, the first is the key; `value` "" is a switch, one that ends in "..." may come more
    than once."""

    names: str
    value: str
    about: str


@record
class Given:
    """What was written. Flags that were not are absent."""

    flags: dict[str, list[str]]
    words: tuple[str, ...]

    def text(self, name: str, default: str = "") -> str:
        return self.flags[name][-1] if name in self.flags else default

    def texts(self, name: str) -> list[str]:
        return self.flags.get(name, [])

    def switch(self, name: str) -> bool:
        return self.text(name) == "true"

    def number(self, name: str, default: int = 0) -> int:
        if name not in self.flags:
            return default
        try:
            return int(self.text(name))
        except ValueError:
            raise Failure(f"--{name}: {self.text(name)!r} is not a number") from None


def parse(words: list[str], flags: tuple[Flag, ...], *, mixed: bool = True) -> Given:
    """`mixed`: flags may follow words; else the first word ends them. Raises Failure."""
    known = {name: flag for flag in flags for name in flag.names.split()}
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            rest += words[at:]
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not mixed:
                rest += words[at:]
                break
            continue
        name, equals, value = word.lstrip("-").partition("=")
        flag = known.get(name)
        if flag is None:
            raise Failure(f"flag provided but not defined: {word.partition('=')[0]}")
        if not flag.value:
            value = _truth(name, value) if equals else "true"
        elif not equals:
            if at == len(words):
                raise Failure(f"flag needs an argument: --{name}")
            value = words[at]
            at += 1
        found.setdefault(flag.names.split()[0], []).append(value)
    return Given(found, tuple(rest))


def _truth(name: str, value: str) -> str:
    if value.lower() not in TRUTH:
        raise Failure(f"--{name}: {value!r} is neither true nor false")
    return "true" if TRUTH[value.lower()] else "false"


def usage(flags: tuple[Flag, ...]) -> str:
    """The flags as lines of help."""
    lines = []
    for flag in flags:
        names = ", ".join(("--" if len(name) > 1 else "-") + name for name in flag.names.split())
        lines.append(f"   {names + (' ' + flag.value if flag.value else ''):36} {flag.about}\n")
    return "".join(lines)
