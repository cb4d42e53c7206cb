"""The Postgres of the contracts' tests, here too."""

from tests.contracts.conftest import postgres

__all__ = ["postgres"]
