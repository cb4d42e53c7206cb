"""Who is asking."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody the registry knows by name. The empty name is nobody in particular."""

    name: str

    @property
    def is_anonymous(self) -> bool:
        return not self.name


ANONYMOUS = Principal("")
