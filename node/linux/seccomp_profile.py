"""The default seccomp profile.

It is Docker's (github.com/moby/profiles, seccomp, v0.3.0): deny with EPERM, allow what programs need, and allow more
where a capability already grants what the call does. The calls are grouped by what they touch, so that a reader can
see what is *not* there: keyrings, io_uring, userfaultfd, kexec, swap, and everything that mounts or makes namespaces
without CAP_SYS_ADMIN.
"""

from __future__ import annotations

import os
from _collections_abc import Collection, Iterator, Mapping, Sequence

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_EPERM, _ENOSYS = 1, 38

_FILES = """
    access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchown32
    fchownat fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents getdents64 lchown lchown32 link linkat
    listmount lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 readlink
    readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate
    truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
    fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
"""
_DESCRIPTORS = """
    cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64 fdatasync
    flock fsync ftruncate ftruncate64 ioctl _llseek lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
    read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
"""
_MEMORY = """
    brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap
    mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
"""
_PROCESSES = """
    execve execveat exit exit_group fork getpgid getpgrp getpid getppid getsid gettid pidfd_open prctl restart_syscall
    rseq setpgid setsid set_tid_address times uretprobe vfork wait4 waitid waitpid
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list set_robust_list membarrier
    get_thread_area set_thread_area riscv_hwprobe
    kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill
    getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 setpriority setrlimit sysinfo ugetrlimit
    uname
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield
    getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
"""
_IDENTITY = """
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
    getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32
"""
_TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64
"""
_TALKING = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""

_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
# Before Linux 4.8 a tracer could change a call after the filter had passed it.
_SINCE_4_8 = "process_vm_readv process_vm_writev ptrace"
_BY_MACHINE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
}
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_OLDER = {"x86_64": ("SCMP_ARCH_X86", "SCMP_ARCH_X32"), "aarch64": ("SCMP_ARCH_ARM",)}

# Address families. A list of the allowed, not of the forbidden: socket(2) looks at 32 bits of the argument, a filter at
# 64, so "not equal 38" could be walked around. Absent: AF_ALG (38, kernel crypto, a row of privilege escalations),
# AF_VSOCK (40, talks past every network namespace to the hypervisor), and families that Linux has removed.
_FAMILIES_BELOW = 3
_FAMILIES = (7, 8, 9, 10, 13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43,
             44, 45)
# PER_LINUX, PER_LINUX32, UNAME26, both, and the question "which one is mine".
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: no namespaces without CAP_SYS_ADMIN.
_NEW_NAMESPACES = 0x7E020000


def default_profile(caps: Collection[str], *, arch: str | None = None, older: bool = True) -> dict[str, object]:
    """The default for a container that holds `caps` (CAP_… names), as a runtime-spec `linux.seccomp` object.

    `older`: with the calls of 32-bit programs (i386, x32), which Docker lets in. They are a second door to the same
    kernel that hardly anybody walks through, and half of the argument checks do not reach behind it (socketcall).
    All conditions are decided: it is what stands in a bundle's config.json and what `seccomp.compile_profile` takes.
    """
    machine = arch or os.uname().machine
    allowed = [*_names(_FILES, _DESCRIPTORS, _MEMORY, _PROCESSES, _IDENTITY, _TIME, _TALKING)]
    if _kernel() >= (4, 8):
        allowed += _SINCE_4_8.split()
    allowed += _names(_BY_MACHINE.get(machine, ""))
    for capability, names in _BY_CAPABILITY.items():
        if capability in caps:
            allowed += names.split()
    rules = [_rule(*dict.fromkeys(allowed)), *_socket_rules()]
    rules += [_rule("personality", args=[_arg("EQ", value)]) for value in _PERSONALITIES]
    if "CAP_SYS_ADMIN" not in caps:
        rules.append(_rule("clone", args=[_arg("MASKED_EQ", _NEW_NAMESPACES)]))
        # clone3's flags lie in memory, where a filter cannot look. ENOSYS makes libc fall back to clone.
        rules.append({"names": ["clone3"], "action": _ERRNO, "errnoRet": _ENOSYS})
    native = _ARCHITECTURES.get(machine)
    listed = ([native] if native else []) + (list(_OLDER.get(machine, ())) if older else [])
    return {"defaultAction": _ERRNO, "defaultErrnoRet": _EPERM, "architectures": listed, "syscalls": rules}


def _socket_rules() -> Iterator[dict[str, object]]:
    yield _rule("socket", args=[_arg("LT", _FAMILIES_BELOW)])
    for family in _FAMILIES:
        yield _rule("socket", args=[_arg("EQ", family)])


def _names(*groups: str) -> list[str]:
    return [name for group in groups for name in group.split()]


def _rule(*names: str, args: Sequence[Mapping[str, object]] = ()) -> dict[str, object]:
    rule: dict[str, object] = {"names": list(names), "action": _ALLOW}
    if args:
        rule["args"] = list(args)
    return rule


def _arg(comparison: str, value: int) -> dict[str, object]:
    return {"index": 0, "op": f"SCMP_CMP_{comparison}", "value": value}


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(ch for ch in minor if ch.isdecimal()) or 0)
