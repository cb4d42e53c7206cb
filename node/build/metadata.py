"""The instructions that only say something: carried out on an image's `config`, with their line of history.

History lines are BuildKit's (`CMD ["sh"]`, `RUN |1 A=b /bin/sh -c x # buildkit`): what `docker history` shows of any
image that is built today.
"""

import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.dockerfile import typed
from node.dockerfile.changes import apply, environment
from node.dockerfile.errors import InvalidInstruction

COMMENT = "buildkit.dockerfile.v0"
DEFAULT_SHELL = ("/bin/sh", "-c")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Config = dict[str, Any]
Word = Callable[[str], str]


def carried_out(config: Mapping[str, Any], says: typed.Typed, word: Word, *, cmd_set: bool) -> tuple[Config, str]:
    """The configuration after the instruction, and its line of history. `cmd_set`: a CMD of this very stage, which an
    ENTRYPOINT leaves alone. Raises InvalidInstruction."""
    changed = dict(config)
    match says:
        case typed.Env(pairs):
            return _env(changed, pairs, word)
        case typed.Label(pairs):
            told = [(word(name), word(value)) for name, value in pairs]
            changed["Labels"] = {**(changed.get("Labels") or {}), **dict(told)}
            return changed, "LABEL " + " ".join(f"{name}={value}" for name, value in told)
        case typed.Cmd() | typed.Entrypoint() | typed.Shell():
            return _words(changed, says, cmd_set=cmd_set)
        case typed.User(user):
            changed["User"] = _one(word(user), "USER")
            return changed, f"USER {changed['User']}"
        case typed.Volume(paths):
            found = [_one(word(path), "VOLUME") for path in paths]
            changed["Volumes"] = {**(changed.get("Volumes") or {}), **{path: {} for path in found}}
            return changed, f"VOLUME [{' '.join(found)}]"
        case typed.Expose(ports):
            return _expose(changed, ports, word)
        case _:
            return _rest(changed, says, word)


def _words(changed: Config, says: typed.Cmd | typed.Entrypoint | typed.Shell, *, cmd_set: bool) -> tuple[Config, str]:
    match says:
        case typed.Cmd(command):
            changed["Cmd"] = words_of(command, changed)
            return changed, f"CMD {_shown(changed['Cmd'])}"
        case typed.Entrypoint(command):
            changed["Entrypoint"] = words_of(command, changed)
            if not cmd_set:
                changed.pop("Cmd", None)
            return changed, f"ENTRYPOINT {_shown(changed['Entrypoint'])}"
        case typed.Shell(words):
            changed["Shell"] = list(words)
            return changed, f"SHELL {_shown(words)}"


def _rest(changed: Config, says: typed.Typed, word: Word) -> tuple[Config, str]:
    match says:
        case typed.StopSignal(signal):
            changed = apply(changed, [f"STOPSIGNAL {word(signal)}"])
            return changed, f"STOPSIGNAL {changed['StopSignal']}"
        case typed.HealthCheck(text):
            changed = apply(changed, [f"HEALTHCHECK {text}"])
            return changed, f"HEALTHCHECK {_health(changed['Healthcheck'])}"
        case typed.OnBuild(text):
            changed["OnBuild"] = [*(changed.get("OnBuild") or ()), text]
            return changed, f"ONBUILD {text}"
        case typed.Maintainer(name):
            return changed, f"MAINTAINER {name}"
        case _:
            raise InvalidInstruction(f"{type(says).__name__} makes a layer")


def workdir(config: Mapping[str, Any], path: str) -> str:
    """Where WORKDIR leads."""
    joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", _one(path, "WORKDIR")))
    return "/" + joined.lstrip("/")  # normpath keeps two slashes


def words_of(command: typed.Command, config: Mapping[str, Any]) -> list[str]:
    """As executed: the exec form itself, or the shell with the line."""
    if command.exec_form:
        return list(command.words)
    return [*shell_of(config), command.words[0]] if command.words else []


def shell_of(config: Mapping[str, Any]) -> Sequence[str]:
    return tuple(config.get("Shell") or DEFAULT_SHELL)


def entry(created: str, line: str) -> dict[str, object]:
    """A step of history that made a layer; without one it gets `empty_layer`."""
    return {"created": created, "created_by": line, "comment": COMMENT}


def with_path(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every image has a PATH, scratch too."""
    if "PATH" in environment(config):
        return config
    return {**config, "Env": [f"PATH={PATH}", *(config.get("Env") or ())]}


def _env(config: Config, pairs: Sequence[tuple[str, str]], word: Word) -> tuple[Config, str]:
    # All of one line see the environment before it.
    told = [(word(name), word(value)) for name, value in pairs]
    held = environment(config)
    held.update(told)
    config["Env"] = [f"{name}={value}" for name, value in held.items()]
    return config, "ENV " + " ".join(f"{name}={value}" for name, value in told)


def _expose(config: Config, ports: Sequence[str], word: Word) -> tuple[Config, str]:
    found = [part for port in ports for part in word(port).split()]
    if not found:
        raise InvalidInstruction("EXPOSE requires at least one argument")
    changed = apply(config, ["EXPOSE " + " ".join(found)])
    fresh = [port for port in changed["ExposedPorts"] if port not in (config.get("ExposedPorts") or {})]
    return changed, f"EXPOSE [{' '.join(fresh or found)}]"


def _health(check: Mapping[str, Any]) -> str:
    """Go's way to print the value, which is what BuildKit puts there."""
    parts = [f"Test:[{' '.join(check['Test'])}]"]
    parts += [f"{name}:{check[name] / 10**9:g}s" for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")
              if check.get(name)]
    if check.get("Retries"):
        parts.append(f"Retries:{check['Retries']}")
    return "&{" + " ".join(parts) + "}"


def _shown(words: Sequence[str]) -> str:
    return "[" + " ".join(json.dumps(one, ensure_ascii=False) for one in words) + "]"


def _one(text: str, name: str) -> str:
    if not text.strip():
        raise InvalidInstruction(f"{name} requires exactly one argument")
    return text
