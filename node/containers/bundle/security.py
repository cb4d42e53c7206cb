"""What a container's processes may do: capabilities, seccomp, no_new_privs, masked and read-only paths.

Defaults are Docker's with one difference: no_new_privs is on, except for a privileged container, which loses nothing
by a setuid program. `--security-opt no-new-privileges=false` turns it off.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from node.containers.bundle.dockerseccomp import translate
from node.containers.errors import InvalidSpec
from node.containers.model import Security
from node.linux import capabilities, seccomp
from ocispec.errors import Unimplemented

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Confinement:
    """The parsed form of Security; `seccomp` is a runtime-spec `linux.seccomp` object or None (unconfined)."""

    capabilities: tuple[str, ...]
    no_new_privileges: bool
    seccomp: Mapping[str, Any] | None
    masked: tuple[str, ...]
    readonly: tuple[str, ...]


def confine(spec: Security) -> Confinement:
    """Raises InvalidSpec or Unimplemented; the manager calls it at create too, so that start cannot fail on it."""
    held = capability_set(spec.cap_add, spec.cap_drop, privileged=spec.privileged)
    no_new_privileges, profile = not spec.privileged, "unconfined" if spec.privileged else ""
    masked = () if spec.privileged else spec.masked_paths
    readonly = () if spec.privileged else spec.readonly_paths
    for option in spec.security_opt:
        name, equals, value = option.partition("=") if "=" in option else option.partition(":")
        if name == "no-new-privileges":
            no_new_privileges = _boolean(value) if equals else True
        elif name == "seccomp":
            profile = value
        elif name == "systempaths" and value == "unconfined":
            masked, readonly = (), ()
        elif name not in ("label", "apparmor", "systempaths"):
            raise InvalidSpec(f'invalid --security-opt: "{option[:300]}"')
        elif not _is_harmless(name, value):
            raise Unimplemented(f'security option "{option}" is not supported yet')
    return Confinement(
        held,
        no_new_privileges,
        _seccomp(profile, held),
        (*MASKED, *thermal_throttles()) if masked is None else masked,
        READONLY if readonly is None else readonly,
    )


def capability_set(add: Sequence[str], drop: Sequence[str], *, privileged: bool = False) -> tuple[str, ...]:
    """Docker's rules: ALL in either list stands for every capability this kernel knows. Raises InvalidSpec."""
    added, dropped = _parse(add, "CapAdd"), _parse(drop, "CapDrop")
    if privileged:
        return _parse(["ALL"], "CapAdd")
    if any(name.upper() in ("ALL", "CAP_ALL") for name in add):
        return tuple(name for name in added if name not in dropped)
    kept = [name for name in capabilities.DEFAULT if name not in dropped]
    return (*kept, *(name for name in added if name not in kept))


def _parse(names: Sequence[str], field: str) -> tuple[str, ...]:
    try:
        return capabilities.parse(names)
    except capabilities.UnknownCapability as error:
        known = {name.removeprefix("CAP_") for name in (*capabilities.ALL, "ALL")}
        wrong = next((bare for name in names if (bare := name.upper().removeprefix("CAP_")) not in known), "")
        text = f'unknown capability: "CAP_{wrong[:100]}"' if wrong else str(error)
        raise InvalidSpec(f"invalid {field}: {text}") from error


def _boolean(value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise InvalidSpec(f"invalid --security-opt: no-new-privileges={value!r} is neither true nor false")
    return value.lower() in ("true", "1")


def _is_harmless(name: str, value: str) -> bool:
    """Turning off what this host does not have (SELinux labels, AppArmor) asks for nothing."""
    return (name == "label" and value == "disable") or (name == "apparmor" and value == "unconfined")


def _seccomp(profile: str, held: Sequence[str]) -> Mapping[str, Any] | None:
    if profile == "unconfined":
        return None
    if profile in ("", "builtin", "default"):
        return seccomp.default_profile(held)
    try:
        resolved = translate(json.loads(profile), held)
        seccomp.compile_profile(resolved)
        seccomp.filter_flags(resolved)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(f"Decoding seccomp profile failed: {error}") from error
    return resolved


@cache
def thermal_throttles() -> tuple[str, ...]:
    """A side channel a CPU (GHSA-6fw5-f8r9-fgfm); the CPUs present at start do not change."""
    return tuple(sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"))))
