"""What `signal` has, without the enumerations it makes of it: they load `enum` and cost more than the rest of a short
process. Numbers are plain integers here."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        NSIG,
        SIG_SETMASK,
        SIGCHLD,
        SIGKILL,
        SIGSTOP,
        pidfd_send_signal,
        pthread_sigmask,
    )
else:
    from _signal import NSIG, SIG_SETMASK, SIGCHLD, SIGKILL, SIGSTOP, pidfd_send_signal, pthread_sigmask

__all__ = ("NSIG", "SIGCHLD", "SIGKILL", "SIGSTOP", "SIG_SETMASK", "pidfd_send_signal", "pthread_sigmask")
