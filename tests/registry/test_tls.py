"""New certificates without a restart, and what TLS we speak."""

import asyncio
import shutil
import socket
import ssl
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from registry.settings import InvalidSettings, TlsSettings
from registry.telemetry.families import RELOADS
from registry.tls import Certificates, make_context


class Issued:
    """A certificate for `registry.test` by an authority of its own."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("registry.test", "127.0.0.1")
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        for number, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(str(self.certificate), append=number > 0)
        leaf.private_key_pem.write_to_path(str(self.key))

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def issued(tmp_path) -> list[Issued]:
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made.append(Issued(tmp_path / name))
    return made


@pytest.fixture
def live(tmp_path, issued) -> TlsSettings:
    """Files that hold the first certificate."""
    put(issued[0], tmp_path)
    return TlsSettings(certificate=str(tmp_path / "tls.crt"), key=str(tmp_path / "tls.key"), reload_every=0)


def put(issued: Issued, folder: Path) -> None:
    """As tools do it: a new file in the old one's place."""
    for file in (issued.certificate, issued.key):
        shutil.copy(file, folder / "new")
        (folder / "new").rename(folder / file.name)


async def speak(reader, writer) -> int:
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split()[1])


async def greet(api, issued: Issued) -> bool:
    """Whether a new connection meets this certificate."""
    try:
        reader, writer = await asyncio.open_connection(*api.address, ssl=issued.client(), server_hostname="registry.test")
    except ssl.SSLCertVerificationError:
        return False
    assert await speak(reader, writer) == 200
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_new_certificate_and_the_old_connections(serve, settings, live, issued, tmp_path) -> None:
    async with serve(replace(settings, tls=live)) as api:
        reader, writer = await asyncio.open_connection(*api.address, ssl=issued[0].client(),
                                                       server_hostname="registry.test")
        assert await speak(reader, writer) == 200
        put(issued[1], tmp_path)
        assert await greet(api, issued[0])
        assert api.certificates.reload()
        assert await greet(api, issued[1])
        assert not await greet(api, issued[0])
        assert await speak(reader, writer) == 200  # it goes on with what it was made with
        writer.close()
        counted = dict(api.registry.telemetry.numbers.board.used(RELOADS))
        assert counted == {("ok",): [1.0]}


@pytest.mark.parametrize("damage", ["gone", "garbage", "another key", "half"])
async def test_what_is_no_certificate_changes_nothing(serve, settings, live, issued, tmp_path, damage, caplog) -> None:
    async with serve(replace(settings, tls=live)) as api:
        certificate = Path(live.certificate)
        match damage:
            case "gone":
                certificate.unlink()
            case "garbage":
                certificate.write_text("nonsense")
            case "another key":
                shutil.copy(issued[1].key, live.key)
            case "half":
                shutil.copy(issued[1].certificate, live.certificate)  # its key comes a moment later
        assert not api.certificates.reload()
        assert "going on with the one before" in caplog.text
        assert await greet(api, issued[0])


async def test_files_that_change_are_noticed(serve, settings, live, issued, tmp_path, until) -> None:
    async with serve(replace(settings, tls=replace(live, reload_every=0.02))) as api:
        watching = asyncio.create_task(api.certificates.watch())
        put(issued[1], tmp_path)
        await until(lambda: greet(api, issued[1]))
        watching.cancel()


@pytest.mark.parametrize(("lowest", "version", "good"), [
    ("1.2", ssl.TLSVersion.TLSv1_1, False), ("1.2", ssl.TLSVersion.TLSv1_2, True),
    ("1.3", ssl.TLSVersion.TLSv1_2, False), ("1.3", ssl.TLSVersion.TLSv1_3, True)])
async def test_old_versions_are_refused(serve, settings, live, issued, lowest, version, good) -> None:
    client = issued[0].client()
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    with pytest.warns(DeprecationWarning) if version is ssl.TLSVersion.TLSv1_1 else nullcontext():
        client.minimum_version = version
        client.maximum_version = version
    async with serve(replace(settings, tls=replace(live, minimum=lowest))) as api:
        try:
            _, writer = await asyncio.open_connection(*api.address, ssl=client, server_hostname="registry.test")
        except (ssl.SSLError, ConnectionError):
            assert not good
        else:
            assert good
            writer.close()


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA"])
async def test_weak_ciphers_are_refused(serve, settings, live, issued, cipher) -> None:
    client = issued[0].client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    async with serve(replace(settings, tls=live)) as api:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(*api.address, ssl=client, server_hostname="registry.test")


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path, live, issued) -> None:
    from cryptography.hazmat.primitives import serialization
    key = serialization.load_pem_private_key(issued[0].key.read_bytes(), None)
    Path(live.key).write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                 serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(InvalidSettings, match="encrypted"):
        make_context(live)


async def test_plain_http_has_nothing_to_reload() -> None:
    told: list[bool] = []
    certificates = Certificates(TlsSettings(), told.append)
    assert certificates.context is None
    assert certificates.reload()
    await asyncio.wait_for(certificates.watch(), 1)
    assert told == []


async def test_noise_instead_of_a_handshake_harms_nobody(serve, settings, live, issued) -> None:
    async with serve(replace(settings, tls=live)) as api:
        with socket.create_connection(api.address) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await greet(api, issued[0])
