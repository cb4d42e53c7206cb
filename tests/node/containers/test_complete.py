"""What the user asked and what the image says come together by Docker's rules, or are refused in Docker's words."""

from dataclasses import replace

import pytest

from node.containers.complete import complete, parse_signal
from node.containers.errors import InvalidSpec
from node.containers.model import (
    CreateSpec,
    Healthcheck,
    Namespaces,
    NetworkSpec,
    Port,
    PublishedPort,
    Resources,
    RestartMode,
    RestartPolicy,
    Security,
    Ulimit,
)
from ocispec.errors import InvalidArgument

ID = "c" * 64
IMAGE = {
    "Entrypoint": ["/entry"],
    "Cmd": ["default"],
    "Env": ["PATH=/bin", "LANG=C", "GONE=1"],
    "WorkingDir": "/srv",
    "User": "web",
    "Labels": {"a": "image", "b": "image"},
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "junk": {}, "99999/tcp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD", "probe"], "Interval": 10**10, "Retries": 5},
}


def done(image=IMAGE, **values):
    return complete(CreateSpec("alpine", **values), image, ID)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "words"),
    [
        (None, None, ("/entry", "default")),
        (None, ("mine",), ("/entry", "mine")),
        (("/other",), None, ("/other",)),
        (("/other",), ("x",), ("/other", "x")),
        (("",), ("x",), ("x",)),
        ((), ("x",), ("x",)),
    ],
)
def test_entrypoint_and_command(entrypoint, cmd, words):
    result = done(entrypoint=entrypoint, cmd=cmd)
    assert (result.path, *result.args) == words


def test_a_shell_line_of_an_old_image():
    assert done({"Cmd": "echo hi"}).args == ("-c", "echo hi")


def test_nothing_to_run_is_refused():
    for image in ({}, {"Cmd": []}, {"Cmd": [""]}):
        with pytest.raises(InvalidSpec, match=r"^no command specified$"):
            done(image)


def test_the_users_words_win_over_the_images():
    spec = done(
        env=("LANG=de", "NEW=1", "GONE"),
        labels={"a": "user"},
        exposed_ports=(Port(81), Port(80)),
        volumes=("/data/", "/x"),
    ).spec
    assert spec.env == ("PATH=/bin", "LANG=de", "NEW=1")
    assert spec.labels == {"a": "user", "b": "image"}
    assert spec.exposed_ports == (Port(80), Port(53, "udp"), Port(81))
    assert spec.volumes == ("/data", "/x")
    assert (spec.workdir, spec.user, spec.stop_signal, spec.hostname) == ("/srv", "web", "SIGQUIT", ID[:12])


def test_a_healthcheck_merges_field_by_field():
    assert done().spec.healthcheck == Healthcheck(("CMD", "probe"), 10**10, retries=5)
    assert done(healthcheck=Healthcheck(interval=5 * 10**9)).spec.healthcheck == Healthcheck(
        ("CMD", "probe"), 5 * 10**9, retries=5
    )
    assert done(healthcheck=Healthcheck(("NONE",))).spec.healthcheck == Healthcheck(("NONE",))


def test_hostile_images_are_survived():
    weird = dict.fromkeys(IMAGE, 5) | {"Cmd": ["x"], "Env": [1, "A=1"], "Labels": {"n": 1}}
    assert done(weird).spec.env == ("A=1",)
    with pytest.raises(InvalidSpec, match="volume that cannot be"):
        done({"Cmd": ["x"], "Volumes": {"/": {}}})


def test_an_image_gives_no_project_a_right():
    labels = {"seawall.project": "shop", "seawall.secrets": "key", "seawall.restart-unhealthy": "true", "a": "b"}
    spec = done({"Cmd": ["x"], "Labels": labels}).spec
    assert spec.labels == {"seawall.restart-unhealthy": "true", "a": "b"}
    asked = done({"Cmd": ["x"], "Labels": labels}, labels={"seawall.project": "bank"}).spec
    assert asked.labels["seawall.project"] == "bank"


REFUSED = [
    ({"workdir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ({"stop_signal": "NOPE"}, "invalid signal: NOPE"),
    ({"cmd": ("a\0b",)}, "NUL"),
    ({"resources": Resources(memory=1)}, "Minimum memory limit allowed is 6MB"),
    ({"resources": Resources(memory_swap=10**7)}, "You should always set the Memory limit"),
    ({"resources": Resources(memory=10**7, memory_swap=9 * 10**6)}, "Minimum memoryswap limit"),
    ({"resources": Resources(nano_cpus=10**13)}, "range of CPUs is from 0.01 to"),
    ({"resources": Resources(nano_cpus=10**9, cpu_period=10**5)}, "Nano CPUs and CPU Period cannot both be set"),
    ({"resources": Resources(cpuset_cpus="a-b")}, "Invalid value a-b for cpuset cpus"),
    ({"resources": Resources(ulimits=(Ulimit("nope", 1, 1),))}, "invalid ulimit type: nope"),
    ({"resources": Resources(ulimits=(Ulimit("nofile", 5, 1),))}, "soft limit must be less than or equal"),
    ({"resources": Resources(oom_score_adj=5000)}, r"range for oom score adj is \[-1000, 1000\]"),
    ({"resources": Resources(sysctls={"kernel.hostname": "x"})}, "is not whitelisted"),
    ({"resources": Resources(sysctls={"net.//.kernel.core_pattern": "|x"})}, "is not whitelisted"),
    ({"resources": Resources(sysctls={"fs.mqueue.//.//.kernel.core_pattern": "|x"})}, "is not whitelisted"),
    ({"resources": Resources(sysctls={"net.x": "1"}), "network": NetworkSpec("host")}, "not in a separate namespace"),
    ({"resources": Resources(device_cgroup_rules=("c 1 rwm",))}, "invalid device cgroup rule format"),
    ({"security": Security(cap_add=("FLY",))}, "invalid CapAdd"),
    ({"security": Security(security_opt=("seccomp={",))}, "Decoding seccomp profile failed"),
    ({"security": Security(security_opt=('seccomp={"defaultAction":7}',))}, "Decoding seccomp profile failed"),
    ({"security": Security(security_opt=("no-new-privileges=maybe",))}, "neither true nor false"),
    ({"security": Security(isolation="hyperv")}, 'invalid isolation: "hyperv": it is one of seawall, docker'),
    ({"security": Security(security_opt=("writable-cgroups=1",)), "namespaces": Namespaces(cgroup="host")},
     "shares the host's cgroup namespace"),
    ({"tmpfs": {"/": ""}}, "destination can't be '/'"),
    ({"tmpfs": {"/x": "bogus=1"}}, "invalid tmpfs option"),
    ({"tmpfs": {"/x": "remount,rw"}}, "invalid tmpfs option"),
    ({"namespaces": Namespaces(uts="what")}, "invalid UTS mode: what"),
    ({"namespaces": Namespaces(uts="host"), "hostname": "x"}, "conflicting options: hostname and the UTS mode"),
    ({"hostname": "h" * 65}, "invalid hostname"),
    ({"network": NetworkSpec("container:x", (PublishedPort(Port(80)),))}, "port publishing and the container type"),
    ({"auto_remove": True, "restart": RestartPolicy(RestartMode.ALWAYS)}, "can't create 'AutoRemove' container"),
    ({"restart": RestartPolicy(RestartMode.ALWAYS, 3)}, "maximum retry count can only be used with 'on-failure'"),
    ({"restart": RestartPolicy(RestartMode.ON_FAILURE, -1)}, "maximum retry count cannot be negative"),
    ({"stop_timeout": -2}, "invalid stop timeout"),
    ({"healthcheck": Healthcheck(("RUN", "x"))}, 'Unknown type "RUN" in healthcheck'),
    ({"healthcheck": Healthcheck(interval=5)}, "Interval in Healthcheck cannot be less than 1ms"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_refuses(values, message):
    with pytest.raises(InvalidArgument, match=message):
        done(**values)


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("64", 64)]
)
def test_signals(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIG", "RTMIN+99", "-9", "9.5"])
def test_no_signals(text):
    with pytest.raises(InvalidSpec, match="invalid signal"):
        parse_signal(text)


def test_a_complete_spec_stays_as_it_is():
    once = done().spec
    assert complete(replace(once), {}, ID).spec == once


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"env": ("=x",)}, "invalid environment variable: =x"),
        ({"env": ("",)}, "invalid environment variable: "),
        ({"network": NetworkSpec("container:")}, "invalid container format container:<name|id>"),
        ({"network": NetworkSpec(extra_hosts=("x",))}, 'bad format for add-host: "x"'),
        ({"network": NetworkSpec(extra_hosts=("x:y",))}, 'invalid IP address in add-host: "y"'),
        ({"network": NetworkSpec(extra_hosts=("x\ny:1.1.1.1",))}, "bad format for add-host"),
        ({"domainname": "d" * 65}, "invalid domainname"),
        ({"hostname": "a\nb"}, "invalid hostname"),
        ({"security": Security(cap_add=("NOPE",))}, 'invalid CapAdd: unknown capability: "CAP_NOPE"'),
        ({"security": Security(cap_drop=("x",))}, 'invalid CapDrop: unknown capability: "CAP_X"'),
        ({"security": Security(security_opt=("x",))}, 'invalid --security-opt: "x"'),
    ],
)
def test_wrong_in_dockers_words(values, words):
    with pytest.raises(InvalidSpec) as refused:
        complete(CreateSpec("x", **values), IMAGE, "a" * 64)
    assert words in refused.value.message
