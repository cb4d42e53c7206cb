"""Several `seawall-registry serve` processes with one Postgres and one store of blobs, behind a plain load balancer."""

import asyncio
import io
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ocispec import mediatype
from ocispec.digest import Digest
from registry.settings import PREFIX
from storage.blobs.s3.options import S3Options
from tests.balancer import balancing

MIB = 1024 * 1024
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Replica:
    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def replica(environment: dict[str, str], log: Path) -> AsyncIterator[Replica]:
    command = [sys.executable, "-c", "import sys; from registry.cli import main; sys.exit(main())", "serve",
               "--listen", "127.0.0.1:0", "--workers", "1"]
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True,
            env={**os.environ, **environment, "PYTHONPATH": str(CHECKOUT)})
    try:
        assert process.stdout
        text = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        found = re.search(r"127\.0\.0\.1:(\d+)", text)
        assert found, log.read_text()
        yield Replica(int(found[1]), process)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.fixture
async def where(postgres, tmp_path) -> dict[str, str]:
    """The environment of a replica: an empty database, a folder."""
    return {f"{PREFIX}DATABASE": postgres.url(await postgres.new_database()), f"{PREFIX}DATA": str(tmp_path / "data"),
            f"{PREFIX}POSTGRES_CONNECTIONS": "5"}


def bucket(options: S3Options) -> dict[str, str]:
    section = {"bucket": options.bucket, "prefix": options.prefix, "endpoint": options.endpoint,
               "region": options.region, "path_style": True, "access_key": options.access_key,
               "secret_key": options.secret_key, "part_size": 5 * MIB, "spool": options.spool}
    return {f"{PREFIX}S3_{name.upper()}": str(value) for name, value in section.items()}


@pytest.fixture(params=["disk", "s3"])
def stored(request, where) -> dict[str, str]:
    return where | (bucket(request.getfixturevalue("s3_options")) if request.param == "s3" else {})


@asynccontextmanager
async def replicas(count: int, environment: dict[str, str], tmp_path: Path) -> AsyncIterator[list[Replica]]:
    """Started at the same time, on an empty database too."""
    async with AsyncExitStack() as stack:
        started = [replica(environment, tmp_path / f"log{number}") for number in range(count)]
        yield await asyncio.gather(*(stack.enter_async_context(one) for one in started))


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A connection for each request: each goes to the next replica."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as session:
        yield session


async def push_blob(client: aiohttp.ClientSession, url: str, repo: str, data: bytes) -> Digest:
    async with client.post(f"{url}/v2/{repo}/blobs/uploads/") as answer:
        assert answer.status == 202, await answer.text()
        location = answer.headers["Location"]
    digest = Digest.of(data)
    async with client.put(f"{url}{location}?digest={digest}", data=io.BytesIO(data)) as answer:
        assert answer.status == 201, await answer.text()
    return digest


def image(config: Digest, *layers: tuple[Digest, int], **more: Any) -> bytes:
    return json.dumps({
        "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(config), "size": 2},
        "layers": [{"mediaType": mediatype.OCI_LAYER, "digest": str(digest), "size": size} for digest, size in layers],
        **more}).encode()


async def push_manifest(client: aiohttp.ClientSession, url: str, repo: str, tag: str, raw: bytes) -> Digest:
    async with client.put(f"{url}/v2/{repo}/manifests/{tag}", data=raw,
                          headers={"Content-Type": mediatype.OCI_MANIFEST}) as answer:
        assert answer.status == 201, await answer.text()
    return Digest.of(raw)


async def test_what_one_replica_has_done_is_true_at_every_other(where, tmp_path, client):
    """Tags that move and manifests that go, while others keep them warm in every memory."""
    async with replicas(3, where, tmp_path) as three:
        repo, manifests = "team/app", "/v2/team/app/manifests"
        config = await push_blob(client, three[0].url, repo, b"{}")
        raws = [image(config, annotations={"number": str(number)}) for number in range(8)]
        for raw in raws:
            await push_manifest(client, three[0].url, repo, str(Digest.of(raw)), raw)
        await push_manifest(client, three[0].url, repo, "latest", raws[0])
        over = asyncio.Event()
        seen: set[int] = set()

        async def readers(one: Replica) -> None:
            async with aiohttp.ClientSession() as session:
                while not over.is_set():
                    async with session.get(f"{one.url}{manifests}/latest") as answer:
                        seen.add(answer.status)

        async with asyncio.TaskGroup() as group:
            for one in three:
                group.create_task(readers(one))
            turns = itertools.cycle(three)
            for number in range(1, 25):
                raw = raws[number % len(raws)]
                digest = await push_manifest(client, next(turns).url, repo, "latest", raw)
                for one in three:
                    async with client.head(f"{one.url}{manifests}/latest") as answer:
                        assert answer.headers["Docker-Content-Digest"] == str(digest)
            for number, raw in enumerate(raws):
                for one in three:
                    async with client.head(f"{one.url}{manifests}/{Digest.of(raw)}") as answer:
                        assert answer.status == 200
                async with client.delete(f"{next(turns).url}{manifests}/{Digest.of(raw)}") as answer:
                    assert answer.status == 202
                for one in three:
                    async with client.head(f"{one.url}{manifests}/{Digest.of(raw)}") as answer:
                        assert answer.status == 404, (number, one.port)
            over.set()
        assert seen == {200, 404}


async def test_killed_in_mid_chunk_another_goes_on(stored, tmp_path, client, until):
    data = os.urandom(24 * MIB)
    async with replicas(2, stored, tmp_path) as two, balancing(*(one.port for one in two)) as balancer:
        async with client.post(f"{balancer.url}/v2/team/app/blobs/uploads/") as answer:
            upload = balancer.url + answer.headers["Location"]
        async with client.patch(upload, data=io.BytesIO(data[: 7 * MIB])) as answer:
            assert answer.status == 202
        victim = two[(balancer.turn + 1) % 2]
        sent = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            for first in range(7 * MIB, 19 * MIB, MIB):
                yield data[first : first + MIB]
            sent.set()
            await asyncio.Event().wait()

        hanging = asyncio.create_task(client.patch(upload, data=body()).__aenter__())
        await asyncio.wait_for(sent.wait(), 30)
        await victim.kill()
        hanging.cancel()
        await asyncio.wait([hanging])
        async with client.get(upload) as answer:
            assert answer.status == 204
            reached = int(answer.headers["Range"].partition("-")[2]) + 1
        assert 7 * MIB <= reached <= 19 * MIB
        headers = {"Content-Range": f"{reached}-{len(data) - 1}"}

        async def go_on() -> bool:
            async with client.patch(upload, data=io.BytesIO(data[reached:]), headers=headers) as answer:
                assert answer.status in (202, 416), await answer.text()
                return answer.status == 202

        assert await go_on()
        wrong = Digest.of(b"something else")
        async with client.put(f"{upload}?digest={wrong}") as answer:
            assert answer.status == 400
        async with client.get(upload) as answer:
            assert answer.headers["Range"] == f"0-{len(data) - 1}"
        async with client.put(f"{upload}?digest={Digest.of(data)}") as answer:
            assert answer.status == 201, await answer.text()
        async with client.get(f"{balancer.url}/v2/team/app/blobs/{Digest.of(data)}") as answer:
            assert await answer.read() == data
        async with client.get(upload) as answer:
            assert answer.status == 404


async def test_two_replicas_never_mix_one_session(stored, tmp_path, client):
    """Both are sent the same place of one session at once: one of them has it, and the bytes are its own."""
    async with replicas(2, stored, tmp_path) as two:
        for number in range(2):
            async with client.post(f"{two[0].url}/v2/team/app/blobs/uploads/") as answer:
                upload = answer.headers["Location"]
            start = os.urandom(number * 70_000)
            if start:
                async with client.patch(two[0].url + upload, data=start) as answer:
                    assert answer.status == 202
            parts = [bytes([65 + which]) * (3 * MIB + which) for which in range(2)]

            async def send(which: int, at: int, part: bytes, upload: str = upload) -> int:
                headers = {"Content-Range": f"{at}-{at + len(part) - 1}"}
                async with client.patch(two[which].url + upload, data=io.BytesIO(part), headers=headers) as answer:
                    await answer.read()
                    return answer.status

            statuses = await asyncio.gather(*(send(which, len(start), part) for which, part in enumerate(parts)))
            winners = [which for which, status in enumerate(statuses) if status == 202]
            assert len(winners) <= 1, statuses
            assert all(status in (202, 409, 412, 416, 423, 503) for status in statuses), statuses
            async with client.get(two[1].url + upload) as answer:
                assert answer.status == 204
                said = answer.headers.get("Range", "0-0")
                reached = int(said.partition("-")[2]) + 1 if said != "0-0" else 0
            if not winners:  # each found the other in its way; the session is where somebody's checkpoint was
                assert await send(0, reached, parts[0]) == 202
                continue
            whole = start + parts[winners[0]]
            assert reached == len(whole)
            async with client.put(f"{two[1].url}{upload}?digest={Digest.of(whole)}") as answer:
                assert answer.status == 201, await answer.text()
            async with client.get(f"{two[0].url}/v2/team/app/blobs/{Digest.of(whole)}") as answer:
                assert await answer.read() == whole


async def test_many_push_through_all_replicas_at_once(where, postgres, tmp_path, client):
    """Shared base layers, few repositories, the same tags: nobody fails, nothing deadlocks, all of it is there."""
    async with replicas(3, where, tmp_path) as three, balancing(*(one.port for one in three)) as balancer:
        base = [os.urandom(2000) for _ in range(4)]
        pushed: list[tuple[str, str, Digest]] = []

        async def one(number: int) -> None:
            repo = f"team/app{number % 3}"
            config = await push_blob(client, balancer.url, repo, b"{}")
            own = os.urandom(3000)
            layers = [*base[number % 4 :], *base[: number % 4], own]
            digests = [(await push_blob(client, balancer.url, repo, layer), len(layer)) for layer in layers]
            tag = f"t{number % 5}"
            raw = image(config, *digests)
            pushed.append((repo, tag, await push_manifest(client, balancer.url, repo, tag, raw)))

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one(number))
        for repo, _, digest in pushed:
            async with client.get(f"{balancer.url}/v2/{repo}/manifests/{digest}") as answer:
                assert answer.status == 200
                document = await answer.json(content_type=None)
            for layer in document["layers"]:
                async with client.head(f"{balancer.url}/v2/{repo}/blobs/{layer['digest']}") as answer:
                    assert answer.status == 200
        digests = {(repo, tag): set() for repo, tag, _ in pushed}
        for repo, tag, digest in pushed:
            digests[repo, tag].add(str(digest))
        for (repo, tag), possible in digests.items():
            said = set()
            for replica_ in three:
                async with client.head(f"{replica_.url}/v2/{repo}/manifests/{tag}") as answer:
                    said.add(answer.headers["Docker-Content-Digest"])
            assert len(said) == 1
            assert said <= possible
    connection = await postgres.connect()
    try:
        assert await connection.fetchval("SELECT sum(deadlocks) FROM pg_stat_database") == 0
    finally:
        await connection.close()


async def test_regctl_sends_its_chunks_again_from_where_they_broke_off(where, tmp_path, client, tool, until):
    """The client that truly chunks, through a balancer that breaks connections in the middle of chunks."""
    regctl = tool("regctl")
    layer = tmp_path / "layer"
    layer.write_bytes(data := os.urandom(9 * MIB))
    async with replicas(2, where, tmp_path) as two, balancing(*(one.port for one in two)) as balancer:
        host = f"127.0.0.1:{balancer.port}"
        environment = {**os.environ, "REGCTL_CONFIG": str(tmp_path / "regctl.json"), "HOME": str(tmp_path)}

        async def run(*arguments: str, stdin: bytes | None = None) -> str:
            process = await asyncio.create_subprocess_exec(
                regctl, *arguments, env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE)
            out, errors = await asyncio.wait_for(process.communicate(stdin), 90)
            assert process.returncode == 0, errors.decode()
            return out.decode()

        await run("registry", "set", host, "--tls", "disabled", "--blob-chunk", str(MIB), "--blob-max", str(MIB))
        balancer.cut_after = [400_000, 2_300_000, 700_000]
        put = await run("blob", "put", f"{host}/team/app", stdin=data)
        assert str(Digest.of(data)) in put
        assert balancer.cuts >= 1, "no connection was long enough to be broken"
        async with client.get(f"{balancer.url}/v2/team/app/blobs/{Digest.of(data)}") as answer:
            assert await answer.read() == data


async def test_replicas_wait_for_a_database_and_survive_its_restart(postgres_programs, tmp_path, client, until):
    from tests.postgres import prepared

    with prepared(postgres_programs) as server:
        environment = {f"{PREFIX}DATABASE": server.url("postgres"), f"{PREFIX}DATA": str(tmp_path / "data")}
        manager = replicas(2, environment, tmp_path)
        early = asyncio.create_task(manager.__aenter__())
        await until(lambda: "does not answer yet" in "".join(
            log.read_text() for log in tmp_path.glob("log*")), within=30)
        await asyncio.to_thread(server.start)
        two = await asyncio.wait_for(early, 60)
        try:
            config = await push_blob(client, two[0].url, "team/app", b"{}")
            raw = image(config)
            await push_manifest(client, two[0].url, "team/app", "latest", raw)
            manifest = "/v2/team/app/manifests/latest"

            async def status(one: Replica) -> int:
                async with client.get(one.url + manifest) as answer:
                    await answer.read()
                    return answer.status

            assert [await status(one) for one in two for _ in range(3)] == [200] * 6
            await asyncio.to_thread(server.stop)
            assert [await status(one) for one in two] == [503, 503], "memory cannot be believed now"
            async with client.post(f"{two[0].url}/v2/team/app/blobs/uploads/") as answer:
                assert answer.status == 503
            await asyncio.to_thread(server.start)

            async def all_well() -> bool:
                return [await status(one) for one in two] == [200, 200]

            await until(all_well, within=20)
            await push_manifest(client, two[1].url, "team/app", "latest", image(config, annotations={"a": "b"}))
            async with client.head(two[0].url + manifest) as answer:
                assert answer.headers["Docker-Content-Digest"] != str(Digest.of(raw))
        finally:
            await manager.__aexit__(None, None, None)
