"""Names as users write them, and sets as the kernel shows them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.linux import capabilities

ROOT = Path(__file__).resolve().parents[3]

CHILD = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from node.linux import capabilities as c
uid = int(sys.argv[2])
kept = c.DEFAULT
c.drop_bounding(kept)
c.keep_across_setuid()
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
c.set_caps(effective=["CAP_CHOWN"], permitted=kept, inheritable=["CAP_KILL"], ambient=["CAP_KILL"])
print(json.dumps(c.current()))
try:
    c.set_caps(effective=[], permitted=["CAP_SYS_ADMIN"])
except PermissionError:
    print("refused")
"""


def test_what_users_write() -> None:
    assert capabilities.parse(["net_admin", "CAP_CHOWN", " Cap_Chown "]) == ("CAP_CHOWN", "CAP_NET_ADMIN")
    assert capabilities.parse(["all"], last=2) == ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH")


@pytest.mark.parametrize(("written", "says"), [("SYS_MAGIC", "unknown capability: 'SYS_MAGIC'"), ("", "unknown")])
def test_unknown_names_are_named(written: str, says: str) -> None:
    with pytest.raises(capabilities.UnknownCapability, match=says):
        capabilities.parse([written])
    with pytest.raises(capabilities.UnknownCapability, match="this kernel does not have"):
        capabilities.parse(["BPF"], last=37)


def test_the_list_is_the_kernels() -> None:
    assert capabilities.ALL[0] == "CAP_CHOWN"
    assert capabilities.ALL[21] == "CAP_SYS_ADMIN"
    assert capabilities.ALL[40] == "CAP_CHECKPOINT_RESTORE"
    assert len(capabilities.ALL) == 41
    assert (len(capabilities.DEFAULT), len(capabilities.DOCKER)) == (11, 14)
    assert 0 < capabilities.last_cap() <= 40


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, 1234])
def test_the_kernel_has_what_was_asked_for(uid: int) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", "-c", CHILD, str(ROOT), str(uid)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown, refused = done.stdout.splitlines()
    sets = json.loads(shown)
    default = [name for name in capabilities.ALL if name in capabilities.DEFAULT]
    assert sets == {"bounding": default, "permitted": default, "effective": ["CAP_CHOWN"],
                    "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    assert refused == "refused"
