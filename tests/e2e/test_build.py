"""`docker build`, the real commands against a node: what a Dockerfile says is what the image is."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker as docker_py
import pytest

from node.linux.mounts import entries
from tests.conftest import Until
from tests.e2e.conftest import Docker, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(scope="module")
def alpine(platform: Platform) -> Iterator[str]:
    before = {image["Id"] for image in platform.client.json("GET", "/images/json")}
    platform.pull("alpine:3.10")
    yield f"{platform.registry}/alpine:3.10"
    # Others count what is on the disk.
    platform.remove_containers()
    for image in platform.client.json("GET", "/images/json"):
        if image["Id"] not in before:
            platform.client.status("DELETE", f"/images/{image['Id']}", {"force": True})
    platform.client.json("POST", "/build/prune")


@pytest.fixture
def context(tmp_path: Path, alpine: str) -> Path:
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/a.txt").write_text("a\n")
    (tmp_path / "src/run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "src/run.sh").chmod(0o755)
    (tmp_path / "src/deep/b.txt").write_text("b\n")
    (tmp_path / "src/secret.key").write_text("do not send")
    (tmp_path / ".dockerignore").write_text("**/*.key\n")
    with tarfile.open(tmp_path / "pack.tar.gz", "w:gz") as pack:
        member = tarfile.TarInfo("inside/file")
        member.size, member.mode, member.uid = 5, 0o640, 7
        pack.addfile(member, io.BytesIO(b"inner"))
    (tmp_path / "Dockerfile").write_text(f"""# syntax=docker/dockerfile:1
ARG BASE={alpine}
FROM $BASE AS tools
RUN echo tool >/tool && chmod 4755 /tool

FROM $BASE AS unneeded
RUN exit 9

FROM $BASE
ARG WHO=world
ARG EMPTY
ENV GREETING="hello ${{WHO%d}}" B=${{EMPTY:-none}}
LABEL who=$WHO
WORKDIR /srv/app
COPY src ./
COPY --chown=nobody --chmod=600 src/a.txt /owned/
COPY --from=tools /tool /usr/bin/
ADD pack.tar.gz /packed/
COPY <<"END" <<OTHER /docs/
literal $WHO
END
says $GREETING
OTHER
RUN --mount=type=cache,target=/cache echo again >>/cache/log && cp /cache/log /cached
RUN --mount=from=tools,target=/t --mount=source=src,target=/s test -s /t/tool && test -s /s/a.txt
RUN --network=none ! ip addr show eth0 2>/dev/null; id -u >/who; echo "$WHO $GREETING" >/args
RUN <<X
mkdir -p /gone/x
rm -rf /gone /etc/motd
X
USER nobody
EXPOSE 80 90/udp
VOLUME /data
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["/bin/echo"]
CMD ["default"]
""")
    return tmp_path


@pytest.fixture(autouse=True)
def _classic(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Without the buildx plugin a docker command asks the classic builder, when it is told to.
    monkeypatch.setattr(Platform, "environment", property(
        lambda self, plain=Platform.environment: plain.fget(self) | {"DOCKER_BUILDKIT": "0"}))
    yield
    left = [entry.point for entry in entries() if entry.point.startswith(f"{platform.home}/node/build")]
    assert not left
    assert not list((platform.home / "node/build/contexts").iterdir())
    assert not list((platform.home / "node/build/roots").iterdir())


def files_of(docker: Docker, image: str) -> dict[str, tarfile.TarInfo]:
    name = docker.ok("create", image).strip()
    whole = subprocess.run([docker.program, "export", name], capture_output=True, check=True,
                           env=docker.platform.environment).stdout
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        return {member.name.rstrip("/"): member for member in archive}


def test_everything_of_the_language(docker: Docker, context: Path) -> None:
    said = docker.ok("build", "-t", "whole", "--build-arg", "WHO=weird", str(context), timeout=120)
    assert "Successfully tagged whole:latest" in said
    assert "exit 9" not in said
    config = json.loads(docker.ok("inspect", "-f", "{{json .Config}}", "whole"))
    env = dict(entry.split("=", 1) for entry in config["Env"])
    assert (env["GREETING"], env["B"]) == ("hello weir", "none")
    assert (config["Entrypoint"], config["Cmd"], config["User"]) == (["/bin/echo"], ["default"], "nobody")
    assert (config["WorkingDir"], config["StopSignal"], config["Labels"]["who"]) == ("/srv/app", "SIGUSR1", "weird")
    assert (set(config["ExposedPorts"]), set(config["Volumes"])) == ({"80/tcp", "90/udp"}, {"/data"})
    assert config["Healthcheck"]["Interval"] == 5 * 10**9

    files = files_of(docker, "whole")
    assert {"srv/app/a.txt", "srv/app/deep/b.txt", "srv/app/run.sh", "docs/END", "docs/OTHER"} <= set(files)
    assert not {"srv/app/secret.key", "gone", "etc/motd", "cache/log", "t/tool"} & set(files)
    assert files["srv/app/run.sh"].mode & 0o7777 == 0o755
    assert (files["owned/a.txt"].uid, files["owned/a.txt"].mode & 0o7777) == (65534, 0o600)
    assert files["usr/bin/tool"].mode & 0o7777 == 0o4755
    assert (files["packed/inside/file"].mode & 0o7777, files["packed/inside/file"].size) == (0o640, 5)
    for path, text in {"/docs/END": "literal $WHO\n", "/docs/OTHER": "says hello weir\n", "/who": "0\n",
                       "/args": "weird hello weir\n", "/cached": "again\n"}.items():  # fmt: skip
        assert docker.ok("run", "--rm", "--entrypoint", "/bin/cat", "whole", path) in (text, text * 2, text * 3, text * 4)
    assert docker.ok("run", "--rm", "whole") == "default\n"


def test_the_cache(newest: Docker, context: Path) -> None:
    first = newest.ok("build", "-q", str(context), timeout=120)
    (context / "src/a.txt").touch()
    said = newest.ok("build", "-t", "again", str(context))
    assert "Running in" not in said
    assert newest.inspect("again", "{{.Id}}") == first.strip()
    # What changed is carried out again, and what stands on it.
    (context / "src/a.txt").write_text("other\n")
    said = newest.ok("build", "-t", "again", str(context))
    assert said.count("Running in") == 4
    assert said.count("Using cache") == 2
    assert newest.ok("run", "--rm", "--entrypoint", "/bin/cat", "again", "/srv/app/a.txt") == "other\n"
    assert "Using cache" not in newest.ok("build", "--no-cache", str(context))
    freed = newest.ok("builder", "prune", "-f")
    assert "Total reclaimed space" in freed
    assert newest.ok("run", "--rm", "again") == "default\n"


@pytest.mark.parametrize(("text", "code", "reason"), [
    ("RUN echo seen; exit 7", 7, "returned a non-zero code: 7"),
    ("RNU x", 1, "line 2: unknown instruction: RNU (did you mean RUN?)"),
    ("COPY nothing /", 1, '"nothing": not found'),
    ("COPY ../../etc/passwd /stolen", 1, "not found"),
    ("FROM nosuchstage:x@", 1, "nosuchstage"),
    ("COPY --from=1 / /", 1, "invalid stage index 1"),
    ("USER nobody:nogroup\nCOPY --chown=stranger . /x", 1, "unable to find user stranger"),
    ("RUN --mount=type=secret,id=a,required=true x", 1, "secret a: not found"),
    ("RUN --security=insecure x", 1, "entitlement"),
])  # fmt: skip
def test_what_goes_wrong(newest: Docker, alpine: str, context: Path, text: str, code: int, reason: str) -> None:
    (context / "Dockerfile").write_text(f"FROM {alpine}\n{text}\n")
    before = newest.ok("ps", "-aq")
    result = newest("build", "-t", "wrong", str(context), timeout=60)
    assert (result.returncode, reason in result.stderr) == (code, True), result.stderr
    assert newest.ok("ps", "-aq") == before
    assert newest("inspect", "wrong").returncode == 1


def test_a_context_that_leads_out(newest: Docker, alpine: str, tmp_path: Path) -> None:
    """Links of a context are links inside the context."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("inside")
    (tmp_path / "out").symlink_to("/etc/hostname")
    (tmp_path / "up").symlink_to("../../../../etc")
    (tmp_path / "Dockerfile").write_text(f"FROM {alpine}\nCOPY out /a\nCOPY up/hostname /b\n"
                                         "RUN --mount=source=up,target=/m cp /m/hostname /c\n")  # fmt: skip
    result = newest("build", "-t", "links", str(tmp_path), timeout=60)
    if result.returncode:
        assert "leads out" in result.stderr
        (tmp_path / "Dockerfile").write_text(f"FROM {alpine}\nCOPY out /a\nCOPY up/hostname /b\nRUN cp /b /c\n")
        newest.ok("build", "-t", "links", str(tmp_path), timeout=60)
    assert newest.ok("run", "--rm", "links", "cat", "/a", "/b", "/c") == "insideinsideinside"


def test_onbuild_and_scratch(newest: Docker, alpine: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    newest.ok("build", "-t", "trigger", "-", stdin=f"FROM {alpine}\nONBUILD COPY file /got\nONBUILD RUN echo y >>/got\n")
    (tmp_path / "Dockerfile").write_text("FROM trigger AS a\nFROM scratch\nCOPY --from=a /got /\n")
    newest.ok("build", "-t", "scratched", str(tmp_path))
    name = newest.ok("create", "scratched", "none").strip()
    out = subprocess.run([newest.program, "cp", f"{name}:/got", "-"], capture_output=True, check=True,
                         env=newest.platform.environment).stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        got = archive.extractfile("got")
        assert got is not None
        assert got.read() == b"xy\n"
    assert json.loads(newest.ok("inspect", "-f", "{{json .Config}}", "scratched")).get("OnBuild") in (None, [])


def test_the_own_command(seawall: Docker, context: Path) -> None:
    said = seawall.ok("build", "-t", "mine", "--build-arg", "WHO=weird", "--label", "k=v", str(context), timeout=120)
    assert "Successfully tagged mine:latest" in said
    assert seawall.ok("run", "--rm", "mine") == "default\n"
    assert seawall.inspect("mine", "{{.Config.Labels.k}}") == "v"
    result = seawall("build", "-", stdin=f"FROM {seawall.platform.registry}/alpine:3.10\nRUN exit 6\n")
    assert result.returncode == 6
    assert "returned a non-zero code: 6" in result.stderr


def test_docker_py(platform: Platform, alpine: str) -> None:
    client = docker_py.DockerClient(base_url=f"unix://{platform.socket}")
    try:
        text = f"FROM {alpine}\nARG A\nRUN echo $A >/a\nCMD cat /a\n"
        image, lines = client.images.build(fileobj=io.BytesIO(text.encode()), tag="py:1", buildargs={"A": "given"})
        assert any(line.get("aux", {}).get("ID") == image.id for line in lines)
        assert client.containers.run("py:1", remove=True) == b"given\n"
        with pytest.raises(docker_py.errors.BuildError, match="non-zero code: 3"):
            client.images.build(fileobj=io.BytesIO(f"FROM {alpine}\nRUN exit 3\n".encode()))
    finally:
        client.close()


def test_the_same_bytes_whenever_it_is_built(newest: Docker, alpine: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {alpine}\nCOPY file /srv/\nRUN mkdir /made && date >/dev/null && touch /made/now\nWORKDIR /work\n")
    words = ["build", "-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", str(tmp_path)]
    first = newest.ok(*words, timeout=60)
    (tmp_path / "file").touch()
    assert newest.ok(*words, timeout=60) == first
    assert newest.inspect(first.strip(), "{{.Created}}").startswith("2023-11-14T22:13:20")
    assert newest.ok("run", "--rm", first.strip(), "stat", "-c", "%Y", "/made/now", "/srv/file") == "1700000000\n" * 2


def test_what_copies_leave_alone(newest: Docker, alpine: str, tmp_path: Path) -> None:
    """A directory that is there keeps its mode, a link to one stays a link; what is missing on the way is the
    owner's; a Dockerfile that is left out is not copied; archives are unpacked and not copied, too."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir").chmod(0o700)
    (tmp_path / "dir/f").write_text("x")
    (tmp_path / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    with tarfile.open(tmp_path / "pack.tar", "w") as pack:
        pack.addfile(tarfile.TarInfo("inner"), io.BytesIO())
    (tmp_path / "Dockerfile").write_text(f"""FROM {alpine}
RUN ln -s usr/share /link && mkdir -m 711 /old
COPY dir /link/
COPY dir /tmp/
COPY dir /old
COPY dir /new
ADD ./pack.tar /one/
ADD pack*.tar /two/
COPY . /all/
COPY --chown=1000:1001 dir/f /way/deep/f
USER 1000
WORKDIR //work/a/b
COPY --chmod=u+x <<EOF /said
echo "it's $PWD" 'x' \\$PWD
EOF
COPY <<-EOF /tabs
\tone\ttwo
\tEOF
ARG https_proxy=none
RUN --mount=type=tmpfs,target=/nowhere echo "$https_proxy" >proxy
""")
    newest.ok("build", "-t", "copies", str(tmp_path), timeout=60)
    files = files_of(newest, "copies")
    assert (files["link"].issym(), files["usr/share/f"].isreg()) == (True, True)
    modes = {name: files[name].mode & 0o7777 for name in ("tmp", "old", "new", "said")}
    assert modes == {"tmp": 0o1777, "old": 0o711, "new": 0o700, "said": 0o744}
    assert {"one/inner", "two/inner", "all/pack.tar"} <= set(files)
    assert not {"one/pack.tar", "two/pack.tar", "all/Dockerfile", "all/.dockerignore", "nowhere"} & set(files)
    assert {(files[name].uid, files[name].gid) for name in ("way", "way/deep", "way/deep/f")} == {(1000, 1001)}
    assert {files[name].uid for name in ("work", "work/a", "work/a/b")} == {1000}
    said = newest.ok("run", "--rm", "copies", "cat", "/said", "/tabs", "/work/a/b/proxy")
    assert said == "echo \"it's \" 'x' $PWD\none\ttwo\nnone\n"


def test_the_layer_that_was_adopted_is_the_one_that_is_pulled(newest: Docker, alpine: str, tmp_path: Path) -> None:
    name = f"{newest.platform.registry}/adopted:1"
    newest.ok("build", "-t", name, "-", stdin=f"""FROM {alpine}
RUN mkdir -p /d/e /gone && touch /d/e/f /gone/x
RUN rm -rf /d /gone && mkdir /d && touch /d/new && ln /d/new /d/other && chmod 711 / /srv && chown 9:9 / \\
    && mkfifo /d/fifo && rm /etc/motd && ln -s nowhere /etc/motd
""", timeout=60)
    def told() -> dict[str, object]:
        return {path: (one.type, one.mode, one.uid, one.gid, one.size, one.linkname, int(one.mtime))
                for path, one in files_of(newest, name).items()}  # fmt: skip

    adopted = told()
    root = newest.ok("run", "--rm", name, "stat", "-c", "%a %u", "/")
    newest.ok("push", name, timeout=60)
    newest.ok("rm", "-f", *newest.ok("ps", "-aq").split())
    newest.ok("rmi", name)
    newest.ok("builder", "prune", "-f")
    newest.ok("pull", name)
    pulled = told()
    assert {path: (adopted.get(path), pulled.get(path)) for path in {*adopted, *pulled}
            if adopted.get(path) != pulled.get(path)} == {}
    assert newest.ok("run", "--rm", name, "stat", "-c", "%a %u", "/") == root


def test_what_was_replaced_in_the_cache_is_pruned(newest: Docker, alpine: str, tmp_path: Path) -> None:
    def stored() -> int:
        return sum(path.stat().st_blocks for path in newest.platform.home.glob("node/**/*") if path.is_file())

    newest.ok("builder", "prune", "-f")
    text = f"FROM {alpine}\nRUN head -c 20000000 /dev/urandom >/big\n"
    before = stored()
    for _ in range(2):
        newest.ok("build", "--no-cache", "-q", "-", stdin=text, timeout=60)
    newest.ok("image", "prune", "-f")
    newest.ok("builder", "prune", "-f")
    assert (stored() - before) * 512 < 15_000_000


def containers_of_builds(docker: Docker) -> list[str]:
    return docker.ok("ps", "-aq", "--filter", "label=io.seawall.build=step").split()


async def test_who_leaves_ends_the_build(newest: Docker, alpine: str, tmp_path: Path, until: Until) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {alpine}\nRUN sleep 1000\n")
    client = newest.start("build", "-t", "left", str(tmp_path))
    await until(lambda: bool(containers_of_builds(newest)), within=30)
    client.terminate()
    client.communicate()
    await until(lambda: not containers_of_builds(newest), within=30)
    assert newest("inspect", "left").returncode == 1


async def test_a_daemon_killed_in_the_middle_of_a_build(newest: Docker, alpine: str, tmp_path: Path,
                                                        until: Until) -> None:  # fmt: skip
    """Steps that were over are in the cache of the next, nothing else is left."""
    text = f"FROM {alpine}\nRUN echo once >/once\nRUN test -e /go || sleep 1000\n"
    (tmp_path / "Dockerfile").write_text(text)
    client = newest.start("build", str(tmp_path))
    await until(lambda: any("sleep" in line for line in newest.ok("ps", "--no-trunc").splitlines()), within=30)
    newest.platform.kill_node()
    newest.platform.start_node()
    client.communicate()
    assert not containers_of_builds(newest)
    said = newest.ok("build", "-t", "later", "-", stdin=text.replace("test -e /go || sleep 1000", "cat /once"))
    assert "Using cache" in said
    assert "once\n" in said
