"""Column types and naming that every table shares."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, MetaData, String, TypeDecorator

from ocispec.digest import Digest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970 (SQLite has no such type, and integers compare exactly)."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else EPOCH + int(value) * MICROSECOND


class DigestText(TypeDecorator[Digest]):
    """A digest as `algorithm:hex`. What we wrote is not parsed again."""

    impl = String(140)
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Digest | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        algorithm, _, encoded = value.partition(":")
        return Digest(algorithm, encoded)


ROW_ID = BigInteger().with_variant(Integer(), "sqlite")  # only an INTEGER PRIMARY KEY numbers itself in SQLite


def ascii_string(length: int) -> String:
    """Text that sorts by code point everywhere, as tags/list and _catalog promise."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
