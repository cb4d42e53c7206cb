"""Whose namespace a process is in."""

import os

import pytest

from node.network import listening
from node.network.namespace import new_namespace, open_namespace

pytestmark = pytest.mark.root


def test_what_is_meant_for_a_container_is_never_done_to_the_host() -> None:
    """A number that belongs to a process of the host by now, or to one that has not left its network yet."""
    with pytest.raises(ProcessLookupError, match="the host's"):
        open_namespace(os.getpid())
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        with pytest.raises(ProcessLookupError, match="the host's"):
            listening.listen(ours)
    finally:
        os.close(ours)


def test_of_another_it_is() -> None:
    netns, inside = new_namespace()
    try:
        for sock in listening.listen(netns):
            sock.close()
    finally:
        inside.close()
        os.close(netns)
