"""Certificates and keys in PEM files, checked before they are used: readable, in time, made for each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from he_backend.errors import ParameterError

_SOON = timedelta(days=14)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """A certificate chain and its key: paths for OpenSSL, PEM bytes for gRPC."""

    certificate_path: str
    key_path: str
    certificate: bytes
    key: bytes = field(repr=False)


def load_identity(certificate: str, key: str, what: str) -> Identity:
    """A certificate with its key. `what` names the options in errors, such as "--tls-cert and --tls-key".

    Raises ParameterError when one is missing, unreadable, out of time, encrypted, or not made for the other.
    """
    if not certificate or not key:
        raise ParameterError(f"{what} belong together: give both files")
    chain, secret = read_file(certificate, what), read_file(key, what)
    leaf = _certificate(chain, certificate, what)
    check_time(leaf, certificate, what)
    try:
        private: Any = serialization.load_pem_private_key(secret, password=None)
    except TypeError:
        raise ParameterError(f"{what}: the key {key} is encrypted; give one without a passphrase, readable by this user alone") from None
    except ValueError:
        raise ParameterError(f"{what}: {key} holds no PEM private key") from None
    if _public(private.public_key()) != _public(leaf.public_key()):
        raise ParameterError(f"{what}: the key {key} is not that of the certificate {certificate}")
    return Identity(certificate, key, chain, secret)


def load_roots(path: str, what: str) -> bytes:
    """The PEM bytes of certificates to trust; raises ParameterError when there is none or the first is out of time."""
    data = read_file(path, what)
    check_time(_certificate(data, path, what), path, what)
    return data


def check_time(certificate: x509.Certificate, path: str, what: str) -> None:
    """Raises ParameterError when a certificate has expired or is not valid yet; logs when it soon will have."""
    now, (start, end) = datetime.now(timezone.utc), validity(certificate)
    if now > end:
        raise ParameterError(f"{what}: the certificate {path} has expired on {end:%Y-%m-%d %H:%M} UTC; renew it")
    if now < start:
        raise ParameterError(f"{what}: the certificate {path} is not valid before {start:%Y-%m-%d %H:%M} UTC; is the clock right?")
    if end - now < _SOON:
        _log.warning("the certificate %s expires on %s UTC", path, f"{end:%Y-%m-%d %H:%M}")


def validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """First and last moment, UTC; older versions of cryptography have them without a time zone."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate.not_valid_before.replace(tzinfo=timezone.utc), certificate.not_valid_after.replace(tzinfo=timezone.utc)


def read_file(path: str, what: str) -> bytes:
    """The bytes of a PEM file; raises ParameterError that names the option."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as problem:
        raise ParameterError(f"{what}: {path} cannot be read: {problem.strerror}") from None


def _certificate(data: bytes, path: str, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise ParameterError(f"{what}: {path} holds no PEM certificate") from None


def _public(key: Any) -> bytes:
    data: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data
