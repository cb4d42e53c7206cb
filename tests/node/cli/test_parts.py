"""The pieces by themselves: templates, options, frames, stored credentials, the client."""

import base64
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli import mounts, options
from node.cli.frames import Frames
from node.cli.output import human_size, span
from node.cli.registryauth import AuthStore, BrokenConfig, HelperFailed
from node.cli.template import InvalidTemplate, Template
from node.client import BrokenAnswer, Client, DaemonError
from tests.node.cli.conftest import Daemon

VALUE = {"ID": "abc", "N": 3, "Yes": True, "None": None, "List": ["a", "b"], "Map": {"k": "v", "a": {"b": 1}}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{.ID}}", "abc"), ("x {{ .N }} y", "x 3 y"), ("{{.Yes}}", "true"), ("{{.None}}", "<no value>"),
        ("{{.List}}", "[a b]"), ("{{.Map.k}}", "v"), ("{{.Map.a.b}}", "1"), ("{{json .List}}", '["a","b"]'),
        ('{{join .List ", "}}', "a, b"), ("{{upper .ID}}", "ABC"), ("{{len .List}}", "2"),
        ('{{index .Map "k"}}', "v"), ("{{index .List 1}}", "b"), ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{if .Yes}}y{{else}}n{{end}}", "y"), ("{{if .None}}y{{else}}n{{end}}", "n"), ("a\\tb", "a\tb"),
        ("{{range .None}}x{{else}}none{{end}}", "none"), ("a {{- .N -}} b", "a3b"), ('{{"lit"}}', "lit"),
        ('{{(index .Map "a").b}}', None), ("{{json .}}", json.dumps(VALUE, separators=(",", ":"))),
        ('{{range .List}}{{if eq . "a"}}A{{end}}{{end}}', "A"), ("{{.Map}}", "map[a:map[b:1] k:v]"),
    ],
)  # fmt: skip
def test_templates(text: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(InvalidTemplate):
            Template(text).render(VALUE)
    else:
        assert Template(text).render(VALUE) == shown


@pytest.mark.parametrize(
    "text",
    ["{{", "{{.ID", "{{}}", "{{.Nope}}", "{{range .List}}", "{{end}}", "{{nope .ID}}", "{{.ID | json}}",
     "{{with .Map}}{{end}}", "{{if .Yes}}{{else}}"],
)  # fmt: skip
def test_templates_that_are_none(text: str) -> None:
    with pytest.raises(InvalidTemplate):
        Template(text).render(VALUE)


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        ("127.0.0.1:8080:80/udp", {"80/udp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("1-2:3-4", {"3/tcp": [("", "1")], "4/tcp": [("", "2")]}),
        ("8000-8010:80", {"80/tcp": [("", "8000-8010")]}),
        ("3-4", {"3/tcp": [("", "")], "4/tcp": [("", "")]}),
    ],
)
def test_published_ports(text: str, bindings: dict[str, list[tuple[str, str]]]) -> None:
    found = {key: [(b["HostIp"], b["HostPort"]) for b in value] for key, value in options.ports([text]).items()}
    assert found == bindings


@pytest.mark.parametrize("text", ["", "a:b", "1:2:3:4", "2-1", "70000", "1-2:3-5", "80/", "1-65535"])
def test_no_published_ports(text: str) -> None:
    with pytest.raises(click.BadParameter):
        options.ports([text])


def test_sizes_spans_cpus() -> None:
    assert [options.size(text) for text in ("5", "1k", "64m", "1.5G", "2gb", "1MiB", "-1")] == [
        5, 1024, 64 << 20, 3 << 29, 2 << 30, 1 << 20, -1,
    ]  # fmt: skip
    assert [options.span(text) for text in ("30s", "1m30s", "5ms", "1.5h")] == [
        30 * 10**9, 90 * 10**9, 5_000_000, 5400 * 10**9,
    ]  # fmt: skip
    assert [options.cpus(text) for text in ("1", ".5", "1.25")] == [10**9, 5 * 10**8, 1_250_000_000]
    for wrong in ("", "1x", "-5"):
        with pytest.raises(click.BadParameter):
            options.size(wrong)
        with pytest.raises(click.BadParameter):
            options.cpus(wrong)
        with pytest.raises(click.BadParameter):
            options.span(wrong)


def test_mounts_and_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mounts.mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rslave") == {
        "Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"},
    }  # fmt: skip
    assert mounts.mount('src=v,dst=/b,volume-opt=a=b,"volume-opt=o=x,y"') == {
        "Type": "volume", "Source": "v", "Target": "/b",
        "VolumeOptions": {"DriverConfig": {"Options": {"a": "b", "o": "x,y"}}},
    }  # fmt: skip
    for wrong in ("type=bind", "target=/x,nonsense=1", "target=/x,readonly=perhaps", "target=/x,tmpfs-mode=9"):
        with pytest.raises(click.BadParameter):
            mounts.mount(wrong)
    assert mounts.mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rprivate,bind-recursive=readonly,idmap=auto") == {
        "Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": True, "IdMap": "auto"},
    }  # fmt: skip
    assert mounts.mount("type=secret,src=key,uid=33,mode=0400") == {
        "Type": "secret", "Source": "key", "SecretOptions": {"UID": "33", "Mode": 0o400}}  # fmt: skip
    assert mounts.mount("type=tmpfs,dst=/t,tmpfs-opt=exec,tmpfs-opt=uid=1")["TmpfsOptions"] == {
        "Options": [["exec"], ["uid", "1"]]}  # fmt: skip
    for wrong in ("type=bind,src=/a,dst=/b,bind-recursive=readonly", "type=bind,src=/a,dst=/b,volume-nocopy",
                  "type=bind,src=/a,dst=/b,bind-recursive=x"):  # fmt: skip
        with pytest.raises(click.BadParameter):
            mounts.mount(wrong)
    monkeypatch.chdir(tmp_path)
    assert options.volumes(["./x:/y", "v:/z", "/a"]) == ([f"{tmp_path}/x:/y", "v:/z"], {"/a": {}})


def test_security_options(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    kept, extra = options.security_options([f"seccomp={tmp_path}/profile.json", "systempaths=unconfined"])
    assert kept == ['seccomp={"defaultAction": "SCMP_ACT_ALLOW"}']
    assert extra == {"MaskedPaths": [], "ReadonlyPaths": []}
    with pytest.raises(click.BadParameter, match="opening seccomp profile"):
        options.security_options(["seccomp=/nowhere"])


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20))), st.lists(st.integers(1, 9), min_size=1))
def test_frames_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(bytes((n, 0, 0, 0)) + len(d).to_bytes(4, "big") + d for n, d in frames)
    reader, found, at = Frames(multiplexed=True), {1: b"", 2: b""}, 0
    while data:
        size = cuts[at % len(cuts)]
        at += 1
        for number, part in reader.feed(data[:size]):
            found[number] += part
        data = data[size:]
    assert found == {n: b"".join(d for m, d in frames if m == n) for n in (1, 2)}


def test_words_for_sizes_and_spans() -> None:
    assert [human_size(n) for n in (0, 999, 1000, 1_234_567, 5 * 10**9)] == ["0B", "999B", "1kB", "1.23MB", "5GB"]
    assert [span(n) for n in (0, 1, 60, 3600, 90_000)] == [
        "Less than a second", "1 second", "About a minute", "About an hour", "25 hours",
    ]  # fmt: skip


def test_credentials_are_kept_privately_and_only_theirs_change(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    store = AuthStore(folder)
    assert store.get("reg:5000") is None
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"HttpHeaders": {"a": "b"}, "auths": {"other": {"auth": "eDp5"}}}))
    store.put("reg:5000", "me", "p:w", "")
    document = json.loads((folder / "config.json").read_text())
    assert document["HttpHeaders"] == {"a": "b"}
    assert document["auths"]["reg:5000"] == {"auth": base64.b64encode(b"me:p:w").decode()}
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert store.get("reg:5000") == {"username": "me", "password": "p:w", "serveraddress": "reg:5000"}
    assert store.get("other") == {"username": "x", "password": "y", "serveraddress": "other"}
    assert store.remove("reg:5000")
    assert not store.remove("reg:5000")
    assert os.listdir(folder) == ["config.json"]


def test_the_hub_is_kept_where_docker_keeps_it(tmp_path: Path) -> None:
    store = AuthStore(tmp_path)
    store.put("docker.io", "me", "pw", "")
    assert list(json.loads((tmp_path / "config.json").read_text())["auths"]) == ["https://index.docker.io/v1/"]
    header = store.header("docker.io")["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(header))["username"] == "me"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"h": {"auth": "!"}}}'])
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BrokenConfig):
        AuthStore(tmp_path).get("h")


def test_credential_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "docker-credential-test"
    script.write_text(
        "#!/bin/sh\nread key\ncase $1:$key in\n"
        'get:reg) echo \'{"Username":"u","Secret":"s"}\';;\n'
        'get:tok) echo \'{"Username":"<token>","Secret":"t"}\';;\n'
        "get:none) echo 'credentials not found in native keychain'; exit 1;;\n"
        "get:*) echo broken; exit 1;;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text('{"credsStore": "test", "credHelpers": {"gone": "nothere"}}')
    store = AuthStore(tmp_path)
    assert store.get("reg") == {"username": "u", "password": "s", "serveraddress": "reg"}
    assert store.get("tok") == {"identitytoken": "t", "serveraddress": "tok"}
    assert store.get("none") is None
    with pytest.raises(HelperFailed, match="docker-credential-test get: broken"):
        store.get("bad")
    with pytest.raises(HelperFailed, match="docker-credential-nothere is not installed"):
        store.get("gone")
    assert store.put("reg", "u", "s", "") == "credential helper test"


def test_login_and_logout(daemon: Daemon) -> None:
    result = daemon.run("login", "-u", "me", "--password-stdin", "127.0.0.1:5000", stdin="right\n")
    assert result.stdout == "Login Succeeded\n"
    wrong = daemon.run("login", "-u", "me", "-p", "wrong", "127.0.0.1:5000")
    assert wrong.returncode == 1
    assert "unauthorized: incorrect username or password" in wrong.stderr
    daemon.run("pull", "127.0.0.1:5000/x")
    held = daemon.images.credentials[-1]
    assert held is not None
    assert (held.username, held.password) == ("me", "right")
    assert daemon.run("logout", "127.0.0.1:5000").stdout == "Removing login credentials for 127.0.0.1:5000\n"
    assert daemon.run("logout", "127.0.0.1:5000").stdout == "Not logged in to 127.0.0.1:5000\n"


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Any]:
    """A daemon that answers one connection with the given bytes."""
    path = tmp_path / "s.sock"
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> Client:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return Client(str(path))

    yield start
    for thread in threads:
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "document"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}', {"a": 1}),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4;x=y\r\n: 1}\r\n0\r\nX: y\r\n\r\n',
         {"a": 1}),
        (b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}', {"a": 1}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ],
)  # fmt: skip
def test_the_client_reads_all_kinds_of_bodies(scripted: Any, answer: bytes, document: Any) -> None:
    assert scripted(answer).json("GET", "/x") == document


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", b"x" * 100_000],
)  # fmt: skip
def test_the_client_says_what_is_broken(scripted: Any, answer: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        scripted(answer).json("GET", "/x")


def test_errors_of_the_daemon(scripted: Any) -> None:
    with pytest.raises(DaemonError) as error:
        scripted(b'HTTP/1.1 409 Conflict\r\nContent-Length: 15\r\n\r\n{"message":"x"}').json("GET", "/x")
    assert (error.value.status, error.value.message) == (409, "x")
    with pytest.raises(DaemonError, match="plain"):
        scripted(b"HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\nplain").json("GET", "/x")
