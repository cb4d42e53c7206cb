"""Docker's seccomp profile files (`--security-opt seccomp=FILE`), turned into the runtime-spec's form.

They differ in `archMap` and in rules that hold only for some capabilities, architectures and kernels
(docs.docker.com/engine/security/seccomp). A runtime-spec object comes out as it went in; what the rules themselves say
is judged by `node.linux.seccomp.compile_profile`.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from node.containers.errors import InvalidSpec

ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
CONDITIONS = frozenset({"includes", "excludes", "name", "comment"})


def translate(document: Any, held: Sequence[str]) -> dict[str, Any]:
    """`held`: the container's capabilities. Raises InvalidSpec."""
    profile = _object(document, "the profile")
    rules = [_object(rule, "a rule") for rule in _list(profile, "syscalls")]
    result = {key: value for key, value in profile.items() if key not in ("archMap", "syscalls")}
    if architectures := _architectures(profile):
        result["architectures"] = architectures
    result["syscalls"] = [_rule(rule) for rule in rules if _holds(rule, held)]
    return result


def _architectures(profile: Mapping[str, Any]) -> list[Any]:
    entries = [_object(entry, "an archMap entry") for entry in _list(profile, "archMap")]
    if not entries:
        return _list(profile, "architectures")
    ours = ARCHITECTURES.get(platform.machine(), ("", ""))[1]
    for entry in entries:
        if entry.get("architecture") == ours:
            return [ours, *_list(entry, "subArchitectures")]
    return [ours]


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    names = _list(rule, "names") or ([rule["name"]] if rule.get("name") else [])
    return {key: value for key, value in rule.items() if key not in CONDITIONS and value is not None} | {"names": names}


def _holds(rule: Mapping[str, Any], held: Sequence[str]) -> bool:
    includes, excludes = (_object(rule.get(key) or {}, key) for key in ("includes", "excludes"))
    arch = ARCHITECTURES.get(platform.machine(), ("", ""))[0]
    if any(cap in held for cap in _list(excludes, "caps")) or arch in _list(excludes, "arches"):
        return False
    if excludes.get("minKernel") and _kernel_at_least(excludes["minKernel"]):
        return False
    if any(cap not in held for cap in _list(includes, "caps")):
        return False
    arches = _list(includes, "arches")
    if arches and arch not in arches:
        return False
    return not includes.get("minKernel") or _kernel_at_least(includes["minKernel"])


def _kernel_at_least(version: Any) -> bool:
    try:
        wanted = tuple(int(part) for part in str(version).split(".")[:2])
    except ValueError as error:
        raise InvalidSpec(f"Decoding seccomp profile failed: {version!r} is no kernel version") from error
    running = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    return running >= wanted


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSpec(f"Decoding seccomp profile failed: {what} is not an object")
    return value


def _list(owner: Mapping[str, Any], key: str) -> list[Any]:
    value = owner.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidSpec(f"Decoding seccomp profile failed: {key} is not a list")
    return value
