"""Who a client certificate stands for."""

import ssl

import pytest
import trustme

from ocispec.errors import InvalidArgument
from registry.auth.certificates import CertificateNames, read
from registry.auth.challenge import LoginRequired
from registry.auth.principal import ClientCertificate, Kind


def certificate(*names: str, common_name: str = "") -> ClientCertificate:
    return ClientCertificate(common_name, names, "00")


@pytest.mark.parametrize(("field", "names", "name"), [
    ("cn", (), "node-7"), ("dns", ("DNS:node-7.test", "URI:x"), "node-7.test"),
    ("uri", ("URI:spiffe://test/node/7", "DNS:a"), "spiffe://test/node/7"), ("email", ("EMAIL:a@b.test",), "a@b.test"),
])
def test_the_chosen_field_names_the_client(field, names, name) -> None:
    who = CertificateNames(field).principal(certificate(*names, common_name="node-7"))
    assert (who.name, who.kind, who.admin) == (name, Kind.CERTIFICATE, False)


@pytest.mark.parametrize(("field", "shown"), [
    ("cn", certificate("DNS:a")), ("dns", certificate("DNS:a", "DNS:b")), ("uri", certificate("DNS:a")),
    ("cn", certificate(common_name="a\nb")), ("cn", certificate(common_name="x" * 300)),
])
def test_a_certificate_without_one_such_name_is_nobodys(field, shown) -> None:
    with pytest.raises(LoginRequired):
        CertificateNames(field).principal(shown)


def test_an_unknown_field() -> None:
    with pytest.raises(InvalidArgument):
        CertificateNames("serial")


def test_two_common_names_are_none() -> None:
    parsed = {"subject": ((("commonName", "a"),), (("commonName", "b"),)), "subjectAltName": (("DNS", "x"),)}
    assert read(parsed, b"raw").common_name == ""


def test_a_real_certificate(tmp_path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("node-7.test", common_name="node-7")
    file = tmp_path / "cert.pem"
    made.cert_chain_pems[0].write_to_path(str(file))
    parsed = ssl._ssl._test_decode_cert(str(file))
    found = read(parsed, b"raw")
    assert (found.common_name, found.names) == ("node-7", ("DNS:node-7.test",))
