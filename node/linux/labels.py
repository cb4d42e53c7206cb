"""Which Linux security modules label processes here, and which profiles AppArmor has."""

from pathlib import Path

_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_SELINUX = Path("/sys/fs/selinux/enforce")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
DEFAULTS = ("seawall-default", "docker-default")
"""Profiles for containers that name none, the first that is loaded: an administrator's for this node, or what Docker
left behind."""


def has_apparmor() -> bool:
    try:
        return _APPARMOR.read_text().startswith("Y")
    except OSError:
        return False


def has_selinux() -> bool:
    """Also while it only warns."""
    return _SELINUX.exists()


def is_loaded(profile: str) -> bool | None:
    """None: the kernel does not say (securityfs is not mounted)."""
    known = _loaded()
    return None if known is None else profile in known


def default_apparmor() -> str:
    """Empty where there is none, or no AppArmor."""
    known = (_loaded() or frozenset()) if has_apparmor() else frozenset()
    return next((name for name in DEFAULTS if name in known), "")


def _loaded() -> frozenset[str] | None:
    try:
        lines = _PROFILES.read_text().splitlines()
    except OSError:
        return None
    return frozenset(line.rpartition(" (")[0] for line in lines)
