"""An S3 server of our own: Ceph's radosgw, a real one, where Debian's packages are there; moto's otherwise.

radosgw needs a monitor and a storage daemon. Both run upon a folder in memory, as whoever runs the tests, on free ports
of the loopback interface, and are up in about ten seconds.
"""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACCESS, SECRET = "seawallaccess", "seawallsecret"
BUCKET = "seawall-tests"
KMS_KEY = "seawall-key"
PART = 64 * 1024
"""The servers take smaller parts than S3 does, so that small tests have many."""

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")
STARTING = 60.0


@dataclass(frozen=True, slots=True)
class S3Server:
    kind: str
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def faithful(self) -> bool:
        """Whether it is a real server: moto knows no checksums and invents times."""
        return self.kind == "radosgw"

    def client(self):
        import boto3  # late: only some tests need a bucket
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET,
            region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """With an empty bucket BUCKET. SEAWALL_TEST_S3 chooses: `radosgw` or `moto`."""
    kind = os.environ.get("SEAWALL_TEST_S3") or ("radosgw" if all(map(shutil.which, PROGRAMS)) else "moto")
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="seawall-s3-", dir=shm if shm.is_dir() else None))
    try:
        with (radosgw if kind == "radosgw" else moto)(folder) as server:
            server.client().create_bucket(Bucket=BUCKET)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, folder, S3_UPLOAD_PART_MIN_SIZE=str(PART)):
        await_http(port)
        yield S3Server("moto", port)


@contextlib.contextmanager
def radosgw(folder: Path) -> Iterator[S3Server]:
    port, monitor = free_port(), free_port()
    cluster, disk = str(uuid.uuid4()), str(uuid.uuid4())
    address = f"[v2:127.0.0.1:{monitor}]"
    for name in ("mon", "osd", "run"):
        (folder / name).mkdir()
    (folder / "conf").write_text(settings(folder, cluster, address))

    def run(*command: str) -> None:
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=STARTING)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    for name, rights in (("mon.", ["mon", "allow *"]), ("client.admin", ["mon", "allow *", "osd", "allow *"]),
                         ("osd.0", ["mon", "allow profile osd", "osd", "allow *"])):
        caps = [word for kind, cap in zip(rights[::2], rights[1::2], strict=True) for word in ("--cap", kind, cap)]
        run("ceph-authtool", "keyring", *(() if (folder / "keyring").exists() else ("-C",)), "--gen-key", "-n", name,
            *caps)
    run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, "monmap")
    run("ceph-mon", "-c", "conf", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
    with contextlib.ExitStack() as stack:
        stack.enter_context(process(["ceph-mon", "-c", "conf", "-i", "a", "-f"], folder))
        run("ceph", "-c", "conf", "osd", "new", disk)
        run("ceph-osd", "-c", "conf", "-i", "0", "--mkfs", "--osd-uuid", disk)
        stack.enter_context(process(["ceph-osd", "-c", "conf", "-i", "0", "-f"], folder))
        run("radosgw-admin", "-c", "conf", "user", "create", "--uid=seawall", "--display-name=seawall",
            f"--access-key={ACCESS}", f"--secret={SECRET}")
        stack.enter_context(process(["radosgw", "-c", "conf", "-n", "client.admin", "-f", "--no-mon-config",
                                     f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"], folder))
        await_http(port)
        yield S3Server("radosgw", port)


def settings(folder: Path, cluster: str, address: str) -> str:
    """One of everything, nothing on a disk, nothing waited for."""
    values = {
        "fsid": cluster, "mon_initial_members": "a", "mon_host": address, "keyring": folder / "keyring",
        "run_dir": folder / "run", "admin_socket": "", "pid_file": "", "log_file": folder / "$name.log",
        "mon_data": folder / "mon", "osd_data": folder / "osd", "crash_dir": folder,
        "public_addr": "127.0.0.1", "cluster_addr": "127.0.0.1", "ms_bind_msgr1": "false",
        "osd_objectstore": "memstore", "memstore_device_bytes": 4 << 30,
        "osd_pool_default_size": 1, "osd_pool_default_min_size": 1, "osd_pool_default_pg_num": 1,
        "osd_pool_default_pgp_num": 1, "osd_pool_default_pg_autoscale_mode": "off", "mon_allow_pool_size_one": "true",
        "osd_crush_chooseleaf_type": 0, "mon_max_pg_per_osd": 1000, "mon_data_avail_crit": 1,
        "paxos_propose_interval": 0.01, "paxos_min_wait": 0.005, "mon_tick_interval": 1,
        "rgw_multipart_min_part_size": PART,
        "rgw_enable_gc_threads": "false", "rgw_enable_lc_threads": "false", "rgw_enable_quota_threads": "false",
        "rgw_run_sync_thread": "false", "rgw_crypt_require_ssl": "false", "rgw_crypt_s3_kms_backend": "testing",
        "rgw_crypt_s3_kms_encryption_keys": f"{KMS_KEY}={base64.b64encode(b'k' * 32).decode()}",
    }
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


@contextlib.contextmanager
def process(command: list[str], folder: Path, **environment: str) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.out").open("ab") as out:
        started = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **environment})
    try:
        yield
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()


def await_http(port: int) -> None:
    deadline = time.monotonic() + STARTING
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
