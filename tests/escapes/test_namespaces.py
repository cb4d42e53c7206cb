"""User namespaces that the node makes: whoever is root of the host's one, without any capability, gets none by them."""

import fcntl
import os

import pytest

from node.linux import capabilities, syscalls
from node.runtime import identity

pytestmark = pytest.mark.root

FIRST = 0x7000_0000
NS_GET_OWNER_UID = 0xB704


def as_root_without_capabilities(path: str) -> str:
    """What a container in the host's pid and user namespaces gets when it lists this folder."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(reading)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
            capabilities.set_caps(effective=[], permitted=[], inheritable=[], ambient=[])
            os.write(writing, ",".join(os.listdir(path)).encode())
        except OSError as error:
            os.write(writing, (error.strerror or "").encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def test_a_process_that_makes_one_shows_nothing_of_the_host() -> None:
    inhabitant = identity._Inhabitant(None, owner=FIRST)
    try:
        assert as_root_without_capabilities(f"/proc/{inhabitant.pid}/root") == "Permission denied"
    finally:
        inhabitant.let_go()


def test_one_that_is_made_without_care_shows_all() -> None:
    ready, say = os.pipe()
    wait, let_go = os.pipe()
    if (child := os.fork()) == 0:
        os.close(let_go)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        os.write(say, b".")
        os.read(wait, 1)
        os._exit(0)
    os.read(ready, 1)
    try:
        assert "etc" in as_root_without_capabilities(f"/proc/{child}/root")
    finally:
        for fd in (ready, say, wait, let_go):
            os.close(fd)
        os.waitpid(child, 0)


def test_it_belongs_to_its_own_range() -> None:
    made = identity.make(((0, FIRST, 65536),), ((0, FIRST, 65536),))
    owner = bytearray(4)
    fcntl.ioctl(made, NS_GET_OWNER_UID, owner)
    os.close(made)
    assert int.from_bytes(owner, "little") == FIRST
