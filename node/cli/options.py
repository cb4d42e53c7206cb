"""The texts that flags of `run` and `create` take, parsed: sizes, ports, mounts, devices. Raise click.BadParameter."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([bkmgtp]?)(?:i?b)?", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SPANS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:]*\]|[^:\[\]]*):)?(?:(?P<host>[\d-]*):)?(?P<inner>[\d-]+)(?:/(?P<proto>\w+))?"
)
MAX_RANGE = 4096


def size(text: str) -> int:
    """Bytes; units are binary, as for `docker run --memory 512m`. -1 stays."""
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise click.BadParameter(f"invalid size: '{text}'")
    power = "bkmgtp".index(match[2].lower() or "b")
    return int(float(match[1]) * 1024**power)


def span(text: str) -> int:
    """Nanoseconds of a Go duration: 1m30s."""
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise click.BadParameter(f"invalid duration: '{text}' (want something like 30s or 1m30s)")
    return sum(int(float(number) * _SPANS[unit]) for number, unit in parts)


def cpus(text: str) -> int:
    """Billionths of a CPU."""
    match = re.fullmatch(r"(\d{0,6})(?:\.(\d{1,9}))?", text)
    if not match or text in ("", "."):
        raise click.BadParameter(f"failed to parse {text} as a rational number")
    return int(match[1] or 0) * 10**9 + int((match[2] or "").ljust(9, "0"))


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`key=value`, or `key` for an empty value."""
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def environment(texts: Sequence[str], files: Sequence[str]) -> list[str]:
    """`-e` and `--env-file`; a bare name takes this process's value when there is one."""
    given = [line for name in files for line in file_lines(name)] + list(texts)
    values = []
    for text in given:
        if not text or text.startswith("="):
            raise click.BadParameter(f"invalid environment variable: {text}")
        values.append(f"{text}={os.environ[text]}" if "=" not in text and text in os.environ else text)
    return values


def file_lines(name: str) -> Iterator[str]:
    try:
        text = Path(name).read_text()
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"cannot read {name}: {error}") from error
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.lstrip()


def ports(texts: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """`[[ip:][hostPort]:]containerPort[/protocol]`, each a number or a range, as HostConfig.PortBindings."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        for inner, binding in _port(text):
            bindings.setdefault(inner, []).append(binding)
    return bindings


def _port(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    match = _PORT.fullmatch(text)
    if not match:
        raise click.BadParameter(f"invalid publish specification: {text}", param_hint="--publish")
    ip, host = match["ip"] or "", match["host"] or ""
    if match["host"] is None and match["ip"] is not None:
        ip, host = "", match["ip"]  # `8080:80`: what stands before the only colon is a port
    inner, protocol = _range(match["inner"], text), (match["proto"] or "tcp").lower()
    outer = _range(host, text) if host else None
    if outer is not None and len(outer) != len(inner) and len(inner) != 1:
        raise click.BadParameter(f"invalid ranges specified for container and host ports: {text}")
    for at, number in enumerate(inner):
        shown = "" if outer is None else str(outer[at]) if len(outer) == len(inner) else host
        yield f"{number}/{protocol}", {"HostIp": ip.strip("[]"), "HostPort": shown}


def _range(text: str, whole: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit()) or not 0 <= int(first) <= int(last or first) < 65536:
        raise click.BadParameter(f"invalid port: {text!r} in {whole!r}", param_hint="--publish")
    numbers = range(int(first), int(last or first) + 1)
    if len(numbers) > MAX_RANGE:
        raise click.BadParameter(f"a range of more than {MAX_RANGE} ports: {text}", param_hint="--publish")
    return numbers


def exposed(texts: Sequence[str]) -> list[str]:
    found = []
    for text in texts:
        number, _, protocol = text.partition("/")
        found += [f"{port}/{protocol or 'tcp'}" for port in _range(number, text)]
    return found


def volumes(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Binds, and the paths of anonymous volumes."""
    binds: list[str] = []
    anonymous: dict[str, Any] = {}
    for text in texts:
        source, colon, rest = text.partition(":")
        if not colon:
            anonymous[source] = {}
        elif source.startswith((".", "~")):
            binds.append(f"{Path(source).expanduser().absolute().resolve()}:{rest}")
        else:
            binds.append(text)
    return binds, anonymous


def device(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise click.BadParameter(f"invalid device specification: {text}", param_hint="--device")
    inner, permissions = parts[0], "rwm"
    for part in parts[1:]:
        if re.fullmatch(r"[rwm]{1,3}", part):
            permissions = part
        else:
            inner = part
    return {"PathOnHost": parts[0], "PathInContainer": inner, "CgroupPermissions": permissions}


def split_devices(texts: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Paths, and what is named as vendor.com/class=name: a request to whoever knows such devices (CDI)."""
    named = [text for text in texts if re.fullmatch(r"[\w.-]+/[\w.-]+=[\w.:-]+", text)]
    request = {"Driver": "cdi", "DeviceIDs": named, "Capabilities": [["cdi"]]}
    return [text for text in texts if text not in named], [request] if named else []


def of_device(text: str, field: str, number: Callable[[str], int] = int) -> dict[str, Any]:
    """`/dev/sda:1mb` as {"Path", field}."""
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise click.BadParameter(f"bad format for device: {text} (want /dev/NAME:NUMBER)")
    try:
        amount = number(value)
    except ValueError:
        amount = -1
    if amount < 0:
        raise click.BadParameter(f"invalid {field.lower()} for device: {text}")
    return {"Path": path, field: amount}


def gpus(text: str) -> dict[str, Any]:
    """`all`, a number, or `device=a,capabilities=b,driver=c,count=n` as an entry of DeviceRequests."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": [], "Capabilities": [], "Options": {}}
    capabilities = {"gpu"}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        match key if equals else "count":
            case "driver":
                request["Driver"] = value
            case "count":
                count = value if equals else key
                if count != "all" and not count.isdigit():
                    raise click.BadParameter(f"invalid count: {count}", param_hint="--gpus")
                request["Count"] = -1 if count == "all" else int(count)
            case "device":
                request["DeviceIDs"] += value.split(",")
            case "capabilities":
                capabilities |= set(value.split(","))
            case "options":
                request["Options"] = pairs(value.split(","))
            case _:
                raise click.BadParameter(f"unexpected key '{key}' in '{field}'", param_hint="--gpus")
    request["Capabilities"] = [sorted(capabilities)]
    return request


def ulimit(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
    if not match:
        raise click.BadParameter(f"invalid ulimit argument: {text}", param_hint="--ulimit")
    return {"Name": match[1], "Soft": int(match[2]), "Hard": int(match[3] or match[2])}


def restart(text: str) -> dict[str, Any]:
    name, _, count = text.partition(":")
    if count and not count.isdigit():
        raise click.BadParameter(f"invalid restart policy format: {text}", param_hint="--restart")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def security_options(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The options, a seccomp profile read from its file; and what `systempaths=unconfined` means instead."""
    kept: list[str] = []
    extra: dict[str, Any] = {}
    for text in texts:
        if text == "systempaths=unconfined":
            extra = {"MaskedPaths": [], "ReadonlyPaths": []}
            continue
        name, _, value = text.partition("=") if "=" in text else text.partition(":")
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            try:
                text = "seccomp=" + json.dumps(json.loads(Path(value).read_text()))
            except (OSError, ValueError) as error:
                raise click.BadParameter(f"opening seccomp profile ({value}) failed: {error}") from error
        kept.append(text)
    return kept, extra
