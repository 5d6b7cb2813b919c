"""A certificate authority for development: one command, then TLS and mutual TLS work between machines of one's own."""

from __future__ import annotations

import ipaddress
import os
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from he_backend.access.certificates import check_time
from he_backend.errors import EngineError, ParameterError

MOST_DAYS = 825
_CA_DAYS = 3650
_ALWAYS = ("localhost", "127.0.0.1", "::1")


class _Pair(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_dev_ca(folder: str | os.PathLike[str], hosts: Sequence[str] = (), days: int = 90, renew: bool = False) -> tuple[Path, ...]:
    """The files written into the folder: ca, server and client, each NAME.pem with NAME-key.pem (readable by their owner alone).

    The server's certificate is for `hosts` and always for localhost and this machine's name. With `renew`, server and client get new ones
    from the authority that is there. P-256 keys, SHA-256. Raises ParameterError, EngineError.
    """
    if type(days) is not int or not 0 < days <= MOST_DAYS:
        raise ParameterError(f"days: {days!r}; allowed: 1 to {MOST_DAYS}")
    root = Path(folder).expanduser()
    names = [_host(host) for host in dict.fromkeys([*_ALWAYS, socket.gethostname(), *hosts]) if host]
    there = root / "ca.pem"
    if there.exists() != renew:
        say = (
            "there is an authority already: --renew gives new certificates of it"
            if there.exists()
            else "there is no authority to renew from"
        )
        raise ParameterError(f"{root}: {say}")
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = []
        if renew:
            authority = _read(root)
        else:
            authority = _make("he-nn development authority", _CA_DAYS, None, [])
            written += _write(root, "ca", authority)
        server = _make("he-nn server", days, authority, names, ExtendedKeyUsageOID.SERVER_AUTH)
        client = _make("he-nn client", days, authority, [], ExtendedKeyUsageOID.CLIENT_AUTH)
        return (*written, *_write(root, "server", server), *_write(root, "client", client))
    except OSError as problem:
        raise EngineError(f"{root} cannot be written: {problem.strerror}") from None


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ParameterError(f"host: {host[:80]!r}; allowed: a host name in ASCII, or an IP address") from None


def _make(
    name: str, days: int, issuer: _Pair | None, hosts: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier | None = None
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_key_usage(signs=issuer is None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return _Pair(builder.sign(signer, hashes.SHA256()), key)


def _key_usage(signs: bool) -> x509.KeyUsage:
    off = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, **off)


def _read(root: Path) -> _Pair:
    try:
        certificate = x509.load_pem_x509_certificate((root / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((root / "ca-key.pem").read_bytes(), password=None)
    except (ValueError, TypeError):
        raise ParameterError(f"{root}: ca.pem or ca-key.pem is damaged; make a new authority in another folder") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ParameterError(f"{root}: ca-key.pem is not a key of this command's; make a new authority in another folder")
    check_time(certificate, str(root / "ca.pem"), "dev-ca")
    return _Pair(certificate, key)


def _write(root: Path, name: str, pair: _Pair) -> list[Path]:
    secret = pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = (
        (root / f"{name}.pem", pair.certificate.public_bytes(serialization.Encoding.PEM), 0o644),
        (root / f"{name}-key.pem", secret, 0o600),
    )
    for path, data, mode in files:
        if path.exists():
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    return [path for path, _, _ in files]
