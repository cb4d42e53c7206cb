"""Secrets: who may be called what, what is on disk, and what a wrong key or a swapped row comes to."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from node.events import EventBus
from node.secrets.cipher import KeyUnusable, Undecipherable, read_key
from node.secrets.store import (
    CONFIG,
    LIMITS,
    SECRET,
    InvalidSecret,
    NoSuchSecret,
    OutOfSequence,
    SecretExists,
    SecretInUse,
    Secrets,
)
from node.state.database import State, open_state
from node.state.secrets import SecretRows
from node.state.tables import secrets as table


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with open_state(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
def held(tmp_path: Path, state: State) -> Secrets:
    return Secrets(SecretRows(state), tmp_path / "key", EventBus())


async def test_data_comes_back_and_is_nowhere_on_disk(tmp_path: Path, held: Secrets) -> None:
    made = await held.create(SECRET, "password", b"hunter2 hunter2", {"a": "b"})
    assert len(made.id) == 25
    for name in (made.id, "password", made.id[:6]):
        assert (await held.find(SECRET, name)) == made
        assert await held.read(SECRET, name) == b"hunter2 hunter2"
    assert b"hunter2" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(NoSuchSecret, match="config password not found"):
        await held.find(CONFIG, "password")
    for name in ("", "passwor"):
        with pytest.raises(NoSuchSecret):
            await held.find(SECRET, name)


async def test_one_of_many_gets_the_name(held: Secrets) -> None:
    made = await asyncio.gather(*(held.create(SECRET, "x", b"1", {}) for _ in range(16)), return_exceptions=True)
    assert sum(isinstance(one, SecretExists) for one in made) == 15
    await held.create(CONFIG, "x", b"1", {})


@pytest.mark.parametrize("name", ["", "-x", "x-", "a b", "../x", "x" * 65, "ü", "x\n"])
async def test_names_that_cannot_be(held: Secrets, name: str) -> None:
    with pytest.raises(InvalidSecret, match="invalid name"):
        await held.create(SECRET, name, b"1", {})


@pytest.mark.parametrize("kind", [SECRET, CONFIG])
async def test_sizes(held: Secrets, kind: str) -> None:
    await held.create(kind, "largest", bytes(LIMITS[kind] - 1), {})
    for size in (0, LIMITS[kind]):
        with pytest.raises(InvalidSecret, match=f"less than {LIMITS[kind]} bytes"):
            await held.create(kind, "x", bytes(size), {})


async def test_labels_change_for_who_saw_the_last_version(held: Secrets) -> None:
    await held.create(SECRET, "x", b"1", {})
    await held.relabel(SECRET, "x", 1, {"new": "1"})
    with pytest.raises(OutOfSequence, match="update out of sequence"):
        await held.relabel(SECRET, "x", 1, {"other": "1"})
    found = await held.find(SECRET, "x")
    assert (found.version, found.labels) == (2, {"new": "1"})
    assert await held.read(SECRET, "x") == b"1"


async def test_what_a_container_has_is_not_removed(held: Secrets) -> None:
    made = await held.create(SECRET, "x", b"1", {})
    with pytest.raises(SecretInUse, match="secret 'x' is in use by the following container: box"):
        await held.remove(SECRET, "x", lambda secret_id: ["box"] if secret_id == made.id else [])
    await held.remove(SECRET, "x", lambda _id: [])
    assert await held.list(SECRET) == []


async def test_a_row_opens_only_where_it_was_written(state: State, held: Secrets) -> None:
    mine, other = await held.create(SECRET, "mine", b"1", {}), await held.create(SECRET, "other", b"2", {})
    stolen = next(row.data for row in await SecretRows(state).all(SECRET) if row.id == other.id)
    async with state.write() as connection:
        await connection.execute(update(table).where(table.c.id == mine.id).values(data=stolen))
    with pytest.raises(Undecipherable):
        await held.read(SECRET, "mine")
    assert await held.read(SECRET, "other") == b"2"


async def test_another_key_reads_nothing(tmp_path: Path, state: State, held: Secrets) -> None:
    await held.create(SECRET, "x", b"1", {})
    again = Secrets(SecretRows(state), tmp_path / "key", EventBus())
    assert await again.read(SECRET, "x") == b"1"
    (tmp_path / "key").unlink()
    stranger = Secrets(SecretRows(state), tmp_path / "key", EventBus())
    with pytest.raises(Undecipherable):
        await stranger.read(SECRET, "x")


def test_keys_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = read_key(path)
    assert read_key(path) == key
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match="can be read by others"):
        read_key(path)
    path.chmod(0o600)
    path.write_bytes(key[:-1])
    with pytest.raises(KeyUnusable, match="does not hold 32 bytes"):
        read_key(path)
    with pytest.raises(KeyUnusable, match="cannot be made"):
        read_key(tmp_path / "nowhere" / "key")
    assert os.listdir(tmp_path) == ["key"]
