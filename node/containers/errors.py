"""What can be wrong with a container, in Docker's words: clients and people match on these sentences."""

from node.errors import InternalError
from ocispec.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


class NoSuchContainer(NotFound):
    """No container has this name or id, or more than one begins with this prefix."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No such container: {name}")


class AmbiguousPrefix(InvalidArgument):
    def __init__(self, prefix: str) -> None:
        super().__init__(f"Multiple IDs found with provided prefix: {prefix}")


class NoSuchExec(NotFound):
    def __init__(self, exec_id: str) -> None:
        super().__init__(f"No such exec instance: {exec_id}")


class NameInUse(AlreadyExists):
    """HTTP 409."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


class InvalidName(InvalidArgument):
    def __init__(self, name: str) -> None:
        super().__init__(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


class NotRunning(FailedPrecondition):
    def __init__(self, container_id: str) -> None:
        super().__init__(f"container {container_id} is not running")


class WrongState(FailedPrecondition):
    """The container's state does not permit this; the message is Docker's."""


class InvalidSpec(InvalidArgument):
    """What create was asked cannot be."""


class CannotInvoke(InvalidArgument):
    """The command is not there (127) or cannot be executed (126)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CannotStart(InternalError):
    """The container could not be started and nothing of the attempt is left."""


class CannotStop(InternalError):
    """The kernel does not let the container's process go."""
