"""What goes wrong with volumes, in Docker's words."""

from collections.abc import Collection

from node.errors import InternalError
from ocispec.errors import FailedPrecondition, InvalidArgument, NotFound


class NoSuchVolume(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")


class InvalidVolumeName(InvalidArgument):
    def __init__(self, name: str) -> None:
        if len(name) == 1:
            super().__init__(f"create {name}: volume name is too short, names should be at least two alphanumeric "
                             "characters")
            return
        super().__init__(f'create {name[:300]}: "{name[:300]}" includes invalid characters for a local volume name, '
                         'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                         "use absolute path")


class InvalidVolumeOptions(InvalidArgument):
    """The options of the local driver cannot be what was asked."""


class NoSuchDriver(NotFound):
    def __init__(self, volume: str, driver: str) -> None:
        super().__init__(f'create {volume}: error looking up volume plugin {driver}: plugin "{driver}" not found')


class VolumeInUse(FailedPrecondition):
    def __init__(self, name: str, users: Collection[str] = ()) -> None:
        super().__init__(f"remove {name}: volume is in use" + (f" - [{', '.join(users)}]" if users else ""))


class CannotMountVolume(InternalError):
    """The host refused the mount that the volume's options describe."""
