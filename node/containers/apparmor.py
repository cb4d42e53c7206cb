"""The AppArmor profile of containers that name none, where the kernel runs AppArmor.

What it denies is denied by namespaces, capabilities and masks already: it holds when one of them has a fault, and when
a container was given more than it should have (CAP_SYS_ADMIN without apparmor=unconfined still mounts nothing).
"""

import logging
import shutil
import subprocess

from node.linux import labels

NAME = labels.DEFAULTS[0]
PARSER = "apparmor_parser"
SECONDS = 20
# Globs, for this language has no "except": what is not the number of a process, and what is not below /sys/fs/cgroup.
PROFILE = f"""
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,

  # The monitor is unconfined; the processes of all containers bear this one name.
  signal (receive) peer=unconfined,
  signal (send, receive) peer={NAME},
  ptrace (trace, tracedby, read, readby) peer={NAME},

  deny mount,

  # The host's knobs. Of /proc/sys what belongs to the ipc namespace alone stays: kernel/shm*.
  deny /proc/* w,
  deny /proc/[^1-9s]*/** wkl,
  deny /proc/s[^y]*/** wkl,
  deny /proc/sys/[^k]** wkl,
  deny /proc/sys/kernel/[^s]** wkl,
  deny /proc/sys/kernel/s[^h]** wkl,
  deny /proc/sys/kernel/sh[^m]** wkl,
  deny /proc/{{sysrq-trigger,kcore,kallsyms,kmem,mem,acpi/**}} rwkl,
  deny /sys/[^f]*/** wkl,
  deny /sys/f[^s]*/** wkl,
  deny /sys/fs/[^c]*/** wkl,
  deny /sys/fs/c[^g]*/** wkl,
  deny /sys/fs/cg[^r]*/** wkl,
  deny /sys/firmware/** rwkl,
  deny /sys/kernel/security/** rwkl,
  deny /sys/devices/virtual/powercap/** rwkl,
}}
"""


def load_default() -> None:
    """So that `labels.default_apparmor` finds it. One of that name stays as it is: an administrator may have written
    his own. Where it cannot be loaded containers are without, which the log says."""
    if not labels.has_apparmor() or labels.is_loaded(NAME):
        return
    program = shutil.which(PARSER, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        _warn(f"there is no {PARSER}")
        return
    try:
        done = subprocess.run([program, "--add"], input=PROFILE.encode(), capture_output=True, timeout=SECONDS,
                              check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        _warn(str(error))
        return
    # Another node of this machine may have been first.
    if done.returncode and not labels.is_loaded(NAME):
        _warn(done.stderr.decode(errors="replace").strip()[:500])


def _warn(reason: str) -> None:
    logging.getLogger(__name__).warning("containers have no AppArmor profile: %s", reason)
