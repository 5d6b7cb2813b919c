"""The gRPC transport under TLS: who is let in, who is not, and keys that nobody sees."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from he_backend.errors import ParameterError, TransportError
from he_backend.protocol.grpc_transport import ClientTls, GrpcLink, ServerTls, serve
from he_backend.protocol.session import answering
from tests.protocol.calls import call, echo


def certificate(name: str, issuer=None):
    """(key PEM, certificate PEM, issuer for others) of a fresh P-256 key; signed by itself without `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = issuer or (subject, key)
    now = datetime.datetime(2024, 1, 1)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(issuer_name, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key_pem, signed.public_bytes(pem), (subject, key)


@pytest.fixture(scope="module")
def ca():
    return certificate("ca")


@pytest.fixture(scope="module")
def server_tls(ca):
    return ServerTls(*certificate("he-server", ca[2])[:2])


def test_tls(start, ca, server_tls):
    _, link = start(tls=server_tls, link_options={"tls": ClientTls(roots=ca[1], server_name="he-server")})

    assert call(link)[1] == b"abc"


def test_tls_refuses_a_server_of_another_authority(start, server_tls):
    options = {"tls": ClientTls(roots=certificate("another")[1]), "connect_timeout_s": 1.0}
    _, link = start(tls=server_tls, link_options=options)

    with pytest.raises(TransportError, match="no connection"):
        call(link)


def test_tls_refuses_a_client_in_the_clear(start, server_tls):
    _, link = start(tls=server_tls, link_options={"connect_timeout_s": 1.0})

    with pytest.raises(TransportError):
        call(link)


def test_mutual_tls_wants_a_client_certificate(start, ca, server_tls):
    mutual = ServerTls(server_tls.key, server_tls.certificate, client_roots=ca[1])
    client = ClientTls(ca[1], *certificate("client", ca[2])[:2])
    server, link = start(tls=mutual, link_options={"tls": client})
    bare = GrpcLink(f"127.0.0.1:{server.port}", connect_timeout_s=1.0, tls=ClientTls(ca[1]))

    assert call(link)[1] == b"abc"
    with pytest.raises(TransportError):
        call(bare)
    bare.close()


def test_tls_material_that_is_none():
    with pytest.raises(TransportError, match="TLS key or certificate damaged"):
        serve(answering(echo), "127.0.0.1:0", tls=ServerTls(b"no key", b"no certificate"))
    with pytest.raises(ParameterError, match="both its key and the certificate"):
        GrpcLink("localhost:1", tls=ClientTls(key=b"k"))


def test_keys_are_not_shown(server_tls):
    assert "PRIVATE KEY" not in repr(server_tls)
    assert "secret" not in repr(ClientTls(key=b"secret", certificate=b"c"))
