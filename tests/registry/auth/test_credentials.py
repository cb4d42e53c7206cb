"""Tokens that mean nothing by themselves, password hashes, htpasswd files, and slowing down who fails."""

import asyncio
import os
import re

import bcrypt
import pytest

from registry.auth import htpasswd
from registry.auth.htpasswd import Htpasswd, InvalidHtpasswd
from registry.auth.opaque import Opaque, Purpose
from registry.auth.passwords import WAITING, InvalidHash, InvalidPassword, Passwords, accepted
from registry.auth.principal import Principal
from registry.auth.remembered import LIMIT, Remembered
from registry.auth.throttle import REMEMBERED, Throttle, TooManyLogins

HASH = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()


@pytest.fixture
def passwords():
    made = Passwords()
    yield made
    made.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_tokens_can_be_recognised_and_proved() -> None:
    made = [Opaque.new(Purpose.ROBOT) for _ in range(50)]
    assert len({token.text for token in made} | {token.key for token in made}) == 100
    for token in made:
        assert re.fullmatch(r"swr_[0-9A-Za-z]{58}", token.text)
        again = Opaque.parse(token.text)
        assert again == token
        assert again.proves(token.hash)
        assert not again.proves(made[0].hash) or token is made[0]
        assert token.text not in repr(token)


def test_what_is_no_token_costs_no_query() -> None:
    text = Opaque.new(Purpose.ROBOT).text
    other = "A" if text[20] != "A" else "B"
    for wrong in ("", "swr_", text[:-1], text + "x", text[:20] + other + text[21:], "swx" + text[3:], text.upper(),
                  text + "\n", "swa" + text[3:]):
        assert Opaque.parse(wrong) is None, wrong


async def test_passwords(passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert await passwords.check("correct horse", stored)
    assert not await passwords.check("Correct horse", stored)
    assert not await passwords.check("correct horse", None)
    assert not await passwords.check("correct horse", None, stored)  # nobody's password, whatever the decoy is
    assert await passwords.check("correct horse", HASH)
    assert not await passwords.check("x" * 5000, stored)
    assert not await passwords.check("x", "$argon2id$nonsense")


async def test_bcrypt_does_not_cut(passwords) -> None:
    stored = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()
    assert await passwords.check("a" * 72, stored)
    assert not await passwords.check("a" * 73, stored)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025, "ä" * 600])
async def test_passwords_that_cannot_be(passwords, password) -> None:
    with pytest.raises(InvalidPassword):
        await passwords.hash(password)


async def test_a_flood_of_logins_is_turned_away(passwords) -> None:
    stored = await passwords.hash("correct horse")
    results = await asyncio.gather(*(passwords.check("wrong horse", stored) for _ in range(WAITING + 20)),
                                   return_exceptions=True)
    assert sum(isinstance(result, TooManyLogins) for result in results) == 20
    assert results.count(False) == WAITING
    assert await passwords.check("correct horse", stored)


@pytest.mark.parametrize("stored", ["", "plain", "$apr1$x$y", "{SHA}x", "$1$a$b", "$2y$31$" + "a" * 53, "$2y$10$short",
                                    "$argon2id$v=19$m=99999999,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "$argon2id$"])
def test_hashes_that_are_not_taken(stored) -> None:
    with pytest.raises(InvalidHash):
        accepted(stored)


async def test_htpasswd(tmp_path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# people\n\nann:{HASH}\n bob:{HASH} \n")
    users = Htpasswd(file, ["ann"])
    ann, bob = await users.find("ann"), await users.find("bob")
    assert (ann.admin, bob.admin, await users.find("eve"), users.decoy()) == (True, False, None, HASH)
    assert ann.stamp == bob.stamp


@pytest.mark.parametrize(("text", "fault"), [
    (f"ann:{HASH}\nbob:secret-in-clear", "line 2"), ("ann", "line 1"), (f"a b:{HASH}", "line 1"), (b"\xff", "UTF-8"),
])
def test_htpasswd_files_with_faults(tmp_path, text, fault) -> None:
    file = tmp_path / "users"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidHtpasswd, match=fault) as told:
        Htpasswd(file)
    assert "secret-in-clear" not in told.value.message
    with pytest.raises(InvalidHtpasswd, match="No such file"):
        Htpasswd(tmp_path / "absent")


async def test_htpasswd_is_read_again(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(htpasswd, "INTERVAL", 0.02)
    file = tmp_path / "users"
    file.write_text(f"ann:{HASH}\n")

    async def until(true) -> None:
        async with asyncio.timeout(10):
            while not await true():
                await asyncio.sleep(0.01)

    async def bob() -> bool:
        return await users.find("bob") is not None

    async def reported() -> bool:
        return "line 1" in caplog.text

    async with Htpasswd(file).watched() as users:
        before = users.mark()
        (tmp_path / "new").write_text(f"bob:{HASH}\n")
        os.replace(tmp_path / "new", file)
        await until(bob)
        assert users.mark() != before
        assert await users.find("ann") is None
        file.write_text("broken")
        await until(reported)
        assert await bob()


def test_who_fails_is_slowed_down_and_nobody_else() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(5):
        throttle.check("ann", "192.0.2.1")
        throttle.failed("ann", "192.0.2.1")
    with pytest.raises(TooManyLogins) as told:
        throttle.check("ann", "192.0.2.1")
    assert told.value.seconds == 1
    throttle.check("ann", "192.0.2.2")
    throttle.check("bob", "192.0.2.1")
    clock.now += 1.1
    throttle.check("ann", "192.0.2.1")
    throttle.failed("ann", "192.0.2.1")
    clock.now += 1.1
    with pytest.raises(TooManyLogins):
        throttle.check("ann", "192.0.2.1")  # each more doubles the wait
    throttle.succeeded("ann", "192.0.2.1")
    throttle.check("ann", "192.0.2.1")


def test_one_address_tries_many_names() -> None:
    throttle = Throttle(Clock())
    for number in range(30):
        throttle.failed(f"name{number}", "2001:db8:1:2::1")
    with pytest.raises(TooManyLogins):
        throttle.check("another", "2001:db8:1:2:ffff::9")  # the same /64
    throttle.check("another", "2001:db8:1:3::1")


def test_many_addresses_try_one_name_and_its_owner_gets_in() -> None:
    throttle = Throttle(Clock())
    throttle.succeeded("ann", "192.0.2.9")
    for number in range(120):
        throttle.failed("ann", f"198.51.100.{number}")
    with pytest.raises(TooManyLogins) as told:
        throttle.check("ann", "203.0.113.1")
    assert told.value.seconds <= 5
    throttle.check("ann", "192.0.2.9")  # known to come from there
    throttle.check("bob", "203.0.113.1")


def test_its_memory_is_bounded() -> None:
    throttle = Throttle(Clock())
    for number in range(REMEMBERED + 100):
        throttle.failed(f"name{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        throttle.succeeded(f"name{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    counters = (throttle._pair, throttle._address, throttle._name)
    assert all(len(counter._failures) <= REMEMBERED for counter in counters)
    assert len(throttle._at_home) <= REMEMBERED


def test_what_was_found_good_is_believed_while_nothing_changed() -> None:
    clock = Clock()
    remembered = Remembered(clock)
    ann, digest = Principal("ann"), remembered.digest("Basic x")
    remembered.put(digest, ann, 1, clock.now + 10, "hash")
    assert remembered.get(digest, 1) == ann
    assert remembered.get(digest, 2) is remembered.get(digest, None) is None
    assert remembered.proves(digest, "hash")
    assert not remembered.proves(digest, "other")
    clock.now += 11
    assert remembered.get(digest, 1) is None
    for number in range(LIMIT + 5):
        remembered.put(remembered.digest(str(number)), ann, 1, clock.now + 10)
    assert len(remembered._entries) == LIMIT
    assert b"Basic" not in b"".join(remembered._entries)


async def test_unknown_names_cost_as_much(passwords, monkeypatch) -> None:
    """The same work is done, whoever is asked for: one check of a hash of the kind that others have."""
    stored = await passwords.hash("correct horse")
    done = []
    verify = passwords._verify

    def counted(password: str, hashed: str) -> bool:
        done.append(hashed.rsplit("$", 2)[0])
        return verify(password, hashed)

    monkeypatch.setattr(passwords, "_verify", counted)
    for hashed, decoy in ((stored, None), (None, None), (None, HASH)):
        assert not await passwords.check("wrong horse", hashed, decoy)
    assert done == [stored.rsplit("$", 2)[0]] * 2 + [HASH.rsplit("$", 2)[0]]
