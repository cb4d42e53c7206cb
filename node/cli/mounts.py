"""`--mount`: docker's keys and those of this node (idmap; uid, gid and mode of a secret's or config's file)."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.options import size

BIND_RECURSIVE = {
    "enabled": {}, "disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}  # fmt: skip
_GROUPS = ("Bind", "Volume", "Tmpfs", "Image")


def mount(text: str) -> dict[str, Any]:
    """`type=bind,source=/a,target=/b,readonly` as an entry of HostConfig.Mounts."""
    found: dict[str, Any] = {"Type": "volume"}
    own: dict[str, Any] = {}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key == "bind-recursive":
            if value not in BIND_RECURSIVE:
                raise _wrong(f"invalid value for {key}: {value} (must be enabled, disabled, writable or readonly)")
            found.setdefault("BindOptions", {}).update(BIND_RECURSIVE[value])
        elif key in _OWN:
            own[_OWN[key][0]] = _value(_OWN[key][1], value, equals, None, field)
        elif key == "consistency":
            continue  # caching on macOS
        elif key in _KEYS:
            _put(found, *_KEYS[key], value, equals, field)
        else:
            raise _wrong(f"unexpected key '{key}' in '{field}'")
    kind = str(found["Type"]).lower()
    found["Type"] = kind
    if own:
        found.setdefault(f"{kind.title()}Options", {}).update(own)
    _check(found, kind)
    return found


def _check(found: Mapping[str, Any], kind: str) -> None:
    if not found.get("Target") and kind not in ("secret", "config"):
        raise _wrong("target is required")
    for group in _GROUPS:
        if f"{group}Options" in found and group.lower() != kind:
            raise _wrong(f"cannot mix '{group.lower()}-*' options with mount type '{kind}'")
    bind = found.get("BindOptions", {})
    if bind.get("ReadOnlyForceRecursive") and not found.get("ReadOnly"):
        raise _wrong("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise _wrong("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in "
                     "conjunction")


def _put(found: dict[str, Any], place: str, kind: str, value: str, equals: str, field: str) -> None:
    *path, name = place.split(".")
    holder = found
    for part in path:
        holder = holder.setdefault(part, {})
    holder[name] = _value(kind, value, equals, holder.get(name), field)


def _value(kind: str, value: str, equals: str, before: Any, field: str) -> Any:
    match kind:
        case "flag":
            if value.lower() not in ("", "true", "false", "1", "0"):
                raise _wrong(f"invalid value for {field}")
            return not equals or value.lower() in ("true", "1")
        case "size":
            return size(value)
        case "octal":
            if not re.fullmatch(r"[0-7]{1,5}", value):
                raise _wrong(f"invalid value for {field}")
            return int(value, 8)
        case "pair":
            key, _, text = value.partition("=")
            return {**(before or {}), key: text}
        case "word":
            return [*(before or []), value.split("=", 1)]
        case "path":
            return str(Path(value).absolute()) if value.startswith(".") else value
        case _:
            return value


def _wrong(text: str) -> click.BadParameter:
    return click.BadParameter(text, param_hint="--mount")


_KEYS: Mapping[str, tuple[str, str]] = {
    "type": ("Type", "text"),
    **dict.fromkeys(("source", "src"), ("Source", "path")),
    **dict.fromkeys(("target", "destination", "dst"), ("Target", "text")),
    **dict.fromkeys(("readonly", "ro"), ("ReadOnly", "flag")),
    "bind-propagation": ("BindOptions.Propagation", "text"),
    "bind-nonrecursive": ("BindOptions.NonRecursive", "flag"),
    "bind-create-src": ("BindOptions.CreateMountpoint", "flag"),
    "volume-nocopy": ("VolumeOptions.NoCopy", "flag"),
    "volume-label": ("VolumeOptions.Labels", "pair"),
    "volume-subpath": ("VolumeOptions.Subpath", "text"),
    "volume-driver": ("VolumeOptions.DriverConfig.Name", "text"),
    "volume-opt": ("VolumeOptions.DriverConfig.Options", "pair"),
    "tmpfs-size": ("TmpfsOptions.SizeBytes", "size"),
    "tmpfs-mode": ("TmpfsOptions.Mode", "octal"),
    "tmpfs-opt": ("TmpfsOptions.Options", "word"),
    "image-subpath": ("ImageOptions.Subpath", "text"),
}
_OWN = {"idmap": ("IdMap", "text"), "uid": ("UID", "text"), "gid": ("GID", "text"), "mode": ("Mode", "octal")}
"""In the options of the mount's type, whichever it is."""
