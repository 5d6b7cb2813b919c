"""The development authority, the check of certificates before use, and what a client shows to whom."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from he_backend.access.certificates import load_identity, load_roots, validity
from he_backend.access.credentials import Credentials, is_loopback, read_token
from he_backend.access.dev_ca import make_dev_ca
from he_backend.access.exposure import Exposure
from he_backend.access.renewal import RenewedIdentity
from he_backend.errors import ParameterError
from tests.certificates import expired

WHAT = "--tls-cert and --tls-key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls") / "ca"
    make_dev_ca(folder, ["he.example.org", "10.0.0.7"])
    return folder


def pair(folder, name):
    return str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem")


def shake(server, client, host):
    """Both ends of a handshake in memory."""
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(*wires, server_side=True), client.wrap_bio(*reversed(wires), server_hostname=host)]
    for _ in range(6):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1].getpeercert()


def test_the_authority_signs_a_server_and_a_client(authority):
    from he_backend.access.tls_contexts import client_context, server_context

    server = server_context(RenewedIdentity(*pair(authority, "server"), WHAT), str(authority / "ca.pem"))
    client = client_context(str(authority / "ca.pem"), load_identity(*pair(authority, "client"), WHAT))

    for host in ("localhost", "127.0.0.1", "he.example.org", "10.0.0.7"):
        assert shake(server, client, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(server, client, "other.example.org")
    with pytest.raises(ssl.SSLError):
        shake(server, client_context(str(authority / "ca.pem")), "localhost")  # shows no certificate
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client_context(), "localhost")  # does not know the authority
    assert server.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_keys_are_the_owners_alone_and_not_shown(authority):
    for name in ("ca", "server", "client"):
        assert stat.S_IMODE(os.stat(authority / f"{name}-key.pem").st_mode) == 0o600
    assert "PRIVATE" not in repr(load_identity(*pair(authority, "server"), WHAT))


def test_renewed_certificates_are_of_the_same_authority(tmp_path):
    make_dev_ca(tmp_path / "ca")
    roots, before = (tmp_path / "ca" / "ca.pem").read_bytes(), (tmp_path / "ca" / "server.pem").read_bytes()

    written = make_dev_ca(tmp_path / "ca", days=5, renew=True)

    assert {path.name for path in written} == {"server.pem", "server-key.pem", "client.pem", "client-key.pem"}
    assert (tmp_path / "ca" / "ca.pem").read_bytes() == roots
    after = x509.load_pem_x509_certificate((tmp_path / "ca" / "server.pem").read_bytes())
    assert (tmp_path / "ca" / "server.pem").read_bytes() != before
    start, end = validity(after)
    assert (end - start).days == 5
    authority = x509.load_pem_x509_certificate(roots)
    algorithm = ec.ECDSA(after.signature_hash_algorithm)
    authority.public_key().verify(after.signature, after.tbs_certificate_bytes, algorithm)  # raises when it is not its issuer
    assert after.issuer == authority.subject


def test_what_dev_ca_refuses(authority, tmp_path):
    for arguments, says in (
        ((authority,), "there is an authority already: --renew"),
        ((tmp_path, (), 90, True), "no authority to renew"),
        ((tmp_path, (), 0), "days: 0; allowed"),
        ((tmp_path, ("é",)), "host: 'é'; allowed"),
    ):
        with pytest.raises(ParameterError, match=says):
            make_dev_ca(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_certificates_that_cannot_be_used_are_told_at_the_door(authority, tmp_path):
    certificate, key = pair(authority, "server")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    secret = serialization.load_pem_private_key((authority / "server-key.pem").read_bytes(), None)
    locked = tmp_path / "locked.pem"
    encrypted = serialization.BestAvailableEncryption(b"x")
    locked.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted))
    for given, says in (
        ((certificate, ""), "belong together"),
        ((certificate, str(tmp_path / "none.pem")), "cannot be read: No such file"),
        ((str(nothing), key), "holds no PEM certificate"),
        ((certificate, str(nothing)), "holds no PEM private key"),
        ((certificate, str(locked)), "is encrypted"),
        ((certificate, pair(authority, "client")[1]), "is not that of the certificate"),
        (expired(authority, tmp_path, "old"), "has expired on .* UTC; renew it"),
    ):
        with pytest.raises(ParameterError, match=says):
            load_identity(*given, WHAT)
    with pytest.raises(ParameterError, match="--client-ca: .* holds no PEM certificate"):
        load_roots(str(nothing), "--client-ca")


def test_renewed_files_are_shown_from_then_on_and_damaged_ones_are_not(tmp_path, caplog):
    make_dev_ca(tmp_path / "ca")
    identities = RenewedIdentity(*pair(tmp_path / "ca", "server"), WHAT)
    first = identities.current()
    assert identities.current() is first

    make_dev_ca(tmp_path / "ca", renew=True)
    second = identities.current()
    (tmp_path / "ca" / "server.pem").write_text("half writ")
    third = identities.current()

    assert second.certificate != first.certificate and third is second is identities.current()
    assert "was renewed" in caplog.text and caplog.text.count("stays the one before") == 1


# what a client shows


def test_credentials_come_from_the_environment(authority):
    ca = str(authority / "ca.pem")
    names = ("HE_NN_CLIENT_TOKEN", "HE_NN_TOKEN")

    assert Credentials.from_environment(names, {"HE_NN_TOKEN": " a ", "HE_NN_CLIENT_TOKEN": ""}).token == "a"
    assert Credentials.from_environment(names, {"HE_NN_TOKEN": "a", "HE_NN_CLIENT_TOKEN": "b"}).token == "b"
    assert Credentials.from_environment(environment={}) == Credentials()
    found = Credentials.from_environment(environment={"HE_NN_CA": ca, "HE_NN_ALLOW_PLAINTEXT": "yes"})
    assert found.tls and found.allow_plaintext and b"CERTIFICATE" in found.roots()
    for wrong in ({"HE_NN_CA": "/nothing"}, {"HE_NN_CERT": ca}, {"HE_NN_TOKEN": "a\nb"}, {"HE_NN_ALLOW_PLAINTEXT": "maybe"}):
        with pytest.raises(ParameterError):
            Credentials.from_environment(environment=wrong)


def test_a_token_crosses_no_network_in_the_clear_unless_told_to():
    given = Credentials("secret-token")

    assert given.token_for("127.0.0.1", False) == given.token_for("localhost", False) == given.token_for("he.example.org", True)
    with pytest.raises(ParameterError, match="in the clear") as refused:
        given.token_for("he.example.org", False)
    assert "secret-token" not in str(refused.value) + repr(given)
    assert Credentials("t", allow_plaintext=True).token_for("he.example.org", False) == "t"
    assert Credentials("t").without_secrets().token == ""


@pytest.mark.parametrize(
    "host, own",
    [("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("LOCALHOST", True), ("0.0.0.0", False), ("localhost.evil", False)],
)
def test_loopback(host, own):
    assert is_loopback(host) is own


def test_a_token_file_holds_one_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("hnn_x\n")

    assert read_token(str(path)) == "hnn_x"
    for text in ("", "x" * 201):
        path.write_text(text)
        with pytest.raises(ParameterError, match="holds no token"):
            read_token(str(path))


# where a service may listen

NOTHING = {"has_tokens": False, "has_tls": False, "wants_certificates": False}


@pytest.mark.parametrize(
    "host, given",
    [
        ("127.0.0.1", {}),
        ("::1", {"has_tokens": True}),
        ("0.0.0.0", {"has_tokens": True, "has_tls": True}),
        ("0.0.0.0", {"wants_certificates": True, "has_tls": True}),
        ("::", {"has_tokens": True, "allow_plaintext": True}),
        ("10.0.0.7", {"allow_anonymous": True, "has_tls": True}),
    ],
)
def test_where_a_service_may_listen(host, given):
    Exposure(host, **{**NOTHING, **given}).check()


@pytest.mark.parametrize(
    "host, given, says",
    [
        ("0.0.0.0", {}, "nobody would be asked for a token"),
        ("0.0.0.0", {"has_tls": True}, "nobody would be asked"),
        ("he.example.org", {"has_tokens": True}, "in the clear"),
        ("::", {"allow_anonymous": True}, "in the clear"),
        ("127.0.0.1", {"wants_certificates": True}, "needs TLS"),
    ],
)
def test_where_a_service_does_not_listen(host, given, says):
    with pytest.raises(ParameterError, match=says):
        Exposure(host, **{**NOTHING, **given}).check()
