"""How a Postgres is used; apart from `dialect`, because settings need it before SQLAlchemy is there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """Of one process; times in seconds."""

    connections: int = 10
    connect_timeout: float = 5.0
    statement_timeout: float = 30.0
    lock_timeout: float = 15.0
