"""Mappings of a container with ids of its own."""

import pytest

from node.containers.bundle.ownids import OwnIds
from node.containers.errors import InvalidSpec
from node.containers.idmap import IdMap
from node.userns.ranges import IdRange

OWN = OwnIds("/proc/1/ns/user", IdRange(3_000_000))


def test_a_mapping_to_the_containers_ids_is_one_to_the_hosts() -> None:
    mapped = OWN.outside(IdMap(((1000, 5, 10),), ((0, 65_530, 10),)))
    assert mapped == IdMap(((1000, 3_000_005, 10),), ((0, 3_065_530, 6),))


@pytest.mark.parametrize("beyond", [IdMap(((0, 70_000, 1),), ((0, 70_000, 1),)), IdMap(((0, 0, 1),), ((0, 70_000, 1),))])
def test_a_mapping_of_which_nothing_is_left_is_not_the_whole_of_its_ids(beyond: IdMap) -> None:
    with pytest.raises(InvalidSpec, match="none of its ids is among the 65536"):
        OWN.outside(beyond)
