"""libnftables and the program behind one class: atomic, in the kernel's words, one namespace each."""

import os
import shutil
import threading
from collections.abc import Iterator

import pytest

from node.linux import nftables
from node.linux.nftables import Nftables, RulesRefused
from tests.node.network.place import Place

pytestmark = pytest.mark.root


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


@pytest.fixture(params=["library", "program"])
def tables(request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nftables]:
    if request.param == "program":
        monkeypatch.setattr(nftables, "LIBRARY", "libabsent.so.9")
    made: Nftables = place.run(Nftables)
    assert (made._library is None) == (request.param == "program")
    yield made


def rules(place: Place) -> str:
    return place.shell("nft", "list", "ruleset")


def test_rules_are_applied(place: Place, tables: Nftables) -> None:
    place.run(tables.run, "table ip mine { map m { type inet_service : ipv4_addr; }; }\n"
                          "add element ip mine m { 80 : 10.0.0.1 }\n")
    assert "80 : 10.0.0.1" in rules(place)
    place.run(tables.run, "delete table ip mine\n")
    assert rules(place) == ""


def test_all_or_nothing(place: Place, tables: Nftables) -> None:
    with pytest.raises(RulesRefused, match=r"nftables refused the rules: .*No such file or directory"):
        place.run(tables.run, "table ip mine { }\nadd element ip mine absent { 80 }\n")
    assert rules(place) == ""
    place.run(tables.run, "table ip mine { }\n")  # a refusal is not carried over
    assert "mine" in rules(place)


def test_a_mistake_is_shown(place: Place, tables: Nftables) -> None:
    with pytest.raises(RulesRefused, match="syntax error"):
        place.run(tables.run, "this is no rule\n")


def test_threads_take_turns(place: Place, tables: Nftables) -> None:
    place.run(tables.run, "table ip mine { set s { type inet_service; }; }\n")
    threads = [threading.Thread(target=place.run, args=(tables.run, f"add element ip mine s {{ {number} }}\n"))
               for number in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(str(number) in rules(place) for number in range(1, 17))


def test_without_library_and_program_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "LIBRARY", "libabsent.so.9")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match="libnftables1"):
        Nftables()


def test_it_works_on_the_namespace_of_the_thread_that_asks(place: Place) -> None:
    """The daemon's threads are all on the host; a test's are where the test is."""
    before = os.readlink("/proc/thread-self/ns/net")
    place.run(place.run(Nftables).run, "table ip mine { }\n")
    assert "mine" in rules(place)
    assert os.readlink("/proc/thread-self/ns/net") == before
