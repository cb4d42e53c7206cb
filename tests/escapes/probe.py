"""Runs inside a container and tries, one by one, what leads out of one. Standard library only, nothing of ours.

    probe.py '{"calls": {"bpf": 321, …}, "victim": 123, "apart": false, …}'

Writes one JSON object: attempt → [verdict, what happened]. A verdict is "open" (the attempt works here), "closed" (it was
refused) or "absent" (this kernel has nothing of the kind). Every attempt goes as far as the kernel's permission and no
further: files are opened and not written, calls have arguments that are refused after the check for rights.

Each runs in a process of its own, so that what one does to itself (namespaces, roots, filters' kills) ends with it. Where
the defences are away that process has its own mount and uts namespaces: nothing that works here may change the machine.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
SECONDS = 5
RIGHTS = {errno.EPERM, errno.EACCES, errno.ENOSYS}
NEW_NS, NEW_UTS, NEW_USER, NEW_CGROUP = 0x20000, 0x0400_0000, 0x1000_0000, 0x0200_0000
ATTACH, DETACH = 16, 17

ASKED = {}
ATTEMPTS = {}

Attempt = Callable[[], str]


class Absent(Exception):
    """Nothing of the kind here."""


class Closed(Exception):
    """Refused, by other means than an errno."""


def attempt(function: Attempt) -> Attempt:
    ATTEMPTS[function.__name__] = function
    return function


# -- system calls


def call(name: str, *words: object) -> int:
    """The result, or OSError."""
    if name not in ASKED["calls"]:
        raise Absent(f"no {name} on this architecture")
    given = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    result = LIBC.syscall(ctypes.c_long(ASKED["calls"][name]), *given)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def reaches(name: str, *words: object) -> None:
    """An attempt: whether the kernel looks at the arguments at all."""

    def run() -> str:
        try:
            return f"{name} gave {call(name, *words)}"
        except OSError as error:
            if error.errno in RIGHTS:
                raise
            return f"{name} judged its arguments: {os.strerror(error.errno)}"

    ATTEMPTS[f"call {name}"] = run


reaches("unshare", NEW_NS)
reaches("clone3", None, 0)
reaches("bpf", 0, None, 0)
reaches("perf_event_open", None, 0, 0, 0, 0)
reaches("io_uring_setup", 0, None)
reaches("userfaultfd", 0xFFFF)
reaches("keyctl", 0, -3, 0)
reaches("add_key", None, None, None, 0, 0)
reaches("request_key", None, None, None, 0)
reaches("finit_module", -1, None, 0)
reaches("init_module", None, 0, None)
reaches("delete_module", None, 0)
reaches("kexec_load", 0, 1000, None, 0)
reaches("iopl", 3)
reaches("ioperm", 0x80, 1, 1)
reaches("swapon", b"/absent", 0)
reaches("swapoff", b"/absent")
reaches("acct", b"/absent")
reaches("clock_settime", 0, struct.pack("qq", 0, 2_000_000_000))
reaches("syslog", 10, None, 0)
reaches("open_tree", -100, b"/", 1)
reaches("fsopen", b"tmpfs", 0)
reaches("mount", b"none", b"/tmp", b"tmpfs", 0, None)
reaches("umount2", b"/probe.py", 2)
reaches("pivot_root", b"/absent", b"/absent")
reaches("fanotify_init", 0, 0)
reaches("quotactl", 0, None, 0, None)
reaches("personality", 0x0040000)
reaches("sethostname", None, 7)


@attempt
def new_user_namespace() -> str:
    call("unshare", NEW_USER)
    return "made one"


@attempt
def enter_a_namespace() -> str:
    """Our own mount namespace again: changes nothing, and asks for the same rights as another."""
    with open("/proc/self/ns/mnt") as own:
        call("setns", own.fileno(), NEW_NS)
    return "entered one"


@attempt
def file_by_handle() -> str:
    """The "shocker" of 2014: a handle needs no path and knows no root."""
    handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 120, 0), 128), ctypes.c_int()
    try:
        call("name_to_handle_at", -100, b"/etc/passwd", handle, ctypes.byref(mount), 0)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            # This file system gives none; whether one may be used is asked first.
            handle = ctypes.create_string_buffer(struct.pack("Ii", 8, 1), 128)
        else:
            raise
    with open("/etc/passwd") as there:
        try:
            return f"opened as {call('open_by_handle_at', there.fileno(), handle, os.O_RDONLY)}"
        except OSError as error:
            if error.errno in RIGHTS:
                raise
            return f"judged: {error}"


def sockets(name: str, family: int, kind: int, protocol: int = 0) -> None:
    def run() -> str:
        try:
            socket.socket(family, kind, protocol).close()
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                raise Absent(str(error)) from error
            raise
        return "has one"

    ATTEMPTS[f"socket {name}"] = run


sockets("AF_ALG", 38, socket.SOCK_SEQPACKET)
sockets("AF_VSOCK", 40, socket.SOCK_STREAM)
sockets("AF_PACKET", 17, socket.SOCK_RAW, 0x0300)
sockets("raw IP", socket.AF_INET, socket.SOCK_RAW, 1)


@attempt
def sockets_by_i386_calls() -> str:
    """int 0x80: socketcall(2) hides the family behind a pointer that no filter can follow."""
    if platform.machine() != "x86_64":
        raise Absent("no i386 here")
    low = 0x40  # MAP_32BIT
    data = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | low)
    code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | low,
                     mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    place = ctypes.addressof(ctypes.c_char.from_buffer(data))
    data[:12] = struct.pack("III", 40, socket.SOCK_STREAM, 0)
    # push rbx; mov eax, 102; mov ebx, 1; mov ecx, place; int 0x80; pop rbx; ret
    words = struct.pack("<BBI BI BI 4B", 0x53, 0xB8, 102, 0xBB, 1, 0xB9, place, 0xCD, 0x80, 0x5B, 0xC3)
    code[:len(words)] = words
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    if result < 0:
        if -result in (errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise Absent(os.strerror(-result))
        raise OSError(-result, os.strerror(-result))
    return "has a socket of AF_VSOCK"


# -- files of the kernel


def writes(path: str) -> None:
    def run() -> str:
        try:
            os.close(os.open(path, os.O_WRONLY))
        except FileNotFoundError as error:
            raise Absent(path) from error
        return "open for writing"

    ATTEMPTS[f"write {path}"] = run


for _path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
              "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity",
              "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"):
    writes(_path)


def reads(path: str) -> None:
    def run() -> str:
        try:
            if os.path.isdir(path):
                held = "".join(os.listdir(path))
            else:
                with open(path, "rb") as file:
                    held = str(file.read(64))
        except FileNotFoundError as error:
            raise Absent(path) from error
        if held in ("", "b''"):
            raise Closed("it is empty")
        return held[:40]

    ATTEMPTS[f"read {path}"] = run


for _path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/proc/scsi",
              "/proc/acpi", "/proc/latency_stats", "/sys/firmware", "/sys/devices/virtual/powercap",
              "/sys/kernel/debug", "/sys/kernel/security"):
    reads(_path)


@attempt
def masks_taken_away() -> str:
    call("umount2", b"/proc/timer_list", 0)
    return "unmounted what lies over /proc/timer_list"


@attempt
def remount_proc_sys() -> str:
    call("mount", b"none", b"/proc/sys", None, 32 | 4096, None)
    return "writable again"


@attempt
def core_pattern_made_writable() -> str:
    """The host executes what stands there: first the read-only mount goes, then it is opened."""
    call("mount", b"none", b"/proc/sys", None, 32 | 4096, None)
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return "open for writing"


# -- control groups


def version_1() -> str | None:
    """A controller with a hierarchy of its own."""
    for line in Path("/proc/cgroups").read_text().splitlines()[1:]:
        name, hierarchy, *_ = line.split()
        if hierarchy != "0" and name in ("pids", "memory", "cpuset", "rdma", "devices", "freezer"):
            return name
    return None


def mount_cgroups() -> str:
    os.makedirs("/tmp/groups", exist_ok=True)
    controller = version_1()
    kind, file = ("cgroup", "release_agent") if controller else ("cgroup2", "cgroup.procs")
    call("mount", b"none", b"/tmp/groups", kind.encode(), 0, controller.encode() if controller else None)
    os.close(os.open(f"/tmp/groups/{file}", os.O_WRONLY))
    return f"{file} of {controller or 'version 2'} is open for writing"


@attempt
def release_agent() -> str:
    """CVE-2022-0492's end: the host executes what stands in it."""
    return mount_cgroups()


@attempt
def release_agent_of_a_user_namespace() -> str:
    """CVE-2022-0492 itself."""
    call("unshare", NEW_USER | NEW_NS | NEW_CGROUP)
    try:
        return mount_cgroups()
    except OSError as error:
        return f"in namespaces of its own; then {error}"


@attempt
def leave_the_cgroup() -> str:
    """Its own files are there to be read alone."""
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        for name in {"cgroup.procs", "devices.allow", "memory.limit_in_bytes", "memory.max"} & set(names):
            os.close(os.open(f"{folder}/{name}", os.O_WRONLY))
            return f"{folder}/{name}"
    raise Absent("no cgroup file here")


# -- devices


def device(name: str, kind: int, major: int, minor: int) -> None:
    def run() -> str:
        said = []
        for folder in ("/tmp", "/dev", "/dev/shm"):
            try:
                os.mknod(f"{folder}/{name}", kind | 0o600, os.makedev(major, minor))
                os.close(os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno in (errno.ENXIO, errno.ENODEV):
                    raise Absent(str(error)) from error
                said.append(f"{folder}: {errno.errorcode[error.errno or 0]}")
            else:
                return f"opened in {folder}"
        raise Closed(", ".join(said))

    ATTEMPTS[f"make device {name}"] = run


device("kmsg", stat.S_IFCHR, 1, 11)
device("mem", stat.S_IFCHR, 1, 1)
device("fuse", stat.S_IFCHR, 10, 229)


@attempt
def make_the_hosts_disk() -> str:
    if ASKED["disk"] is None:
        raise Absent("the host itself may not open its disk")
    device("disk", stat.S_IFBLK, *ASKED["disk"])
    return ATTEMPTS["make device disk"]()


@attempt
def nodes_of_the_image() -> str:
    """Device nodes that came in a layer."""
    last: OSError | None = None
    for name in sorted(os.listdir("/nodes")):
        try:
            os.close(os.open(f"/nodes/{name}", os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            last = error
        else:
            return f"/nodes/{name} opened"
    raise last or Absent("the image has none")


# -- other processes


@attempt
def signal_the_host() -> str:
    os.kill(ASKED["victim"], 0)
    return "could be signalled"


@attempt
def trace_the_host() -> str:
    victim = ASKED["victim"]
    call("ptrace", ATTACH, victim, 0, 0)
    os.waitpid(victim, 0x40000000)
    call("ptrace", DETACH, victim, 0, 0)
    return "traced"


@attempt
def read_the_hosts_memory() -> str:
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(buffer), 8)
    try:
        call("process_vm_readv", ASKED["victim"], local, 1, struct.pack("QQ", 8, 8), 1, 0)
    except OSError as error:
        if error.errno == errno.EFAULT:
            return "only the address was wrong"
        raise
    return "read"


@attempt
def take_the_hosts_descriptors() -> str:
    pidfd = call("pidfd_open", ASKED["victim"], 0)
    os.close(call("pidfd_getfd", pidfd, 1, 0))
    return "took one"


@attempt
def root_of_the_host() -> str:
    return ", ".join(sorted(os.listdir(f"/proc/{ASKED['victim']}/root")))[:60]


@attempt
def environment_of_the_host() -> str:
    return str(len(Path(f"/proc/{ASKED['victim']}/environ").read_bytes()))


@attempt
def namespaces_of_the_host() -> str:
    return os.readlink(f"/proc/{ASKED['victim']}/ns/mnt")


def others() -> list[int]:
    """The processes that are looked at: those asked for, or all that can be seen."""
    return ASKED.get("pids") or [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


@attempt
def host_by_anyones_root() -> str:
    """A root or working folder of any process here that is the host's root."""
    for pid in others():
        for link in ("root", "cwd"):
            try:
                seen = os.stat(f"/proc/{pid}/{link}")
            except OSError:
                continue
            if [seen.st_dev, seen.st_ino] == ASKED["root"]:
                return f"/proc/{pid}/{link}"
    raise Closed("of none that can be seen")


@attempt
def leaked_descriptors() -> str:
    """CVE-2024-21626: of the first process, or ours, a descriptor of a folder or of a file that is not in our tree."""
    for pid in ("1", "self", *others()):
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                held = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if stat.S_ISDIR(held.st_mode) and not target.startswith("/proc"):
                return f"/proc/{pid}/fd/{name} is {target}"
    raise Closed("none")


@attempt
def writable_program_of_the_runtime() -> str:
    """CVE-2019-5736: the program that some process here still executes, when it is none of ours."""
    for pid in others():
        try:
            target = os.readlink(f"/proc/{pid}/exe")
            if os.path.exists(target) and os.path.samefile(target, f"/proc/{pid}/exe"):
                continue
            os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
        except OSError as error:
            if error.errno == errno.ETXTBSY:
                return f"/proc/{pid}/exe ({target}) would be writable"
            continue
        return f"/proc/{pid}/exe ({target}) is writable"
    raise Closed("all of them are ours, or cannot be written")


# -- roots


@attempt
def out_of_a_chroot() -> str:
    """A descriptor above the new root, and up from there."""
    own = os.stat("/")
    os.makedirs("/tmp/jail", exist_ok=True)
    above = os.open(".", os.O_RDONLY)
    try:
        os.chroot("/tmp/jail")
        os.fchdir(above)
    except PermissionError as error:
        raise Closed(str(error)) from error
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    seen = os.stat("/")
    if (seen.st_dev, seen.st_ino) == (own.st_dev, own.st_ino):
        raise Closed("up from the root is the root")
    return f"another root: {', '.join(sorted(os.listdir('/')))[:60]}"


@attempt
def abstract_socket_of_the_host() -> str:
    """CVE-2020-15257: names without a file are reached by whoever shares the network namespace."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect("\0" + ASKED["abstract"])
    return "connected"


@attempt
def keys_of_the_host() -> str:
    """A key that a process of the host put into the keyring of its user."""
    try:
        found = call("keyctl", 10, -4, b"user", ASKED["key"].encode(), 0)
    except OSError as error:
        if error.errno == errno.ENOKEY:
            raise Closed("our keyrings do not hold it") from error
        raise
    return f"key {found}"


@attempt
def more_rights_by_setuid() -> str:
    """A set-user-id program of the image, for somebody who is not root."""
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    return _identity_of("/suid/id", "-u", "0")


@attempt
def more_rights_by_file_capabilities() -> str:
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    return _identity_of("/suid/cat", "/proc/self/status", "CapEff:\t0000000000000001")


def _identity_of(program: str, argument: str, sought: str) -> str:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(writing, 1)
        try:
            os.execv(program, [program, argument])
        except OSError as error:
            os.write(1, f"cannot be executed: {error.strerror}".encode())
        os._exit(127)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    if sought not in said.splitlines():
        raise Closed(f"no more rights than before: {said.strip()[:60]}")
    return f"it has {sought}"


# -- running them


def stand_apart() -> bool:
    """What is mounted or named from here on is ours alone. Whether that could be had."""
    apart = LIBC.unshare(NEW_NS | NEW_UTS) == 0
    return apart and LIBC.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0


def run(function: Attempt) -> tuple[str, str]:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(SECONDS)
        if not stand_apart() and ASKED["apart"]:
            os._exit(1)
        try:
            answer = ("open", function())
        except Absent as absent:
            answer = ("absent", str(absent))
        except Closed as closed:
            answer = ("closed", str(closed))
        except OSError as error:
            answer = ("closed", f"{errno.errorcode.get(error.errno or 0, '?')}")
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if not said:
        return "closed", f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "it said nothing"
    verdict, detail = json.loads(said)
    return verdict, detail


def main() -> None:
    ASKED.update(json.loads(sys.argv[1]))
    names = ASKED.get("only") or list(ATTEMPTS)
    print(json.dumps({name: run(ATTEMPTS[name]) for name in names}), flush=True)


if __name__ == "__main__":
    main()
