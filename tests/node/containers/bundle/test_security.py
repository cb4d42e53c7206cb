"""What a container may do: the baselines, every --security-opt, and what this host's kernel cannot."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.containers.bundle.baseline import NAMES, baseline
from node.containers.bundle.options import parse
from node.containers.bundle.security import MASKED, READONLY, Confinement, confine
from node.containers.errors import InvalidSpec
from node.containers.model import Security
from node.linux import capabilities, labels, seccomp
from node.settings import ISOLATIONS
from ocispec.errors import Unimplemented


def confined(*options: str, **values: object) -> Confinement:
    given = {"isolation": "seawall", "security_opt": options, **values}
    return confine(Security(**given))  # type: ignore[arg-type]


def test_seawall_holds_back_what_docker_gives() -> None:
    ours, dockers, earlier = (confined(isolation=name) for name in ("seawall", "docker", ""))
    assert set(dockers.capabilities) - set(ours.capabilities) == {"CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"}
    assert set(ours.capabilities) < set(dockers.capabilities)
    assert (ours.no_new_privileges, dockers.no_new_privileges, earlier.no_new_privileges) == (True, False, True)
    assert earlier.capabilities == dockers.capabilities
    listed = [kind.seccomp["architectures"] for kind in (ours, dockers, earlier) if kind.seccomp]
    assert listed[0] == listed[1][:1]
    assert listed[1] == listed[2]
    assert len(listed[1]) > 1
    assert NAMES == ISOLATIONS


@pytest.mark.parametrize("name", ["seawall", "docker"])
def test_a_privileged_container_is_the_same_in_both(name: str) -> None:
    held = confined(isolation=name, privileged=True)
    assert held.capabilities == capabilities.parse(["ALL"])
    assert (held.no_new_privileges, held.seccomp, held.masked, held.readonly, held.ambient) == (False, None, (), (), ())
    asked = confined("no-new-privileges", "seccomp=builtin", privileged=True)
    assert asked.no_new_privileges
    assert asked.seccomp is not None


def test_a_user_holds_what_was_asked_for_by_name() -> None:
    assert confined().ambient == ()
    assert confined(cap_add=("net_bind_service", "SYS_TIME")).ambient == ("CAP_NET_BIND_SERVICE", "CAP_SYS_TIME")
    every = confined(cap_add=("ALL",), cap_drop=("SYS_ADMIN",))
    assert every.ambient == every.capabilities
    assert "CAP_SYS_ADMIN" not in every.ambient
    assert confined(cap_add=("KILL",), isolation="docker").ambient == ()


def test_masks_are_added_and_lifted_by_name() -> None:
    held = confined("mask=/proc/uptime:/sys/class", "unmask=/proc/acpi:/proc/sys")
    assert {"/proc/uptime", "/sys/class"} <= set(held.masked)
    assert "/proc/acpi" not in held.masked
    assert "/proc/kcore" in held.masked
    assert held.readonly == tuple(path for path in READONLY if path != "/proc/sys")
    patterned = confined("unmask=/proc/a*")
    assert set(MASKED) - set(patterned.masked) == {"/proc/acpi", "/proc/asound"}
    every = confined("unmask=all", "mask=/proc/kcore")
    assert (every.masked, every.readonly) == (("/proc/kcore",), ())
    assert confined("systempaths=unconfined").readonly == ()


def test_of_an_option_said_twice_the_last_counts() -> None:
    assert confined("no-new-privileges:false", "no-new-privileges").no_new_privileges
    assert confined("seccomp=unconfined", "seccomp=builtin").seccomp is not None
    assert confined("proc-opts=hidepid=2,gid=5", "proc-opts=subset=pid").proc == ("hidepid=2", "gid=5", "subset=pid")
    assert confined("writable-cgroups=true").writable_cgroups
    assert not confined("writable-cgroups=true", "writable-cgroups=0").writable_cgroups


@pytest.mark.parametrize(("option", "says"), [
    ("nonsense", 'invalid --security-opt: "nonsense"'), ("seccomp", "it wants seccomp=VALUE"),
    ("apparmor=", "is no name of a profile"), ("apparmor=a\nb", "is no name of a profile"),
    ("label=what", "want disable, nested"), ("label=type:", "want disable, nested"),
    ("systempaths=some", "only unconfined is known"), ("writable-cgroups=perhaps", "neither true nor false"),
    ("proc-opts=hidepid=9", "proc-opts: 'hidepid=9'"), ("proc-opts=", "proc-opts: ''"),
    ("proc-opts=gid=1,upperdir=/etc", "upperdir=/etc"), ("mask=proc", "no clean absolute path"),
    ("mask=/proc/../etc", "no clean absolute path"), ("mask=/", "no clean absolute path"),
    ("unmask=", "no clean absolute path"), ("credentialspec=file://x", "Windows"),
])  # fmt: skip
def test_what_is_wrong_is_named(option: str, says: str) -> None:
    with pytest.raises(InvalidSpec, match=says):
        parse([option])


def test_labels_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "has_selinux", lambda: False)
    monkeypatch.setattr(labels, "has_apparmor", lambda: False)
    monkeypatch.setattr(labels, "default_apparmor", lambda: "")
    assert confined("label=disable", "apparmor=unconfined", "label:disable").apparmor == ""
    with pytest.raises(InvalidSpec, match=r'"label=type:x_t": the kernel of this host runs without SELinux'):
        confined("label=type:x_t")
    with pytest.raises(InvalidSpec, match=r'"apparmor=mine": the kernel of this host runs without AppArmor'):
        confined("apparmor=mine")


def test_labels_where_the_kernel_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = frozenset({"seawall-default", "mine"})
    monkeypatch.setattr(labels, "has_selinux", lambda: True)
    monkeypatch.setattr(labels, "has_apparmor", lambda: True)
    monkeypatch.setattr(labels, "_loaded", lambda: loaded)
    assert confined().apparmor == "seawall-default"
    assert confined(privileged=True).apparmor == ""
    assert confined("apparmor=unconfined").apparmor == ""
    assert confined("apparmor=mine", privileged=True).apparmor == "mine"
    with pytest.raises(InvalidSpec, match="no profile of that name is loaded"):
        confined("apparmor=theirs")
    with pytest.raises(Unimplemented, match="no SELinux labels yet"):
        confined("label=level:s0")


def test_a_profile_opens_32_bit_calls_where_it_says_so() -> None:
    assert baseline("seawall").older_calls is False
    held = confined('seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"]}')
    assert held.seccomp is not None
    assert held.seccomp["architectures"] == ["SCMP_ARCH_X86"]
    assert len(seccomp.compile_profile(held.seccomp)) > 8


def test_a_profile_is_judged_once_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[object] = []
    compiler = seccomp.compile_profile
    monkeypatch.setattr(seccomp, "compile_profile", lambda profile: judged.append(profile) or compiler(profile))
    profile = 'seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["acct"],"action":"SCMP_ACT_ERRNO"}]}'
    assert [confined(profile).seccomp for _ in range(3)] == [judged[0]] * 3
    assert len(judged) == 1
    with pytest.raises(InvalidSpec, match="it is longer than 262144 bytes"):
        confined(f"seccomp={' ' * 300_000}{{}}")


NAMED = st.sampled_from(["no-new-privileges", "seccomp", "apparmor", "label", "systempaths", "writable-cgroups",
                         "proc-opts", "mask", "unmask", "credentialspec"])  # fmt: skip
VALUE = st.one_of(st.text(max_size=20), st.sampled_from(["true", "ALL", "disable", "type:x", "hidepid=2", "/a:/b", "/*/["]))
OPTION = st.one_of(st.text(max_size=30), st.builds("{}{}{}".format, NAMED, st.sampled_from("=:"), VALUE))
WORD = st.sampled_from(["defaultAction", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "syscalls", "names",
                        "action", "read", "args", "op", "SCMP_CMP_EQ", "includes", "excludes", "caps", "minKernel",
                        "archMap", "architecture", "subArchitectures", "SCMP_ARCH_X86_64", "flags", "listenerPath",
                        "arches", "4.8", "x", "errnoRet", "architectures", "name", "comment"])  # fmt: skip
JSON = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORD),
                    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORD, inner, max_size=5)),
                    max_leaves=25)  # fmt: skip
RULE = st.fixed_dictionaries({"names": st.lists(WORD, max_size=2), "action": WORD},
                             optional=dict.fromkeys(("args", "includes", "excludes", "errnoRet", "name"), JSON))
PROFILE = st.fixed_dictionaries({"defaultAction": WORD}, optional={
    "syscalls": st.one_of(JSON, st.lists(RULE, max_size=3)), "archMap": JSON, "architectures": JSON, "flags": JSON,
    "listenerPath": JSON, "listenerMetadata": JSON, "defaultErrnoRet": JSON})  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(options=st.lists(OPTION, max_size=3))
def test_whatever_is_written_is_taken_or_refused(options: list[str]) -> None:
    with contextlib.suppress(InvalidSpec, Unimplemented):
        held = confined(*options)
        assert all(path.startswith("/") for path in (*held.masked, *held.readonly))


@settings(max_examples=60, deadline=None)
@given(profile=st.one_of(JSON, PROFILE))
def test_whatever_profile_is_given_is_taken_or_refused(profile: object) -> None:
    with contextlib.suppress(InvalidSpec):
        held = confined(f"seccomp={json.dumps(profile)}")
        assert held.seccomp is not None
        assert len(seccomp.compile_profile(held.seccomp)) >= 8
