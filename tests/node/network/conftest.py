"""A host of its own for each test, and servers that end with it."""

from collections.abc import Iterator

import pytest

from tests.node.network.place import Host, Servers


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.stop()
