"""What `signal` has, without the enumerations it makes of it: they load `enum` and cost more than the rest of a short
process. Numbers are plain integers here."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403
