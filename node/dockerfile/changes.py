"""Instructions carried out on the `config` object of an image (OCI image-spec config.md, Docker's extensions)."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.dockerfile import shell
from node.dockerfile.document import json_form
from node.dockerfile.errors import InvalidInstruction
from node.dockerfile.words import pairs, split, words

Config = dict[str, Any]

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SPANS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SHELL = ("/bin/sh", "-c")


def apply(config: Mapping[str, Any], lines: Sequence[str]) -> Config:
    """The configuration after these instructions, one after the other. Raises InvalidInstruction."""
    changed: Config = dict(config)
    for text in lines:
        for line in filter(None, (part.strip() for part in text.replace("\\\n", " ").split("\n"))):
            if line.startswith("#"):
                continue
            name, rest = split(line)
            if name not in _INSTRUCTIONS:
                raise InvalidInstruction(f"{name} is not a valid change command")
            if not rest and name != "CMD":
                raise InvalidInstruction(f"{name} requires at least one argument")
            _INSTRUCTIONS[name](changed, rest)
    return changed


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    return {entry.partition("=")[0]: entry.partition("=")[2] for entry in config.get("Env") or ()}


def _command(config: Config, text: str) -> list[str]:
    """The exec form, or a line for the shell."""
    listed = json_form(text)
    return listed if listed is not None else [*(config.get("Shell") or _SHELL), text] if text else []


def _cmd(config: Config, text: str) -> None:
    config["Cmd"] = _command(config, text)


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _command(config, text)
    config.pop("Cmd", None)


def _env(config: Config, text: str) -> None:
    held = environment(config)
    # All of one line see the environment before it.
    for name, value in pairs(text, dict(held), "ENV"):
        held[name] = value
    config["Env"] = [f"{name}={value}" for name, value in held.items()]


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(pairs(text, environment(config), "LABEL"))}


def _expose(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in words(text, environment(config)):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last <= 65535 or last - first > 1000:
            raise InvalidInstruction(f"invalid containerPort: {word[:100]}")
        ports |= {f"{number}/{(match[3] or 'tcp').lower()}": {} for number in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    listed = json_form(text)
    names = listed if listed is not None else words(text, environment(config))
    if not all(name.strip() for name in names):
        raise InvalidInstruction("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{name: {} for name in names}}


def _user(config: Config, text: str) -> None:
    config["User"] = _one(config, text, "USER")


def _workdir(config: Config, text: str) -> None:
    path = shell.word(text, environment(config))
    config["WorkingDir"] = posixpath.normpath(posixpath.join(config.get("WorkingDir") or "/", path))


def _stopsignal(config: Config, text: str) -> None:
    signal = _one(config, text, "STOPSIGNAL")
    if not re.fullmatch(r"(SIG)?[A-Za-z0-9+-]{1,12}", signal):
        raise InvalidInstruction(f"invalid signal: {signal[:50]}")
    config["StopSignal"] = signal


def _onbuild(config: Config, text: str) -> None:
    name, _ = split(text)
    if name in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidInstruction(f"{name} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: Config, text: str) -> None:
    options: dict[str, int] = {}
    while match := re.match(r"--(interval|timeout|start-period|start-interval|retries)=(\S+)\s+", text):
        options[match[1]] = int(match[2]) if match[1] == "retries" and match[2].isdigit() else _span(match[2])
        text = text[match.end():]
    kind, *after = text.split(None, 1)
    rest = after[0] if after else ""
    if kind.upper() == "NONE" and not rest.strip():
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not rest.strip():
        raise InvalidInstruction(f"Unknown type {kind[:50]!r} in HEALTHCHECK (try CMD)")
    listed = json_form(rest.strip())
    test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", rest.strip()]
    names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod",
             "start-interval": "StartInterval", "retries": "Retries"}  # fmt: skip
    config["Healthcheck"] = {"Test": test, **{names[name]: value for name, value in options.items()}}


def _shell(config: Config, text: str) -> None:
    listed = json_form(text)
    if not listed:
        raise InvalidInstruction("SHELL requires the arguments to be in JSON form")
    config["Shell"] = listed


def _span(text: str) -> int:
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise InvalidInstruction(f"invalid duration {text[:50]!r}")
    return sum(int(float(number) * _SPANS[unit]) for number, unit in found)


def _one(config: Config, text: str, instruction: str) -> str:
    found = words(text, environment(config))
    if len(found) != 1:
        raise InvalidInstruction(f"{instruction} requires exactly one argument")
    return found[0]


_INSTRUCTIONS: Mapping[str, Callable[[Config, str], None]] = {
    "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "HEALTHCHECK": _healthcheck,
    "LABEL": _label, "ONBUILD": _onbuild, "SHELL": _shell, "STOPSIGNAL": _stopsignal, "USER": _user,
    "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
