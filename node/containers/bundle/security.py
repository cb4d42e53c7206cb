"""What a container's processes may do: capabilities, seccomp, no_new_privs, masked and read-only paths, labels.

What holds when nothing is said is `baseline`'s. A privileged container loses nothing by a setuid program, so it has no
no_new_privs unless it asks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from node.containers.bundle import options
from node.containers.bundle.baseline import ambient_set, baseline, capability_set
from node.containers.bundle.dockerseccomp import translate
from node.containers.errors import InvalidSpec
from node.containers.model import Security
from node.linux import labels, seccomp
from ocispec.errors import Unimplemented

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
MAX_PROFILE = 256 * 1024
"""Docker's own has 18 KiB. What it costs to judge grows with it."""

READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Confinement:
    """The parsed form of Security; `seccomp` is a runtime-spec `linux.seccomp` object or None (unconfined)."""

    capabilities: tuple[str, ...]
    ambient: tuple[str, ...]
    """Of those, what a user who is not root holds."""

    no_new_privileges: bool
    seccomp: Mapping[str, Any] | None
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    apparmor: str = ""
    """A profile's name; empty: none, or the kernel knows none."""

    writable_cgroups: bool = False
    proc: tuple[str, ...] = ()
    """Further mount options of /proc."""


def confine(spec: Security) -> Confinement:
    """Raises InvalidSpec or Unimplemented; the manager calls it at create too, so that start cannot fail on it."""
    kind, asked = baseline(spec.isolation), options.parse(spec.security_opt)
    held, ambient = capabilities_of(spec)
    no_new_privileges = kind.no_new_privileges and not spec.privileged
    profile = "unconfined" if spec.privileged else ""
    masked, readonly = _covered(spec, asked)
    return Confinement(
        held,
        ambient,
        no_new_privileges if asked.no_new_privileges is None else asked.no_new_privileges,
        _seccomp(profile if asked.seccomp is None else asked.seccomp, held, older=kind.older_calls or spec.older_calls),
        masked,
        readonly,
        _apparmor(asked.apparmor, privileged=spec.privileged),
        asked.writable_cgroups,
        _checked(asked).proc,
    )


def capabilities_of(spec: Security) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The bounding set, which root holds, and what others hold. Raises InvalidSpec."""
    kind = baseline(spec.isolation)
    held = capability_set(kind, spec.cap_add, spec.cap_drop, privileged=spec.privileged)
    return held, ambient_set(kind, spec.cap_add, held, privileged=spec.privileged)


def profile_of(spec: Security) -> str:
    """The AppArmor profile as inspect shows it: a name, `unconfined`, or nothing where the kernel runs no AppArmor."""
    if not labels.has_apparmor():
        return ""
    asked = options.parse(spec.security_opt).apparmor
    return asked or ("" if spec.privileged else labels.default_apparmor()) or "unconfined"


def _covered(spec: Security, asked: options.Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Masked and read-only paths: the lists, less what is uncovered by name, and what is masked by name."""
    masked = (*MASKED, *thermal_throttles()) if spec.masked_paths is None else spec.masked_paths
    readonly = READONLY if spec.readonly_paths is None else spec.readonly_paths
    if spec.privileged or asked.bare_system_paths:
        masked, readonly = (), ()
    bare = [path for path in masked if not asked.uncovers(path)]
    return (*bare, *asked.masked), tuple(path for path in readonly if not asked.uncovers(path))


def _checked(asked: options.Options) -> options.Options:
    """SELinux labels: what turns them off asks for nothing where nothing is labelled."""
    for label in asked.selinux:
        if label == "disable":
            continue
        if not labels.has_selinux():
            raise InvalidSpec(f'security option "label={label}": the kernel of this host runs without SELinux')
        raise Unimplemented(f'security option "label={label}": containers get no SELinux labels yet; label=disable is '
                            "what they have")
    return asked


def _apparmor(profile: str | None, *, privileged: bool) -> str:
    if profile == "unconfined" or (profile is None and privileged):
        return ""
    if profile is None:
        return labels.default_apparmor()
    if not labels.has_apparmor():
        raise InvalidSpec(f'security option "apparmor={profile}": the kernel of this host runs without AppArmor')
    if labels.is_loaded(profile) is False:
        raise InvalidSpec(f'security option "apparmor={profile}": no profile of that name is loaded '
                          "(apparmor_parser loads them)")
    return profile


def _seccomp(profile: str, held: Sequence[str], *, older: bool) -> Mapping[str, Any] | None:
    if profile == "unconfined":
        return None
    if profile in ("", "builtin", "default"):
        return seccomp.default_profile(held, older=older)
    return _custom(profile, tuple(held))


@lru_cache(maxsize=16)
def _custom(profile: str, held: tuple[str, ...]) -> Mapping[str, Any]:
    """Judged once, not at every start and exec."""
    if len(profile) > MAX_PROFILE:
        raise InvalidSpec(f"Decoding seccomp profile failed: it is longer than {MAX_PROFILE} bytes")
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
