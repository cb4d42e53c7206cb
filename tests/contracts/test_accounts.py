"""Users, robots, policies, refresh tokens and keys on SQLite and on Postgres; and what every source of users does."""

import asyncio
from datetime import timedelta

import bcrypt
import pytest

from ocispec.reference import RepositoryName
from registry.auth.accounts import Accounts, UserExists, UserUnknown
from registry.auth.actions import Action
from registry.auth.htpasswd import Htpasswd
from registry.auth.keyring import Keyring
from registry.auth.passwords import Passwords
from registry.auth.policies import Policies, PolicyMemory
from registry.auth.principal import Principal
from registry.auth.robots import RobotExists, Robots, RobotUnknown, grant
from registry.auth.tokens import Tokens
from registry.auth.users import DatabaseUsers
from storage.metadata import refresh_tokens
from storage.metadata.engine import open_database
from storage.metadata.refresh_tokens import RefreshRow


@pytest.fixture
async def database(url):
    async with open_database(url) as opened:
        yield opened


@pytest.fixture
def passwords():
    made = Passwords()
    yield made
    made.close()


@pytest.fixture(params=["database", "htpasswd"])
async def users(request, tmp_path):
    """A source with the user `ann` alone, whose password is `correct horse`."""
    if request.param == "database":
        made = Passwords()
        async with open_database(f"sqlite+aiosqlite:///{tmp_path}/users.db") as opened:
            await Accounts(opened, made).add("ann", "correct horse")
            yield DatabaseUsers(opened)
        made.close()
        return
    file = tmp_path / "users"
    file.write_text(f"ann:{bcrypt.hashpw(b'correct horse', bcrypt.gensalt(4)).decode()}\n")
    yield Htpasswd(file)


async def test_a_source_of_users(users, passwords) -> None:
    ann = await users.find("ann")
    assert (ann.name, ann.admin, ann.groups) == ("ann", False, frozenset())
    assert await passwords.check("correct horse", ann.password)
    assert ann.stamp
    assert ann.password not in repr(ann)
    for nobody in ("bob", "", "ANN", "ann ", "ann' OR 1=1 --", "a" * 1000, "\x00"):
        assert await users.find(nobody) is None
    assert users.mark() == users.mark()
    assert not await passwords.check("correct horse", None, users.decoy())


async def test_accounts(database, passwords) -> None:
    accounts = Accounts(database, passwords)
    await asyncio.gather(*(accounts.add(name, None, groups=[f"g{name}", "all"]) for name in ("bob", "ann", "Zoe")))
    with pytest.raises(UserExists):
        await accounts.add("ann", None)
    assert [user.name for user in await accounts.list()] == ["Zoe", "ann", "bob"]  # by code point
    assert [user.name for user in await accounts.list(1, "Zoe")] == ["ann"]
    assert (await accounts.get("ann")).groups == {"gann", "all"}
    await accounts.set_groups("ann", ["new"])
    assert (await accounts.get("ann")).groups == {"new"}
    assert (await accounts.get("bob")).groups == {"gbob", "all"}
    await accounts.remove("ann")
    for gone in (accounts.get("ann"), accounts.remove("ann"), accounts.set_groups("ann", []), accounts.set_flags("ann", admin=True)):
        with pytest.raises(UserUnknown):
            await gone


async def test_robots(database) -> None:
    robots = Robots(database)
    made, _ = await robots.create("ci", scope=[grant("a/*", ["pull"])], lifetime=timedelta(days=1), owner="group:dev")
    assert await robots.get("ci") == made
    assert await robots.list(owner="group:dev") == [made]
    assert await robots.list(owner="group:ops") == []
    with pytest.raises(RobotExists):
        await robots.create("ci")
    await robots.revoke("ci")
    with pytest.raises(RobotUnknown):
        await robots.get("ci")


async def test_policies_in_memory(database) -> None:
    policies, memory = Policies(database), PolicyMemory(database)
    ann, repo = Principal("ann"), RepositoryName("team/app")

    async def may(action: Action) -> bool:
        await database.changes.look()
        if not memory.current():
            await memory.refresh()
        return memory.allows(ann, action, repo)

    assert not await may(Action.PULL)
    await policies.set("team/**", "user:ann", ["pull", "create"])
    assert (await may(Action.PULL), await may(Action.PUSH), await may(Action.OVERWRITE)) == (True, True, False)
    await policies.set("team/**", "user:ann", ["pull"])
    assert (await may(Action.PULL), await may(Action.PUSH)) == (True, False)
    await policies.remove("team/**")
    assert not await may(Action.PULL)


async def test_keys_are_shared(database) -> None:
    """Two replicas that start at once sign with one key."""
    one, two = (Keyring(database, timedelta(minutes=5)) for _ in range(2))
    await asyncio.gather(one.prepare(), two.prepare())
    assert one.signing()[0] == two.signing()[0]
    here, there = (Tokens(ring, "me", "me", timedelta(minutes=5), database.now) for ring in (one, two))
    signed = await here.sign(Principal("ann", stamp="s"), ())
    assert (await there.verify(signed.text)).subject == "user:ann"
    await two.rotate()
    await database.changes.look()
    assert (await here.verify((await there.sign(Principal("ann"), ())).text)).subject == "user:ann"
    assert (await there.verify(signed.text)).subject == "user:ann"


async def test_refresh_tokens_do_not_pile_up(database) -> None:
    now = database.now()
    async with database.write() as tx:
        for number in range(12):
            at = now + timedelta(seconds=number)
            await refresh_tokens.insert(tx, RefreshRow(f"k{number}", "h", "user:ann", "s", "docker", at, at + timedelta(days=1)), 5)
        await refresh_tokens.insert(tx, RefreshRow("bob", "h", "user:bob", "s", "docker", now, now + timedelta(days=1)), 5)
    async with database.read() as tx:
        kept = [number for number in range(12) if await refresh_tokens.find(tx, f"k{number}")]
        assert kept == [7, 8, 9, 10, 11]
        assert await refresh_tokens.find(tx, "bob")
    async with database.write() as tx:
        late = now + timedelta(days=2)
        await refresh_tokens.insert(tx, RefreshRow("new", "h", "user:eve", "s", "x", late, late + timedelta(days=1)), 5)
        assert await refresh_tokens.find(tx, "bob") is None
        assert await refresh_tokens.delete_of(tx, "user:eve") == 1
